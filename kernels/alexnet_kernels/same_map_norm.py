"""Response normalization over a square of one map: the third normalization of the released source (layers-145.cfg:107-117), absent from the
text."""

import torch.nn.functional as F
from torch import Tensor

from alexnet_kernels import _choose, _composite, _native
from alexnet_kernels._memory import empty_maps
from alexnet_kernels._operator import define
from alexnet_kernels.local_response_norm import check


def _run_native(
    x: Tensor, dy: Tensor | None, y: Tensor, size: int, alpha: float, beta: float, k: float
) -> None:
    n, c, h, w = x.shape
    tensors = [_native.pointer(t) for t in (x, dy, y)]
    shape = (h, w, size // 2, alpha, beta, k)
    _native.share(
        lambda *part: _native.call("same_map_norm", *tensors, *part, *shape), n * c, x.numel()
    )


def _implementation(x: Tensor, beta: float) -> str:
    return _choose.implementation(x, native=beta == 0.75 and x.is_contiguous())


@define("same_map_norm")
def operator(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    which, y = _implementation(x, beta), empty_maps(x)
    if x.numel() == 0:
        return y
    if which == "composite":
        window = _composite.within_map(size)
        _composite.in_parts(
            lambda x: (_composite.normalize(_composite.widen(x), window, alpha, beta, k),), (y,), x
        )
        return y
    if which == "triton":
        from alexnet_kernels.gpu import same_map_norm as gpu

        gpu.forward(x, y, size, alpha, beta, k)
    else:
        _run_native(x, None, y, size, alpha, beta, k)
    return y


@define("same_map_norm_backward")
def operator_backward(
    x: Tensor, dy: Tensor, size: int, alpha: float, beta: float, k: float
) -> Tensor:
    which, dx = _implementation(x, beta), empty_maps(x)
    if x.numel() == 0:
        return dx
    if which == "composite":
        window = _composite.within_map(size)

        def part(x: Tensor, dy: Tensor) -> tuple[Tensor]:
            return (
                _composite.normalize_backward(
                    _composite.widen(x), _composite.widen(dy), window, alpha, beta, k
                ),
            )

        _composite.in_parts(part, (dx,), x, dy)
        return dx
    if which == "triton":
        from alexnet_kernels.gpu import same_map_norm as gpu

        gpu.backward(x, dy, dx, size, alpha, beta, k)
    else:
        _run_native(x, dy.contiguous(), dx, size, alpha, beta, k)
    return dx


@operator.register_fake
def _(x, size, alpha, beta, k):
    return empty_maps(x)


@operator_backward.register_fake
def _(x, dy, size, alpha, beta, k):
    return empty_maps(x)


def _save(ctx, inputs, output) -> None:
    x, *ctx.settings = inputs
    ctx.save_for_backward(x)


def _differentiate(ctx, dy: Tensor):
    (x,) = ctx.saved_tensors
    return operator_backward(x, dy, *ctx.settings), None, None, None, None


operator.register_autograd(_differentiate, setup_context=_save)


def same_map_norm(
    x: Tensor, size: int = 5, alpha: float = 4e-5, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """y = x (k + alpha * sum of x^2 over size x size pixels of the same map)^-beta.

    x: (N, C, H, W), any floating-point type and strides; half types are computed in float32. y has x's shape, type and memory format. The
    window is centered and clipped at the border. `alpha` is per squared term: the source's scale 1e-3 divided by 25. Only x is kept for the
    gradient. Raises ValueError for an even size and k not positive.
    """
    check(x, size, beta, k)
    if _choose.torchs_own(x):
        return by_torch(x, size, alpha, beta, k)
    return operator(x, size, alpha, beta, k)


def by_torch(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """The same by torch's own operators."""
    u = _composite.widen(x)
    squares = (
        F.avg_pool2d(u * u, size, 1, size // 2) * size**2
    )  # not divisor_override, which torch's ONNX exporter overlooks
    return (u / (k + alpha * squares) ** beta).to(x.dtype)
