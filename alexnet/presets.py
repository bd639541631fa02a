"""What differs between nets, as tables: the text's net, the released source's net 145, and the variants that the paper's ablations need.

A preset is a table of layers and a recipe for learning; the network (section 3 of the paper) and the trainer (sections 4 and 5) read them
and nothing else. A variant is a function from preset to preset. `get("paper/no-lrn/tanh")` applies variants from left to right.

Sources: the text; `layers-145.cfg` and `layer-params-145*.cfg` of the released source for whatever is marked "source".
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, inf, prod

from alexnet.errors import InputError


# What may follow a layer's sum, in order.
@dataclass(frozen=True)
class Activation:
    kind: str = "relu"  # relu, tanh, sigmoid


@dataclass(frozen=True)
class LRN:
    """Across adjacent maps of one column (section 3.3); alpha per squared term."""

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0


@dataclass(frozen=True)
class SameMapNorm:
    """Over a square of one map (source only)."""

    size: int = 5
    alpha: float = 4e-5
    beta: float = 0.75
    k: float = 1.0


@dataclass(frozen=True)
class Pool:
    """Max pooling (section 3.4). `ceil` lets the last window hang over the border, as the source's does where it does not fit."""

    size: int = 3
    stride: int = 2
    ceil: bool = False


@dataclass(frozen=True)
class Dropout:
    """Section 4.2: units are kept with probability `keep`, unscaled in training and multiplied by `keep` at test time; inverted: the modern
    other way round."""

    keep: float = 0.5
    inverted: bool = False


Operation = Activation | LRN | SameMapNorm | Pool | Dropout

RELU, POOL, DROPOUT = Activation("relu"), Pool(), Dropout()


