"""Table 1 (section 6 of the paper): the net's test errors, from ten views, beside those of two
systems of before: sparse coding, and SIFT with Fisher vectors. All three are really run, on the
same images; controls are colors alone, and chance.

    alexnet reproduce --only table1 --seeds 5

A row of before is an artifact under runs/<profile>/baselines, keyed by its settings, seed and data,
as a trained model is one.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from alexnet import evaluation
from alexnet.baselines import fisher_vectors, pipeline, sparse_coding
from alexnet.baselines.color_histogram import color_histogram_errors
from alexnet.claims.statistics import mean_interval
from alexnet.data.pack import held_out
from alexnet.experiments import scheduler
from alexnet.experiments.jobs import Job, Packs, Run, base_job
from alexnet.experiments.protocol import Entry, by_arm, only
from alexnet.files import lock, write_whole
from alexnet.keys import key
from alexnet.profiles import Profile
from alexnet.results import Record
from alexnet.tables import Table

NAME = "table1"
VERSION = 1
BASELINES_VERSION = 2  # a change to what they compute is a new number
CNN, CONTROLS = "CNN", "controls"  # arms, beside the baselines
PAPER = {
    sparse_coding.ROW: (0.471, 0.282),
    fisher_vectors.ROW: (0.457, 0.257),
    "CNN": (0.375, 0.170),
}  # top-1, top-5, ILSVRC-2010
VIEWS = {sparse_coding.ROW: "1", fisher_vectors.ROW: "1", "CNN": "10"}  # what the row shows
# the row's settings in a profile, and what runs it
BASELINES: dict[str, tuple[str, Callable[..., dict[str, Any]]]] = {
    sparse_coding.ROW: ("sparse_coding", sparse_coding.sparse_coding_errors),
    fisher_vectors.ROW: ("fisher_vectors", fisher_vectors.fisher_vector_errors),
}
DIFFERENCES = {
    sparse_coding.ROW: (
        "one model of patches of pixels; the paper cites the average of six models, trained on "
        "different features",
        "the cited system (Lin et al., 2011) codes HOG and LBP descriptors, into hundreds of "
        "thousands of numbers an image",
        "codes by a soft threshold, not by solving for them",
        "one logistic regression over all classes, by L-BFGS; theirs is one linear SVM a class, "
        "by averaged SGD",
        "on big data, trained on a sample of the training images, whose number stands beside the "
        "row; theirs saw all 1.2 million",
    ),
    fisher_vectors.ROW: (
        "one classifier over SIFT; the paper cites the average of two, over Fisher vectors of "
        "two kinds of descriptors",
        "a mixture of tens of Gaussians, over whole images; the cited vectors (Sanchez and "
        "Perronnin, 2011) are far longer, and compressed",
        "descriptors enter as the roots of their shares, a step published after the cited system",
        "one logistic regression over all classes, by L-BFGS",
        "on big data, trained on a sample of the training images, whose number stands beside the "
        "row; theirs saw all 1.2 million",
    ),
    "CNN": (
        "width, image size and number of classes are the profile's; the training rule is the "
        "text's",
    ),
}


def settings(profile: Profile) -> dict[str, Any]:
    profile[NAME]  # says so where there are none
    return {}


def entries(profile: Profile, seeds: Sequence[int]) -> list[Entry]:
    own, packs = settings(profile), profile.splits()
    made = [
        Entry(row, seed, packs, (baseline(profile, row, seed),), own, tuple(seeds))
        for row in BASELINES
        for seed in seeds
    ]
    made += [
        Entry(CNN, seed, packs, (base_job(profile, seed),), own, tuple(seeds)) for seed in seeds
    ]
    return [*made, Entry(CONTROLS, None, packs, (), own, tuple(seeds))]


def baseline(profile: Profile, row: str, seed: int) -> "Baseline":
    given, (part, _) = profile[NAME], BASELINES[row]
    sizes = {name: given[name] for name in ("train_images", "test_images") if name in given}
    return Baseline(row, sizes | given.get(part, {}) | {"seed": seed}, profile.splits())


@dataclass(frozen=True, eq=False)
class Baseline(Job):
    """A system of before, learned and tested."""

    row: str
    given: dict[str, Any]  # its settings and seed
    packs: Packs
    at_once = 2  # each spreads over all cores, but for what one core learns

    @cached_property
    def key(self) -> str:  # type: ignore[override]
        data = {split: pack.digest for split, pack in self.packs.items()}
        return key([self.row, self.given, BASELINES_VERSION, data])

    def folder(self, profile: Profile, needed: Sequence[Run] = ()) -> Path:
        return profile.runs / "baselines" / f"{BASELINES[self.row][0]}-{self.key}"

    def check(self) -> None:
        if self.row == fisher_vectors.ROW:
            fisher_vectors.opencv()

    def task(self, profile: Profile, needed: Sequence[Run] = ()) -> Callable[[], object]:
        return partial(run_baseline, self.row, self.given, self.packs, self.folder(profile))


def run_baseline(row: str, given: dict[str, Any], packs: Packs, folder: Path) -> None:
    """Leave a `summary.json` with the errors in `folder`; what was begun there goes on."""
    pipeline.use_line(scheduler.line())
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / "lock"):
        if (folder / "summary.json").exists():
            return
        began = time.monotonic()
        measured = BASELINES[row][1](packs, folder=folder / "work", **given)
        view = {what: measured.pop(what) for what in ("top1", "top5", "nll")}
        summary = {"seconds": time.monotonic() - began, "errors": {"views": {"1": view}} | measured}
        write_whole(folder / "summary.json", json.dumps(summary, indent=1) + "\n")


def measure(entry: Entry, runs: Sequence[Run]) -> dict[str, Any]:
    packs = entry.packs
    reported = held_out(packs, "Table 1")
    if entry.arm in BASELINES:
        return runs[0].summary["errors"]
    if entry.arm == CONTROLS:
        colors = color_histogram_errors(packs)
        return {
            "split": reported,
            "images": len(packs[reported]),
            "train_images": len(packs["train"]),
            "classes": len(packs["train"].classes),
            "controls": {
                "colors alone": {
                    "top1": colors["top1_error"],
                    "top5": colors["top5_error"],
                    "train_images": colors["train_images"],
                },
                "chance": {
                    "top1": colors["chance_top1_error"],
                    "top5": colors["chance_top5_error"],
                },
            },
        }
    (run,), (net, augment) = runs, runs[0].net()
    views = {
        str(n): evaluation.evaluate(net, packs[reported], augment, n, progress=True).rounded()
        for n in (1, 10)
    }
    return {
        "views": views,
        "test_images": len(packs[reported]),
        "train_images": len(packs["train"]),
        "epochs": run.summary["epochs"],
        "ended": run.summary["ended"],
    }


def collect(records: Sequence[Record]) -> dict[str, Any]:
    about = dict(only(records, CONTROLS))
    controls = about.pop("controls")
    return about | {"nets": by_arm(records, PAPER), "controls": controls}


def rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of Table 1 in the paper's order, then the controls: row, views, seeds, top1, top5
    (means over seeds), half1, half5 (half the 95 % interval; infinite for one seed, None for a
    control), paper (top-1, top-5 on ILSVRC-2010; None for a control), train_images."""
    metrics, made = result["metrics"], []
    for row, paper in PAPER.items():
        by_seed = list(metrics["nets"][row].values())
        errors = [one["views"][VIEWS[row]] for one in by_seed]
        (top1, half1), (top5, half5) = (
            mean_interval([one[what] for one in errors]) for what in ("top1", "top5")
        )
        about = {
            "row": row,
            "views": int(VIEWS[row]),
            "seeds": len(by_seed),
            "train_images": by_seed[0]["train_images"],
            "paper": paper,
        }
        made.append(about | {"top1": top1, "half1": half1, "top5": top5, "half5": half5})
    nothing = dict.fromkeys(("paper", "half1", "half5", "train_images"))
    for row, control in metrics["controls"].items():
        made.append({"row": row, "views": 1, "seeds": 1} | nothing | control)
    return made


