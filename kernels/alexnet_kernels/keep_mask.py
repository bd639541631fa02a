"""The masks of dropout: counter-based random numbers, compared with a threshold."""

import torch
from torch import Tensor

from alexnet_kernels import _check, _choose, _native
from alexnet_kernels._operator import define

# splitmix64 (Steele, Lea and Flood, 2014), in int64 arithmetic, which wraps
_GOLDEN, _MULTIPLY_1, _MULTIPLY_2 = (
    constant - 2**64 for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


@define("keep_mask")
def operator(keys: Tensor, count: int, threshold: int) -> Tensor:
    return keys.new_empty((*keys.shape, count), dtype=torch.bool)


def by_torch(keys: Tensor, count: int, threshold: int) -> Tensor:
    """The same in a dozen passes of torch's own operators."""

    def shifted(x: Tensor, bits: int) -> Tensor:  # torch's own shift copies the sign
        return (x >> bits) & ((1 << (64 - bits)) - 1)

    x = keys[..., None] + (torch.arange(count, device=keys.device) + 1) * _GOLDEN
    x = (x ^ shifted(x, 30)) * _MULTIPLY_1
    x = (x ^ shifted(x, 27)) * _MULTIPLY_2
    return x ^ shifted(x, 31) < threshold


@operator.form("composite")
def _(mask, keys, count, threshold):
    mask.copy_(by_torch(keys, count, threshold))


@operator.form("native")
def _(mask, keys, count, threshold):
    _native.run("keep_mask", (keys.contiguous(), mask), keys.numel(), count, threshold)


def keep_mask(keys: Tensor, count: int, threshold: int) -> Tensor:
    """Whether the i-th number of each key is less than a threshold.

    Args:
        keys: int64, any shape.
        count: numbers of each key.
        threshold: in -2^63..2^63 - 1, as the numbers are: 0 keeps half of them.

    Returns:
        bool (..., count).

    Raises:
        ValueError: for keys that are not int64.
    """
    _check.tensors(keys=keys)
    _check.whole(count=count, threshold=threshold)
    if keys.dtype != torch.int64:
        raise ValueError(f"keys must be int64; they are {keys.dtype}")
    if torch.compiler.is_compiling() or _choose.torchs_own(keys):
        return by_torch(keys, count, threshold)
    return operator(keys, count, threshold)
