"""The benchmarks of the data's way: they run, compare pixels before they time, and write what they measured. No time is asserted."""

import csv
from collections import Counter

import pytest

from benchmarks import data, record
from tests.hostile import photograph
from tests.test_sources import tiny_imagenet


def run(tmp_path, *arguments):
    out = tmp_path / "data.csv"
    sizes = [
        "--count",
        12,
        "--size",
        32,
        "--rounds",
        1,
        "--most-workers",
        0,
        "--batch-size",
        8,
        "--device",
        "cpu",
    ]
    assert data.main([str(a) for a in (*sizes, "--out", out, "--work", tmp_path, *arguments)]) == 0
    assert list(tmp_path.glob("tmp*")) == []
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def test_prepare_and_feed(tmp_path, capsys):
    rows = run(tmp_path)
    assert tuple(rows[0]) == data.COLUMNS
    cases = {"prepare": 8, "encoding": 3, "gather, one core": 2, "feed uint8": 4, "feed floats": 3}
    assert Counter(row["case"] for row in rows) == cases
    assert all(float(row["images_per_s"] or row["value"]) > 0 for row in rows)
    ratios = {
        (row["case"], row["implementation"], row["size"]): row for row in rows if row["ratio"]
    }
    assert float(ratios["prepare", "ours, 2 workers", "32"]["wanted"]) == 1.7
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


def test_memory(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(3):
        photograph(64, 64, i).save(tmp_path / "images" / f"{i}.jpg")
    rows = run(tmp_path, "memory", "--images", tmp_path / "images", "--counts", 200, 230)
    assert [row["images"] for row in rows] == ["200"] * 3 + ["230"] * 3 + [""]
    assert 20 < float(rows[0]["value"]) < 300 and float(rows[1]["value"]) > 20


def test_what_a_gpu_would_be_asked(tmp_path):
    rows = run(tmp_path, "gpu", "--size", 72)
    assert {row["case"] for row in rows} == {"gpu, on a CPU"} and len(rows) == 4


def test_pixels_are_compared_first(tmp_path, monkeypatch):
    def other(*command):
        alone(
            *(
                16 if word == 32 and "benchmarks.pillow_loop" in command else word
                for word in command
            )
        )

    alone = data.alone
    monkeypatch.setattr(data, "alone", other)
    with pytest.raises(RuntimeError, match="different pixels"):
        run(tmp_path, "prepare")
    assert (
        not (tmp_path / "data.csv").exists()
        and record.read(tmp_path / "data.csv", data.COLUMNS) == []
    )
