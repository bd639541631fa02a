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

import numpy as np

from alexnet import results
from alexnet.claims.statistics import mean_interval
from alexnet.data.pack import held_out
from alexnet.errors import needs
from alexnet.experiments import scheduler
from alexnet.experiments.jobs import Job, Packs, Run, base_job
from alexnet.experiments.protocol import (
    Entry,
    Metrics,
    Profile,
    Record,
    Result,
    Table,
    by_arm,
    only,
)
from alexnet.experiments.showing import Figure, subplots
from alexnet.files import lock, write_whole
from alexnet.keys import key

NAME = "table1"
VERSION = 1
BASELINES_VERSION = 2  # a change to what they compute is a new number
SPARSE, SIFT, CNN, CONTROLS = "sparse coding", "SIFT + FVs", "CNN", "controls"  # arms
# top-1, top-5, ILSVRC-2010
PAPER = {SPARSE: (0.471, 0.282), SIFT: (0.457, 0.257), CNN: (0.375, 0.170)}
VIEWS = {SPARSE: "1", SIFT: "1", CNN: "10"}  # what the row shows
# the module, whose name the row's settings in a profile have too, and its function
BASELINES = {
    SPARSE: ("sparse_coding", "sparse_coding_errors"),
    SIFT: ("fisher_vectors", "fisher_vector_errors"),
}
DIFFERENCES = {
    SPARSE: (
        "one model of patches of pixels; the paper cites the average of six models, trained on "
        "different features",
        "the cited system (Lin et al., 2011) codes HOG and LBP descriptors, into hundreds of "
        "thousands of numbers an image",
        "codes by a soft threshold, not by solving for them",
        "one logistic regression over all classes, by L-BFGS; theirs is one linear SVM a class, by "
        "averaged SGD",
        "on big data, trained on a sample of the training images, whose number stands beside the "
        "row; theirs saw all 1.2 million",
    ),
    SIFT: (
        "one classifier over SIFT; the paper cites the average of two, over Fisher vectors of two "
        "kinds of descriptors",
        "a mixture of tens of Gaussians, over whole images; the cited vectors (Sanchez and "
        "Perronnin, 2011) are far longer, and compressed",
        "descriptors enter as the roots of their shares, a step published after the cited system",
        "one logistic regression over all classes, by L-BFGS",
        "on big data, trained on a sample of the training images, whose number stands beside the "
        "row; theirs saw all 1.2 million",
    ),
    CNN: (
        "width, image size and number of classes are the profile's; the training rule is the "
        "text's",
    ),
}


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    profile[NAME]  # says so where there are none
    packs, made = profile.splits(), []
    for arm in (*BASELINES, CNN):
        for seed in seeds:
            job = base_job(profile, seed) if arm == CNN else baseline(profile, arm, seed)
            made.append(Entry(arm, seed, packs, (job,)))
    return [*made, Entry(CONTROLS, None, packs)]


def baseline(profile: Profile, row: str, seed: int) -> "Baseline":
    """The job that runs a row of the older systems.

    Args:
        profile: What it is run on.
        row: A key of BASELINES.
        seed: Of its draws.
    """
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
        module = _baselines(BASELINES[self.row][0])
        if self.row == SIFT:
            module.opencv()

    def task(self, profile: Profile, needed: Sequence[Run] = ()) -> Callable[[], object]:
        return partial(run_baseline, self.row, self.given, self.packs, self.folder(profile))


def _baselines(name: str) -> Any:
    """A module of `alexnet.baselines`, which need an extra."""
    return needs(f"alexnet.baselines.{name}", extra="experiments", what="Table 1")


def run_baseline(row: str, given: dict[str, Any], packs: Packs, folder: Path) -> None:
    """Leave a `summary.json` with the errors in `folder`; what was begun there goes on."""
    module, function = BASELINES[row]
    _baselines("pipeline").use_line(scheduler.line())
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / "lock"):
        if (folder / "summary.json").exists():
            return
        began = time.monotonic()
        errors = getattr(_baselines(module), function)
        measured = errors(packs, folder=folder / "work", **given)
        view = {what: measured.pop(what) for what in ("top1", "top5", "nll")}
        seconds = round(time.monotonic() - began, 1)
        summary = {"seconds": seconds, "errors": {"views": {"1": view}} | measured}
        summary["origins"] = [results.origin() | {"seconds": seconds}]
        write_whole(folder / "summary.json", json.dumps(summary, indent=1) + "\n")


