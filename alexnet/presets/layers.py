"""A net as a table: its layers (section 3), and how it learns (sections 4 and 5)."""

from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Annotated, Literal

from alexnet.errors import require
from alexnet.fields import Checked, Count, Finite, Natural, NotNegative, Positive, Rule
from alexnet.presets.operations import Kind, Operation


def _rises(epochs: tuple[float, ...]) -> bool:
    return all(0 <= x < inf for x in epochs) and all(a <= b for a, b in pairwise(epochs))


# alexnet.training.schedule says what each does
ScheduleName = Literal["plateau", "logged", "constant"]
Falls = Annotated[tuple[float, ...], Rule("epochs of 0 or more in their order", _rises)]
Momentum = Annotated[float, Rule("0 or more, below 1", lambda x: 0 <= x < 1)]


@dataclass(frozen=True)
class Recipe(Checked):
    """How a net learns.

    Rates are per step at the batch's mean gradient; epochs are counted on a scale of `cycles`.

    Raises:
        InputError: A word is none of those that its field knows, or a number is out of range.
    """

    batch_size: Count = 128  # where a run does not choose its own
    momentum: Momentum = 0.9
    weight_decay: NotNegative = 5e-4
    decayed: tuple[Kind, ...] = ("weight",)  # the kinds of parameters that decay
    rate: NotNegative = 0.01
    bias_rate: NotNegative = 0.01
    schedule: ScheduleName = "plateau"
    cycles: Positive = 90.0
    falls: Falls = ()  # when the weights' rate falls to a tenth
    bias_falls: Falls = ()  # when the biases' rate does
    conv1_fall: NotNegative | None = None  # when conv1's rate falls ahead of the others'
    conv1_freeze: NotNegative | None = None
    color: Literal["text", "text-255", "source"] | None = "text"  # PCA color (section 4.1)
    color_off: NotNegative | None = None
    crops: Literal["random", "center"] = "random"
    flips: bool = True
    crop_chunk: Count = 1  # so many consecutive images share a crop and a reflection
    mean: Literal["aligned", "center"] = "aligned"  # cropped with the image; always its center
    input_scale: Positive = 1.0  # of pixels in 0..255 minus the mean image
    # the rate within the velocity (section 5), or outside of it, as in torch's SGD
    velocity: Literal["with rate", "without rate"] = "with rate"


Name = Annotated[str, Rule("a name without dots", lambda name: name and "." not in name)]


@dataclass(frozen=True)
class Layer(Checked):
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
        local: Each place of the map has kernels and a bias of its own ("locally connected").
        decay: Weight decay of the layer's weights; None: the recipe's.

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
    local: bool = False
    decay: NotNegative | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        fully = f"layer {self.name!r} is fully connected; only a convolution can be local"
        require(self.kernel > 0 or not self.local, fully)


@dataclass(frozen=True)
class Preset(Checked):
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

    def layer(self, name: str) -> Layer:
        return next(layer for layer in self.layers if layer.name == name)
