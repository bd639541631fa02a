"""The benchmark of the time to an error: both train on the same images from the same weights, and
it writes what it measured. No time is asserted."""

import csv

import pytest

from alexnet.data import pictographs
from alexnet.experiments import jobs
from alexnet.profiles import load
from benchmarks import reach

PROFILE = """
extends: embedded
title: a few pictographs
source: [few]
width: 0.0625
batch_size: 12
rate: 0.002
epochs: 3
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder for ALEXNET_DATA."""
    folder = tmp_path_factory.mktemp("data")
    pictographs.write(folder / "few", classes=8, train=8, val=8, test=1, size=72, workers=1)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where the images are, once they are prepared."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def profiles(tmp_path, data, runs, monkeypatch):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "few.yml").write_text(PROFILE)
    monkeypatch.setenv("ALEXNET_PROFILES", str(tmp_path / "profiles"))
    monkeypatch.setenv("ALEXNET_RUNS", str(runs))
    monkeypatch.setenv("ALEXNET_DATA", str(data))


def few(out, *words):
    return reach.main(["--profile", "few", "--device", "cpu", "--out", str(out), *words])


def test_both_are_trained(profiles, tmp_path, capsys):
    out = tmp_path / "reach.csv"
    assert few(out, "--error", "1", "0", "--threads", "1") == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == reach.COLUMNS and [row["implementation"] for row in rows] == [
        "ours",
        "ours",
        reach.PEER,
        reach.PEER,
    ]
    for row in rows[::2]:  # any error at all is at most 1, after the first epoch
        assert float(row["epochs"]) == 1 and float(row["seconds"]) > 0 and not row["note"]
    assert {row["budget"] for row in rows} == {"3"}
    for row in rows[1::2]:
        assert not row["seconds"] and row["note"].startswith("not within 3 epochs; 0.")
    assert len(reach.latest(False, out)) == 4 and reach.latest(True, out) == []
    shown = capsys.readouterr().out
    assert "a few pictographs" in shown
    line = next(line.split() for line in shown.splitlines() if line.startswith("ours "))
    assert float(line[5]) == pytest.approx(
        float(rows[2]["seconds"]) / float(rows[0]["seconds"]), rel=6e-3
    )


def test_what_a_run_holds_already_is_not_trained_again(profiles, tmp_path, monkeypatch):
    out, begun = tmp_path / "reach.csv", []
    options = ["--profile", "few", "--error", "1", "--device", "cpu", "--seeds", "2"]
    options += ["--out", str(out)]

    def quick(name, stop_at=None):
        def train(config, splits, device):
            begun.append((name, config.seed))
            if begun[-1] == stop_at:
                raise KeyboardInterrupt
            return [(1.0, 2.0, 0.5)]

        return train

    monkeypatch.setattr(reach, "ours", quick("ours"))
    monkeypatch.setattr(reach, "theirs", quick("theirs", ("theirs", 1)))
    assert reach.main(options) == 130
    assert len(reach.latest(False, out)) == 2
    assert begun == [("ours", 0), ("theirs", 0), ("theirs", 1)]
    monkeypatch.setattr(reach, "theirs", quick("theirs"))
    assert reach.main(options) == 0 and begun[3:] == [("theirs", 1), ("ours", 1)]
    assert len(reach.latest(False, out)) == 4
    assert reach.main(options) == 0 and len(begun) == 5
    assert reach.main([*options, "--epochs", "2"]) == 0 and len(begun) == 9  # another run
    (tmp_path / "profiles" / "same.yml").write_text(PROFILE)
    assert reach.main(["--profile", "same", *options[2:]]) == 0 and len(begun) == 13
    last = reach.latest(False, out)
    kinds = [(row["profile"], row["budget"]) for row in last[::4]]
    assert kinds == [("few", 2), ("same", 3)] and len(last) == 8
    assert reach.table(last).count("a few pictographs") == 2
    assert reach.main([*options, "--fresh"]) == 0 and len(begun) == 17
    assert len(reach.latest(False, out)) == 8


def test_the_peer_learns_from_the_same_steps(profiles):
    """Without dropout, whose masks differ, the errors after each epoch are the same."""
    profile = load("few")
    config = jobs.base(profile, variant="/no-dropout")
    peer = reach.theirs(config, profile.splits(), "cpu")
    ours = reach.ours(config, profile.splits(), "cpu")
    assert [point[2] for point in peer] == pytest.approx([point[2] for point in ours], abs=0.02)
    assert [point[0] for point in peer] == [point[0] for point in ours] == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--profile", "nothing"], "nothing"),
        (["--profile", "cifar10"], "cifar10"),
        (["--error", "40"], "40 is no share of images"),
        (["--error", "half"], "half is no share of images"),
        (["--threads", "0"], "--threads: 0 is no whole number"),
        *((["--seeds", text], f"--seeds: {text} is no whole number") for text in ("0", "-2")),
        *(
            (["--epochs", text], f"--epochs: {text} is no whole number")
            for text in ("0", "-1", "nan", "inf", "0.4")
        ),
    ],
)
def test_bad_input(arguments, said, capsys, monkeypatch):
    monkeypatch.delenv("ALEXNET_DATA", raising=False)
    try:
        assert reach.main([*arguments, "--device", "cpu"]) == 2
    except SystemExit as ended:
        assert ended.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


def test_a_profiles_part_of_an_epoch_is_refused(profiles, tmp_path, capsys):
    (tmp_path / "profiles" / "few.yml").write_text(PROFILE.replace("epochs: 3", "epochs: 1.5"))
    assert few(tmp_path / "reach.csv") == 2
    assert "has 1.5 epochs" in capsys.readouterr().err
