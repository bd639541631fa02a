"""The benchmark of a training step: it runs, compares the nets before it times them, and writes
what it measured. No time is asserted."""

import io
import mmap
from contextlib import redirect_stdout
from functools import partial

import pytest
import torch

from benchmarks import contestants, parts, step
from benchmarks.contestants import PEER
from kernel_benchmarks import record


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a run of everything wrote and printed: a path, and text."""
    path, text = tmp_path_factory.mktemp("step") / "step.csv", io.StringIO()
    words = ["--tiny", "--device", "cpu", "--runs", "1", "--out", str(path)]
    with redirect_stdout(text):
        names = ("--implementations", "ours", "ours, no compiler")
        assert step.main(["steps", "parts", "pack", *names, *words]) == 0
    return path, text.getvalue()


def test_steps(run):
    path, text = run
    rows = step.latest("steps", False, path)
    assert tuple(rows[0]) == step.COLUMNS
    assert [row["implementation"] for row in rows] == ["ours", "ours, no compiler", PEER]
    for row in rows:
        assert row["images_per_s"] > 0 and row["peak_mb"] >= 0 and not row["note"]
    ratio = rows[2]["median_ms"] / rows[0]["median_ms"]
    assert rows[0]["ratio"] == pytest.approx(ratio, rel=1e-3)
    assert "torch layers" in text and f"rows: {path}" in text


def test_parts(run):
    rows = step.latest("parts", False, run[0])
    layers = [f"conv{i}" for i in range(1, 6)] + [f"fc{i}" for i in range(6, 9)]
    names = {f"{layer}, {what}" for layer in layers for what in ("sums", "rest")} - {"fc8, rest"}
    assert {row["implementation"] for row in rows} == names | {"update", "augmentation"}
    assert all(row["median_ms"] > 0 and row["floor_ms"] > 0 for row in rows)
    assert len(step.plot(rows).axes[0].patches) == 2 * len(rows)


def test_from_a_pack(run):
    one, streamed = step.latest("pack", False, run[0])
    names = (one["implementation"], streamed["implementation"], streamed["against"])
    assert names == ("one batch", "streamed", "one batch")
    ratio = one["median_ms"] / streamed["median_ms"]
    assert streamed["ratio"] == pytest.approx(ratio, rel=1e-3)


def test_the_last_rows_are_shown(run, tmp_path):
    earlier = step.latest("steps", False, run[0])
    later = [row | {"median_ms": row["median_ms"] + 1} for row in earlier]
    path = tmp_path / "step.csv"
    for rows in (earlier, later):
        record.append(path, rows, step.COLUMNS)
    times = [row["median_ms"] for row in step.latest("steps", False, path)]
    assert times == pytest.approx([row["median_ms"] for row in later], rel=1e-3)
    assert step.latest("steps", True, path) == []


@pytest.mark.skipif(contestants.resident("VmHWM") is None, reason="the system does not tell")
def test_the_most_memory_is_known_also_when_it_is_gone():
    contestants.forget_peak()
    before, piece = contestants.resident("VmRSS"), b"x" * 2**20
    # given back at once, whatever the allocator keeps; the system counts to some pages
    with mmap.mmap(-1, 72 * len(piece)) as pages:
        for _ in range(72):
            pages.write(piece)
    assert 64 <= contestants.resident("VmHWM") - before < 64 + 16
    contestants.forget_peak()
    assert contestants.resident("VmHWM") - before < 64


def test_the_nets_are_compared_first(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(contestants.Plain, "forward", lambda self, x: x.new_ones(len(x), 40))
    assert again(tmp_path, "steps", "--tiny") == 1
    assert "outputs differ" in capsys.readouterr().err
    assert not (tmp_path / "step.csv").exists()


@pytest.fixture
def pretended(monkeypatch):
    """Kinds that measure nothing; what was done of them."""
    cases = tuple(
        step.Case("full net", preset, 1.0, 64, batch, "fp32")
        for preset, batch in (("paper", 1), ("paper", 2), ("source", 1))
    )
    monkeypatch.setattr(step, "CPU", cases)
    done = []

    def pretend(kind, case, args):
        done.append((kind, case.preset, case.batch))
        names = ["streamed"]
        if kind == "steps":
            names = step.names(case, args.device, args.implementations)
        return [{"implementation": name} for name in names]

    monkeypatch.setattr(step, "KINDS", {kind: partial(pretend, kind) for kind in step.KINDS})
    return done


def again(tmp_path, *arguments):
    return step.main([*arguments, "--device", "cpu", "--out", str(tmp_path / "step.csv")])


def test_what_the_file_holds_is_not_measured_again(pretended, tmp_path, capsys):
    for _ in range(2):
        assert again(tmp_path, "steps", "pack", "--implementations", "ours") == 0
        assert len(pretended) == 6
    assert "6 of 6 were in" in capsys.readouterr().err
    assert again(tmp_path, "steps", "pack") == 0  # more contestants
    assert pretended[6:] == [
        ("steps", "paper", 1),
        ("steps", "paper", 2),
        ("steps", "source", 1),
    ]
    assert again(tmp_path, "pack", "--fresh") == 0 and len(pretended) == 12


def test_no_gradient_stays_for_the_next_call():
    """A step's update leaves none, so that backward passes write gradients and add to none."""
    net = contestants.AlexNet("paper", 10, 1 / 16, 64)
    stages, x = net.stages("conv3"), torch.randn(2, net.table[2].in_maps, 7, 7, requires_grad=True)
    leaves = parts.leaves([x, x], stages)
    assert len(leaves) == 1 + 2 * 2  # weights and biases of both columns
    for leaf in leaves:
        leaf.grad = torch.zeros_like(leaf)
    parts.both([lambda stage=stage: stage.weighted_sums(x, None) for stage in stages], leaves)
    assert not any(leaf.grad.any() for leaf in leaves)


