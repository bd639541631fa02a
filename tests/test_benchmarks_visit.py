"""A visit to a GPU, rehearsed: programs end well, badly or by their limit; what is known is saved
after each part, and a visit that was stopped goes on; each part's commands run at sizes that mean
nothing."""

import json
import os
import re
import shlex
import signal
import sys
import threading
import time
import zipfile
from importlib import import_module

import pytest

from benchmarks import contestants, visit
from benchmarks.visit import Part
from kernel_benchmarks import runner

PATIENT = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: open({!r}, 'w').close()"
LATE = "out of time: ask for it again"


@pytest.fixture
def python(tmp_path):
    def run(code, seconds=2):
        command = [sys.executable, "-c", code]
        return visit.run(command, seconds, dict(os.environ), tmp_path / "log")

    return run


def test_a_program_is_done_or_failed_or_stopped_as_by_ctrl_c(python, monkeypatch, tmp_path):
    assert python("print('well')", 60) == "done" and python("raise SystemExit(5)", 60) == "done"
    assert python("raise SystemExit(1)", 60) == "failed: status 1"
    assert "\nwell\n" in (tmp_path / "log").read_text()
    kept = tmp_path / "kept"
    assert python(PATIENT.format(str(kept)), 5) == LATE and kept.exists()
    monkeypatch.setattr(visit, "RESERVE", 2)
    stubborn = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    assert python(stubborn) == LATE


def test_what_a_shell_has_ignore_ctrl_c_is_stopped_all_the_same(python, tmp_path):
    kept = tmp_path / "kept"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        python(PATIENT.format(str(kept)), 5)
    finally:
        signal.signal(signal.SIGINT, before)
    assert kept.exists()


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as file:
        return file.read().split(") ")[1][0] == "Z"


@pytest.mark.skipif(
    not os.path.exists("/proc/self/stat"), reason="asks /proc whether a process is still there"
)
def test_nothing_outlives_a_visit_that_is_stopped(python, tmp_path):
    """SIGTERM, while a program has a program of its own."""
    pids = tmp_path / "pids"
    code = (
        "import os, subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        f"open('{pids}.part', 'w').write(f'{{os.getpid()}} {{child.pid}}'); "
        f"os.rename('{pids}.part', '{pids}'); time.sleep(60)"
    )

    def stop():
        while not pids.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    assert runner.guarded(lambda: python(code, 60) == "done") == 130
    until = time.monotonic() + 5  # whoever inherits a grandchild has to bury it
    while not all(map(gone, map(int, pids.read_text().split()))) and time.monotonic() < until:
        time.sleep(0.02)
    assert all(map(gone, map(int, pids.read_text().split())))


# --- a visit ---

QUICK, WRONG = [["timeit", "-n", "1", "-r", "1", "pass"]], [["no_such_module"]]


@pytest.fixture
def plan(monkeypatch, tmp_path):
    """A visit of short parts, in a folder of its own."""
    own = {"quick": Part(60, QUICK), "wrong": Part(60, WRONG), "last": Part(60, QUICK)}
    monkeypatch.setattr(visit, "parts", lambda tiny: {"first": own})
    monkeypatch.setattr(visit, "ROOT", tmp_path)
    monkeypatch.setattr(runner, "TINY_FOLDER", tmp_path / "runs" / "benchmarks")
    return own


def go(*words):
    return visit.main(["first", "--tiny", "--save", str(visit.ROOT / "save"), *words])


def outcomes():
    known = json.loads((visit.ROOT / "runs" / "visit-tiny" / "outcomes.json").read_text())
    return {name: each["outcome"] for name, each in known.items()}


def test_a_failure_is_recorded_and_the_next_part_begins(plan, capsys):
    (rows := runner.TINY_FOLDER / "step.csv").parent.mkdir(parents=True)
    rows.write_text("a row\n")
    assert go("--limit", "100") == 1
    assert outcomes() == {"quick": "done", "wrong": "failed: status 1", "last": "done"}
    shown = capsys.readouterr().out
    assert re.search(r"No module named '?no_such_module.*part +seconds", shown, re.S)
    assert re.search(r"last +\d+ +0  done$", shown.strip())
    assert (visit.ROOT / "save" / "summary.txt").read_text() == shown
    with zipfile.ZipFile(visit.ROOT / "save" / "visit.zip") as archive:
        logs = {f"runs/visit-tiny/{name}.log" for name in plan}
        others = {"runs/visit-tiny/outcomes.json", "runs/benchmarks/step.csv"}
        assert set(archive.namelist()) == logs | others
        assert archive.read("runs/benchmarks/step.csv") == b"a row\n"
    plan["wrong"] = Part(60, QUICK)
    assert go() == 0 and capsys.readouterr().err.count("done before") == 2
    assert set(outcomes().values()) == {"done"}
    assert go("--fresh") == 0 and "done before" not in capsys.readouterr().err


