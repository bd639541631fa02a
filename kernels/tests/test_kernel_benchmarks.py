"""The operators' benchmarks: what they count, check, write and print. No time is asserted."""

import argparse
import math
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import alexnet_kernels as kernels
from kernel_benchmarks import (
    chart,
    crop_flip_color,
    cudnn_lrn,
    local_response_norm,
    max_pool,
    measure,
    momentum_step,
    operators,
    record,
    report,
    response_norm_pool,
    runner,
    same_map_norm,
)
from kernel_benchmarks.record import InputError

CONV1 = (96, 55, 55)


# --- floors, against numbers worked out by hand ---


@pytest.mark.parametrize(
    ("operator", "dims", "batch", "itemsize", "floor"),
    [
        # 290,400 numbers an image, 2 bytes each, twice and three times
        (local_response_norm, CONV1, 1, 2, {"forward": 1_161_600, "backward": 1_742_400}),
        (
            local_response_norm,
            CONV1,
            1024,
            2,
            {"forward": 1_189_478_400, "backward": 1_784_217_600},
        ),
        (same_map_norm, (256, 27, 27), 1, 4, {"forward": 1_492_992, "backward": 2_239_488}),
        # 69,984 maxima, 2 bytes each and one for the place
        (max_pool, CONV1, 1, 2, {"forward": 790_752, "backward": 790_752}),
        (max_pool, (256, 13, 13), 1, 4, {"forward": 219_136, "backward": 219_136}),
        (response_norm_pool, CONV1, 1, 2, {"forward": 790_752, "backward": 1_371_552}),
        # 150,528 numbers: a byte in, two out; the mean image is 256 x 256 x 3 floats
        (crop_flip_color, (256, 224), 128, 2, {"forward": 128 * 451_584 + 786_432}),
        (momentum_step, (1,), 0, 4, {"forward": 60_965_224 * 20}),
    ],
)
def test_floors(operator, dims, batch, itemsize, floor):
    assert operator.floor(dims, batch, itemsize) == floor


# --- the checks ---


def test_error_is_that_of_the_worst_map():
    expected = torch.ones(2, 100, 3, 3, dtype=torch.float64)
    got = expected.float()
    assert measure.error(got, expected) == 0
    got[:, 99] *= 1.5
    assert measure.error(got, expected) == pytest.approx(0.5)
    got[0, 0, 0, 0] = math.nan
    assert math.isnan(measure.error(got, expected))
    assert math.isnan(measure.error(got[:1], expected))
    assert math.isnan(measure.worst([0.1, math.nan, 0.2]))


def test_the_reference_in_parts_is_the_reference():
    x, dy, bias = (
        torch.randn(shape, dtype=torch.float64) for shape in [(5, 4, 3, 3), (5, 4, 3, 3), (4,)]
    )

    def f(x: Tensor, bias: Tensor) -> Tensor:
        return (x + bias.view(1, -1, 1, 1)) ** 2

    y, dx, dbias = measure.in_float64(f, x, dy, bias, images=2)
    full = 2 * (x + bias.view(1, -1, 1, 1)) * dy
    torch.testing.assert_close((y, dx, dbias), (f(x, bias), full, full.sum((0, 2, 3))))


