"""Makes an operator known to torch: `torch.library.custom_op` with the same words, without its price. The first eager call of one of those
imports torch's compiler, some two seconds of every process."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

LIBRARY = torch.library.Library("alexnet", "DEF")


class Operator:
    """torch.ops.alexnet.<name>, which is called like a function."""

    def __init__(self, name: str, function: Callable[..., Any], mutates_args: Iterable[str] = ()):
        self.name = name
        LIBRARY.define(name + torch.library.infer_schema(function, mutates_args=tuple(mutates_args)), tags=(torch.Tag.pt2_compliant_tag,))
        LIBRARY.impl(name, function, "CompositeExplicitAutograd")  # below autograd, on every device
        self._call = getattr(torch.ops.alexnet, name).default

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def register_fake(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorates what makes empty outputs, of the right shapes, types and layouts."""
        torch.library.register_fake(f"alexnet::{self.name}", function, lib=LIBRARY)
        return function

    def register_autograd(self, backward: Callable[..., Any], *, setup_context: Callable[..., None] | None = None) -> None:
        """backward(ctx, *gradients of the outputs) gives those of the inputs; setup_context(ctx, inputs, output) keeps what it needs."""
        torch.library.register_autograd(f"alexnet::{self.name}", backward, setup_context=setup_context, lib=LIBRARY)

    def refuse_autograd(self) -> None:
        """A gradient through it is an error, and not zero."""

        def backward(ctx: Any, *gradients: Any) -> None:
            raise RuntimeError(f"alexnet::{self.name} has no gradient; with kernels.using('torch') derivatives of every order work")

        self.register_autograd(backward)


def define(name: str, mutates_args: Iterable[str] = ()) -> Callable[[Callable[..., Any]], Operator]:
    """Decorates what an operator does, whose type hints are its schema. mutates_args: those that it writes to."""
    return lambda function: Operator(name, function, mutates_args)
