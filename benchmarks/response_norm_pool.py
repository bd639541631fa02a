"""What follows conv1 and conv2, in one call: bias, ReLU, response normalization and overlapping pooling. kernels.response_norm_pool,
forward and backward, against the same four steps in torch and torch.compile of them."""

import math
import sys
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import alexnet_kernels as kernels
from benchmarks import local_response_norm as lrn
from benchmarks import max_pool, measure, script

NAME = "response_norm_pool"
SHAPES, TINY, label = lrn.SHAPES, lrn.TINY, lrn.label
CLOSE = {
    "fp32": 1e-4,
    "fp16": 1 / 64,
    "bf16": 1 / 16,
}  # relative distance of two values whose order may be lost in rounding


def floor(dims: tuple[int, ...], batch: int, itemsize: int) -> dict[str, int]:
    """Forward reads x and writes the maxima and a byte for each (where it was); backward reads x, the maxima's gradient and those bytes,
    and writes dx. The bias and its gradient, some hundred bytes, are not counted."""
    count, maxima = batch * math.prod(dims), batch * math.prod(max_pool.pooled(dims))
    return {
        "forward": count * itemsize + maxima * (itemsize + 1),
        "backward": 2 * count * itemsize + maxima * (itemsize + 1),
    }


def normalized(x: Tensor, bias: Tensor, columns: int) -> Tensor:
    return lrn.reference(F.relu(x + bias.view(1, -1, 1, 1)), columns)


def reference(x: Tensor, bias: Tensor, columns: int) -> Tensor:
    return max_pool.reference(normalized(x, bias, columns))


def eager(x: Tensor, bias: Tensor) -> Tensor:
    return F.max_pool2d(
        lrn.eager(F.relu(x + bias.view(1, -1, 1, 1))), max_pool.SIZE, max_pool.STRIDE
    )


def entries(case: measure.Case) -> list[measure.Entry]:
    x, bias = (
        case.normal(case.batch, *case.dims, scale=100.0),
        case.normal(case.dims[0], scale=10.0),
    )
    dy = case.normal(case.batch, *max_pool.pooled(case.dims))
    across, within = (partial(reference, columns=columns) for columns in (1, lrn.COLUMNS))
    with torch.no_grad():  # rounding decides who wins a close race, so those maxima get no gradient
        for start in range(0, case.batch, 32):
            part = slice(start, start + 32)
            for columns in (1, lrn.COLUMNS):
                dy[part][
                    close_race(
                        normalized(x[part].double(), bias.double(), columns), CLOSE[case.dtype]
                    )
                ] = 0
    peers = measure.ours(ours, within) + measure.torchs(eager, across)
    return measure.differentiable(case, peers, x, dy, bias)


def ours(x: Tensor, bias: Tensor) -> Tensor:
    return kernels.response_norm_pool(
        x,
        bias,
        lrn.SIZE,
        lrn.ALPHA,
        lrn.BETA,
        lrn.K,
        lrn.COLUMNS,
        "before",
        max_pool.SIZE,
        max_pool.STRIDE,
    )


def close_race(y: Tensor, distance: float) -> Tensor:
    """Where the two largest of a window lie closer than `distance` relative to the first. y: (N, C, H, W), not negative; the result:
    bool, pooled."""
    windows = y.unfold(2, max_pool.SIZE, max_pool.STRIDE).unfold(
        3, max_pool.SIZE, max_pool.STRIDE
    )  # (N, C, H', W', 3, 3)
    first = windows.amax((-2, -1), keepdim=True)
    return (windows >= (1 - distance) * first).sum((-2, -1)) > 1


if __name__ == "__main__":
    sys.exit(script.main(sys.modules[__name__]))
