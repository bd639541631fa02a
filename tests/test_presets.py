"""The tables of nets: their arithmetic, and the words and numbers that they may hold."""

import subprocess
import sys
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from alexnet import AlexNet, presets
from alexnet.errors import InputError
from alexnet.presets import crossings, get, initial_sigmas, shapes, total
from alexnet.presets.operations import State

PER_LAYER = [34_944, 307_456, 885_120, 663_936, 442_624, 37_752_832, 16_781_312, 4_097_000]
VALID = {  # a row of each kind, by what it must be given
    presets.Recipe: {},
    presets.Layer: {"name": "conv1", "maps": 8, "reads": "own"},
    presets.Preset: {"name": "net", "layers": ()},
    presets.Activation: {},
    presets.LRN: {},
    presets.SameMapNorm: {},
    presets.Pool: {},
    presets.Dropout: {},
    State: {"name": "gain"},
}


def sides(table):
    return [(row.size, row.out_size) for row in table[:5]]


@pytest.mark.parametrize("preset", ["paper", "source"])
def test_the_full_nets_numbers(preset):
    table = shapes(get(preset))
    assert [row.parameters for row in table] == PER_LAYER
    assert total(table, "parameters") == 60_965_224
    neurons = [290_400, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    assert [row.neurons for row in table] == neurons
    assert total(table, "neurons") == 659_272
    assert total(table, "macs") == 724_406_816
    assert sides(table) == [(55, 27), (27, 13), (13, 13), (13, 13), (13, 6)]
    assert table[0].pad == (0, 3)  # right and bottom only
    assert crossings(table) == {"conv3": 21_632, "fc6": 4_608, "fc7": 2_048, "fc8": 1_000}


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("paper/one-column", 59_798_312),
        ("paper/conv6", 60_965_224 + 590_080),
        ("paper/no-overlap", 60_965_224),
        ("source/no-lrn/tanh", 60_965_224),
    ],
)
def test_variants_numbers(preset, parameters):
    assert total(shapes(get(preset)), "parameters") == parameters


def test_pooling_without_overlap_keeps_the_sizes_of_net_147():
    table = shapes(get("paper/no-overlap"))
    assert sides(table) == [(55, 28), (26, 13), (13, 13), (13, 13), (11, 6)]


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("caffe", 227, [(55, 27), (27, 13), (13, 13), (13, 13), (13, 6)]),
        ("caffe", 224, [(54, 27), (27, 13), (13, 13), (13, 13), (13, 6)]),  # Caffe rounds up
        ("caffe/224-unpadded", 224, [(54, 26), (26, 12), (12, 12), (12, 12), (12, 6)]),
    ],
)
def test_sizes_of_the_published_weights_nets(name, size, expected):
    table = shapes(get(name), image_size=size)
    assert sides(table) == expected and [row.parameters for row in table] == PER_LAYER
    norms = [op for row in table for op in row.layer.then if isinstance(op, presets.LRN)]
    assert len(norms) == 2 and {(op.k, op.alpha, op.merged) for op in norms} == {(1, 2e-5, True)}


def test_what_crosses_where_windows_reach_over_columns():
    sent = crossings(shapes(get("caffe"), image_size=227))
    assert (sent["conv1"], sent["conv2"]) == (48 * 55**2, 128 * 27**2)
    sent = crossings(shapes(get("caffe/pool-before-norm"), image_size=227))
    assert (sent["conv1"], sent["conv2"]) == (48 * 27**2, 128 * 13**2)


def test_pooling_before_normalization_moves_nothing_else():
    kinds = lambda name, layer: [type(op).__name__ for op in get(name).layer(layer).then]  # noqa: E731
    assert kinds("caffe/pool-before-norm", "conv1") == ["Activation", "Pool", "LRN"]
    assert kinds("source/pool-before-norm", "conv1") == ["Pool", "LRN", "Activation"]
    expected = ["Activation", "Pool", "LRN", "SameMapNorm"]
    assert kinds("source/pool-before-norm", "conv2") == expected
    assert kinds("paper/pool-before-norm", "conv5") == ["Activation", "Pool"]


def test_scaling_keeps_sigma_times_root_fan_in():
    full = shapes(get("paper"))
    assert initial_sigmas(get("paper"), full) == [0.01] * 8
    small = shapes(get("paper"), 40, 1 / 4, 64)
    for row, big, sigma in zip(small, full, initial_sigmas(get("paper"), small), strict=True):
        assert sigma * row.fan_in**0.5 == pytest.approx(0.01 * big.fan_in**0.5)
    assert initial_sigmas(get("paper/unscaled-sigma"), small) == [0.01] * 8


