"""Several ranks train the net that one process trains (section 3.2 of the paper): the same numbers,
and what crosses. On gloo.

`pytest tests/test_ranks.py` is the whole of the equality tests.
"""

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from alexnet.errors import InputError, SharedError
from alexnet.presets import crossings, get, shapes
from alexnet.training import log, starting_point
from alexnet.training import ranks as ranks_module
from alexnet.training.ranks import join
from tests.survival import ROOT, configure, job, rows, run

# --- the same numbers ---

RUNS = {  # ranks, and over how many the columns are spread
    "two columns": (2, 2),
    "two rows": (2, 1),
    "two columns, two rows": (4, 2),
    "three rows": (3, 1),  # of which the last, short batch of 4 images leaves each one or two
}
PRECISIONS = {
    "fp64": 1e-12,
    "fp32": 1e-5,
    "bf16": 1e-2,
}  # the largest difference after 20 steps, as a share of the largest weight


@pytest.fixture(scope="module")
def outcomes(packs72, tmp_path_factory):
    """Of jobs that need no run before them, by name, all in one process.

    Among them are 20 steps at an eighth of the width, dropout, crops and color on: by one process,
    and by several.
    """
    folder = tmp_path_factory.mktemp("ranks")
    config = configure(packs72)
    (folder / "1").mkdir()
    (folder / "1" / "lock").write_text("of another run")
    jobs = {
        "full net": {"job": "full_net", "world": 2},
        "meet": {"job": "meet", "world": 2, "channels_last": False},
        "meet, channels last": {"job": "meet", "world": 2, "channels_last": True},
        "rows": {"job": "rows", "world": 2},
        "apart": job(packs72, folder, 2, config, apart=True),
        "together": job(packs72, folder / "0", 2, config),
        "absent": {"job": "wait", "world": 2, "absent": 1, "timeout": 3.0},
    }
    config = configure(packs72, "caffe", image_size=67, epochs=1.0, precision="fp64")
    jobs["merged alone"] = job(packs72, folder / "merged alone", 1, config)
    jobs["merged apart"] = job(packs72, folder / "merged apart", 2, config)
    for precision in PRECISIONS:
        config = configure(packs72, precision=precision)
        for name, (world, columns) in {"alone": (1, None), **RUNS}.items():
            if precision == "fp64" or name in ("alone", "two columns"):
                key = f"{precision} {name}"
                jobs[key] = job(packs72, folder / key, world, config, columns=columns)
    return {"folder": folder} | dict(zip(jobs, run(*jobs.values()), strict=True))


@pytest.fixture(scope="module")
def trained(outcomes):
    """The folder of the runs."""
    for name, outcome in outcomes.items():
        if name.startswith(tuple(PRECISIONS)):
            assert set(outcome["statuses"]) == {0}, (name, outcome["outputs"])
    return outcomes["folder"]


@pytest.mark.parametrize(
    ("precision", "name"),
    [*(("fp64", name) for name in RUNS), ("fp32", "two columns"), ("bf16", "two columns")],
)
def test_several_ranks_train_what_one_process_trains(packs72, trained, precision, name):
    tolerance = PRECISIONS[precision]
    one, several = trained / f"{precision} alone", trained / f"{precision} {name}"
    expected, found = (load_file(path / "weights.safetensors") for path in (one, several))
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert value.dtype == (torch.float64 if precision == "fp64" else torch.float32)
        assert float((found[key] - value).abs().max()) <= tolerance * float(value.abs().max()), key
    pairs = list(zip(rows(one), rows(several), strict=True))
    assert len(pairs) == 24 and [a["step"] for a, _ in pairs] == [b["step"] for _, b in pairs]
    for a, b in pairs:
        assert b.pop("kind") == a.pop("kind") and b == pytest.approx(a, rel=tolerance, abs=1e-12)
    untrained = configure(packs72, precision=precision).network().export_merged()
    assert all(
        float((expected[key] - value).abs().max()) > 0 for key, value in untrained.items()
    )  # equal, and not by standing still


def test_ranks_normalize_across_columns_as_one_process_does(outcomes):
    one, several = (outcomes["folder"] / name for name in ("merged alone", "merged apart"))
    expected, result = (load_file(path / "weights.safetensors") for path in (one, several))
    for key, value in expected.items():
        assert float((result[key] - value).abs().max()) <= 1e-12 * float(value.abs().max()), key
    assert [row["loss"] for row in rows(one)] == pytest.approx(
        [row["loss"] for row in rows(several)]
    )