def table(result: dict[str, Any]) -> Table:
    """Table 1 in words: a row a classifier, errors with half their 95 % interval where there are
    several seeds, beside the paper's."""
    lines = []
    for row in rows(result):
        pairs = [(row["top1"], row["half1"]), (row["top5"], row["half5"])]
        shown = [
            f"{100 * error:.1f}" + (f" ± {100 * half:.1f}" if row["seeds"] > 1 else "") + " %"
            for error, half in pairs
        ]
        seen = f"{row['train_images']:,}" if row["train_images"] else ""
        paper = "{:.1%}, {:.1%}".format(*row["paper"]) if row["paper"] else ""
        lines.append([row["row"], seen, str(row["views"]), *shown, paper])
    return Table(
        ["", "trained on", "views", "top-1 error", "top-5 error", "the paper, ILSVRC-2010"], lines
    )


def plot(result: dict[str, Any]) -> Figure:
    """Bars of top-1 and top-5 errors, with 95 % intervals over seeds where there are several; ticks
    are the paper's, on ILSVRC-2010."""
    shown = rows(result)
    figure, panels = plt.subplots(1, 2, figsize=(7, 2.4), sharey=True, layout="constrained")
    places = np.arange(len(shown))[::-1]
    for panel, what, k in zip(panels, ("top1", "top5"), (1, 5), strict=True):
        halves = [row[f"half{k}"] for row in shown]
        error = [100 * half if half is not None and np.isfinite(half) else 0 for half in halves]
        colors = ["C0" if row["paper"] else "0.75" for row in shown]
        panel.barh(
            places,
            [100 * row[what] for row in shown],
            0.6,
            xerr=error if any(error) else None,
            color=colors,
            capsize=3,
        )
        papers = [
            (place, 100 * row["paper"][0 if k == 1 else 1])
            for place, row in zip(places, shown, strict=True)
            if row["paper"]
        ]
        panel.plot(
            [x for _, x in papers], [y for y, _ in papers], "k|", markersize=16, markeredgewidth=2
        )
        panel.set(
            xlim=(0, 100),
            xlabel=f"top-{k} error, %",
            yticks=places,
            yticklabels=[row["row"] for row in shown],
        )
    panels[0].plot([], [], "k|", label="the paper, ILSVRC-2010")
    panels[0].legend(loc="lower right", fontsize=7)
    return figure
