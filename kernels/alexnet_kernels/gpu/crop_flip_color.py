"""From uint8 images to the training batch in one pass.

A program owns one row of the output, so that where its crop lies and whether it is mirrored is
looked up once; a lane owns a pixel and its three channels.
"""

import triton
import triton.language as tl
from torch import Tensor

from alexnet_kernels.gpu.maps import DTYPES, LAUNCH, is_wide, narrow, nhwc_strides


@triton.jit
def kernel(
    images_ptr,  # uint8 (N, height, width, 3)
    offsets_ptr,  # int64 (N, 2): top and left of each crop
    flips_ptr,  # bool (N,)
    shift_ptr,  # float32 (N, 3), gray levels
    mean_ptr,  # float32 (height, width, 3) where CROPPED, else (size, size, 3)
    out_ptr,  # output, float32 or a half type (N, 3, size, size)
    height, width,  # of an image
    size,  # of a crop
    scale,  # factor of the result
    in_, ih, iw, ic,  # strides of images
    fn,  # of flips
    on, oh, ow, oc,  # of out
    CROPPED: tl.constexpr,  # whether the mean image is cropped with the images
    DTYPE: tl.constexpr,  # of out
    WIDE: tl.constexpr,  # whether offsets need 64 bits
    EMULATE: tl.constexpr,  # whether bfloat16 is rounded by hand
    BLOCK: tl.constexpr,  # pixels a program
):  # fmt: skip
    row = tl.program_id(0)
    h = row % size
    n = row // size
    if WIDE:
        n = n.to(tl.int64)
    # A crop that leaves its image is moved back: to look from the host would stop the device.
    top = tl.minimum(tl.maximum(tl.load(offsets_ptr + n * 2).to(tl.int32), 0), height - size) + h
    left = tl.minimum(tl.maximum(tl.load(offsets_ptr + n * 2 + 1).to(tl.int32), 0), width - size)
    flip = tl.load(flips_ptr + n * fn) != 0
    w = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = w < size
    source = tl.where(flip, size - 1 - w, w)
    images_ptr += n * in_ + top * ih + (left + source) * iw
    out_ptr += n * on + h * oh + w * ow
    if CROPPED:
        mean_ptr += (top * width + left + source) * 3
    else:
        mean_ptr += (h * size + source) * 3
    for c in tl.static_range(3):
        value = tl.load(images_ptr + c * ic, mask=inside, other=0).to(tl.float32)
        value = value - tl.load(mean_ptr + c, mask=inside, other=0)
        value = value + tl.load(shift_ptr + n * 3 + c)
        tl.store(out_ptr + c * oc, narrow(value * scale, DTYPE, EMULATE), mask=inside)


def crop_flip_color(
    images: Tensor,
    offsets: Tensor,
    flips: Tensor,
    color_shift: Tensor,
    mean: Tensor,
    out: Tensor,
    size: int,
    scale: float,
    cropped: bool,
) -> None:
    """Write out (N, 3, size, size), any strides.

    images: any strides; offsets, color_shift, mean: contiguous. cropped: whether the mean image is
    cropped with the images.
    """
    n, height, width, _ = images.shape
    block = min(256, triton.next_power_of_2(size))
    kernel[(n * size, triton.cdiv(size, block))](
        images, offsets, flips, color_shift, mean, out, height, width, size, float(scale),
        *images.stride(), *flips.stride(), *nhwc_strides(out),
        CROPPED=cropped, DTYPE=DTYPES[out.dtype], WIDE=is_wide(images, out),
        BLOCK=block, num_warps=max(1, block // 128), **LAUNCH,
    )  # fmt: skip