def test_the_lrn_reference_is_torchs_within_each_column():
    x = torch.randn(2, 12, 3, 3, dtype=torch.float64) * 100
    halves = [
        torch.nn.functional.local_response_norm(half, 5, 5e-4, 0.75, 2.0) for half in x.chunk(2, 1)
    ]
    torch.testing.assert_close(
        local_response_norm.reference(x, 2), torch.cat(halves, 1), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(
        local_response_norm.reference(x, 1), local_response_norm.eager(x), rtol=1e-12, atol=0
    )


def test_a_window_that_stays_in_the_wrong_column_is_far_beyond_every_tolerance():
    x = torch.randn(2, 96, 10, 10, dtype=torch.float64) * 100
    assert measure.error(
        local_response_norm.reference(x, 1), local_response_norm.reference(x, 2)
    ) > 5 * max(measure.TOLERANCE.values())


def test_close_races():
    y = torch.tensor([1.0, 2.0, 3.0, 9.0, 8.0, 4.0, 5.0, 6.0, 7.0]).view(1, 1, 3, 3)
    assert not response_norm_pool.close_race(y, 0.1).item()
    assert response_norm_pool.close_race(y, 0.12).item()


def test_saved_bytes_counts_each_piece_of_memory_once():
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    assert measure.saved_bytes(lambda: x * x) == 480
    assert (
        measure.saved_bytes(lambda: torch.max_pool2d(x, 3, 2)) == 480 + 12 * 8
    )  # x, and torch's int64 for each maximum
    assert measure.saved_bytes(lambda: kernels.max_pool(x)) == 12  # a byte for each


# --- the run ---


SOME = ("ours", "ours, again", "ours, composite", "torch", "torchvision", "SGD, fused")


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(runner, "WARM_SECONDS", 0)


def run(out, *words, names=SOME):
    return operators.main(
        [*words, "--device", "cpu", "--tiny", "--implementations", *names, "--out", str(out)]
    )


def test_everything_is_measured_and_shown(tmp_path, capsys):
    assert run(tmp_path, "--seed", "3") == 0
    out = capsys.readouterr().out
    for name, operator in operators.OPERATORS.items():
        rows = record.read(tmp_path / f"{name}.csv")
        assert {(row["operator"], row["layer"]) for row in rows} == {
            (name, layer) for layer in operator.TINY
        }
        timed = [row for row in rows if row["median_ms"]]
        assert {"ours", "ours, again", "torch", "copy"} <= {row["implementation"] for row in timed}
        one_way = name in ("crop_flip_color", "momentum_step")
        directions = {"forward"} if one_way else {"forward", "backward", "both"}
        assert {row["direction"] for row in timed} == directions
        for row in timed:
            assert row["p20_ms"] <= row["median_ms"] <= row["p80_ms"]
            assert row["runs"] == 2 and row["seed"] == "3"
            rate = row["floor_bytes"] / row["median_ms"] / 1e6
            assert row["gb_per_s"] == pytest.approx(rate, rel=1e-3)
            assert row["implementation"] == "copy" or row["error"] <= 1e-4
        assert {row["source"] for row in rows} == {record.source_digest()}
        assert {row["torch"] for row in rows} == {torch.__version__}
        assert all(row["processor"] for row in rows)
        assert f"{name}, " in out
    assert "ours, again" in out and f"rows: {tmp_path}" in out


def test_a_wrong_implementation_is_reported_and_not_timed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(kernels, "max_pool", torch.nn.functional.avg_pool2d)
    assert run(tmp_path, "max_pool", names=["ours"]) == 0
    rows = record.read(tmp_path / "max_pool.csv")
    wrong = [row for row in rows if row["implementation"] == "ours"]
    assert [row["layer"] for row in wrong] == ["conv1", "conv2", "conv5"]
    for row in wrong:
        assert row["median_ms"] is None and row["note"].startswith("wrong, not timed")
    assert "wrong, not timed" in capsys.readouterr().out


def test_an_implementation_that_cannot_run_is_skipped_with_the_reason(tmp_path, monkeypatch):
    def refuse(*args):
        raise RuntimeError("no compiler\nand so on")

    monkeypatch.setattr(kernels, "max_pool", refuse)
    assert run(tmp_path, "max_pool", names=["ours", "torch"]) == 0
    rows = record.read(tmp_path / "max_pool.csv")
    notes = {row["note"] for row in rows if row["implementation"] == "ours"}
    assert notes == {"skipped: RuntimeError: no compiler"}
    assert any(row["median_ms"] for row in rows if row["implementation"] == "torch")


def test_a_run_goes_on_where_it_ended(tmp_path, capsys, monkeypatch):
    done = []

    def pretend(case, *rest):
        if len(done) == 2 and stop:
            raise KeyboardInterrupt
        done.append(str(case))
        return [{"implementation": "ours", "note": "pretended", "copy_gb_per_s": 1.0}]

    monkeypatch.setattr(measure, "measure", pretend)
    some = ("local_response_norm", "max_pool")
    stop = True
    assert run(tmp_path, *some) == 130
    first = done.copy()
    assert [case.split()[1] for case in first] == ["conv1", "conv1"]  # what matters most
    stop = False
    assert run(tmp_path, *some) == 0
    assert len(done) == 5 and not set(done[2:]) & set(first)
    captured = capsys.readouterr()
    assert "2 of 5 were in the files already" in captured.err
    assert captured.out.rstrip().splitlines()[-1].startswith("CPU")
    assert captured.out.count("not measured") == len(operators.GPU_TARGETS + operators.CPU_TARGETS)
    assert run(tmp_path, *some, "--fresh") == 0 and len(done) == 10


def test_a_failed_case_leaves_the_others_their_turn(tmp_path, capsys):
    def fail():
        raise RuntimeError("out of memory")

    def task(name, measured):
        return runner.Task(name, {"operator": name}, measured, tmp_path / "rows.csv")

    tasks = [task("large", fail), task("small", lambda: [{"note": "well"}])]
    args = argparse.Namespace(fresh=False, limit=math.inf)
    origin = dict.fromkeys(record.ORIGIN)
    assert runner.run(tasks, record.COLUMNS, origin, args)[1] == ["large"]
    assert "large failed: RuntimeError: out of memory" in capsys.readouterr().err
    (row,) = record.read(tmp_path / "rows.csv")
    assert row["operator"] == "small" and row["note"] == "well"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["lunch"], "lunch is none of local_response_norm, "),
        (["--batch", "0"], "--batch: 0 is no whole number from 1 on"),
        (["local_response_norm", "--out", __file__], "cannot be written"),
    ],
)
def test_bad_input_is_one_line(argv, message, capsys):
    try:
        assert operators.main([*argv, "--device", "cpu"]) == 2
    except SystemExit as ended:
        assert ended.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


