"""The benchmarks of the data's way: they run, compare pixels before they time, and write what they
measured. No time is asserted."""

import csv
from collections import Counter

import pytest

from benchmarks import data
from kernel_benchmarks import record, runner
from tests.test_sources import tiny_imagenet


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(data, "WARM_UP", 0)
    monkeypatch.setattr(runner, "WARM_SECONDS", 0)


def run(tmp_path, *arguments, status=0):
    out = tmp_path / "data.csv"
    sizes = "--count 12 --size 32 --runs 1 --most-workers 0 --device cpu".split()
    words = (*sizes, "--out", out, "--work", tmp_path, *arguments)
    assert data.main(list(map(str, words))) == status
    assert list(tmp_path.glob("tmp*")) == []
    return list(csv.DictReader(out.open(newline=""))) if out.exists() else []


def test_prepare_and_feed(tmp_path, capsys):
    rows = run(tmp_path)
    assert tuple(rows[0]) == data.COLUMNS
    cases = {"prepare": 8, "encoding": 3, "gather, one core": 2, "feed uint8": 4, "feed floats": 3}
    assert Counter(row["case"] for row in rows) == cases
    assert all(float(row["images_per_s"] or row["value"]) > 0 for row in rows)
    ratios = {
        (row["case"], row["implementation"], row["size"]): row for row in rows if row["ratio"]
    }
    assert float(ratios["prepare", "ours, 2 workers", "32"]["target"]) == 1.7
    assert ratios["feed floats", "ours, raw", "32"]["against"] == "torchvision, 0 workers"
    assert "ours, raw, crops" in capsys.readouterr().out


def test_the_real_case_in_small(tmp_path):
    images = tmp_path / "tiny"
    tiny_imagenet(images)
    rows = run(tmp_path, "tiny", "--images", images)
    assert [row["case"] for row in rows] == [
        f"Tiny ImageNet, {step}" for step in ("prepare", "verify", "load")
    ] * 2
    assert {row["images"] for row in rows} == {"5"} and rows[0]["note"].startswith(
        "0 rejected; train "
    )


def test_pixels_are_compared_first(tmp_path, capsys, monkeypatch):
    def other(*command):
        smaller = "benchmarks.pillow_loop" in command
        program(*(16 if smaller and word == 32 else word for word in command))

    program = data.program
    monkeypatch.setattr(data, "program", other)
    run(tmp_path, "prepare", status=1)
    assert "different pixels" in capsys.readouterr().err
    assert record.read(tmp_path / "data.csv", data.COLUMNS) == []


def test_images_are_needed(tmp_path, capsys):
    run(tmp_path, "tiny", status=2)
    assert "name Tiny ImageNet's folder by --images" in capsys.readouterr().err
