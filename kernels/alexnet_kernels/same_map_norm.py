"""Response normalization over a square of one map.

The third normalization of the released source (layers-145.cfg:107-117), absent from the text.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet_kernels import _choose, _composite, _native
from alexnet_kernels._memory import (
    check_gradient,
    empty_maps,
    is_channels_last,
    memory_format,
)
from alexnet_kernels._operator import define
from alexnet_kernels.local_response_norm import check_maps, check_settings


@define("same_map_norm")
def operator(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    return empty_maps(x)


@define("same_map_norm_backward")
def operator_backward(
    x: Tensor, dy: Tensor, size: int, alpha: float, beta: float, k: float
) -> Tensor:
    check_gradient(dy, x)
    return empty_maps(x)


@operator.form("composite")
def _(y, x, size, *settings):
    def part(x: Tensor) -> Tensor:
        return _composite.normalize(_composite.widen(x), _composite.within_map(size), *settings)

    _composite.in_parts(part, (y,), x)


@operator_backward.form("composite")
def _(dx, x, dy, size, *settings):
    def part(x: Tensor, dy: Tensor) -> Tensor:
        u, g = _composite.widen(x), _composite.widen(dy)
        return _composite.normalize_backward(u, g, _composite.within_map(size), *settings)

    _composite.in_parts(part, (dx,), x, dy)


# Triton unrolls windows, and takes minutes to compile larger ones.
LARGEST_IN_TRITON = 5


@operator.form("triton", lambda y, x, size, *_: size <= LARGEST_IN_TRITON)
def _(y, x, *settings):
    from alexnet_kernels.gpu import same_map_norm as gpu

    gpu.forward(x, y, *settings)


@operator_backward.form("triton", lambda dx, x, dy, size, *_: size <= LARGEST_IN_TRITON)
def _(dx, x, dy, *settings):
    from alexnet_kernels.gpu import same_map_norm as gpu

    gpu.backward(x, dy, dx, *settings)


def _run_native(y, x, dy, size, alpha, beta, k):
    (n, c, h, w), settings = x.shape, (size // 2, alpha, beta, k)
    if x.dtype == torch.float32:
        return _native.run("same_map_norm", (x, dy, y), n * c, h, w, *settings)
    _native.run("same_map_norm_bf16", (x, dy, y), n, c, h, w, *settings, is_channels_last(x))


@operator.form("native", lambda y, x, size, alpha, beta, k: _fits(x, beta))
def _(y, x, *settings):
    _run_native(y, x, None, *settings)


@operator_backward.form("native", lambda dx, x, dy, size, alpha, beta, k: _fits(x, beta))
def _(dx, x, dy, *settings):
    _run_native(dx, x, dy.contiguous(memory_format=memory_format(x)), *settings)


def _fits(x: Tensor, beta: float) -> bool:
    return (
        beta == 0.75 and _native.fits_either(x) and (x.is_contiguous() or x.dtype != torch.float32)
    )


operator.gradient(lambda ctx, dy: operator_backward(*ctx.saved_tensors, dy, *ctx.settings))


def same_map_norm(
    x: Tensor, size: int = 5, alpha: float = 4e-5, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """y = x (k + alpha * sum of x^2 over size x size pixels of the same map)^-beta.

    The window is centered and clipped at the border. Only x is kept for the gradient.

    Args:
        x: (N, C, H, W), any floating-point type and strides; half types are computed in float32.
        size: pixels along the window's side, odd.
        alpha: per squared term: the source's scale 1e-3 divided by 25.
        beta: not negative.
        k: positive.

    Returns:
        y, of x's shape, type and memory format.

    Raises:
        ValueError: for an even size and k not positive.
    """
    check_settings(size, alpha, beta, k)
    check_maps(x)
    if _choose.torchs_own(x):
        return by_torch(x, size, alpha, beta, k)
    return operator(x, size, alpha, beta, k)


def by_torch(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """The same by torch's own operators.

    Args:
        x: (N, C, H, W).
        size: As of `same_map_norm`, as for the other arguments.
        alpha: Per squared term.
        beta: The exponent.
        k: Added to each sum.
    """
    u = _composite.widen(x)
    # not divisor_override, which torch's ONNX exporter overlooks
    squares = F.avg_pool2d(u * u, size, 1, size // 2) * size**2
    return (u / (k + alpha * squares) ** beta).to(x.dtype)
