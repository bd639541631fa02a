"""Table 2: which nets make which rows, averages against arithmetic by hand, and rows that a profile
cannot serve."""

import json
import re

import matplotlib
import numpy as np
import pytest
import torch

from alexnet import claims, evaluation, experiments, results, training
from alexnet.baselines import fisher_vectors
from alexnet.data.pack import open_splits
from alexnet.experiments import jobs, scheduler, table2
from alexnet.tables import Table
from tests.experiments import drawn, in_this_process, own, run

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("one_thread", "runs", "serial")

SETTINGS = {
    "image_size": 64,
    "width": 1 / 16,
    "batch_size": 18,
    "base": "paper/sigma-0.03/constant-rate",
    "epochs": 0.5,
}
MORE = {"pictographs": {"classes": 7, "train": 6, "val": 0, "test": 0, "size": 72}, "epochs": 1}
TUNED = {"epochs": 0.5, "rate": 0.001}


@pytest.mark.parametrize(
    ("seeds", "least", "found"),
    [
        ([0], 5, [0, 1, 2, 3, 4]),
        ([3], 2, [3, 0]),
        (range(5), 5, [0, 1, 2, 3, 4]),
        (range(7), 5, [0, 1, 2, 3, 4, 5, 6]),
        ([1, 9], 5, [1, 9, 0, 2, 3]),
    ],
)
def test_seeds_are_filled_up_to_what_an_average_needs(seeds, least, found):
    assert table2.enough(seeds, least) == found


def test_the_bootstraps_interval_is_that_of_a_mean():
    generator = np.random.default_rng(1)
    values = (generator.random(2000) < 0.3).astype(float)
    low, high = table2.bootstrap_interval(values)
    assert low < values.mean() < high and high - low == pytest.approx(
        2 * 1.96 * (0.3 * 0.7 / 2000) ** 0.5, rel=0.15
    )
    assert table2.bootstrap_interval(np.ones(10)) == (1.0, 1.0)
    mean, low, high = table2.gain(values - 1)
    assert mean == pytest.approx(values.mean() - 1, abs=1e-5) and low < mean < high < 0


