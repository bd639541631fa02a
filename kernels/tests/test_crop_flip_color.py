"""From uint8 images to a training batch."""

import pytest
import torch
from references import OWN_FORMS, form, is_dense, rand

import alexnet_kernels as kernels


def definition(images, offsets, flips, shift, mean, size, scale):
    out = torch.empty(len(images), 3, size, size)
    for n, (top, left) in enumerate(offsets.tolist()):
        rows, columns = slice(top, top + size), slice(left, left + size)
        average = mean if len(mean) == size else mean[rows, columns]
        crop = (images[n, rows, columns].float() - average + shift[n]) * scale
        out[n] = (crop.flip(1) if flips[n] else crop).permute(2, 0, 1)
    return out


@pytest.mark.parametrize("in_form", OWN_FORMS)
@pytest.mark.parametrize("mean_size", [10, 6])
def test_to_the_bit(in_form, mean_size):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (5, 10, 10, 3), dtype=torch.uint8, generator=generator)
    offsets = torch.tensor([[0, 0], [4, 4], [1, 3], [4, 0], [2, 2]])
    flips = torch.tensor([False, True, True, False, False])
    shift, mean = (rand(*s, dtype=torch.float32) for s in ((5, 3), (mean_size, mean_size, 3)))
    expected = definition(images, offsets, flips, shift, mean, 6, 0.3)
    with form(in_form) as device:
        given = [t.to(device) for t in (images, offsets, flips, shift, mean)]
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for last in (False, True):
                batch = kernels.crop_flip_color(*given, 6, 0.3, dtype, last)
                assert torch.equal(batch.cpu(), expected.to(dtype))
                assert is_dense(batch, "nhwc" if last else "nchw")
        # steps through memory, and other types
        wide = images.repeat_interleave(2, 2).to(device)[:, :, ::2]
        steps = flips.repeat_interleave(2).to(device)[::2]
        other = wide, given[1].int(), steps, given[3].double(), given[4].double()
        assert torch.equal(kernels.crop_flip_color(*other, 6, 0.3).cpu(), expected)


IMAGES = torch.zeros(2, 5, 5, 3, dtype=torch.uint8)
OFFSETS, FLIPS, SHIFT = torch.zeros(2, 2).long(), torch.zeros(2).bool(), torch.zeros(2, 3)
MEAN = torch.zeros(5, 5, 3)


def test_it_has_no_gradient():
    batch = kernels.crop_flip_color(IMAGES, OFFSETS, FLIPS, SHIFT.clone().requires_grad_(), MEAN, 4)
    with pytest.raises(RuntimeError, match="crop_flip_color has no gradient"):
        batch.sum().backward()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGES.float(), OFFSETS, FLIPS, SHIFT, MEAN, 4), "uint8"),
        ((IMAGES, OFFSETS + 2, FLIPS, SHIFT, MEAN, 4), "leaves the 5 x 5"),
        ((IMAGES, OFFSETS - 1, FLIPS, SHIFT, MEAN, 4), "leaves the 5 x 5"),
        ((IMAGES, OFFSETS, FLIPS, SHIFT, torch.zeros(6, 6, 3), 6), "larger than the 5 x 5"),
        ((IMAGES, OFFSETS, FLIPS, SHIFT, torch.zeros(3, 3, 3), 4), "mean must be"),
        ((IMAGES, OFFSETS, FLIPS.int(), SHIFT, MEAN, 4), "flips must be bool"),
        ((IMAGES, OFFSETS[:1], FLIPS, SHIFT, MEAN, 4), r"must be \(2, 2\)"),
        ((IMAGES, OFFSETS, FLIPS, SHIFT, MEAN, -1), "size must be positive"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        kernels.crop_flip_color(*arguments)
