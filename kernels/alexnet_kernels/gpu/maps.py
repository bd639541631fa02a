"""What the kernels over maps share.

How a lane gets its pixel and its channels, how channels are packed in words, s^-beta.
"""

import math
import os
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet_kernels._choose import INTERPRETED
from alexnet_kernels.gpu.timing import of_configuration

INT32 = 2**31 - 1
DTYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
# For every launch. The interpreter truncates to bfloat16 where devices round to nearest even;
# Triton 3.10 will not fuse a * b + c unasked.
LAUNCH = {"EMULATE": INTERPRETED, "enable_fp_fusion": True}


def tuned(key: Sequence[str], *configs: tuple[dict[str, int], int]):
    """Decorate a kernel with the configurations (constants, warps) that it may run in.

    The fastest is measured at the first call with a new `key` or number of elements (`bucket`), and
    kept on disk. Under the interpreter, which has no speed, and where ALEXNET_TUNING is
    "off", as in tests of what kernels compute, the first is taken.
    """
    choices = [triton.Config(constants, num_warps=warps) for constants, warps in configs]
    return triton.autotune(
        choices[:1] if INTERPRETED or os.environ.get("ALEXNET_TUNING") == "off" else choices,
        key=[*key, "BUCKET"],
        do_bench=of_configuration,
        cache_results=True,
    )


def bucket(x: Tensor) -> int:
    """A number that kernels are tuned for anew: of batches that differ by a factor of four or more
    it differs."""
    return (x.numel().bit_length() + 1) // 2


def channels_fast(x: Tensor) -> bool:
    """Whether neighboring channels, not neighboring pixels, are neighbors in memory."""
    return x.stride(1) == 1 and not (x.shape[1] == 1 or x.stride(3) == 1)


def vector(x: Tensor, *others: Tensor) -> int:
    """How many channels of one pixel a lane may take at once.

    Loads of 16 bytes then stay aligned: a power of two, 1 in planes.
    """
    tensors = (x, *others)
    if not all(channels_fast(t) for t in tensors):
        return 1
    strides = (t.stride(d) for t in tensors for d in (0, 2, 3) if t.shape[d] > 1)
    return math.gcd(16 // x.element_size(), x.shape[1], *strides)


def nhwc_strides(*tensors: Tensor) -> list[int]:
    """The strides of each: images, rows, columns, channels."""
    return [t.stride(d) for t in tensors for d in (0, 2, 3, 1)]


def collapse(
    sizes: Sequence[int], strides: Sequence[Sequence[int]], channels_fast: bool
) -> tuple[list[int], list[list[int]]]:
    """Merge dimensions that every tensor steps through evenly.

    Where channels are fast, the sizes that are left stand first and 1 fills up, so that the
    kernel's divisions vanish for dense maps; in planes the innermost stays last, because lanes run
    along it.

    Returns:
        At most three sizes, and each tensor's strides for them.
    """
    kept: list[tuple[int, list[int]]] = []
    for size, steps in zip(sizes, zip(*strides)):
        if size == 1:
            continue
        if kept and all(before == step * size for before, step in zip(kept[-1][1], steps)):
            kept[-1] = (kept[-1][0] * size, list(steps))
        else:
            kept.append((size, list(steps)))
    fill = [(1, [0] * len(strides))] * (3 - len(kept))
    filled = [*kept, *fill] if channels_fast or not kept else [*kept[:-1], *fill, kept[-1]]
    merged = [[steps[i] for _, steps in filled] for i in range(len(strides))]
    return [size for size, _ in filled], merged


def is_wide(*tensors: Tensor) -> bool:
    """Whether offsets need 64 bits."""
    return any(
        sum((n - 1) * s for n, s in zip(t.shape, t.stride())) > INT32 - 2**20 for t in tensors
    )


@triton.jit
def lanes_of(BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """The numbers of this program's lanes."""
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    return program * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def place(lane, P1, P2, GROUPS: tl.constexpr, CHANNELS_FAST: tl.constexpr):
    """A lane's three coordinates of the pixel, the slowest first, and its group of channels."""
    if CHANNELS_FAST:
        group = lane % GROUPS
        pixel = lane // GROUPS
        i2 = pixel % P2
        rest = pixel // P2
    else:
        i2 = lane % P2
        rest = lane // P2
        group = rest % GROUPS
        rest = rest // GROUPS
    return rest // P1, rest % P1, i2, group


@triton.jit
def unpack(word, i: tl.constexpr, DTYPE: tl.constexpr):
    """Channel i of a word, in float32.

    A word is 64 bits of neighboring channels, or one channel of its own type.
    """
    if word.dtype != tl.int64:
        value = word.to(tl.float32)
    elif DTYPE == tl.float32:
        value = (word >> (32 * i)).to(tl.int32).to(tl.float32, bitcast=True)
    elif DTYPE == tl.bfloat16:
        value = ((word >> (16 * i)).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        value = (word >> (16 * i)).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    return value


@triton.jit
def narrow(value, DTYPE: tl.constexpr, EMULATE: tl.constexpr):
    """float32 rounded to DTYPE, ties to even."""
    if EMULATE and DTYPE == tl.bfloat16:
        bits = value.to(tl.int32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        rounded = tl.where(value != value, 0x7FC0, rounded)
        result = rounded.to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        result = value.to(DTYPE)
    return result


@triton.jit
def pack(values, FIRST: tl.constexpr, W: tl.constexpr, DTYPE: tl.constexpr, EMULATE: tl.constexpr):
    """The word of W channels that begins with values[FIRST]."""
    if W == 1:
        word = narrow(values[FIRST], DTYPE, EMULATE)
    elif W == 2:
        low = values[FIRST].to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
        word = low | (values[FIRST + 1].to(tl.int32, bitcast=True).to(tl.int64) << 32)
    else:
        bits = narrow(values[FIRST], DTYPE, EMULATE).to(tl.int16, bitcast=True)
        word = bits.to(tl.int64) & 0xFFFF
        for i in tl.static_range(1, W):
            bits = narrow(values[FIRST + i], DTYPE, EMULATE).to(tl.int16, bitcast=True)
            word = word | ((bits.to(tl.int64) & 0xFFFF) << (16 * i))
    return word


@triton.jit
def rectify(x):
    """ReLU; NaN stays NaN."""
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def power(s, BETA: tl.constexpr):
    """s^-beta; two root instructions at the paper's beta."""
    if BETA == 0.75:
        r = tl.rsqrt(s)
        p = r * tl.sqrt(r)
    else:
        p = tl.exp2(-BETA * tl.log2(s))
    return p
