"""Table 1 at a tiny setting: what is run, what is remembered, how it is laid out, shown and
judged."""

import math
import sys
import warnings

import matplotlib
import pytest

from alexnet import claims
from alexnet.baselines import fisher_vectors, sparse_coding
from alexnet.errors import InputError
from alexnet.experiments import jobs, scheduler, table1
from alexnet.processes import as_they_end
from tests.experiments import TINY, own, run

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = {
    "train_images": 30,
    "test_images": 5,
    "sparse_coding": {"atoms": 8, "patches": 1000},
    "fisher_vectors": {"components": 8, "gaussians": 2, "descriptors": 1000},
}


@pytest.fixture
def profile(packs72, serial, runs):
    """Of tiny nets, which are trained in this process."""
    return own(packs72, table1=SETTINGS, epochs=1, **TINY)


def test_every_row_is_run_and_laid_out_for_its_claims(profile):
    metrics = run(table1, profile, [0, 1])
    assert (metrics["split"], metrics["images"], metrics["train_images"], metrics["classes"]) == (
        "test",
        6,
        36,
        3,
    )
    assert (
        metrics["nets"].keys()
        == table1.PAPER.keys()
        == table1.DIFFERENCES.keys()
        == {"sparse coding", "SIFT + FVs", "CNN"}
    )
    for row, by_seed in metrics["nets"].items():
        assert by_seed.keys() == {"0", "1"}
        for found in by_seed.values():
            assert (
                found["views"].keys() == ({"1", "10"} if row == "CNN" else {"1"})
                and table1.VIEWS[row] in found["views"]
            )
            assert all(
                0 <= view["top1"] <= 1 and view["top5"] == 0 and view["nll"] > 0
                for view in found["views"].values()
            )
            assert (found["train_images"], found["test_images"]) == (
                (36, 6) if row == "CNN" else (30, 5)
            )
    assert metrics["controls"]["chance"] == {"top1": pytest.approx(2 / 3), "top5": 0.0}
    trained = {path.parent for path in (profile.runs / "models").glob("*/config.json")}
    assert trained == {
        jobs.base_job(profile, seed).folder(profile) for seed in (0, 1)
    }  # shared with other experiments

    asked = [
        claim
        for claim in claims.load()
        if claim.test.get("experiment") == "table1" and not claim.needs
    ]
    assert len(asked) == 2
    about = {
        "experiment": "table1",
        "profile": "own",
        "data": {"title": "shapes"},
        "metrics": metrics,
    }
    assert all(claims.judge(claim, about).measured for claim in asked)


def test_a_row_that_was_run_is_not_run_again(profile, packs72, monkeypatch):
    first, calls = run(table1, profile, [0]), []
    kept = sorted((profile.runs / "baselines").iterdir())
    assert [path.name.rsplit("-", 1)[0] for path in kept] == ["fisher_vectors", "sparse_coding"]
    assert all((path / "summary.json").exists() and not (path / "work").exists() for path in kept)

    def counted(row, module, function):
        errors = getattr(module, function)
        monkeypatch.setattr(
            module,
            function,
            lambda *packs, **given: calls.append((row, given["seed"])) or errors(*packs, **given),
        )

    counted("sparse coding", sparse_coding, "sparse_coding_errors")
    counted("SIFT + FVs", fisher_vectors, "fisher_vector_errors")
    assert run(table1, profile, [0]) == first and calls == []
    (kept[0] / "summary.json").unlink()
    assert run(table1, profile, [0]) == first and calls == [("SIFT + FVs", 0)]
    others = SETTINGS | {"sparse_coding": {"atoms": 9, "patches": 1000}}
    run(table1, own(packs72, table1=others, epochs=1, **TINY), [0])
    assert calls[1:] == [("sparse coding", 0)]


def test_rows_side_by_side_are_the_same(profile, monkeypatch):
    alone = run(table1, profile, [0])["nets"]
    for path in (profile.runs / "baselines").iterdir():
        (path / "summary.json").unlink()
    monkeypatch.setattr(jobs, "cores", lambda: 2)
    monkeypatch.setattr(scheduler, "as_they_end", as_they_end)
    assert run(table1, profile, [0])["nets"] == alone


def test_what_is_missing_is_said_before_anything_is_trained(profile, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match="pip install opencv-python-headless"):
        run(table1, profile, [0])
    assert not (profile.runs / "models").exists() and not (profile.runs / "baselines").exists()


def made_up():
    def net(views, values):
        return {
            str(i): {"views": {views: {"top1": e, "top5": e / 2, "nll": 1.0}}, "train_images": 7}
            for i, e in enumerate(values)
        }

    nets = {
        row: net(table1.VIEWS[row], values)
        for row, values in zip(table1.PAPER, ([0.5, 0.6], [0.4, 0.5], [0.3, 0.3]), strict=True)
    }
    chance = {"top1": 0.9, "top5": 0.5}
    return {
        "metrics": {
            "nets": nets,
            "controls": {"colors alone": chance | {"train_images": 7}, "chance": chance},
        }
    }


def test_the_table_has_the_papers_rows_then_controls():
    rows = table1.rows(made_up())
    assert [row["row"] for row in rows] == [
        "sparse coding",
        "SIFT + FVs",
        "CNN",
        "colors alone",
        "chance",
    ]
    assert [row["paper"] for row in rows] == [
        (0.471, 0.282),
        (0.457, 0.257),
        (0.375, 0.17),
        None,
        None,
    ]
    assert [row["views"] for row in rows] == [1, 1, 10, 1, 1] and [
        row["seeds"] for row in rows
    ] == [2, 2, 2, 1, 1]
    assert [round(row["top1"], 6) for row in rows] == [0.55, 0.45, 0.3, 0.9, 0.9]
    assert rows[0]["half1"] == pytest.approx(12.7062 * 0.05, rel=1e-4) and rows[2]["half5"] == 0
    one = made_up()
    one["metrics"]["nets"]["CNN"].pop("1")
    assert table1.rows(one)[2]["half1"] == math.inf


def test_table1_is_drawn():
    import matplotlib.pyplot as plt

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = table1.plot(made_up())
        figure.canvas.draw()
    assert [panel.get_xlabel() for panel in figure.axes] == ["top-1 error, %", "top-5 error, %"]
    assert [len(panel.patches) for panel in figure.axes] == [5, 5]
    plt.close(figure)


def test_the_table_says_what_the_rows_hold():
    said = table1.table(made_up()).splitlines()
    assert said[1].startswith("sparse coding") and "55.0 ± 63.5 %" in said[1]
    assert said[1].endswith("47.1%, 28.2%") and said[-1].split()[-4:] == ["90.0", "%", "50.0", "%"]


def test_a_row_is_keyed_by_what_it_depends_on(profile, packs72):
    def keys(**settings):
        changed = own(packs72, **{"table1": SETTINGS, "epochs": 1} | TINY | settings)
        return {entry.arm: entry.key(table1.VERSION) for entry in table1.entries(changed, [0])}

    fewer = keys(table1=SETTINGS | {"sparse_coding": {"atoms": 9}})
    longer = keys(epochs=2)
    assert {arm for arm, key in keys().items() if fewer[arm] != key} == {"sparse coding"}
    assert {arm for arm, key in keys().items() if longer[arm] != key} == {"CNN"}
