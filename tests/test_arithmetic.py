"""The arithmetic of the claims, computed another way."""

import math
from itertools import pairwise

import pytest

from alexnet import AlexNet, arithmetic


def test_counts_are_those_of_the_network_itself():
    weights = AlexNet("paper").export_merged()
    sizes = {name: value.numel() for name, value in weights.items()}
    assert arithmetic.parameters() == sum(sizes.values())
    shares = {
        name: sum(n for key, n in sizes.items() if key.startswith(name)) / sum(sizes.values())
        for name in ("conv3", "conv4", "fc6")
    }
    assert arithmetic.largest_convolution() == shares["conv3"] > 0.01 and shares["conv4"] > 0.01
    assert arithmetic.share("fc6") == shares["fc6"]
    shaped = [tuple(weights[f"conv{i}.weight"].shape) for i in range(1, 6)]
    assert arithmetic.kernels() == [f"{n} of {side}x{side}x{deep}" for n, deep, side, _ in shaped]
    units = [55**2 * 96, 27**2 * 256, 13**2 * 384, 13**2 * 384, 13**2 * 256, 4096, 4096, 1000]
    assert [
        arithmetic.units("conv1", "conv1"),
        *arithmetic.units("conv2", "fc8"),
    ] == units and arithmetic.neurons() == sum(units)
    uses = [
        weights[f"{name}.weight"].numel() * side**2
        for name, side in zip(SIDES, SIDES.values(), strict=True)
    ]
    assert arithmetic.connections() == sum(uses)
    dense = [3 * 224**2, *units]
    assert arithmetic.dense_parameters() == sum(a * b + b for a, b in pairwise(dense))


SIDES = {
    "conv1": 55,
    "conv2": 27,
    "conv3": 13,
    "conv4": 13,
    "conv5": 13,
    "fc6": 1,
    "fc7": 1,
    "fc8": 1,
}


def test_memory_by_hand():
    """Per column and image: outputs with their gradients, denominators of the two normalizations,
    copies of the other column's maps."""
    conv1, pool1, conv2, pool2 = 48 * 55**2, 48 * 27**2, 128 * 27**2, 128 * 13**2
    conv3, conv5, pool5 = 192 * 13**2, 128 * 13**2, 128 * 6**2
    outputs = 2 * conv1 + pool1 + 2 * conv2 + pool2 + 2 * conv3 + conv5 + pool5 + 2048 + 2048 + 1000
    column, copies, image = 2 * outputs + conv1 + conv2, pool2 + pool5 + 2048, 3 * 224**2
    shared = 60_965_224 - 1000
    assert arithmetic.memory(1) == 4 * (
        3 * (shared // 2 + 1000) + 128 * (image + column + 2 * copies)
    )
    assert arithmetic.memory(2) == 4 * (3 * 60_965_224 + 128 * (image + 2 * column))
    assert arithmetic.memory(2, batch=1) < arithmetic.memory(2)


def test_the_other_functions_by_brute_force():
    crops = {
        (top, left, mirrored)
        for top in range(256 - 223)
        for left in range(256 - 223)
        for mirrored in (0, 1)
    }
    assert arithmetic.views() == len(crops) == 2178
    assert arithmetic.connections_of_net_120() == 628_615_616  # by the facts on the source
    assert (
        arithmetic.pooled_sides(True)
        == [(55 - 3) // 2 + 1, (27 - 3) // 2 + 1, (13 - 3) // 2 + 1]
        == arithmetic.pooled_sides(False)
    )
    assert arithmetic.label_bits() == pytest.approx(math.log(1000) / math.log(2))
    for split, images in (("val", 50_000), ("test", 150_000)):
        files = math.ceil(images / 1024)
        ends = arithmetic.images_in_files("ILSVRC-2010", split)
        assert ends == [1024 * (files - 1) + 1, 1024 * files]
    assert arithmetic.images_in_files("ILSVRC-2010", "val") == [49_153, 50_176]
    assert [arithmetic.dropout_error(6, 3, seed) for seed in range(5)] == [0.0] * 5
    assert arithmetic.one_column_ratio() == 59_798_312 / 60_965_224
    assert arithmetic.sustained_teraflops(6) == pytest.approx(
        6 * 724_406_816 * 90 * 1.2e6 / (6 * 86400) / 1e12
    )
