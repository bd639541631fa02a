"""The operators in plain torch: any device and floating-point type, half types computed in float32. They serve float64, half types on a
CPU, and machines without Triton or a C compiler. On a CPU they take a few images at a time, so that what lies between two steps stays in
cache and in memory that the process has already.

Both normalizations: y = x s^-beta with s = k + alpha S(x^2), where S sums over a window, and
dx = dy s^-beta - 2 alpha beta x S(dy x s^(-beta-1)). S is symmetric (j is in i's window when i is in j's), so it is its own adjoint.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Window = Callable[[Tensor], Tensor]
PART = 1 << 18  # elements at a time on a CPU


def in_parts(
    compute: Callable[..., tuple[Tensor, ...]], outs: tuple[Tensor, ...], *maps: Tensor
) -> None:
    """Writes compute(*maps) to `outs`, which round to their own types. All have one first dimension, the images."""
    count = len(maps[0])
    images = (
        max(1, PART * count // max(1, maps[0].numel())) if maps[0].device.type == "cpu" else count
    )
    for i in range(0, count, images):
        for out, part in zip(outs, compute(*(m[i : i + images] for m in maps)), strict=True):
            out[i : i + images].copy_(part)


def window_sum(x: Tensor, dim: int, size: int) -> Tensor:
    """Sums over `size` neighbors along `dim`, clipped at both ends: a few shifted additions, which beat pooling on a CPU by far."""
    total, length = x.clone(), x.shape[dim]
    for d in range(1, min(size // 2, length - 1) + 1):
        total.narrow(dim, d, length - d).add_(x.narrow(dim, 0, length - d))
        total.narrow(dim, 0, length - d).add_(x.narrow(dim, d, length - d))
    return total


def across_maps(size: int, columns: int) -> Window:
    """Sums over `size` adjacent maps of (N, C, H, W), clipped where a column begins or ends."""

    def window(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return window_sum(x.reshape(n, columns, c // columns, h, w), 2, size).reshape(x.shape)

    return window


def within_map(size: int) -> Window:
    """Sums over size x size pixels of each map of (N, C, H, W), clipped at the border."""
    return lambda x: window_sum(window_sum(x, 2, size), 3, size)


def widen(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def biased(x: Tensor, bias: Tensor | None) -> Tensor:
    return widen(x) if bias is None else widen(x) + widen(bias).view(1, -1, 1, 1)


def _power(s: Tensor, beta: float) -> Tensor:
    """s^-beta; two square roots instead of a power at the paper's beta."""
    if beta == 0.75:
        r = s.rsqrt()
        return r * r.sqrt()
    return s.pow(-beta)


def normalize(u: Tensor, window: Window, alpha: float, beta: float, k: float) -> Tensor:
    s = window(u * u).mul_(alpha).add_(k)
    return _power(s, beta).mul_(u)


def normalize_backward(
    u: Tensor, g: Tensor, window: Window, alpha: float, beta: float, k: float
) -> Tensor:
    s = window(u * u).mul_(alpha).add_(k)
    p = _power(s, beta)
    spread = window((g * u).mul_(p).div_(s))
    return p.mul_(g).sub_(spread.mul_(u).mul_(2 * alpha * beta))


def max_pool(x: Tensor, size: int, stride: int) -> tuple[Tensor, Tensor]:
    """The maxima, and which of the window's size x size taps each was."""
    if (
        x.device.type == "cpu"
    ):  # torch's pooling of planes takes ten times as long as that of channels-last memory
        x = x.contiguous(memory_format=torch.channels_last)
    y, index = F.max_pool2d(
        x, size, stride, return_indices=True
    )  # index: row * W + column in the map
    rows = torch.arange(y.shape[2], device=x.device)[:, None] * stride
    columns = torch.arange(y.shape[3], device=x.device) * stride
    tap = (index // x.shape[3] - rows) * size + index % x.shape[3] - columns
    return y, tap


def max_pool_backward(
    dy: Tensor, code: Tensor, height: int, width: int, size: int, stride: int
) -> Tensor:
    rows = torch.arange(dy.shape[2], device=dy.device)[:, None] * stride
    columns = torch.arange(dy.shape[3], device=dy.device) * stride
    tap = code.long()
    index = (rows + tap // size) * width + columns + tap % size
    dx = torch.zeros(*dy.shape[:2], height * width, dtype=widen(dy).dtype, device=dy.device)
    return dx.scatter_add_(2, index.flatten(2), widen(dy).flatten(2)).unflatten(2, (height, width))
