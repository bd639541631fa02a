"""Experiments: run once and remembered, models trained in worker processes, and the arithmetic between logs and figures by hand-made
cases."""

import json
import math
import os
import re
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from scipy import stats

from alexnet import claims, experiments, presets, profiles, results, training
from alexnet.data.pack import open_splits
from alexnet.errors import InputError
from alexnet.experiments import (
    ablations,
    cifar_lrn,
    figure1,
    figure1_factors,
    live,
    models,
    page,
    permuted,
    recipe,
    throughput,
)
from alexnet.training import checkpoint, log
from tests.experiments import drawn, own, train_here

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(results, "ARCHIVE", tmp_path / "archive")
    return tmp_path / "runs"


@pytest.fixture
def serial(monkeypatch):
    monkeypatch.setattr(models, "train_planned", train_here)


def test_what_is_to_be_trained_is_foretold_and_trained_in_one_go(packs72, serial, capsys):
    profile = own(
        packs72, ablations={"sample": 20, "arms": ["full", "no-lrn"]}, figure3={}, devices={}, base="paper/sigma-0.03", epochs=1,
        image_size=64, width=1 / 16, batch_size=12,
    )  # fmt: skip
    experiments.train_ahead(["figure3", "ablations", "devices"], profile, [0])
    assert re.fullmatch(
        r"2 models to train: 0\.00 million images, about \d+ seconds on \d+ cores\n",
        capsys.readouterr().out,
    )
    experiments.train_ahead(["figure3", "ablations"], profile, [0])
    assert capsys.readouterr().out == "all 2 models are there already\n"
    experiments.train_ahead(["figure3"], profile, [0, 1])
    assert capsys.readouterr().out.startswith("1 model to train, 1 there already: ")


def test_what_hangs_on_other_nets_is_trained_ahead_too(packs32, serial, monkeypatch):
    monkeypatch.setattr(models, "forecast", lambda *_: "")
    profile = own(
        packs32,
        figure1={
            "rates": {"ReLU": [0.001, 0.01], "tanh": [0.01]},
            "sweep_epochs": 1,
            "epochs": 2,
            "threshold": 0.3,
        },
    )
    experiments.train_ahead(["figure1"], profile, [0, 1])

    def there():
        return {path.parent.name for path in profile.runs.glob("models/*/summary.json")}

    ahead = there()
    assert len(ahead) == 3 + 4  # of the sweep; of two kinds and two seeds
    figure1.run(profile, [0, 1])
    assert there() == ahead


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3, "3 seconds"),
        (119, "119 seconds"),
        (600, "10 minutes"),
        (3 * 3600 + 120, "3 hours 2 minutes"),
        (200_000, "2 days 8 hours"),
    ],
)
def test_durations_in_words(seconds, words):
    assert models.duration(seconds) == words


# --- remembering --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch, packs32):
    """An experiment that counts its runs, as figure1."""
    settings = {"budget": 3}
    calls = []

    def run(profile, seeds):
        calls.append(seeds)
        return {"error": 0.25, "images": 8, "by_seed": {str(seed): seed for seed in seeds}}

    fake = SimpleNamespace(config=lambda profile: dict(settings), run=run)
    monkeypatch.setattr(experiments, "module", lambda name: fake)
    monkeypatch.setattr(profiles, "load", lambda name: own(packs32, figure1=settings))
    return SimpleNamespace(calls=calls, settings=settings)


def test_a_result_is_remembered_and_not_run_again(counted, runs, packs32):
    first = experiments.result("figure1", "own", [0, 1])
    assert (
        experiments.result("figure1", "own", (0, 1))
        == first
        == json.loads((runs / "own" / "results" / "figure1.json").read_text())
    )
    assert counted.calls == [[0, 1]]
    assert first.keys() == {
        "experiment",
        "profile",
        "config",
        "config_hash",
        "seeds",
        "metrics",
        "data",
        "provenance",
    }
    assert first["metrics"] == {"error": 0.25, "images": 8, "by_seed": {"0": 0, "1": 1}}
    assert first["config"] == {"budget": 3, "training_version": training.VERSION}
    assert (
        first["data"]["title"] == "shapes"
        and first["data"]["digests"]["test"] == open_splits(packs32)["test"].digest
    )


def test_other_seeds_or_settings_are_run_again(counted):
    experiments.result("figure1", "own")
    experiments.result("figure1", "own", [1])
    counted.settings["budget"] = 4
    experiments.result("figure1", "own", [1])
    experiments.result("figure1", "own", [1])
    assert counted.calls == [[0], [1], [1]]


def test_the_archive_is_shown_and_never_trained_for(counted):
    assert experiments.show("figure1", "archive", "own") is None
    experiments.result("figure1", "own", archive=True)
    assert len(counted.calls) == 1
    found = experiments.show("figure1", "archive", "own", seeds=(5, 6))
    assert found is not None and found["seeds"] == [0] and len(counted.calls) == 1
    assert experiments.show("figure1", "archive", "another") is None
    assert experiments.show("figure1", "own", seeds=[7])["seeds"] == [7] and counted.calls[1:] == [
        [7]
    ]


