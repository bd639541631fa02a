"""Response normalization across adjacent maps (section 3.3 of the paper)."""

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

RELU = {"none": 0, "before": 1, "after": 2}  # as in native.c and gpu/local_response_norm.py


# Which programs multiply each square by alpha, and which its mean over the window.
PER_TERM = ("paper", "tensorflow")
PER_WINDOW = ("torch", "caffe", "onnx", "cudnn", "cuda-convnet")


def convert_alpha(alpha: float, size: int, source: str, target: str = "paper") -> float:
    """Convert the alpha of one program's response normalization to another's.

    Args:
        alpha: as `source` has it.
        size: adjacent maps in a window (TensorFlow's depth_radius is (size - 1) / 2).
        source, target: "paper" (and everything in this package) and "tensorflow" multiply each
            square by alpha; "torch", "caffe", "onnx", "cudnn" and "cuda-convnet" divide it by the
            size first. k and beta mean the same in all of them.

    Raises:
        ValueError: for another name.
    """
    for name in (source, target):
        if name not in PER_TERM + PER_WINDOW:
            known = ", ".join(PER_TERM + PER_WINDOW)
            raise ValueError(f"there is no convention {name!r} of alpha; there are {known}")
    alpha = alpha / size if source in PER_WINDOW else alpha
    return alpha * size if target in PER_WINDOW else alpha


def check_settings(size: int, alpha: float, beta: float, k: float) -> None:
    """Raise ValueError where no normalization has these settings.

    Args:
        size: Must be odd and positive.
        alpha: Must be a finite number.
        beta: Must be 0 or more.
        k: Must be above 0.
    """
    _check.whole(size=size)
    _check.numbers(alpha=alpha, beta=beta, k=k)
    if size < 1 or size % 2 == 0:
        raise ValueError(
            f"size must be odd and positive, so that the window has a middle; it is {size}"
        )
    if not (k > 0 and beta >= 0):
        raise ValueError(f"k must be positive and beta not negative; they are {k} and {beta}")


def check_relu(relu: str | None) -> None:
    """Raise ValueError for a word that says nowhere."""
    if relu not in (None, "before", "after"):
        raise ValueError(f'relu must be None, "before" or "after"; it is {relu!r}')


def check_columns(columns: int) -> None:
    """Raise ValueError for what is no number of columns."""
    _check.whole(columns=columns)
    if columns < 1:
        raise ValueError(f"columns must be positive; it is {columns}")


def check_maps(x: Tensor, columns: int = 1) -> None:
    """Raise ValueError for what are no maps in so many columns.

    Args:
        x: Of any shape and type.
        columns: Must divide the maps.
    """
    check_columns(columns)
    _check.tensors(x=x)
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(
            "x must be a floating-point tensor of shape (N, C, H, W); "
            f"it is {x.dtype} of shape {tuple(x.shape)}"
        )
    if x.shape[1] % columns:
        raise ValueError(f"columns must divide the {x.shape[1]} maps; it is {columns}")


@define("local_response_norm")
def operator(
    x: Tensor,
    bias: Tensor | None,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    columns: int,
    relu: str,
) -> Tensor:
    return empty_maps(x)


