"""Bias, ReLU, normalization and overlapping 3 x 3 / 2 pooling in one pass over channels-last maps.

A lane owns M words of channels of one column of output pixels and walks down a strip of rows: every
input row is normalized once and its maximum over three pixels carried on to the two windows that
share it. So the normalization is computed 1.5 times for each input, not 2.25 times as where windows
are independent, and its result never travels to memory.
"""

import triton
import triton.language as tl
from torch import Tensor

from alexnet_kernels.gpu.local_response_norm import AFTER, BEFORE, rectified, window
from alexnet_kernels.gpu.maps import (
    DTYPES,
    LAUNCH,
    bucket,
    is_wide,
    lanes_of,
    place,
    power,
    tuned,
)
from alexnet_kernels.gpu.words import (
    PACKED,
    as_words,
    bias_as_words,
    biased,
    channels,
    store_words,
    unit,
)
from alexnet_kernels.local_response_norm import RELU

CONFIGS = [
    ({"M": m, "STRIP": strip, "BLOCK": block}, block // 32)
    for m, strip, block in ((2, 9, 128), (1, 9, 128), (2, 13, 64), (2, 27, 64))
]


@triton.jit
def normalized_row(
    x_ptr,  # of the lane's first word, at the first of three pixels
    bias_ptr,  # of the lane's first channel
    xw,  # stride between pixels, in UNIT words
    first,  # the lane's first word, in its column
    inside,  # whether the lane has pixels
    alpha, k,
    MAPS: tl.constexpr,  # this and the rest as in `kernel`
    RADIUS: tl.constexpr,
    BETA: tl.constexpr,
    ORDER: tl.constexpr,
    BIAS: tl.constexpr,
    W: tl.constexpr,
    DTYPE: tl.constexpr,
    UNIT: tl.constexpr,
    M: tl.constexpr,
):  # fmt: skip
    """The maxima of M * W channels over three neighboring pixels of a row after LRN.

    Beside them, which of the three each was.
    """
    WORDS: tl.constexpr = MAPS // W
    PAIRS: tl.constexpr = UNIT == 2 and M % 2 == 0
    REACH: tl.constexpr = (RADIUS + W - 1) // W
    COUNT: tl.constexpr = M + 2 * REACH
    best = ()
    tap = ()
    for j in tl.static_range(3):
        u = channels(x_ptr + j * xw * UNIT, 1, first, inside, -REACH, COUNT, WORDS, W, DTYPE, PAIRS)
        u = biased(u, bias_ptr, first, inside, -REACH, COUNT, WORDS, W, DTYPE, PAIRS, BIAS)
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


KEY = ["MAPS", "COLUMNS", "RADIUS", "W", "DTYPE", "BIAS", "ORDER"]


@tuned(KEY, *CONFIGS)
@triton.jit(do_not_specialize=["BUCKET"])
def kernel(
    x_ptr,  # input, any float type (N, C, H, W), channels-last, as words
    bias_ptr,  # (C,), or as words; not read where it is ABSENT
    y_ptr,  # output: maxima (N, C, OH, OW), as x
    code_ptr,  # output: their taps, uint8 (N, C, OH, OW), channels-last
    N, OH, OW,  # images, rows and columns of the output
    xn, xh, xw,  # strides of x, in words
    yn, yh, yw,  # of y
    cn, ch, cw,  # of code, in channels
    alpha, k,
    BUCKET,  # of the number of elements, for which a configuration is chosen
    MAPS: tl.constexpr,  # of a column
    COLUMNS: tl.constexpr,
    RADIUS: tl.constexpr,  # of a window: size // 2
    BETA: tl.constexpr,
    ORDER: tl.constexpr,  # NONE, BEFORE or AFTER: where the ReLU stands
    BIAS: tl.constexpr,  # ABSENT, CHANNELS or PACKED
    W: tl.constexpr,  # channels a word
    DTYPE: tl.constexpr,  # of the maps
    UNIT: tl.constexpr,  # words that strides are counted in: 2 where all are even
    WIDE: tl.constexpr,  # whether offsets need 64 bits
    EMULATE: tl.constexpr,  # whether bfloat16 is rounded by hand
    M: tl.constexpr,  # words a lane
    STRIP: tl.constexpr,  # output rows a lane
    BLOCK: tl.constexpr,  # lanes a program
):  # fmt: skip
    WORDS: tl.constexpr = MAPS // W
    GROUPS: tl.constexpr = (WORDS + M - 1) // M
    PAIRS: tl.constexpr = UNIT == 2 and M % 2 == 0
    lane = lanes_of(BLOCK, WIDE)
    strips = (OH + STRIP - 1) // STRIP
    n, strip, w, group = place(lane, strips, OW, GROUPS * COLUMNS, True)
    inside = n < N
    first = group % GROUPS * M
    word = group // GROUPS * WORDS + first
    top = strip * STRIP
    x_ptr += (n * xn + top * 2 * xh + w * 2 * xw) * UNIT + word
    y_ptr += (n * yn + top * yh + w * yw) * UNIT + word
    code_ptr += n * cn + top * ch + w * cw + word * W
    bias_ptr += word if BIAS == PACKED else word * W
    above, above_tap = normalized_row(
        x_ptr, bias_ptr, xw, first, inside, alpha, k,
        MAPS, RADIUS, BETA, ORDER, BIAS, W, DTYPE, UNIT, M,
    )  # fmt: skip
    for h in range(STRIP):
        valid = inside & (top + h < OH)
        x_ptr += xh * UNIT
        middle, middle_tap = normalized_row(
            x_ptr, bias_ptr, xw, first, valid, alpha, k,
            MAPS, RADIUS, BETA, ORDER, BIAS, W, DTYPE, UNIT, M,
        )  # fmt: skip
        x_ptr += xh * UNIT
        below, below_tap = normalized_row(
            x_ptr, bias_ptr, xw, first, valid, alpha, k,
            MAPS, RADIUS, BETA, ORDER, BIAS, W, DTYPE, UNIT, M,
        )  # fmt: skip
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
            tl.store(code_ptr + i, tap.to(tl.uint8), mask=valid & (channel < MAPS))
        store_words(y_ptr, 1, best, first, valid, M, WORDS, W, DTYPE, PAIRS, EMULATE)
        y_ptr += yh * UNIT
        code_ptr += ch
        above = below
        above_tap = below_tap


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
    """Write the maxima y and their uint8 taps `code`, both (N, C, OH, OW), channels-last."""
    (n, _, height, width), maps = y.shape, x.shape[1] // columns
    per_word, (rows, out) = as_words(maps, x, y)
    words = maps // per_word
    read, how = bias_as_words(bias, rows, x)
    pair = unit(words, rows, out)
    steps = [step // pair for t in (rows, out) for step in t.stride()[:3]]
    taps = code.permute(0, 2, 3, 1)

    def grid(meta):
        lanes = n * triton.cdiv(height, meta["STRIP"]) * width * columns
        return (triton.cdiv(lanes * triton.cdiv(words, meta["M"]), meta["BLOCK"]),)

    kernel[grid](
        rows, read, out, code, n, height, width,
        *steps, *taps.stride()[:3], alpha, k,
        MAPS=maps, COLUMNS=columns, RADIUS=size // 2, BETA=beta, ORDER=RELU[relu],
        BIAS=how, W=per_word, DTYPE=DTYPES[x.dtype], UNIT=pair,
        WIDE=is_wide(x, y),
        BUCKET=bucket(x), **LAUNCH,
    )  # fmt: skip
