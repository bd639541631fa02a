"""Overlapping max pooling.

Forward, a lane owns V channels of ROWS output pixels below each other, whose windows share rows: it
takes a row's maximum once. Backward, it owns V channels of a stride x stride block of input pixels,
and gathers from the windows that cover it: no atomics, no lane without work, the same bits every
time.
"""

import triton
import triton.language as tl
from torch import Tensor

from alexnet_kernels.gpu.maps import (
    DTYPES,
    LAUNCH,
    bucket,
    channels_fast,
    is_wide,
    lanes_of,
    narrow,
    nhwc_strides,
    place,
    tuned,
    vector,
)

KEY = ["C", "SIZE", "STRIDE", "V", "DTYPE", "CHANNELS_FAST"]
FORWARD = [
    ({"ROWS": rows, "BLOCK": block}, warps)
    for rows, block, warps in ((1, 128, 4), (2, 128, 4), (3, 128, 4), (3, 64, 2))
]
BACKWARD = [({"BLOCK": block}, block // 32) for block in (128, 64, 256)]


@tuned(KEY, *FORWARD)
@triton.jit(do_not_specialize=["BUCKET"])
def forward_kernel(
    x_ptr,  # input, any float type (N, C, H, W)
    y_ptr,  # output: maxima (N, C, OH, OW), as x
    code_ptr,  # output: their taps, uint8 (N, C, OH, OW)
    N, H,  # images, and rows of the input
    OH, OW,  # rows and columns of the output
    xn, xh, xw, xc,  # strides of x
    yn, yh, yw, yc,  # of y
    cn, ch, cw, cc,  # of code
    BUCKET,  # of the number of elements, for which a configuration is chosen
    C: tl.constexpr,
    SIZE: tl.constexpr,  # of a window
    STRIDE: tl.constexpr,  # between windows
    V: tl.constexpr,  # channels a lane
    DTYPE: tl.constexpr,  # of the maps
    CHANNELS_FAST: tl.constexpr,  # whether channels, not pixels, are neighbors in memory
    WIDE: tl.constexpr,  # whether offsets need 64 bits
    EMULATE: tl.constexpr,  # whether bfloat16 is rounded by hand
    ROWS: tl.constexpr,  # output rows a lane
    BLOCK: tl.constexpr,  # lanes a program
):  # fmt: skip
    GROUPS: tl.constexpr = C // V
    lane = lanes_of(BLOCK, WIDE)
    strips = (OH + ROWS - 1) // ROWS
    n, strip, w, group = place(lane, strips, OW, GROUPS, CHANNELS_FAST)
    inside = n < N
    channel = group[:, None] * V + tl.arange(0, V)[None, :]
    top = strip * ROWS
    x_ptr += (n * xn + top * STRIDE * xh + w * STRIDE * xw)[:, None] + channel * xc
    y_ptr += (n * yn + top * yh + w * yw)[:, None] + channel * yc
    code_ptr += (n * cn + top * ch + w * cw)[:, None] + channel * cc
    NEW: tl.constexpr = min(SIZE, STRIDE)  # rows that a window does not share with the one above
    maxima = ()  # of each input row over the windows' width,
    taps = ()  # and which they are: the first of a tie, a later NaN before everything
    for r in tl.static_range(ROWS):
        for i in tl.static_range(0 if r == 0 else SIZE - NEW, SIZE):
            valid = (inside & ((top + r) * STRIDE + i < H))[:, None]
            row = x_ptr + (r * STRIDE + i) * xh
            best = tl.load(row, mask=valid, other=0).to(tl.float32)
            tap = tl.zeros([BLOCK, V], tl.int32)
            for j in tl.static_range(1, SIZE):
                value = tl.load(row + j * xw, mask=valid, other=0).to(tl.float32)
                better = (value > best) | (value != value)
                best = tl.where(better, value, best)
                tap = tl.where(better, j, tap)
            maxima = maxima + (best,)
            taps = taps + (tap,)
        best = maxima[r * NEW]
        tap = taps[r * NEW]
        for i in tl.static_range(1, SIZE):
            value = maxima[r * NEW + i]
            better = (value > best) | (value != value)
            best = tl.where(better, value, best)
            tap = tl.where(better, taps[r * NEW + i] + i * SIZE, tap)
        valid = (inside & (top + r < OH))[:, None]
        tl.store(y_ptr + r * yh, narrow(best, DTYPE, EMULATE), mask=valid)
        tl.store(code_ptr + r * ch, tap.to(tl.uint8), mask=valid)


@tuned(KEY, *BACKWARD)
@triton.jit(do_not_specialize=["BUCKET"])
def backward_kernel(
    dy_ptr,  # gradient of the maxima, any float type (N, C, OH, OW)
    code_ptr,  # their taps, uint8 (N, C, OH, OW)
    dx_ptr,  # output: gradient of the input (N, C, H, W), as dy
    N, H, W,  # images, rows and columns of the input
    OH, OW,  # rows and columns of the output
    gn, gh, gw, gc,  # strides of dy
    cn, ch, cw, cc,  # of code
    xn, xh, xw, xc,  # of dx
    BUCKET,  # of the number of elements, for which a configuration is chosen
    C: tl.constexpr,
    SIZE: tl.constexpr,  # of a window
    STRIDE: tl.constexpr,  # between windows
    V: tl.constexpr,  # channels a lane
    DTYPE: tl.constexpr,  # of the gradients
    CHANNELS_FAST: tl.constexpr,  # whether channels, not pixels, are neighbors in memory
    WIDE: tl.constexpr,  # whether offsets need 64 bits
    EMULATE: tl.constexpr,  # whether bfloat16 is rounded by hand
    BLOCK: tl.constexpr,  # lanes a program
):  # fmt: skip
    GROUPS: tl.constexpr = C // V
    Q: tl.constexpr = (SIZE + STRIDE - 1) // STRIDE  # windows that reach a block, along each axis
    lane = lanes_of(BLOCK, WIDE)
    high = (H + STRIDE - 1) // STRIDE
    wide = (W + STRIDE - 1) // STRIDE
    n, a, b, group = place(lane, high, wide, GROUPS, CHANNELS_FAST)
    inside = (n < N)[:, None]
    channel = group[:, None] * V + tl.arange(0, V)[None, :]
    gradients = ()
    taps = ()
    for i in tl.static_range(Q):
        for j in tl.static_range(Q):
            h = a - i  # the window that begins i blocks above and j to the left
            w = b - j
            valid = inside & ((h >= 0) & (h < OH) & (w >= 0) & (w < OW))[:, None]
            g_at = (n * gn + h * gh + w * gw)[:, None] + channel * gc
            g = tl.load(dy_ptr + g_at, mask=valid, other=0)
            t_at = (n * cn + h * ch + w * cw)[:, None] + channel * cc
            t = tl.load(code_ptr + t_at, mask=valid, other=255)
            gradients = gradients + (g.to(tl.float32),)
            taps = taps + (t.to(tl.int32),)
    for p in tl.static_range(STRIDE):
        for q in tl.static_range(STRIDE):  # the block's pixel (p, q)
            total = tl.zeros([BLOCK, V], tl.float32)
            for i in tl.static_range(Q):
                for j in tl.static_range(Q):
                    if p + i * STRIDE < SIZE and q + j * STRIDE < SIZE:
                        chosen = taps[i * Q + j] == (p + i * STRIDE) * SIZE + q + j * STRIDE
                        total += tl.where(chosen, gradients[i * Q + j], 0.0)
            h = a * STRIDE + p
            w = b * STRIDE + q
            valid = inside & ((h < H) & (w < W))[:, None]
            at = (n * xn + h * xh + w * xw)[:, None] + channel * xc
            tl.store(dx_ptr + at, narrow(total, DTYPE, EMULATE), mask=valid)


def forward(x: Tensor, y: Tensor, code: Tensor, size: int, stride: int) -> None:
    """Write y and the uint8 taps `code`, both (N, C, OH, OW), any strides."""
    (n, c, height, width), v = y.shape, vector(x, y)

    def grid(meta):
        lanes = n * triton.cdiv(height, meta["ROWS"]) * width * (c // v)
        return (triton.cdiv(lanes, meta["BLOCK"]),)

    forward_kernel[grid](
        x, y, code, n, x.shape[2], height, width, *nhwc_strides(x, y, code),
        C=c, SIZE=size, STRIDE=stride, V=v, DTYPE=DTYPES[x.dtype],
        CHANNELS_FAST=channels_fast(x), WIDE=is_wide(x, y), BUCKET=bucket(x), **LAUNCH,
    )  # fmt: skip


def backward(dy: Tensor, code: Tensor, dx: Tensor, size: int, stride: int) -> None:
    """Write dx (N, C, H, W), any strides."""
    (n, c, height, width), v = dx.shape, vector(dx, dy)

    def grid(meta):
        blocks = n * triton.cdiv(height, stride) * triton.cdiv(width, stride)
        return (triton.cdiv(blocks * (c // v), meta["BLOCK"]),)

    backward_kernel[grid](
        dy, code, dx, n, height, width, *dy.shape[2:], *nhwc_strides(dy, code, dx),
        C=c, SIZE=size, STRIDE=stride, V=v, DTYPE=DTYPES[dx.dtype],
        CHANNELS_FAST=channels_fast(dx), WIDE=is_wide(dx, dy), BUCKET=bucket(dx), **LAUNCH,
    )  # fmt: skip
