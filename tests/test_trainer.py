"""Training runs: the same twice, the same after a kill, rates and decays as the recipe states them, and what a run's folder refuses."""

import fcntl
import itertools
import json
import math
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from alexnet import presets, rng
from alexnet.data.pack import open_splits
from alexnet.data.pack_writer import PackWriter
from alexnet.errors import InputError
from alexnet.training import checkpoint, learner, log, trainer
from alexnet.training.trainer import WEIGHTS, Config, Interrupted, load_run, train
from tests.survival import rows

pytestmark = pytest.mark.usefixtures("one_thread")


def configure(splits, preset="paper", **fields):
    data = {name: splits[name].digest for name in ("train", "val") if name in splits}
    size = {32: 32, 72: 64}[splits["train"].size]
    settings = {"width": 1 / 16, "image_size": size, "epochs": 3.0, "batch_size": 8} | fields
    return Config(preset=preset, num_classes=len(splits["train"].classes), data=data, **settings)


def small(splits, **fields):
    """The four-layer net: milliseconds a step."""
    return configure(splits, "four-layer", **({"width": 1 / 4} | fields))


def weights(folder):
    return (folder / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def splits(packs72):
    return open_splits(packs72)


@pytest.fixture(scope="module")
def splits32(packs32):
    return open_splits(packs32)


@pytest.fixture(scope="module")
def straight(splits, tmp_path_factory):
    """A run of 15 steps, 5 an epoch, that nothing disturbed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("straight") / "run"
    train(configure(splits), splits, out, progress=False)
    torch.set_num_threads(before)
    return out


def same(run, straight):
    assert weights(run) == weights(straight)
    assert rows(run) == rows(straight)
    took = [json.loads((folder / "summary.json").read_text()) for folder in (run, straight)]
    assert {**took[0], "seconds": 0} == {**took[1], "seconds": 0}


# --- one run ------------------------------------------------------------------------------------------------------------------------------


def test_one_seed_gives_the_same_weights_to_the_bit_and_another_does_not(
    splits, straight, tmp_path
):
    torch.rand(100)  # what was drawn before is of no matter
    train(configure(splits), splits, tmp_path / "again", progress=False)
    same(tmp_path / "again", straight)
    train(configure(splits, seed=1), splits, tmp_path / "other", progress=False)
    assert weights(tmp_path / "other") != weights(straight)


def test_a_run_leaves_what_the_layout_says(splits, straight):
    assert {path.name for path in straight.iterdir()} == {
        "config.json", "log.jsonl", "checkpoints", "weights.safetensors", "summary.json", "mean.npy", "classes.json", "tensorboard", "lock"
    }  # fmt: skip
    config = configure(splits)
    assert json.loads((straight / "config.json").read_text()) == asdict(config)
    steps, epochs = list(log.read(straight, "step")), list(log.read(straight, "epoch"))
    assert [row["step"] for row in steps] == list(range(1, 16)) and [
        row["step"] for row in epochs
    ] == [5, 10, 15]
    sizes = [8, 8, 8, 8, 4]  # of the batches of 36 images
    for epoch, row in enumerate(epochs):
        part = steps[5 * epoch : 5 * epoch + 5]
        assert row["loss"] == pytest.approx(
            sum(s["loss"] * n for s, n in zip(part, sizes, strict=True)) / 36
        )
        assert row["error"] == pytest.approx(
            sum(s["error"] * n for s, n in zip(part, sizes, strict=True)) / 36
        )
        assert 0 <= row["val_top1"] <= 1 and row["val_nll"] > 0
    summary = json.loads((straight / "summary.json").read_text())
    assert (summary["steps"], summary["epochs"], summary["ended"], summary["diverged_at"]) == (
        15,
        3.0,
        "budget",
        None,
    )
    merged = config.network().export_merged()
    assert {k: v.shape for k, v in load_file(straight / "weights.safetensors").items()} == {
        k: v.shape for k, v in merged.items()
    }


def test_a_budget_may_end_inside_an_epoch(splits32, tmp_path):
    summary = train(small(splits32, epochs=7 / 5), splits32, tmp_path / "run", progress=False)
    assert summary["steps"] == 7
    (whole, part) = log.read(tmp_path / "run", "epoch")
    losses = [row["loss"] for row in log.read(tmp_path / "run", "step")]
    assert part["epoch"] == 1.4 and part["loss"] == pytest.approx(sum(losses[5:]) / 2)
    assert whole["loss"] == pytest.approx(sum(losses[:5]) / 5)


def test_a_run_may_end_at_a_training_error_and_stays_ended_after_a_kill(splits32, tmp_path):
    config = small(splits32, stop_at_train_error=1.0)
    summary = train(config, splits32, tmp_path / "run", progress=False)
    assert (summary["ended"], summary["steps"]) == ("reached", 5)
    first = weights(tmp_path / "run")
    for name in (
        "summary.json",
        "weights.safetensors",
    ):  # killed between the last checkpoint and the end
        (tmp_path / "run" / name).unlink()
    again = train(config, splits32, tmp_path / "run", resume=True, progress=False)
    assert (again["ended"], again["steps"]) == ("reached", 5) and weights(tmp_path / "run") == first


def test_a_loss_that_is_not_finite_ends_the_run_and_is_told(splits32, tmp_path):
    summary = train(small(splits32, rate=1e9), splits32, tmp_path / "run", progress=False)
    rows = list(log.read(tmp_path / "run", "step"))
    assert (
        summary["ended"] == "diverged"
        and summary["diverged_at"] == len(rows) + 1 == summary["steps"] + 1
    )
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert (
        train(small(splits32, rate=1e9), splits32, tmp_path / "run", resume=True, progress=False)
        == summary
    )


@pytest.mark.parametrize(
    ("how", "every", "fields", "kept"),
    [
        ("in an epoch", 0.0, {}, 2),
        ("at its end", 300.0, {"batch_size": 40}, 2),
        ("at the very end", 300.0, {"epochs": 3 / 5}, None),
        ("asked to stop", 300.0, {}, None),
    ],
)
def test_no_checkpoint_holds_what_is_not_finite(
    splits32, tmp_path, monkeypatch, how, every, fields, kept
):
    """The third update makes a velocity infinite, and the loss was finite so far. The one checkpoint that is kept stays the one before."""

    def step(params, grads, velocities, *rest):
        real(params, grads, velocities, *rest)
        if next(calls) == 3:
            velocities[0].fill_(torch.inf)

    def on_steps(taken):
        steps.append(taken)
        if how == "asked to stop" and sum(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    real, calls, steps = learner.momentum_step_, itertools.count(1), []
    monkeypatch.setattr(learner, "momentum_step_", step)
    summary = train(
        small(splits32, **fields),
        splits32,
        tmp_path / "run",
        keep=1,
        every=every,
        progress=False,
        on_steps=on_steps,
    )
    assert (summary["ended"], summary["steps"], summary["diverged_at"]) == ("diverged", 3, 4)
    assert [path.name for path in checkpoint.steps(tmp_path / "run" / "checkpoints")] == (
        [f"step-{kept:09d}"] if kept else []
    )


def test_plateau_wants_a_validation_set(splits, tmp_path):
    train_only = {"train": splits["train"]}
    with pytest.raises(InputError, match=r"without a val split.*constant-rate"):
        train(configure(splits), train_only, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    summary = train(
        configure(splits, "paper/constant-rate", epochs=1 / 5),
        train_only,
        tmp_path / "run",
        progress=False,
    )
    assert summary["steps"] == 1


# --- rates --------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def spy(monkeypatch):
    """Every call of the update rule: parameters before and after, gradients, rates, momentum."""
    calls = []

    def step(params, grads, velocities, lr, momentum, decay):
        before = [p.detach().clone() for p in params]
        real(params, grads, velocities, lr, momentum, decay)
        after = [p.detach().clone() for p in params]
        calls.append(
            {
                "before": before,
                "after": after,
                "grads": [g.clone() for g in grads],
                "rates": lr,
                "momentum": momentum,
            }
        )

    real = learner.momentum_step_
    monkeypatch.setattr(learner, "momentum_step_", step)
    return calls


def test_the_sources_biases_move_twice_as_fast_and_decay_acts_on_weights_only(
    splits, spy, tmp_path
):
    config = configure(splits, "source", epochs=10.0, batch_size=36)
    names = [name for name, _ in config.network().named_parameters()]
    train(replace(config, epochs=10.0), splits, tmp_path / "run", progress=False)
    first = spy[0]
    assert first["momentum"] == 0.9
    for name, before, after, grad in zip(
        names, first["before"], first["after"], first["grads"], strict=True
    ):
        wanted = -0.02 * grad if name.endswith("bias") else -0.01 * grad - 0.01 * 5e-4 * before
        torch.testing.assert_close(after - before, wanted, rtol=1e-3, atol=1e-7)
    # one step an epoch; 93 logged epochs in 10: falls at 23, 51, 78; conv1 at 68, frozen at 72
    rates = {name: [call["rates"][i] for call in spy] for i, name in enumerate(names)}
    assert rates["columns.0.conv3.weight"] == pytest.approx(
        [1e-2] * 3 + [1e-3] * 3 + [1e-4] * 3 + [1e-5]
    )
    assert rates["columns.1.conv3.bias"] == pytest.approx([0.02] * 3 + [0.002] * 7)
    assert rates["columns.0.conv1.weight"] == pytest.approx(
        [1e-2] * 3 + [1e-3] * 3 + [1e-4] * 2 + [0] * 2
    )
    for i, name in enumerate(names):
        moved = [not torch.equal(call["before"][i], call["after"][i]) for call in spy]
        assert moved == ([True] * 8 + [False] * 2 if ".conv1." in name else [True] * 10), name


def test_without_gradients_weights_shrink_and_biases_stay(splits, monkeypatch, tmp_path):
    def step(params, grads, *rest):
        real(params, [torch.zeros_like(g) for g in grads], *rest)

    real = learner.momentum_step_
    monkeypatch.setattr(learner, "momentum_step_", step)
    config = configure(splits, "source", epochs=1 / 5)
    train(config, splits, tmp_path / "run", progress=False)
    after = load_file(tmp_path / "run" / "weights.safetensors")
    for name, before in config.network().export_merged().items():
        if name.endswith("bias"):
            assert torch.equal(after[name], before)
        else:
            torch.testing.assert_close(after[name], before * (1 - 0.01 * 5e-4), rtol=1e-6, atol=0)


def test_a_given_rate_keeps_the_biases_ratio(splits):
    recipe = configure(splits, "source", rate=0.003).recipe
    assert recipe.rate == 0.003 and recipe.bias_rate == pytest.approx(0.006)


def test_the_rate_falls_when_the_validation_error_stops_improving(splits32, tmp_path, monkeypatch):
    """A validation error that never improves, and a loss below ln(classes): epoch 1 sets the mark, two more wait, at each of four rates."""
    monkeypatch.setattr(
        trainer, "_validate", lambda *_: trainer.evaluation.Errors(0.5, 0.0, 1.0, 8)
    )
    monkeypatch.setattr(trainer.math, "log", lambda _: 100.0)
    monkeypatch.setitem(
        presets.VARIANTS, "falling", (presets.with_recipe(schedule="plateau"), "for this test")
    )
    config = configure(splits32, "four-layer/falling", width=1 / 4, epochs=24.0, batch_size=40)
    summary = train(config, splits32, tmp_path / "run", progress=False)
    rates = [row["rate"] for row in log.read(tmp_path / "run", "step")]
    assert rates == pytest.approx([1e-2] * 3 + [1e-3] * 3 + [1e-4] * 3 + [1e-5] * 3)
    assert (summary["ended"], summary["falls"], summary["steps"]) == ("plateau", 3, 12)
    for name in ("summary.json", "weights.safetensors"):
        (tmp_path / "run" / name).unlink()
    assert train(config, splits32, tmp_path / "run", resume=True, progress=False)["steps"] == 12


# --- from another run's weights -----------------------------------------------------------------------------------------------------------


def test_a_run_may_start_with_anothers_weights_in_all_layers_but_the_last(splits32, tmp_path):
    first = replace(small(splits32, epochs=1.0), num_classes=9)
    train(first, splits32, tmp_path / "first", progress=False)
    config = small(
        splits32, epochs=1 / 5, rate=1e-12, seed=5, start=trainer.starting_point(tmp_path / "first")
    )
    train(config, splits32, tmp_path / "run", start=tmp_path / "first", progress=False)
    before, after, fresh = (
        load_file(tmp_path / "first" / WEIGHTS),
        load_file(tmp_path / "run" / WEIGHTS),
        config.network().export_merged(),
    )
    assert before["fc4.bias"].shape == (9,) and after["fc4.bias"].shape == (4,)
    for name, value in after.items():
        torch.testing.assert_close(
            value, (fresh if name.startswith("fc4") else before)[name], rtol=0, atol=1e-7
        )
    assert not torch.equal(before["conv1.weight"], fresh["conv1.weight"])
    assert json.loads((tmp_path / "run" / "config.json").read_text())["start"] == config.start
    net, _, again = load_run(tmp_path / "run")
    assert again == config and torch.equal(
        net.export_merged()["conv2.weight"], after["conv2.weight"]
    )


def test_a_run_goes_on_without_the_run_it_started_from(splits32, tmp_path):
    train(small(splits32), splits32, tmp_path / "first", progress=False)
    config = small(splits32, start=trainer.starting_point(tmp_path / "first"), seed=1)
    train(config, splits32, tmp_path / "straight", start=tmp_path / "first", progress=False)

    def interrupt(steps):
        nonlocal taken
        taken += steps
        if taken == 7:
            os.kill(os.getpid(), signal.SIGINT)

    taken = 0
    with pytest.raises(Interrupted):
        train(
            config,
            splits32,
            tmp_path / "run",
            start=tmp_path / "first",
            progress=False,
            on_steps=interrupt,
        )
    shutil.rmtree(tmp_path / "first")
    assert train(config, splits32, tmp_path / "run", resume=True, progress=False)["steps"] == 15
    same(tmp_path / "run", tmp_path / "straight")


def test_weights_that_cannot_be_started_from_are_refused(splits32, tmp_path):
    first = tmp_path / "first"
    train(small(splits32, epochs=1.0), splits32, first, progress=False)
    point = trainer.starting_point(first)
    cases = [
        (small(splits32, start=point), None, "that run was not given"),
        (small(splits32), first, "the config names no weights to start from"),
        (
            small(splits32, start="0" * 64),
            first,
            f"weights.safetensors has SHA-256 {point[:16]}.*begins with that of 0000000000000000",
        ),
        (
            small(splits32, start=point, width=1 / 2),
            first,
            r"another net: conv1.weight has shape \(8, 3, 5, 5\); this net needs \(16,",
        ),
        (small(splits32, start=point), tmp_path / "nowhere", "nowhere holds no run"),
    ]
    for config, start, said in cases:
        with pytest.raises(InputError, match=said):
            train(config, splits32, tmp_path / "run", start=start, progress=False)
        assert not (tmp_path / "run").exists()
    (first / "summary.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        trainer.starting_point(first)


# --- killed and resumed -------------------------------------------------------------------------------------------------------------------

KILLED = """
import json, os, signal, sys
from pathlib import Path
import torch
from alexnet.data.pack import open_splits
from alexnet.training import checkpoint, trainer

torch.set_num_threads(1)
config, data, out = trainer.Config(**json.loads(sys.argv[1])), open_splits(sys.argv[2]), Path(sys.argv[3])
taken = calls = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def in_an_epoch(steps):
    global taken
    taken += steps
    if taken == 8:
        die()

def half_a_file(tensors, path):
    global calls
    calls += 1
    save_file(tensors, path)
    if calls == 16:  # column 1 of step 8
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        die()

def before_the_name(descriptor):
    global calls
    calls += 1
    if calls == 5 * 7 + 4:  # all of step 8's files, but not the folder
        die()

save_file = checkpoint.save_file
for mode in ("in-an-epoch", "half-a-file", "before-the-name"):
    child = os.fork()
    if not child:
        on_steps = lambda steps: None
        if mode == "in-an-epoch":
            on_steps = in_an_epoch
        elif mode == "half-a-file":
            checkpoint.save_file = half_a_file
        else:
            checkpoint.os.fsync = before_the_name
        trainer.train(config, data, out / mode, every=0.0, progress=False, on_steps=on_steps)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, mode
"""


@pytest.fixture(scope="module")
def killed(splits, packs72, tmp_path_factory):
    """Three runs killed at step 8, the third of its epoch: after the step, in the middle of a checkpoint's file, and before the checkpoint
    got its name."""
    out = tmp_path_factory.mktemp("killed")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(asdict(configure(splits))), packs72, out],
        check=True,
        env=environment,
    )
    return out


@pytest.mark.parametrize("how", ["in-an-epoch", "half-a-file", "before-the-name"])
def test_killed_and_resumed_is_the_same_run(splits, straight, killed, how):
    run = killed / how
    *oldest, before, last = (
        int(path.name.removeprefix("step-")) for path in checkpoint.steps(run / "checkpoints")
    )
    assert oldest in (
        [],
        [before - 1] if how == "in-an-epoch" else [],
    )  # it may still wait for its removal
    assert last == before + 1 and last in (
        (6, 7) if how == "in-an-epoch" else (7,)
    )  # the step after may still be on its way to the disk
    assert how == "in-an-epoch" or list((run / "checkpoints").glob(".step-000000008*"))
    state = checkpoint.load(run / "checkpoints" / f"step-{last:09d}")[1]
    assert state["loss_sum"] > 0 and state["error_sum"] > 0  # of the epoch that was under way
    with pytest.raises(InputError, match="add --resume"):
        train(configure(splits), splits, run)
    train(configure(splits), splits, run, resume=True, progress=False)
    same(run, straight)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "step-000000010",
        "step-000000015",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [8, 10])
def test_a_signal_leaves_a_checkpoint_and_the_resumed_run_is_the_same(
    splits, straight, tmp_path, number, at
):
    steps = []

    def on_steps(taken):
        steps.append(taken)
        if sum(steps) == at:
            os.kill(os.getpid(), number)

    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(
        Interrupted, match=f"step {at} of 15; nothing is lost: the same command with --resume"
    ) as stopped:
        train(configure(splits), splits, tmp_path / "run", progress=False, on_steps=on_steps)
    assert stopped.value.signal == number and isinstance(stopped.value, KeyboardInterrupt)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert checkpoint.steps(tmp_path / "run" / "checkpoints")[-1].name == f"step-{at:09d}"
    with pytest.raises(InputError, match=r"is not finished.*--resume"):
        load_run(tmp_path / "run")
    # `stopped` still holds the traceback, as a notebook does: the folder must be free all the same
    resumed = []
    train(
        configure(splits),
        splits,
        tmp_path / "run",
        resume=True,
        progress=False,
        on_steps=resumed.append,
    )
    assert resumed == [at] + [1] * (15 - at)
    same(tmp_path / "run", straight)


def test_a_resumed_run_remembers_the_rate_that_its_velocity_was_gathered_at(splits32, tmp_path):
    """Stopped just before the rate falls, where a velocity without the rate must be rescaled."""

    def on_steps(taken):
        steps.append(taken)
        if sum(steps) == 15:
            os.kill(os.getpid(), signal.SIGINT)

    runs = {}
    for variant in ("/one-fall", "/one-fall/rate-outside"):
        steps = [-100]  # not to be stopped
        config = configure(splits32, f"four-layer{variant}", width=1 / 4, epochs=4.0, rate=0.001)
        train(config, splits32, tmp_path / variant[1:], progress=False, on_steps=on_steps)
        steps = []
        out = tmp_path / f"{variant[1:]}-stopped"
        with pytest.raises(Interrupted, match="step 15 of 20"):
            train(config, splits32, out, progress=False, on_steps=on_steps)
        train(config, splits32, out, resume=True, progress=False)
        same(out, tmp_path / variant[1:])
        runs[variant] = [row["loss"] for row in log.read(out, "step")]
    inside, outside = runs.values()
    assert inside[:16] == outside[:16] and inside[16:] != outside[16:]


def test_an_interruption_travels_between_processes():
    back = pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM, "stopped at step 3")))
    assert back.signal == signal.SIGTERM and str(back) == "stopped at step 3"


def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(
    splits, straight, killed, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    for name in ("summary.json", "weights.safetensors"):
        (run / name).unlink()
    damaged = run / "checkpoints" / "step-000000015"
    with (damaged / "column-1.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(
        InputError,
        match=r"column-1.safetensors is missing or damaged; remove .*step-000000015 to go on",
    ):
        train(configure(splits), splits, run, resume=True)
    shutil.rmtree(damaged)
    (run / ".column-1.part").write_bytes(b"left by a rank that was killed at the end")
    train(configure(splits), splits, run, resume=True, progress=False)
    same(run, straight)
    assert not list(run.glob(".column-*"))


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        *(("step", value) for value in ("x", 1.5, 10**12, -3, True, 14, None)),
        *(("seconds", value) for value in (None, -1, "1", math.nan)),
        *(("loss_sum", value) for value in ("a", [], math.inf)),
        ("error_sum", True),
        *(("rates", value) for value in (None, [0.1], {"conv1.weight": 0.1})),
        ("ended", "never"),
        *(("schedule", value) for value in ({}, None, "x")),
        ("run", 7),
    ],
)
def test_a_state_that_cannot_be_this_runs_is_named_with_its_remedy(
    splits, straight, tmp_path, entry, value
):
    """By a manifest that vouches for it."""
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    (run / "summary.json").unlink()
    last = run / "checkpoints" / "step-000000015"
    state, manifest = (
        json.loads((last / name).read_text()) for name in ("state.json", "manifest.json")
    )
    (last / "state.json").write_text(json.dumps(state | {entry: value}))
    manifest["sha256"]["state.json"] = checkpoint.sha256(last / "state.json")
    (last / "manifest.json").write_text(json.dumps(manifest))
    why = (
        "it is of a run with another config"
        if entry == "run"
        else f"its {entry} is {re.escape(repr(value))}"
    )
    with pytest.raises(
        InputError,
        match=f"{last} does not belong to this run: {why}.*; remove it to go on from the checkpoint before it",
    ):
        train(configure(splits), splits, run, resume=True, progress=False)


def test_nothing_is_unpickled(splits, straight, monkeypatch, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()

    def refuse(*_, **__):
        raise AssertionError("a pickle was loaded")

    for module, name in (
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
    ):
        monkeypatch.setattr(module, name, refuse)
    train(configure(splits), splits, tmp_path / "run", resume=True, progress=False)
    load_run(tmp_path / "run")
    package = Path(trainer.__file__).parents[1]
    pickled = re.compile(r"import pickle|torch\.load\(|torch\.save\(|allow_pickle=True")
    assert [path.name for path in package.rglob("*.py") if pickled.search(path.read_text())] == []
    np.save(tmp_path / "run" / "mean.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="damaged"):
        load_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("room", "first"), [(100, "config.json"), (10_000, "mean.npy"), (100_000, "")]
)
def test_a_full_disk_is_named_with_its_remedy(splits32, tmp_path, room, first):
    """As with a disk: no file may grow beyond so many bytes. The last to do so is a log's."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError) as told:
            train(
                small(splits32, epochs=100.0, batch_size=1, rate=1e-6),
                splits32,
                tmp_path / "run",
                progress=False,
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    how = "File too large; make room, and the same command with --resume goes on"
    assert str(told.value) == f"cannot write {tmp_path / 'run' / first}: {how}"


# --- the folder ---------------------------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_returned_as_it_is(splits, straight):
    before = {
        path: path.stat().st_mtime_ns
        for path in straight.rglob("*")
        if path.is_file() and path.name != "lock"
    }
    summary = train(configure(splits), splits, straight, resume=True)
    assert summary == json.loads((straight / "summary.json").read_text())
    assert {
        path: path.stat().st_mtime_ns
        for path in straight.rglob("*")
        if path.is_file() and path.name != "lock"
    } == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preset": "source"}, "preset 'paper', not 'source'"),
        ({"seed": 2}, "seed 0, not 2"),
        ({"rate": 0.5}, "rate None, not 0.5"),
        ({"epochs": 4.0}, "epochs 3.0, not 4.0"),
        ({"width": 0.125}, "width 0.0625, not 0.125"),
        ({"data": {"train": "another"}}, "data {.*, not {'train': 'another'}"),
    ],
)
def test_a_run_of_other_options_is_refused_by_name(splits, straight, change, said):
    with pytest.raises(InputError, match=f"holds a run with {said}"):
        train(replace(configure(splits), **change), splits, straight, resume=True)


