"""The benchmark of a training step: it runs, compares the nets before it times them, and writes
what it measured. No time is asserted."""

import io
import mmap
from contextlib import redirect_stdout
from dataclasses import replace
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
        names = ("--implementations", "ours", "ours, bf16", "ours, no compiler")
        assert step.main(["steps", "parts", "pack", *names, *words]) == 0
    return path, text.getvalue()


def test_steps(run):
    path, text = run
    rows = step.latest("steps", False, path)
    assert tuple(rows[0]) == step.COLUMNS
    names = {row["implementation"]: row["precision"] for row in rows}
    fp32 = dict.fromkeys(("ours", "ours, no compiler", PEER), "fp32")
    assert names == fp32 | {"ours, bf16": "bf16"}
    for row in rows:
        assert row["images_per_s"] > 0 and row["peak_mb"] >= 0 and not row["note"]
        work = contestants.TINY.work(row["implementation"])
        assert row["floor_ms"] * row["peak_gflops"] * 1e6 == pytest.approx(work, rel=1e-3)
    ratio = rows[-1]["median_ms"] / rows[0]["median_ms"]
    assert rows[0]["ratio"] == pytest.approx(ratio, rel=1e-3)
    assert "torch layers" in text and f"rows: {path}" in text
    assert "ours, bf16, is" in text and "of the bound" in text


def test_parts(run):
    rows = step.latest("parts", False, run[0])
    layers = [f"conv{i}" for i in range(1, 6)] + [f"fc{i}" for i in range(6, 9)]
    names = {f"{layer}, {what}" for layer in layers for what in ("sums", "rest")} - {"fc8, rest"}
    assert {row["implementation"] for row in rows} == names | {"update", "augmentation"}
    assert all(row["median_ms"] > 0 and row["floor_ms"] > 0 for row in rows)
    assert len(step.plot(rows).axes[0].patches) == 2 * len(rows)


def test_parts_in_bfloat16():
    case = replace(contestants.TINY, precision="bf16")
    calls = {name: call for name, call, floor in parts.all_parts(case, "cpu") if floor > 0}
    for call in calls.values():
        call()
    assert len(calls) == 17


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
        step.Case("full net", preset, 1.0, 64, batch, "fp32", threads=1, everyone=batch == 1)
        for preset, batch in (("paper", 1), ("paper", 2), ("source", 1))
    )
    monkeypatch.setattr(contestants, "CPU", cases)
    done = []

    def pretend(kind, case, args):
        done.append((kind, case.preset, case.batch, case.precision, torch.get_num_threads()))
        if kind != "steps":
            return [{"implementation": "streamed"}]
        names = step.names(case, args.device, args.implementations)
        of = {name: contestants.CONTESTANTS[name].own(case).precision for name in names}
        return [{"implementation": name, "precision": precision} for name, precision in of.items()]

    monkeypatch.setattr(step, "KINDS", {kind: partial(pretend, kind) for kind in step.KINDS})
    return done


def again(tmp_path, *arguments):
    return step.main([*arguments, "--device", "cpu", "--out", str(tmp_path / "step.csv")])


def test_what_the_file_holds_is_not_measured_again(pretended, tmp_path, capsys):
    for _ in range(2):
        assert again(tmp_path, "steps", "pack", "--implementations", "ours") == 0
        assert len(pretended) == 7  # a pack's steps in both precisions, where everyone takes part
    assert "7 of 7 were in" in capsys.readouterr().err
    assert again(tmp_path, "steps", "pack") == 0  # more contestants
    assert pretended[7:] == [
        ("steps", "paper", 1, "fp32", 1),
        ("steps", "paper", 2, "fp32", 1),
        ("steps", "source", 1, "fp32", 1),
    ]
    assert again(tmp_path, "pack", "--fresh") == 0 and len(pretended) == 14


