"""The operators in plain torch: any device and floating-point type, half types in float32.

They serve float64, half types on a CPU, and machines without Triton or a C compiler. On a CPU they
take a few images at a time, so that what lies between two steps stays in cache and in memory that
the process has already.

Both normalizations: y = x s^-beta with s = k + alpha S(x^2), where S sums over a window, and
dx = dy s^-beta - 2 alpha beta x S(dy x s^(-beta-1)). S is symmetric (j is in i's window when i is
in j's), so it is its own adjoint.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Window = Callable[[Tensor], Tensor]
PART = 1 << 18  # elements at a time on a CPU


def in_parts(
    compute: Callable[..., Tensor | tuple[Tensor, ...]], outs: tuple[Tensor, ...], *maps: Tensor
) -> None:
    """Write compute(*maps) to `outs`, which round to their own types.

    All have one first dimension, the images.

    Args:
        compute: From parts of the maps to parts of the results.
        outs: Tensors to write to.
        maps: What `compute` takes.
    """
    count, images = len(maps[0]), len(maps[0])
    if maps[0].device.type == "cpu":
        images = max(1, PART * count // max(1, maps[0].numel()))
    for i in range(0, count, images):
        parts = compute(*(m[i : i + images] for m in maps))
        parts = parts if isinstance(parts, tuple) else (parts,)
        for out, part in zip(outs, parts, strict=True):
            out[i : i + images].copy_(part)


def window_sum(x: Tensor, dim: int, size: int) -> Tensor:
    """Sum over `size` neighbors along `dim`, clipped at both ends.

    A few shifted additions, which beat pooling on a CPU by far.

    Args:
        x: Any shape.
        dim: A dimension of it.
        size: Odd; the window reaches size // 2 to either side.
    """
    total, length = x.clone(), x.shape[dim]
    for d in range(1, min(size // 2, length - 1) + 1):
        total.narrow(dim, d, length - d).add_(x.narrow(dim, 0, length - d))
        total.narrow(dim, 0, length - d).add_(x.narrow(dim, d, length - d))
    return total


def across_maps(size: int, columns: int) -> Window:
    """Sums over `size` adjacent maps of (N, C, H, W), clipped where a column begins or ends.

    Args:
        size: Odd.
        columns: Equal parts of the maps, which no window crosses.
    """

    def window(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return window_sum(x.reshape(n, columns, c // columns, h, w), 2, size).reshape(x.shape)

    return window


def within_map(size: int) -> Window:
    """Sums over size x size pixels of each map of (N, C, H, W), clipped at the border."""
    return lambda x: window_sum(window_sum(x, 2, size), 3, size)


def widen(x: Tensor) -> Tensor:
    """x, in float32 where it is of a half type."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def biased(x: Tensor, bias: Tensor | None) -> Tensor:
    """x (N, C, H, W) with bias (C,) added, widened.

    Args:
        x: (N, C, H, W).
        bias: (C,), or None.
    """
    return widen(x) if bias is None else widen(x) + widen(bias).view(1, -1, 1, 1)


def _power(s: Tensor, beta: float) -> Tensor:
    """s^-beta; two square roots instead of a power at the paper's beta."""
    if beta == 0.75:
        r = s.rsqrt()
        return r * r.sqrt()
    return s.pow(-beta)


def normalize(u: Tensor, window: Window, alpha: float, beta: float, k: float) -> Tensor:
    """y = u (k + alpha window(u^2))^-beta.

    Args:
        u: (N, C, H, W), in float32 or wider.
        window: Sums squares over a window.
        alpha: Per squared term.
        beta: The exponent.
        k: Added to each sum.
    """
    s = window(u * u).mul_(alpha).add_(k)
    return _power(s, beta).mul_(u)


def normalize_backward(
    u: Tensor, g: Tensor, window: Window, alpha: float, beta: float, k: float
) -> Tensor:
    """The gradient of u, where g is that of y.

    Args:
        u: (N, C, H, W), in float32 or wider.
        g: The gradient of y, of u's shape.
        window: Sums over a window.
        alpha: Per squared term.
        beta: The exponent.
        k: Added to each sum.
    """
    s = window(u * u).mul_(alpha).add_(k)
    p = _power(s, beta)
    spread = window((g * u).mul_(p).div_(s))
    return p.mul_(g).sub_(spread.mul_(u).mul_(2 * alpha * beta))
