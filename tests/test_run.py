"""Training runs: the same twice, the same after a kill, rates and decays as the recipe says."""

import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from alexnet.errors import InputError
from alexnet.evaluation import Errors
from alexnet.files import file_digest
from alexnet.training import Config, Interrupted, checkpoint, learner, load_run, log, train
from alexnet.training.run import Run
from tests.runs import configure, same, small, weights, with_running_mean

pytestmark = pytest.mark.usefixtures("one_thread")


def test_one_seed_gives_the_same_weights_to_the_bit_and_another_does_not(
    splits, straight, tmp_path
):
    torch.rand(100)  # what was drawn before is of no matter
    train(configure(splits), splits, tmp_path / "again", progress=False)
    same(tmp_path / "again", straight)
    train(configure(splits, seed=1), splits, tmp_path / "other", progress=False)
    assert weights(tmp_path / "other") != weights(straight)


def test_a_budget_may_end_inside_an_epoch(splits32, tmp_path):
    summary = train(small(splits32, epochs=7 / 5), splits32, tmp_path / "run", progress=False)
    assert summary["steps"] == 7
    (whole, part) = log.read(tmp_path / "run", "epoch")
    losses = [row["loss"] for row in log.read(tmp_path / "run", "step")]
    assert part["epoch"] == 1.4 and part["loss"] == pytest.approx(sum(losses[5:]) / 2)
    assert whole["loss"] == pytest.approx(sum(losses[:5]) / 5)


def test_a_run_may_end_with_the_step_at_which_its_loss_has_fallen(splits32, tmp_path):
    long = small(splits32, epochs=14.0)
    train(long, splits32, tmp_path / "long", progress=False)
    losses = log.losses(tmp_path / "long")
    means = [sum(losses[i - 50 : i]) / 50 for i in range(50, len(losses) + 1)]
    level = means[9] + 1e-9
    expected = 50 + next(i for i, mean in enumerate(means) if mean <= level)
    config = replace(long, stop_at_loss=level)
    summary = train(config, splits32, tmp_path / "run", progress=False)
    assert (summary["ended"], summary["steps"]) == ("reached", expected)
    assert expected % 5  # within an epoch
    (tmp_path / "run" / "summary.json").unlink()  # killed after its last checkpoint
    again = train(config, splits32, tmp_path / "run", resume=True, progress=False)
    assert (again["ended"], again["steps"]) == ("reached", expected)
    assert log.losses(tmp_path / "run") == losses[:expected]
    stopped = tmp_path / "stopped"
    shutil.copytree(tmp_path / "run", stopped)
    for left in ("summary.json", "weights.safetensors"):
        (stopped / left).unlink(missing_ok=True)
    shutil.rmtree(sorted((stopped / "checkpoints").iterdir())[-1])  # at the epoch's end before it
    last = train(config, splits32, stopped, resume=True, progress=False)
    assert last["steps"] == expected and weights(stopped) == weights(tmp_path / "run")


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
    """The third update makes a velocity infinite, and the loss was finite so far. The one
    checkpoint that is kept stays the one before."""

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


def test_the_rate_falls_when_the_validation_error_stops_improving(splits32, tmp_path, monkeypatch):
    """A validation error that never improves, and a loss below ln(classes): epoch 1 sets the mark,
    two more wait, at each of four rates."""
    monkeypatch.setattr(Run, "validate", lambda *_: Errors(0.5, 0.0, 1.0, 8))
    monkeypatch.setattr(math, "log", lambda _: 100.0)
    config = configure(splits32, "four-layer/plateau-rate", width=1 / 4, epochs=24.0, batch_size=40)
    summary = train(config, splits32, tmp_path / "run", progress=False)
    rates = [row["rate"] for row in log.read(tmp_path / "run", "step")]
    assert rates == pytest.approx([1e-2] * 3 + [1e-3] * 3 + [1e-4] * 3 + [1e-5] * 3)
    assert (summary["ended"], summary["falls"], summary["steps"]) == ("plateau", 3, 12)
    for name in ("summary.json", "weights.safetensors"):
        (tmp_path / "run" / name).unlink()
    assert train(config, splits32, tmp_path / "run", resume=True, progress=False)["steps"] == 12


