"""What the parts of the net are worth: differences, definitions, table and figure."""

import matplotlib
import numpy as np
import pytest
import torch

from alexnet import experiments, results
from alexnet.claims.statistics import mean_interval
from alexnet.data.pack import open_splits
from alexnet.experiments import ablations, jobs
from tests.experiments import TINY, configs, drawn, own, run

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("one_thread")


def ablated(**top1):
    """A result whose nets have these errors from one view, by seed; from ten a tenth less."""
    nets, others = {}, {kind: {} for kind in ("train_error", "overfitting", "iterations")}
    for arm, values in top1.items():
        arm = arm.replace("_", "-")
        nets[arm] = {
            str(i): {"views": {"1": {"top1": e, "top5": e / 2}, "10": {"top1": e - 0.1, "top5": 0}}}
            for i, e in enumerate(values)
        }
        for kind, value in (("train_error", 0.25), ("overfitting", 0.125), ("iterations", 1000)):
            others[kind][arm] = {str(i): value for i in range(len(values))}
    return {"metrics": {"nets": nets, "definitions": ablations.DEFINITIONS, **others}}


def test_differences_are_seed_by_seed_in_percentage_points():
    result = ablated(full=(0.4, 0.5), no_lrn=(0.43, 0.49), source=(0.41,))
    assert ablations.differences(result, "no-lrn") == pytest.approx([3.0, -1.0])
    assert ablations.differences(result, "no-lrn", views=1) == pytest.approx([3.0, -1.0])
    assert ablations.differences(result, "no-lrn", views=1, what="top5") == pytest.approx(
        [1.5, -0.5]
    )
    assert ablations.differences(result, "source") == pytest.approx(
        [1.0]
    )  # the seeds that both have
    assert ablations.differences(result, "no-conv2") == []
    assert ablations.gains(result) == pytest.approx([-10.0, -10.0])


def test_the_ablations_table_and_figure_show_what_was_run_beside_the_paper():
    result = ablated(full=(0.4, 0.5, 0.45), no_lrn=(0.414, 0.516, 0.46))
    rows = {
        line.split("  ")[1] if line.startswith("  ") else line.split("  ")[0]: line
        for line in ablations.table(result).splitlines()
    }
    mean, half = mean_interval([1.4, 1.6, 1.0])
    assert (
        f"+1.4                     {mean:+.1f} ± {half:.1f}"
        in rows["without response normalization (3.3)"]
    )
    assert rows["without response normalization (3.3)"].endswith("+1.4  +1.6  +1.0")
    assert rows["pooling without overlap (3.4)"].endswith("not yet run")
    assert "-1.5" in rows["ten views against one, of the full net (4.1)"]
    said = ablations.learning(result, ("no-lrn", "no-conv2")).splitlines()
    assert (
        said[1].split()
        == ["without", "response", "normalization", "25.0%", "37.5%", "+12.5", "1,000"]
        and "conv2" not in said[2]
    )
    drawn(ablations.plot, result)
    drawn(ablations.plot, ablated(full=(0.4,), no_lrn=(0.414,)))  # one seed has no interval


def texts(figure):
    (axes,) = figure.axes
    return axes.get_title(), [text.get_text() for text in axes.texts]


def test_the_figure_of_overfitting_names_the_widest_gap():
    result = ablated(full=(0.4, 0.5), no_crops=(0.4, 0.5), no_dropout=(0.4, 0.5))
    result["metrics"]["overfitting"]["no-crops"] = {"0": 0.25, "1": 0.5}
    title, gaps = texts(ablations.plot_overfitting(result, ("full", "no-color", "no-crops")))
    assert title == "the widest gap: without crops and reflections"
    assert gaps == ["+12.5", "+37.5"]  # what was not run has no row


def test_the_figure_of_convergence_compares_epochs():
    result = ablated(full=(0.4, 0.5), no_dropout=(0.4, 0.5))
    result["metrics"]["val_error"] = {
        "full": {"0": [0.9, 0.8, 0.7, 0.6, 0.5, 0.5], "1": [0.9, 0.8, 0.7, 0.5, 0.5]},
        "no-dropout": {"0": [0.9, 0.5, 0.5, 0.5, 0.5], "1": [0.5, 0.5, 0.5]},
    }
    figure = ablations.plot_convergence(result, ("full", "no-dropout"))
    title, _ = texts(figure)
    assert title == "epochs to convergence: 3.0 times those without dropout"  # 4.5 and 1.5
    mean, reached = figure.axes[0].lines[:2]
    assert list(mean.get_xdata()) == [1, 2, 3, 4, 5]
    assert list(reached.get_xdata()) == [5, 4] and list(reached.get_ydata()) == [50, 50]


