"""Response normalization within a map, the 2012 source's third normalization (5 x 5 pixels, after conv2): kernels.same_map_norm, forward
and backward, against average pooling in torch and torch.compile of it."""

import math
import sys

import torch.nn.functional as F
from torch import Tensor

import alexnet_kernels as kernels
from benchmarks import measure, script

NAME = "same_map_norm"
SHAPES = {"conv2": (256, 27, 27)}  # maps, height, width
TINY = {"conv2": (3, 7, 6)}
SIZE, ALPHA, BETA, K = 5, 4e-5, 0.75, 1.0


def label(dims: tuple[int, ...]) -> str:
    return "x".join(map(str, dims))


def floor(dims: tuple[int, ...], batch: int, itemsize: int) -> dict[str, int]:
    """Forward reads x and writes y; backward reads x and dy and writes dx."""
    count = batch * math.prod(dims)
    return {"forward": 2 * count * itemsize, "backward": 3 * count * itemsize}


def reference(x: Tensor) -> Tensor:
    squares = (
        F.pad(x.square(), (SIZE // 2,) * 4).unfold(2, SIZE, 1).unfold(3, SIZE, 1)
    )  # (N, C, H, W, 5, 5)
    return x / (K + ALPHA * squares.sum((-2, -1))) ** BETA


def eager(x: Tensor) -> Tensor:
    mean = F.avg_pool2d(
        x * x, SIZE, stride=1, padding=SIZE // 2
    )  # zeros beyond the border count, so the mean is the sum over 25
    return x / (K + ALPHA * SIZE**2 * mean) ** BETA


def entries(case: measure.Case) -> list[measure.Entry]:
    x = case.normal(case.batch, *case.dims, scale=100.0)
    peers = measure.ours(
        lambda x: kernels.same_map_norm(x, SIZE, ALPHA, BETA, K), reference
    ) + measure.torchs(eager, reference)
    return measure.differentiable(case, peers, x, case.normal(*x.shape))


if __name__ == "__main__":
    sys.exit(script.main(sys.modules[__name__]))
