"""Bias, ReLU, response normalization and overlapping pooling in one call: what follows conv1 and conv2."""

from torch import Tensor

from kernels.local_response_norm import local_response_norm
from kernels.max_pool import max_pool


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
    Raises ValueError as they do, and for a bias of another length.
    """
    if bias is not None:
        if bias.shape != x.shape[1:2]:
            raise ValueError(f"bias must have one entry for each of the {x.shape[1]} maps; its shape is {tuple(bias.shape)}")
        x = x + bias.view(1, -1, 1, 1)
    return max_pool(local_response_norm(x, size, alpha, beta, k, columns, relu), pool_size, pool_stride)
