"""A new activation and its ablation arm, added in a copy of the repository: what is added is
counted, and the command trains that arm only."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import miniature_data

ROOT = Path(__file__).resolve().parents[1]
PROFILE = """extends: miniature
epochs: 1
ablations: {arms: [full, no-lrn]}
"""
# the places that are touched: a file, what stands there, and what stands there afterwards
EDITS = [
    ("alexnet/presets/operations.py", '"tanh": "tanh"', '"tanh": "tanh", "gelu": "GELU"'),
    (
        "alexnet/experiments/ablations.py",
        '    "no-crops": Arm(',
        '    "gelu": Arm("/gelu", "GELU for every ReLU"),\n    "no-crops": Arm(',
    ),
    ("profiles/arms.yml", "no-lrn]", "no-lrn, gelu]"),
]


@pytest.fixture
def place(tmp_path):
    """A copy of the repository beside data and profiles."""
    miniature_data.make(tmp_path)
    (tmp_path / "profiles" / "arms.yml").write_text(PROFILE)
    (tmp_path / "repository" / "book").mkdir(parents=True)
    for part in ("alexnet", "kernels"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, tmp_path / "repository" / part, ignore=ignore)
    return tmp_path


def reproduce(place):
    command = [sys.executable, "-m", "alexnet", "reproduce", "--profile", "arms"]
    command += ["--only", "ablations", "--archive"]
    environment = miniature_data.environment(place, place / "repository")
    done = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def archive(place):
    folder = place / "repository" / "results" / "arms" / "ablations"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def models(place):
    paths = (place / "runs" / "arms" / "models").glob("*/config.json")
    return {json.loads(path.read_text())["preset"]: path.stat().st_mtime_ns for path in paths}


def test_a_new_arm_touches_three_places_and_trains_itself_only(place):
    assert "2 models to train" in reproduce(place)
    before, trained = archive(place), models(place)
    assert set(before) == {"full-0.json", "no-lrn-0.json"}

    assert len(EDITS) <= 3
    for name, old, new in EDITS:
        file = (place if name.startswith("profiles/") else place / "repository") / name
        text = file.read_text()
        assert text.count(old) == 1, name
        file.write_text(text.replace(old, new))

    assert "1 model to train: " in reproduce(place)
    after = archive(place)
    assert set(after) == {*before, "gelu-0.json"} and before.items() <= after.items()
    assert models(place).keys() - trained.keys() == {"paper/sigma-0.03/gelu"}
    assert trained.items() <= models(place).items()
    seconds = json.loads(after["gelu-0.json"])["provenance"]["seconds"]
    assert seconds["training"] > 0 and seconds["measuring"] > 0
    (part,) = json.loads(after["gelu-0.json"])["provenance"]["training"]
    assert part["run"] in {path.name for path in (place / "runs").rglob("models/*")}
    assert part["hardware"]["processor"] and part["versions"]["torch"] and part["steps"] > 0
