"""The CIFAR-10 nets with normalization and without it."""

import matplotlib
import pytest

from alexnet import presets
from alexnet.experiments import cifar_lrn
from tests.experiments import configs, drawn, own, run

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_factorial_differs_in_what_it_says_and_the_published_nets_in_four_things():
    nets = {name: presets.get(arm.preset) for name, arm in cifar_lrn.ARMS.items()}
    for plain, normalized in cifar_lrn.PAIRS:
        assert nets[plain].recipe == nets[normalized].recipe
        differing = [a.name for a, b in zip(nets[plain].layers, nets[normalized].layers) if a != b]
        assert differing == ["conv1", "conv2"]
    narrow, wide = nets["without"].layers, nets["without, 64"].layers
    assert [a.name for a, b in zip(narrow, wide) if a != b] == ["local3"]
    published, normalized = nets["13 % net"], nets["11 % net"]
    assert published.layers == narrow
    assert normalized.layers[:4] == nets["with, 64"].layers[:4]
    assert normalized.layer("fc10").decay == 0.01 and published.layer("fc10").decay is None
    assert (published.recipe.cycles, normalized.recipe.cycles) == (160, 520)
    norm = next(op for op in normalized.layers[0].then if isinstance(op, presets.LRN))
    assert (norm.size, norm.alpha, norm.beta, norm.k) == (9, pytest.approx(0.001 / 9), 0.75, 1)


def test_all_arms_are_trained_at_the_lengths_of_the_profile(packs32, serial, shared_runs):
    settings = {"arms": ["without", "with", "13 % net"], "epochs": 1, "width": 1 / 8}
    profile = own(packs32, cifar_lrn=settings | {"published": {"13 % net": 2}})
    metrics = run(cifar_lrn, profile, [0, 1])
    assert metrics["split"] == "test" and metrics["train_images"] == 40
    assert metrics["epochs"] == {"without": 1, "with": 1, "13 % net": 2}
    assert {config["image_size"] for config in configs(profile) if "cifar" in config["preset"]} == {
        24
    }
    made = {"metrics": metrics}
    before, after = (cifar_lrn.errors(made, arm) for arm in ("without", "with"))
    mean = sum(after) / 2 - sum(before) / 2
    shown = cifar_lrn.table(made)
    assert f"normalization, local3 of 32 maps, ten views: {mean:+.1f} points" in shown
    assert "the 13 % net as published" in shown and "local3 of 64 maps, ten" not in shown
    drawn(cifar_lrn.plot, made)
