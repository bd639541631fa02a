"""A run's settings: their words, its identity, and the numbers that say when the version rises."""

from dataclasses import asdict, replace

import pytest
import torch

from alexnet import rng
from alexnet.data.pack import open_splits
from alexnet.data.pack_writer import PackWriter
from alexnet.errors import InputError
from alexnet.training import VERSION, Config, log, train
from tests.runs import configure

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("precision", "'fp32' or 'tf32' or 'bf16' or 'fp64'"),
        ("mode", "'plain' or 'graph' or 'compiled' or 'compiled-graph'"),
    ],
)
def test_a_word_that_is_none_is_refused_with_those_that_there_are(splits, field, words):
    with pytest.raises(InputError, match=f"{field} is 'quick'; it must be {words}"):
        configure(splits, **{field: "quick"})


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("image_size", -1, "1 or more"),
        ("batch_size", 0, "1 or more"),
        ("epochs", float("inf"), "0 or more, and finite"),
        ("width", 0.0, "above 0, and finite"),
        ("rate", float("nan"), "0 or more, and finite or None"),
        ("seed", 1.5, "a whole number"),
        ("preset", "paperr", "there is no preset 'paperr'"),
        ("preset", "paper/no-lnr", "there is no variant 'no-lnr'"),
    ],
)
def test_a_number_or_preset_that_cannot_be_is_refused(splits, field, value, said):
    with pytest.raises(InputError, match=said):
        configure(splits, **{field: value})


def test_identity_follows_every_field_and_ignores_defaults(splits):
    config = configure(splits)
    changes = [
        {"preset": "source"},
        {"num_classes": 9},
        {"width": 0.5},
        {"image_size": 63},
        {"epochs": 4.0},
        {"data": {}},
    ]
    changes += [
        {"batch_size": 9},
        {"rate": 0.1},
        {"seed": 3},
        {"stop_at_train_error": 0.1},
        {"precision": "bf16"},
        {"start": "0" * 64},
        {"stop_at_loss": 1.5},
        {"imported": "0" * 64},
        {"frozen": "conv1"},
    ]
    changes += [{"mode": "graph"}, {"version": config.version + 1}]
    assert (
        len({replace(config, **change).identity for change in changes} | {config.identity})
        == len(changes) + 1
    )
    # the table's digest follows from the preset: tests/test_recorded.py
    assert set().union(*changes) == set(asdict(config)) - {"table"}
    assert replace(config, seed=0, rate=None).identity == config.identity


def test_a_given_rate_keeps_the_biases_ratio(splits):
    recipe = configure(splits, "source", rate=0.003).recipe
    assert recipe.rate == 0.003 and recipe.bias_rate == pytest.approx(0.006)


# Losses of four steps (two epochs of 12 images, by eights and fours) with everything on: initial
# weights, order, crops, color, dropout, momentum.
GUARD = {
    "paper/constant-rate": [1.00962, 1.30278, 1.16281, 1.26577],
    "source": [0.8942, 1.43773, 1.24054, 1.35428],
    "four-layer": [1.09802, 1.1445, 1.25042, 0.89734],
}


@pytest.mark.parametrize("preset", GUARD)
def test_the_version_is_raised_with_any_change_to_trained_weights(preset, tmp_path):
    pixels = rng.uniform(rng.key(123, torch.arange(12)), 72 * 72 * 3).reshape(12, 72, 72, 3)
    coarse = (
        pixels[:, ::12, ::12].repeat_interleave(12, 1).repeat_interleave(12, 2)
    )  # blocks: smooth enough for a crop to matter
    (tmp_path / "pack").mkdir()
    writer = PackWriter(tmp_path / "pack", 72)
    writer.append((coarse * 256).to(torch.uint8).numpy(), [i % 3 for i in range(12)])
    writer.finish(["a", "b", "c"], ["a", "b", "c"])
    pack = {"train": open_splits(tmp_path / "pack")["train"]}
    size = 72 if preset == "four-layer" else 64
    config = Config(
        preset=preset,
        num_classes=3,
        width=1 / 8,
        image_size=size,
        epochs=2.0,
        data={},
        batch_size=8,
        rate=0.003,
        seed=5,
    )
    train(config, pack, tmp_path / "run", progress=False)
    losses = [row["loss"] for row in log.read(tmp_path / "run", "step")]
    assert VERSION == 1 and losses == pytest.approx(GUARD[preset], abs=1e-4), (
        "training gives other weights than it did: if that is meant, raise VERSION, so that "
        "trained models are not mistaken for what would be trained now, and store "
        f"{[round(loss, 5) for loss in losses]} here"
    )
