"""Max pooling, overlapping where stride < size (section 3.4 of the paper)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet_kernels import _choose, _composite, _native
from alexnet_kernels._memory import empty_maps, memory_format
from alexnet_kernels._operator import define


def check(x: Tensor, size: int, stride: int) -> None:
    if not 1 <= size <= 15 or stride < 1:
        raise ValueError(f"size must be in 1..15 and stride positive; they are {size} and {stride}")
    if x.dim() != 4 or min(x.shape[-2:]) < size:
        raise ValueError(
            f"x must be (N, C, H, W) with H and W at least the window's {size}; its shape is {tuple(x.shape)}"
        )


def out_shape(x: Tensor, size: int, stride: int) -> tuple[int, int, int, int]:
    n, c, h, w = x.shape
    return n, c, (h - size) // stride + 1, (w - size) // stride + 1


def _outer(x: Tensor) -> int:
    """What native.c counts: images in channels-last memory, maps in planes."""
    return x.shape[0] if _native.is_last(x) else x.shape[0] * x.shape[1]


def pool(x: Tensor, size: int, stride: int) -> tuple[Tensor, Tensor]:
    """The maxima, and which of the window's size x size taps each was, uint8 of the same shape."""
    which, shape = _choose.implementation(x), out_shape(x, size, stride)
    y, code = empty_maps(x, shape), empty_maps(x, shape, torch.uint8)
    if y.numel() == 0:
        return y, code
    if which == "composite":
        _composite.in_parts(lambda x: _composite.max_pool(x, size, stride), (y, code), x)
        return y, code
    if which == "triton":
        from alexnet_kernels.gpu import max_pool as gpu

        gpu.forward(x, y, code, size, stride)
    else:
        tensors = [_native.pointer(t) for t in (x, y, code)]
        settings = (*x.shape[1:], size, stride, _native.is_last(x))
        _native.share(
            lambda *part: _native.call("max_pool", *tensors, *part, *settings), _outer(x), x.numel()
        )
    return y, code


def pool_backward(
    dy: Tensor, code: Tensor, height: int, width: int, size: int, stride: int
) -> Tensor:
    """dx (N, C, height, width), in the memory format of `code`."""
    dx = empty_maps(code, (*code.shape[:2], height, width), dy.dtype)
    which = _choose.implementation(dx)
    if code.numel() == 0:
        return dx.zero_()
    if which == "composite":
        _composite.in_parts(
            lambda dy, code: (_composite.max_pool_backward(dy, code, height, width, size, stride),),
            (dx,),
            dy,
            code,
        )
        return dx
    if which == "triton":
        from alexnet_kernels.gpu import max_pool as gpu

        gpu.backward(dy, code, dx, size, stride)
    else:
        dy = dy.contiguous(memory_format=memory_format(code))
        tensors = [_native.pointer(t) for t in (dy, code, dx)]
        settings = (*dx.shape[1:], size, stride, _native.is_last(code))
        _native.share(
            lambda *part: _native.call("max_pool_backward", *tensors, *part, *settings),
            _outer(code),
            dx.numel(),
        )
    return dx


@define("max_pool")
def operator(x: Tensor, size: int, stride: int) -> tuple[Tensor, Tensor]:
    return pool(x, size, stride)


@define("max_pool_backward")
def operator_backward(
    dy: Tensor, code: Tensor, height: int, width: int, size: int, stride: int
) -> Tensor:
    return pool_backward(dy, code, height, width, size, stride)


@operator.register_fake
def _(x, size, stride):
    shape = out_shape(x, size, stride)
    return empty_maps(x, shape), empty_maps(x, shape, torch.uint8)


@operator_backward.register_fake
def _(dy, code, height, width, size, stride):
    return empty_maps(code, (*code.shape[:2], height, width), dy.dtype)


def _save(ctx, inputs, output) -> None:
    x, ctx.size, ctx.stride = inputs
    ctx.height, ctx.width = x.shape[2:]
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, dy: Tensor, _):
    (code,) = ctx.saved_tensors
    return operator_backward(dy, code, ctx.height, ctx.width, ctx.size, ctx.stride), None, None


operator.register_autograd(_differentiate, setup_context=_save)


def max_pool(x: Tensor, size: int = 3, stride: int = 2) -> Tensor:
    """The maximum of each size x size window, `stride` apart. x: (N, C, H, W) -> (N, C, (H - size) // stride + 1, (W - size) // stride +
    1), in x's type and memory format.

    Windows lie inside the map (floor mode). The first maximum of a tie gets the gradient (the 2012 kernel gave it to all); NaN wins, as in
    torch. One byte an output, the place of the maximum in its window, is kept for the gradient. Raises ValueError where the map is smaller
    than the window, the size is not in 1..15, or the stride is not positive.
    """
    check(x, size, stride)
    if _choose.torchs_own(x):
        return F.max_pool2d(x, size, stride)
    return operator(x, size, stride)[0]
