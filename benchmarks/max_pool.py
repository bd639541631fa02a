"""Overlapping max pooling, 3 x 3 with stride 2: kernels.max_pool, forward and backward, against torch.nn.MaxPool2d and torch.compile of
it."""

import math
import sys

import torch.nn.functional as F
from torch import Tensor, nn

import alexnet_kernels as kernels
from benchmarks import measure, script

NAME = "max_pool"
SHAPES = {
    "conv1": (96, 55, 55),
    "conv2": (256, 27, 27),
    "conv5": (256, 13, 13),
}  # maps, height, width
TINY = {"conv1": (6, 7, 9), "conv2": (5, 5, 6), "conv5": (4, 3, 3)}
SIZE, STRIDE = 3, 2


def label(dims: tuple[int, ...]) -> str:
    return "x".join(map(str, dims))


def pooled(dims: tuple[int, ...]) -> tuple[int, ...]:
    maps, *sides = dims
    return (maps, *((side - SIZE) // STRIDE + 1 for side in sides))


def floor(dims: tuple[int, ...], batch: int, itemsize: int) -> dict[str, int]:
    """Forward reads x and writes y and a byte per maximum (where it was); backward reads dy and those bytes and writes dx."""
    count, maxima = batch * math.prod(dims), batch * math.prod(pooled(dims))
    return dict.fromkeys(("forward", "backward"), count * itemsize + maxima * (itemsize + 1))


def reference(x: Tensor) -> Tensor:
    return F.max_pool2d(
        x, SIZE, STRIDE
    )  # in float64, a well-tried definition; the first of a tie wins


def entries(case: measure.Case) -> list[measure.Entry]:
    x = case.normal(case.batch, *case.dims)
    peers = measure.ours(lambda x: kernels.max_pool(x, SIZE, STRIDE), reference) + measure.torchs(
        nn.MaxPool2d(SIZE, STRIDE), reference
    )
    return measure.differentiable(case, peers, x, case.normal(case.batch, *pooled(case.dims)))


if __name__ == "__main__":
    sys.exit(script.main(sys.modules[__name__]))