def measure(entry: Entry, runs: list[Run]) -> Metrics:
    packs = entry.packs
    reported = held_out(packs, "Table 1")
    if entry.arm in BASELINES:
        return runs[0].summary["errors"]
    sizes = {"train_images": len(packs["train"])}
    if entry.arm == CONTROLS:
        colors = _baselines("color_histogram").color_histogram_errors(packs)
        rows = {"colors alone": "", "chance": "chance_"}
        controls = {
            row: {what: colors[f"{prefix}{what}_error"] for what in ("top1", "top5")}
            for row, prefix in rows.items()
        }
        controls["colors alone"]["train_images"] = colors["train_images"]
        sizes = {"images": len(packs[reported])} | sizes
        sizes["classes"] = len(packs["train"].classes)
        return {"split": reported, **sizes, "controls": controls}
    (run,) = runs
    about = {name: run.summary[name] for name in ("epochs", "ended")}
    return (
        {"views": run.views(packs[reported]), "test_images": len(packs[reported])} | sizes | about
    )


def collect(records: list[Record]) -> Metrics:
    about = dict(only(records, CONTROLS))
    controls = about.pop("controls")
    return about | {"nets": by_arm(records, PAPER), "controls": controls}


def rows(result: Result) -> list[dict[str, Any]]:
    """The rows of Table 1 in the paper's order, then the controls: row, views, seeds, top1, top5
    (means over seeds), half1, half5 (half the 95 % interval; infinite for one seed, None for a
    control), paper (top-1, top-5 on ILSVRC-2010; None for a control), train_images."""
    metrics, made = result["metrics"], []
    for row, paper in PAPER.items():
        nets = list(metrics["nets"][row].values())
        about = {"row": row, "views": int(VIEWS[row]), "seeds": len(nets)}
        about |= {"train_images": nets[0]["train_images"], "paper": paper}
        for k in (1, 5):
            errors = [net["views"][VIEWS[row]][f"top{k}"] for net in nets]
            about[f"top{k}"], about[f"half{k}"] = mean_interval(errors)
        made.append(about)
    nothing = dict.fromkeys(("paper", "half1", "half5", "train_images"))
    for row, control in metrics["controls"].items():
        made.append({"row": row, "views": 1, "seeds": 1} | nothing | control)
    return made


def table(result: Result) -> Table:
    """Table 1 in words: a row a classifier, errors with half their 95 % interval where there are
    several seeds, beside the paper's."""
    lines = []
    for row in rows(result):
        halves = [f" ± {100 * row[f'half{k}']:.1f}" if row["seeds"] > 1 else "" for k in (1, 5)]
        shown = [f"{100 * row[f'top{k}']:.1f}{half} %" for k, half in zip((1, 5), halves)]
        seen = f"{row['train_images']:,}" if row["train_images"] else ""
        paper = "{:.1%}, {:.1%}".format(*row["paper"]) if row["paper"] else ""
        lines.append([row["row"], seen, str(row["views"]), *shown, paper])
    head = ["", "trained on", "views", "top-1 error", "top-5 error", "the paper, ILSVRC-2010"]
    return Table(head, lines)


def plot(result: Result) -> Figure:
    """Bars of top-1 and top-5 errors, with 95 % intervals over seeds where there are several; ticks
    are the paper's, on ILSVRC-2010."""
    shown = rows(result)
    figure, panels = subplots(7, 2.4, across=2, sharey=True)
    places, names = np.arange(len(shown))[::-1], [row["row"] for row in shown]
    colors = ["C0" if row["paper"] else "0.75" for row in shown]
    for i, (panel, k) in enumerate(zip(panels, (1, 5), strict=True)):
        halves = [row[f"half{k}"] for row in shown]
        error = [100 * half if half is not None and np.isfinite(half) else 0 for half in halves]
        look = {"xerr": error if any(error) else None, "color": colors, "capsize": 3}
        panel.barh(places, [100 * row[f"top{k}"] for row in shown], 0.6, **look)
        papers = [100 * row["paper"][i] for row in shown if row["paper"]]  # the first rows
        panel.plot(papers, places[: len(papers)], "k|", markersize=16, markeredgewidth=2)
        panel.set(xlim=(0, 100), xlabel=f"top-{k} error, %", yticks=places, yticklabels=names)
    panels[0].plot([], [], "k|", label="the paper, ILSVRC-2010")
    panels[0].legend(loc="lower right", fontsize=7)
    return figure
