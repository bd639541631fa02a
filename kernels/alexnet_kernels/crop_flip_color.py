"""From a pack's images to a training batch in one pass (sections 2 and 4.1 of the paper).

Crop, mirror, subtract the mean, shift the color.
"""

import torch
import torch.nn.functional as F
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
    index: Tensor | None,
    size: int,
    scale: float,
    out_dtype: torch.dtype,
    channels_last: bool,
    block: int,
    side: int,
) -> Tensor:
    return torch.empty(
        (offsets.shape[0], 3 * block**2, side // block, side // block),
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


def space_to_depth(x: Tensor, block: int, side: int) -> Tensor:
    """Blocks of block x block pixels as one pixel of many channels.

    A convolution of stride `block` over few channels is one of stride 1 over these.

    Args:
        x: images (N, C, H, W).
        block: pixels of a block's side.
        side: of the image that is taken apart, a multiple of `block`: x's with zeros on the right
            and bottom, or without its last pixels.

    Returns:
        (N, block^2 C, side / block, side / block) in channels-last memory; a block's pixels are
        channels in the order row, column, channel.
    """
    n, c, h, w = x.shape
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, side - w, 0, side - h))
    x = x.reshape(n, side // block, block, side // block, block, c).transpose(2, 3)
    return x.reshape(n, side // block, side // block, block * block * c).permute(0, 3, 1, 2)


@operator.form("composite")
def _(out, images, offsets, flips, color_shift, mean, index, size, scale, _, __, block, side):
    cropped, mean, color_shift = _is_cropped(mean, images), mean.float(), color_shift.float()
    numbers = range(len(offsets)) if index is None else index.tolist()
    places = zip(numbers, offsets.tolist(), flips.tolist(), strict=True)
    for i, (number, (top, left), flip) in enumerate(places):  # slices beat one big gather
        crop = slice(top, top + size), slice(left, left + size)
        shifted = images[number][crop] - (mean[crop] if cropped else mean)
        shifted.add_(color_shift[i]).mul_(scale)
        image = (shifted.flip(1) if flip else shifted).permute(2, 0, 1)
        out[i] = image if side == size and block == 1 else space_to_depth(image[None], block, side)


@operator.form("triton")
def _(out, images, offsets, flips, color_shift, mean, index, size, scale, _, __, block, side):
    from alexnet_kernels.gpu import crop_flip_color as gpu

    small = _contiguous(offsets, flips, color_shift, mean)
    index = None if index is None else index.to(torch.int64).contiguous()
    cropped = _is_cropped(mean, images)
    gpu.crop_flip_color(images, index, *small, out, size, scale, cropped, block, side)


@operator.form(
    "native", lambda out, images, *_: _native.fits_either(out) and images.is_contiguous()
)
def _(out, images, offsets, flips, color_shift, mean, index, size, scale, _, last, block, side):
    images = images if index is None else images.index_select(0, index)
    n, height, width, _ = images.shape
    small = _contiguous(offsets, flips, color_shift, mean)
    is_plain = side == size and block == 1
    crops = out if is_plain else out.new_empty(n, size, size, 3)
    settings = (height, width, size, scale, _is_cropped(mean, images), last or not is_plain)
    name = "crop_flip_color" + _native.SUFFIXES[out.dtype]
    _native.run(name, (images, *small, crops), n, *settings)
    if not is_plain:
        out.copy_(space_to_depth(crops.permute(0, 3, 1, 2), block, side))


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
    index: Tensor | None = None,
    block: int = 1,
    side: int | None = None,
) -> Tensor:
    """scale * (crop - mean + shift), mirrored left to right where `flips`.

    Computed in float32 in this order, then rounded to `out_dtype`: the same bits on every device.

    Args:
        images: uint8 (M, H, W, 3).
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
        index: integers (N,) in 0..M-1, the image of each crop; None: image i for crop i, M = N.
            On a GPU one beyond the images is moved back inside too.
        block: pixels of the side of the blocks that become channels, as by `space_to_depth`.
        side: of the image that is taken apart so; None: `size`.

    Returns:
        (N, 3 block^2, side / block, side / block); by default (N, 3, size, size).

    Raises:
        ValueError: for shapes and devices that do not fit; on a CPU for a crop outside its image.
    """
    given = {"images": images, "offsets": offsets, "flips": flips, "color_shift": color_shift}
    _check.tensors(**given, mean=mean)
    side = size if side is None else side
    _check_sizes(size, scale, block, side)
    _check_shapes(images, offsets, flips, color_shift, mean, index, size)
    if len(offsets) and images.device.type == "cpu":
        _check_places(images, offsets, index, size)
    settings = (size, float(scale), out_dtype, channels_last, block, side)
    return operator(images, offsets, flips, color_shift, mean, index, *settings)


def _check_sizes(size: int, scale: float, block: int, side: int) -> None:
    _check.whole(size=size, block=block, side=side)
    _check.numbers(scale=scale)
    if size < 1:
        raise ValueError(f"size must be positive; it is {size}")
    if block < 1 or side < 1 or side % block:
        raise ValueError(
            f"block must be positive and side a multiple of it; they are {block} and {side}"
        )


def _check_shapes(
    images: Tensor,
    offsets: Tensor,
    flips: Tensor,
    color_shift: Tensor,
    mean: Tensor,
    index: Tensor | None,
    size: int,
) -> None:
    count, height, width, channels = images.shape if images.dim() == 4 else (0, 0, 0, 0)
    n, own = count, [images, offsets, flips, color_shift, mean]
    if images.dtype != torch.uint8 or channels != 3:
        raise ValueError(
            f"images must be uint8 (N, H, W, 3); they are {images.dtype} {tuple(images.shape)}"
        )
    if index is not None:
        _check.tensors(index=index)
        if index.dim() != 1 or index.is_floating_point() or index.dtype == torch.bool:
            raise ValueError(
                f"index must be integers (N,); it is {index.dtype} {tuple(index.shape)}"
            )
        n, own = len(index), [*own, index]
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
    if len({t.device for t in own}) > 1:
        raise ValueError(f"all tensors must be on the images' device, {images.device}")
    if size > min(height, width):
        raise ValueError(f"a crop of {size} is larger than the {height} x {width} image")


def _check_places(images: Tensor, offsets: Tensor, index: Tensor | None, size: int) -> None:
    count, height, width, _ = images.shape
    limits = offsets.new_tensor([height - size, width - size])
    if bool(((offsets < 0) | (offsets > limits)).any()):
        raise ValueError(
            f"a crop of {size} leaves the {height} x {width} image; "
            f"offsets must be in 0..{height - size}, 0..{width - size}"
        )
    if index is not None and bool(((index < 0) | (index >= count)).any()):
        raise ValueError(f"index must be in 0..{count - 1}, the images; it is not everywhere")