def test_the_cover_and_chapter_4_say_what_the_archive_holds():
    """Of Caltech-101, in words: both ends of the lines in the figure of overfitting."""
    result = experiments.load("ablations", results.ROOT / "results" / "caltech101-cpu")
    assert result
    metrics = result["metrics"]
    seen, gap = (
        {arm: 100 * np.mean([*by_seed.values()]) for arm, by_seed in metrics[what].items()}
        for what in ("train_error", "overfitting")
    )
    one, ten = (
        {arm: 100 * np.mean([*ablations.errors(result, arm, views).values()]) for arm in gap}
        for views in (1, 10)
    )
    for arm in ("no-crops", "no-dropout"):
        assert gap[arm] > 2 * gap["full"]  # "more than doubles", "less than half as long"
        assert seen[arm] < 5 < seen["full"]  # "hardly an error", "the training error rises"
    assert all(abs(error - one["full"]) < 3 for error in one.values())  # "less than three points"
    assert one["full"] - one["no-crops"] > 2 and abs(ten["full"] - ten["no-crops"]) < 0.5
    assert 0 < one["no-dropout"] - one["full"] < 2
    pages = [
        (results.ROOT / "book" / f"{page}.ipynb").read_text()
        for page in ("intro", "04-overfitting")
    ]
    for page, words in zip(
        pages, ("moves by less than three points", "more than doubles"), strict=True
    ):
        assert words in page


def test_a_run_has_converged_when_it_is_near_its_best():
    assert (
        ablations.iterations([10, 20, 30, 40], [0.9, 0.54, 0.5, 0.52]) == 20
    )  # 8 % above the lowest
    assert ablations.iterations([10, 20, 30, 40], [0.9, 0.56, 0.5, 0.52]) == 30
    assert ablations.iterations([10, 20], [0.0, 0.0]) == 10 and ablations.iterations([], []) is None
    assert ablations.iterations([10, 20, 30], [0.9, 0.56, 0.5], near=0.2) == 20


def test_the_training_error_is_of_a_fixed_sample_in_evaluation_mode(packs72):
    assert ablations.evenly(10, 4).tolist() == [0, 3, 6, 9] and ablations.evenly(
        3, 2000
    ).tolist() == [0, 1, 2]
    pack = open_splits(packs72)["train"]
    config = jobs.configure(own(packs72, image_size=64, width=1 / 16), "paper/sigma-0.03", epochs=1)
    net, augment = config.network().eval(), ablations.Augment(config.recipe, pack.mean, 64)
    ids = ablations.evenly(len(pack), 12)
    (view,) = augment.views(torch.from_numpy(pack.gather(ids)))
    with torch.no_grad():
        wrong = (net(view).argmax(1).numpy() != pack.labels[ids]).mean()
    assert ablations.error_on(net, augment, pack, ids) == pytest.approx(wrong)


def test_ablations_measure_every_arm_on_one_budget(packs72, serial, runs):
    arms = list(ablations.ARMS)
    profile = own(packs72, ablations={"sample": 20, "arms": arms}, epochs=2, **TINY)
    metrics = run(ablations, profile, [0])
    assert (metrics["images"], metrics["train_images"], metrics["sample"], metrics["classes"]) == (
        6,
        36,
        20,
        3,
    )
    for kind in ("nets", "train_error", "overfitting", "iterations", "val_error", "loss"):
        assert metrics[kind].keys() == ablations.ARMS.keys(), kind
    for arm, net in metrics["nets"].items():
        assert net["0"]["views"].keys() == {"1", "10"} and all(
            0 <= view["top1"] <= 1 for view in net["0"]["views"].values()
        )
        assert metrics["overfitting"][arm]["0"] == pytest.approx(
            net["0"]["views"]["1"]["top1"] - metrics["train_error"][arm]["0"]
        )
        assert (
            metrics["iterations"][arm]["0"] in (3, 6) and len(metrics["val_error"][arm]["0"]) == 2
        )
    presets = {config["preset"] for config in configs(profile)}
    assert len(presets) == len(arms) and {config["epochs"] for config in configs(profile)} == {2}
    # the full net is the one that other experiments share
    assert jobs.base_job(profile, 0).folder(profile).is_dir()
    few = own(packs72, ablations={"sample": 20, "arms": ["no-lrn", "full"]}, epochs=2, **TINY)
    assert ablations.arms(few) == ["full", "no-lrn"]
    added = {entry.arm: entry.key(1) for entry in ablations.entries(profile, [0])}
    assert {
        entry.arm: entry.key(1) for entry in ablations.entries(few, [0])
    }.items() <= added.items()
