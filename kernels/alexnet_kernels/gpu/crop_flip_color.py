"""From uint8 images to the training batch in one pass.

A program owns one row of pixels, so that which image it is, where its crop lies and whether it is
mirrored is looked up once; a lane owns a pixel and its three channels.
"""

import triton
import triton.language as tl
from torch import Tensor

from alexnet_kernels.gpu.maps import DTYPES, LAUNCH, is_wide, narrow, nhwc_strides


@triton.jit
def kernel(
    images_ptr,  # uint8 (M, height, width, 3)
    index_ptr,  # int64 (N,): the image of each crop; not read where not INDEXED
    offsets_ptr,  # int64 (N, 2): top and left of each crop
    flips_ptr,  # bool (N,)
    shift_ptr,  # float32 (N, 3), gray levels
    mean_ptr,  # float32 (height, width, 3) where CROPPED, else (size, size, 3)
    out_ptr,  # output, float32 or a half type (N, 3 SPAN^2, side / SPAN, side / SPAN)
    M, height, width,  # images, and the sides of each
    size,  # of a crop
    side,  # of the crop with zeros on the right and bottom
    scale,  # factor of the result
    in_, ih, iw, ic,  # strides of images
    fn,  # of flips
    on, oh, ow, oc,  # of out
    INDEXED: tl.constexpr,  # whether an index says which images are cropped
    SPAN: tl.constexpr,  # pixels of the side of a block, whose pixels are channels of the output
    CROPPED: tl.constexpr,  # whether the mean image is cropped with the images
    DTYPE: tl.constexpr,  # of out
    WIDE: tl.constexpr,  # whether offsets need 64 bits
    EMULATE: tl.constexpr,  # whether bfloat16 is rounded by hand
    BLOCK: tl.constexpr,  # pixels a program
):  # fmt: skip
    row = tl.program_id(0)
    h = row % side
    n = row // side
    if WIDE:
        n = n.to(tl.int64)
    # A crop that leaves its image is moved back: to look from the host would stop the device.
    top = tl.minimum(tl.maximum(tl.load(offsets_ptr + n * 2).to(tl.int32), 0), height - size) + h
    left = tl.minimum(tl.maximum(tl.load(offsets_ptr + n * 2 + 1).to(tl.int32), 0), width - size)
    flip = tl.load(flips_ptr + n * fn) != 0
    image = n
    if INDEXED:
        image = tl.minimum(tl.maximum(tl.load(index_ptr + n), 0), M - 1)
        image = image if WIDE else image.to(tl.int32)
    w = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = w < tl.where(h < size, size, 0)
    source = tl.where(flip, size - 1 - w, w)
    images_ptr += image * in_ + top * ih + (left + source) * iw
    out_ptr += n * on + h // SPAN * oh + w // SPAN * ow + (h % SPAN * SPAN + w % SPAN) * 3 * oc
    if CROPPED:
        mean_ptr += (top * width + left + source) * 3
    else:
        mean_ptr += (h * size + source) * 3
    for c in tl.static_range(3):
        value = tl.load(images_ptr + c * ic, mask=inside, other=0).to(tl.float32)
        value = value - tl.load(mean_ptr + c, mask=inside, other=0)
        value = value + tl.load(shift_ptr + n * 3 + c)
        value = tl.where(inside, value * scale, 0.0)
        tl.store(out_ptr + c * oc, narrow(value, DTYPE, EMULATE), mask=w < side)


def crop_flip_color(
    images: Tensor,
    index: Tensor | None,
    offsets: Tensor,
    flips: Tensor,
    color_shift: Tensor,
    mean: Tensor,
    out: Tensor,
    size: int,
    scale: float,
    cropped: bool,
    block: int = 1,
    side: int | None = None,
) -> None:
    """Write out (N, 3 block^2, side / block, side / block), any strides.

    images: any strides; index, offsets, color_shift, mean: contiguous. cropped: whether the mean
    image is cropped with the images. block, side: as in `alexnet_kernels.crop_flip_color`.
    """
    side = side or size
    lanes = min(256, triton.next_power_of_2(side))
    kernel[(len(offsets) * side, triton.cdiv(side, lanes))](
        images, offsets if index is None else index, offsets, flips, color_shift, mean, out,
        *images.shape[:3], size, side, float(scale),
        *images.stride(), *flips.stride(), *nhwc_strides(out),
        INDEXED=index is not None, SPAN=block, CROPPED=cropped, DTYPE=DTYPES[out.dtype],
        WIDE=is_wide(images, out), BLOCK=lanes, num_warps=max(1, lanes // 128), **LAUNCH,
    )  # fmt: skip
