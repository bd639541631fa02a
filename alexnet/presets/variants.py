"""Variants: functions from preset to preset, which the paper's ablations and others need."""

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import Any

from alexnet.presets import operations as ops
from alexnet.presets.layers import Layer, Preset
from alexnet.presets.nets import CIFAR_11
from alexnet.presets.operations import Operation

Change = Callable[[Preset], Preset]


def _rows(change: Callable[[Layer], dict[str, Any]]) -> Change:
    """Change fields of every layer: those that `change` returns of it."""
    rows = lambda preset: (replace(row, **change(row)) for row in preset.layers)  # noqa: E731
    return lambda preset: replace(preset, layers=tuple(rows(preset)))


def _rows_named(changes: dict[str, dict[str, Any]]) -> Change:
    """Change fields of the layers of some names."""
    return _rows(lambda row: changes.get(row.name, {}))


def _each(kind: type[Operation], change: Callable[[Any], Operation | None]) -> Change:
    """Put what `change` makes of each operation of a kind in its place; None takes it away."""
    changed = lambda op: change(op) if isinstance(op, kind) else op  # noqa: E731
    return _rows(lambda row: {"then": tuple(op for op in map(changed, row.then) if op)})


def _instead(kind: type[Operation], other: Operation | None) -> Change:
    return _each(kind, lambda op: other)


def with_recipe(**changes) -> Change:
    """The variant that changes fields of the recipe."""
    return lambda preset: replace(preset, recipe=replace(preset.recipe, **changes))


def with_activation(preset: Preset, kind: str | Callable[..., Any]) -> Preset:
    """The preset with another nonlinearity: one of `ops.ACTIVATIONS`, or a function.

    Args:
        preset: The net to change.
        kind: A key of `ops.ACTIVATIONS`, or a function from tensor to tensor.

    Raises:
        InputError: There is no such nonlinearity.
    """
    changed = _instead(ops.Activation, ops.Activation(kind))(preset)
    return replace(changed, name=f"{preset.name}/{ops.activation_name(kind)}")


def _both(*changes: Change) -> Change:
    """One change after the other."""
    return lambda preset: reduce(lambda changed, change: change(changed), changes, preset)


def _one_column(preset: Preset) -> Preset:
    """Net 145-half, of the paper's footnote: one column of full-size conv5, fc6 and fc7."""
    names = ("conv5", "fc6", "fc7")
    double = {row.name: {"maps": 2 * row.maps} for row in preset.layers if row.name in names}
    own = _rows(lambda row: {"reads": "own"} if row.reads == "both" else {})
    return replace(_both(_rows_named(double), own)(preset), columns=1)


def _without(name: str) -> Change:
    """A convolution removed.

    Its pooling moves to the layer below, so that map sizes stay; the next layer reads what it read.
    """

    def remove(preset: Preset) -> Preset:
        rows = list(preset.layers)
        i = next(i for i, row in enumerate(rows) if row.name == name)
        gone, below, above = rows[i], rows[i - 1], rows[i + 1]
        pools = tuple(op for op in gone.then if isinstance(op, ops.Pool))
        rows[i - 1] = replace(below, then=below.then + pools)
        rows[i + 1] = replace(above, reads="both" if "both" in (gone.reads, above.reads) else "own")
        del rows[i]
        return replace(preset, layers=tuple(rows))

    return remove


def _activations(row: Layer) -> tuple[Operation, ...]:
    return tuple(op for op in row.then if isinstance(op, ops.Activation))


def _normalized(row: Layer) -> tuple[Operation, ...]:
    """A row's operations, with response normalization after the nonlinearity."""
    return row.then[0], ops.LRN(), *row.then[1:]


def _is_no_pool(op: Operation) -> bool:
    return not isinstance(op, ops.Pool)


def _pool_before_norm(row: Layer) -> dict[str, Any]:
    """A row's pooling in front of its response normalization; all else keeps its place."""
    kinds = (ops.Pool, ops.LRN, ops.SameMapNorm)
    moved = iter(sorted((op for op in row.then if isinstance(op, kinds)), key=_is_no_pool))
    return {"then": tuple(next(moved) if isinstance(op, kinds) else op for op in row.then)}


def _deeper(preset: Preset) -> Preset:
    """One more convolution below the last, like it but without pooling (Figure 1's net)."""
    i = max(i for i, row in enumerate(preset.layers) if row.kernel)
    last = preset.layers[i]
    more = replace(last, name=f"{last.name}a", then=_activations(last))
    above = replace(last, reads="own" if last.reads == "image" else last.reads)
    return replace(preset, layers=(*preset.layers[:i], more, above, *preset.layers[i + 1 :]))


def _conv6(preset: Preset) -> Preset:
    """Net 146: a sixth convolution, which reads both columns (section 6.1's pre-trained nets)."""
    conv5, reads_both = preset.layer("conv5"), preset.columns > 1
    conv6 = replace(conv5, name="conv6", pad=1, then=_activations(conv5))
    conv6 = replace(conv6, reads="both" if reads_both else "own")
    above = preset.layers.index(conv5) + 1
    return replace(preset, layers=(*preset.layers[:above], conv6, *preset.layers[above:]))


def _wide_conv1(preset: Preset) -> Preset:
    """conv1 four times as wide; conv2, which reads more, keeps the product of sigma and
    sqrt(fan-in)."""
    wider, sigma = {"maps": 4 * preset.layer("conv1").maps}, preset.layer("conv2").sigma / 2
    return _rows_named({"conv1": wider, "conv2": {"sigma": sigma}})(preset)


def _gain(gain: float) -> Change:
    """What later initializations share: a sigma that follows from the fan-in, biases of 0."""
    return lambda preset: replace(ZERO_BIASES(preset), gain=gain)


