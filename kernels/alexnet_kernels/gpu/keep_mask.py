"""The masks of dropout in one launch: a lane hashes its key, and draws one number of it."""

import triton
import triton.language as tl
from torch import Tensor

from alexnet_kernels.gpu.maps import INT32, lanes_of

BLOCK = 256
# of splitmix64, as in alexnet_kernels/keep_mask.py
GOLDEN = tl.constexpr(0x9E3779B97F4A7C15 - 2**64)
MULTIPLY_1 = tl.constexpr(0xBF58476D1CE4E5B9 - 2**64)
MULTIPLY_2 = tl.constexpr(0x94D049BB133111EB - 2**64)


@triton.jit
def mix(x):
    """splitmix64's finalizer; what a shift to the right brings in is masked, as signs would be."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * MULTIPLY_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * MULTIPLY_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


@triton.jit
def kernel(
    keys_ptr,  # int64 (N,)
    mask_ptr,  # output (N, count): bool, as bytes, or a floating-point type
    total,  # N * count
    count,  # numbers of each key
    threshold,  # int64: below it a number is kept
    parts,  # tuple of integers that the keys are hashed with
    PARTS: tl.constexpr,  # of them
    WIDE: tl.constexpr,  # whether offsets need 64 bits
    BLOCK: tl.constexpr,  # lanes a program
):  # fmt: skip
    lane = lanes_of(BLOCK, WIDE)
    inside = lane < total
    state = tl.load(keys_ptr + lane // count, mask=inside, other=0)
    for i in tl.static_range(PARTS):
        state = mix((state ^ parts[i]) + GOLDEN)
    number = mix(state + (lane % count + 1).to(tl.int64) * GOLDEN)
    kept = number < threshold
    if mask_ptr.dtype.element_ty.is_floating():
        kept = tl.where(kept, 1.0, 0.0).to(mask_ptr.dtype.element_ty)
    tl.store(mask_ptr + lane, kept, mask=inside)


def keep_mask(
    keys: Tensor, parts: tuple[int, ...], mask: Tensor, count: int, threshold: int
) -> None:
    """Write mask (..., count), dense; keys: int64 (...), dense."""
    kernel[(triton.cdiv(mask.numel(), BLOCK),)](
        keys, mask, mask.numel(), count, threshold, parts,
        PARTS=len(parts), WIDE=mask.numel() > INT32 - BLOCK, BLOCK=BLOCK,
    )  # fmt: skip