def test_a_remembered_result_reaches_the_archive_without_a_run(counted, tmp_path):
    experiments.result("figure1", "own")
    experiments.result("figure1", "own", archive=True)
    assert len(counted.calls) == 1 and (tmp_path / "archive" / "own" / "figure1.json").exists()


def test_the_archive_grows_by_seeds_and_keeps_those_that_it_has(counted, tmp_path):
    experiments.result("figure1", "own", range(2), archive=True)
    grown = experiments.result("figure1", "own", range(5), archive=True)
    assert counted.calls == [[0, 1], [2, 3, 4]] and grown["seeds"] == [0, 1, 2, 3, 4]
    assert grown == json.loads((tmp_path / "archive" / "own" / "figure1.json").read_text())
    assert grown["metrics"]["by_seed"] == {str(seed): seed for seed in range(5)}
    assert [one["seeds"] for one in grown["provenance"]["earlier"]] == [[0, 1]]
    assert (
        experiments.result("figure1", "own", range(3), archive=True) == grown
    )  # none of it again, and nothing lost
    assert experiments.result("figure1", "own", range(5)) == grown and len(counted.calls) == 2
    assert experiments.result("figure1", "own", [7], archive=True)["seeds"] == [
        0,
        1,
        2,
        3,
        4,
        7,
    ]  # others of the same config stay
    counted.settings["budget"] = 4
    assert experiments.result("figure1", "own", archive=True)["seeds"] == [0] and counted.calls[
        3:
    ] == [[0]]


def test_an_unknown_experiment_lists_what_there_is():
    with pytest.raises(
        InputError, match=f"no experiment 'figure9'; there are {', '.join(experiments.NAMES)}"
    ):
        experiments.module("figure9")
    for name in experiments.NAMES:
        module = experiments.module(name)
        assert callable(module.config) and callable(module.run) and callable(module.plot)


def test_a_profile_that_cannot_serve_says_so(packs32):
    for name in experiments.NAMES:
        with pytest.raises(InputError, match=f"'own' has no settings for '{name}'"):
            experiments.module(name).config(own(packs32))


def test_the_archive_was_made_with_the_profiles_settings():
    archive = Path(__file__).resolve().parents[1] / "results"
    found = [json.loads(path.read_text()) for path in sorted(archive.glob("*/*.json"))]
    found = [
        one for one in found if one["experiment"] in experiments.NAMES
    ]  # the rest was not made by a profile
    assert found
    for one in found:
        assert (
            one["config"][one["experiment"]] == profiles.load(one["profile"])[one["experiment"]]
        ), f"{one['profile']}: run it again"


# --- models -------------------------------------------------------------------------------------------------------------------------------


def test_models_are_trained_in_workers_stopped_resumed_and_left_alone_when_there(
    packs32, tmp_path, monkeypatch, capfd
):
    profile = own(packs32, batch_size=1)
    packs = {"train": profile.splits()["train"]}
    fields = {"splits": packs, "epochs": 8.0, "width": 0.25, "image_size": 32, "rate": 1e-4}
    configs = [models.configure(profile, "four-layer", seed=seed, **fields) for seed in (0, 1)]
    configs.append(models.change(configs[0], epochs=1 / 40))
    folders = [profile.runs / "models" / config.identity for config in configs]

    def interrupt():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not any(
            checkpoint.steps(folder / "checkpoints") for folder in folders
        ):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    before = threading.Thread(target=interrupt)
    before.start()
    monkeypatch.setattr(models, "cores", lambda: 2)
    with pytest.raises(KeyboardInterrupt):
        models.train_all(profile, configs)
    before.join()
    begun = [folder for folder in folders if (folder / "config.json").exists()]
    assert begun and not any((folder / "summary.json").exists() for folder in folders)
    for folder in begun:  # all that was done is kept
        last = checkpoint.steps(folder / "checkpoints")[-1]
        assert checkpoint.load(last)[1]["step"] == len(list(log.read(folder, "step"))) > 0

    monkeypatch.setattr(models, "cores", lambda: 1)
    assert models.train_all(profile, configs) == folders
    for config, folder in zip(configs, folders, strict=True):
        assert models.summary(folder)["steps"] == (1 if config.epochs < 1 else 320)
        assert not any(
            "val_top1" in row for row in log.read(folder, "epoch")
        )  # the config names no validation set
    training.train(configs[1], packs, tmp_path / "here", progress=False)
    assert (tmp_path / "here" / "weights.safetensors").read_bytes() == (
        folders[1] / "weights.safetensors"
    ).read_bytes()

    capfd.readouterr()
    assert models.train_all(profile, configs[::-1]) == folders[::-1]
    assert capfd.readouterr() == ("", "")


