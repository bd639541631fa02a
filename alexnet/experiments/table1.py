"""Table 1 (section 6 of the paper): the net's test errors, from ten views, beside those of two systems of before: sparse coding, and SIFT
with Fisher vectors. All three are really run, on the same images; controls are colors alone, and chance.

A row of before is an artifact under runs/<profile>/baselines, keyed by its settings, seed and data, as a trained model is one.
"""

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from alexnet import evaluation, results
from alexnet.baselines import fisher_vectors, pipeline, sparse_coding
from alexnet.baselines.color_histogram import color_histogram_errors
from alexnet.claims import mean_interval
from alexnet.data.pack import Pack, held_out
from alexnet.experiments import models
from alexnet.processes import as_they_end, cores
from alexnet.profiles import Profile, alone
from alexnet.tables import Table

VERSION = 2  # of the baselines: a change to what they compute is a new number
PAPER = {
    sparse_coding.ROW: (0.471, 0.282),
    fisher_vectors.ROW: (0.457, 0.257),
    "CNN": (0.375, 0.170),
}  # top-1, top-5, ILSVRC-2010
VIEWS = {sparse_coding.ROW: "1", fisher_vectors.ROW: "1", "CNN": "10"}  # what the row shows
BASELINES: dict[
    str, tuple[str, Callable[..., dict[str, Any]]]
] = {  # the row's settings in a profile, and what runs it
    sparse_coding.ROW: ("sparse_coding", sparse_coding.sparse_coding_errors),
    fisher_vectors.ROW: ("fisher_vectors", fisher_vectors.fisher_vector_errors),
}
DIFFERENCES = {
    sparse_coding.ROW: (
        "one model of patches of pixels; the paper cites the average of six models, trained on different features",
        "the cited system (Lin et al., 2011) codes HOG and LBP descriptors, into hundreds of thousands of numbers an image",
        "codes by a soft threshold, not by solving for them",
        "one logistic regression over all classes, by L-BFGS; theirs is one linear SVM a class, by averaged SGD",
        "on big data, trained on a sample of the training images, whose number stands beside the row; theirs saw all 1.2 million",
    ),
    fisher_vectors.ROW: (
        "one classifier over SIFT; the paper cites the average of two, over Fisher vectors of two kinds of descriptors",
        "a mixture of tens of Gaussians, over whole images; the cited vectors (Sanchez and Perronnin, 2011) are far longer, and compressed",
        "descriptors enter as the roots of their shares, a step published after the cited system",
        "one logistic regression over all classes, by L-BFGS",
        "on big data, trained on a sample of the training images, whose number stands beside the row; theirs saw all 1.2 million",
    ),
    "CNN": (
        "width, image size and number of classes are the profile's; the training rule is the text's",
    ),
}


def config(profile: Profile) -> dict[str, Any]:
    settings = {"table1": profile["table1"], "version": VERSION}
    net = {"base": profile["base"], "epochs": profile["epochs"], "net": profile.net}
    return settings | net | {"data": {name: pack.digest for name, pack in profile.splits().items()}}


def nets(profile: Profile, seeds: list[int]) -> list[models.Planned]:
    return [(models.base(profile, seed), profile.splits()) for seed in seeds]


def run(profile: Profile, seeds: list[int]) -> dict[str, Any]:
    splits = profile.splits()
    reported = held_out(splits, "Table 1")
    fisher_vectors.opencv()  # what lacks is told before anything is trained
    found = _before(profile, seeds, splits) | {"CNN": {}}
    trained = models.train_all(
        profile, [models.base(profile, seed) for seed in seeds], title="Table 1"
    )
    for seed, path in zip(seeds, trained, strict=True):
        net, augment = models.trained(path)
        by_view = {
            str(n): evaluation.evaluate(net, splits[reported], augment, n, progress=True).rounded()
            for n in (1, 10)
        }
        summary = models.summary(path)
        about = {
            "test_images": len(splits[reported]),
            "train_images": len(splits["train"]),
            "epochs": summary["epochs"],
        }
        found["CNN"][str(seed)] = {"views": by_view, **about, "ended": summary["ended"]}
    colors = color_histogram_errors(splits)
    return {
        "split": reported,
        "images": len(splits[reported]),
        "train_images": len(splits["train"]),
        "classes": len(splits["train"].classes),
        "nets": found,
        "controls": {
            "colors alone": {
                "top1": colors["top1_error"],
                "top5": colors["top5_error"],
                "train_images": colors["train_images"],
            },
            "chance": {"top1": colors["chance_top1_error"], "top5": colors["chance_top5_error"]},
        },
    }


