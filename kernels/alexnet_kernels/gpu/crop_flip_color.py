"""From uint8 images to the training batch in one pass. A program owns one row of the output, so that where its crop lies and
whether it is mirrored is looked up once; a lane owns a pixel and its three channels."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet_kernels.gpu.maps import LAUNCH, is_wide, narrow

DTYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@triton.jit
def kernel(
    images, offsets, flips, shift, mean, out, height, width, size, scale, in_, ih, iw, ic, fn, on, oh, ow, oc,
    ALIGNED: tl.constexpr, DTYPE: tl.constexpr, WIDE: tl.constexpr, EMULATE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    h = row % size
    n = row // size
    if WIDE:
        n = n.to(tl.int64)
    # a crop that leaves its image is moved back inside: looking at offsets from the host would stop the device
    top = tl.minimum(tl.maximum(tl.load(offsets + n * 2).to(tl.int32), 0), height - size) + h
    left = tl.minimum(tl.maximum(tl.load(offsets + n * 2 + 1).to(tl.int32), 0), width - size)
    flip = tl.load(flips + n * fn) != 0
    w = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = w < size
    source = tl.where(flip, size - 1 - w, w)
    images += n * in_ + top * ih + (left + source) * iw
    out += n * on + h * oh + w * ow
    if ALIGNED:
        mean += (top * width + left + source) * 3
    else:
        mean += (h * size + source) * 3
    for c in tl.static_range(3):
        value = tl.load(images + c * ic, mask=inside, other=0).to(tl.float32)
        value = (value - tl.load(mean + c, mask=inside, other=0)) + tl.load(shift + n * 3 + c)
        tl.store(out + c * oc, narrow(value * scale, DTYPE, EMULATE), mask=inside)


def crop_flip_color(
    images: Tensor,
    offsets: Tensor,
    flips: Tensor,
    color_shift: Tensor,
    mean: Tensor,
    out: Tensor,
    size: int,
    scale: float,
    aligned: bool,
) -> None:
    """Writes out (N, 3, size, size), any strides. images: any strides; offsets, color_shift, mean: contiguous."""
    n, height, width, _ = images.shape
    block = min(256, triton.next_power_of_2(size))
    kernel[(n * size, triton.cdiv(size, block))](
        images, offsets, flips, color_shift, mean, out, height, width, size, float(scale), *images.stride(), *flips.stride(),
        *(out.stride(d) for d in (0, 2, 3, 1)),
        ALIGNED=aligned, DTYPE=DTYPES[out.dtype], WIDE=is_wide(images, out), BLOCK=block, num_warps=max(1, block // 128), **LAUNCH,
    )  # fmt: skip