@dataclass(frozen=True)
class Layer:
    """One row of the table: what one column owns. `maps` 0 stands for the number of classes, `kernel` 0 for a fully connected layer."""

    name: str
    maps: int
    reads: str  # "image"; "own": the column's maps below; "both": those of all columns
    kernel: int = 0
    stride: int = 1
    pad: int | None = (
        0  # zeros on each side; None: on the right and bottom only, as many as the last kernel needs
    )
    sigma: float = 0.01  # of the initial weights, at full size
    bias: float = 0.0  # initial
    then: tuple[Operation, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """How a net learns (sections 4 and 5). Rates are per step at the batch's mean gradient; epochs are counted on a scale of `cycles`
    epochs."""

    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 5e-4  # weights only, never biases
    rate: float = 0.01
    bias_rate: float = 0.01
    schedule: str = "plateau"  # or "logged": the falls below, or "constant"
    cycles: float = 90.0
    falls: tuple[float, ...] = ()  # when the weights' rate falls by ten
    bias_falls: tuple[float, ...] = ()  # when the biases' rate does
    conv1_fall: float | None = None  # when conv1's rate falls ahead of the others'
    conv1_freeze: float | None = None
    color: str | None = "text"  # "text", "source" or None
    color_off: float | None = None
    crops: str = "random"  # or "center"
    flips: bool = True
    crop_chunk: int = 1  # so many consecutive images share a crop and a reflection
    mean: str = "aligned"  # the mean image is cropped with the image; "center": always its center
    input_scale: float = 1.0  # pixels are 0..255 minus the mean image, times this
    velocity: str = "with rate"  # the rate is within the velocity (section 5); "without rate": outside of it, as in torch


@dataclass(frozen=True)
class Preset:
    name: str
    layers: tuple[Layer, ...]
    recipe: Recipe = Recipe()
    columns: int = 2
    reference_size: int = 224  # the image size at which the sigmas are meant
    scale_sigma: bool = True  # smaller nets keep sigma * sqrt(fan-in)
    gain: float | None = (
        None  # sigma is this over sqrt(fan-in), in all layers, instead of what the table says
    )

    def layer(self, name: str) -> Layer:
        return next(layer for layer in self.layers if layer.name == name)


PAPER = Preset(
    "paper",
    layers=(
        Layer("conv1", 48, "image", kernel=11, stride=4, pad=None, then=(RELU, LRN(), POOL)),
        Layer("conv2", 128, "own", kernel=5, pad=2, bias=1, then=(RELU, LRN(), POOL)),
        Layer("conv3", 192, "both", kernel=3, pad=1, then=(RELU,)),
        Layer("conv4", 192, "own", kernel=3, pad=1, bias=1, then=(RELU,)),
        Layer("conv5", 128, "own", kernel=3, pad=1, bias=1, then=(RELU, POOL)),
        Layer("fc6", 2048, "both", bias=1, then=(RELU, DROPOUT)),
        Layer("fc7", 2048, "both", bias=1, then=(RELU, DROPOUT)),
        Layer("fc8", 0, "own"),  # the columns' partial logits are summed
    ),
)

SOURCE_LRN = LRN(alpha=2e-5)  # the source divides 1e-4 by the window's 5

SOURCE = Preset(
    "source",
    layers=(
        Layer("conv1", 48, "image", kernel=11, stride=4, pad=None, then=(SOURCE_LRN, POOL, RELU)),
        Layer(
            "conv2",
            128,
            "own",
            kernel=5,
            pad=2,
            bias=1,
            then=(RELU, SOURCE_LRN, SameMapNorm(), POOL),
        ),
        Layer("conv3", 192, "both", kernel=3, pad=1, sigma=0.03, then=(RELU,)),
        Layer("conv4", 192, "own", kernel=3, pad=1, sigma=0.03, bias=1, then=(RELU,)),
        Layer("conv5", 128, "own", kernel=3, pad=1, sigma=0.03, bias=1, then=(POOL, RELU)),
        Layer("fc6", 2048, "both", bias=1, then=(RELU, DROPOUT)),
        Layer("fc7", 2048, "both", bias=1, then=(RELU, DROPOUT)),
        Layer("fc8", 0, "own"),
    ),
    recipe=Recipe(
        bias_rate=0.02,
        schedule="logged",  # layer-params-145-2010.cfg:170-176
        cycles=93.0,
        falls=(23, 51, 78),
        bias_falls=(23,),
        conv1_fall=68,
        conv1_freeze=72,
        color="source",
        color_off=68,
        crop_chunk=32,
        mean="center",
    ),
)

# The four-layer net of Figure 1. The paper gives neither sizes nor rates: widths are those of the small CIFAR-10 nets of the time, order
# and overlap the paper's.
FOUR_LAYER = Preset(
    "four-layer",
    layers=(
        Layer("conv1", 32, "image", kernel=5, pad=2, sigma=0.0001, then=(RELU, POOL)),
        Layer("conv2", 32, "own", kernel=5, pad=2, then=(RELU, POOL)),
        Layer("conv3", 64, "own", kernel=5, pad=2, then=(RELU, POOL)),
        Layer("fc4", 0, "own", sigma=0.1),
    ),
    recipe=Recipe(weight_decay=0.0, schedule="constant", color=None, crops="center", flips=False),
    columns=1,
    reference_size=32,
)

PRESETS = {preset.name: preset for preset in (PAPER, SOURCE, FOUR_LAYER)}


def _each_operation(preset: Preset, change: Callable[[Operation], Operation | None]) -> Preset:
    """`change` applied to every operation of every layer; None takes it away."""
    layers = (
        replace(layer, then=tuple(new for old in layer.then if (new := change(old)) is not None))
        for layer in preset.layers
    )
    return replace(preset, layers=tuple(layers))


def _with_layer(preset: Preset, name: str, **changes) -> Preset:
    return replace(
        preset,
        layers=tuple(replace(row, **changes) if row.name == name else row for row in preset.layers),
    )


def _activation(kind: str) -> Callable[[Preset], Preset]:
    return lambda preset: _each_operation(
        preset, lambda op: Activation(kind) if isinstance(op, Activation) else op
    )


def _no_lrn(preset: Preset) -> Preset:
    """Net 148: without either kind of normalization."""
    return _each_operation(preset, lambda op: None if isinstance(op, LRN | SameMapNorm) else op)


def _lrn(preset: Preset) -> Preset:
    """Response normalization after the nonlinearity of the first two convolutions, as in the text's net."""
    return replace(
        preset,
        layers=tuple(
            replace(row, then=(row.then[0], LRN(), *row.then[1:]))
            if row.name in ("conv1", "conv2")
            else row
            for row in preset.layers
        ),
    )


def _no_overlap(preset: Preset) -> Preset:
    """Net 147: 2x2 windows, 2 apart; conv2's and conv5's padding shrinks by one so that fc6 keeps its size (55, 28, 26, 13, 11, 6)."""
    preset = _each_operation(
        preset, lambda op: Pool(2, 2, ceil=True) if isinstance(op, Pool) else op
    )
    return _with_layer(_with_layer(preset, "conv2", pad=1), "conv5", pad=0)


def _one_column(preset: Preset) -> Preset:
    """Net 145-half, of the paper's footnote: one column; the last convolution and the fully connected layers keep the full net's size."""
    layers = tuple(
        replace(
            row,
            maps=row.maps * 2 if row.name in ("conv5", "fc6", "fc7") else row.maps,
            reads="image" if row.reads == "image" else "own",
        )
        for row in preset.layers
    )
    return replace(preset, layers=layers, columns=1)


def _without(name: str) -> Callable[[Preset], Preset]:
    """A convolution removed. Its pooling stays, moved to the layer below, so that map sizes stay; the next layer reads what it read."""

    def remove(preset: Preset) -> Preset:
        rows = list(preset.layers)
        i = next(i for i, row in enumerate(rows) if row.name == name)
        gone, below, above = rows[i], rows[i - 1], rows[i + 1]
        pools = tuple(op for op in gone.then if isinstance(op, Pool))
        rows[i - 1] = replace(below, then=below.then + pools)
        rows[i + 1] = replace(above, reads="both" if "both" in (gone.reads, above.reads) else "own")
        del rows[i]
        return replace(preset, layers=tuple(rows))

    return remove


def _deeper(preset: Preset) -> Preset:
    """One more convolution below the last, like it but without pooling (Figure 1's net)."""
    i = max(i for i, row in enumerate(preset.layers) if row.kernel)
    last = preset.layers[i]
    more = replace(
        last, name=f"{last.name}a", then=tuple(op for op in last.then if isinstance(op, Activation))
    )
    above = replace(last, reads="own" if last.reads == "image" else last.reads)
    return replace(preset, layers=(*preset.layers[:i], more, above, *preset.layers[i + 1 :]))


def _conv6(preset: Preset) -> Preset:
    """Net 146: a sixth convolution on the last pooling layer, reading both columns (section 6.1's pre-trained nets)."""
    conv5 = preset.layer("conv5")
    bends = tuple(op for op in conv5.then if isinstance(op, Activation))
    reads = "both" if preset.columns > 1 else "own"
    conv6 = Layer(
        "conv6", conv5.maps, reads, kernel=3, pad=1, sigma=conv5.sigma, bias=conv5.bias, then=bends
    )
    at = preset.layers.index(conv5) + 1
    return replace(preset, layers=(*preset.layers[:at], conv6, *preset.layers[at:]))


def _source_sigmas(preset: Preset) -> Preset:
    upper = ("conv3", "conv4", "conv5", "conv6")
    return replace(
        preset,
        layers=tuple(
            replace(row, sigma=0.03) if row.name in upper else row for row in preset.layers
        ),
    )


def _recipe(**changes) -> Callable[[Preset], Preset]:
    return lambda preset: replace(preset, recipe=replace(preset.recipe, **changes))


def _zero_biases(preset: Preset) -> Preset:
    return replace(preset, layers=tuple(replace(row, bias=0.0) for row in preset.layers))


def _gain(gain: float) -> Callable[[Preset], Preset]:
    """What later initializations have in common: a sigma that follows from the fan-in, and biases of 0."""
    return lambda preset: replace(_zero_biases(preset), gain=gain)


def _pool_first(preset: Preset) -> Preset:
    """Pooling before the nonlinearity. With windows' maxima and functions that rise it is the same function, by another way."""
    return replace(
        preset,
        layers=tuple(
            replace(row, then=tuple(sorted(row.then, key=lambda op: not isinstance(op, Pool))))
            for row in preset.layers
        ),
    )


VARIANTS: dict[str, tuple[Callable[[Preset], Preset], str]] = {
    "one-column": (
        _one_column,
        "one column, last convolution and fully connected layers of full size (the footnote of section 3.5's comparison)",
    ),
    "no-lrn": (_no_lrn, "no response normalization (section 3.3)"),
    "lrn": (_lrn, "response normalization after the first two convolutions, where a net has none"),
    "no-overlap": (_no_overlap, "pooling windows that do not overlap (section 3.4)"),
    "no-conv2": (_without("conv2"), "without the second convolution (section 7)"),
    "no-conv3": (_without("conv3"), "without the third convolution"),
    "no-conv4": (_without("conv4"), "without the fourth convolution"),
    "no-conv5": (_without("conv5"), "without the fifth convolution"),
    "deeper": (_deeper, "one more convolution below the last one"),
    "conv6": (_conv6, "a sixth convolution on the last pooling layer (section 6.1)"),
    "tanh": (_activation("tanh"), "tanh for every ReLU (section 3.1)"),
    "sigmoid": (_activation("sigmoid"), "the logistic function for every ReLU"),
    "sigma-0.03": (
        _source_sigmas,
        "the source's sigma of 0.03 in the convolutions above the second, where the text has 0.01",
    ),
    "unscaled-sigma": (
        lambda preset: replace(preset, scale_sigma=False),
        "smaller nets keep sigma itself, not sigma * sqrt(fan-in)",
    ),
    "zero-biases": (_zero_biases, "all biases start at 0 (section 5 has ones)"),
    "inverted-dropout": (
        lambda preset: _each_operation(
            preset, lambda op: replace(op, inverted=True) if isinstance(op, Dropout) else op
        ),
        "dropout that rescales in training instead of at test time (section 4.2)",
    ),
    "no-dropout": (
        lambda preset: _each_operation(preset, lambda op: None if isinstance(op, Dropout) else op),
        "no dropout",
    ),
    "he-init": (
        _gain(2**0.5),
        "first weights by the rule of He and others, 2015: sigma = sqrt(2 / fan-in), biases 0",
    ),
    "torch-init": (
        _gain(3**-0.5),
        "the spread of torch's default first weights, 1 / sqrt(3 fan-in), biases 0",
    ),
    "lrn-over-size": (
        lambda preset: _each_operation(
            preset, lambda op: replace(op, alpha=op.alpha / op.size) if isinstance(op, LRN) else op
        ),
        "response normalization with alpha divided by the window's size, which is what torch and Caffe make of the text's numbers",
    ),
    "pool-first": (_pool_first, "pooling before the nonlinearity"),
    "unit-input": (_recipe(input_scale=1 / 255), "pixels scaled to 0..1 before they enter the net"),
    "unit-variance": (
        _recipe(input_scale=1 / 58),
        "pixels in standard deviations, of which ImageNet's are 0.229, 0.224 and 0.225 of 255",
    ),
    "one-fall": (
        _recipe(schedule="logged", cycles=1.0, falls=(0.75,), bias_falls=(0.75,)),
        "one fall of the rate, to a tenth after three quarters of the budget",
    ),
    "regularized": (
        _recipe(
            crops="random",
            flips=True,
            weight_decay=5e-4,
            schedule="logged",
            cycles=1.0,
            falls=(0.75,),
            bias_falls=(0.75,),
        ),
        "crops, reflections, the text's weight decay, and one fall of the rate (for the four-layer net, which has none of them)",
    ),
    "rate-outside": (
        _recipe(velocity="without rate"),
        "the rate outside the velocity, as in torch's SGD (section 5 has it inside)",
    ),
    "no-color": (_recipe(color=None), "no PCA color shifts (section 4.1)"),
    "color-255": (
        _recipe(color="text-255"),
        "PCA color read the other way: eigenvalues of colors in 0..255",
    ),
    "no-crops": (
        _recipe(crops="center", flips=False),
        "center crops only, no reflections (section 4.1)",
    ),
    "constant-rate": (_recipe(schedule="constant"), "the first rate throughout"),
    "logged-rate": (
        _recipe(schedule="logged", cycles=93.0, falls=(23, 51, 78), bias_falls=(23, 51, 78)),
        "the rate falls when the source's did, for data without validation images",
    ),
    "plateau-rate": (
        _recipe(schedule="plateau"),
        "the text's rule for the rate: /10 when the validation error stops improving",
    ),
    "no-decay": (_recipe(weight_decay=0.0), "no weight decay (section 5)"),
}


def get(name: str | Preset) -> Preset:
    """The preset of a name such as "paper" or "source/no-lrn/tanh". Raises InputError that lists what there is."""
    if isinstance(name, Preset):
        return name
    base, *variants = name.split("/")
    if base not in PRESETS:
        raise InputError(
            f"there is no preset {base!r}; there are {', '.join(PRESETS)}, each with variants, as in paper/no-lrn"
        )
    preset = PRESETS[base]
    for variant in variants:
        if variant not in VARIANTS:
            raise InputError(
                f"there is no variant {variant!r} of a preset; there are {', '.join(VARIANTS)}"
            )
        if variants.count(variant) > 1:
            raise InputError(
                f"preset {name!r} names the variant {variant!r} more than once; once is enough"
            )
        try:
            preset = VARIANTS[variant][0](preset)
        except StopIteration:
            raise InputError(
                f"preset {base!r} lacks the layer that the variant {variant!r} changes"
            ) from None
    return replace(preset, name=name)


@dataclass(frozen=True)
class Shape:
    """A layer's arithmetic at some width and image size, one column's share unless it says otherwise."""

    layer: Layer
    columns: int
    in_maps: int  # read by each column
    in_size: int  # side of the maps read; 1 for fully connected layers above fully connected ones
    pad: tuple[int, int]  # zeros on the left and top, on the right and bottom
    maps: int
    size: int  # side of the map before pooling
    out_size: int  # after pooling

    @property
    def fan_in(self) -> int:
        return self.in_maps * (self.layer.kernel or self.in_size) ** 2

    @property
    def is_last(self) -> bool:
        return self.layer.maps == 0

    @property
    def neurons(self) -> int:
        """Of all columns; the last layer's are the classes, whose sums the columns share."""
        return self.maps * self.size**2 * (1 if self.is_last else self.columns)

    @property
    def weights(self) -> int:
        return self.maps * self.fan_in * self.columns

    @property
    def biases(self) -> int:
        return self.maps * (1 if self.is_last else self.columns)

    @property
    def parameters(self) -> int:
        return self.weights + self.biases

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image, taps on padding included."""
        return self.weights * self.size**2


def shapes(
    preset: Preset, num_classes: int = 1000, width: float = 1.0, image_size: int = 224
) -> list[Shape]:
    """The table's arithmetic. Raises InputError where an image is too small to reach the last layer, or a number makes no sense."""
    if num_classes < 2 or not 0 < width < inf or image_size < 1:
        given = f"{num_classes}, {width} and {image_size}"
        raise InputError(
            f"there must be 2 classes or more, a positive width and image size; they are {given}"
        )
    table: list[Shape] = []
    maps, size = 3, image_size
    for layer in preset.layers:
        in_maps = maps * (preset.columns if layer.reads == "both" else 1)
        own = max(1, round(layer.maps * width)) if layer.maps else num_classes
        pad, out = (0, 0), 1
        if layer.kernel:
            before = layer.pad or 0
            if layer.pad is None:
                out = max(0, ceil((size - layer.kernel) / layer.stride)) + 1
                pad = (0, (out - 1) * layer.stride + layer.kernel - size)
            else:
                out = (size + 2 * before - layer.kernel) // layer.stride + 1
                pad = (before, before)
        pooled = out
        for op in layer.then:
            if isinstance(op, Pool):
                pooled = (
                    ceil((pooled - op.size) / op.stride) + 1
                    if op.ceil
                    else (pooled - op.size) // op.stride + 1
                )
        if out < 1 or pooled < 1:
            small = (
                f"images of {image_size} x {image_size} are too small for preset {preset.name!r}"
            )
            raise InputError(f"{small}: {layer.name} would have no output; use larger ones")
        table.append(Shape(layer, preset.columns, in_maps, size, pad, own, out, pooled))
        maps, size = own, pooled
    return table


def initial_sigmas(preset: Preset, table: list[Shape]) -> list[float]:
    """Of each layer's initial weights: the table's sigma, times sqrt(fan-in of the full net / fan-in here) unless the preset says not
    to, or has a gain."""
    if preset.gain is not None:
        return [preset.gain / row.fan_in**0.5 for row in table]
    if not preset.scale_sigma:
        return [row.layer.sigma for row in table]
    full = shapes(preset, image_size=preset.reference_size)
    return [
        row.layer.sigma * (big.fan_in / row.fan_in) ** 0.5
        for row, big in zip(table, full, strict=True)
    ]


def total(table: list[Shape], what: str) -> int:
    return sum(getattr(row, what) for row in table)


def crossings(table: list[Shape]) -> dict[str, int]:
    """Elements per image that each column sends to each other one: the maps that a layer reads from both, and the partial logits."""
    if table[0].columns == 1:
        return {}
    counts = {
        row.layer.name: row.in_maps // row.columns * row.in_size**2
        for row in table
        if row.layer.reads == "both"
    }
    return counts | {table[-1].layer.name: prod((table[-1].maps,))}
