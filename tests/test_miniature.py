"""ImageNet's profile, from the archives as they are distributed to the last table: one command,
killed on the way and given again."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from alexnet import experiments
from tests import miniature_data
from tests.miniature_data import CLASSES, MORE


def command(*arguments):
    return [sys.executable, "-m", "alexnet", *map(str, arguments)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return miniature_data.make(tmp_path_factory.mktemp("miniature"))


@pytest.fixture(scope="module")
def environment(place):
    return miniature_data.environment(place)


def killed_after_some_models(arguments, environment, runs, models):
    """Ends the command, and its workers, when so many models are there."""
    with subprocess.Popen(
        arguments,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        while process.poll() is None and len(list(runs.glob("models/*/summary.json"))) < models:
            time.sleep(0.2)
        assert process.poll() is None, process.stdout.read().decode()
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_from_archives_to_tables(place, environment):
    runs = place / "runs" / "miniature"
    arguments = command("reproduce", "--profile", "miniature")
    killed_after_some_models(arguments, environment, runs, 5)
    before = {
        path.parent.name: path.stat().st_mtime_ns for path in runs.glob("models/*/summary.json")
    }
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    after = {
        path.parent.name: path.stat().st_mtime_ns for path in runs.glob("models/*/summary.json")
    }
    assert before.items() <= after.items()  # nothing was trained twice
    results = {
        path.name: experiments.load(path.name, runs / "results")
        for path in (runs / "results").iterdir()
    }
    assert {"ablations", "recipe", "figure3", "figure4", "table1", "table2", "throughput"} == set(
        results
    )
    assert all(
        result["data"]["title"] == "ILSVRC-2012, a miniature of drawn shapes"
        for result in results.values()
    )
    two = results["table2"]["metrics"]
    assert (
        set(two["nets"]) == {"SIFT + FVs", "1 CNN", "5 CNNs", "1 CNN*", "7 CNNs*"}
        and not two["test"]
    )
    assert (
        two["test_left_out"] == "its labels are not public"
        and two["pretraining"]["classes"] == CLASSES
    )
    text = (runs / "notebooks" / "06-results.ipynb").read_text()
    for row, paper in (("SIFT + FVs", "45.7"), ("5 CNNs", "38.1"), ("7 CNNs*", "36.7")):
        assert row in text and paper in text
    assert "miniature" in done.stdout


@pytest.mark.slow
def test_a_file_for_the_server(place, environment):
    """Of the nets that the command above has trained."""
    runs = place / "runs" / "miniature"
    nets = sorted(
        path.parent
        for path in runs.glob("models/*/summary.json")
        if '"conv6' not in path.read_text()
    )
    same = [
        net
        for net in nets
        if json.loads((net / "config.json").read_text())["preset"] == "paper/sigma-0.03"
    ][:2]
    if not same:
        pytest.skip("the nets are made by test_from_archives_to_tables")
    pack = next(path.parent for path in (runs / "data").glob("images-*/test"))
    file = place / "submission.txt"
    done = subprocess.run(
        command("evaluate", *same, "--data", pack, "--submission", file),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [[int(word) for word in line.split()] for line in file.read_text().splitlines()]
    assert len(lines) == 2 * CLASSES and all(
        len(set(line)) == 5 and set(line) <= set(range(1, CLASSES - MORE + 1)) for line in lines
    )
