"""Response normalization across maps.

A lane owns M words of one pixel's channels and reads the neighbors its windows need beside them. In
channels-last memory a word is 64 bits: four channels of a half type or two of float32. A window of
five channels then reaches one word to either side in half types, forward (two channels away) and
backward (four): three aligned loads in place of five or nine misaligned ones. In planes, and where
the number of maps does not divide, a word is one channel. Words outside the column read as zero,
which ends the windows.
"""

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
    pack,
    place,
    power,
    rectify,
    tuned,
    unpack,
)
from alexnet_kernels.local_response_norm import RELU

NONE, BEFORE, AFTER = (tl.constexpr(RELU[word]) for word in ("none", "before", "after"))


@triton.jit
def channels(
    x_ptr,  # of a lane's first word
    step,  # between words
    first,  # the lane's first word, in its column
    inside,  # whether the lane has a pixel
    FROM: tl.constexpr,  # the first word to read, from the lane's first
    COUNT: tl.constexpr,  # words to read
    WORDS: tl.constexpr,  # of the column
    W: tl.constexpr,  # channels a word
    DTYPE: tl.constexpr,  # of the maps
):
    """COUNT * W channels in float32, as a tuple; zero outside the column."""
    values = ()
    for m in tl.static_range(COUNT):
        number = first + (FROM + m)
        valid = inside & (number >= 0) & (number < WORDS)
        word = tl.load(x_ptr + (FROM + m) * step, mask=valid, other=0)
        for i in tl.static_range(W):
            values = values + (unpack(word, i, DTYPE),)
    return values


@triton.jit
def biased(
    values,  # of `channels`
    bias_ptr,  # of the lane's first channel
    first,  # this and the next two as in `channels`
    inside,
    FROM: tl.constexpr,
    MAPS: tl.constexpr,  # of the column
    W: tl.constexpr,  # channels a word
    COUNT: tl.constexpr,  # values
    HAS_BIAS: tl.constexpr,
):
    """Channels with their bias added."""
    result = ()
    for i in tl.static_range(COUNT):
        value = values[i]
        if HAS_BIAS:
            channel = first * W + (FROM * W + i)
            valid = inside & (channel >= 0) & (channel < MAPS)
            value += tl.load(bias_ptr + (FROM * W + i), mask=valid, other=0).to(tl.float32)
        result = result + (value,)
    return result


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


KEY = ["MAPS", "COLUMNS", "RADIUS", "W", "DTYPE", "HAS_BIAS", "ORDER", "CHANNELS_FAST"]
CONFIGS = [
    ({"M": m, "BLOCK": block}, warps)
    for m, block, warps in ((1, 256, 4), (2, 128, 4), (2, 256, 8), (4, 128, 4))
]


