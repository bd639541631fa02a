"""Response normalization within a map.

A lane owns V channels of ROWS pixels below each other, and sums each row of its windows once. The
gradient takes two passes: the first writes what every pixel spreads over its neighbors,
dy x s^(-beta-1), and keeps dy s^-beta; the second sums the former over the windows.
"""

from collections.abc import Sequence

import torch
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
    power,
    tuned,
    vector,
)

KEY = ["C", "RADIUS", "V", "DTYPE", "PASS", "CHANNELS_FAST"]
CONFIGS = [
    ({"ROWS": rows, "BLOCK": block}, 4) for rows, block in ((4, 64), (9, 64), (14, 64), (2, 128))
]
FORWARD, FIRST, SECOND = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@tuned(KEY, *CONFIGS)
@triton.jit(do_not_specialize=["BUCKET"])
def kernel(
    x_ptr,  # input, any float type (N, C, H, W)
    dy_ptr,  # gradient of the output, as x; read in the pass FIRST
    direct_ptr,  # dy s^-beta, float32 (N, C, H, W): from the pass FIRST to SECOND
    spread_ptr,  # dy x s^(-beta-1), likewise
    y_ptr,  # output, or in the pass SECOND the gradient of x, as x
    N, H, W,  # images, rows, columns
    xn, xh, xw, xc,  # strides of x
    gn, gh, gw, gc,  # of dy
    tn, th, tw, tc,  # of direct and spread
    yn, yh, yw, yc,  # of y
    alpha, k,
    BUCKET,  # of the number of elements, for which a configuration is chosen
    C: tl.constexpr,
    RADIUS: tl.constexpr,  # of a window: size // 2
    BETA: tl.constexpr,
    PASS: tl.constexpr,  # FORWARD, or FIRST or SECOND of the gradient
    V: tl.constexpr,  # channels a lane
    DTYPE: tl.constexpr,  # of the maps
    CHANNELS_FAST: tl.constexpr,  # whether channels, not pixels, are neighbors in memory
    WIDE: tl.constexpr,  # whether offsets need 64 bits
    EMULATE: tl.constexpr,  # whether bfloat16 is rounded by hand
    ROWS: tl.constexpr,  # rows a lane
    BLOCK: tl.constexpr,  # lanes a program
):  # fmt: skip
    GROUPS: tl.constexpr = C // V
    lane = lanes_of(BLOCK, WIDE)
    strips = (H + ROWS - 1) // ROWS
    n, strip, w, group = place(lane, strips, W, GROUPS, CHANNELS_FAST)
    inside = n < N
    top = strip * ROWS
    channel = group[:, None] * V + tl.arange(0, V)[None, :]
    sums = ()  # of each row that the strip's windows touch, over 2 RADIUS + 1 pixels
    for i in tl.static_range(ROWS + 2 * RADIUS):
        total = tl.zeros([BLOCK, V], tl.float32)
        h = top + (i - RADIUS)
        for j in tl.static_range(2 * RADIUS + 1):
            u = w + (j - RADIUS)
            valid = (inside & (h >= 0) & (h < H) & (u >= 0) & (u < W))[:, None]
            if PASS == SECOND:
                at = (n * tn + h * th + u * tw)[:, None] + channel * tc
                total += tl.load(spread_ptr + at, mask=valid, other=0)
            else:
                at = (n * xn + h * xh + u * xw)[:, None] + channel * xc
                value = tl.load(x_ptr + at, mask=valid, other=0).to(tl.float32)
                total += value * value
        sums = sums + (total,)
        if i >= 2 * RADIUS:  # the windows around row i - RADIUS are complete
            for j in tl.static_range(1, 2 * RADIUS + 1):
                total += sums[i - j]
            h = top + (i - 2 * RADIUS)
            valid = (inside & (h < H))[:, None]
            at = (n * xn + h * xh + w * xw)[:, None] + channel * xc
            value = tl.load(x_ptr + at, mask=valid, other=0).to(tl.float32)
            between = (n * tn + h * th + w * tw)[:, None] + channel * tc
            if PASS == FIRST:
                s = k + alpha * total
                at = (n * gn + h * gh + w * gw)[:, None] + channel * gc
                g = tl.load(dy_ptr + at, mask=valid, other=0).to(tl.float32)
                weighted = g * power(s, BETA)
                tl.store(direct_ptr + between, weighted, mask=valid)
                tl.store(spread_ptr + between, weighted * value / s, mask=valid)
            else:
                if PASS == FORWARD:
                    result = value * power(k + alpha * total, BETA)
                else:
                    kept = tl.load(direct_ptr + between, mask=valid, other=0)
                    result = kept - 2 * BETA * alpha * value * total
                at = (n * yn + h * yh + w * yw)[:, None] + channel * yc
                tl.store(y_ptr + at, narrow(result, DTYPE, EMULATE), mask=valid)


def _launch(
    which: int,
    x: Tensor,
    dy: Tensor,
    between: Sequence[Tensor],
    y: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
) -> None:
    (n, c, height, width), v = x.shape, vector(x, dy, between[0], y)

    def grid(meta):
        lanes = n * triton.cdiv(height, meta["ROWS"]) * width * (c // v)
        return (triton.cdiv(lanes, meta["BLOCK"]),)

    kernel[grid](
        x, dy, between[0], between[-1], y, n, height, width,
        *nhwc_strides(x, dy, between[0], y), alpha, k,
        C=c, RADIUS=size // 2, BETA=beta, PASS=which, V=v, DTYPE=DTYPES[x.dtype],
        CHANNELS_FAST=channels_fast(x), WIDE=is_wide(x, y, dy), BUCKET=bucket(x), **LAUNCH,
    )  # fmt: skip


def forward(x: Tensor, y: Tensor, size: int, alpha: float, beta: float, k: float) -> None:
    """Write y (N, C, H, W), any strides."""
    _launch(0, x, x, [x], y, size, alpha, beta, k)


def backward(
    x: Tensor, dy: Tensor, dx: Tensor, size: int, alpha: float, beta: float, k: float
) -> None:
    """Write dx (N, C, H, W), any strides.

    For the time of the call it takes two float32 maps of the same size.
    """
    between = [torch.empty_like(dx, dtype=torch.float32) for _ in range(2)]
    _launch(1, x, dy, between, dx, size, alpha, beta, k)
    _launch(2, x, dy, between, dx, size, alpha, beta, k)
