"""How a net learns (sections 4 and 5), as a table."""

from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Annotated, Literal

from alexnet.fields import Count, NotNegative, Positive, Rule, check_fields
from alexnet.presets.operations import Kind


def _rises(epochs: tuple[float, ...]) -> bool:
    return all(0 <= x < inf for x in epochs) and all(a <= b for a, b in pairwise(epochs))


# alexnet.training.schedule says what each does
ScheduleName = Literal["plateau", "logged", "constant"]
Falls = Annotated[tuple[float, ...], Rule("epochs of 0 or more in their order", _rises)]
Momentum = Annotated[float, Rule("0 or more, below 1", lambda x: 0 <= x < 1)]


@dataclass(frozen=True)
class Recipe:
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

    def __post_init__(self):
        check_fields(self)