def test_a_wide_conv1_has_the_full_nets_kernels_at_a_quarter_of_the_width():
    full, small = shapes(get("paper")), shapes(get("paper/wide-conv1"), width=1 / 4, image_size=112)
    assert small[0].maps == full[0].maps == 48
    assert [row.maps for row in small[1:5]] == [row.maps // 4 for row in full[1:5]]
    sigmas = initial_sigmas(get("paper/wide-conv1"), small)
    for row, big, sigma in zip(small, full, sigmas, strict=True):
        assert sigma * row.fan_in**0.5 == pytest.approx(0.01 * big.fan_in**0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("papper",), "there is no preset 'papper'"),
        (("paper/no-lnr",), "no variant 'no-lnr'"),
        (("four-layer/no-conv5",), "lacks the layer"),
        (("paper", 10, 1.0, 40), "40 x 40 are too small"),
        (("paper", 1), "2 classes or more"),
        (("paper", 10, -1.0), "positive width"),
        (("paper", 10, float("nan")), "positive width"),
        (("paper/one-column/one-column",), "variant 'one-column' more than once"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        AlexNet(*arguments)


@pytest.mark.parametrize("variant", ["tanh", "one-column", "zero-biases"])
def test_a_sixth_convolution_is_like_the_fifth(variant):
    rows = [
        get(f"paper/{variants}").layer("conv6")
        for variants in (f"conv6/{variant}", f"{variant}/conv6")
    ]
    assert (
        rows[0].then == rows[1].then
        and rows[0].bias == rows[1].bias
        and rows[0].reads == rows[1].reads
    )


def words(hint) -> tuple[str, ...]:
    """All that a `Literal` within an annotation lists."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return tuple(word for part in get_args(hint) for word in words(part))


WORDS = [
    (row, field, listed)
    for row in VALID
    for field, hint in get_type_hints(row, include_extras=True).items()
    if (listed := words(hint))
]


def test_every_field_that_is_a_word_is_known():
    assert {(row.__name__, field) for row, field, _ in WORDS} == {
        ("Recipe", "schedule"), ("Recipe", "color"), ("Recipe", "crops"), ("Recipe", "mean"),
        ("Recipe", "velocity"), ("Recipe", "decayed"), ("Layer", "reads"),
        ("State", "kind"), ("State", "per"), ("State", "merge"),
    }  # fmt: skip


@pytest.mark.parametrize(("row", "field", "listed"), WORDS)
def test_a_wrong_word_is_refused_and_the_right_ones_are_listed(row, field, listed):
    many = get_origin(get_type_hints(row)[field]) is tuple
    for word in listed:
        row(**VALID[row] | {field: (word,) if many else word})
    for wrong in ("cosine", listed[0].capitalize()):
        with pytest.raises(InputError) as refused:
            row(**VALID[row] | {field: (wrong,) if many else wrong})
        assert f"{row.__name__}'s {field} is" in str(refused.value)
        assert all(repr(word) in str(refused.value) for word in listed)


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [
        (presets.Recipe, "rate", -0.01),
        (presets.Recipe, "bias_rate", float("nan")),
        (presets.Recipe, "momentum", 1.0),
        (presets.Recipe, "weight_decay", -5e-4),
        (presets.Recipe, "batch_size", 0),
        (presets.Recipe, "crop_chunk", 0),
        (presets.Recipe, "cycles", 0.0),
        (presets.Recipe, "falls", (51, 23)),
        (presets.Recipe, "bias_falls", (-1.0,)),
        (presets.Recipe, "conv1_freeze", -1.0),
        (presets.Recipe, "input_scale", 0.0),
        (presets.Recipe, "flips", "yes"),
        (presets.Layer, "name", "conv.1"),
        (presets.Layer, "maps", -1),
        (presets.Layer, "kernel", 2.5),
        (presets.Layer, "stride", 0),
        (presets.Layer, "pad", -1),
        (presets.Layer, "sigma", -0.01),
        (presets.Layer, "bias", float("inf")),
        (presets.Layer, "then", ("relu",)),
        (presets.Preset, "columns", 0),
        (presets.Preset, "gain", 0.0),
        (presets.Activation, "kind", "Relu"),
        (presets.LRN, "size", 4),
        (presets.LRN, "alpha", -1e-4),
        (presets.SameMapNorm, "size", 0),
        (presets.Pool, "size", 0),
        (presets.Pool, "stride", 0),
        (presets.Dropout, "keep", 0.0),
        (presets.Dropout, "keep", 1.5),
    ],
)
def test_a_number_out_of_range_is_refused(row, field, value):
    row(**VALID[row])
    with pytest.raises(InputError, match=f"{row.__name__}'s {field} is .*; it must be "):
        row(**VALID[row] | {field: value})


def test_every_activation_is_a_variant():
    for kind in presets.ACTIVATIONS:
        kinds = {op.kind for row in get(f"source/{kind}").layers for op in row.then
                 if isinstance(op, presets.Activation)}  # fmt: skip
        assert kinds == {kind}


def test_tables_are_read_without_torch():
    code = "import sys, alexnet.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_least_image_that_reaches_the_last_layer():
    for name in ("paper", "source", "four-layer", "caffe"):
        if name not in presets.PRESETS:
            continue
        least = presets.least_image_size(get(name))
        shapes(get(name), image_size=least)
        with pytest.raises(InputError, match="too small"):
            shapes(get(name), image_size=least - 1)
