"""Response normalization across adjacent maps (section 3.3 of the paper), in plain torch."""

from functools import partial

import torch
from torch import Tensor

from kernels._normalize import Normalize, check, window_sum


def _across_maps(squares: Tensor, size: int, columns: int) -> Tensor:
    """Sums over `size` adjacent maps of (N, C, H, W), clipped where a column begins or ends."""
    return window_sum(squares.unflatten(1, (columns, -1)), 2, size).flatten(1, 2)  # (N, columns, C / columns, H, W) and back


def local_response_norm(
    x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0, columns: int = 1, relu: str | None = None
) -> Tensor:
    """y = x (k + alpha * sum of x^2 over `size` adjacent maps)^-beta.

    x: (N, C, H, W), any floating-point type (half types are computed in float32). The window is centered, clipped at the first and last
    map, and never leaves one of the `columns` equal parts of the maps. relu: None, "before" (x is rectified first, as the text has it) or
    "after" (as conv1 of the released source).

    `alpha` is per squared term. The same result elsewhere: `torch.nn.LocalResponseNorm(size, alpha * size, beta, k)`; Caffe and cuDNN
    `alpha * size`; the 2012 source writes `scale = alpha * size`, so its `scale=0.0001` is alpha 2e-5 here (layer.py:1183).

    Raises ValueError for an even size, or columns that do not divide C.
    """
    check(x, size, beta, k)
    if columns < 1 or x.shape[1] % columns:
        raise ValueError(f"columns must divide the {x.shape[1]} maps; it is {columns}")
    if relu not in (None, "before", "after"):
        raise ValueError(f'relu must be None, "before" or "after"; it is {relu!r}')
    if relu == "before":
        x = torch.relu(x)
    y = Normalize.apply(x, partial(_across_maps, size=size, columns=columns), alpha, beta, k)
    return torch.relu(y) if relu == "after" else y
