"""Response normalization across maps.

A lane owns M words of one pixel's channels and reads the neighbors its windows need beside them. In
channels-last memory a word is 64 bits: four channels of a half type or two of float32. A window of
five channels then reaches one word to either side in half types, forward (two channels away) and
backward (four): three aligned loads in place of five or nine misaligned ones. In planes, and where
the number of maps does not divide, a word is one channel. Words outside the column read as zero,
which ends the windows.
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
    collapse,
    is_wide,
    lanes_of,
    place,
    power,
    rectify,
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

NONE, BEFORE, AFTER = (tl.constexpr(RELU[word]) for word in ("none", "before", "after"))


@triton.jit
def rectified(values, COUNT: tl.constexpr):
    """The first COUNT values after a ReLU."""
    result = ()
    for i in tl.static_range(COUNT):
        result = result + (rectify(values[i]),)
    return result


@triton.jit
def window(u, c: tl.constexpr, RADIUS: tl.constexpr):
    """The sum of squares of u[c] and its RADIUS neighbors on either side."""
    total = u[c] * u[c]
    for j in tl.static_range(1, RADIUS + 1):
        total += u[c - j] * u[c - j] + u[c + j] * u[c + j]
    return total


KEY = ["MAPS", "COLUMNS", "RADIUS", "W", "DTYPE", "BIAS", "ORDER", "CHANNELS_FAST"]
CONFIGS = [
    ({"M": m, "BLOCK": block}, warps)
    for m, block, warps in ((4, 128, 4), (2, 128, 4), (2, 256, 8), (1, 256, 4))
]


@tuned(KEY, *CONFIGS)
@triton.jit(do_not_specialize=["BUCKET"])
def forward_kernel(
    x_ptr,  # input, any float type (N, C, H, W), as words
    bias_ptr,  # (C,), or as words; not read where it is ABSENT
    y_ptr,  # output, as x
    P0, P1, P2,  # the three sizes that N, H, W collapse to
    x0, x1, x2, xc,  # strides of x: of those three, of words
    y0, y1, y2, yc,  # of y
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
    UNIT: tl.constexpr,  # words that strides between pixels are counted in: 1 or 2
    CHANNELS_FAST: tl.constexpr,  # whether channels, not pixels, are neighbors in memory
    WIDE: tl.constexpr,  # whether offsets need 64 bits
    EMULATE: tl.constexpr,  # whether bfloat16 is rounded by hand
    M: tl.constexpr,  # words a lane
    BLOCK: tl.constexpr,  # lanes a program
):  # fmt: skip
    WORDS: tl.constexpr = MAPS // W  # of one column
    GROUPS: tl.constexpr = (WORDS + M - 1) // M
    REACH: tl.constexpr = (RADIUS + W - 1) // W  # words on either side
    COUNT: tl.constexpr = M + 2 * REACH
    PAIRS: tl.constexpr = UNIT == 2 and M % 2 == 0
    lane = lanes_of(BLOCK, WIDE)
    i0, i1, i2, group = place(lane, P1, P2, GROUPS * COLUMNS, CHANNELS_FAST)
    inside = i0 < P0
    first = group % GROUPS * M  # word in the column
    word = group // GROUPS * WORDS + first  # word in the pixel
    x_ptr += (i0 * x0 + i1 * x1 + i2 * x2) * UNIT + word * xc
    bias_ptr += word if BIAS == PACKED else word * W
    u = channels(x_ptr, xc, first, inside, -REACH, COUNT, WORDS, W, DTYPE, PAIRS)
    u = biased(u, bias_ptr, first, inside, -REACH, COUNT, WORDS, W, DTYPE, PAIRS, BIAS)
    if ORDER == BEFORE:
        u = rectified(u, COUNT * W)
    normalized = ()
    for c in tl.static_range(REACH * W, (REACH + M) * W):
        normalized = normalized + (u[c] * power(k + alpha * window(u, c, RADIUS), BETA),)
    if ORDER == AFTER:
        normalized = rectified(normalized, M * W)
    y_ptr += (i0 * y0 + i1 * y1 + i2 * y2) * UNIT + word * yc
    store_words(y_ptr, yc, normalized, first, inside, M, WORDS, W, DTYPE, PAIRS, EMULATE)


@triton.jit
def gradients_of(
    raw,  # M * W channels and FAR words on either side, before a ReLU
    g,  # gradients of their values, of the same channels and REACH words on either side
    alpha, k,
    RADIUS: tl.constexpr,  # this and the rest as in `backward_kernel`
    BETA: tl.constexpr,
    ORDER: tl.constexpr,
    W: tl.constexpr,
    M: tl.constexpr,
):  # fmt: skip
    """The gradients of M * W channels, as a tuple."""
    REACH: tl.constexpr = (RADIUS + W - 1) // W
    FAR: tl.constexpr = (2 * RADIUS + W - 1) // W
    u = raw
    if ORDER == BEFORE:
        u = rectified(raw, (M + 2 * FAR) * W)
    direct = ()  # dy s^-beta of this lane's channels
    spread = ()  # dy x s^(-beta-1) of these and of RADIUS more on either side
    for i in tl.static_range(M * W + 2 * RADIUS):
        gradient = g[REACH * W - RADIUS + i]
        if ORDER == AFTER:
            gradient = tl.where(raw[FAR * W - RADIUS + i] <= 0, 0.0, gradient)
        s = k + alpha * window(u, FAR * W - RADIUS + i, RADIUS)
        if BETA == 0.75:
            r = tl.rsqrt(s)
            weighted = gradient * (r * tl.sqrt(r))
            spread = spread + (weighted * u[FAR * W - RADIUS + i] * (r * r),)
        else:
            weighted = gradient * power(s, BETA)
            spread = spread + (weighted * u[FAR * W - RADIUS + i] / s,)
        direct = direct + (weighted,)
    gradients = ()
    for i in tl.static_range(M * W):
        total = spread[i]
        for j in tl.static_range(1, 2 * RADIUS + 1):
            total += spread[i + j]
        result = direct[RADIUS + i] - 2 * BETA * alpha * u[FAR * W + i] * total
        if ORDER == BEFORE:
            result = tl.where(raw[FAR * W + i] <= 0, 0.0, result)
        gradients = gradients + (result,)
    return gradients


@tuned([*KEY, "ROUNDS"], *CONFIGS)
@triton.jit(do_not_specialize=["BUCKET", "rows"])
def backward_kernel(
    x_ptr,  # input of the forward pass, any float type (N, C, H, W), as words
    bias_ptr,  # (C,), or as words; not read where it is ABSENT
    dy_ptr,  # gradient of the output, as x
    dx_ptr,  # output: gradient of x + bias, as x
    sums_ptr,  # output: its sums over ROUNDS pixels each, float32 (rows, C); not written where 1
    rows,  # pixels that those of a lane lie apart
    P0, P1, P2,  # the three sizes that N, H, W collapse to
    x0, x1, x2, xc,  # strides of x: of those three, of words
    g0, g1, g2, gc,  # of dy
    y0, y1, y2, yc,  # of dx
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
    UNIT: tl.constexpr,  # words that strides between pixels are counted in: 1 or 2
    ROUNDS: tl.constexpr,  # pixels a lane: more than one only where CHANNELS_FAST
    CHANNELS_FAST: tl.constexpr,  # whether channels, not pixels, are neighbors in memory
    WIDE: tl.constexpr,  # whether offsets need 64 bits
    EMULATE: tl.constexpr,  # whether bfloat16 is rounded by hand
    M: tl.constexpr,  # words a lane
    BLOCK: tl.constexpr,  # lanes a program
):  # fmt: skip
    WORDS: tl.constexpr = MAPS // W
    GROUPS: tl.constexpr = (WORDS + M - 1) // M
    REACH: tl.constexpr = (RADIUS + W - 1) // W  # of the gradients' windows, in words
    FAR: tl.constexpr = (2 * RADIUS + W - 1) // W  # of the windows in those windows
    COUNT: tl.constexpr = M + 2 * FAR
    PAIRS: tl.constexpr = UNIT == 2 and M % 2 == 0
    own = lanes_of(BLOCK, WIDE)
    row = own // (GROUPS * COLUMNS)
    lane = own
    sums = ()
    for _i in tl.static_range(M * W if ROUNDS > 1 else 0):
        sums = sums + (tl.zeros([BLOCK], tl.float32),)
    for _ in range(ROUNDS):
        i0, i1, i2, group = place(lane, P1, P2, GROUPS * COLUMNS, CHANNELS_FAST)
        inside = i0 < P0
        if ROUNDS > 1:
            inside = inside & (row < rows)
        first = group % GROUPS * M
        word = group // GROUPS * WORDS + first
        x_at = x_ptr + (i0 * x0 + i1 * x1 + i2 * x2) * UNIT + word * xc
        g_at = dy_ptr + (i0 * g0 + i1 * g1 + i2 * g2) * UNIT + word * gc
        y_at = dx_ptr + (i0 * y0 + i1 * y1 + i2 * y2) * UNIT + word * yc
        b_at = bias_ptr + (word if BIAS == PACKED else word * W)
        raw = channels(x_at, xc, first, inside, -FAR, COUNT, WORDS, W, DTYPE, PAIRS)
        raw = biased(raw, b_at, first, inside, -FAR, COUNT, WORDS, W, DTYPE, PAIRS, BIAS)
        g = channels(g_at, gc, first, inside, -REACH, M + 2 * REACH, WORDS, W, DTYPE, PAIRS)
        gradients = gradients_of(raw, g, alpha, k, RADIUS, BETA, ORDER, W, M)
        store_words(y_at, yc, gradients, first, inside, M, WORDS, W, DTYPE, PAIRS, EMULATE)
        if ROUNDS > 1:  # outside all is 0
            before = sums
            sums = ()
            for i in tl.static_range(M * W):
                sums = sums + (before[i] + gradients[i],)
            lane += rows.to(lane.dtype) * (GROUPS * COLUMNS)
    if ROUNDS > 1:
        place_in_column = own % GROUPS * M
        channel = own % (GROUPS * COLUMNS) // GROUPS * MAPS + place_in_column * W
        for i in tl.static_range(M * W):
            valid = (row < rows) & (place_in_column + i // W < WORDS)
            tl.store(sums_ptr + row * (MAPS * COLUMNS) + channel + i, sums[i], mask=valid)


def _launch(
    kernel,
    tensors: list[Tensor],
    bias: Tensor | None,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    columns: int,
    relu: str,
    more: Sequence[object] = (),
    apart: int | None = None,
    **constants: int,
) -> None:
    """more: arguments behind the tensors; apart: pixels that those of a lane lie apart, which it
    goes through one after the other; None: a lane has one."""
    x = tensors[0]
    n, maps, height, width = x.shape
    per_word, rows = as_words(maps // columns, *tensors)
    fast = channels_fast(x)
    sizes, strides = collapse((n, height, width), [t.stride()[:3] for t in rows], fast)
    pixels = n * height * width
    words = maps // columns // per_word
    pair = unit(words, *rows)
    along = [
        step
        for t, steps in zip(rows, strides)
        for step in (*(each // pair for each in steps), t.stride(3))
    ]
    read, how = bias_as_words(bias, rows[0], x)

    def grid(meta):
        groups = columns * triton.cdiv(words, meta["M"])
        return (triton.cdiv((apart or pixels) * groups, meta["BLOCK"]),)

    kernel[grid](
        rows[0], read, *rows[1:], *more,
        *sizes, *along, alpha, k, **constants,
        MAPS=maps // columns, COLUMNS=columns, RADIUS=size // 2, BETA=beta, ORDER=RELU[relu],
        BIAS=how, W=per_word, DTYPE=DTYPES[x.dtype], UNIT=pair,
        CHANNELS_FAST=fast, WIDE=is_wide(*tensors), BUCKET=bucket(x), **LAUNCH,
    )  # fmt: skip


def forward(
    x: Tensor,
    bias: Tensor | None,
    y: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    columns: int,
    relu: str,
) -> None:
    """Writes y (N, C, H, W), any strides; bias (C,) or None is added first."""
    _launch(forward_kernel, [x, y], bias, size, alpha, beta, k, columns, relu)


def backward(
    x: Tensor,
    bias: Tensor | None,
    dy: Tensor,
    dx: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    columns: int,
    relu: str,
    sums: Tensor | None = None,
) -> None:
    """Writes dx, the gradient with respect to x + bias; and, in maps whose channels lie side by
    side, its sums over a few pixels each, as `empty_sums` makes them."""
    settings = (bias, size, alpha, beta, k, columns, relu)
    more, apart, rounds = (dx, 0), None, 1
    if sums is not None:
        more, apart, rounds = (sums, len(sums)), len(sums), _rounds(x)
    _launch(backward_kernel, [x, dy, dx], *settings, more, apart, ROUNDS=rounds)


def _rounds(x: Tensor) -> int:
    """Pixels that a lane sums up over: many enough for few sums, which stay in a cache, and few
    enough for all multiprocessors to have lanes."""
    return 8 if x.numel() // x.shape[1] < 2**20 else 32


def empty_sums(x: Tensor) -> Tensor:
    """Room for sums of the gradient, float32 (rows, C), which together are the bias's gradient."""
    rows = triton.cdiv(x.numel() // x.shape[1], _rounds(x))
    return torch.empty(rows, x.shape[1], dtype=torch.float32, device=x.device)
