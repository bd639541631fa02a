"""Response normalization across maps: kernels.local_response_norm, forward and backward, against
F.local_response_norm, torch.compile of it, and on a GPU cuDNN's own kernel.

Ours keeps its windows inside the paper's two columns. The others know no columns and normalize
across all maps, which costs them nothing.
"""

import math
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

import alexnet_kernels as kernels
from kernel_benchmarks import cudnn_lrn, measure
from kernel_benchmarks.measure import Case, Dims, Entry, Peer, differentiable, ours, torchs

NAME = "local_response_norm"
SHAPES = {"conv1": (96, 55, 55), "conv2": (256, 27, 27)}  # maps, height, width
TINY = {"conv1": (12, 5, 7), "conv2": (10, 4, 3)}
SIZE, ALPHA, BETA, K, COLUMNS = 5, 1e-4, 0.75, 2.0, 2

label = measure.label


def floor(dims: Dims, batch: int, itemsize: int) -> dict[str, int]:
    """Forward reads x and writes y; backward reads x and dy and writes dx."""
    count = batch * math.prod(dims)
    return {"forward": 2 * count * itemsize, "backward": 3 * count * itemsize}


def reference(x: Tensor, columns: int) -> Tensor:
    """The paper's equation. x: (N, C, H, W)."""
    squares = x.square().unflatten(1, (columns, -1))
    squares = F.pad(squares, (0, 0, 0, 0, SIZE // 2, SIZE // 2))  # (N, columns, C/columns+4, H, W)
    return x / (K + ALPHA * squares.unfold(2, SIZE, 1).sum(-1).flatten(1, 2)) ** BETA


def eager(x: Tensor) -> Tensor:
    # torch's alpha is for the window's mean
    return F.local_response_norm(x, SIZE, ALPHA * SIZE, BETA, K)


def entries(case: Case) -> list[Entry]:
    # scaled so that the sum of squares outweighs k, as behind the real conv1
    x = case.normal(case.batch, *case.dims, scale=100.0)
    across, within = (partial(reference, columns=columns) for columns in (1, COLUMNS))
    settings: dict[str, Any] = {"size": SIZE, "alpha": ALPHA, "beta": BETA, "k": K}
    call = partial(kernels.local_response_norm, columns=COLUMNS, **settings)
    peers = ours(call, within) + torchs(eager, across)
    if case.device == "cuda":
        peers.append(Peer("cudnn", partial(cudnn_lrn.local_response_norm, **settings), across))
    return differentiable(case, peers, x, case.normal(*x.shape))
