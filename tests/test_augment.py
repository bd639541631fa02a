"""Crops, reflections, color shifts and views."""

import numpy as np
import pytest
import torch

from alexnet.data.augment import Augment
from alexnet.errors import InputError
from alexnet.presets import Recipe

RNG = np.random.default_rng(0)
IMAGES = torch.from_numpy(RNG.integers(0, 256, (64, 20, 20, 3), dtype=np.uint8))
MEAN = RNG.uniform(100, 150, (20, 20, 3)).astype(np.float32)
VECTORS = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
COLOR = {"eigenvalues": np.array([9000.0, 900.0, 90.0]), "eigenvectors": VECTORS}
IDS = torch.arange(64)


def crops(x: torch.Tensor, mean: np.ndarray = MEAN) -> list[tuple[int, int, bool]]:
    """Which crop each image became, found by trying all."""
    found = []
    for image, out in zip(IMAGES.numpy().astype(np.float32), x.numpy(), strict=True):
        hits = [
            (t, left, flip)
            for t in range(5)
            for left in range(5)
            for flip in (False, True)
            if np.allclose(
                ((image - mean)[t : t + 16, left : left + 16][:, :: -1 if flip else 1]).transpose(
                    2, 0, 1
                ),
                out,
                atol=1e-3,
            )
        ]
        assert len(hits) == 1
        found.append(hits[0])
    return found


def test_crops_depend_on_seed_epoch_and_image_alone():
    augment = Augment(Recipe(color=None), MEAN, 16, COLOR, seed=3)
    x = augment.train(IMAGES, IDS, IDS, epoch=2)
    found = crops(x)
    assert (
        len(set(found)) > 25
        and {t for t, _, _ in found} == set(range(5))
        and 16 < sum(flip for _, _, flip in found) < 48
    )
    part = augment.train(IMAGES[10:20], IDS[10:20], IDS[:10], epoch=2)
    assert torch.equal(part, x[10:20])
    assert not torch.equal(augment.train(IMAGES, IDS, IDS, epoch=3), x)
    assert not torch.equal(
        Augment(Recipe(color=None), MEAN, 16, COLOR, seed=4).train(IMAGES, IDS, IDS, epoch=2), x
    )


def test_the_source_shares_crops_among_32_consecutive_images_and_centers_the_mean():
    augment = Augment(Recipe(color=None, crop_chunk=32, mean="center"), MEAN, 16, COLOR)
    x = augment.train(IMAGES, IDS.flip(0), IDS, epoch=0)
    # The center of the mean image is taken from every crop, before it is mirrored: the same as a
    # mean image that has that center everywhere.
    found = []
    for image, out in zip(IMAGES.numpy().astype(np.float32), x.numpy(), strict=True):
        views = {
            (t, left, flip): (image[t : t + 16, left : left + 16] - MEAN[2:18, 2:18])[
                :, :: -1 if flip else 1
            ].transpose(2, 0, 1)
            for t in range(5)
            for left in range(5)
            for flip in (False, True)
        }
        found.append(
            next(place for place, view in views.items() if np.allclose(view, out, atol=1e-3))
        )
    assert len(set(found[:32])) == len(set(found[32:])) == 1 and found[0] != found[32]


@pytest.mark.parametrize(
    ("reading", "reach"),
    [
        ("text", [9000 / 255, 900 / 255, 90 / 255]),
        ("text-255", [9000, 900, 90]),
        ("source", [9000**0.5, 30, 90**0.5]),
    ],
)
def test_color_shifts_have_the_stated_spread(reading, reach):
    """One shift per image, along the eigenvectors, with standard deviations 0.1 times the reading's
    reach, in gray levels."""
    images = torch.full((4000, 20, 20, 3), 128, dtype=torch.uint8)
    augment = Augment(
        Recipe(color=reading, crops="center", flips=False),
        np.full((20, 20, 3), 128.0, np.float32),
        16,
        COLOR,
    )
    x = augment.train(images, torch.arange(4000), torch.arange(4000), epoch=0)
    assert torch.equal(x[:, :, 0, 0], x[:, :, 9, 5])
    shift = x[:, :, 0, 0].double().numpy() * (1.1 if reading == "source" else 1.0)
    along = shift @ VECTORS
    np.testing.assert_allclose(along.std(0), 0.1 * np.array(reach), rtol=0.05)
    np.testing.assert_allclose(np.corrcoef(along.T), np.eye(3), atol=0.06)


def test_color_off_takes_the_sources_division_with_it():
    augment = Augment(Recipe(color="source", crops="center"), MEAN, 16, COLOR)
    plain = augment.train(IMAGES, IDS, IDS, 0, color=False)
    assert torch.equal(plain, augment.view(IMAGES, 2, 2, False))


def test_ten_views_are_corners_center_and_reflections():
    augment = Augment(Recipe(), MEAN, 16)
    views = list(augment.views(IMAGES, 10))
    assert len(views) == 10
    places = ((0, 0), (0, 4), (2, 2), (4, 0), (4, 4))
    assert [crops(view)[0] for view in views] == [
        (t, left, f) for t, left in places for f in (False, True)
    ]
    (one,) = augment.views(IMAGES, 1)
    assert torch.equal(one, views[4])


def test_a_crop_larger_than_the_images_is_named():
    with pytest.raises(InputError, match="20 pixels wide"):
        Augment(Recipe(), MEAN, 24)


@pytest.mark.gpu
@pytest.mark.parametrize("color", ["text", "source"])
def test_a_gpu_makes_the_same_views(color):
    cpu, gpu = (Augment(Recipe(color=color), MEAN, 16, COLOR, seed=3) for _ in range(2))
    assert torch.equal(gpu.train(IMAGES.cuda(), IDS, IDS, 4).cpu(), cpu.train(IMAGES, IDS, IDS, 4))
    for on_gpu, on_cpu in zip(gpu.views(IMAGES.cuda(), 10), cpu.views(IMAGES, 10), strict=True):
        assert torch.equal(on_gpu.cpu(), on_cpu)
