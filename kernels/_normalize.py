"""What both response normalizations share: y = x (k + alpha S(x^2))^-beta, where S sums squares over a window.

Only x is kept for the backward pass; the denominator is computed again, as the 2012 kernels did:
dx = dy s^-beta - 2 alpha beta x S(dy x s^(-beta-1)). S is symmetric (j is in i's window when i is in j's), so it is its own adjoint.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Window = Callable[[Tensor], Tensor]


def check(x: Tensor, size: int, beta: float, k: float) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(f"x must be a floating-point tensor of shape (N, C, H, W); it is {x.dtype} of shape {tuple(x.shape)}")
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size must be odd and positive, so that the window has a middle; it is {size}")
    if k < 0 or beta < 0:
        raise ValueError(f"k and beta must not be negative; they are {k} and {beta}")


def window_sum(x: Tensor, dim: int, size: int) -> Tensor:
    """Sums over `size` neighbors along `dim`, clipped at both ends: a few shifted additions, which beat pooling on a CPU by far."""
    total, length = x.clone(), x.shape[dim]
    for d in range(1, min(size // 2, length - 1) + 1):
        total.narrow(dim, d, length - d).add_(x.narrow(dim, 0, length - d))
        total.narrow(dim, 0, length - d).add_(x.narrow(dim, d, length - d))
    return total


def _power(s: Tensor, beta: float) -> Tensor:
    """s^-beta; two square roots instead of a power at the paper's beta."""
    if beta == 0.75:
        r = s.rsqrt()
        return r * r.sqrt()
    return s.pow(-beta)


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype


class Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, window: Window, alpha: float, beta: float, k: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.window, ctx.alpha, ctx.beta, ctx.k = window, alpha, beta, k
        u = x.to(_compute_dtype(x))
        s = window(u * u).mul_(alpha).add_(k)
        return _power(s, beta).mul_(u).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor):
        (x,) = ctx.saved_tensors
        u, g = x.to(_compute_dtype(x)), dy.to(_compute_dtype(x))
        s = ctx.window(u * u).mul_(ctx.alpha).add_(ctx.k)
        p = _power(s, ctx.beta)
        spread = ctx.window((g * u).mul_(p).div_(s))
        dx = p.mul_(g).sub_(spread.mul_(u).mul_(2 * ctx.alpha * ctx.beta))
        return dx.to(x.dtype), None, None, None, None
