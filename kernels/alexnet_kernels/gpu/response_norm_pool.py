"""Bias, ReLU, normalization and overlapping 3 x 3 / 2 pooling in one pass over channels-last maps.

A lane owns M words of channels of one column of output pixels and walks down a strip of rows: every
input row is normalized once and its maximum over three pixels carried on to the two windows that
share it. So the normalization is computed 1.5 times for each input, not 2.25 times as where windows
are independent, and its result never travels to memory.
"""

import triton
import triton.language as tl
from torch import Tensor

from alexnet_kernels.gpu.local_response_norm import (
    AFTER,
    BEFORE,
    as_words,
    biased,
    channels,
    rectified,
    window,
)
from alexnet_kernels.gpu.maps import (
    DTYPES,
    LAUNCH,
    bucket,
    is_wide,
    lanes_of,
    pack,
    place,
    power,
    tuned,
)
from alexnet_kernels.local_response_norm import RELU

CONFIGS = [
    ({"M": m, "STRIP": strip, "BLOCK": block}, block // 32)
    for m, strip, block in ((1, 9, 128), (2, 9, 128), (1, 14, 64), (2, 27, 64))
]


@triton.jit
def normalized_row(
    x_ptr,  # of the lane's first word, at the first of three pixels
    bias_ptr,  # of the lane's first channel
    xw,  # stride between pixels
    first,  # the lane's first word, in its column
    inside,  # whether the lane has pixels
    alpha, k,
    MAPS: tl.constexpr,  # this and the rest as in `kernel`
    RADIUS: tl.constexpr,
    BETA: tl.constexpr,
    ORDER: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    W: tl.constexpr,
    DTYPE: tl.constexpr,
    M: tl.constexpr,
):  # fmt: skip
    """The maxima of M * W channels over three neighboring pixels of a row after LRN.

    Beside them, which of the three each was.
    """
    REACH: tl.constexpr = (RADIUS + W - 1) // W
    COUNT: tl.constexpr = M + 2 * REACH
    best = ()
    tap = ()
    for j in tl.static_range(3):
        u = channels(x_ptr + j * xw, 1, first, inside, -REACH, COUNT, MAPS // W, W, DTYPE)
        u = biased(u, bias_ptr, first, inside, -REACH, MAPS, W, COUNT * W, HAS_BIAS)
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


KEY = ["MAPS", "COLUMNS", "RADIUS", "W", "DTYPE", "HAS_BIAS", "ORDER"]


@tuned(KEY, *CONFIGS)
@triton.jit(do_not_specialize=["BUCKET"])
def kernel(
    x_ptr,  # input, any float type (N, C, H, W), channels-last, as words
    bias_ptr,  # (C,); not read without HAS_BIAS
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
    HAS_BIAS: tl.constexpr,
    W: tl.constexpr,  # channels a word
    DTYPE: tl.constexpr,  # of the maps
    WIDE: tl.constexpr,  # whether offsets need 64 bits
    EMULATE: tl.constexpr,  # whether bfloat16 is rounded by hand
    M: tl.constexpr,  # words a lane
    STRIP: tl.constexpr,  # output rows a lane
    BLOCK: tl.constexpr,  # lanes a program
):  # fmt: skip
    WORDS: tl.constexpr = MAPS // W
    GROUPS: tl.constexpr = (WORDS + M - 1) // M
    lane = lanes_of(BLOCK, WIDE)
    strips = (OH + STRIP - 1) // STRIP
    n, strip, w, group = place(lane, strips, OW, GROUPS * COLUMNS, True)
    inside = n < N
    first = group % GROUPS * M
    word = group // GROUPS * WORDS + first
    top = strip * STRIP
    x_ptr += n * xn + top * 2 * xh + w * 2 * xw + word
    y_ptr += n * yn + top * yh + w * yw + word
    code_ptr += n * cn + top * ch + w * cw + word * W
    bias_ptr += word * W
    above, above_tap = normalized_row(
        x_ptr, bias_ptr, xw, first, inside, alpha, k,
        MAPS, RADIUS, BETA, ORDER, HAS_BIAS, W, DTYPE, M,
    )  # fmt: skip
    for h in range(STRIP):
        valid = inside & (top + h < OH)
        x_ptr += xh
        middle, middle_tap = normalized_row(
            x_ptr, bias_ptr, xw, first, valid, alpha, k,
            MAPS, RADIUS, BETA, ORDER, HAS_BIAS, W, DTYPE, M,
        )  # fmt: skip
        x_ptr += xh
        below, below_tap = normalized_row(
            x_ptr, bias_ptr, xw, first, valid, alpha, k,
            MAPS, RADIUS, BETA, ORDER, HAS_BIAS, W, DTYPE, M,
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
        for m in tl.static_range(M):
            packed = pack(best, m * W, W, DTYPE, EMULATE)
            tl.store(y_ptr + m, packed, mask=valid & (first + m < WORDS))
        y_ptr += yh
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
    taps = code.permute(0, 2, 3, 1)

    def grid(meta):
        lanes = n * triton.cdiv(height, meta["STRIP"]) * width * columns
        return (triton.cdiv(lanes * triton.cdiv(words, meta["M"]), meta["BLOCK"]),)

    kernel[grid](
        rows, x if bias is None else bias.contiguous(), out, code, n, height, width,
        *rows.stride()[:3], *out.stride()[:3], *taps.stride()[:3], alpha, k,
        MAPS=maps, COLUMNS=columns, RADIUS=size // 2, BETA=beta, ORDER=RELU[relu],
        HAS_BIAS=bias is not None, W=per_word, DTYPE=DTYPES[x.dtype], WIDE=is_wide(x, y),
        BUCKET=bucket(x), **LAUNCH,
    )  # fmt: skip
