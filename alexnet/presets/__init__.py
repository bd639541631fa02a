"""What differs between nets, as tables: the text's net, the released source's net 145, that of
Caffe's published weights, Figure 1's, and the variants that the paper's ablations need.

A preset is a table of layers and a recipe for learning; the network (section 3 of the paper) and
the trainer (sections 4 and 5) read them and nothing else. A variant is a function from preset to
preset. `get("paper/no-lrn/tanh")` applies variants from left to right.
"""

from dataclasses import replace

from alexnet.errors import InputError, require
from alexnet.presets.layers import Layer, Preset, Recipe
from alexnet.presets.nets import CAFFE, FOUR_LAYER, PAPER, PRESETS, SOURCE
from alexnet.presets.operations import (
    ACTIVATIONS,
    DROPOUT,
    LRN,
    POOL,
    RELU,
    Activation,
    Dropout,
    Operation,
    Pool,
    SameMapNorm,
)
from alexnet.presets.sizes import (
    Shape,
    TooSmall,
    crossings,
    initial_sigmas,
    least_image_size,
    shapes,
    total,
)
from alexnet.presets.variants import VARIANTS, with_recipe


def get(name: str | Preset) -> Preset:
    """The preset of a name such as "paper" or "source/no-lrn/tanh".

    Raises:
        InputError: There is no such preset or variant; the message lists what there is.
    """
    if isinstance(name, Preset):
        return name
    base, *variants = name.split("/")
    require(
        base in PRESETS,
        f"there is no preset {base!r}; there are {', '.join(PRESETS)}, each with variants, as in "
        "paper/no-lrn",
    )
    preset = PRESETS[base]
    for variant in variants:
        require(
            variant in VARIANTS,
            f"there is no variant {variant!r} of a preset; there are {', '.join(VARIANTS)}",
        )
        require(
            variants.count(variant) == 1,
            f"preset {name!r} names the variant {variant!r} more than once; once is enough",
        )
        try:
            preset = VARIANTS[variant](preset)
        except StopIteration:
            raise InputError(
                f"preset {base!r} lacks the layer that the variant {variant!r} changes"
            ) from None
    return replace(preset, name=name)
