"""Response normalization over a square of one map: the third normalization of the released source (layers-145.cfg:107-117), absent from the
text."""

from functools import partial

from torch import Tensor

from kernels._normalize import Normalize, check, window_sum


def _within_map(squares: Tensor, size: int) -> Tensor:
    """Sums over size x size pixels of each map of (N, C, H, W), clipped at the border."""
    return window_sum(window_sum(squares, 2, size), 3, size)


def same_map_norm(x: Tensor, size: int = 5, alpha: float = 4e-5, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """y = x (k + alpha * sum of x^2 over size x size pixels of the same map)^-beta.

    x: (N, C, H, W), any floating-point type. The window is centered and clipped at the border. `alpha` is per squared term: the source's
    scale 1e-3 divided by 25. Raises ValueError for an even size.
    """
    check(x, size, beta, k)
    return Normalize.apply(x, partial(_within_map, size=size), alpha, beta, k)