def test_threads_are_the_cases_own_or_those_of_the_option(pretended, tmp_path):
    with contestants.using_threads(None):  # so that the option's last no longer
        assert again(tmp_path, "--threads", "2", "--implementations", "ours") == 0
    assert [threads for *_, threads in pretended] == [2, 2, 2]
    rows = record.read(tmp_path / "step.csv", step.COLUMNS)
    assert {row["threads"] for row in rows} == {2}


def test_cases_of_a_cpu(monkeypatch):
    monkeypatch.setattr(contestants, "cores", lambda: 2)
    cases = contestants.cases("cpu", "steps")
    assert cases == list(contestants.CPU)
    for name, batches in (("full net", (32, 128)), ("default profile", (32, 128))):
        for batch in batches:
            own = [c for c in cases if (c.name, c.preset, c.batch) == (name, "paper", batch)]
            assert {case.threads for case in own} == {1, 2}
    kinds = {(c.name, c.preset, c.precision) for c in contestants.cases("cpu", "parts")}
    assert len(kinds) == len(contestants.cases("cpu", "parts")) == 8
    monkeypatch.setattr(contestants, "cores", lambda: 1)
    alone = contestants.cases("cpu", "steps")
    assert len(alone) == len(cases) - 5 and {case.threads for case in alone} == {1}
    assert sum(case.everyone for case in alone) == 4


def test_the_bound_of_either_net():
    """Multiply-accumulates of an image, by hand: all layers forward and twice back, conv1's
    gradient of the image left out."""
    case = contestants.Case("full net", "paper", 1.0, 224, 3, "fp32")
    ours, conv1 = 724_406_816, 55 * 55 * 96 * 11 * 11 * 3
    assert case.work("ours, bf16") == case.work(PEER) == 3 * 2 * (3 * ours - conv1)
    first = 55 * 55 * 64 * 11 * 11 * 3
    others = 27 * 27 * 192 * 64 * 25 + 13 * 13 * 9 * (384 * 192 + 256 * 384 + 256 * 256)
    others += 4096 * 9216 + 4096 * 4096 + 1000 * 4096
    assert case.work("torchvision") == 3 * 2 * (2 * first + 3 * others)


def test_what_bfloat16_brings_is_said():
    base = dict.fromkeys(step.COLUMNS, "") | dict.fromkeys(record.NUMBERS, 0.0)
    base |= {"case": "full net", "preset": "paper", "batch": 128.0, "threads": 1.0}
    names = {"ours": 8.0, "ours, bf16": 2.0, "torchvision, bf16": 3.0}
    rows = [base | {"implementation": n, "median_ms": t, "floor_ms": 1.0} for n, t in names.items()]
    rows.append(rows[0] | {"threads": 2.0, "median_ms": 99.0})
    assert step.table(rows).splitlines()[-1] == (
        "full net, paper, batch 128, threads 1: ours, bf16, is 4 times as fast as in fp32, "
        "1.5 times as fast as torchvision's in bf16, at 50% of the bound"
    )


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
    ours = ["ours", "ours, again", "ours, bf16", "ours, no compiler"]
    both = ["ours", "ours, bf16", *(f"{name}{half}" for name in peers for half in ("", ", bf16"))]
    small, full, *_ = contestants.CPU
    large = contestants.CPU[3]
    assert full.image_size == large.image_size == 224 and full.everyone and not large.everyone
    assert step.names(full, "cpu") == [*ours, *both[2:], *compiled]
    assert step.names(small, "cpu") == [*ours, *both[2:4], *compiled[:2]]
    assert step.names(large, "cpu") == both
    both_ways = ["ours, compiled", "ours, compiled graph", *compiled[1:]]
    assert step.names(step.GPU[0], "cuda") == [*ours[:2], "ours, graph", *peers, *both_ways]
    assert step.names(step.GPU[2], "cuda") == [*ours[:2], "ours, graph", *peers]
    assert step.names(full, "cpu", ["ours"]) == ["ours", PEER]


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
