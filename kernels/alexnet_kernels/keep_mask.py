"""The masks of dropout: counter-based random numbers, compared with a threshold."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alexnet_kernels import _check, _choose, _native
from alexnet_kernels._native import SUFFIXES
from alexnet_kernels._operator import define

# splitmix64 (Steele, Lea and Flood, 2014), in int64 arithmetic, which wraps
_GOLDEN, _MULTIPLY_1, _MULTIPLY_2 = (
    constant - 2**64 for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


@define("keep_mask")
def operator(
    keys: Tensor, parts: Sequence[int], count: int, threshold: int, dtype: torch.dtype
) -> Tensor:
    return keys.new_empty((*keys.shape, count), dtype=dtype)


def _mix(x: Tensor) -> Tensor:
    def shifted(x: Tensor, bits: int) -> Tensor:  # torch's own shift copies the sign
        return (x >> bits) & ((1 << (64 - bits)) - 1)

    x = (x ^ shifted(x, 30)) * _MULTIPLY_1
    x = (x ^ shifted(x, 27)) * _MULTIPLY_2
    return x ^ shifted(x, 31)


def _hashed(keys: Tensor, parts: Sequence[int]) -> Tensor:
    for part in parts:
        keys = _mix((keys ^ part) + _GOLDEN)
    return keys


def by_torch(keys: Tensor, parts: Sequence[int], count: int, threshold: int) -> Tensor:
    """The same, as bools, in dozens of passes of torch's own operators.

    Args:
        keys: int64 (...).
        parts: Numbers that the keys are joined with.
        count: Bools for each key.
        threshold: As of the operator.
    """
    counter = torch.arange(count, device=keys.device) + 1
    return _mix(_hashed(keys, parts)[..., None] + counter * _GOLDEN) < threshold


@operator.form("composite")
def _(mask, keys, parts, count, threshold, dtype):
    mask.copy_(by_torch(keys, parts, count, threshold))


@operator.form("triton")
def _(mask, keys, parts, count, threshold, dtype):
    from alexnet_kernels.gpu import keep_mask as gpu

    gpu.keep_mask(keys.contiguous(), tuple(parts), mask, count, threshold)


def _in_c(mask: Tensor, keys: Tensor, *_: Any) -> bool:
    return keys.device.type == "cpu" and mask.dtype in (torch.bool, *SUFFIXES)


@operator.form("native", _in_c)
def _(mask, keys, parts, count, threshold, dtype):
    tensors = keys.contiguous(), (ctypes.c_int64 * len(parts))(*parts), mask
    settings = len(parts), count, threshold, mask.itemsize
    _native.run("keep_mask", tensors, keys.numel(), *settings)


def keep_mask(
    keys: Tensor,
    count: int,
    threshold: int,
    parts: Sequence[int] = (),
    dtype: torch.dtype = torch.bool,
) -> Tensor:
    """Whether the i-th number of each key is less than a threshold.

    Args:
        keys: int64, any shape.
        count: numbers of each key.
        threshold: in -2^63..2^63 - 1, as the numbers are: 0 keeps half of them.
        parts: numbers that the keys are hashed with first, one after the other: what the masks are
            for.
        dtype: of the result: bool, or a floating-point type to multiply by.

    Returns:
        (..., count): True, or 1, where a number is less.

    Raises:
        ValueError: for keys that are not int64.
    """
    _check.tensors(keys=keys)
    _check.whole(count=count, threshold=threshold)
    if keys.dtype != torch.int64:
        raise ValueError(f"keys must be int64; they are {keys.dtype}")
    if torch.compiler.is_compiling() or _choose.torchs_own(keys):
        return by_torch(keys, parts, count, threshold).to(dtype)
    return operator(keys, list(parts), count, threshold, dtype)
