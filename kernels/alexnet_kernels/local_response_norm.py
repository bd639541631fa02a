"""Response normalization across adjacent maps (section 3.3 of the paper)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet_kernels import _choose, _composite, _native
from alexnet_kernels._memory import empty_maps, memory_format
from alexnet_kernels._operator import define

RELU = {"none": 0, "before": 1, "after": 2}


def check(x: Tensor, size: int, beta: float, k: float) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(
            f"x must be a floating-point tensor of shape (N, C, H, W); it is {x.dtype} of shape {tuple(x.shape)}"
        )
    if size < 1 or size % 2 == 0:
        raise ValueError(
            f"size must be odd and positive, so that the window has a middle; it is {size}"
        )
    if k <= 0 or beta < 0:
        raise ValueError(f"k must be positive and beta not negative; they are {k} and {beta}")


def check_columns(x: Tensor, columns: int, relu: str | None) -> None:
    if columns < 1 or x.shape[1] % columns:
        raise ValueError(f"columns must divide the {x.shape[1]} maps; it is {columns}")
    if relu not in (None, "before", "after"):
        raise ValueError(f'relu must be None, "before" or "after"; it is {relu!r}')


def normalize(
    x: Tensor,
    bias: Tensor | None,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    columns: int,
    relu: str,
) -> Tensor:
    """LRN(x + bias), forward."""
    if x.numel() == 0:
        return empty_maps(x)
    bias = None if bias is None else bias.contiguous()  # kernels step through it one by one
    which, y = _choose.implementation(x, bias, native=beta == 0.75), empty_maps(x)
    if which == "composite":

        def part(x: Tensor) -> tuple[Tensor]:
            u = _composite.biased(x, bias)
            y = _composite.normalize(
                u.relu() if relu == "before" else u,
                _composite.across_maps(size, columns),
                alpha,
                beta,
                k,
            )
            return (y.relu_() if relu == "after" else y,)

        _composite.in_parts(part, (y,), x)
        return y
    if which == "triton":
        from alexnet_kernels.gpu import local_response_norm as gpu

        gpu.forward(x, bias, y, size, alpha, beta, k, columns, relu)
    else:
        _run_native(x, bias, None, y, size, alpha, beta, k, columns, relu)
    return y


def normalize_backward(
    x: Tensor,
    bias: Tensor | None,
    dy: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    columns: int,
    relu: str,
) -> Tensor:
    """The gradient of `normalize` with respect to x + bias. The denominators are computed again, as the 2012 kernels did."""
    if x.numel() == 0:
        return empty_maps(x)
    bias = None if bias is None else bias.contiguous()
    which, dx = _choose.implementation(x, bias, native=beta == 0.75), empty_maps(x)
    if which == "composite":

        def part(x: Tensor, dy: Tensor) -> tuple[Tensor]:
            raw, g = _composite.biased(x, bias), _composite.widen(dy)
            g = torch.where(raw <= 0, 0, g) if relu == "after" else g
            u = raw.relu() if relu == "before" else raw
            dx = _composite.normalize_backward(
                u, g, _composite.across_maps(size, columns), alpha, beta, k
            )
            return (torch.where(raw <= 0, 0, dx) if relu == "before" else dx,)

        _composite.in_parts(part, (dx,), x, dy)
        return dx
    if which == "triton":
        from alexnet_kernels.gpu import local_response_norm as gpu

        gpu.backward(x, bias, dy, dx, size, alpha, beta, k, columns, relu)
    else:
        _run_native(
            x,
            bias,
            dy.contiguous(memory_format=memory_format(x)),
            dx,
            size,
            alpha,
            beta,
            k,
            columns,
            relu,
        )
    return dx


def _run_native(
    x: Tensor,
    bias: Tensor | None,
    dy: Tensor | None,
    y: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    columns: int,
    relu: str,
) -> None:
    n, c, h, w = x.shape
    tensors = [_native.pointer(t) for t in (x, bias, dy, y)]
    shape = (c, h * w, columns, size // 2, alpha, beta, k, RELU[relu], _native.is_last(x))
    _native.share(
        lambda *part: _native.call("local_response_norm", *tensors, *part, *shape), n, x.numel()
    )


@define("local_response_norm")
def operator(
    x: Tensor, size: int, alpha: float, beta: float, k: float, columns: int, relu: str
) -> Tensor:
    return normalize(x, None, size, alpha, beta, k, columns, relu)


@define("local_response_norm_backward")
def operator_backward(
    x: Tensor, dy: Tensor, size: int, alpha: float, beta: float, k: float, columns: int, relu: str
) -> Tensor:
    return normalize_backward(x, None, dy, size, alpha, beta, k, columns, relu)


@operator.register_fake
def _(x, size, alpha, beta, k, columns, relu):
    return empty_maps(x)


@operator_backward.register_fake
def _(x, dy, size, alpha, beta, k, columns, relu):
    return empty_maps(x)


def _save(ctx, inputs, output) -> None:
    x, *ctx.settings = inputs
    ctx.save_for_backward(x)


def _differentiate(ctx, dy: Tensor):
    (x,) = ctx.saved_tensors
    return operator_backward(x, dy, *ctx.settings), None, None, None, None, None, None


operator.register_autograd(_differentiate, setup_context=_save)


def local_response_norm(
    x: Tensor,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    columns: int = 1,
    relu: str | None = None,
) -> Tensor:
    """y = x (k + alpha * sum of x^2 over `size` adjacent maps)^-beta.

    x: (N, C, H, W), any floating-point type and strides; half types are computed in float32. y has x's shape, type and memory format. The
    window is centered, clipped at the first and last map, and never leaves one of the `columns` equal parts of the maps. relu: None,
    "before" (x is rectified first, as the text has it) or "after" (as conv1 of the released source). Only x is kept for the gradient.

    `alpha` is per squared term. The same result elsewhere: `torch.nn.LocalResponseNorm(size, alpha * size, beta, k)`; Caffe and cuDNN
    `alpha * size`; the 2012 source writes `scale = alpha * size`, so its `scale=0.0001` is alpha 2e-5 here (layer.py:1183).

    Raises ValueError for an even size, k not positive, or columns that do not divide C.
    """
    check(x, size, beta, k)
    check_columns(x, columns, relu)
    if _choose.torchs_own(x):
        return by_torch(x, size, alpha, beta, k, columns, relu)
    return operator(x, size, alpha, beta, k, columns, relu or "none")


def by_torch(
    x: Tensor, size: int, alpha: float, beta: float, k: float, columns: int, relu: str | None
) -> Tensor:
    """The same by torch's own operators."""
    n, c, h, w = x.shape
    u = _composite.widen(
        F.relu(x) if relu == "before" else x
    )  # half types: not implemented on every device
    y = F.local_response_norm(
        u.reshape(n * columns, c // columns, h, w), size, alpha * size, beta, k
    ).reshape(x.shape)
    y = y.to(x.dtype).contiguous(memory_format=memory_format(x))
    return F.relu(y) if relu == "after" else y