def test_a_config_takes_what_the_profile_says_unless_told_otherwise(packs72):
    profile = own(packs72, image_size=64, width=0.25, batch_size=16)
    config = models.configure(profile, "paper", epochs=2.0, seed=3)
    assert (
        config.image_size,
        config.width,
        config.batch_size,
        config.num_classes,
        config.seed,
    ) == (64, 0.25, 16, 3, 3)
    assert config.data == {
        name: pack.digest for name, pack in profile.splits().items() if name != "test"
    }
    assert models.configure(profile, "paper", epochs=2.0, width=0.5).width == 0.5
    assert models.configure(own(packs72, image_size=64), "paper", epochs=2.0).width == 1.0
    assert models.folder(profile, config) == profile.runs / "models" / config.identity


# --- figure 1 -----------------------------------------------------------------------------------------------------------------------------


def test_arrival_is_the_first_epoch_at_or_below():
    assert figure1.arrival([0.9, 0.5, 0.25, 0.1], 0.25) == 3
    assert figure1.arrival([0.2], 0.25) == 1
    assert figure1.arrival([0.9, 0.26], 0.25) is None and figure1.arrival([], 0.25) is None


def test_the_late_loss_is_of_the_last_quarter(tmp_path):
    writer = log.Log(tmp_path)
    for step, loss in enumerate([9, 9, 9, 9, 9, 9, 1, 2], 1):
        writer.add("step", step, loss=float(loss))
    writer.close()
    (tmp_path / "summary.json").write_text('{"ended": "budget"}')
    assert figure1.late_loss(tmp_path) == 1.5
    (tmp_path / "summary.json").write_text('{"ended": "diverged"}')
    assert figure1.late_loss(tmp_path) == math.inf


def test_figure1_takes_the_rate_with_the_lowest_loss(packs32, serial):
    rates = {"ReLU": [0.0001, 0.001, 1e12], "tanh": [0.001, 0.003], "logistic": [0.01]}
    settings = {"rates": rates, "sweep_epochs": 4, "epochs": 5, "threshold": 0.3}
    metrics = figure1.run(own(packs32, figure1=settings), [0, 1])
    assert metrics["images"] == 40 and metrics["threshold"] == 0.3
    assert {
        kind: [float(rate) for rate in net["sweep"]] for kind, net in metrics["nets"].items()
    } == rates
    for net in metrics["nets"].values():
        finite = {float(rate): loss for rate, loss in net["sweep"].items() if loss is not None}
        assert net["rate"] == min(finite, key=finite.get)
        assert net["error_by_epoch"].keys() == net["epochs_to_threshold"].keys() == {"0", "1"}
        for seed, curve in net["error_by_epoch"].items():
            assert 1 <= len(curve) <= 5 and net["epochs_to_threshold"][seed] == figure1.arrival(
                curve, 0.3
            )
    assert (
        metrics["nets"]["ReLU"]["sweep"]["1000000000000.0"] is None
    )  # diverged; JSON has no infinity
    json.dumps(metrics, allow_nan=False)
    drawn(figure1.plot, {"metrics": metrics})
    del rates["logistic"]  # what has no rates is left out
    assert figure1.run(own(packs32, figure1=settings), [0])["nets"].keys() == {"ReLU", "tanh"}


# --- throughput ---------------------------------------------------------------------------------------------------------------------------


def test_throughput_times_the_same_steps_with_augmentation_and_without(
    packs72, serial, monkeypatch
):
    profile = own(
        packs72,
        throughput={"steps": 2, "rounds": 3},
        base="paper",
        epochs=1,
        image_size=64,
        width=1 / 16,
        batch_size=12,
    )
    done, take = [], throughput.Learner.backward
    monkeypatch.setattr(
        throughput.Learner,
        "backward",
        lambda self, x, *rest: done.append(x.clone()) or take(self, x, *rest),
    )
    metrics = throughput.run(profile, [0, 1])
    json.dumps(metrics, allow_nan=False)
    assert (metrics["rounds"], metrics["steps"], metrics["batch_size"], len(done)) == (
        6,
        2,
        12,
        7 * 2 * 2,
    )
    assert (
        len({tuple(x.flatten()[:50].tolist()) for x in done}) == 1 + 7 * 2
    )  # one batch that stays, all others new
    for kind, (least, most) in metrics["spread"].items():
        assert 0 < least <= metrics["images_per_second"][kind] <= most
    rate = metrics["images_per_second"]
    assert throughput.table({"metrics": metrics}).endswith(
        f"{rate['augmented'] / rate['same batch']:.2f}"
    )
    drawn(throughput.plot, {"metrics": metrics})


# --- with normalization and without -------------------------------------------------------------------------------------------------------


