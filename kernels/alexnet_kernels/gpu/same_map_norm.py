"""Response normalization within a map. A lane owns V channels of ROWS pixels below each other, and sums each row of its windows once.

The gradient takes two passes: the first writes what every pixel spreads over its neighbors, dy x s^(-beta-1), and keeps dy s^-beta; the
second sums the former over the windows.
"""

import torch
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
    power,
    tuned,
    vector,
)

KEY = ["C", "RADIUS", "V", "DTYPE", "PASS"]
CONFIGS = [
    ({"ROWS": rows, "BLOCK": block}, 4) for rows, block in ((4, 64), (9, 64), (14, 64), (2, 128))
]
FORWARD, FIRST, SECOND = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@tuned(KEY, *CONFIGS)
@triton.jit
def kernel(
    x, dy, direct, spread, y, N, H, W, xn, xh, xw, xc, gn, gh, gw, gc, tn, th, tw, tc, yn, yh, yw, yc, alpha, k,
    C: tl.constexpr, RADIUS: tl.constexpr, BETA: tl.constexpr, PASS: tl.constexpr, V: tl.constexpr, DTYPE: tl.constexpr,
    CHANNELS_FAST: tl.constexpr, WIDE: tl.constexpr, EMULATE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    GROUPS: tl.constexpr = C // V
    lane = lanes_of(BLOCK, WIDE)
    strips = (H + ROWS - 1) // ROWS
    n, strip, w, group = place(lane, strips, W, GROUPS, CHANNELS_FAST)
    inside = lane < N * strips * W * GROUPS
    top = strip * ROWS
    channel = group[:, None] * V + tl.arange(0, V)[None, :]
    sums = ()  # of each row that the strip's windows touch, over 2 RADIUS + 1 pixels
    for i in tl.static_range(ROWS + 2 * RADIUS):
        total = tl.zeros([BLOCK, V], tl.float32)
        h = top + (i - RADIUS)
        for j in tl.static_range(2 * RADIUS + 1):
            u = w + (j - RADIUS)
            there = (inside & (h >= 0) & (h < H) & (u >= 0) & (u < W))[:, None]
            if PASS == SECOND:
                total += tl.load(
                    spread + ((n * tn + h * th + u * tw)[:, None] + channel * tc),
                    mask=there,
                    other=0,
                )
            else:
                value = tl.load(
                    x + ((n * xn + h * xh + u * xw)[:, None] + channel * xc), mask=there, other=0
                ).to(tl.float32)
                total += value * value
        sums = sums + (total,)
        if i >= 2 * RADIUS:  # the windows around row i - RADIUS are complete
            for j in tl.static_range(1, 2 * RADIUS + 1):
                total += sums[i - j]
            h = top + (i - 2 * RADIUS)
            here = (inside & (h < H))[:, None]
            value = tl.load(
                x + ((n * xn + h * xh + w * xw)[:, None] + channel * xc), mask=here, other=0
            ).to(tl.float32)
            between = (n * tn + h * th + w * tw)[:, None] + channel * tc
            if PASS == FIRST:
                s = k + alpha * total
                g = tl.load(
                    dy + ((n * gn + h * gh + w * gw)[:, None] + channel * gc), mask=here, other=0
                ).to(tl.float32)
                weighted = g * power(s, BETA)
                tl.store(direct + between, weighted, mask=here)
                tl.store(spread + between, weighted * value / s, mask=here)
            else:
                if PASS == FORWARD:
                    result = value * power(k + alpha * total, BETA)
                else:
                    result = (
                        tl.load(direct + between, mask=here, other=0)
                        - 2 * BETA * alpha * value * total
                    )
                tl.store(
                    y + ((n * yn + h * yh + w * yw)[:, None] + channel * yc),
                    narrow(result, DTYPE, EMULATE),
                    mask=here,
                )


def _nhwc(x: Tensor) -> tuple[int, ...]:
    return tuple(x.stride(d) for d in (0, 2, 3, 1))


def _launch(
    which: int,
    x: Tensor,
    dy: Tensor,
    between: Tensor,
    y: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
) -> None:
    (n, c, height, width), v = x.shape, vector(x, dy, between[0], y)

    def grid(meta):
        return (
            triton.cdiv(n * triton.cdiv(height, meta["ROWS"]) * width * (c // v), meta["BLOCK"]),
        )

    kernel[grid](
        x, dy, between[0], between[-1], y, n, height, width, *_nhwc(x), *_nhwc(dy), *_nhwc(between[0]), *_nhwc(y), alpha, k,
        C=c, RADIUS=size // 2, BETA=beta, PASS=which, V=v, DTYPE=DTYPES[x.dtype], CHANNELS_FAST=channels_fast(x), WIDE=is_wide(x, y, dy),
        **LAUNCH,
    )  # fmt: skip


def forward(x: Tensor, y: Tensor, size: int, alpha: float, beta: float, k: float) -> None:
    """Writes y (N, C, H, W), any strides."""
    _launch(0, x, x, x[None], y, size, alpha, beta, k)


def backward(
    x: Tensor, dy: Tensor, dx: Tensor, size: int, alpha: float, beta: float, k: float
) -> None:
    """Writes dx (N, C, H, W), any strides; takes two float32 maps of the same size for the time of the call."""
    between = torch.stack([torch.empty_like(dx, dtype=torch.float32)] * 2)
    _launch(1, x, dy, between, dx, size, alpha, beta, k)
    _launch(2, x, dy, between, dx, size, alpha, beta, k)