def test_an_older_run_without_a_later_field_is_still_that_run(splits, straight, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    stored = json.loads((straight / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(
        json.dumps({k: v for k, v in stored.items() if k != "stop_at_train_error"})
    )
    assert train(configure(splits), splits, tmp_path / "run", resume=True)["steps"] == 15
    (tmp_path / "run" / "config.json").write_text(json.dumps(stored)[:-20])
    with pytest.raises(InputError, match=r"config.json is damaged"):
        train(configure(splits), splits, tmp_path / "run", resume=True)


def test_a_second_process_is_refused(splits32, tmp_path):
    train(small(splits32, epochs=1 / 5), splits32, tmp_path / "run", progress=False)
    with (tmp_path / "run" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is training in"):
            train(small(splits32, epochs=1 / 5), splits32, tmp_path / "run", resume=True)


def test_a_folder_of_other_things_is_refused_and_left_alone(splits32, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("dear")
    for resume in (False, True):
        with pytest.raises(InputError, match="holds something that is no run"):
            train(small(splits32), splits32, tmp_path / "thesis", resume=resume)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]
    for place, said in (
        (tmp_path / "thesis" / "chapter.tex", "is a file"),
        (tmp_path / "thesis" / "chapter.tex" / "run", "cannot make"),
    ):
        with pytest.raises(InputError, match=said):
            train(small(splits32), splits32, place)


def test_what_a_kill_at_the_very_beginning_leaves_is_no_obstacle(splits32, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").touch()
    (tmp_path / "run" / "config.part").write_text('{"preset": "fo')
    assert (
        train(small(splits32, epochs=1 / 5), splits32, tmp_path / "run", progress=False)["steps"]
        == 1
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image_size": 80}, "72 pixels wide"),
        ({"image_size": 20}, "too small"),
        ({"preset": "paper/pink"}, "no variant 'pink'"),
        ({"preset": "resnet"}, "no preset 'resnet'"),
        ({"width": -1.0}, "positive width"),
    ],
)
def test_options_that_cannot_work_leave_no_folder(splits, tmp_path, fields, said):
    with pytest.raises(InputError, match=said):
        train(replace(configure(splits), **fields), splits, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_load_run_names_what_is_wrong(straight, tmp_path):
    with pytest.raises(InputError, match="holds no run; make one"):
        load_run(tmp_path)
    shutil.copytree(straight, tmp_path / "run")
    whole = weights(straight)
    (tmp_path / "run" / "weights.safetensors").write_bytes(whole[:-7])
    with pytest.raises(InputError, match="damaged"):
        load_run(tmp_path / "run")
    (tmp_path / "run" / "weights.safetensors").unlink()
    with pytest.raises(InputError, match=r"weights.safetensors is missing"):
        load_run(tmp_path / "run")


def test_a_loaded_run_is_the_trained_net(splits, straight):
    net, augment, config = load_run(straight)
    assert not net.training and config == configure(splits)
    assert np.array_equal(augment.mean.numpy(), splits["train"].mean)
    merged = load_file(straight / "weights.safetensors")
    assert all(torch.equal(merged[name], value) for name, value in net.export_merged().items())


# --- identity -----------------------------------------------------------------------------------------------------------------------------


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
    ]
    changes += [{"mode": "graph"}, {"version": config.version + 1}]
    assert (
        len({replace(config, **change).identity for change in changes} | {config.identity})
        == len(changes) + 1
    )
    assert set().union(*changes) == set(asdict(config))
    assert replace(config, seed=0, rate=None).identity == config.identity


# Losses of four steps (two epochs of 12 images, by eights and fours) with everything on: initial weights, order, crops, color, dropout,
# momentum.
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
    writer = PackWriter(tmp_path / "pack", 72, 12)
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
    assert trainer.VERSION == 1 and losses == pytest.approx(GUARD[preset], abs=1e-4), (
        "training gives other weights than it did: if that is meant, raise trainer.VERSION, so that trained models are not mistaken for "
        f"what would be trained now, and store {[round(loss, 5) for loss in losses]} here"
    )