def _unpadded(row: Layer) -> dict[str, Any]:
    over = row.name == "conv5"
    then = (replace(op, ceil=over) if isinstance(op, ops.Pool) else op for op in row.then)
    return {"then": tuple(then)} | ({"pad": 0} if row.name == "conv1" else {})


ZERO_BIASES = _rows(lambda row: {"bias": 0.0})
FALLS = (23, 51, 78)
ONE_FALL = {"schedule": "logged", "cycles": 1.0, "falls": (0.75,), "bias_falls": (0.75,)}

THREE_FALLS = {"schedule": "logged", "cycles": 1.0, "falls": (0.5, 0.75, 0.9)}
THREE_FALLS |= {"bias_falls": (0.5, 0.75, 0.9), "conv1_fall": None, "conv1_freeze": None}
THREE_FALLS |= {"color_off": None}

VARIANTS: dict[str, Change] = {
    # section 3.5's footnote: last convolution and fully connected layers of full size
    "one-column": _one_column,
    # no response normalization (section 3.3); it after the first two convolutions of a net without
    "no-lrn": _both(_instead(ops.LRN, None), _instead(ops.SameMapNorm, None)),  # net 148
    "lrn": _rows(lambda row: {"then": _normalized(row)} if row.name in ("conv1", "conv2") else {}),
    # net 147 (section 3.4): 2x2 windows, 2 apart; conv2's and conv5's padding shrinks by one, so
    # that fc6 keeps its size (55, 28, 26, 13, 11, 6)
    "no-overlap": _both(
        _instead(ops.Pool, ops.Pool(2, 2, ceil=True)),
        _rows_named({"conv2": {"pad": 1}, "conv5": {"pad": 0}}),
    ),
    # as many kernels at a quarter of the width as the full net has (Figure 3)
    "wide-conv1": _wide_conv1,
    **{f"no-conv{i}": _without(f"conv{i}") for i in (2, 3, 4, 5)},  # section 7
    "deeper": _deeper,
    "conv6": _conv6,  # on the last pooling layer (section 6.1)
    # as every nonlinearity (section 3.1)
    **{kind: _instead(ops.Activation, ops.Activation(kind)) for kind in ops.ACTIVATIONS},
    # the source's, in the convolutions above the second
    "sigma-0.03": _rows_named({f"conv{i}": {"sigma": 0.03} for i in (3, 4, 5, 6)}),
    "unscaled-sigma": lambda preset: replace(preset, scale_sigma=False),
    "zero-biases": ZERO_BIASES,  # section 5 has ones
    # dropout (section 4.2) that rescales in training instead of at test time; none
    "inverted-dropout": _each(ops.Dropout, lambda op: replace(op, inverted=True)),
    "no-dropout": _instead(ops.Dropout, None),
    "he-init": _gain(2**0.5),  # by the rule of He and others, 2015: sigma = sqrt(2 / fan-in)
    "he-weights": lambda preset: replace(preset, gain=2**0.5),  # the same, the biases as they were
    "torch-weights": lambda preset: replace(preset, gain=3**-0.5),
    "biases-0.1": _rows(lambda row: {"bias": min(row.bias, 0.1)}),  # as Caffe's bvlc_alexnet
    "torch-init": _gain(3**-0.5),  # the spread of torch's default, 1 / sqrt(3 fan-in)
    # what torch and Caffe make of the text's numbers
    "lrn-over-size": _each(ops.LRN, lambda op: replace(op, alpha=op.alpha / op.size)),
    # CaffeNet's order
    "pool-before-norm": _rows(_pool_before_norm),
    # the ONNX zoo's graph: no padding of 224 pixels, so that maps are 54, 26 and 12; conv5's last
    # pooling window reaches over the border, so that fc6 keeps its size
    "224-unpadded": _both(_rows(_unpadded), lambda preset: replace(preset, reference_size=224)),
    # pooling before the nonlinearity: for functions that rise the same function, another way
    "pool-first": _rows(lambda row: {"then": tuple(sorted(row.then, key=_is_no_pool))}),
    # pixels in 0..1; in standard deviations, of which ImageNet's are 0.229, 0.224 and 0.225 of 255
    "unit-input": with_recipe(input_scale=1 / 255),
    "unit-variance": with_recipe(input_scale=1 / 58),
    "one-fall": with_recipe(**ONE_FALL),  # after three quarters of the budget
    # for the four-layer net, which has none of them
    # of cuda-convnet's CIFAR-10 nets: what else differs between the two, one at a time
    "local3-64": _rows_named({"local3": {"maps": 64}}),
    "cifar-lrn": _rows_named(
        {name: {"then": CIFAR_11.layer(name).then} for name in ("conv1", "conv2")}
    ),
    "regularized": with_recipe(crops="random", flips=True, weight_decay=5e-4, **ONE_FALL),
    # the rate outside the velocity, as in torch's SGD; section 5 has it inside
    "rate-outside": with_recipe(velocity="without rate"),
    "no-color": with_recipe(color=None),  # section 4.1
    "color-255": with_recipe(color="text-255"),  # eigenvalues of colors in 0..255
    "no-crops": with_recipe(crops="center", flips=False),  # section 4.1
    "constant-rate": with_recipe(schedule="constant"),
    # the falls of the source, for data without validation images; the text's rule
    "logged-rate": with_recipe(schedule="logged", cycles=93.0, falls=FALLS, bias_falls=FALLS),
    # three falls at fixed shares of the budget, so that all arms of a comparison have the same ones
    "three-falls": with_recipe(**THREE_FALLS),
    "plateau-rate": with_recipe(schedule="plateau"),
    "no-decay": with_recipe(weight_decay=0.0),  # section 5
}
