"""From a pack's images to a training batch: kernels.crop_flip_color against one indexed gather in
torch, torch.compile of it, and a loop over the images with torchvision's transforms, where that is
installed. There is no backward pass."""

from functools import partial

import torch
from torch import Tensor

import alexnet_kernels as kernels
from kernel_benchmarks import measure
from kernel_benchmarks.measure import Case, Dims, Entry

NAME = "crop_flip_color"
SHAPES = {"input": (256, 224)}  # side of the stored image, side of the crop
TINY = {"input": (10, 6)}
SCALE = 1.0


def label(dims: Dims) -> str:
    return "{0}x{0}to{1}x{1}".format(*dims)


def floor(dims: Dims, batch: int, itemsize: int) -> dict[str, int]:
    """Reads the crops (uint8) and the float32 mean image once, writes the batch. Offsets, flips and
    shifts are not counted."""
    side, size = dims
    return {"forward": batch * 3 * size**2 * (1 + itemsize) + 3 * side**2 * 4}


# All take images (N, H, W, 3), offsets (N, 2), flips (N,), shift (N, 3), mean (H, W, 3) and the
# side of the crops, and give (N, 3, size, size).


def reference(
    images: Tensor, offsets: Tensor, flips: Tensor, shift: Tensor, mean: Tensor, size: int
) -> Tensor:
    """Image by image, in float64."""
    out = []
    for image, (top, left), flip, color in zip(images, offsets.tolist(), flips, shift.double()):
        crop = (image.double() - mean)[top : top + size, left : left + size] + color
        out.append(SCALE * (crop.flip(1) if flip else crop))
    return torch.stack(out).permute(0, 3, 1, 2)


def gather(
    images: Tensor, offsets: Tensor, flips: Tensor, shift: Tensor, mean: Tensor, size: int,
    out_dtype: torch.dtype, channels_last: bool,
) -> Tensor:  # fmt: skip
    """One gather by indices."""
    along = torch.arange(size, device=images.device)
    rows = (offsets[:, :1] + along)[:, :, None]  # (N, size, 1)
    across = torch.where(flips[:, None], size - 1 - along, along)
    cols = (offsets[:, 1:] + across)[:, None, :]  # (N, 1, size)
    numbers = torch.arange(len(images), device=images.device)[:, None, None]
    crops = images[numbers, rows, cols]  # (N, size, size, 3)
    out = SCALE * (crops - mean[rows, cols] + shift[:, None, None, :])
    out = out.to(out_dtype).permute(0, 3, 1, 2)
    return out if channels_last else out.contiguous()


def torchvision(
    images: Tensor, offsets: Tensor, flips: Tensor, shift: Tensor, mean: Tensor, size: int,
    out_dtype: torch.dtype, channels_last: bool,
) -> Tensor:  # fmt: skip
    """torchvision's transforms, image by image."""
    from torchvision.transforms.v2 import functional as transforms

    def crop(image: Tensor, top: int, left: int) -> Tensor:
        return transforms.crop(image.permute(2, 0, 1), top, left, size, size)

    out = []
    for image, corner, flip in zip(images, offsets.tolist(), flips.tolist()):
        difference = crop(image, *corner) - crop(mean, *corner)
        out.append(transforms.horizontal_flip(difference) if flip else difference)
    batch = (SCALE * (torch.stack(out) + shift[:, :, None, None])).to(out_dtype)
    return batch.contiguous(memory_format=measure.LAYOUTS["nhwc" if channels_last else "nchw"])


def entries(case: Case) -> list[Entry]:
    (side, size), n, dtype = case.dims, case.batch, measure.DTYPES[case.dtype]
    images = case.integers(256, n, side, side, 3, dtype=torch.uint8)
    offsets, flips = case.integers(side - size + 1, n, 2), case.integers(2, n, dtype=torch.bool)
    shift, mean = case.normal(n, 3, scale=10.0).float(), case.integers(256, side, side, 3).float()
    inputs = images, offsets, flips, shift, mean
    expected = reference(*inputs, size)

    def entry(peer: measure.Peer, layout: str) -> Entry:
        last = layout == "nhwc"

        def forward() -> Tensor:
            with measure.using(peer.mode):
                return peer.call(*inputs, size=size, out_dtype=dtype, channels_last=last)

        def check() -> float:
            measure.poison(torch.empty(expected.shape, dtype=dtype, device=case.device))
            out = forward()
            in_layout = out.is_contiguous(memory_format=measure.LAYOUTS[layout])
            return measure.error(out, expected) if in_layout else torch.nan

        capture = peer.name not in ("ours, composite", "torchvision")
        return Entry(peer.name, layout, forward, None, check, capture)

    peers = measure.ours(partial(kernels.crop_flip_color, scale=SCALE), reference)
    peers += measure.torchs(gather, reference)
    peers.append(measure.Peer("torchvision", torchvision, reference))
    return [entry(peer, layout) for layout in case.layouts for peer in peers]
