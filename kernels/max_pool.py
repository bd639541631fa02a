"""Max pooling, overlapping where stride < size (section 3.4 of the paper), in plain torch."""

import torch.nn.functional as F
from torch import Tensor


def max_pool(x: Tensor, size: int = 3, stride: int = 2) -> Tensor:
    """The maximum of each size x size window, `stride` apart. x: (N, C, H, W) -> (N, C, (H - size) // stride + 1, (W - size) // stride +
    1).

    Windows lie inside the map (floor mode). The first maximum of a tie gets the gradient (the 2012 kernel gave it to all); NaN wins, as in
    torch. Raises ValueError where the map is smaller than the window, the size is not in 1..15, or the stride is not positive.
    """
    if not 1 <= size <= 15 or stride < 1:
        raise ValueError(f"size must be in 1..15 and stride positive; they are {size} and {stride}")
    if x.dim() != 4 or min(x.shape[-2:]) < size:
        raise ValueError(f"x must be (N, C, H, W) with H and W at least the window's {size}; its shape is {tuple(x.shape)}")
    return F.max_pool2d(x, size, stride)
