"""Convolutions that torch has not, or not fast: locally connected ones, and wide strides over few
channels as blocks of pixels."""

import torch
from torch import Tensor

from alexnet.presets.sizes import Shape
from alexnet_kernels.crop_flip_color import space_to_depth


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


def in_blocks(shape: Shape, dtype: torch.dtype) -> tuple[int, int] | None:
    """How a net's first convolution takes images of a type, as `space_to_depth` makes them. In
    bfloat16 three channels are too few for matrix instructions.

    Args:
        shape: Of the convolution.
        dtype: Of the images.

    Returns:
        The side of a block, which is the stride, and that of the image; None: as they are.
    """
    layer, stride = shape.layer, shape.layer.stride
    is_wide = layer.kernel > 0 and stride > 1 and not layer.local and shape.pad[0] == 0
    count = shape.size - 1 + -(-layer.kernel // stride)  # blocks that it looks at, along a side
    return (stride, count * stride) if dtype == torch.bfloat16 and is_wide else None


def blocked_weight(weight: Tensor, block: int) -> Tensor:
    """Kernels (O, C, K, K) of stride `block`, for the same sums over `space_to_depth` maps.

    Args:
        weight: Kernels (O, C, K, K).
        block: Their stride, in pixels.
    """
    k = weight.shape[-1]
    return space_to_depth(weight, block, -(-k // block) * block)