def test_the_small_nets_differ_in_normalization_alone_and_each_has_its_best_rate(packs32, serial):
    plain, normalized = (presets.get(name) for name in cifar_lrn.ARMS.values())
    assert (
        plain.recipe == normalized.recipe
        and plain.recipe.crops == "random"
        and plain.recipe.weight_decay == 5e-4
    )
    assert [row.then for row in normalized.layers[:2]] == [
        (presets.RELU, presets.LRN(), presets.POOL)
    ] * 2
    assert (
        presets.get("four-layer/regularized/lrn/no-lrn").layers
        == plain.layers
        == presets.get("four-layer").layers
    )

    settings = {"image_size": 28, "rates": [0.0001, 0.001], "sweep_epochs": 4, "epochs": 2}
    metrics = cifar_lrn.run(own(packs32, cifar_lrn=settings), [0, 1])
    json.dumps(metrics, allow_nan=False)
    assert metrics["split"] == "test" and metrics["train_images"] == 40
    for arm, by_rate in metrics["sweep"].items():
        assert metrics["rates"][arm] == float(min(by_rate, key=by_rate.get)) and set(by_rate) == {
            "0.0001",
            "0.001",
        }
        assert metrics["nets"][arm].keys() == {"0", "1"} and metrics["nets"][arm]["0"][
            "views"
        ].keys() == {"1", "10"}
    made = {"metrics": metrics}
    own_errors, others = (cifar_lrn.errors(made, arm) for arm in ("with", "without"))
    apart = "  ".join(f"{100 * (own_errors[seed] - others[seed]):+.1f}" for seed in ("0", "1"))
    assert f"one view, seed by seed, percentage points (the paper: -2): {apart}" in cifar_lrn.table(
        made
    )
    drawn(cifar_lrn.plot, made)


# --- figure 1's factor --------------------------------------------------------------------------------------------------------------------


def test_arrival_to_a_step_is_of_the_last_epochs_mean():
    assert figure1_factors.arrival([0.9, 0.7, 0.5, 0.3, 0.1], 0.4, window=2) == 2.0
    assert figure1_factors.arrival([0.9, 0.7, 0.5, 0.3, 0.1], 0.3, window=2) == 2.5
    assert figure1_factors.arrival([0.1] * 4, 0.4, window=4) == 1.0  # not before an epoch is over
    assert (
        figure1_factors.arrival([0.9] * 9, 0.4, window=2) is None
        and figure1_factors.arrival([], 0.4, window=2) is None
    )


def test_the_best_rate_is_the_one_that_arrives_first_and_bounds_are_said():
    by_rate = {
        "0.01": {"0": None, "1": 8.0},
        "0.001": {"0": 4.0, "1": 5.0},
        "0.0001": {"0": None, "1": None},
    }
    assert figure1_factors.best(by_rate, 8) == "0.001" and figure1_factors.mean(
        by_rate["0.001"], 8
    ) == (4.5, False)
    assert figure1_factors.best({rate: {"0": None} for rate in ("0.01", "0.001")}, 8) == "0.001"
    assert (
        figure1_factors.best({"0.001": {"0": None}, "0.01": {"0": 8.0}}, 8) == "0.01"
    )  # at the very end, but there
    assert figure1_factors.mean(by_rate["0.01"], 8) == (8.0, True)
    pairs = (
        ((4, 0), (6, 0)),
        ((4.1, 0), (7.7, 1)),
        ((7.7, 1), (4.1, 0)),
        ((7.5, 3), (7, 1)),
        ((8, 5), (8, 5)),
    )
    said = [
        "1.5",
        "more than 1.8",
        "less than 0.6",
        "of 5 seeds 2 with ReLU, 4 with tanh",
        "neither arrives",
    ]
    assert [figure1_factors.factor(*pair, seeds=5) for pair in pairs] == said


def test_the_factors_are_of_every_net_at_every_rate_and_the_order_is_the_same_function(
    packs32, serial
):
    settings = {
        "width": 0.25,
        "rates": {"ReLU": [0.001, 0.003], "tanh": [0.003]},
        "epochs": 2,
        "threshold": 0.7,
    }
    metrics = figure1_factors.run(own(packs32, figure1_factors=settings), [0])
    json.dumps(metrics, allow_nan=False)
    assert (
        metrics["epochs"].keys() == figure1_factors.NETS.keys() and metrics["order"]["ReLU"] == 0.0
    )
    assert 0 <= metrics["order"]["tanh"] < 1e-4  # tanh rounds, and ties where it saturates
    for kinds in metrics["epochs"].values():
        assert {kind: list(by_rate) for kind, by_rate in kinds.items()} == {
            "ReLU": ["0.001", "0.003"],
            "tanh": ["0.003"],
        }
        assert all(
            found["0"] is None or 0 < found["0"] <= 2
            for by_rate in kinds.values()
            for found in by_rate.values()
        )
    said = figure1_factors.table({"metrics": metrics})
    assert (
        all(name in said for name in figure1_factors.NETS)
        and said.count("rate: the same for both") == 1
    )
    arrived = any(
        by_rate["0.003"]["0"] is not None
        for by_rate in (kinds["tanh"] for kinds in metrics["epochs"].values())
    )
    assert ("0.003* " in said) == arrived  # the only rate of tanh; "any" where it did not do
    drawn(figure1_factors.plot, {"metrics": metrics})


