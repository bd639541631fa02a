"""Convolutions that torch has not, or not fast: locally connected ones, and wide strides over few
channels as blocks of pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.presets.sizes import Shape


def locally_connected(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """A convolution whose kernels differ from place to place: one matrix product for each.

    Args:
        x: (N, C, H, W), zeros included.
        weight: (O, C, K, K, S, S); the last two are the place in the output.

    Returns:
        (N, O, S, S).
    """
    out, _, k, _, side, _ = weight.shape
    windows = x.unfold(2, k, stride).unfold(3, k, stride)  # a view, (N, C, S, S, K, K)
    rows = windows.permute(2, 3, 0, 1, 4, 5).reshape(side * side, x.shape[0], -1)
    kernels_of = weight.permute(4, 5, 1, 2, 3, 0).reshape(side * side, -1, out)
    sums = torch.bmm(rows, kernels_of)  # (S * S, N, O)
    return sums.view(side, side, -1, out).permute(2, 3, 0, 1)


def blocks(shape: Shape) -> int:
    """How many blocks of stride x stride pixels a convolution looks at, along a side."""
    stride = shape.layer.stride
    return shape.size - 1 + -(-shape.layer.kernel // stride)


def space_to_depth(x: Tensor, block: int, side: int) -> Tensor:
    """Images (N, C, H, W), with zeros on the right and bottom up to `side` pixels, as maps
    (N, block^2 C, side / block, side / block) in channels-last memory: a block's pixels become
    channels, in the order row, column, channel.

    Args:
        x: Images (N, C, H, W).
        block: The side of a block, in pixels.
        side: A multiple of `block`, no less than H and W.
    """
    n, c, h, w = x.shape
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, side - w, 0, side - h))
    x = x.reshape(n, side // block, block, side // block, block, c).transpose(2, 3)
    return x.reshape(n, side // block, side // block, block * block * c).permute(0, 3, 1, 2)


def blocked_weight(weight: Tensor, block: int) -> Tensor:
    """Kernels (O, C, K, K) of stride `block`, for the same sums over `space_to_depth` maps.

    Args:
        weight: Kernels (O, C, K, K).
        block: Their stride, in pixels.
    """
    o, c, k, _ = weight.shape
    count = -(-k // block)
    weight = F.pad(weight, (0, count * block - k, 0, count * block - k))
    weight = weight.reshape(o, c, count, block, count, block).permute(0, 3, 5, 1, 2, 4)
    form = torch.channels_last
    return weight.reshape(o, block * block * c, count, count).contiguous(memory_format=form)
