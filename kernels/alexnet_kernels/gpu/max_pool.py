"""Overlapping max pooling. Forward, a lane owns V channels of ROWS output pixels below each other, whose windows share rows: it finds
a row's maximum once. Backward, it owns V channels of a stride x stride block of input pixels, and gathers from the windows that cover it:
no atomics, no lane without work, the same bits every time.
"""

import triton
import triton.language as tl
from torch import Tensor

from alexnet_kernels.gpu.maps import (
    DTYPES,
    LAUNCH,
    channels_fast,
    is_wide,
    lanes_of,
    narrow,
    place,
    tuned,
    vector,
)

KEY = ["C", "SIZE", "STRIDE", "V", "DTYPE"]
FORWARD = [
    ({"ROWS": rows, "BLOCK": block}, warps)
    for rows, block, warps in ((1, 128, 4), (2, 128, 4), (3, 128, 4), (3, 64, 2))
]
BACKWARD = [({"BLOCK": block}, block // 32) for block in (128, 64, 256)]


@tuned(KEY, *FORWARD)
@triton.jit
def forward_kernel(
    x, y, code, N, H, OH, OW, xn, xh, xw, xc, yn, yh, yw, yc, cn, ch, cw, cc,
    C: tl.constexpr, SIZE: tl.constexpr, STRIDE: tl.constexpr, V: tl.constexpr, DTYPE: tl.constexpr, CHANNELS_FAST: tl.constexpr,
    WIDE: tl.constexpr, EMULATE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    GROUPS: tl.constexpr = C // V
    lane = lanes_of(BLOCK, WIDE)
    strips = (OH + ROWS - 1) // ROWS
    n, strip, w, group = place(lane, strips, OW, GROUPS, CHANNELS_FAST)
    inside = lane < N * strips * OW * GROUPS
    channel = group[:, None] * V + tl.arange(0, V)[None, :]
    top = strip * ROWS
    x += (n * xn + top * STRIDE * xh + w * STRIDE * xw)[:, None] + channel * xc
    y += (n * yn + top * yh + w * yw)[:, None] + channel * yc
    code += (n * cn + top * ch + w * cw)[:, None] + channel * cc
    NEW: tl.constexpr = min(SIZE, STRIDE)  # rows that a window does not share with the one above
    maxima = ()  # of each input row over the windows' width, and which they are: the first of a tie, a later NaN before everything
    taps = ()
    for r in tl.static_range(ROWS):
        for i in tl.static_range(0 if r == 0 else SIZE - NEW, SIZE):
            there = (inside & ((top + r) * STRIDE + i < H))[:, None]
            row = x + (r * STRIDE + i) * xh
            best = tl.load(row, mask=there, other=0).to(tl.float32)
            tap = tl.zeros([BLOCK, V], tl.int32)
            for j in tl.static_range(1, SIZE):
                value = tl.load(row + j * xw, mask=there, other=0).to(tl.float32)
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
        here = (inside & (top + r < OH))[:, None]
        tl.store(y + r * yh, narrow(best, DTYPE, EMULATE), mask=here)
        tl.store(code + r * ch, tap.to(tl.uint8), mask=here)


@tuned(KEY, *BACKWARD)
@triton.jit
def backward_kernel(
    dy, code, dx, N, H, W, OH, OW, gn, gh, gw, gc, cn, ch, cw, cc, xn, xh, xw, xc,
    C: tl.constexpr, SIZE: tl.constexpr, STRIDE: tl.constexpr, V: tl.constexpr, DTYPE: tl.constexpr, CHANNELS_FAST: tl.constexpr,
    WIDE: tl.constexpr, EMULATE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    GROUPS: tl.constexpr = C // V
    Q: tl.constexpr = (SIZE + STRIDE - 1) // STRIDE  # windows that reach a block, along each axis
    lane = lanes_of(BLOCK, WIDE)
    high = (H + STRIDE - 1) // STRIDE
    wide = (W + STRIDE - 1) // STRIDE
    n, a, b, group = place(lane, high, wide, GROUPS, CHANNELS_FAST)
    inside = (lane < N * high * wide * GROUPS)[:, None]
    channel = group[:, None] * V + tl.arange(0, V)[None, :]
    gradients = ()
    taps = ()
    for i in tl.static_range(Q):
        for j in tl.static_range(Q):
            h = a - i  # the window that begins i blocks above and j to the left
            w = b - j
            there = inside & ((h >= 0) & (h < OH) & (w >= 0) & (w < OW))[:, None]
            g = tl.load(
                dy + ((n * gn + h * gh + w * gw)[:, None] + channel * gc), mask=there, other=0
            )
            t = tl.load(
                code + ((n * cn + h * ch + w * cw)[:, None] + channel * cc), mask=there, other=255
            )
            gradients = gradients + (g.to(tl.float32),)
            taps = taps + (t.to(tl.int32),)
    for p in tl.static_range(STRIDE):
        for q in tl.static_range(STRIDE):  # the block's pixel (p, q)
            total = tl.zeros([BLOCK, V], tl.float32)
            for i in tl.static_range(Q):
                for j in tl.static_range(Q):
                    if p + i * STRIDE < SIZE and q + j * STRIDE < SIZE:
                        total += tl.where(
                            taps[i * Q + j] == (p + i * STRIDE) * SIZE + q + j * STRIDE,
                            gradients[i * Q + j],
                            0.0,
                        )
            h = a * STRIDE + p
            w = b * STRIDE + q
            here = inside & ((h < H) & (w < W))[:, None]
            tl.store(
                dx + ((n * xn + h * xh + w * xw)[:, None] + channel * xc),
                narrow(total, DTYPE, EMULATE),
                mask=here,
            )


def _nhwc(x: Tensor) -> tuple[int, ...]:
    return tuple(x.stride(d) for d in (0, 2, 3, 1))


def forward(x: Tensor, y: Tensor, code: Tensor, size: int, stride: int) -> None:
    """Writes y and the uint8 taps `code`, both (N, C, OH, OW), any strides."""
    (n, c, height, width), v = y.shape, vector(x, y)

    def grid(meta):
        return (
            triton.cdiv(n * triton.cdiv(height, meta["ROWS"]) * width * (c // v), meta["BLOCK"]),
        )

    forward_kernel[grid](
        x, y, code, n, x.shape[2], height, width, *_nhwc(x), *_nhwc(y), *_nhwc(code),
        C=c, SIZE=size, STRIDE=stride, V=v, DTYPE=DTYPES[x.dtype], CHANNELS_FAST=channels_fast(x), WIDE=is_wide(x, y), **LAUNCH,
    )  # fmt: skip


def backward(dy: Tensor, code: Tensor, dx: Tensor, size: int, stride: int) -> None:
    """Writes dx (N, C, H, W), any strides."""
    (n, c, height, width), v = dx.shape, vector(dx, dy)

    def grid(meta):
        return (
            triton.cdiv(
                n * triton.cdiv(height, stride) * triton.cdiv(width, stride) * (c // v),
                meta["BLOCK"],
            ),
        )

    backward_kernel[grid](
        dy, code, dx, n, height, width, *dy.shape[2:], *_nhwc(dy), *_nhwc(code), *_nhwc(dx),
        C=c, SIZE=size, STRIDE=stride, V=v, DTYPE=DTYPES[dx.dtype], CHANNELS_FAST=channels_fast(dx), WIDE=is_wide(dx, dy), **LAUNCH,
    )  # fmt: skip
