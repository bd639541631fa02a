"""Several ranks train the net that one process trains (section 3.2 of the paper): the same numbers, what crosses, and who stops when. On gloo.

`pytest tests/test_ranks.py` is the whole of the equality tests.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alexnet.data.pack import open_splits
from alexnet.errors import InputError
from alexnet.presets import crossings, get, shapes
from alexnet.training import log
from alexnet.training.ranks import join
from alexnet.training.trainer import Config
from tests.test_trainer import rows

ROOT = Path(__file__).resolve().parents[1]


def run(*jobs):
    """The outcomes of jobs of tests/rank_jobs.py."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-m", "tests.rank_jobs", *map(json.dumps, jobs)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == len(jobs), done.stderr
    return outcomes


def configure(packs, preset="paper/constant-rate", **fields):
    splits = open_splits(packs)
    settings = {"width": 1 / 8, "image_size": 64, "epochs": 4.0, "batch_size": 8} | fields  # 20 steps; the last of each epoch has 4 images
    data = {name: splits[name].digest for name in ("train", "val")}
    return Config(preset=preset, num_classes=len(splits["train"].classes), data=data, **settings)


def job(packs, out, world, config, **options):
    return {"job": "train", "world": world, "config": asdict(config), "data": str(packs), "out": str(out), **options}


# --- the same numbers ---------------------------------------------------------------------------------------------------------------------

RUNS = {  # ranks, and over how many the columns are spread
    "two columns": (2, 2),
    "two rows": (2, 1),
    "two columns, two rows": (4, 2),
    "three rows": (3, 1),  # of which the last, short batch of 4 images leaves each one or two
}
PRECISIONS = {"fp64": (1e-12, 1e-13), "fp32": (2e-3, 2e-5), "bf16": (0.1, 2e-2)}  # relative and absolute, after 20 steps


@pytest.fixture(scope="module")
def trained(packs72, tmp_path_factory):
    """20 steps at an eighth of the width, dropout, crops and color on: by one process, and by several."""
    folder = tmp_path_factory.mktemp("ranks")
    jobs = {}
    for precision in PRECISIONS:
        for name, (world, columns) in {"alone": (1, None), **RUNS}.items():
            if precision == "fp64" or name in ("alone", "two columns"):
                config = configure(packs72, precision=precision)
                jobs[precision, name] = job(packs72, folder / f"{precision} {name}", world, config, columns=columns)
    for key, outcome in zip(jobs, run(*jobs.values()), strict=True):
        assert set(outcome["statuses"]) == {0}, (key, outcome["outputs"])
    return folder


@pytest.mark.parametrize(("precision", "name"), [*(("fp64", name) for name in RUNS), ("fp32", "two columns"), ("bf16", "two columns")])
def test_several_ranks_train_what_one_process_trains(trained, precision, name):
    relative, absolute = PRECISIONS[precision]
    one, several = trained / f"{precision} alone", trained / f"{precision} {name}"
    expected, found = (load_file(path / "weights.safetensors") for path in (one, several))
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert value.dtype == (torch.float64 if precision == "fp64" else torch.float32)
        torch.testing.assert_close(found[key], value, rtol=relative, atol=absolute * float(value.abs().max()), msg=lambda text: f"{key}: {text}")
    pairs = list(zip(rows(one), rows(several), strict=True))
    assert len(pairs) == 24 and [a["step"] for a, _ in pairs] == [b["step"] for _, b in pairs]
    for a, b in pairs:
        assert b["loss"] == pytest.approx(a["loss"], rel=relative)
        if precision == "fp64":
            assert a["error"] == pytest.approx(b["error"], abs=1e-12) and a["rate"] == b["rate"]
            assert a.get("val_top1") == pytest.approx(b.get("val_top1"), abs=1e-12)
    # and the net had learned something by then: equality of nets that stand still would say nothing
    first, last = ([row["loss"] for row in log.read(one, "epoch")][i] for i in (0, -1))
    assert first != last and not torch.equal(expected["conv1.weight"], load_file(several / "weights.safetensors")["conv1.weight"] * 0)


def test_the_full_net_takes_the_same_step_on_two_ranks_and_sends_what_figure_2_says():
    (outcome,) = run({"job": "full_net", "world": 2})
    assert outcome["statuses"] == [0, 0], outcome["outputs"]
    sent = json.loads(outcome["outputs"][0])
    assert sent == {
        **{"conv3 forward": 21_632, "fc6 forward": 4_608, "fc7 forward": 2_048, "fc8 forward": 1_000},
        **{"conv3 backward": 21_632, "fc6 backward": 4_608, "fc7 backward": 2_048},
    }
    forward, backward = (sum(n for key, n in sent.items() if key.endswith(way)) for way in ("forward", "backward"))
    assert (forward, backward) == (29_288, 28_288)
    assert {f"{layer} forward": n for layer, n in crossings(shapes(get("paper"))).items()}.items() <= sent.items()


@pytest.mark.parametrize("channels_last", [False, True])
def test_columns_meet_across_ranks_as_in_one_process(channels_last):
    (outcome,) = run({"job": "meet", "world": 2, "channels_last": channels_last})
    assert outcome["statuses"] == [0, 0], outcome["outputs"]


def test_the_time_of_a_step_is_told_apart(trained):
    for name in ("alone", "two columns"):
        for row in log.read(trained / f"fp32 {name}", "step"):
            parts = [row[f"seconds_{part}"] for part in ("data", "compute", "exchange")]
            assert min(parts[:2]) > 0 and (parts[2] > 0) == (name != "alone")
            assert row["images_per_second"] == pytest.approx((4 if row["step"] % 5 == 0 else 8) / sum(parts))


# --- where ranks do not fit ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("world", "columns", "spread"), [(3, 2, 2), (4, 2, 3), (2, 1, 2), (4, 2, 4)])
def test_ranks_that_make_no_mesh_are_told_so(monkeypatch, world, columns, spread):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", str(world))
    with pytest.raises(InputError, match=f"{world} ranks cannot hold nets whose {columns} columns are spread over {spread}.*--column-ranks"):
        join(columns, "cpu", spread)


def test_a_process_alone_has_no_ranks(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    here = join(2)
    assert (here.rank, here.world, here.shard, here.is_first, here.keeps) == (0, 1, (0, 1), True, True)
    assert here.totals([1.5, 2], [True, False]) == ([1.5, 2], [True, False])
    here.leave()