@define("local_response_norm_backward")
def operator_backward(
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
    """The gradient of x + bias. Denominators are computed again, as the 2012 kernels did."""
    check_gradient(dy, x)
    return empty_maps(x)


@operator.form("composite")
def _(y, x, bias, size, alpha, beta, k, columns, relu):
    def part(x: Tensor) -> Tensor:
        u = _composite.biased(x, bias)
        u = u.relu() if relu == "before" else u
        window = _composite.across_maps(size, columns)
        result = _composite.normalize(u, window, alpha, beta, k)
        return result.relu_() if relu == "after" else result

    _composite.in_parts(part, (y,), x)


@operator_backward.form("composite")
def _(dx, x, bias, dy, size, alpha, beta, k, columns, relu):
    def part(x: Tensor, dy: Tensor) -> Tensor:
        raw, g = _composite.biased(x, bias), _composite.widen(dy)
        g = torch.where(raw <= 0, 0, g) if relu == "after" else g
        u = raw.relu() if relu == "before" else raw
        window = _composite.across_maps(size, columns)
        result = _composite.normalize_backward(u, g, window, alpha, beta, k)
        return torch.where(raw <= 0, 0, result) if relu == "before" else result

    _composite.in_parts(part, (dx,), x, dy)


# Triton unrolls windows, and takes long to compile larger ones.
LARGEST_IN_TRITON = 15


@operator.form("triton", lambda y, x, bias, size, *_: size <= LARGEST_IN_TRITON)
def _(y, x, bias, *settings):
    from alexnet_kernels.gpu import local_response_norm as gpu

    gpu.forward(x, bias, y, *settings)


@operator_backward.form("triton", lambda dx, x, bias, dy, size, *_: size <= LARGEST_IN_TRITON)
def _(dx, x, bias, dy, *settings):
    from alexnet_kernels.gpu import local_response_norm as gpu

    gpu.backward(x, bias, dy, dx, *settings)


def _run_native(y, x, bias, dy, size, alpha, beta, k, columns, relu):
    n, c, h, w = x.shape
    bias = None if bias is None else bias.float().contiguous()
    settings = (c, h * w, columns, size // 2, alpha, beta, k, RELU[relu], is_channels_last(x))
    _native.run("local_response_norm" + SUFFIXES[x.dtype], (x, bias, dy, y), n, *settings)


@operator.form("native", lambda y, x, bias, size, alpha, beta, *_: _fits(x, bias, beta))
def _(y, x, bias, *settings):
    _run_native(y, x, bias, None, *settings)


@operator_backward.form(
    "native", lambda y, x, bias, dy, size, alpha, beta, *_: _fits(x, bias, beta)
)
def _(dx, x, bias, dy, *settings):
    _run_native(dx, x, bias, dy.contiguous(memory_format=memory_format(x)), *settings)


def _fits(x: Tensor, bias: Tensor | None, beta: float) -> bool:
    plain = bias is None or bias.dtype == x.dtype
    return beta == 0.75 and plain and _native.fits_either(x, bias)


def _differentiate(ctx, dy):
    x, bias = ctx.saved_tensors
    dx = operator_backward(x, bias, dy, *ctx.settings)
    if not ctx.needs_input_grad[1]:
        return dx, None
    wide = torch.promote_types(dx.dtype, torch.float32)
    return dx, dx.sum((0, 2, 3), dtype=wide).to(bias.dtype)


operator.gradient(_differentiate)


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

    The window is centered, clipped at the first and last map, and never leaves its column. Only x
    is kept for the gradient.

    Args:
        x: (N, C, H, W), any floating-point type and strides; half types are computed in float32.
        size: maps in a window, odd.
        alpha: per squared term. The same elsewhere: torch.nn.LocalResponseNorm(size, alpha * size,
            beta, k); Caffe's and cuDNN's alpha * size; the 2012 source's scale = alpha * size.
        beta: not negative.
        k: positive.
        columns: equal parts of the maps, which do not see each other.
        relu: None, "before" (x is rectified first, as the text has it) or "after" (as conv1 of the
            released source).

    Returns:
        y, of x's shape, type and memory format.

    Raises:
        ValueError: for an even size, k not positive, or columns that do not divide C.

    Source: layer.py:1183 of the released source, whose scale=0.0001 is an alpha of 2e-5.
    """
    check_settings(size, alpha, beta, k)
    check_relu(relu)
    check_maps(x, columns)
    if _choose.torchs_own(x):
        return by_torch(x, size, alpha, beta, k, columns, relu)
    return operator(x, None, size, alpha, beta, k, columns, relu or "none")


def by_torch(
    x: Tensor, size: int, alpha: float, beta: float, k: float, columns: int, relu: str | None
) -> Tensor:
    """The same by torch's own operators.

    Args:
        x: (N, C, H, W).
        size: As of `local_response_norm`, as for the other arguments.
        alpha: Per squared term.
        beta: The exponent.
        k: Added to each sum.
        columns: Equal parts of the maps, which no window crosses.
        relu: None, "before" or "after".
    """
    n, c, h, w = x.shape
    u = _composite.widen(F.relu(x) if relu == "before" else x)  # halves: not on every device
    u = u.reshape(n * columns, c // columns, h, w)
    y = F.local_response_norm(u, size, alpha * size, beta, k).reshape(x.shape)
    y = y.to(x.dtype).contiguous(memory_format=memory_format(x))
    return F.relu(y) if relu == "after" else y