# --- recipe -------------------------------------------------------------------------------------------------------------------------------


def test_means_over_windows():
    assert log.means([1.0, 3.0, 5.0, 7.0, 100.0], window=2) == [2.0, 6.0]
    assert log.means([1.0, 2.0, 3.0], window=3) == [2.0] and log.means([1.0], window=2) == []


def test_a_net_has_left_when_the_mean_of_a_window_has_fallen_far_enough():
    high, low = math.log(10), math.log(10) - 1
    assert (
        recipe.left_at([high] * 10 + [low] * 10, 10, window=5, drop=0.19) == 11
    )  # one low in five: a fall of 0.2
    assert recipe.left_at([high] * 10 + [low] * 10, 10, window=5, drop=0.21) == 12
    assert recipe.left_at([low] * 20, 10, window=5, drop=0.2) == 5  # not before a window is full
    assert recipe.left_at([high] * 100, 10, window=5, drop=0.2) is None
    assert (
        recipe.left_at([low] * 4, 10, window=5, drop=0.2) is None and recipe.left_at([], 10) is None
    )
    noisy = list(np.random.default_rng(0).normal(2.2, 0.3, 400))
    slow = next(
        (i for i in range(50, 401) if np.mean(noisy[i - 50 : i]) <= math.log(10) - 0.15), None
    )
    assert slow is not None and recipe.left_at(noisy, 10, window=50, drop=0.15) == slow


def test_the_recipe_runs_every_arm_and_only_two_have_a_fall(packs72, serial, monkeypatch):
    monkeypatch.setattr(recipe, "WINDOW", 2)
    monkeypatch.setattr(recipe, "AFTER", 1)
    profile = own(packs72, recipe={"epochs": 4}, image_size=64, width=1 / 16, batch_size=12)
    metrics = recipe.run(profile, [0])
    json.dumps(metrics, allow_nan=False)
    assert metrics["arms"].keys() == recipe.ARMS.keys() and (
        metrics["classes"],
        metrics["steps"],
        metrics["images"],
    ) == (3, 12, 36)
    trained = [
        json.loads(path.read_text()) for path in (profile.runs / "models").glob("*/config.json")
    ]
    assert sorted(config["preset"] for config in trained) == sorted(
        recipe.preset(arm) for arm in recipe.ARMS.values()
    )
    assert all(set(config["data"]) == {"train"} for config in trained)
    assert metrics["after_the_fall"].keys() == {"rate inside", "rate outside"}
    inside, outside, plain = (
        metrics["arms"][name]["loss"]["0"] for name in ("rate inside", "rate outside", "sigma-0.03")
    )
    assert inside[:4] == outside[:4] == plain[:4]  # until the fall
    assert metrics["arms"]["sigma-0.03"]["end"]["0"] == plain[-1]
    said = recipe.table({"metrics": metrics})
    assert all(arm.what in said for arm in recipe.ARMS.values())
    drawn(recipe.plot, {"metrics": metrics})


def test_a_profile_may_name_some_of_the_recipes_arms(packs72, serial):
    profile = own(
        packs72,
        recipe={"epochs": 1, "arms": ["source", "he-init"]},
        image_size=64,
        width=1 / 16,
        batch_size=12,
    )
    metrics = recipe.run(profile, [0])
    assert list(metrics["arms"]) == ["source", "he-init"] and metrics["steps"] == 3
    said = recipe.table({"metrics": metrics})
    assert (
        recipe.ARMS["source"].what in said and recipe.ARMS["text"].what not in said.splitlines()[1]
    )
    drawn(recipe.plot, {"metrics": metrics})
    with pytest.raises(InputError, match="recipe has no arm 'nosuch'; it has text, "):
        recipe.run(own(packs72, recipe={"epochs": 1, "arms": ["nosuch"]}), [0])


