"""Bias, ReLU, response normalization and overlapping pooling in one call: what follows conv1 and conv2."""

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet_kernels import _choose
from alexnet_kernels._memory import empty_maps
from alexnet_kernels._operator import define
from alexnet_kernels.local_response_norm import (
    by_torch,
    check,
    check_columns,
    normalize,
    normalize_backward,
)
from alexnet_kernels.max_pool import check as check_pool
from alexnet_kernels.max_pool import out_shape, pool, pool_backward


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
    settings = (size, alpha, beta, k, columns, relu)
    bias = None if bias is None else bias.contiguous()

    def two_kernels() -> tuple[Tensor, Tensor]:
        return pool(normalize(x, bias, *settings), pool_size, pool_stride)

    if x.is_cuda and x.numel() and _choose.implementation(x, bias) == "triton":
        from alexnet_kernels.gpu import choice
        from alexnet_kernels.gpu import response_norm_pool as gpu

        if gpu.fits(x, pool_size, pool_stride):

            def one_kernel() -> tuple[Tensor, Tensor]:
                shape = out_shape(x, pool_size, pool_stride)
                y, code = empty_maps(x, shape), empty_maps(x, shape, torch.uint8)
                gpu.forward(x, bias, y, code, *settings)
                return y, code

            return choice.fastest(
                ("response_norm_pool", x, bias, settings), two_kernels, one_kernel
            )()
    return two_kernels()


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
    height, width = x.shape[2:]
    spread = pool_backward(dy, code, height, width, pool_size, pool_stride)
    return normalize_backward(x, bias, spread, size, alpha, beta, k, columns, relu)


@operator.register_fake
def _(x, bias, size, alpha, beta, k, columns, relu, pool_size, pool_stride):
    shape = out_shape(x, pool_size, pool_stride)
    return empty_maps(x, shape), empty_maps(x, shape, torch.uint8)


@operator_backward.register_fake
def _(x, bias, code, dy, size, alpha, beta, k, columns, relu, pool_size, pool_stride):
    return empty_maps(x)


def _save(ctx, inputs, output) -> None:
    x, bias, *ctx.settings = inputs
    ctx.save_for_backward(x, bias, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, dy: Tensor, _):
    x, bias, code = ctx.saved_tensors
    dx = operator_backward(x, bias, code, dy, *ctx.settings)
    dbias = (
        dx.sum((0, 2, 3), dtype=torch.promote_types(dx.dtype, torch.float32)).to(bias.dtype)
        if ctx.needs_input_grad[1]
        else None
    )
    return dx, dbias, *[None] * 8


operator.register_autograd(_differentiate, setup_context=_save)


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
    """max_pool(local_response_norm(x + bias)). x: (N, C, H, W); bias: (C,) or None; the rest as in the two operators.

    relu="before" is the text's order; "after" equals the source's LRN, pool, ReLU, since the maximum and the ReLU change places freely.
    x, the bias and one byte an output are kept for the gradient. Raises ValueError as the two do, and for a bias of another length.
    """
    check(x, size, beta, k)
    check_columns(x, columns, relu)
    check_pool(x, pool_size, pool_stride)
    if bias is not None and bias.shape != x.shape[1:2]:
        raise ValueError(
            f"bias must have one entry for each of the {x.shape[1]} maps; its shape is {tuple(bias.shape)}"
        )
    if _choose.torchs_own(x, bias):
        x = x if bias is None else x + bias.view(1, -1, 1, 1)
        return F.max_pool2d(
            by_torch(x, size, alpha, beta, k, columns, relu), pool_size, pool_stride
        )
    return operator(x, bias, size, alpha, beta, k, columns, relu or "none", pool_size, pool_stride)[
        0
    ]
