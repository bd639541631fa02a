"""Bias, ReLU, response normalization and overlapping 3 x 3 / 2 pooling in one pass over channels-last maps.

A lane owns M words of channels of one column of output pixels and walks down a strip of rows: every input row is normalized once and its
maximum over three pixels carried on to the two windows that share it. So the normalization is computed 1.5 times for each input, not 2.25
times as where windows are independent, and its result never travels to memory.
"""

import triton
import triton.language as tl
from torch import Tensor

from alexnet_kernels.gpu.local_response_norm import (
    AFTER,
    BEFORE,
    RELU,
    activated,
    as_words,
    channels,
    rectified,
    window,
)
from alexnet_kernels.gpu.maps import DTYPES, LAUNCH, is_wide, lanes_of, pack, place, power, tuned

CONFIGS = [
    ({"M": m, "STRIP": strip, "BLOCK": block}, block // 32)
    for m, strip, block in ((1, 9, 128), (2, 9, 128), (1, 14, 64), (2, 27, 64))
]


@triton.jit
def normalized_row(
    x, bias, xw, first, inside, alpha, k,
    MAPS: tl.constexpr, RADIUS: tl.constexpr, BETA: tl.constexpr, ORDER: tl.constexpr, HAS_BIAS: tl.constexpr, W: tl.constexpr,
    DTYPE: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """The maxima, M * W channels, over three neighboring pixels of a row after LRN, and which of the three each was."""
    REACH: tl.constexpr = (RADIUS + W - 1) // W
    COUNT: tl.constexpr = M + 2 * REACH
    best = ()
    tap = ()
    for j in tl.static_range(3):
        u = channels(x + j * xw, 1, first, inside, -REACH, COUNT, MAPS // W, W, DTYPE)
        u = activated(u, bias, first, inside, -REACH, MAPS, W, COUNT * W, HAS_BIAS)
        if ORDER == BEFORE:
            u = rectified(u, COUNT * W)
        before = best
        which = tap
        best = ()
        tap = ()
        for i in tl.static_range(M * W):
            value = u[REACH * W + i] * power(k + alpha * window(u, REACH * W + i, RADIUS), BETA)
            if j == 0:
                best = best + (value,)
                tap = tap + (tl.zeros_like(value).to(tl.int32),)
            else:
                better = (value > before[i]) | (value != value)
                best = best + (tl.where(better, value, before[i]),)
                tap = tap + (tl.where(better, j, which[i]),)
    return best, tap


@tuned(["MAPS", "COLUMNS", "RADIUS", "W", "DTYPE", "HAS_BIAS"], *CONFIGS)
@triton.jit
def kernel(
    x, bias, y, code, N, OH, OW, xn, xh, xw, yn, yh, yw, cn, ch, cw, alpha, k,
    MAPS: tl.constexpr, COLUMNS: tl.constexpr, RADIUS: tl.constexpr, BETA: tl.constexpr, ORDER: tl.constexpr, HAS_BIAS: tl.constexpr,
    W: tl.constexpr, DTYPE: tl.constexpr, WIDE: tl.constexpr, EMULATE: tl.constexpr,
    M: tl.constexpr, STRIP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    WORDS: tl.constexpr = MAPS // W
    GROUPS: tl.constexpr = (WORDS + M - 1) // M
    lane = lanes_of(BLOCK, WIDE)
    strips = (OH + STRIP - 1) // STRIP
    n, strip, w, group = place(lane, strips, OW, GROUPS * COLUMNS, True)
    inside = lane < N * strips * OW * (GROUPS * COLUMNS)
    first = group % GROUPS * M
    word = group // GROUPS * WORDS + first
    top = strip * STRIP
    x += n * xn + top * 2 * xh + w * 2 * xw + word
    y += n * yn + top * yh + w * yw + word
    code += n * cn + top * ch + w * cw + word * W
    bias += word * W
    above, above_tap = normalized_row(
        x, bias, xw, first, inside, alpha, k, MAPS, RADIUS, BETA, ORDER, HAS_BIAS, W, DTYPE, M
    )
    for h in range(STRIP):
        here = inside & (top + h < OH)
        x += xh
        middle, middle_tap = normalized_row(
            x, bias, xw, first, here, alpha, k, MAPS, RADIUS, BETA, ORDER, HAS_BIAS, W, DTYPE, M
        )
        x += xh
        below, below_tap = normalized_row(
            x, bias, xw, first, here, alpha, k, MAPS, RADIUS, BETA, ORDER, HAS_BIAS, W, DTYPE, M
        )
        best = ()
        for i in tl.static_range(M * W):
            value = above[i]
            tap = above_tap[i]
            better = (middle[i] > value) | (middle[i] != middle[i])
            value = tl.where(better, middle[i], value)
            tap = tl.where(better, middle_tap[i] + 3, tap)
            better = (below[i] > value) | (below[i] != below[i])
            value = tl.where(better, below[i], value)
            tap = tl.where(better, below_tap[i] + 6, tap)
            if ORDER == AFTER:
                value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
            best = best + (value,)
            channel = first * W + i
            tl.store(code + i, tap.to(tl.uint8), mask=here & (channel < MAPS))
        for m in tl.static_range(M):
            tl.store(y + m, pack(best, m * W, W, DTYPE, EMULATE), mask=here & (first + m < WORDS))
        y += yh
        code += ch
        above = below
        above_tap = below_tap


def fits(x: Tensor, pool_size: int, pool_stride: int) -> bool:
    """Whether the fused form exists for these maps."""
    return pool_size == 3 and pool_stride == 2 and x.stride(1) == 1


def forward(
    x: Tensor,
    bias: Tensor | None,
    y: Tensor,
    code: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    columns: int,
    relu: str,
) -> None:
    """Writes y and the uint8 taps `code`, both (N, C, OH, OW), channels-last."""
    (n, _, height, width), maps = y.shape, x.shape[1] // columns
    per_word, (rows, out) = as_words(maps, x, y)
    words = maps // per_word
    taps = code.permute(0, 2, 3, 1)

    def grid(meta):
        lanes = (
            n * triton.cdiv(height, meta["STRIP"]) * width * columns * triton.cdiv(words, meta["M"])
        )
        return (triton.cdiv(lanes, meta["BLOCK"]),)

    kernel[grid](
        rows, x if bias is None else bias, out, code, n, height, width, *rows.stride()[:3], *out.stride()[:3], *taps.stride()[:3], alpha, k,
        MAPS=maps, COLUMNS=columns, RADIUS=size // 2, BETA=beta, ORDER=RELU[relu], HAS_BIAS=bias is not None,
        W=per_word, DTYPE=DTYPES[x.dtype], WIDE=is_wide(x, y), **LAUNCH,
    )  # fmt: skip
