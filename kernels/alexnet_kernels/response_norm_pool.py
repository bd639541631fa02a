"""Bias, ReLU, response normalization and overlapping pooling in one call.

What follows conv1 and conv2 (sections 3.1, 3.3 and 3.4 of the paper).
"""

import torch.nn.functional as F
from torch import Tensor

from alexnet_kernels import _choose
from alexnet_kernels._memory import empty_maps
from alexnet_kernels._operator import define
from alexnet_kernels.local_response_norm import by_torch, check_relu, with_bias
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
) -> Tensor:
    return empty_maps(x)


@operator.form("composite")  # of the two operators, each in its own form
def _(y, code, x, bias, *settings):
    *norm_settings, pool_size, pool_stride = settings
    pool.fill((y, code), norm.compute(x, bias, *norm_settings), pool_size, pool_stride)


@operator_backward.form("composite")
def _(dx, x, bias, code, dy, *settings):
    *norm_settings, pool_size, pool_stride = settings
    spread = pool_backward.compute(dy, code, *x.shape[2:], pool_size, pool_stride)
    norm_backward.fill(dx, x, bias, spread, *norm_settings)


def _has_one_kernel(y, code, x, bias, *settings):
    """It is for 3 x 3 / 2 windows over maps whose channels lie side by side.

    Under the interpreter there is nothing to gain.
    """
    return x.is_cuda and x.stride(1) == 1 and settings[-2:] == (3, 2)


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


operator.gradient(with_bias(operator_backward))


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
    check_norm(size, beta, k)
    check_relu(relu)
    check_norm_maps(x, columns)
    check_pool(pool_size, pool_stride)
    check_pool_maps(x, pool_size)
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