def test_a_table_tells_of_another_commit():
    base = dict.fromkeys(step.COLUMNS, "") | dict.fromkeys(record.NUMBERS, 0.0)
    one, other = (
        base | {"case": "full net", "commit": "abc"},
        base | {"case": "pack", "commit": "def"},
    )
    assert "commit def" not in step.table([one]) and step.table([one, other, other]).endswith(
        "\npack: commit def"
    )


def test_a_contestant_that_dies_or_fails_is_a_finding(monkeypatch, tmp_path):
    def refused(case, name, stack):
        raise RuntimeError(f"no {name}\nand so on")

    monkeypatch.setattr(step, "on_cpu", refused)
    assert again(tmp_path, "--tiny", "--implementations", "ours", "--runs", "1") == 0
    notes = {
        row["implementation"]: row["note"]
        for row in step.latest("steps", False, tmp_path / "step.csv")
    }
    assert notes == {name: f"skipped: RuntimeError: no {name}" for name in ("ours", PEER)}


def test_who_takes_part():
    peers = [PEER, "torchvision"]
    compiled = [f"{name}, compiled" for name in ("ours", *peers)]
    ours = ["ours", "ours, again", "ours, no compiler"]
    assert step.names(step.CPU[1], "cpu") == [*ours, *peers, *compiled]
    assert step.names(step.CPU[0], "cpu") == [*ours, PEER, *compiled[:2]]
    assert step.names(step.GPU[0], "cuda") == [*ours[:2], "ours, graph", *peers, *compiled]
    assert step.names(step.GPU[2], "cuda") == [*ours[:2], "ours, graph", *peers]
    assert step.names(step.CPU[1], "cpu", ["ours"]) == ["ours", PEER]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "nonsense is none of steps, parts, pack"),
        (["--threads", "0"], "--threads: 0 is no whole number from 1 on"),
        (["--threads", "-1"], "--threads"),
        (["--runs", "0"], "--runs: 0 is no whole number"),
        (["--seconds", "nan"], "--seconds: nan is no number of seconds"),
        (["--implementations", "nosuch"], "nosuch is none of ours, "),
    ],
)
def test_bad_input(arguments, said, capsys):
    try:
        assert step.main([*arguments, "--tiny", "--device", "cpu"]) == 2
    except SystemExit as ended:
        assert ended.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