def test_each_rank_starts_with_its_columns_of_another_runs_weights(packs72, trained, tmp_path):
    first = trained / "fp64 alone"
    config = replace(
        configure(packs72, precision="fp64", seed=9, start=starting_point(first), epochs=1.0),
        num_classes=5,
    )
    jobs = [
        job(packs72, tmp_path / f"{world}", world, config, start=str(first)) for world in (1, 2)
    ]
    unfit = configure(packs72, precision="fp64", width=1 / 16, start=starting_point(first))
    *outcomes, refused = run(*jobs, job(packs72, tmp_path / "unfit", 2, unfit, start=str(first)))
    assert [outcome["statuses"] for outcome in outcomes] == [[0], [0, 0]], outcomes
    alone, apart, before = (
        load_file(path / "weights.safetensors") for path in (tmp_path / "1", tmp_path / "2", first)
    )
    for key, value in alone.items():
        assert float((apart[key] - value).abs().max()) <= 1e-12 * float(value.abs().max()), key
        if not key.startswith("fc8"):  # five steps on, and near: nothing near a net of another seed
            assert float((value - before[key]).norm()) < 0.2 * float(before[key].norm() + 1e-3), key
    assert refused["statuses"] == [2, 2] and all(
        "conv1.weight has shape (12, 3, 11, 11)" in out for out in refused["outputs"]
    )


def test_the_full_net_takes_the_same_step_on_two_ranks_and_sends_what_figure_2_says(outcomes):
    outcome = outcomes["full net"]
    assert outcome["statuses"] == [0, 0], outcome["outputs"]
    sent = json.loads(outcome["outputs"][0])
    assert sent == {
        "conv3 forward": 21_632,
        "fc6 forward": 4_608,
        "fc7 forward": 2_048,
        "fc8 forward": 1_000,
        "conv3 backward": 21_632,
        "fc6 backward": 4_608,
        "fc7 backward": 2_048,
    }
    forward, backward = (
        sum(n for key, n in sent.items() if key.endswith(way)) for way in ("forward", "backward")
    )
    assert (forward, backward) == (29_288, 28_288)
    assert {
        f"{layer} forward": n for layer, n in crossings(shapes(get("paper"))).items()
    }.items() <= sent.items()


@pytest.mark.parametrize("name", ["meet", "meet, channels last"])
def test_columns_meet_across_ranks_as_in_one_process(outcomes, name):
    assert outcomes[name]["statuses"] == [0, 0], outcomes[name]["outputs"]


def test_buffers_agree_over_rows(outcomes):
    assert outcomes["rows"]["statuses"] == [0, 0], outcomes["rows"]["outputs"]


def test_the_time_of_a_step_is_told_apart(trained):
    for name in ("alone", *RUNS):
        for row in log.read(trained / f"fp64 {name}", "step"):
            parts = [row[f"seconds_{part}"] for part in ("data", "compute", "exchange")]
            assert min(parts[:2]) > 0 and (parts[2] > 0) == (name != "alone")
            assert row["images_per_second"] == pytest.approx(
                (4 if row["step"] % 5 == 0 else 8) / sum(parts)
            )


