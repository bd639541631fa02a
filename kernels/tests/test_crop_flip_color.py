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


@pytest.mark.parametrize("in_form", OWN_FORMS)
@pytest.mark.parametrize(
    ("size", "block", "side"),
    [(7, 1, 9), (7, 4, 12), (8, 4, 12), (6, 3, 6), (7, 3, 6), (300, 4, 304)],
    ids=str,
)
def test_gathered_and_in_blocks_to_the_bit(in_form, size, block, side):
    """Pixel by pixel: 300 of them take two programs a row; 7 in blocks of 3 leave one over."""
    generator, large = torch.Generator().manual_seed(2), size + 3
    shape, n = (4, large, large + 1, 3), 3 if size < 100 else 1
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    index, offsets = torch.tensor([3, 0, 3])[:n], torch.tensor([[0, 4], [3, 0], [1, 2]])[:n]
    flips = torch.tensor([True, False, True])[:n]
    shift, mean = (rand(*s, dtype=torch.float32) for s in ((n, 3), shape[1:]))
    crops = definition(images[index], offsets, flips, shift, mean, size, 0.3)
    expected, grid = torch.zeros(n, 3 * block**2, side // block, side // block), side // block
    for i in range(block):
        for j in range(block):
            own = crops[:, :, i : grid * block : block, j : grid * block : block]
            first = 3 * (i * block + j)
            expected[:, first : first + 3, : own.shape[2], : own.shape[3]] = own
    with form(in_form) as device:
        given = [t.to(device) for t in (images, offsets, flips, shift, mean)]
        for dtype, last in ((torch.float32, False), (torch.bfloat16, True), (torch.float16, False)):
            settings = (size, 0.3, dtype, last, index.int().to(device), block, side)
            batch = kernels.crop_flip_color(*given, *settings)
            assert torch.equal(batch.cpu(), expected.to(dtype))
            assert is_dense(batch, "nhwc" if last else "nchw")


@pytest.mark.parametrize("in_form", ["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_what_lies_outside_is_moved_back(in_form):
    """Nobody may look at values on a device."""
    images = torch.arange(2 * 75, dtype=torch.uint8).view(2, 5, 5, 3)
    from alexnet_kernels.crop_flip_color import operator

    with form(in_form) as device:
        where = torch.tensor([[9, -9], [-9, 9], [0, 0]]), torch.zeros(3).bool(), torch.zeros(3, 3)
        given = [t.to(device) for t in (images, *where, MEAN, torch.tensor([-1, 2, 7]))]
        batch = operator(*given, 3, 1.0, torch.float32, False, 1, 3).cpu()
    for crop, (number, top, left) in zip(batch, [(0, 2, 0), (1, 0, 2), (1, 0, 0)], strict=True):
        own = images[number, top : top + 3, left : left + 3]
        assert torch.equal(crop, own.permute(2, 0, 1).float())


IMAGES = torch.zeros(2, 5, 5, 3, dtype=torch.uint8)
OFFSETS, FLIPS, SHIFT = torch.zeros(2, 2).long(), torch.zeros(2).bool(), torch.zeros(2, 3)
MEAN = torch.zeros(5, 5, 3)
GIVEN = IMAGES, OFFSETS, FLIPS, SHIFT, MEAN, 4, 1.0


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
        ((*GIVEN, torch.float32, False, torch.tensor([0, 2])), r"index must be in 0\.\.1"),
        ((*GIVEN, torch.float32, False, torch.tensor([0.0, 1.0])), "index must be integers"),
        ((*GIVEN, torch.float32, False, torch.tensor([0])), r"must be \(1, 2\)"),
        ((*GIVEN, torch.float32, False, None, 2, 5), "side a multiple of it; they are 2 and 5"),
        ((*GIVEN, torch.float32, False, None, 0, 4), "block must be positive"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        kernels.crop_flip_color(*arguments)
