"""Max pooling, overlapping where stride < size (section 3.4 of the paper)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet_kernels import _check, _choose, _composite, _native
from alexnet_kernels._memory import (
    check_gradient,
    empty_maps,
    is_channels_last,
    memory_format,
)
from alexnet_kernels._native import SUFFIXES
from alexnet_kernels._operator import define


def check_settings(size: int, stride: int) -> None:
    """Raise ValueError where no pooling has these settings.

    Args:
        size: Must be in 1..15.
        stride: Must be 1 or more.
    """
    _check.whole(size=size, stride=stride)
    if not 1 <= size <= 15 or stride < 1:
        raise ValueError(f"size must be in 1..15 and stride positive; they are {size} and {stride}")


def check_maps(x: Tensor, size: int) -> None:
    """Raise ValueError for maps that a window does not fit in.

    Args:
        x: Of any shape and type.
        size: The side of the window.
    """
    _check.tensors(x=x)
    if x.dim() != 4 or min(x.shape[-2:]) < size:
        raise ValueError(
            f"x must be (N, C, H, W) with H and W at least the window's {size}; "
            f"its shape is {tuple(x.shape)}"
        )


def empty_pooled(x: Tensor, size: int, stride: int) -> tuple[Tensor, Tensor]:
    """Room for the maxima, and for the tap of its window (size x size) that each was, uint8.

    Args:
        x: (N, C, H, W).
        size: The side of the window.
        stride: Between windows.
    """
    n, c, h, w = x.shape
    shape = n, c, (h - size) // stride + 1, (w - size) // stride + 1
    return empty_maps(x, shape), empty_maps(x, shape, torch.uint8)


@define("max_pool")
def operator(x: Tensor, size: int, stride: int) -> tuple[Tensor, Tensor]:
    return empty_pooled(x, size, stride)


@define("max_pool_backward")
def operator_backward(
    dy: Tensor, code: Tensor, height: int, width: int, size: int, stride: int
) -> Tensor:
    """dx (N, C, height, width), in the memory format of `code`, the taps."""
    check_gradient(dy, code, dy.dtype)
    return empty_maps(code, (*code.shape[:2], height, width), dy.dtype)


def _corners(y: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """The rows (OH, 1) and columns (OW,) where the windows begin."""
    rows = torch.arange(y.shape[2], device=y.device)[:, None] * stride
    return rows, torch.arange(y.shape[3], device=y.device) * stride


@operator.form("composite")
def _(y, code, x, size, stride):
    def part(x: Tensor) -> tuple[Tensor, Tensor]:
        if x.device.type == "cpu":  # torch pools planes ten times as slowly as channels-last memory
            x = x.contiguous(memory_format=torch.channels_last)
        y, index = F.max_pool2d(x, size, stride, return_indices=True)  # row * W + column
        rows, columns = _corners(y, stride)
        return y, (index // x.shape[3] - rows) * size + index % x.shape[3] - columns

    _composite.in_parts(part, (y, code), x)


@operator_backward.form("composite")
def _(dx, dy, code, height, width, size, stride):
    def part(dy: Tensor, code: Tensor) -> Tensor:
        rows, columns = _corners(dy, stride)
        tap, g = code.long(), _composite.widen(dy)
        index = (rows + tap // size) * width + columns + tap % size
        dx = torch.zeros(*dy.shape[:2], height * width, dtype=g.dtype, device=dy.device)
        return dx.scatter_add_(2, index.flatten(2), g.flatten(2)).unflatten(2, (height, width))

    _composite.in_parts(part, (dx,), dy, code)


# Triton unrolls windows, and takes minutes to compile larger ones.
LARGEST_IN_TRITON = 5


@operator.form("triton", lambda y, code, x, size, *_: size <= LARGEST_IN_TRITON)
def _(y, code, x, size, stride):
    from alexnet_kernels.gpu import max_pool as gpu

    gpu.forward(x, y, code, size, stride)


@operator_backward.form(
    "triton", lambda dx, dy, code, height, width, size, *_: size <= LARGEST_IN_TRITON
)
def _(dx, dy, code, height, width, size, stride):
    from alexnet_kernels.gpu import max_pool as gpu

    gpu.backward(dy, code, dx, size, stride)


def _run_native(name, tensors, x, size, stride):
    """Images are shared out, and of float32 in planes maps."""
    n, c, h, w = x.shape
    last = is_channels_last(x)
    count = n if last or x.dtype != torch.float32 else n * c
    _native.run(name + SUFFIXES[x.dtype], tensors, count, c, h, w, size, stride, last)


@operator.form("native", _native.fits_either)
def _(y, code, x, size, stride):
    _run_native("max_pool", (x, y, code), x, size, stride)


@operator_backward.form("native", lambda dx, *_: _native.fits_either(dx))
def _(dx, dy, code, height, width, size, stride):
    dy = dy.contiguous(memory_format=memory_format(code))
    _run_native("max_pool_backward", (dy, code, dx), dx, size, stride)


def _keep(inputs, results):
    x, size, stride = inputs
    return results[1:], (*x.shape[2:], size, stride)


operator.gradient(
    lambda ctx, dy: operator_backward(dy, *ctx.saved_tensors, *ctx.settings), keep=_keep
)


def max_pool(x: Tensor, size: int = 3, stride: int = 2) -> Tensor:
    """The maximum of each size x size window, `stride` apart.

    Windows lie inside the map (floor mode). The first maximum of a tie gets the gradient (the 2012
    kernel gave it to all); NaN wins, as in torch. One byte an output, the place of the maximum in
    its window, is kept for the gradient.

    Args:
        x: (N, C, H, W), any floating-point type and strides.
        size: of the window, 1..15.
        stride: positive.

    Returns:
        (N, C, (H - size) // stride + 1, (W - size) // stride + 1), in x's type and memory format.

    Raises:
        ValueError: where the map is smaller than the window, or a setting is out of its range.
    """
    check_settings(size, stride)
    check_maps(x, size)
    if _choose.torchs_own(x):
        return F.max_pool2d(x, size, stride)
    return operator(x, size, stride)[0]