def train_twice(packs, folder, device, environment):
    """20 steps in float64 by the command line: by one process, and by two ranks that torchrun
    starts on one device. Their folders."""
    options = [
        "--preset",
        "paper/constant-rate",
        "--width",
        "0.125",
        "--batch-size",
        "8",
        "--epochs",
        "4",
        "--precision",
        "fp64",
    ]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for name, start in {"one": [], "two": launcher}.items():
        command = [
            sys.executable,
            *start,
            "-m",
            "alexnet",
            "train",
            "--data",
            packs,
            "--out",
            folder / name,
            "--device",
            device,
            *options,
        ]
        own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "0"}
        done = subprocess.run(
            command, env=os.environ | own | environment, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, done.stderr
    return folder / "one", folder / "two"


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_two_ranks_on_one_gpu_train_what_one_process_trains(packs72, tmp_path, backend):
    only = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    environment = {
        "CUDA_VISIBLE_DEVICES": only,
        "NCCL_MULTI_RANK_GPU_ENABLE": "1" if backend == "nccl" else "0",
    }
    one, two = train_twice(packs72, tmp_path, "cuda", environment)
    expected, found = (load_file(path / "weights.safetensors") for path in (one, two))
    for key, value in expected.items():  # a GPU's sums may come in another order each time
        assert float((found[key] - value).abs().max()) <= 1e-9 * float(value.abs().max()), key
    for a, b in zip(rows(one), rows(two), strict=True):
        assert b.pop("kind") == a.pop("kind") and b == pytest.approx(a, rel=1e-9, abs=1e-12)
    assert all(row["seconds_exchange"] > 0 for row in log.read(two, "step"))
    summary = json.loads((two / "summary.json").read_text())
    assert (summary["device"], summary["ranks"]) == ("cuda", [1, 2])


# --- where ranks do not fit ---


@pytest.mark.parametrize(
    ("world", "columns", "spread"), [(3, 2, 2), (4, 2, 3), (2, 1, 2), (4, 2, 4)]
)
def test_ranks_that_make_no_mesh_are_told_so(monkeypatch, world, columns, spread):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", str(world))
    message = (
        f"--column-ranks {spread} does not divide both the number of ranks, which is {world}, "
        f"and that of columns, which is {columns};"
    )
    with pytest.raises(SharedError, match=message):
        join(columns, "cpu", spread)


def test_ranks_that_see_different_folders_are_told_so_at_once_and_leave_no_run(outcomes):
    apart, together, folder = (outcomes[name] for name in ("apart", "together", "folder"))
    message = (
        f"alexnet: rank 1 cannot see rank 0's {folder}/0; "
        "give all ranks the same --out, on a disk that they share\n"
    )
    assert apart["statuses"] == [2, 2] and apart["outputs"][0] == message, apart
    assert max(apart["seconds"]) < 60
    assert together["statuses"] == [0, 0], together["outputs"]  # what was left is no obstacle


def test_a_rank_that_never_comes_is_named(outcomes):
    outcome = outcomes["absent"]
    assert outcome["statuses"] == [1, 0] and outcome["seconds"][0] < 60
    message = (
        "RuntimeError: rank 1 did not come within 3 s; "
        r"start all 2 with MASTER_ADDR=127.0.0.1 MASTER_PORT=\d+, or raise --timeout"
    )
    assert re.search(message, outcome["outputs"][0]), outcome


def test_rank_0_that_never_comes_is_named(monkeypatch):
    for name, value in {
        "RANK": 1,
        "WORLD_SIZE": 2,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": 9,
    }.items():
        monkeypatch.setenv(name, str(value))
    message = "rank 0 did not come within 1 s to MASTER_ADDR=127.0.0.1 MASTER_PORT=9; start it"
    with pytest.raises(RuntimeError, match=re.escape(message)):
        join(2, timeout=1.0)


def test_a_process_alone_has_no_ranks(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    here = join(2)
    assert (here.rank, here.world, here.row, here.rows) == (0, 1, 0, 1) and here.is_first
    assert here.totals([1.5, 2], [True, False]) == ([1.5, 2], [True, False])
    here.leave()
    with pytest.raises(InputError, match="--column-ranks is for several ranks, which `torchrun"):
        join(2, column_ranks=1)


class Launched:
    """A machine of eight cores, where `torchrun` was started with an environment of its own."""

    def __init__(self, monkeypatch, tmp_path, given):
        (tmp_path / "environ").write_bytes(given)
        monkeypatch.setattr(ranks_module, "Path", lambda _: tmp_path / "environ")
        monkeypatch.setattr(ranks_module, "cores", lambda: 8)
        self.threads = []
        monkeypatch.setattr(torch, "set_num_threads", self.threads.append)
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
        monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize(
    ("given", "ranks", "threads"),
    [
        (b"PATH=/bin\0HOME=/\0", 2, [4]),
        (b"PATH=/bin\0", 16, [1]),
        (b"PATH=/bin\0OMP_NUM_THREADS=1\0", 2, []),
    ],
)
def test_ranks_share_the_cores_where_the_user_set_no_threads(
    monkeypatch, tmp_path, given, ranks, threads
):
    launched = Launched(monkeypatch, tmp_path, given)
    ranks_module._take_cores(ranks)
    assert launched.threads == threads


def test_a_port_that_is_taken_is_named(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": "0", "WORLD_SIZE": "2"}
        for name, value in places.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
        with pytest.raises(InputError, match=f"MASTER_PORT {port} is in use.*--standalone"):
            join(2, timeout=5.0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "RANK",
            "x",
            "RANK is 'x' in the environment, no number from 0 to 1; start ranks by `torch",
        ),
        ("RANK", "2", "RANK is '2' .* no number from 0 to 1"),
        ("WORLD_SIZE", "0", "WORLD_SIZE is '0'"),
        ("MASTER_ADDR", "", "MASTER_ADDR is not set; give all ranks"),
        ("MASTER_PORT", "", "MASTER_PORT is ''"),
        ("MASTER_PORT", "99999", "MASTER_PORT is '99999' .*from 1 to 65535"),
    ],
)
def test_what_a_launcher_sets_is_checked(monkeypatch, name, value, message):
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9", "RANK": "0", "WORLD_SIZE": "2"}
    for each, given in (places | {name: value}).items():
        monkeypatch.setenv(each, given)
    with pytest.raises(InputError, match=message):
        join(2, timeout=1.0)


def test_a_name_of_no_machine_is_told_in_bounded_time(monkeypatch):
    places = {"MASTER_ADDR": "no.such.invalid", "MASTER_PORT": "9", "WORLD_SIZE": "2"}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    for rank, message in enumerate(("rank 0 cannot reach itself by", "rank 0 did not come within")):
        monkeypatch.setenv("RANK", str(rank))
        with pytest.raises(
            RuntimeError, match=rf"{message} .*MASTER_ADDR=no.such.invalid"
        ) as error:
            join(2, timeout=1.0)
        assert len(str(error.value).splitlines()) == 1


def test_ranks_that_cannot_reach_each_other_name_the_network():
    with (
        pytest.raises(RuntimeError, match=r"reach each other \(no route\); .*GLOO_SOCKET_IFNAME"),
        ranks_module._naming_the_network(),
    ):
        raise RuntimeError("no route\nmore of it")
