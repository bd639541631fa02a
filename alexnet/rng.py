"""Random numbers that depend on what they are for, never on who draws them or when.

A number is a hash of its key: (seed, epoch, image) for a crop, (seed, step, image, layer, column,
unit) for a dropout mask. So any process, on any device, that needs the same number computes the
same number; a resumed run needs no generator's state; and two columns on two machines drop what one
process would have. The hash is splitmix64's finalizer (Steele, Lea and Flood, 2014), in wrapping
int64 arithmetic, the same on CPU and GPU.
"""

import math
from typing import Any

import torch
from torch import Tensor

from alexnet_kernels import keep_mask

_MULTIPLY_1, _MULTIPLY_2, _GOLDEN = (
    0xBF58476D1CE4E5B9 - 2**64,
    0x94D049BB133111EB - 2**64,
    0x9E3779B97F4A7C15 - 2**64,
)

Number = Any  # an int, or an int64 tensor

# the first entry of every key: what the number is for
ORDER, CROP, COLOR, DROPOUT, INITIAL = range(1, 6)


def _shift(x: Number, bits: int) -> Number:
    """Logical shift to the right; torch's own copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _wrap(x: Number) -> Number:
    """Python's integers as int64 ones, which tensors' are."""
    return ((x + 2**63) & (2**64 - 1)) - 2**63 if isinstance(x, int) else x


def _mix(x: Number) -> Number:
    x = _wrap((x ^ _shift(x, 30)) * _MULTIPLY_1)
    x = _wrap((x ^ _shift(x, 27)) * _MULTIPLY_2)
    return x ^ _shift(x, 31)


def key(*parts: int | Tensor) -> Tensor:
    """A 64-bit key (int64) from integers and int64 tensors, which broadcast: key(CROP, seed, epoch,
    images) has the shape of `images`."""
    # a number until a tensor comes: torch takes tens of microseconds for what Python does in one
    state: Number = 0
    for part in parts:
        state = _mix(_wrap((state ^ part) + _GOLDEN))
    return torch.as_tensor(state)


def uniform(keys: Tensor, count: int = 1) -> Tensor:
    """(..., count) numbers in [0, 1), float64, from keys (...).

    Args:
        keys: int64 (...), as `key` makes them.
        count: Numbers from each.
    """
    counter = torch.arange(count, device=keys.device)
    return _shift(_mix(keys[..., None] + (counter + 1) * _GOLDEN), 11).to(torch.float64) * 2.0**-53


def normal(keys: Tensor, count: int = 1) -> Tensor:
    """(..., count) draws from N(0, 1), float64, by Box and Muller's method.

    Args:
        keys: int64 (...), as `key` makes them.
        count: Numbers from each.
    """
    u = uniform(keys, 2 * count)
    radius = (-2 * torch.log1p(-u[..., :count])).sqrt()
    return radius * torch.cos(2 * math.pi * u[..., count:])


def keep(
    keys: Tensor, count: int, probability: float, *parts: int, dtype: torch.dtype = torch.bool
) -> Tensor:
    """(..., count) bools, True with the given probability (in steps of 2^-53): dropout's mask.

    Args:
        parts: The mask is drawn from key(keys, *parts), where there are some.
        dtype: Of the result: a floating-point type has ones for True.
    """
    # The hash is uniform over the signed 64-bit integers.
    threshold = max(-(2**63), min(round((probability - 0.5) * 2.0**63) * 2, 2**63 - 1))
    return keep_mask(keys, count, threshold, (0, *parts) if parts else (), dtype)


def permutation(keys: Tensor, count: int) -> Tensor:
    """A random order of 0..count-1, int64 (count,), from one key.

    Args:
        keys: int64 (), as `key` makes it.
        count: 0 or more.
    """
    return uniform(keys, count).argsort(stable=True)
