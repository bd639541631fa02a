"""A net as a table: its layers, and how it learns."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from alexnet.fields import Count, Finite, Natural, NotNegative, Positive, Rule, check_fields
from alexnet.presets.operations import Operation
from alexnet.presets.recipe import Recipe

Name = Annotated[str, Rule("a name without dots", lambda name: name and "." not in name)]


@dataclass(frozen=True)
class Layer:
    """One row of the table: what one column owns.

    Args:
        maps: Of one column; 0 stands for the number of classes.
        reads: "image"; "own": the column's maps below; "both": those of all columns.
        kernel: The side of a convolution's kernels; 0: a fully connected layer.
        pad: Zeros on each side; None: on the right and bottom only, as many as the last kernel
            needs.
        sigma: Standard deviation of the initial weights at full size.
        bias: The initial biases.
        then: What follows the sums, in order.

    Raises:
        InputError: A word or a number makes no sense.
    """

    name: Name
    maps: Natural
    reads: Literal["image", "own", "both"]
    kernel: Natural = 0
    stride: Count = 1
    pad: Natural | None = 0
    sigma: NotNegative = 0.01
    bias: Finite = 0.0
    then: tuple[Operation, ...] = ()

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class Preset:
    """A net, and how it learns.

    Args:
        reference_size: The image size at which the sigmas are meant.
        scale_sigma: Smaller nets keep sigma * sqrt(fan-in).
        gain: Sigma is this over sqrt(fan-in) in all layers, whatever the table says.
    """

    name: str
    layers: tuple[Layer, ...]
    recipe: Recipe = field(default_factory=Recipe)
    columns: Count = 2
    reference_size: Count = 224
    scale_sigma: bool = True
    gain: Positive | None = None

    def __post_init__(self):
        check_fields(self)

    def layer(self, name: str) -> Layer:
        return next(layer for layer in self.layers if layer.name == name)
