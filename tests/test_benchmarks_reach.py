"""The benchmark of the time to an error: both train on the same images from the same weights, and it writes what it found. No time is
asserted."""

import csv

import pytest

from alexnet.experiments import models
from alexnet.profiles import load
from benchmarks import reach

PROFILE = """
extends: embedded
title: a few pictographs
width: 0.0625
batch_size: 12
rate: 0.002
epochs: 3
limit: 6
"""


@pytest.fixture
def profiles(tmp_path, monkeypatch):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "few.yml").write_text(PROFILE)
    monkeypatch.setenv("ALEXNET_PROFILES", str(tmp_path / "profiles"))
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "runs"))


def test_both_are_trained(profiles, tmp_path, capsys):
    out = tmp_path / "reach.csv"
    assert reach.main(["--profile", "few", "--error", "1", "0", "--device", "cpu", "--threads", "1", "--out", str(out)]) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == reach.COLUMNS and [row["implementation"] for row in rows] == ["ours", "ours", reach.PEER, reach.PEER]
    for row in rows[::2]:  # any error at all is at most 1, after the first epoch
        assert float(row["epochs"]) == 1 and float(row["seconds"]) > 0 and not row["note"]
    assert float(rows[0]["ratio"]) == pytest.approx(float(rows[2]["seconds"]) / float(rows[0]["seconds"]), rel=1e-3)
    for row in rows[1::2]:
        assert not row["seconds"] and row["note"].startswith("not within 3 epochs; 0.")
    assert list((tmp_path / "runs" / "few" / "benchmarks").rglob("*.json*")) == []  # nothing that a second run would find
    assert len(reach.latest(False, out)) == 4 and reach.latest(True, out) == []
    assert "a few pictographs" in capsys.readouterr().out


def test_the_peer_learns_from_the_same_steps(profiles):
    """Without dropout, whose masks differ, the errors after each epoch are the same."""
    profile = load("few")
    config = models.base(profile, variant="/no-dropout")
    there = reach.theirs(config, profile.splits(), "cpu")
    here = reach.ours(config, profile.splits(), "cpu", profile.runs / "run")
    assert [point[2] for point in there] == pytest.approx([point[2] for point in here], abs=0.02)
    assert [point[0] for point in there] == [point[0] for point in here] == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--profile", "nothing"], "nothing"), (["--profile", "cifar10"], "cifar10"), (["--error", "40"], "40 is no share of images")],
)
def test_bad_input(arguments, said, capsys, monkeypatch):
    monkeypatch.delenv("ALEXNET_DATA", raising=False)
    try:
        assert reach.main([*arguments, "--device", "cpu"]) == 2
    except SystemExit as ended:
        assert ended.code == 2
    assert said in capsys.readouterr().err
