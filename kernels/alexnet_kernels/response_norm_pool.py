"""Bias, ReLU, response normalization and overlapping pooling in one call.

What follows conv1 and conv2 (sections 3.1, 3.3 and 3.4 of the paper).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet_kernels import _check, _choose, _native
from alexnet_kernels._memory import check_gradient, empty_maps, is_channels_last
from alexnet_kernels._operator import define
from alexnet_kernels.local_response_norm import LARGEST_IN_TRITON, RELU, by_torch, check_relu
from alexnet_kernels.local_response_norm import check_maps as check_norm_maps
from alexnet_kernels.local_response_norm import check_settings as check_norm
from alexnet_kernels.local_response_norm import operator as norm
from alexnet_kernels.local_response_norm import operator_backward as norm_backward
from alexnet_kernels.max_pool import check_maps as check_pool_maps
from alexnet_kernels.max_pool import check_settings as check_pool
from alexnet_kernels.max_pool import empty_pooled
from alexnet_kernels.max_pool import operator as pool
from alexnet_kernels.max_pool import operator_backward as pool_backward


@define("response_norm_pool")
def operator(
    x: Tensor,
    bias: Tensor | None,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    columns: int,
    relu: str,
    pool_size: int,
    pool_stride: int,
) -> tuple[Tensor, Tensor]:
    return empty_pooled(x, pool_size, pool_stride)


@define("response_norm_pool_backward")
def operator_backward(
    x: Tensor,
    bias: Tensor | None,
    code: Tensor,
    dy: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    columns: int,
    relu: str,
    pool_size: int,
    pool_stride: int,
) -> tuple[Tensor, Tensor]:
    """The gradients of x and of the bias, the latter at least in float32; (0,) without a bias."""
    check_gradient(dy, code, x.dtype)
    wide = torch.promote_types(x.dtype, torch.float32)
    make = x.new_empty if x.numel() else x.new_zeros  # of no images nobody writes a sum
    return empty_maps(x), make(0 if bias is None else x.shape[1], dtype=wide)


@operator.form("composite")  # of the two operators, each in its own form
def _(y, code, x, bias, *settings):
    *norm_settings, pool_size, pool_stride = settings
    pool.fill((y, code), norm.compute(x, bias, *norm_settings), pool_size, pool_stride)


@operator_backward.form("composite")
def _(dx, dbias, x, bias, code, dy, *settings):
    *norm_settings, pool_size, pool_stride = settings
    spread = pool_backward.compute(dy, code, *x.shape[2:], pool_size, pool_stride)
    norm_backward.fill(dx, x, bias, spread, *norm_settings)
    if bias is not None:
        torch.sum(dx, (0, 2, 3), dtype=dbias.dtype, out=dbias)


def _has_sums(dx, dbias, x, bias, code, dy, *settings):
    """Over maps whose channels lie side by side, LRN's backward pass sums the bias's gradient."""
    is_small, is_last = settings[0] <= LARGEST_IN_TRITON, x.stride(1) == 1 != x.stride(3)
    return bias is not None and is_small and is_last and x.shape[1] > 1


@operator_backward.form("triton", _has_sums)
def _(dx, dbias, x, bias, code, dy, *settings):
    from alexnet_kernels.gpu import local_response_norm as gpu

    *norm_settings, pool_size, pool_stride = settings
    spread = pool_backward.compute(dy, code, *x.shape[2:], pool_size, pool_stride)
    sums = gpu.empty_sums(x)
    gpu.backward(x, bias, spread, dx, *(*norm_settings, sums))
    torch.sum(sums, 0, out=dbias)


def _has_one_kernel(y, code, x, bias, *settings):
    """It is for 3 x 3 / 2 windows over maps whose channels lie side by side.

    Under the interpreter there is nothing to gain.
    """
    is_small = settings[0] <= LARGEST_IN_TRITON
    return x.is_cuda and x.stride(1) == 1 and settings[-2:] == (3, 2) and is_small


@operator.form("triton", _has_one_kernel)
def _(y, code, x, bias, *settings):
    from alexnet_kernels.gpu import choice
    from alexnet_kernels.gpu import response_norm_pool as gpu

    def one_kernel() -> None:
        gpu.forward(x, bias, y, code, *settings[:-2])

    def two_kernels() -> None:
        pool.fill((y, code), norm.compute(x, bias, *settings[:-2]), *settings[-2:])

    key = ("response_norm_pool", x, bias, settings[:-2])
    choice.fastest(key, two_kernels, one_kernel)()


def _has_one_pass(x, bias, *settings):
    """In C there is one for bfloat16 in channels-last memory."""
    ours = x.dtype == torch.bfloat16 and is_channels_last(x) and settings[2] == 0.75
    return ours and _native.fits_either(x, bias)


def _run_native(name, tensors, x, size, alpha, beta, k, columns, relu, *pool_settings):
    n, c, h, w = x.shape
    norm_settings = (columns, size // 2, alpha, beta, k, RELU[relu])
    _native.run(name, tensors, n, c, h, w, *norm_settings, *pool_settings)


@operator.form("native", lambda y, code, x, bias, *settings: _has_one_pass(x, bias, *settings))
def _(y, code, x, bias, *settings):
    wide = None if bias is None else bias.float().contiguous()
    _run_native("response_norm_pool_bf16", (x, wide, y, code), x, *settings)


@operator_backward.form(
    "native",
    lambda dx, dbias, x, bias, code, dy, *settings: (
        _has_one_pass(x, bias, *settings) and is_channels_last(code)
    ),
)
def _(dx, dbias, x, bias, code, dy, *settings):
    wide = None if bias is None else bias.float().contiguous()
    sums = x.new_empty(x.shape[:2], dtype=torch.float32)
    dy = dy.contiguous(memory_format=torch.channels_last)
    tensors = (x, wide, code, dy, dx, sums)
    _run_native("response_norm_pool_backward_bf16", tensors, x, *settings)
    if bias is not None:
        dbias.copy_(sums.sum(0))


def _differentiate(ctx, dy):
    x, bias, code = ctx.saved_tensors
    dx, dbias = operator_backward(x, bias, code, dy, *ctx.settings)
    return dx, dbias.to(bias.dtype) if ctx.needs_input_grad[1] else None


operator.gradient(_differentiate)


def response_norm_pool(
    x: Tensor,
    bias: Tensor | None = None,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    columns: int = 1,
    relu: str | None = "before",
    pool_size: int = 3,
    pool_stride: int = 2,
) -> Tensor:
    """max_pool(local_response_norm(x + bias)).

    x, the bias and one byte an output are kept for the gradient.

    Args:
        x: (N, C, H, W), any floating-point type and strides.
        bias: (C,), or None.
        size: this and the rest as in the two operators.
        relu: "before" is the text's order. "after" equals the source's LRN, pool, ReLU, since the
            maximum and the ReLU change places freely.

    Returns:
        The maxima, (N, C, (H - pool_size) // pool_stride + 1, ...), in x's type and memory format.

    Raises:
        ValueError: as the two do, and for a bias of another length.
    """
    check_norm(size, alpha, beta, k)
    check_relu(relu)
    check_norm_maps(x, columns)
    check_pool(pool_size, pool_stride)
    check_pool_maps(x, pool_size)
    if bias is not None:
        _check.tensors(bias=bias)
    if bias is not None and bias.shape != x.shape[1:2]:
        raise ValueError(
            f"bias must have one entry for each of the {x.shape[1]} maps; "
            f"its shape is {tuple(bias.shape)}"
        )
    if _choose.torchs_own(x, bias):
        x = x if bias is None else x + bias.view(1, -1, 1, 1)
        y = by_torch(x, size, alpha, beta, k, columns, relu)
        return F.max_pool2d(y, pool_size, pool_stride)
    settings = (size, alpha, beta, k, columns, relu or "none", pool_size, pool_stride)
    return operator(x, bias, *settings)[0]
