"""From a pack's images to a training batch in one pass (sections 2 and 4.1 of the paper).

Crop, mirror, subtract the mean, shift the color.
"""

import torch
from torch import Tensor

from alexnet_kernels import _check, _native
from alexnet_kernels._operator import define


@define("crop_flip_color")
def operator(
    images: Tensor,
    offsets: Tensor,
    flips: Tensor,
    color_shift: Tensor,
    mean: Tensor,
    size: int,
    scale: float,
    out_dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    return torch.empty(
        (images.shape[0], 3, size, size),
        dtype=out_dtype,
        device=images.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def _is_cropped(mean: Tensor, images: Tensor) -> bool:
    """Whether the mean image is as large as the images, and cropped with them."""
    return mean.shape == images.shape[1:]


def _contiguous(
    offsets: Tensor, flips: Tensor, color_shift: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The small inputs, as kernels read them."""
    return (
        offsets.to(torch.int64).contiguous(),
        flips.contiguous(),
        color_shift.float().contiguous(),
        mean.float().contiguous(),
    )


@operator.form("composite")
def _(out, images, offsets, flips, color_shift, mean, size, scale, *_):
    cropped, mean, color_shift = _is_cropped(mean, images), mean.float(), color_shift.float()
    places = zip(offsets.tolist(), flips.tolist(), strict=True)
    for i, ((top, left), flip) in enumerate(places):  # slices beat one big gather
        crop = slice(top, top + size), slice(left, left + size)
        shifted = images[i][crop] - (mean[crop] if cropped else mean)
        shifted.add_(color_shift[i]).mul_(scale)
        out[i] = (shifted.flip(1) if flip else shifted).permute(2, 0, 1)


@operator.form("triton")
def _(out, images, offsets, flips, color_shift, mean, size, scale, *_):
    from alexnet_kernels.gpu import crop_flip_color as gpu

    small = _contiguous(offsets, flips, color_shift, mean)
    gpu.crop_flip_color(images, *small, out, size, scale, _is_cropped(mean, images))


@operator.form(
    "native", lambda out, images, *_: _native.fits_either(out) and images.is_contiguous()
)
def _(out, images, offsets, flips, color_shift, mean, size, scale, out_dtype, channels_last):
    n, height, width, _ = images.shape
    small = _contiguous(offsets, flips, color_shift, mean)
    settings = (height, width, size, scale, _is_cropped(mean, images), channels_last)
    name = "crop_flip_color" + _native.SUFFIXES[out.dtype]
    _native.run(name, (images, *small, out), n, *settings)


def crop_flip_color(
    images: Tensor,
    offsets: Tensor,
    flips: Tensor,
    color_shift: Tensor,
    mean: Tensor,
    size: int = 224,
    scale: float = 1.0,
    out_dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> Tensor:
    """scale * (crop - mean + shift), mirrored left to right where `flips`.

    Computed in float32 in this order, then rounded to `out_dtype`: the same bits on every device.

    Args:
        images: uint8 (N, H, W, 3).
        offsets: integers (N, 2), top and left of each crop, inside the image. On a GPU, where
            looking would stop the device, a crop that leaves its image is moved back inside.
        flips: bool (N,).
        color_shift: float (N, 3), gray levels.
        mean: float (H, W, 3), cropped (and mirrored) with the image, or (size, size, 3), subtracted
            from the crop before it is mirrored.
        size: of the crops, pixels.
        scale: a factor.
        out_dtype: floating-point.
        channels_last: the memory format of the result.

    Returns:
        (N, 3, size, size).

    Raises:
        ValueError: for shapes and devices that do not fit; on a CPU for a crop outside its image.
    """
    given = {"images": images, "offsets": offsets, "flips": flips, "color_shift": color_shift}
    _check.tensors(**given, mean=mean)
    _check.whole(size=size)
    _check.numbers(scale=scale)
    if size < 1:
        raise ValueError(f"size must be positive; it is {size}")
    n, height, width, channels = images.shape if images.dim() == 4 else (0, 0, 0, 0)
    if images.dtype != torch.uint8 or channels != 3:
        raise ValueError(
            f"images must be uint8 (N, H, W, 3); they are {images.dtype} {tuple(images.shape)}"
        )
    if offsets.shape != (n, 2) or flips.shape != (n,) or color_shift.shape != (n, 3):
        shapes = f"{tuple(offsets.shape)}, {tuple(flips.shape)}, {tuple(color_shift.shape)}"
        raise ValueError(
            f"offsets, flips and color_shift must be ({n}, 2), ({n},) and ({n}, 3); "
            f"they are {shapes}"
        )
    if flips.dtype != torch.bool:
        raise ValueError(f"flips must be bool; they are {flips.dtype}")
    if tuple(mean.shape) not in {(height, width, 3), (size, size, 3)}:
        raise ValueError(
            f"mean must be ({height}, {width}, 3) or ({size}, {size}, 3); it is {tuple(mean.shape)}"
        )
    if len({t.device for t in (images, offsets, flips, color_shift, mean)}) > 1:
        raise ValueError(f"all tensors must be on the images' device, {images.device}")
    if size > min(height, width):
        raise ValueError(f"a crop of {size} is larger than the {height} x {width} image")
    if n and images.device.type == "cpu":
        limits = offsets.new_tensor([height - size, width - size])
        if bool(((offsets < 0) | (offsets > limits)).any()):
            raise ValueError(
                f"a crop of {size} leaves the {height} x {width} image; "
                f"offsets must be in 0..{height - size}, 0..{width - size}"
            )
    scale = float(scale)
    return operator(
        images, offsets, flips, color_shift, mean, size, scale, out_dtype, channels_last
    )
