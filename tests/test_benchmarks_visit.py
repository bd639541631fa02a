"""A visit to a GPU, rehearsed: programs end well, badly or by their limit, and each part's commands
run at sizes that mean nothing."""

import os
import re
import signal
import sys
import threading
import time

import pytest

from benchmarks import visit
from kernel_benchmarks import runner

PATIENT = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: open({!r}, 'w').close()"


def python(code):
    return visit.run([sys.executable, "-c", code], 2, dict(os.environ))


def test_a_program_is_done_or_failed_or_stopped_as_by_ctrl_c(monkeypatch, tmp_path):
    assert (
        python("pass") == "done"
        and python("raise SystemExit(5)") == "done"
        and python("raise SystemExit(1)") == "failed"
    )
    kept = tmp_path / "kept"
    patient = PATIENT.format(str(kept))
    assert python(patient) == "out of time: ask for it again" and kept.exists()
    monkeypatch.setattr(visit, "RESERVE", 1)
    stubborn = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    assert python(stubborn) == "out of time: ask for it again"


def test_what_a_shell_has_ignore_ctrl_c_is_stopped_all_the_same(tmp_path):
    kept = tmp_path / "kept"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        python(PATIENT.format(str(kept)))
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
def test_nothing_outlives_a_visit_that_is_stopped(tmp_path):
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
    assert (
        runner.guarded(
            lambda: visit.run([sys.executable, "-c", code], 60, dict(os.environ)) == "done"
        )
        == 130
    )
    until = time.monotonic() + 5  # whoever inherits a grandchild has to bury it
    while not all(map(gone, map(int, pids.read_text().split()))) and time.monotonic() < until:
        time.sleep(0.02)
    assert all(map(gone, map(int, pids.read_text().split())))


def test_a_part_that_is_not_there_and_a_gpu_that_is_not(capsys):
    with pytest.raises(SystemExit, match="2"):
        visit.main(["lunch", "--tiny"])
    known = "lunch is none of check, operators, steps, ranks, images, reach"
    assert known in capsys.readouterr().err
    if not visit.torch.cuda.is_available():
        assert (
            visit.main(["steps"]) == 2 and "--tiny rehearses without one" in capsys.readouterr().err
        )


def test_what_has_no_time_left_is_not_begun(capsys, monkeypatch):
    monkeypatch.setattr(visit, "run", lambda *rest: pytest.fail("began"))
    assert (
        visit.main(["steps", "--tiny", "--budget", "10"]) == 1
        and "out of time: ask for it again" in capsys.readouterr().out
    )


@pytest.mark.slow
@pytest.mark.parametrize("part", visit.parts(True))
def test_each_part_runs_to_its_end(part, capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "TINY_FOLDER", tmp_path)
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "runs"))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    assert visit.main([part, "--tiny", "--budget", "550"]) == 0
    assert re.search(rf"{part} +\d+  done", capfd.readouterr().out)
