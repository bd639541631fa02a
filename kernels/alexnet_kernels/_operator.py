"""What operators share: registration with torch, the choice among forms, the gradient.

A function declares an operator: its type hints are the schema, and its body allocates the results,
which is all that a fake tensor needs. Forms fill the results. `average_pool` in three steps:

    @define("average_pool")
    def operator(x: Tensor, size: int) -> Tensor:
        return empty_maps(x, (*x.shape[:2], x.shape[2] // size, x.shape[3] // size))

    @operator.form("composite")  # results first, then the arguments
    def _(y: Tensor, x: Tensor, size: int) -> None:
        y.copy_(F.avg_pool2d(x, size))

    operator.gradient(lambda ctx, dy: operator_backward(dy, *ctx.settings))

This is `torch.library.custom_op` without its price: the first eager call of one of those imports
torch's compiler, some two seconds of every process.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from alexnet_kernels import _choose, _native

# All there are, by name. They live with torch's own record of them, so that a module can be loaded
# anew, as by a notebook's autoreload.
OPERATORS: dict[str, "Operator"] = vars(torch.ops.alexnet_kernels).setdefault("_operators", {})


def _as_tuple(value: Any) -> tuple:
    return () if value is None else value if isinstance(value, tuple) else (value,)


def _on_device_of(x: Tensor) -> AbstractContextManager[Any]:
    """Make x's GPU the current one, which Triton launches on, whatever tensors it is given."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


class Operator:
    """`torch.ops.alexnet_kernels.<name>`, called like a function.

    Its first result is the one that has a gradient. Without `gradient`, to ask for one is an error.
    """

    library: torch.library.Library

    def __init__(self, name: str, allocate: Callable[..., Any], mutates: tuple[str, ...] = ()):
        self.name, self._allocate = name, allocate
        self._mutated = [
            i for i, word in enumerate(signature(allocate).parameters) if word in mutates
        ]
        self._forms: dict[str, tuple[Callable[..., None], Callable[..., bool]]] = {}
        self._differentiate: Callable[..., Any] | None = None
        self._keep: Callable[..., tuple[Iterable[Any], Any]] = self._tensors_and_settings
        if before := OPERATORS.get(name):
            before.library._destroy()
        self.library = torch.library.Library("alexnet_kernels", "FRAGMENT")
        self.library.define(
            name + torch.library.infer_schema(allocate, mutates_args=mutates),
            tags=(torch.Tag.pt2_compliant_tag,),
        )
        self.library.impl(
            name, self.compute, "CompositeExplicitAutograd"
        )  # below autograd, any device
        torch.library.register_fake(f"alexnet_kernels::{name}", allocate, lib=self.library)
        if not mutates:
            torch.library.register_autograd(
                f"alexnet_kernels::{name}",
                self._backward,
                setup_context=self._setup_context,
                lib=self.library,
            )
        self._call = getattr(torch.ops.alexnet_kernels, name).default
        if before:  # whoever has imported it goes on
            before._call = self._call
        OPERATORS[name] = self

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def form(self, kind: str, fits: Callable[..., bool] | None = None) -> Callable[[Any], Any]:
        """Decorate what fills the results, called with them and then the arguments.

        Args:
            kind: "triton", "native" (C) or "composite" (plain torch).
            fits: whether the form can serve these results and arguments. Without it: Triton's can
                always, C's where all floating-point tensors are such as `_native.fits` says.
        """
        if fits is None:
            fits = _native.fits if kind == "native" else lambda *given: True

        def keep(function: Callable[..., None]) -> Callable[..., None]:
            self._forms[kind] = function, fits
            return function

        return keep

    def kinds(self) -> set[str]:
        """The forms that it has."""
        return set(self._forms)

    def gradient(
        self,
        differentiate: Callable[..., Any],
        keep: Callable[..., tuple[Iterable[Any], Any]] | None = None,
    ) -> None:
        """Give the operator a derivative.

        Args:
            differentiate: differentiate(ctx, dy) returns the gradients of the first inputs; the
                rest have none.
            keep: keep(inputs, results) returns the tensors that become `ctx.saved_tensors`, and
                `ctx.settings`. By default these are the tensors among the inputs with the results
                after the first, and the other inputs.
        """
        self._differentiate = differentiate
        self._keep = keep or self._keep

    def compute(self, *args: Any) -> Any:
        """Compute below autograd: what torch calls, and operators that are built on this one."""
        if self._mutated:  # who kept one of these for a gradient must notice
            torch.autograd.graph.increment_version([t for i in self._mutated for t in args[i]])
        results = self._allocate(*args)
        self.fill(results, *args)
        return results

    def fill(self, results: Any, *args: Any) -> None:
        """Write the results by the best form that fits.

        Args:
            results: Tensors to write to.
            args: The operator's arguments.
        """
        given = *_as_tuple(results), *args
        first = given[0] if isinstance(given[0], Tensor) else next(iter(given[0]), None)
        if first is None or not (first.numel() or self._mutated):
            return
        tensor = first.device, first.dtype
        with _on_device_of(first):
            for kind in ("triton", "native"):
                function, fits = self._forms.get(kind, (None, None))
                if function and fits and fits(*given) and _choose.runs(kind, *tensor):
                    try:
                        return function(*given)
                    except Exception as error:
                        if not _choose.gives_up(kind, error):
                            raise
            self._forms["composite"][0](*given)

    def _tensors_and_settings(self, inputs: tuple, results: tuple) -> tuple[Iterable[Any], Any]:
        kinds = [str(argument.type) for argument in self._call._schema.arguments]
        tensors = sum("Tensor" in kind for kind in kinds)  # they come first
        return (*inputs[:tensors], *results[1:]), inputs[tensors:]

    def _setup_context(self, ctx: Any, inputs: tuple, output: Any) -> None:
        if self._differentiate:
            results = _as_tuple(output)
            tensors, ctx.settings = self._keep(inputs, results)
            ctx.save_for_backward(*tensors)
            ctx.mark_non_differentiable(*results[1:])
            ctx.set_materialize_grads(False)  # of the results that have none: zeros to no end

    def _backward(self, ctx: Any, dy: Tensor | None, *_: Any) -> tuple:
        if not self._differentiate:
            raise RuntimeError(
                f"alexnet_kernels::{self.name} has no gradient; "
                "with kernels.using('torch') nets have derivatives of every order"
            )
        gradients = () if dy is None else _as_tuple(self._differentiate(ctx, dy))
        return *gradients, *[None] * (len(self._call._schema.arguments) - len(gradients))


def define(name: str, mutates: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Operator]:
    """Decorate the declaration of an operator.

    Args:
        name: In torch.ops.alexnet_kernels.
        mutates: Its arguments that are lists of tensors to write to.
    """
    return lambda allocate: Operator(name, allocate, mutates)