def test_the_recipes_table_says_who_trains_and_when():
    steps = {"steps": {"0": 628, "1": 628}}
    never = {
        "left_at_step": {"0": None, "1": None},
        "end": {"0": 3.69, "1": 3.7},
        "diverged_at": {"0": None, "1": None},
    } | steps
    arms = dict.fromkeys(recipe.ARMS, never)
    arms["source"] = {
        "left_at_step": {"0": 430, "1": None},
        "end": {"0": 3.1, "1": 3.7},
        "diverged_at": {"0": None, "1": None},
    } | steps
    arms["he-init"] = {
        "left_at_step": {"0": None, "1": None},
        "end": {"0": None, "1": 3.7},
        "diverged_at": {"0": 7, "1": None},
    } | steps
    arms["text"] = never | {"steps": {"0": 3768, "1": 3768}}
    said = recipe.table(
        {
            "metrics": {
                "classes": 40,
                "steps": 628,
                "arms": arms,
                "after_the_fall": {"rate inside": {"0": 3.25}},
            }
        }
    )
    rows = {line.strip()[:20].strip(): line for line in said.splitlines()}
    assert (
        "0 of 2" in rows["the text: sigma 0.01"]
        and "not in 3,768  " in rows["the text: sigma 0.01"]
    )
    assert "1 of 2" in rows["all of the source's"] and " 430  " in rows["all of the source's"]
    assert rows["all of the source's"].endswith(" 3.10 to 3.70")
    assert "diverges at 7  " in rows["He's first weights"] and rows["He's first weights"].endswith(
        " 3.70"
    )
    assert "not in 628  " in rows["pixels in 0..1"]
    assert "0.2 nats below ln 40 = 3.69 nats, within 628 steps" in said
    assert "rate inside the velocity, mean loss of the 20 steps after the fall: 3.250" in said


# --- ablations ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(2, 14))
def test_intervals_are_students(n):
    values = list(np.random.default_rng(n).normal(3, 2, n))
    mean, half = claims.mean_interval(values)
    low, high = stats.t.interval(0.95, n - 1, np.mean(values), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-9)
    assert claims.mean_interval([1.5]) == (1.5, math.inf)


def ablated(**top1):
    """A result whose nets have these errors from one view, by seed; from ten a tenth less."""
    nets, others = {}, {kind: {} for kind in ("train_error", "overfitting", "iterations")}
    for arm, values in top1.items():
        arm = arm.replace("_", "-")
        nets[arm] = {
            str(i): {"views": {"1": {"top1": e, "top5": e / 2}, "10": {"top1": e - 0.1, "top5": 0}}}
            for i, e in enumerate(values)
        }
        for kind, value in (("train_error", 0.25), ("overfitting", 0.125), ("iterations", 1000)):
            others[kind][arm] = {str(i): value for i in range(len(values))}
    return {"metrics": {"nets": nets, "definitions": ablations.DEFINITIONS, **others}}


def test_differences_are_seed_by_seed_in_percentage_points():
    result = ablated(full=(0.4, 0.5), no_lrn=(0.43, 0.49), source=(0.41,))
    assert ablations.differences(result, "no-lrn") == pytest.approx([3.0, -1.0])
    assert ablations.differences(result, "no-lrn", views=1) == pytest.approx([3.0, -1.0])
    assert ablations.differences(result, "no-lrn", views=1, what="top5") == pytest.approx(
        [1.5, -0.5]
    )
    assert ablations.differences(result, "source") == pytest.approx(
        [1.0]
    )  # the seeds that both have
    assert ablations.differences(result, "no-conv2") == []
    assert ablations.gains(result) == pytest.approx([-10.0, -10.0])


def test_the_same_seeds_on_two_processors_are_compared_after_the_last_epoch_that_both_have():
    def on(processor, **arms):
        errors = {name.replace("_", "-"): by_seed for name, by_seed in arms.items()}
        return {
            "metrics": {"val_error": errors},
            "provenance": {"hardware": {"processor": processor}},
        }

    here = on(
        "A", full={"0": [0.9, 0.5], "1": [0.9, 0.7]}, no_lrn={"0": [0.9, 0.6], "1": [0.9, 0.7]}
    )
    there = on(
        "B",
        full={"0": [0.9, 0.4, 0.1]},
        no_lrn={"0": [0.9, 0.38, 0.2]},
        no_conv2={"0": [0.9, 0.5, 0.4]},
    )
    text = str(ablations.again(here, there))
    assert (
        "validation error after epoch 2" in text and "without conv2" not in text
    )  # an arm that one of them lacks
    (full,) = (line for line in text.splitlines() if line.startswith("the full net"))
    (without,) = (line for line in text.splitlines() if "without response normalization" in line)
    assert "60.0 ± " in full and full.rstrip().endswith("40.0 %")
    assert "+5.0 ± 63.5" in without and without.rstrip().endswith(
        "-2.0"
    )  # a single seed has no interval


def test_the_ablations_table_and_figure_show_what_was_run_beside_the_paper():
    result = ablated(full=(0.4, 0.5, 0.45), no_lrn=(0.414, 0.516, 0.46))
    rows = {
        line.split("  ")[1] if line.startswith("  ") else line.split("  ")[0]: line
        for line in ablations.table(result).splitlines()
    }
    mean, half = claims.mean_interval([1.4, 1.6, 1.0])
    assert (
        f"+1.4                     {mean:+.1f} ± {half:.1f}"
        in rows["without response normalization (3.3)"]
    )
    assert rows["without response normalization (3.3)"].endswith("+1.4  +1.6  +1.0")
    assert rows["pooling without overlap (3.4)"].endswith("not yet run")
    assert "-1.5" in rows["ten views against one, of the full net (4.1)"]
    said = ablations.learning(result, ("no-lrn", "no-conv2")).splitlines()
    assert (
        said[1].split()
        == ["without", "response", "normalization", "25.0%", "37.5%", "+12.5", "1,000"]
        and "conv2" not in said[2]
    )
    drawn(ablations.plot, result)
    drawn(ablations.plot, ablated(full=(0.4,), no_lrn=(0.414,)))  # one seed has no interval


