"""A visit to a GPU, rehearsed: programs end well, badly or by their limit, and each part's commands run at sizes that mean nothing."""

import os
import re
import sys

import pytest

from benchmarks import visit


def python(code):
    return visit.run([sys.executable, "-c", code], 2, dict(os.environ))


def test_a_program_is_done_or_failed_or_stopped_as_by_ctrl_c(monkeypatch, tmp_path):
    assert python("pass") == "done" and python("raise SystemExit(5)") == "done" and python("raise SystemExit(1)") == "failed"
    kept = tmp_path / "kept"
    patient = f"import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: open({str(kept)!r}, 'w').close()"
    assert python(patient) == "out of time: ask for it again" and kept.exists()
    monkeypatch.setattr(visit, "RESERVE", 1)
    stubborn = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    assert python(stubborn) == "out of time: ask for it again"


def test_a_part_that_is_not_there_and_a_gpu_that_is_not(capsys):
    assert visit.main(["lunch", "--tiny"]) == 2 and "there are check, operators, steps, data, ranks, images" in capsys.readouterr().err
    if not visit.torch.cuda.is_available():
        assert visit.main(["steps"]) == 2 and "--tiny rehearses without one" in capsys.readouterr().err


def test_what_has_no_time_left_is_not_begun(capsys, monkeypatch):
    monkeypatch.setattr(visit, "run", lambda *rest: pytest.fail("began"))
    assert visit.main(["steps", "--tiny", "--budget", "10"]) == 1 and "out of time: ask for it again" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("part", visit.parts(True, 60))
def test_each_part_runs_to_its_end(part, capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(visit.script, "TINY_FOLDER", tmp_path)
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "runs"))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    assert visit.main([part, "--tiny", "--budget", "550"]) == 0
    assert re.search(rf"{part} +\d+  done", capfd.readouterr().out)