def test_what_was_done_before_a_kill_is_saved_and_the_rest_follows(plan, monkeypatch, capsys):
    plan["wrong"] = Part(60, QUICK)
    run, calls = visit.run, []

    def killed(*given):
        calls.append(given)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return run(*given)

    monkeypatch.setattr(visit, "run", killed)
    assert go() == 130 and outcomes() == {"quick": "done"}
    with zipfile.ZipFile(visit.ROOT / "save" / "visit.zip") as archive:
        assert "runs/visit-tiny/quick.log" in archive.namelist()
    assert re.search(r"wrong +not begun", capsys.readouterr().out)
    assert go() == 0 and len(calls) == 4 and set(outcomes().values()) == {"done"}


def test_what_has_no_time_left_is_not_begun(plan, capsys, monkeypatch):
    monkeypatch.setattr(visit, "run", lambda *rest: pytest.fail("began"))
    assert go("--limit", "10") == 1 and set(outcomes().values()) == {LATE}


def test_a_part_that_is_not_there_and_a_gpu_that_is_not(capsys):
    with pytest.raises(SystemExit, match="2"):
        visit.main(["lunch", "--tiny"])
    assert "lunch is none of first, second, later, correct, step" in capsys.readouterr().err
    if not visit.torch.cuda.is_available():
        assert visit.main(["step"]) == 2
        assert "--tiny rehearses without one" in capsys.readouterr().err


def test_two_ranks_need_two_gpus(plan, monkeypatch, capsys):
    plan.clear()
    plan["ranks"] = Part(60, WRONG, needs=2)
    monkeypatch.setattr(visit.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(visit.torch.cuda, "device_count", lambda: 1)
    assert visit.main(["first"]) == 0
    reason = "skipped: needs 2 GPUs, one for each rank; there are 1"
    assert reason in capsys.readouterr().out


def test_the_summary_has_room_for_all():
    texts = {"long": "".join(f"line {i}\n" for i in range(1000)), "short": "one\ntwo\n"}
    ends = visit.shares(texts, 500)
    assert ends["short"] == texts["short"] and sum(map(len, ends.values())) <= 500
    assert ends["long"].startswith("line ") and ends["long"].endswith("line 999\n")
    assert len(ends["long"]) > 450


REAL = [
    (name, words)
    for group in visit.parts(False).values()
    for name, part in group.items()
    for words in part.commands
    if words[0].partition(".")[0] in ("benchmarks", "kernel_benchmarks")
]


@pytest.mark.parametrize(("name", "words"), REAL, ids=[shlex.join(words) for _, words in REAL])
def test_programs_take_their_words(name, words, monkeypatch, tmp_path):
    """Those of a real visit, with what it adds to them; cases that they name are there."""
    given = []
    module = import_module(words[0])
    work = "begin" if hasattr(module, "begin") else "work"
    monkeypatch.setattr(module, work, lambda args: given.append(args) or 0)
    form = visit.argparse.Namespace(tiny=True, fresh=True, cache=None, commit="abc", limit=99)
    monkeypatch.setattr(visit, "sanitizer", lambda: "compute-sanitizer")
    monkeypatch.setattr(visit, "ROOT", tmp_path)
    command = visit.Visit(form, 1000).command(name, words, 60)
    assert (command[0] == "compute-sanitizer") == (name == "sanitizer")
    assert module.main(command[command.index(words[0]) + 1 :]) == 0
    (args,) = given
    assert (args.commit, args.limit) == ("abc", 40)
    if only := getattr(args, "only", ""):
        cases = [case for case in contestants.GPU if only in f"{case},"]
        assert len(cases) == 1 and cases[0] in contestants.GPU[:2]


def test_a_longer_visit_gives_each_part_more(plan, monkeypatch):
    given = []
    monkeypatch.setattr(visit, "run", lambda words, seconds, *rest: given.append(seconds) or "done")
    assert go("--limit", str(3 * 180 + visit.RESERVE)) == 0
    assert given == pytest.approx([180] * 3, abs=1)


def test_visits_fit_into_their_limits():
    for name, limit in {"first": 300, "second": 400}.items():
        seconds = [part.seconds for part in visit.parts(False)[name].values()]
        assert sum(seconds) + visit.RESERVE <= limit


@pytest.mark.slow
@pytest.mark.parametrize("part", visit.named(visit.parts(True)))
def test_each_part_runs_to_its_end(part, capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "TINY_FOLDER", tmp_path)
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "runs"))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    assert visit.main([part, "--tiny", "--fresh", "--limit", "550"]) == 0
    lacks = part == "sanitizer" and not visit.sanitizer()
    outcome = "skipped: compute-sanitizer is not installed" if lacks else "done"
    assert re.search(rf"{part} +\d+ +\d+  {outcome}", capfd.readouterr().out)
