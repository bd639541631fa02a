"""From uint8 images to the training batch in one pass. A lane owns one pixel of the output and its three channels."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.maps import INT32, LAUNCH, lanes_of, narrow

DTYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@triton.jit
def kernel(
    images, offsets, flips, shift, mean, out, lanes, height, width, size, scale, in_, ih, iw, ic, fn, on, oh, ow, oc,
    ALIGNED: tl.constexpr, DTYPE: tl.constexpr, WIDE: tl.constexpr, EMULATE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    lane = lanes_of(BLOCK, WIDE)
    inside = lane < lanes
    w = lane % size
    rest = lane // size
    h = rest % size
    n = rest // size
    # a crop that leaves its image is moved back inside: looking at offsets from the host would stop the device
    top = tl.load(offsets + n * 2, mask=inside, other=0).to(tl.int32)
    left = tl.load(offsets + n * 2 + 1, mask=inside, other=0).to(tl.int32)
    top = tl.minimum(tl.maximum(top, 0), height - size)
    left = tl.minimum(tl.maximum(left, 0), width - size)
    flip = tl.load(flips + n * fn, mask=inside, other=0) != 0
    source = tl.where(flip, size - 1 - w, w)
    pixel = n * in_ + (top + h) * ih + (left + source) * iw
    if ALIGNED:
        average = ((top + h) * width + left + source) * 3
    else:
        average = (h * size + source) * 3
    for c in tl.static_range(3):
        value = tl.load(images + (pixel + c * ic), mask=inside, other=0).to(tl.float32)
        value = (value - tl.load(mean + (average + c), mask=inside, other=0)) + tl.load(shift + n * 3 + c, mask=inside, other=0)
        tl.store(out + (n * on + h * oh + w * ow + c * oc), narrow(value * scale, DTYPE, EMULATE), mask=inside)


def crop_flip_color(
    images: Tensor, offsets: Tensor, flips: Tensor, color_shift: Tensor, mean: Tensor, out: Tensor, size: int, scale: float, aligned: bool
) -> None:
    """Writes out (N, 3, size, size), any strides. images: any strides; offsets, color_shift, mean: contiguous."""
    n, height, width, _ = images.shape
    lanes, block = n * size * size, 256
    kernel[(triton.cdiv(lanes, block),)](
        images, offsets, flips, color_shift, mean, out, lanes, height, width, size, float(scale), *images.stride(), *flips.stride(),
        *(out.stride(d) for d in (0, 2, 3, 1)),
        ALIGNED=aligned, DTYPE=DTYPES[out.dtype], WIDE=max(images.numel(), out.numel()) > INT32, BLOCK=block, **LAUNCH,
    )  # fmt: skip
