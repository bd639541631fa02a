"""Arguments that are not of the kind they should be: ValueError, with the name and the value."""

from typing import Any

from torch import Tensor, nn


def tensors(**given: Any) -> None:
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} must be a torch.Tensor; it is {type(value).__name__}")


def whole(**given: Any) -> None:
    for name, value in given.items():
        if not hasattr(value, "__index__"):
            raise ValueError(f"{name} must be a whole number; it is {value!r}")


def numbers(**given: Any) -> None:
    for name, value in given.items():
        if not hasattr(value, "__float__"):
            raise ValueError(f"{name} must be a number; it is {value!r}")


def layer(value: Any, kind: type[nn.Module]) -> None:
    """Raise ValueError where a value is no layer of a kind.

    Args:
        value: What was given.
        kind: The class that it must be of.
    """
    if not isinstance(value, kind):
        raise ValueError(f"the layer must be a torch.nn.{kind.__name__}; it is {value!r}")
