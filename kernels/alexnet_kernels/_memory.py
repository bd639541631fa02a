"""How results lie in memory: as the maps they come from."""

from collections.abc import Sequence

import torch
from torch import Tensor


def memory_format(x: Tensor) -> torch.memory_format:
    """channels_last for maps (N, C, H, W) whose channels lie side by side, else contiguous."""
    if x.is_contiguous():
        return torch.contiguous_format
    last = x.is_contiguous(memory_format=torch.channels_last) or (
        x.shape[1] > 1 and x.stride(1) == 1 and x.stride(3) != 1
    )
    return torch.channels_last if last else torch.contiguous_format


def is_channels_last(x: Tensor) -> bool:
    """Whether a pixel's channels lie side by side, and the maps are not planes at the same time."""
    return memory_format(x) == torch.channels_last


def empty_maps(
    x: Tensor, shape: Sequence[int] | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Uninitialized maps in x's memory format; of x's shape and type where none is given.

    Args:
        x: (N, C, H, W).
        shape: None: x's.
        dtype: None: x's.
    """
    return torch.empty(
        tuple(shape or x.shape),
        dtype=dtype or x.dtype,
        device=x.device,
        memory_format=memory_format(x),
    )


def check_gradient(dy: Tensor, y: Tensor, dtype: torch.dtype | None = None) -> None:
    """Raise ValueError where dy is no gradient of a result like y, of another type where one is
    given: kernels read it as such.

    Args:
        dy: The gradient that was given.
        y: The result that it is of.
        dtype: None: y's.
    """
    dtype = dtype or y.dtype
    if dy.shape != y.shape or dy.dtype != dtype or dy.device != y.device:
        raise ValueError(
            f"the gradient must be {dtype} {tuple(y.shape)} on {y.device}, as the result; it is "
            f"{dy.dtype} {tuple(dy.shape)} on {dy.device}"
        )