@pytest.fixture(scope="module")
def everything(packs72, tmp_path_factory):
    """The folder of the models, and a result with all that a profile can have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALEXNET_RUNS", str(tmp_path_factory.mktemp("table2")))
        patch.setattr(scheduler, "as_they_end", in_this_process)
        fisher = {"top1": 0.9, "top5": 0.5, "nll": 1.0, "split": "test"}
        patch.setattr(fisher_vectors, "fisher_vector_errors", lambda *packs, **given: dict(fisher))
        profile = own(
            packs72, table2={"pretraining": MORE, "finetuning": TUNED}, table1={}, **SETTINGS
        )
        metrics = run(table2, profile, [1])
        return profile.runs / "models", {"metrics": metrics, "seeds": [1]}


def test_rows_are_the_errors_of_nets_and_of_their_averages(packs72, everything):
    folder, result = everything
    metrics = result["metrics"]
    assert (
        metrics["averaged"] == {"5 CNNs": [1, 0, 2, 3, 4], "7 CNNs*": [[1, 0, 2, 3, 4], [1, 0]]}
        and metrics["left_out"] == {}
    )
    assert metrics["images"] == {"val": 6, "test": 6} and metrics["pretraining"] == {
        "classes": 7,
        "train_images": 42,
    }
    assert metrics["images_seen"] == {
        "1 CNN": 18,
        "1 CNN*": 60,
    }  # half an epoch of 36; 42 and half of 36
    assert (
        list(metrics["nets"]) == ["1 CNN", "1 CNN*", "5 CNNs", "7 CNNs*"]
        and next(iter(metrics["test"])) == "SIFT + FVs"
    )

    test = open_splits(packs72)["test"]
    labels = torch.from_numpy(test.labels).long()
    configs = {path.parent: json.loads(path.read_text()) for path in folder.glob("*/config.json")}
    plain = {
        config["seed"]: path
        for path, config in configs.items()
        if config["preset"] == SETTINGS["base"]
    }
    starred = [path for path, config in configs.items() if config["start"]]
    assert sorted(plain) == [0, 1, 2, 3, 4] and len(starred) == 2

    def predicted(path, views):
        net, augment, _ = training.load_run(path)
        return evaluation.predict(net, test, augment, views)[0]

    for views in (1, 10):
        five = [predicted(plain[seed], views) for seed in range(5)]
        seven = [*five, *(predicted(path, views) for path in starred)]
        for seed, p in enumerate(five):
            found = metrics["test"]["1 CNN"][str(seed)]["views"][str(views)]
            assert found["nll"] == pytest.approx(evaluation.errors(p, labels).nll, abs=1e-5)
        for row, members in (("5 CNNs", five), ("7 CNNs*", seven)):
            found, expected = (
                metrics["test"][row]["views"][str(views)],
                evaluation.errors(torch.stack(members).mean(0), labels),
            )
            assert found["nll"] == pytest.approx(expected.nll, abs=2e-5) and found[
                "top1"
            ] == pytest.approx(expected.top1, abs=1e-4)
            low, high = found["interval"]["top1"]
            assert low <= found["top1"] <= high
        gained = metrics["gains"]["test"]["5 CNNs for 1 CNN"][str(views)]["top1"][0]
        alone = np.mean(
            [metrics["test"]["1 CNN"][str(seed)]["views"][str(views)]["top1"] for seed in range(5)]
        )
        assert gained == pytest.approx(
            metrics["test"]["5 CNNs"]["views"][str(views)]["top1"] - alone, abs=1e-4
        )


def test_starred_nets_have_six_convolutions_and_go_on_from_the_larger_set(everything):
    folder, _ = everything
    configs = [json.loads(path.read_text()) for path in folder.glob("*/config.json")]
    before = {c["seed"]: c for c in configs if c["num_classes"] == 7}
    after = {c["seed"]: c for c in configs if c["start"]}
    assert sorted(before) == sorted(after) == [0, 1]
    for seed in (0, 1):
        assert before[seed]["preset"] == after[seed]["preset"] == f"{SETTINGS['base']}/conv6"
        assert (after[seed]["num_classes"], after[seed]["rate"], after[seed]["epochs"]) == (
            3,
            0.001,
            0.5,
        )
        assert after[seed]["start"] == training.starting_point(
            folder / training.Config(**before[seed]).identity
        )


def test_the_claims_find_their_numbers(everything):
    _, result = everything
    full = result | {"profile": "ilsvrc2012", "experiment": "table2", "data": {"title": "shapes"}}
    asked = [claim for claim in claims.load() if claim.test.get("experiment") == "table2"]
    assert len(asked) == 7
    for claim in asked:
        found = claims.judge(claim, full)
        assert found.verdict != "not yet run", (claim.id, found.why)
        seeds = {"validation-test": 5, "ilsvrc2012-top1": 5, "pre-training": 2}
        seeds["pretrained-top1"] = 2
        assert found.measured.seeds == seeds.get(claim.id, 1), claim.id


def test_the_table_is_the_papers(everything):
    _, result = everything
    rows = table2.rows(result)
    assert isinstance(table2.table(result), Table)
    assert [row[0] for row in rows] == list(table2.PAPER) and all(len(row) == 7 for row in rows)
    assert rows[0] == ("SIFT + FVs", "-", "-", "50.0", "-", "-", "26.2") and rows[4][4:] == (
        "36.7",
        "15.4",
        "15.3",
    )
    five = result["metrics"]["nets"]["5 CNNs"]["views"]
    assert (
        rows[2][1] == f"{100 * five['10']['top1']:.1f}"
        and table2.rows(result, views=1)[2][1] == f"{100 * five['1']['top1']:.1f}"
    )
    drawn(table2.plot, result)
    on_val = {"SIFT + FVs": result["metrics"]["test"]["SIFT + FVs"]} | result["metrics"][
        "nets"
    ]  # where no test images have labels
    drawn(table2.plot, {"metrics": result["metrics"] | {"nets": on_val}})


def test_rows_that_cannot_be_had_are_left_out_with_a_reason(packs72, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path))
    packs = tmp_path / "packs"
    packs.mkdir()
    for split in ("train", "val"):
        (packs / split).symlink_to(packs72 / split)
    profile = own(
        packs,
        table2={"pretraining": {"source": ["fall2011"], "epochs": 1}, "finetuning": TUNED},
        size=72,
        **SETTINGS,
    )
    metrics = run(table2, profile, [0])
    assert (
        set(metrics["left_out"]) == {"1 CNN*", "7 CNNs*", "SIFT + FVs"}
        and "holds no fall2011" in metrics["left_out"]["1 CNN*"]
    )
    assert metrics["test"] is None and metrics["test_left_out"] == "its labels are not public"
    assert list(metrics["nets"]) == ["1 CNN", "5 CNNs"] and metrics["pretraining"] is None
    result = {"metrics": metrics, "seeds": [0]}
    assert [row[1:4] for row in table2.rows(result)][3] == ("-", "-", "-")
    drawn(table2.plot, result)
    folder = jobs.base_job(profile, 4).folder(profile)
    assert jobs.Run(folder).summary["steps"] == 1
    without = own(packs, table2={"finetuning": TUNED}, **SETTINGS)
    assert table2.pretraining(without) == ({}, "the profile names no larger set to pre-train on")


def test_chapter_6_says_what_the_archive_holds(monkeypatch):
    """Of Caltech-101: pre-training is inconclusive, and all seven nets together are the best."""
    monkeypatch.setattr(results, "ARCHIVE", results.ROOT / "results")
    result = experiments.archived("table2", "caltech101-cpu")
    assert result
    cells = [re.split(r"  +", line.strip()) for line in table2.tested(result).splitlines()]
    head, *rows = [row for row in cells if len(row) > 1]
    assert head == ["test images, 10 views", "top-1 error", "top-5 error"]
    counts = {row[0]: row[1] for row in rows}
    assert counts == {"1 CNN": "5 nets", "1 CNN*": "3 nets"} | dict.fromkeys(
        ("5 CNNs", "7 CNNs*"), "one average"
    )
    top1 = {row[0]: float(row[2].removesuffix(" %")) for row in rows}
    assert min(top1, key=top1.__getitem__) == "7 CNNs*"
    nets = result["metrics"]["test"]["1 CNN"].values()
    assert top1["1 CNN"] == round(100 * np.mean([net["views"]["10"]["top1"] for net in nets]), 1)
    page = (results.ROOT / "book" / "06-results.ipynb").read_text()
    assert "All seven together are the best." in page and "three times as large" in page
    pre_training = next(one for one in claims.judge_all() if one.claim.id == "pre-training")
    assert pre_training.verdict == "inconclusive" and pre_training.measured
    assert 2.5 < pre_training.smallest / abs(pre_training.measured.effect) < 3.5
