"""What the operators are held to: float64, written from the equations, loop by loop; and how close each type must come."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

import alexnet_kernels as kernels
from alexnet_kernels._choose import INTERPRETED

# The largest error, as a share of the value, and of the largest value around it: half a unit in the last place of the type in which results
# are stored, and the roundings of a float32 computation.
TOLERANCES = {
    torch.float64: (1e-12, 1e-13),
    torch.float32: (2e-6, 1e-6),
    torch.float16: (2**-11 + 1e-5, 2e-6),
    torch.bfloat16: (2**-8 + 1e-5, 2e-6),
}
FORMS = ["native", "composite", "torch", "interpreter", pytest.param("cuda", marks=pytest.mark.gpu)]
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def assert_close(
    got: Tensor, want: Tensor, dtype: torch.dtype | None = None, roundings: float = 1
) -> None:
    """`want` is float64; roundings: how often results were rounded to the type on the way."""
    relative, around = TOLERANCES[dtype or got.dtype]
    finite = want[want.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    smallest = torch.finfo(dtype or got.dtype).smallest_normal
    torch.testing.assert_close(
        got.double().cpu(),
        want.cpu(),
        rtol=relative * roundings,
        atol=around * scale + smallest,
        equal_nan=True,
        check_stride=False,
    )


@contextmanager
def form(name: str) -> Iterator[str]:
    """Runs the operators in one form; yields the device for their tensors."""
    if name == "interpreter" and not INTERPRETED:
        pytest.skip("Triton's interpreter is off where there is a CUDA device")
    with kernels.using("triton" if name in ("interpreter", "cuda") else name):
        yield "cuda" if name == "cuda" else "cpu"


def local_response_norm(
    x: Tensor, size: int, alpha: float, beta: float, k: float, columns: int
) -> Tensor:
    width, maps = x.shape[1] // columns, []
    for i in range(x.shape[1]):
        first = i // width * width  # of this map's column
        low, high = max(first, i - size // 2), min(first + width, i + size // 2 + 1)
        maps.append(x[:, i] / (k + alpha * (x[:, low:high] ** 2).sum(1)) ** beta)
    return torch.stack(maps, 1) if maps else x.clone()


def same_map_norm(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    near, rows = size // 2, []
    for h in range(x.shape[2]):
        for w in range(x.shape[3]):
            squares = x[:, :, max(0, h - near) : h + near + 1, max(0, w - near) : w + near + 1] ** 2
            rows.append(x[:, :, h, w] / (k + alpha * squares.sum((2, 3))) ** beta)
    return torch.stack(rows, 2).view(x.shape)


def max_pool(x: Tensor, size: int, stride: int) -> tuple[Tensor, Tensor]:
    """The maxima and their taps: the first of a tie, the last NaN."""
    n, c, height, width = x.shape
    high, wide = (height - size) // stride + 1, (width - size) // stride + 1
    y, tap = (
        torch.full((n, c, high, wide), -torch.inf, dtype=x.dtype),
        torch.zeros(n, c, high, wide, dtype=torch.int64),
    )
    for i in range(size):
        for j in range(size):
            v = x[
                :,
                :,
                i : i + (high - 1) * stride + 1 : stride,
                j : j + (wide - 1) * stride + 1 : stride,
            ]
            better = (v > y) | v.isnan()
            y, tap = torch.where(better, v, y), torch.where(better, i * size + j, tap)
    return y, tap


def max_pool_backward(
    dy: Tensor, tap: Tensor, shape: tuple[int, ...], size: int, stride: int
) -> Tensor:
    dx = torch.zeros(shape, dtype=torch.float64)
    for i in range(dy.shape[2]):
        for j in range(dy.shape[3]):
            window = dx[
                :, :, i * stride : i * stride + size, j * stride : j * stride + size
            ].flatten(2)  # a copy: windows are no views
            window.scatter_add_(2, tap[:, :, i, j, None].long(), dy[:, :, i, j, None].double())
            dx[:, :, i * stride : i * stride + size, j * stride : j * stride + size] = window.view(
                *shape[:2], size, size
            )
    return dx
