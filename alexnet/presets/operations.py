"""What may follow a layer's sums (sections 3.1, 3.3, 3.4 and 4.2), as rows of the table of layers.

A new operation is one class here: its fields, the tensors that it keeps (none, for most), its label
in drawings, and what it computes. The network makes a module of each row; counts of parameters,
checkpoints, exported weights and drawings follow from the row. torch is imported only where
something is computed, so that tables can be read without it.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from alexnet.fields import Checked, Count, NotNegative, Odd, Rule

if TYPE_CHECKING:
    from torch import Tensor

    from alexnet.network import OperationModule

Kind = Literal["weight", "bias", "gain"]  # of parameters; `Recipe.decayed` names those that decay

# nonlinearities, by their names in torch.nn.functional: their labels in drawings
ACTIVATIONS = {"relu": "ReLU", "tanh": "tanh", "sigmoid": "logistic"}
Nonlinearity = Annotated[str, Rule(f"one of {', '.join(ACTIVATIONS)}", ACTIVATIONS.__contains__)]


@dataclass(frozen=True)
class State(Checked):
    """A tensor that each column keeps for an operation.

    Args:
        name: An attribute of the operation's module.
        initial: The value of all its entries.
        kind: The kind of a parameter; None: a buffer, which the forward pass may change.
        per: "map": one number for each map or unit of the column; "column": a single one.
        merge: Columns' shares lie side by side in the layout of one device ("concatenate"), or are
            the "same" in all of them and stand there once.
    """

    name: str
    initial: float = 0.0
    kind: Kind | None = None
    per: Literal["map", "column"] = "map"
    merge: Literal["concatenate", "same"] = "concatenate"

    def shape(self, maps: int) -> tuple[int, ...]:
        """The shape of a column's share, where the column has so many maps."""
        return (maps if self.per == "map" else 1,)


@dataclass(frozen=True)
class Operation(Checked):
    """A row of what follows a layer's sums. Subclasses are frozen dataclasses."""

    state: ClassVar[tuple[State, ...]] = ()

    @property
    def name(self) -> str:
        """The prefix of its tensors in the layout of one device: "batch_norm" of a BatchNorm."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

    @property
    def label(self) -> tuple[str, ...]:
        """How drawings call it, line by line."""
        return (self.name.replace("_", " "),)

    def out_size(self, size: int) -> int:
        """The side of its output, given the side of its input."""
        return size

    def apply(self, x: "Tensor", module: "OperationModule", keys: "Tensor | None") -> "Tensor":
        """Compute it for one column.

        Args:
            x: Maps (N, C, H, W) or units (N, C).
            module: Holds the tensors of `state`, `training`, and its place: `layer` and `column`.
            keys: int64 (N,), one for each image, to draw from in training; None in evaluation.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Activation(Operation):
    """A nonlinearity (section 3.1), one of `ACTIVATIONS`."""

    kind: Nonlinearity = "relu"

    @property
    def label(self):
        return (ACTIVATIONS[self.kind],)

    def apply(self, x, module, keys):
        import torch.nn.functional as F

        return getattr(F, self.kind)(x)


@dataclass(frozen=True)
class _Norm(Operation):
    size: Odd = 5
    alpha: NotNegative = 1e-4  # per squared term
    beta: NotNegative = 0.75
    k: NotNegative = 2.0
    operator: ClassVar[str]  # of alexnet_kernels

    def apply(self, x, module, keys):
        import alexnet_kernels as kernels

        return getattr(kernels, self.operator)(x, self.size, self.alpha, self.beta, self.k)


@dataclass(frozen=True)
class LRN(_Norm):
    """Response normalization over adjacent maps of one column (section 3.3)."""

    label: ClassVar = ("LRN",)
    operator: ClassVar = "local_response_norm"


@dataclass(frozen=True)
class SameMapNorm(_Norm):
    """Response normalization over a square of one map. Source: layers-145.cfg."""

    alpha: NotNegative = 4e-5
    k: NotNegative = 1.0
    label: ClassVar = ("same-map", "norm")
    operator: ClassVar = "same_map_norm"


@dataclass(frozen=True)
class Pool(Operation):
    """Max pooling (section 3.4).

    `ceil` lets the last window reach over the border, as the source's does where it does not fit.
    """

    size: Count = 3
    stride: Count = 2
    ceil: bool = False

    @property
    def label(self):
        return "max pooling", f"{self.size} × {self.size}", f"stride {self.stride}"

    def out_size(self, size):
        steps = size - self.size + (self.stride - 1 if self.ceil else 0)
        return steps // self.stride + 1

    def apply(self, x, module, keys):
        import torch.nn.functional as F

        import alexnet_kernels as kernels

        over = (x.shape[-1] - self.size) % self.stride if self.ceil else 0
        if over:  # nothing wins against -inf
            x = F.pad(x, (0, self.stride - over, 0, self.stride - over), value=float("-inf"))
        return kernels.max_pool(x, self.size, self.stride)


@dataclass(frozen=True)
class Dropout(Operation):
    """Units are kept with probability `keep` (section 4.2).

    The text's form leaves them unscaled in training and multiplies by `keep` at test time; the
    `inverted` one divides by it in training, as is usual today.
    """

    keep: Annotated[float, Rule("above 0, 1 at most", lambda x: 0 < x <= 1)] = 0.5
    inverted: bool = False

    def apply(self, x, module, keys):
        from alexnet import rng

        if module.training and keys is not None:
            place = module.layer, module.column
            # of x's type at once: the gradient would convert bools again
            x = x * rng.keep(keys, x.shape[1], self.keep, *place, dtype=x.dtype)
            return x / self.keep if self.inverted else x
        return x if self.inverted else x * self.keep


RELU, POOL, DROPOUT = Activation("relu"), Pool(), Dropout()
