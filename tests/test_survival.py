"""What a run on several ranks survives, on gloo.

One of them is killed, stopped, hung or starved, at a fixed moment; resumed, the run ends with the
bits of the one that nothing disturbed. `pytest -m '' tests/test_survival.py` is all of it, `python
-m tests.survival` its table of random moments.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from alexnet.training import Config, checkpoint, log
from tests.survival import WORLDS, configure, environment, job, lost, moments, rows, run, text

RANKS_ARE_GONE = 15.0  # seconds


@pytest.fixture(scope="module")
def config(packs72):
    return configure(packs72, "paper", width=1 / 16)


FAULTS = {  # on two ranks, one column each, with a checkpoint after every one of 20 steps
    "killed after a step": {"rank": 1, "kind": "step", "at": 8},
    "killed half way through a file": {"rank": 0, "kind": "file", "at": 8},
    "killed before its part is on the disk": {"rank": 1, "kind": "flush", "at": 9},
    "asked to stop": {"rank": 1, "kind": "term", "at": 7},
    "Ctrl-C": {"rank": 0, "kind": "int", "at": 5},
    "disk full, first rank": {"rank": 0, "kind": "limit", "at": 6},
    "disk full, second rank": {"rank": 1, "kind": "limit", "at": 6},
    "disk full at the very end": {"rank": 1, "kind": "gather", "at": 20},
    "asleep": {"rank": 1, "kind": "sleep", "at": 6},
    "frozen": {"rank": 0, "kind": "stop", "at": 6},
}


MOVES = {  # ranks that a run begins on, and goes on
    "apart": (2, 1),
    "together": (1, 2),
    "more": (2, 4),
    "outside": (2, 1),
}


@pytest.fixture(scope="module")
def disturbed(packs72, config, tmp_path_factory):
    """A folder of runs, all resumed and finished; their first outcomes; checkpoints before."""
    folder = tmp_path_factory.mktemp("survival")
    # a velocity without the rate needs the rate that it was gathered at, of either column
    outside = configure(packs72, "paper/rate-outside", width=1 / 16)
    moved = {"fault": {"rank": 0, "kind": "term", "at": 7}}
    plan = {name: (2, 2, config, {"fault": fault}) for name, fault in FAULTS.items()}
    plan |= {name: (*worlds, config, moved) for name, worlds in MOVES.items()}
    plan["outside"] = (*MOVES["outside"], outside, moved)
    plan["undisturbed"] = (2, 2, config, {})
    plan["diverging"] = (2, 0, configure(packs72, width=1 / 16, rate=1e9), {})

    def ended(names, **options):
        """The first outcomes of these runs, and those of their resumption, in one process."""
        runs = [(folder / name, *plan[name]) for name in names]
        first = [job(packs72, out, world, c, **o, **options) for out, world, _, c, o in runs]
        outcomes = run(
            *first, *(job(packs72, out, w, c, resume=True) for out, _, w, c, _ in runs if w)
        )
        resumed = outcomes[len(names) :]
        assert all(set(one["statuses"]) == {0} for one in resumed), resumed
        return dict(zip(names, outcomes))

    # those that hang wait for their time to be over; meanwhile the others work
    hanging = ("asleep", "frozen")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(ended, hanging, timeout=6.0)
        outcomes = ended([name for name in plan if name not in hanging]) | waiting.result()
    assert outcomes["undisturbed"]["statuses"] == [0, 0], outcomes["undisturbed"]["outputs"]
    return folder, outcomes, {name: one["checkpoints"] for name, one in outcomes.items()}


@pytest.mark.parametrize("name", FAULTS)
def test_resumed_is_the_undisturbed_run(disturbed, name):
    folder, outcomes, before = disturbed
    assert outcomes[name]["statuses"] != [0, 0]
    assert 0 < len(before[name]) <= 3  # three where the oldest was about to be removed
    assert max(outcomes[name]["seconds"]) - min(outcomes[name]["seconds"]) < RANKS_ARE_GONE
    assert lost(folder / name, folder / "undisturbed") == "nothing"
    assert not list((folder / name / "checkpoints").glob(".step-*"))


@pytest.mark.parametrize("name", [name for name in FAULTS if name.startswith("killed")])
def test_a_rank_whose_other_was_killed_says_what_to_do(disturbed, name):
    _, outcomes, _ = disturbed
    other = outcomes[name]["outputs"][1 - FAULTS[name]["rank"]]
    why = "lost another rank, which says why or was killed"
    assert f"RankLost: {why}; --resume goes on from the last checkpoint" in other


def test_ranks_that_are_asked_to_stop_do_so_after_the_same_step(disturbed):
    _, outcomes, before = disturbed
    for name, status in (("asked to stop", 128 + signal.SIGTERM), ("Ctrl-C", 128 + signal.SIGINT)):
        assert status in outcomes[name]["statuses"] and 0 not in outcomes[name]["statuses"]
        step = int(before[name][-1].removeprefix("step-"))
        assert all(STOPPED.format(step, 20) in output for output in outcomes[name]["outputs"])


STOPPED = (
    "stopped at step {} of {}; nothing is lost: the same command with --resume goes on from there"
)


@pytest.mark.parametrize("name", ["disk full, first rank", "disk full, second rank"])
def test_a_full_disk_is_named_and_nothing_good_overwritten(disturbed, name):
    folder, outcomes, before = disturbed
    full = FAULTS[name]["rank"]
    assert outcomes[name]["statuses"] == [1, 1]
    said, other = (outcomes[name]["outputs"][rank] for rank in (full, 1 - full))
    assert f"cannot write a checkpoint to {folder / name / 'checkpoints'}" in said
    assert "is kept: make room, and --resume goes on from there" in said
    assert "another rank could not write its part" in other
    assert "step-000000005" in before[name]


def test_a_disk_that_is_full_at_the_very_end_is_named(disturbed):
    folder, outcomes, _ = disturbed
    other, full = outcomes["disk full at the very end"]["outputs"]
    path = folder / "disk full at the very end" / ".column-1.part"
    why = "Error while serializing: I/O error: No space left on device"
    assert full.startswith(f"alexnet: cannot write {path}: {why}")
    assert full.endswith("; make room, and the same command with --resume goes on\n")
    assert "RankLost: lost another rank" in other


@pytest.mark.parametrize(("name", "who"), [("asleep", 1), ("frozen", 0)])
def test_a_rank_that_hangs_is_named_within_the_time(disturbed, name, who):
    _, outcomes, _ = disturbed
    said = "".join(outcomes[name]["outputs"])  # the first to notice says it
    hung = rf"alexnet: rank {who} \(.*\) made no progress for 6 s"
    assert re.search(f"{hung}, while rank {1 - who} waited, in step 7; stopping all", said)
    assert outcomes[name]["statuses"][1 - who] == 1
    assert outcomes[name]["seconds"][1 - who] < 60


def test_columns_saved_apart_are_read_together_and_the_other_way_round(disturbed):
    """A run of two ranks goes on in one process, one of one process on two ranks, or on four."""
    folder, outcomes, _ = disturbed
    assert all(0 not in outcomes[name]["statuses"] for name in MOVES)
    undisturbed = folder / "undisturbed"
    assert [lost(folder / name, undisturbed) for name in ("apart", "together")] == ["nothing"] * 2
    for a, b in zip(rows(folder / "more"), rows(undisturbed), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)  # sums over rows round otherwise


def test_a_loss_that_is_no_number_stops_all_ranks(disturbed):
    folder, outcomes, before = disturbed
    assert outcomes["diverging"]["statuses"] == [0, 0], outcomes["diverging"]["outputs"]
    summary = json.loads((folder / "diverging" / "summary.json").read_text())
    assert summary["ended"] == "diverged" and summary["ranks"] == [1, 2]
    kept = [int(name.removeprefix("step-")) for name in before["diverging"]]
    assert all(step < summary["diverged_at"] for step in kept)


# --- under torchrun ---


def torchrun(packs, out, *options, restarts=0, nohup=False):
    launcher = "-m torch.distributed.run --standalone --nproc-per-node=2".split()
    launcher += [f"--max-restarts={restarts}", "-m", "alexnet", "train"]
    net = "--width 0.0625 --batch-size 8 --epochs 40 --preset paper/constant-rate".split()
    if nohup:
        launcher.insert(2, "--signals-to-handle=SIGTERM,SIGINT")
    command = ["nohup"] * nohup + [
        sys.executable,
        *launcher,
        "--data",
        packs,
        "--out",
        out,
        *net,
        *options,
    ]
    quiet = environment() | {"TORCH_CPP_LOG_LEVEL": "ERROR"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, command)), env=quiet, **pipes)


def worker(launcher, rank):
    """The process of a rank."""
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = entry.read_bytes().split(b"\0")
            parent = int((entry.parent / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):
            continue
        if parent == launcher.pid and b"RANK=%d" % rank in variables:
            return int(entry.parent.name)
    raise LookupError(f"no rank {rank}")


def wait_for(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "too slow"
        time.sleep(0.05)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def steps(out):
    return sum(1 for _ in log.read(out, "step")) if (out / "log.jsonl").exists() else 0


def test_torchrun_restarts_a_run_unattended_and_ends_it_when_asked(packs72, tmp_path):
    """One column is killed; the run starts again by itself and goes on.

    Then the launcher is asked to stop, and leaves nobody behind. Started once more, the run ends as
    if nothing had been.
    """
    out = tmp_path / "run"
    launcher = torchrun(packs72, out, "--resume", restarts=1)
    try:
        wait_for(lambda: checkpoint.steps(out / "checkpoints"))
        killed = worker(launcher, 1)
        os.kill(killed, signal.SIGKILL)
        at = checkpoint.steps(out / "checkpoints")[-1].name
        wait_for(lambda: not alive(killed) and checkpoint.steps(out / "checkpoints")[-1].name > at)
        ranks = [worker(launcher, rank) for rank in (0, 1)]
        launcher.send_signal(signal.SIGTERM)
        _, stderr = launcher.communicate(timeout=60)
    finally:
        launcher.kill()  # and its ranks follow
    assert launcher.returncode != 0
    last = int(checkpoint.steps(out / "checkpoints")[-1].name.removeprefix("step-"))
    assert f"alexnet: {STOPPED.format(last, 200)}" in stderr, stderr
    assert not any(map(alive, ranks))
    again = torchrun(packs72, out, "--resume")
    assert (again.wait(120), again.communicate()[0][:4]) == (0, str(out)[:4])
    made = Config(**json.loads((out / "config.json").read_text()))
    (undisturbed,) = run(job(packs72, tmp_path / "undisturbed", 2, made))
    assert undisturbed["statuses"] == [0, 0] and lost(out, tmp_path / "undisturbed") == "nothing"


@pytest.mark.slow
@pytest.mark.parametrize("nohup", [False, True])
def test_a_closed_terminal_stops_ranks_but_under_nohup(packs72, tmp_path, nohup):
    out = tmp_path / "run"
    launcher = torchrun(packs72, out, nohup=nohup)
    try:
        wait_for(lambda: checkpoint.steps(out / "checkpoints"))
        ranks = [worker(launcher, rank) for rank in (0, 1)]
        at = steps(out)
        for process in (launcher.pid, *ranks):
            os.kill(process, signal.SIGHUP)
        if nohup:
            wait_for(lambda: steps(out) > at + 5)
            launcher.terminate()
        _, stderr = launcher.communicate(timeout=60)
    finally:
        launcher.kill()
    last = int(checkpoint.steps(out / "checkpoints")[-1].name.removeprefix("step-"))
    assert f"alexnet: {STOPPED.format(last, 200)}" in stderr, stderr
    assert not any(map(alive, ranks))


@pytest.mark.slow
def test_ranks_do_not_outlive_a_launcher_that_was_killed(packs72, tmp_path):
    launcher = torchrun(packs72, tmp_path / "run")
    try:
        wait_for(lambda: checkpoint.steps(tmp_path / "run" / "checkpoints"))
        ranks = [worker(launcher, rank) for rank in (0, 1)]
    finally:
        launcher.kill()
    wait_for(lambda: not any(map(alive, ranks)), 30)
    last = checkpoint.steps(tmp_path / "run" / "checkpoints")[-1]
    assert int(last.name.removeprefix("step-")) % 5  # left in the middle of an epoch


@pytest.mark.slow
def test_random_moments(packs72, tmp_path):
    table = moments(packs72, tmp_path, 25, seed=int(time.time()))
    assert {row["lost"] for row in table} == {"nothing"}, text(table)
    assert {row["ranks"] for row in table} == set(WORLDS.values())