def test_a_run_has_converged_when_it_is_near_its_best():
    assert (
        ablations.iterations([10, 20, 30, 40], [0.9, 0.54, 0.5, 0.52]) == 20
    )  # 8 % above the lowest
    assert ablations.iterations([10, 20, 30, 40], [0.9, 0.56, 0.5, 0.52]) == 30
    assert ablations.iterations([10, 20], [0.0, 0.0]) == 10 and ablations.iterations([], []) is None
    assert ablations.iterations([10, 20, 30], [0.9, 0.56, 0.5], near=0.2) == 20


def test_the_training_error_is_of_a_fixed_sample_in_evaluation_mode(packs72):
    assert ablations.spread(10, 4).tolist() == [0, 3, 6, 9] and ablations.spread(
        3, 2000
    ).tolist() == [0, 1, 2]
    pack = open_splits(packs72)["train"]
    config = models.configure(
        own(packs72, image_size=64, width=1 / 16), "paper/sigma-0.03", epochs=1
    )
    net, augment = config.network().eval(), ablations.Augment(config.recipe, pack.mean, 64)
    ids = ablations.spread(len(pack), 12)
    (view,) = augment.views(torch.from_numpy(pack.gather(ids)))
    with torch.no_grad():
        wrong = (net(view).argmax(1).numpy() != pack.labels[ids]).mean()
    assert ablations.error_on(net, pack, augment, ids) == pytest.approx(wrong)


def test_ablations_measure_every_arm_on_one_budget(packs72, serial):
    profile = own(
        packs72,
        ablations={"sample": 20},
        base="paper/sigma-0.03",
        epochs=2,
        image_size=64,
        width=1 / 16,
        batch_size=12,
    )
    metrics = ablations.run(profile, [0])
    json.dumps(metrics, allow_nan=False)
    assert (metrics["images"], metrics["train_images"], metrics["sample"], metrics["classes"]) == (
        6,
        36,
        20,
        3,
    )
    for kind in ("nets", "train_error", "overfitting", "iterations", "val_error", "loss"):
        assert metrics[kind].keys() == ablations.ARMS.keys(), kind
    for arm, net in metrics["nets"].items():
        assert net["0"]["views"].keys() == {"1", "10"} and all(
            0 <= view["top1"] <= 1 for view in net["0"]["views"].values()
        )
        assert metrics["overfitting"][arm]["0"] == pytest.approx(
            net["0"]["views"]["1"]["top1"] - metrics["train_error"][arm]["0"]
        )
        assert (
            metrics["iterations"][arm]["0"] in (3, 6) and len(metrics["val_error"][arm]["0"]) == 2
        )
    trained = [
        json.loads(path.read_text()) for path in (profile.runs / "models").glob("*/config.json")
    ]
    assert len({config["preset"] for config in trained}) == len(ablations.ARMS) and {
        config["epochs"] for config in trained
    } == {2}
    assert models.folder(
        profile, models.base(profile)
    ).is_dir()  # the full net is the one that other experiments share
    few = own(
        packs72,
        ablations={"sample": 20, "arms": ["full", "no-lrn"]},
        base="paper/sigma-0.03",
        epochs=2,
        image_size=64,
        width=1 / 16,
    )
    assert ablations.arms(few) == ablations.config(few)["arms"] == ["full", "no-lrn"]


# --- permuted -----------------------------------------------------------------------------------------------------------------------------