@pytest.mark.parametrize("out", ["/proc/rows", "/dev/null", __file__])
def test_where_nothing_can_be_written_nothing_is_measured(out, capsys, monkeypatch):
    monkeypatch.setattr(measure, "measure", lambda *rest: pytest.fail("began"))
    assert run(out, "max_pool") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {out}") and "--out" in line


def test_the_benchmarks_know_nothing_of_alexnet():
    code = "import sys; sys.modules.update(alexnet=None, tqdm=None, matplotlib=None)\n"
    code += "from kernel_benchmarks import chart, operators"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True)


# --- rows, files, tables ---


def row(**values):
    blank = dict.fromkeys(record.COLUMNS)
    usual = {
        "operator": "local_response_norm",
        "layer": "conv1",
        "shape": "96x55x55",
        "batch": 1024,
        "dtype": "bf16",
        "method": "cold",
    }
    usual |= {
        "layout": "nhwc",
        "direction": "forward",
        "device": "NVIDIA H200",
        "cuda": "13.0",
        "torch": "2.15.0",
        "copy_gb_per_s": 4300.0,
    }
    usual |= {"implementation": "ours", "busy_percent": 0.0, "note": "", "percent_of_copy": 50.0}
    return blank | usual | values


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "deep" / "rows.csv"
    record.append(path, [row(median_ms=0.123456789)])
    record.append(path, [row(note='skipped: "quoted", with a comma'), row(median_ms=2.0)])
    first, second, third = record.read(path)
    assert first["median_ms"] == 0.12346 and first["batch"] == 1024 and first["time"].endswith("Z")
    assert (
        second["median_ms"] is None
        and second["note"] == 'skipped: "quoted", with a comma'
        and third["median_ms"] == 2
    )
    assert [file.name for file in path.parent.iterdir()] == ["rows.csv"]
    assert record.read(tmp_path / "absent.csv") == []


def test_the_machine_is_named_without_git_and_without_a_driver(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    machine = record.machine("cpu")
    assert (
        (machine["commit"], machine["dirty"]) == ("unknown", "unknown")
        and machine["processor"]
        and record.nvidia_smi("clocks.sm") == ""
    )
    assert record.machine("cpu", "abc")["commit"] == "abc"
    assert len(machine["source"]) == 12


def test_a_file_that_is_not_ours_is_left_alone(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="other columns"):
        record.append(path, [row()])
    assert path.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[:-1], "line 3: cut off at its end"),
        (
            lambda text: text[: text.rindex("local_response_norm") + len("local_response_norm,")],
            "line 3: 19 fields of 40",
        ),
        (lambda text: text + "\n", "line 4: 0 fields of 40"),
        (
            lambda text: text.replace(",2,", ",two,"),
            "line 3: could not convert string to float: 'two'",
        ),
        (lambda text: "\udcff\udcfe" + text, "codec can't decode byte 0xff"),
    ],
)
def test_a_damaged_file_is_left_alone(tmp_path, damage, said):
    path = tmp_path / "rows.csv"
    record.append(path, [row(median_ms=1.0), row(median_ms=2.0)])
    path.write_text(broken := damage(path.read_text()), errors="surrogateescape")
    for work in (record.read, lambda path: record.append(path, [row()])):
        with pytest.raises(InputError, match=re.escape(said)) as caught:
            work(path)
        assert str(path) in str(caught.value) and "--out" in str(caught.value)
    assert path.read_text(errors="surrogateescape") == broken


def test_a_full_disk_is_an_error_and_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    record.append(path, [row(median_ms=1.0)])
    before = path.read_text()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alexnet_kernels.files.os.fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        record.append(path, [row(median_ms=2.0)])
    assert path.read_text() == before and len(list(tmp_path.iterdir())) == 1


