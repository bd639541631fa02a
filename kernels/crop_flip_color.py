"""From a pack's images to a training batch: crop, mirror, subtract the mean, shift the color (sections 2 and 4.1 of the paper), in plain
torch."""

import torch
from torch import Tensor


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
    it is mirrored. Computed in float32, then cast to `out_dtype`. Raises ValueError for shapes that do not fit and crops that leave the
    image.
    """
    if size < 1:
        raise ValueError(f"size must be positive; it is {size}")
    n, height, width, channels = images.shape if images.dim() == 4 else (0, 0, 0, 0)
    if images.dtype != torch.uint8 or channels != 3:
        raise ValueError(f"images must be uint8 (N, H, W, 3); they are {images.dtype} {tuple(images.shape)}")
    if offsets.shape != (n, 2) or flips.shape != (n,) or color_shift.shape != (n, 3):
        shapes = f"{tuple(offsets.shape)}, {tuple(flips.shape)}, {tuple(color_shift.shape)}"
        raise ValueError(f"offsets, flips and color_shift must be ({n}, 2), ({n},) and ({n}, 3); they are {shapes}")
    if tuple(mean.shape) not in {(height, width, 3), (size, size, 3)}:
        raise ValueError(f"mean must be ({height}, {width}, 3) or ({size}, {size}, 3); it is {tuple(mean.shape)}")
    top, left = offsets.to(torch.int64).unbind(1)
    if n and (min(int(top.min()), int(left.min())) < 0 or int(top.max()) + size > height or int(left.max()) + size > width):
        raise ValueError(f"a crop of {size} leaves the {height} x {width} image; offsets must be in 0..{height - size}, 0..{width - size}")

    mean = mean.to(torch.float32)
    aligned = tuple(mean.shape) == (height, width, 3)
    out = torch.empty(n, size, size, 3, device=images.device)
    for i, (y, x, flip) in enumerate(zip(top.tolist(), left.tolist(), flips.tolist(), strict=True)):  # slices beat one big gather
        crop = (slice(y, y + size), slice(x, x + size))
        centered = images[i][crop] - (mean[crop] if aligned else mean)
        out[i] = centered.flip(1) if flip else centered
    out += color_shift.to(torch.float32)[:, None, None, :]
    if scale != 1.0:
        out *= scale
    out = out.to(out_dtype).permute(0, 3, 1, 2)  # (N, 3, size, size), channels_last in memory
    return out if channels_last else out.contiguous()
