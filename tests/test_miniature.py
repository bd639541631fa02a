"""ImageNet's profile, from the archives as they are distributed to the last table: one command, killed on the way and given again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alexnet.data import pictographs
from tests import archives

HERE = Path(__file__).parent
CLASSES, MORE = 8, 2  # of the larger set, and how many of them are no part of the task


def command(*arguments):
    return [sys.executable, "-m", "alexnet", *map(str, arguments)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("miniature")
    pictographs.write(root / "tree", classes=CLASSES, train=10, val=4, test=2, size=80, workers=1)
    (root / "data").mkdir()
    archives.ilsvrc2012_of(
        root / "tree", root / "data" / "ilsvrc2012", root / "data" / "fall11_whole.tar", MORE
    )
    (root / "profiles").mkdir()
    (root / "profiles" / "miniature.yml").write_text((HERE / "miniature.yml").read_text())
    return root


@pytest.fixture(scope="module")
def environment(place):
    own = {
        "ALEXNET_DATA": place / "data",
        "ALEXNET_PROFILES": place / "profiles",
        "ALEXNET_RUNS": place / "runs",
    }
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return (
        os.environ
        | threads
        | {name: str(path) for name, path in own.items()}
        | {"PYTHONPATH": str(HERE.parent)}
    )


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
        path.stem: json.loads(path.read_text()) for path in (runs / "results").glob("*.json")
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
