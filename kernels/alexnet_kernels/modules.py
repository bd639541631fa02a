"""The operators as layers: `torch.nn.Module`s without parameters, which hold their settings.

They take the place of torch's layers in a net, load no weights and save none.
"""

from typing import Any, Self

from torch import Tensor, nn

from alexnet_kernels import _check
from alexnet_kernels.local_response_norm import check_columns, check_relu, local_response_norm
from alexnet_kernels.local_response_norm import check_settings as check_norm
from alexnet_kernels.max_pool import check_settings as check_pool
from alexnet_kernels.max_pool import max_pool
from alexnet_kernels.response_norm_pool import response_norm_pool
from alexnet_kernels.same_map_norm import same_map_norm


def _single(value: Any, name: str) -> int:
    """torch's layers take one number for both sides, or two."""
    numbers = set(value) if isinstance(value, (tuple, list)) else {value}
    if len(numbers) > 1:
        raise ValueError(f"{name} must be the same along both sides; it is {value}")
    return numbers.pop()


class _Layer(nn.Module):
    """A layer that is its settings: the keyword arguments of its function, and attributes."""

    def __init__(self, **settings: Any):
        super().__init__()
        self._names = tuple(settings)
        for name, value in settings.items():
            setattr(self, name, value)

    def settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._names}

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.settings().items())


class LocalResponseNorm(_Layer):
    """`local_response_norm` as a layer.

    Args:
        size: adjacent maps in a window, odd.
        alpha: per squared term; `nn.LocalResponseNorm` divides its alpha by the window's size.
        beta: not negative.
        k: positive; `nn.LocalResponseNorm` has 1 where nothing is said.
        columns: equal parts of the maps, which do not see each other.
        relu: None, "before" or "after".

    Raises:
        ValueError: for a setting out of its range.
    """

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 2.0,
        columns: int = 1,
        relu: str | None = None,
    ):
        check_norm(size, alpha, beta, k)
        check_relu(relu)
        check_columns(columns)
        super().__init__(size=size, alpha=alpha, beta=beta, k=k, columns=columns, relu=relu)

    @classmethod
    def from_torch(cls, layer: nn.LocalResponseNorm) -> Self:
        """The layer that computes the same: its alpha is torch's, divided by the size.

        Raises:
            ValueError: for another layer, an even size, whose window has no middle, and k not
                positive.
        """
        _check.layer(layer, nn.LocalResponseNorm)
        return cls(layer.size, layer.alpha / layer.size, layer.beta, layer.k)

    def forward(self, x: Tensor) -> Tensor:
        return local_response_norm(x, **self.settings())


class SameMapNorm(_Layer):
    """`same_map_norm` as a layer: normalization over size x size pixels of the same map."""

    def __init__(self, size: int = 5, alpha: float = 4e-5, beta: float = 0.75, k: float = 1.0):
        check_norm(size, alpha, beta, k)
        super().__init__(size=size, alpha=alpha, beta=beta, k=k)

    def forward(self, x: Tensor) -> Tensor:
        return same_map_norm(x, **self.settings())


class MaxPool2d(_Layer):
    """`max_pool` as a layer.

    Args:
        size: of the window, 1..15.
        stride: positive; the windows overlap where it is less than the size.

    Raises:
        ValueError: for a setting out of its range.
    """

    def __init__(self, size: int = 3, stride: int = 2):
        check_pool(size, stride)
        super().__init__(size=size, stride=stride)

    @classmethod
    def from_torch(cls, layer: nn.MaxPool2d) -> Self:
        """The layer that computes the same.

        Raises:
            ValueError: for another layer, and for what it has not: padding, dilation, ceil mode,
                indices, oblong windows.
        """
        _check.layer(layer, nn.MaxPool2d)
        plain = _single(layer.padding, "padding") == 0 and _single(layer.dilation, "dilation") == 1
        if not plain or layer.ceil_mode or layer.return_indices:
            raise ValueError(f"MaxPool2d has no padding, dilation, ceil mode or indices: {layer}")
        return cls(_single(layer.kernel_size, "kernel_size"), _single(layer.stride, "stride"))

    def forward(self, x: Tensor) -> Tensor:
        return max_pool(x, **self.settings())


class ResponseNormPool(_Layer):
    """`response_norm_pool` as a layer: bias, ReLU, normalization, pooling.

    Args:
        size: this and the rest as in `LocalResponseNorm` and `MaxPool2d`.
        relu: "before" the normalization, as the text has it; "after"; or None.

    Raises:
        ValueError: for a setting out of its range.
    """

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 2.0,
        columns: int = 1,
        relu: str | None = "before",
        pool_size: int = 3,
        pool_stride: int = 2,
    ):
        check_norm(size, alpha, beta, k)
        check_relu(relu)
        check_columns(columns)
        check_pool(pool_size, pool_stride)
        super().__init__(
            size=size,
            alpha=alpha,
            beta=beta,
            k=k,
            columns=columns,
            relu=relu,
            pool_size=pool_size,
            pool_stride=pool_stride,
        )

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute the block.

        Args:
            x: Maps (N, C, H, W).
            bias: (C,), of the convolution before, which is then added in the same pass.
        """
        return response_norm_pool(x, bias, **self.settings())