def _before(
    profile: Profile, seeds: list[int], splits: dict[str, Pack]
) -> dict[str, dict[str, Any]]:
    """The errors of the systems of before, as the nets' are laid out: what runs/ remembers of these settings and this data, else run now;
    two at a time, for what one learns, and a classifier alone, leave cores idle."""
    settings, paths, missing = profile["table1"], {}, {}
    common = {name: settings[name] for name in ("train_images", "test_images") if name in settings}
    data = {name: pack.digest for name, pack in splits.items()}
    for row, (part, errors) in BASELINES.items():
        for seed in seeds:
            given = common | settings.get(part, {}) | {"seed": seed}
            identity = {"part": part, "settings": given, "version": VERSION, "data": data}
            path = paths[row, seed] = (
                profile.runs / "baselines" / f"{part}-{results.config_hash(identity)}.json"
            )
            if not path.exists():
                missing[f"{row}, seed {seed}"] = (path, errors, splits, given)
    images = sum(min(len(pack), common.get("train_images", len(pack))) for pack in splits.values())
    at_once = min(
        2, cores(), len(missing), images // pipeline.SPREAD + 1
    )  # of few images, one after the other: a process takes seconds
    if at_once < 2:
        for task in missing.values():
            _run_row(*task)
    else:
        context = multiprocessing.get_context("spawn")
        lock, lines = context.RLock(), context.SimpleQueue()
        for line in range(at_once):
            lines.put(line)
        for number, job in as_they_end(
            _run_row, list(missing.values()), at_once, partial(pipeline.begin, lock, lines)
        ):
            try:
                job.result()
            except BrokenProcessPool:
                raise RuntimeError(
                    f"{list(missing)[number]}: its process died, perhaps for want of memory"
                ) from None
    return {
        row: {str(seed): json.loads(paths[row, seed].read_text()) for seed in seeds}
        for row in BASELINES
    }


def _run_row(
    path: Path,
    errors: Callable[..., dict[str, Any]],
    splits: dict[str, Pack],
    given: dict[str, Any],
) -> None:
    with alone(path.with_suffix("")):
        if not path.exists():
            measured = errors(splits, folder=path.with_suffix(""), **given)
            view = {what: measured.pop(what) for what in ("top1", "top5", "nll")}
            _write_whole(path, json.dumps({"views": {"1": view}, **measured}, indent=1) + "\n")


def _write_whole(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def table(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of Table 1 in the paper's order, then the controls: row, views, seeds, top1, top5 (means over seeds), half1, half5 (half the
    95 % interval; infinite for one seed, None for a control), paper (top-1, top-5 on ILSVRC-2010; None for a control), train_images."""
    metrics, rows = result["metrics"], []
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
        rows.append(about | {"top1": top1, "half1": half1, "top5": top5, "half5": half5})
    for row, found in metrics["controls"].items():
        rows.append(
            {
                "row": row,
                "views": 1,
                "seeds": 1,
                "paper": None,
                "half1": None,
                "half5": None,
                "train_images": None,
            }
            | found
        )
    return rows


def text(result: dict[str, Any]) -> Table:
    """Table 1 in words: a row a classifier, errors with half their 95 % interval where there are several seeds, beside the paper's."""
    rows = []
    for row in table(result):
        pairs = [(row["top1"], row["half1"]), (row["top5"], row["half5"])]
        shown = [
            f"{100 * error:.1f}" + (f" ± {100 * half:.1f}" if row["seeds"] > 1 else "") + " %"
            for error, half in pairs
        ]
        seen = f"{row['train_images']:,}" if row["train_images"] else ""
        paper = "{:.1%}, {:.1%}".format(*row["paper"]) if row["paper"] else ""
        rows.append([row["row"], seen, str(row["views"]), *shown, paper])
    return Table(
        ["", "trained on", "views", "top-1 error", "top-5 error", "the paper, ILSVRC-2010"], rows
    )


def plot(result: dict[str, Any]) -> Figure:
    """Bars of top-1 and top-5 errors, with 95 % intervals over seeds where there are several; ticks are the paper's, on ILSVRC-2010."""
    rows = table(result)
    figure, panels = plt.subplots(1, 2, figsize=(7, 2.4), sharey=True, layout="constrained")
    places = np.arange(len(rows))[::-1]
    for panel, what, k in zip(panels, ("top1", "top5"), (1, 5), strict=True):
        halves = [row[f"half{k}"] for row in rows]
        error = [100 * half if half is not None and np.isfinite(half) else 0 for half in halves]
        colors = ["C0" if row["paper"] else "0.75" for row in rows]
        panel.barh(
            places,
            [100 * row[what] for row in rows],
            0.6,
            xerr=error if any(error) else None,
            color=colors,
            capsize=3,
        )
        papers = [
            (place, 100 * row["paper"][0 if k == 1 else 1])
            for place, row in zip(places, rows, strict=True)
            if row["paper"]
        ]
        panel.plot(
            [x for _, x in papers], [y for y, _ in papers], "k|", markersize=16, markeredgewidth=2
        )
        panel.set(
            xlim=(0, 100),
            xlabel=f"top-{k} error, %",
            yticks=places,
            yticklabels=[row["row"] for row in rows],
        )
    panels[0].plot([], [], "k|", label="the paper, ILSVRC-2010")
    panels[0].legend(loc="lower right", fontsize=7)
    return figure
