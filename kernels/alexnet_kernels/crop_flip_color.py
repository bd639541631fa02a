"""From a pack's images to a training batch in one pass: crop, mirror, subtract the mean, shift the color (sections 2 and 4.1 of the
paper)."""

import torch
from torch import Tensor

from alexnet_kernels import _choose, _native
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
    (n, height, width, _), aligned = images.shape, tuple(mean.shape) == (*images.shape[1:3], 3)
    offsets, color_shift, mean = (
        offsets.to(torch.int64).contiguous(),
        color_shift.float().contiguous(),
        mean.float().contiguous(),
    )
    flips = flips.contiguous()
    out = _empty(images, size, out_dtype, channels_last)
    if n == 0:
        return out
    fits = out_dtype == torch.float32 and images.is_contiguous()
    which = _choose.implementation(
        out, color_shift, mean, native=fits, triton=out_dtype != torch.float64
    )
    if which == "triton":
        from alexnet_kernels.gpu import crop_flip_color as gpu

        gpu.crop_flip_color(images, offsets, flips, color_shift, mean, out, size, scale, aligned)
    elif which == "native":
        tensors = [_native.pointer(t) for t in (images, offsets, flips, color_shift, mean, out)]
        settings = (height, width, size, scale, aligned, channels_last)
        _native.share(
            lambda *part: _native.call("crop_flip_color", *tensors, *part, *settings),
            n,
            out.numel(),
        )
    else:
        places = offsets.tolist()
        for i, ((y, x), flip) in enumerate(
            zip(places, flips.tolist(), strict=True)
        ):  # slices beat one big gather
            crop = (slice(y, y + size), slice(x, x + size))
            shifted = (
                (images[i][crop] - (mean[crop] if aligned else mean))
                .add_(color_shift[i])
                .mul_(scale)
            )
            out[i] = (shifted.flip(1) if flip else shifted).permute(2, 0, 1)
    return out


def _empty(images: Tensor, size: int, dtype: torch.dtype, channels_last: bool) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(
        images.shape[0], 3, size, size, dtype=dtype, device=images.device, memory_format=layout
    )


@operator.register_fake
def _(images, offsets, flips, color_shift, mean, size, scale, out_dtype, channels_last):
    return _empty(images, size, out_dtype, channels_last)


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
    """out (N, 3, size, size) = scale * (crop - mean + shift), mirrored left to right where `flips`.

    images: uint8 (N, H, W, 3); offsets: integers (N, 2), top and left of each crop, inside the image; flips: bool (N,); color_shift: float
    (N, 3), gray levels; mean: float (H, W, 3), cropped (and mirrored) with the image, or (size, size, 3), subtracted from the crop before
    it is mirrored. Computed in float32 in this order, then rounded to `out_dtype`: the same bits on every device. Raises ValueError for
    shapes and devices that do not fit and, on a CPU, crops that leave the image; on a GPU, where looking would stop the device, such a crop
    is moved back inside.
    """
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
            f"offsets, flips and color_shift must be ({n}, 2), ({n},) and ({n}, 3); they are {shapes}"
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
        top, left = offsets.unbind(1)
        if (
            min(int(top.min()), int(left.min())) < 0
            or int(top.max()) + size > height
            or int(left.max()) + size > width
        ):
            fit = f"offsets must be in 0..{height - size}, 0..{width - size}"
            raise ValueError(f"a crop of {size} leaves the {height} x {width} image; {fit}")
    return operator(
        images, offsets, flips, color_shift, mean, size, float(scale), out_dtype, channels_last
    )