KILLED = """
import json, os, signal, sys
from pathlib import Path
import torch
from alexnet.data.pack import open_splits
from alexnet.training import Config, checkpoint, train

torch.set_num_threads(1)
config, data, out = Config(**json.loads(sys.argv[1])), open_splits(sys.argv[2]), Path(sys.argv[3])
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
            os.fsync = before_the_name
        train(config, data, out / mode, every=0.0, progress=False, on_steps=on_steps)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, mode
"""


@pytest.fixture(scope="module")
def killed(splits, packs72, tmp_path_factory):
    """Three runs killed at step 8, the third of its epoch: after the step, in the middle of a
    checkpoint's file, and before the checkpoint got its name."""
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
    manifest["sha256"]["state.json"] = file_digest(last / "state.json")
    (last / "manifest.json").write_text(json.dumps(manifest))
    why = (
        "it is of a run with another config"
        if entry == "run"
        else f"its {entry} is {re.escape(repr(value))}"
    )
    message = f"{last} does not belong to this run: {why}.*; remove it to go on from the checkpoint"
    with pytest.raises(InputError, match=message):
        train(configure(splits), splits, run, resume=True, progress=False)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image_size": 80}, "72 pixels wide"),
        ({"image_size": 20}, "too small"),
        ({"preset": "paper/pink"}, "no variant 'pink'"),
        ({"preset": "resnet"}, "no preset 'resnet'"),
        ({"width": -1.0}, "width is -1.0; it must be above 0"),
    ],
)
def test_options_that_cannot_work_leave_no_folder(splits, tmp_path, fields, said):
    with pytest.raises(InputError, match=said):
        train(replace(configure(splits), **fields), splits, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- state that is no parameter ---


@pytest.fixture
def running_means(monkeypatch):
    """All nets of runs have a buffer. Returns the buffers of a run's last checkpoint, by column."""
    network = Config.network
    monkeypatch.setattr(Config, "network", lambda *given: with_running_mean(network(*given)))

    def stored(out):
        columns, _ = checkpoint.load(checkpoint.steps(out / "checkpoints")[-1])
        return [columns[number]["conv1.running_mean"] for number in columns]

    return stored


@pytest.mark.parametrize("mode", ["plain", "graph"])
def test_buffers_survive_a_kill_and_change_no_weight(
    splits, straight, tmp_path, running_means, mode
):
    def on_steps(taken):
        steps.append(taken)
        if sum(steps) == 7:
            os.kill(os.getpid(), signal.SIGINT)

    config = configure(splits, mode=mode)
    steps = [-100]  # not to be stopped
    train(config, splits, tmp_path / "run", progress=False, on_steps=on_steps)
    steps = []
    with pytest.raises(Interrupted):
        train(config, splits, tmp_path / "stopped", progress=False, on_steps=on_steps)
    train(config, splits, tmp_path / "stopped", resume=True, progress=False)
    same(tmp_path / "stopped", tmp_path / "run")
    assert weights(tmp_path / "run") == weights(straight)
    means, resumed = running_means(tmp_path / "run"), running_means(tmp_path / "stopped")
    assert len(means) == 2 and all(float(mean.abs().min()) > 1 for mean in means)
    assert all(torch.equal(a, b) for a, b in zip(means, resumed, strict=True))


def test_a_buffer_that_is_not_finite_ends_the_run(splits32, tmp_path, running_means, monkeypatch):
    def update(self, rates):
        real(self, rates)
        self.buffers["columns.0.conv1.running_mean"].fill_(torch.nan)

    real = learner.Learner.update
    monkeypatch.setattr(learner.Learner, "update", update)
    summary = train(small(splits32), splits32, tmp_path / "run", every=0.0, progress=False)
    assert (summary["ended"], summary["diverged_at"]) == ("diverged", 2)
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == []
