"""Response normalization within a map, the 2012 source's third normalization (5 x 5 pixels, after
conv2): kernels.same_map_norm, forward and backward, against average pooling in torch and
torch.compile of it."""

import torch.nn.functional as F
from torch import Tensor

import alexnet_kernels as kernels
from kernel_benchmarks import local_response_norm as lrn
from kernel_benchmarks.measure import Case, Entry, differentiable, ours, torchs

NAME = "same_map_norm"
SHAPES = {"conv2": (256, 27, 27)}  # maps, height, width
TINY = {"conv2": (3, 7, 6)}
label, floor = lrn.label, lrn.floor
SIZE, ALPHA, BETA, K = 5, 4e-5, 0.75, 1.0


def reference(x: Tensor) -> Tensor:
    padded = F.pad(x.square(), (SIZE // 2,) * 4)
    squares = padded.unfold(2, SIZE, 1).unfold(3, SIZE, 1)  # (N, C, H, W, 5, 5)
    return x / (K + ALPHA * squares.sum((-2, -1))) ** BETA


def eager(x: Tensor) -> Tensor:
    # zeros beyond the border count, so the mean is the sum over 25
    mean = F.avg_pool2d(x * x, SIZE, stride=1, padding=SIZE // 2)
    return x / (K + ALPHA * SIZE**2 * mean) ** BETA


def entries(case: Case) -> list[Entry]:
    x = case.normal(case.batch, *case.dims, scale=100.0)
    peers = ours(lambda x: kernels.same_map_norm(x, SIZE, ALPHA, BETA, K), reference)
    peers += torchs(eager, reference)
    return differentiable(case, peers, x, case.normal(*x.shape))