def test_table():
    assert (
        report.table([["name ", "ms"], ["a", "10.5"], ["long", "3"]])
        == "name    ms\n----------\na     10.5\nlong     3"
    )


def test_summary():
    rows = [
        row(median_ms=0.3, percent_of_copy=90.0, saved_bytes=5e8, error=1e-3),
        row(median_ms=0.3, percent_of_copy=90.0, implementation="ours", layout="nchw"),
        row(median_ms=3.0, percent_of_copy=9.0, implementation="torch"),
        row(median_ms=2.4, percent_of_copy=11.0, implementation="torch", layout="nchw"),
        row(
            implementation="cudnn",
            direction=None,
            method=None,
            note="skipped: CUDNN_STATUS_NOT_SUPPORTED",
        ),
    ]
    text = report.summary(rows)
    case = "local_response_norm, conv1 96x55x55, batch 1024, bf16"
    assert "copy: 4300 GB/s" in text
    assert f"{case}, cudnn nhwc: skipped: CUDNN_STATUS_NOT_SUPPORTED" in text
    lines = [re.split(r"  +", line)[1:] for line in text.splitlines() if line.startswith(case)]
    assert lines[:4] == [
        ["ours", "nhwc", "forward", "cold", "0.3", "90", "1", "5e+08", "0.001"],
        ["ours", "nchw", "forward", "cold", "0.3", "90", "1"],
        ["torch", "nhwc", "forward", "cold", "3", "9", "0.1"],
        ["torch", "nchw", "forward", "cold", "2.4", "11", "0.125"],
    ]
    assert report.summary([]) == "Nothing was measured."


def test_chart(tmp_path):
    record.append(
        tmp_path / "max_pool.csv", [row(operator="max_pool", device="older", median_ms=9.0)]
    )
    rows = [
        row(median_ms=0.3, percent_of_copy=90.0),
        row(median_ms=0.2, percent_of_copy=95.0, layout="nchw"),  # ours counts in its first layout
        row(median_ms=3.0, percent_of_copy=9.0, implementation="torch"),
        row(
            median_ms=2.4, percent_of_copy=11.25, implementation="torch", layout="nchw"
        ),  # a peer in its fastest
        row(median_ms=0.3, percent_of_copy=90.0, method="graph"),
        row(median_ms=0.5, percent_of_copy=60.0, dtype="fp32", direction="backward"),
        row(
            median_ms=1.0,
            percent_of_copy=60.0,
            dtype="fp32",
            cuda="",
            method="wall",
            device="a CPU",
        ),
    ]
    for each in rows:
        record.append(tmp_path / "local_response_norm.csv", [each])
    gpu, cpu = chart.rows(True, tmp_path), chart.rows(False, tmp_path)
    assert {r["device"] for r in gpu} == {"NVIDIA H200"} and [r["device"] for r in cpu] == ["a CPU"]
    lines = [re.split(r"  +", line) for line in chart.table(gpu).splitlines()[2:]]
    assert lines == [
        ["LRN, conv1, bf16", "forward", "0.3", "90 %", "8.00 x"],
        ["LRN, conv1, fp32", "backward", "0.5", "60 %"],
    ]
    axes = chart.roofline(gpu).axes[0]
    drawn = {
        dots.get_label(): [tuple(map(float, at)) for at in dots.get_offsets()]
        for dots in axes.collections
    }
    assert drawn["ours"] == [pytest.approx((100 / 90, 0)), pytest.approx((100 / 60, 1))]
    assert drawn["torch, eager"] == [pytest.approx((100 / 11.25, 0))]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "LRN, conv1, bf16, forward",
        "LRN, conv1, fp32, backward",
    ]
    assert chart.rows(True, tmp_path / "absent") == []


