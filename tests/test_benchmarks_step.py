"""The benchmark of a training step: it runs, compares the nets before it times them, and writes what it measured. No time is asserted."""

import csv
import mmap

import pytest

from benchmarks import step


def run(tmp_path, *arguments):
    out = tmp_path / "step.csv"
    assert step.main([*arguments, "--tiny", "--device", "cpu", "--runs", "1", "--out", str(out)]) == 0
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def test_steps(tmp_path, capsys):
    rows = run(tmp_path, "steps", "--implementations", "ours", "ours, no compiler")
    assert tuple(rows[0]) == step.COLUMNS
    assert [row["implementation"] for row in rows] == ["ours", "ours, no compiler", step.PEER]
    assert all(float(row["images_per_s"]) > 0 and float(row["peak_mb"]) >= 0 and not row["note"] for row in rows)
    assert float(rows[0]["ratio"]) == pytest.approx(float(rows[2]["median_ms"]) / float(rows[0]["median_ms"]), rel=1e-3)
    assert "torch layers" in capsys.readouterr().out


def test_parts(tmp_path):
    rows = run(tmp_path, "parts")
    layers = [f"{kind}{i}" for kind, numbers in (("conv", range(1, 6)), ("fc", range(6, 9))) for i in numbers]
    names = {f"{layer}, {what}" for layer in layers for what in ("sums", "rest")} - {"fc8, rest"}
    assert {row["implementation"] for row in rows} == names | {"update", "augmentation"}
    assert all(float(row["median_ms"]) > 0 and float(row["floor_ms"]) > 0 for row in rows)


def test_from_a_pack(tmp_path):
    one, streamed = run(tmp_path, "pack")
    assert (one["implementation"], streamed["implementation"], streamed["against"]) == ("one batch", "streamed", "one batch")
    assert float(streamed["ratio"]) == pytest.approx(float(one["median_ms"]) / float(streamed["median_ms"]), rel=1e-3)


@pytest.mark.skipif(step.resident("VmHWM") is None, reason="the system does not tell")
def test_the_most_memory_is_told_also_when_it_is_gone():
    step.forget_peak()
    before, size = step.resident("VmRSS"), 64 * 2**20
    with mmap.mmap(-1, size) as memory:
        memory.write(b"x" * size)
    assert 64 <= step.resident("VmHWM") - before < 2 * 64 + 16  # the bytes written are as many again
    step.forget_peak()
    assert step.resident("VmHWM") - before < 64


def test_the_last_rows_are_shown(tmp_path):
    for _ in range(2):
        rows = run(tmp_path, "steps", "parts", "--implementations", "ours")
    path = tmp_path / "step.csv"
    found = {kind: step.latest(kind, False, path) for kind in ("steps", "parts")}
    last = rows[len(rows) // 2 :]
    assert [row["median_ms"] for kind in found.values() for row in kind] == [step.number(row["median_ms"]) for row in last]
    assert step.latest("steps", True, path) == [] and "torch layers" in step.table(found["steps"])
    assert len(step.plot(found["parts"]).axes[0].patches) == 2 * len(found["parts"])


def test_the_nets_are_compared_first(tmp_path, monkeypatch):
    monkeypatch.setattr(step.Plain, "forward", lambda self, x: x.new_ones(len(x), 40))
    with pytest.raises(RuntimeError, match="outputs differ"):
        run(tmp_path, "steps")
    assert not (tmp_path / "step.csv").exists()


def test_bad_input(tmp_path, capsys):
    assert step.main(["nonsense"]) == 2 and "there is no nonsense" in capsys.readouterr().err