def test_a_permutation_moves_pixels_and_nothing_else(packs32):
    images = open_splits(packs32)["test"].gather(range(8))
    moved = permuted.permute(images)
    assert moved.dtype == np.uint8 and not np.array_equal(moved, images)
    for image, other in zip(images, moved, strict=True):
        assert sorted(map(tuple, image.reshape(-1, 3))) == sorted(map(tuple, other.reshape(-1, 3)))
    back = np.argsort(permuted.order(32))
    assert np.array_equal(moved.reshape(8, -1, 3)[:, back].reshape(images.shape), images)
    assert sorted(permuted.order(5)) == list(range(25)) and permuted.order(3).tolist() == [
        5,
        2,
        1,
        8,
        7,
        4,
        0,
        6,
        3,
    ]
    assert permuted.neighbors(images) > 0.8 and abs(permuted.neighbors(moved)) < 0.05
    ramp = np.arange(8, dtype=np.uint8)[None, :, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    assert permuted.neighbors(ramp) == pytest.approx(1.0)


def test_permuted_trains_both_arms_on_the_same_pixels(packs72, serial):
    settings = {
        "preset": "paper/sigma-0.03/constant-rate/no-crops",
        "width": 1 / 16,
        "batch_size": 12,
        "rate": 0.004,
        "epochs": 1,
    }
    profile = own(packs72, permuted=settings, image_size=64)
    metrics = permuted.run(profile, [0, 1])
    json.dumps(metrics, allow_nan=False)
    assert (metrics["classes"], metrics["images"], metrics["test_images"]) == (
        3,
        36,
        6,
    ) and metrics["arms"].keys() == permuted.ARMS.keys()
    plain, moved = (
        open_splits(packs72),
        open_splits(next((profile.runs / "data").glob("permuted-*"))),
    )
    assert np.array_equal(
        moved["train"].gather(range(36)), permuted.permute(plain["train"].gather(range(36)))
    )
    assert moved["test"].labels.tolist() == plain["test"].labels.tolist()
    data = [
        json.loads(path.read_text())["data"]["train"]
        for path in (profile.runs / "models").glob("*/config.json")
    ]
    assert sorted(data) == sorted([plain["train"].digest, moved["train"].digest] * 2)
    assert all(found["test_top1"].keys() == {"0", "1"} for found in metrics["arms"].values())
    assert (
        metrics["arms"]["as they are"]["neighbors"] > metrics["arms"]["permuted"]["neighbors"] + 0.7
    )


# --- live ---------------------------------------------------------------------------------------------------------------------------------


def test_a_band_is_the_seeds_range_widened_by_its_own_width():
    assert live.band([1.0, 1.5, 1.2]) == [0.5, 2.0]
    assert live.band([0.1, 0.4]) == [0.0, 0.7]  # no error is below 0
    assert live.band([0.3]) == [0.3, 0.3]


def test_a_live_value_is_held_to_the_archived_band(tmp_path):
    config = {"live": {"pictographs": {"classes": 5}}}  # chance: ln 5 = 1.609 nats, an error of 0.8
    bands = {"last": [0.5, 1.2], "one_view": [0.3, 0.9]}
    results.save(
        {"experiment": "live", "config": config, "metrics": {"bands": bands}},
        tmp_path / "archive" / "embedded",
    )
    assert [live.inside(value, "last") for value in (0.49, 0.5, 1.0, 1.2, 1.21)] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert [live.inside(value, "one_view") for value in (0.29, 0.3, 0.76, 0.77, 0.8)] == [
        False,
        True,
        True,
        False,
        False,
    ]


# --- figures ------------------------------------------------------------------------------------------------------------------------------


def test_figure1_is_drawn():
    net = {"rate": 0.003, "error_by_epoch": {"0": [0.7, 0.4, 0.2], "1": [0.72, 0.41, 0.22]}}
    drawn(
        figure1.plot,
        {
            "metrics": {
                "threshold": 0.25,
                "nets": {"ReLU": net, "tanh": net | {"error_by_epoch": {"0": [0.8]}}},
            }
        },
    )


def test_permuted_is_drawn():
    arms = {arm: {"loss": {"0": [2.3, 2.0, 1.0], "1": [2.3]}} for arm in permuted.ARMS}
    drawn(permuted.plot, {"metrics": {"classes": 10, "window": 50, "arms": arms}})


def test_a_live_loss_is_drawn():
    drawn(live.plot, {"loss": [1.6, 1.2, 0.7], "classes": 5})


# --- the net that runs in the pages -------------------------------------------------------------------------------------------------------


def test_a_net_of_eight_bits_is_the_net_to_half_a_step(packs72, serial):
    profile = own(
        packs72,
        page={"preset": "paper/sigma-0.03/constant-rate", "width": 1 / 16, "epochs": 1},
        image_size=64,
        batch_size=6,
    )
    metrics = page.run(profile, [3, 4])
    assert list(metrics["errors"]) == list(metrics["conv1"]["kernels"]) == ["3", "4"]
    assert json.loads(json.dumps(metrics)) == metrics
    (run,) = [
        each
        for each in (profile.runs / "models").iterdir()
        if json.loads((each / "config.json").read_text())["seed"] == 3
    ]
    full, augment, _ = training.load_run(run)
    coarse, center = page.network(metrics["net"])
    for name, weight in full.export_merged().items():
        step = (
            weight.abs().flatten(1).amax(1) / 127
            if name.endswith("weight")
            else weight.abs() * 1e-5
        )
        apart = (coarse.export_merged()[name] - weight).abs().reshape(len(weight), -1).amax(1)
        assert bool((apart <= 0.501 * step).all()), name
    images = torch.from_numpy(open_splits(packs72)["test"].gather(np.arange(2)))
    inputs = [next(iter(each.views(images))) for each in (augment, center)]
    assert float((inputs[0] - inputs[1]).abs().max()) <= 0.5  # the mean image in whole gray levels
    assert len(page.plot({"metrics": metrics}).axes) == 2 * 6
