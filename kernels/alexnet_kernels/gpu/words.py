"""How lanes read and write the channels of a pixel: as words of 64 bits where those are aligned."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet_kernels.gpu.maps import pack, unpack

ABSENT, CHANNELS, PACKED = (tl.constexpr(i) for i in range(3))  # how the bias is read


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
    PAIRS: tl.constexpr,  # whether words 2i and 2i + 1 are 16 aligned bytes, of one column
):
    """COUNT * W channels in float32, as a tuple; zero outside the column."""
    values = ()
    for m in tl.static_range(COUNT):
        number = first + (FROM + m)
        valid = inside & (number >= 0) & (number < WORDS)
        if PAIRS and (FROM + m) % 2 == 0 and m + 1 < COUNT:
            both = x_ptr[:, None] + (FROM + m + tl.arange(0, 2))[None, :]
            low, high = tl.split(tl.load(both, mask=valid[:, None], other=0))
            for i in tl.static_range(W):
                values = values + (unpack(low, i, DTYPE),)
            for i in tl.static_range(W):
                values = values + (unpack(high, i, DTYPE),)
        elif not PAIRS or (FROM + m) % 2 == 0 or m == 0:
            word = tl.load(x_ptr + (FROM + m) * step, mask=valid, other=0)
            for i in tl.static_range(W):
                values = values + (unpack(word, i, DTYPE),)
    return values


@triton.jit
def biased(
    values,  # of `channels`
    bias_ptr,  # of the lane's first channel, or word of channels
    first,  # this and the rest as in `channels`
    inside,
    FROM: tl.constexpr,
    COUNT: tl.constexpr,
    WORDS: tl.constexpr,
    W: tl.constexpr,
    DTYPE: tl.constexpr,
    PAIRS: tl.constexpr,
    BIAS: tl.constexpr,  # ABSENT, CHANNELS or PACKED
):
    """Channels with their bias added."""
    result = values
    if BIAS == PACKED:
        result = ()
        bias = channels(bias_ptr, 1, first, inside, FROM, COUNT, WORDS, W, DTYPE, PAIRS)
        for i in tl.static_range(COUNT * W):
            result = result + (values[i] + bias[i],)
    elif BIAS == CHANNELS:
        result = ()
        for i in tl.static_range(COUNT * W):
            channel = first * W + (FROM * W + i)
            valid = inside & (channel >= 0) & (channel < WORDS * W)
            bias = tl.load(bias_ptr + (FROM * W + i), mask=valid, other=0)
            result = result + (values[i] + bias.to(tl.float32),)
    return result


@triton.jit
def store_words(
    y_ptr,  # of a lane's first word
    step,  # between words
    values,  # channels in float32, as a tuple
    first,  # the lane's first word, in its column
    inside,  # whether the lane has a pixel
    COUNT: tl.constexpr,  # words to write; this and the rest as in `channels`
    WORDS: tl.constexpr,
    W: tl.constexpr,
    DTYPE: tl.constexpr,
    PAIRS: tl.constexpr,
    EMULATE: tl.constexpr,  # whether bfloat16 is rounded by hand
):
    """Write words of channels, rounded to DTYPE, where they are inside the column."""
    for m in tl.static_range(COUNT):
        valid = inside & (first + m < WORDS)
        if PAIRS and m % 2 == 0:
            low = pack(values, m * W, W, DTYPE, EMULATE)
            both = tl.join(low, pack(values, (m + 1) * W, W, DTYPE, EMULATE))
            at = y_ptr[:, None] + (m + tl.arange(0, 2))[None, :]
            tl.store(at, both, mask=valid[:, None])
        elif not PAIRS:
            tl.store(y_ptr + m * step, pack(values, m * W, W, DTYPE, EMULATE), mask=valid)


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


def unit(words: int, *rows: Tensor) -> int:
    """2 where words 2i and 2i + 1 of each pixel's columns, of so many words, are 16 aligned bytes,
    which one load can take; else 1. rows: of `as_words`."""
    pairs = words % 2 == 0 and all(
        t.dtype == torch.int64
        and all(t.stride(d) % 2 == 0 for d in range(3))
        and t.storage_offset() % 2 == 0
        for t in rows
    )
    return 2 if pairs else 1


def bias_as_words(bias: Tensor | None, rows: Tensor, x: Tensor) -> tuple[Tensor, int]:
    """What kernels read as the bias, and how: as words where the maps are and it is like them."""
    if bias is None:
        return x, 0
    bias, per_word = bias.contiguous(), x.shape[1] // rows.shape[3]
    alike = bias.dtype == x.dtype and bias.storage_offset() % (2 * per_word) == 0
    if rows.dtype != torch.int64 or not alike:
        return bias, 1
    return bias.view(torch.int64), 2