@tuned(KEY, *CONFIGS)
@triton.jit(do_not_specialize=["BUCKET"])
def forward_kernel(
    x_ptr,  # input, any float type (N, C, H, W), as words
    bias_ptr,  # (C,); not read without HAS_BIAS
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
    HAS_BIAS: tl.constexpr,
    W: tl.constexpr,  # channels a word
    DTYPE: tl.constexpr,  # of the maps
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
    lane = lanes_of(BLOCK, WIDE)
    i0, i1, i2, group = place(lane, P1, P2, GROUPS * COLUMNS, CHANNELS_FAST)
    inside = i0 < P0
    first = group % GROUPS * M  # word in the column
    word = group // GROUPS * WORDS + first  # word in the pixel
    x_ptr += i0 * x0 + i1 * x1 + i2 * x2 + word * xc
    bias_ptr += word * W
    u = channels(x_ptr, xc, first, inside, -REACH, COUNT, WORDS, W, DTYPE)
    u = biased(u, bias_ptr, first, inside, -REACH, MAPS, W, COUNT * W, HAS_BIAS)
    if ORDER == BEFORE:
        u = rectified(u, COUNT * W)
    normalized = ()
    for c in tl.static_range(REACH * W, (REACH + M) * W):
        normalized = normalized + (u[c] * power(k + alpha * window(u, c, RADIUS), BETA),)
    if ORDER == AFTER:
        normalized = rectified(normalized, M * W)
    y_ptr += i0 * y0 + i1 * y1 + i2 * y2 + word * yc
    for m in tl.static_range(M):
        packed = pack(normalized, m * W, W, DTYPE, EMULATE)
        tl.store(y_ptr + m * yc, packed, mask=inside & (first + m < WORDS))


@tuned(KEY, *CONFIGS)
@triton.jit(do_not_specialize=["BUCKET"])
def backward_kernel(
    x_ptr,  # input of the forward pass, any float type (N, C, H, W), as words
    bias_ptr,  # (C,); not read without HAS_BIAS
    dy_ptr,  # gradient of the output, as x
    dx_ptr,  # output: gradient of x + bias, as x
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
    HAS_BIAS: tl.constexpr,
    W: tl.constexpr,  # channels a word
    DTYPE: tl.constexpr,  # of the maps
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
    lane = lanes_of(BLOCK, WIDE)
    i0, i1, i2, group = place(lane, P1, P2, GROUPS * COLUMNS, CHANNELS_FAST)
    inside = i0 < P0
    first = group % GROUPS * M
    word = group // GROUPS * WORDS + first
    x_ptr += i0 * x0 + i1 * x1 + i2 * x2 + word * xc
    bias_ptr += word * W
    dy_ptr += i0 * g0 + i1 * g1 + i2 * g2 + word * gc
    raw = channels(x_ptr, xc, first, inside, -FAR, COUNT, WORDS, W, DTYPE)
    raw = biased(raw, bias_ptr, first, inside, -FAR, MAPS, W, COUNT * W, HAS_BIAS)
    g = channels(dy_ptr, gc, first, inside, -REACH, M + 2 * REACH, WORDS, W, DTYPE)
    u = raw
    if ORDER == BEFORE:
        u = rectified(raw, COUNT * W)
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
    dx_ptr += i0 * y0 + i1 * y1 + i2 * y2 + word * yc
    for m in tl.static_range(M):
        packed = pack(gradients, m * W, W, DTYPE, EMULATE)
        tl.store(dx_ptr + m * yc, packed, mask=inside & (first + m < WORDS))


def as_words(maps: int, *tensors: Tensor) -> tuple[int, list[Tensor]]:
    """Channels a word, and the tensors as (N, H, W, words).

    Words are of 64 bits where every pixel's columns consist of whole, aligned ones.
    """
    rows = [t.permute(0, 2, 3, 1) for t in tensors]
    per_word = 8 // tensors[0].element_size()
    aligned = maps % per_word == 0 and all(
        t.stride(3) == 1
        and all(t.stride(d) % per_word == 0 for d in range(3))
        and t.storage_offset() % per_word == 0
        for t in rows
    )
    return (per_word, [t.view(torch.int64) for t in rows]) if aligned else (1, rows)


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
) -> None:
    x = tensors[0]
    n, maps, height, width = x.shape
    per_word, rows = as_words(maps // columns, *tensors)
    fast = channels_fast(x)
    sizes, strides = collapse((n, height, width), [t.stride()[:3] for t in rows], fast)
    pixels = n * height * width
    along = [step for t, steps in zip(rows, strides) for step in (*steps, t.stride(3))]
    words = maps // columns // per_word

    def grid(meta):
        return (triton.cdiv(pixels * columns * triton.cdiv(words, meta["M"]), meta["BLOCK"]),)

    kernel[grid](
        rows[0], x if bias is None else bias.contiguous(), *rows[1:],
        *sizes, *along, alpha, k,
        MAPS=maps // columns, COLUMNS=columns, RADIUS=size // 2, BETA=beta, ORDER=RELU[relu],
        HAS_BIAS=bias is not None, W=per_word, DTYPE=DTYPES[x.dtype], CHANNELS_FAST=fast,
        WIDE=is_wide(*tensors), BUCKET=bucket(x), **LAUNCH,
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
) -> None:
    """Writes dx, the gradient with respect to x + bias."""
    _launch(backward_kernel, [x, dy, dx], bias, size, alpha, beta, k, columns, relu)