def test_verdicts():
    def block(implementation, layer, saved):
        return row(
            operator="response_norm_pool",
            implementation=implementation,
            layer=layer,
            saved_bytes=saved,
            median_ms=1.0,
        )

    rows = [
        row(
            median_ms=9.9, percent_of_copy=1.0
        ),  # an older measurement of the same thing does not count
        row(median_ms=0.3, percent_of_copy=86.0),
        row(median_ms=0.1, percent_of_copy=99.0, layout="nchw"),  # nor does ours in another layout
        row(implementation="torch", median_ms=2.4),
        row(implementation="torch", median_ms=1.8, layout="nchw"),
        row(implementation="cudnn", median_ms=0.33),
        row(median_ms=0.5, direction="backward", percent_of_copy=74.0),
        row(implementation="cudnn", median_ms=0.45, direction="backward"),
        *(
            block("ours", "conv1", 10.0),
            block("ours", "conv2", 5.0),
            block("torch", "conv1", 60.0),
            block("torch", "conv2", 20.0),
        ),
    ]
    lines = [re.split(r"  +", line) for line in operators.verdicts(rows).splitlines()[3:]]
    assert len(lines) == len(operators.GPU_TARGETS) + len(operators.CPU_TARGETS)
    assert [line[1:] for line in lines if line[-1] != "not measured"] == [
        ["LRN forward, of copy bandwidth", ">= 85 %", "86 %", "met"],
        ["LRN forward, over torch eager", ">= 7 x", "6 x", "missed"],
        ["LRN backward, of copy bandwidth", ">= 75 %", "74 %", "missed"],
        ["LRN over cuDNN's, the worst of all cases", ">= 1 x", "0.9 x", "missed"],
        ["saved activations of both blocks, of eager's", "<= 0.2 x", "0.188 x", "met"],
    ]


# --- what needs a GPU, as far as it goes without ---


def test_cudnn_descriptors():
    try:
        cudnn_lrn.library()
    except OSError:
        pytest.skip("no libcudnn.so.9")
    assert cudnn_lrn.norm_descriptor(5, 5e-4, 0.75, 2.0).value
    for dtype in cudnn_lrn.TYPES:
        for form in (cudnn_lrn.NCHW, cudnn_lrn.NHWC):
            assert cudnn_lrn.tensor_descriptor((2, 96, 55, 55), dtype, form).value
    with pytest.raises(RuntimeError, match=r"cudnnSetLRNDescriptor: CUDNN_STATUS_BAD_PARAM"):
        cudnn_lrn.norm_descriptor(17, 5e-4, 0.75, 2.0)


def test_cudnn_is_called_as_its_header_says(monkeypatch):
    calls = []
    monkeypatch.setattr(cudnn_lrn, "call", lambda name, *args: calls.append((name, args)))
    monkeypatch.setattr(cudnn_lrn, "handle", lambda device: "handle")
    monkeypatch.setattr(
        cudnn_lrn, "tensor_descriptor", lambda shape, dtype, form: ("descriptor", form)
    )
    monkeypatch.setattr(cudnn_lrn, "norm_descriptor", lambda *norm: norm)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    x = torch.randn(2, 6, 3, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = cudnn_lrn.local_response_norm(x)
    y.backward(torch.ones_like(y))
    forward, backward = (args for name, args in calls if name.startswith("cudnnLRN"))
    # handle, norm, mode, one, xDesc, x, zero, yDesc, y
    # handle, norm, mode, one, yDesc, y, dyDesc, dy, xDesc, x, zero, dxDesc, dx
    assert len(forward) == 9 and len(backward) == 13
    assert forward[1] == (5, 5e-4, 0.75, 2.0) and forward[4] == ("descriptor", cudnn_lrn.NHWC)
    assert (
        forward[5].value == backward[9].value == x.data_ptr()
        and forward[8].value == backward[5].value == y.data_ptr()
    )


def test_the_graph_path_on_a_pretended_gpu(monkeypatch):
    """Captures run the call at once; a capture that fails is left out, and the rest goes on."""

    class Event:
        def __init__(self, **_):
            pass

        record = synchronize = lambda self: None

        def elapsed_time(self, other):
            return 0.25

    class Graph:
        def replay(self):
            pass

    @contextmanager
    def capture(graph, pool, stream):
        yield

    for name, fake in {
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": capture,
        "graph_pool_handle": int,
        "current_stream": int,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    options = "--tiny --seed 1 --implementations ours torch --batch 2 --runs 2 --seconds 0.5"
    options += " --device cpu --dtype fp32 --layouts nchw"
    args = operators.parser().parse_args(["max_pool", *options.split()])
    clock = runner.Clock("cpu")
    clock.cuda, clock.flush, clock.start, clock.end = True, torch.zeros(1), Event(), Event()
    case, *_ = operators.plan(args)
    rows = measure.measure(case, clock, lambda: 100.0, args)
    kinds = {(row["implementation"], row["direction"], row["method"]) for row in rows}
    assert kinds == {
        (name, direction, method)
        for name in ("ours", "torch", "copy")
        for direction, method in [
            ("forward", "cold"),
            ("backward", "cold"),
            ("both", "cold"),
            ("forward", "graph"),
            ("both", "graph"),
        ]
    }
    assert {row["median_ms"] for row in rows if row["method"] == "graph"} == {0.25 / 4}

    def fail(*_):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", fail)
    assert {row["method"] for row in measure.measure(case, clock, lambda: 100.0, args)} == {"cold"}
