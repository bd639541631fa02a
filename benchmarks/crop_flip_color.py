"""From a pack's images to a training batch: kernels.crop_flip_color against one indexed gather in torch, torch.compile of it, and a loop
over the images with torchvision's transforms. There is no backward pass."""

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

import alexnet_kernels as kernels
from benchmarks import measure, script

NAME = "crop_flip_color"
SHAPES = {"input": (256, 224)}  # side of the stored image, side of the crop
TINY = {"input": (10, 6)}
SCALE = 1.0


def label(dims: tuple[int, ...]) -> str:
    return "{0}x{0}to{1}x{1}".format(*dims)


def floor(dims: tuple[int, ...], batch: int, itemsize: int) -> dict[str, int]:
    """Reads the crops (uint8) and the float32 mean image once, writes the batch. Offsets, flips and shifts are not counted."""
    side, size = dims
    return {"forward": batch * 3 * size**2 * (1 + itemsize) + 3 * side**2 * 4}


def reference(
    images: Tensor, offsets: Tensor, flips: Tensor, shift: Tensor, mean: Tensor, size: int
) -> Tensor:
    """Image by image, in float64."""
    out = []
    for image, (top, left), flip, color in zip(
        images, offsets.tolist(), flips.tolist(), shift.double()
    ):
        crop = (image.double() - mean)[top : top + size, left : left + size] + color
        out.append(SCALE * (crop.flip(1) if flip else crop))
    return torch.stack(out).permute(0, 3, 1, 2)


def gather(
    images: Tensor,
    offsets: Tensor,
    flips: Tensor,
    shift: Tensor,
    mean: Tensor,
    size: int,
    out_dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    along = torch.arange(size, device=images.device)
    rows = (offsets[:, :1] + along)[:, :, None]  # (N, size, 1)
    cols = (offsets[:, 1:] + torch.where(flips[:, None], size - 1 - along, along))[
        :, None, :
    ]  # (N, 1, size)
    crops = images[
        torch.arange(len(images), device=images.device)[:, None, None], rows, cols
    ]  # (N, size, size, 3)
    out = (
        (SCALE * (crops - mean[rows, cols] + shift[:, None, None, :]))
        .to(out_dtype)
        .permute(0, 3, 1, 2)
    )
    return out if channels_last else out.contiguous()


def torchvision(
    images: Tensor,
    offsets: Tensor,
    flips: Tensor,
    shift: Tensor,
    mean: Tensor,
    size: int,
    out_dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    out = []
    for image, (top, left), flip in zip(images, offsets.tolist(), flips.tolist()):
        crop, average = (
            transforms.crop(t.permute(2, 0, 1), top, left, size, size) for t in (image, mean)
        )
        crop = crop - average
        out.append(transforms.horizontal_flip(crop) if flip else crop)
    batch = (SCALE * (torch.stack(out) + shift[:, :, None, None])).to(out_dtype)
    return batch.contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


def entries(case: measure.Case) -> list[measure.Entry]:
    (side, size), n, device = case.dims, case.batch, case.device
    images, flips = (
        case.integers(256, n, side, side, 3, dtype=torch.uint8),
        case.integers(2, n, dtype=torch.bool),
    )
    offsets = case.integers(side - size + 1, n, 2)  # top, left
    shift, mean = case.normal(n, 3, scale=10.0).float(), case.integers(256, side, side, 3).float()
    inputs = images, offsets, flips, shift, mean
    expected = reference(*inputs, size)

    def entry(
        name: str,
        call: Callable[..., Tensor],
        layout: str,
        mode: str | None = None,
        capture: bool = True,
    ) -> measure.Entry:
        call = partial(
            call,
            *inputs,
            size=size,
            out_dtype=measure.DTYPES[case.dtype],
            channels_last=layout == "nhwc",
        )

        def forward() -> Tensor:
            with measure.using(mode):
                return call()

        def check() -> float:
            measure.poison(
                torch.empty(expected.shape, dtype=measure.DTYPES[case.dtype], device=device)
            )
            out = forward()
            in_layout = out.is_contiguous(memory_format=measure.LAYOUTS[layout])
            return measure.error(out, expected) if in_layout else torch.nan

        return measure.Entry(name, layout, forward, None, check, capture)

    compiled = torch.compile(gather, dynamic=False, fullgraph=True)
    ours = partial(kernels.crop_flip_color, scale=SCALE)
    return [
        each
        for layout in case.layouts
        for each in (
            entry("ours", ours, layout, "auto"),
            entry("ours, again", ours, layout, "auto"),
            entry("ours, composite", ours, layout, "composite", capture=False),
            entry("torch", gather, layout),
            entry("torch.compile", compiled, layout),
            entry("torchvision", torchvision, layout, capture=False),
        )
    ]


if __name__ == "__main__":
    sys.exit(script.main(sys.modules[__name__]))
