"""Makes an operator known to torch: `torch.library.custom_op` with the same words, without its price. The first eager call of one of those
imports torch's compiler, some two seconds of every process."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

LIBRARY = torch.library.Library("alexnet_kernels", "DEF")


class Operator:
    """torch.ops.alexnet_kernels.<name>, called like a function. Until `register_autograd`, a gradient through it is an error, and not zero."""

    def __init__(self, name: str, function: Callable[..., Any], mutates_args: Iterable[str] = ()):
        self.name, mutates = name, tuple(mutates_args)
        LIBRARY.define(
            name + torch.library.infer_schema(function, mutates_args=mutates),
            tags=(torch.Tag.pt2_compliant_tag,),
        )
        LIBRARY.impl(name, function, "CompositeExplicitAutograd")  # below autograd, on every device
        self._call = getattr(torch.ops.alexnet_kernels, name).default
        self._backward: Callable[..., Any] = self._refuse
        self._setup_context: Callable[..., None] | None = None

        def backward(ctx: Any, *gradients: Any) -> Any:
            return self._backward(ctx, *gradients)

        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            if self._setup_context:
                self._setup_context(ctx, inputs, output)

        if not mutates:
            torch.library.register_autograd(
                f"alexnet_kernels::{name}", backward, setup_context=setup_context, lib=LIBRARY
            )

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def register_fake(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorates what makes empty outputs, of the right shapes, types and layouts."""
        torch.library.register_fake(f"alexnet_kernels::{self.name}", function, lib=LIBRARY)
        return function

    def register_autograd(
        self, backward: Callable[..., Any], *, setup_context: Callable[..., None] | None = None
    ) -> None:
        """backward(ctx, *gradients of the outputs) gives those of the inputs; setup_context(ctx, inputs, output) keeps what it needs."""
        self._backward, self._setup_context = backward, setup_context

    def _refuse(self, ctx: Any, *gradients: Any) -> None:
        raise RuntimeError(
            f"alexnet_kernels::{self.name} has no gradient; with kernels.using('torch') nets have derivatives of every order"
        )


def define(name: str, mutates_args: Iterable[str] = ()) -> Callable[[Callable[..., Any]], Operator]:
    """Decorates what an operator does, whose type hints are its schema. mutates_args: those that it writes to."""
    return lambda function: Operator(name, function, mutates_args)
