"""Overlapping max pooling, 3 x 3 with stride 2: kernels.max_pool, forward and backward, against
torch.nn.MaxPool2d and torch.compile of it."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

import alexnet_kernels as kernels
from kernel_benchmarks import measure
from kernel_benchmarks.measure import Case, Dims, Entry, differentiable, ours, torchs

NAME = "max_pool"
# maps, height, width
SHAPES = {"conv1": (96, 55, 55), "conv2": (256, 27, 27), "conv5": (256, 13, 13)}
TINY = {"conv1": (6, 7, 9), "conv2": (5, 5, 6), "conv5": (4, 3, 3)}
SIZE, STRIDE = 3, 2

label = measure.label


def pooled(dims: Dims) -> Dims:
    maps, *sides = dims
    return (maps, *((side - SIZE) // STRIDE + 1 for side in sides))


def floor(dims: Dims, batch: int, itemsize: int) -> dict[str, int]:
    """Forward reads x and writes y and a byte per maximum (where it was); backward reads dy and
    those bytes and writes dx."""
    count, maxima = batch * math.prod(dims), batch * math.prod(pooled(dims))
    return dict.fromkeys(("forward", "backward"), count * itemsize + maxima * (itemsize + 1))


def reference(x: Tensor) -> Tensor:
    return F.max_pool2d(x, SIZE, STRIDE)  # in float64, a well-tried definition


def entries(case: Case) -> list[Entry]:
    x = case.normal(case.batch, *case.dims)
    peers = ours(lambda x: kernels.max_pool(x, SIZE, STRIDE), reference)
    peers += torchs(nn.MaxPool2d(SIZE, STRIDE), reference)
    return differentiable(case, peers, x, case.normal(case.batch, *pooled(case.dims)))
