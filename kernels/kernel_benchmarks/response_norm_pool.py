"""What follows conv1 and conv2, in one call: bias, ReLU, response normalization and overlapping
pooling. kernels.response_norm_pool, forward and backward, against the same four steps in torch and
torch.compile of them."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import alexnet_kernels as kernels
from kernel_benchmarks import local_response_norm as lrn
from kernel_benchmarks import max_pool, measure
from kernel_benchmarks.measure import Case, Dims, Entry

NAME = "response_norm_pool"
SHAPES, TINY, label = lrn.SHAPES, lrn.TINY, lrn.label
# relative distance of two values whose order may be lost in rounding
CLOSE = {"fp32": 1e-4, "fp16": 1 / 64, "bf16": 1 / 16}


def floor(dims: Dims, batch: int, itemsize: int) -> dict[str, int]:
    """Forward reads x and writes the maxima and a byte for each (where it was); backward reads x,
    the maxima's gradient and those bytes, and writes dx. The bias and its gradient, some hundred
    bytes, are not counted."""
    one_way = max_pool.floor(dims, batch, itemsize)["forward"]
    return {"forward": one_way, "backward": one_way + batch * math.prod(dims) * itemsize}


def normalized(x: Tensor, bias: Tensor, columns: int) -> Tensor:
    return lrn.reference(F.relu(x + bias.view(1, -1, 1, 1)), columns)


def reference(x: Tensor, bias: Tensor, columns: int) -> Tensor:
    return max_pool.reference(normalized(x, bias, columns))


def eager(x: Tensor, bias: Tensor) -> Tensor:
    y = lrn.eager(F.relu(x + bias.view(1, -1, 1, 1)))
    return F.max_pool2d(y, max_pool.SIZE, max_pool.STRIDE)


def ours(x: Tensor, bias: Tensor) -> Tensor:
    norm = (lrn.SIZE, lrn.ALPHA, lrn.BETA, lrn.K, lrn.COLUMNS)
    pool = (max_pool.SIZE, max_pool.STRIDE)
    return kernels.response_norm_pool(x, bias, *norm, "before", *pool)


def close_race(y: Tensor, distance: float) -> Tensor:
    """Where the two largest of a window lie closer than `distance` relative to the first.

    Args:
        y: (N, C, H, W), not negative.

    Returns:
        bool, (N, C, H', W').
    """
    size, stride = max_pool.SIZE, max_pool.STRIDE
    windows = y.unfold(2, size, stride).unfold(3, size, stride)  # (N, C, H', W', 3, 3)
    first = windows.amax((-2, -1), keepdim=True)
    return (windows >= (1 - distance) * first).sum((-2, -1)) > 1


def entries(case: Case) -> list[Entry]:
    x = case.normal(case.batch, *case.dims, scale=100.0)
    bias = case.normal(case.dims[0], scale=10.0)
    dy = case.normal(case.batch, *max_pool.pooled(case.dims))
    with torch.no_grad():  # rounding decides a close race, so those maxima get no gradient
        for images, gradient in zip(x.split(32), dy.split(32)):
            for columns in (1, lrn.COLUMNS):
                y = normalized(images.double(), bias.double(), columns)
                gradient[close_race(y, CLOSE[case.dtype])] = 0
    across, within = (partial(reference, columns=columns) for columns in (1, lrn.COLUMNS))
    peers = measure.ours(ours, within) + measure.torchs(eager, across)
    return measure.differentiable(case, peers, x, dy, bias)
