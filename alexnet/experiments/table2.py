"""Table 2 (section 6 of the paper): one net, five averaged, one that was pre-trained on more
classes, and seven averaged, beside SIFT and Fisher vectors.

    alexnet reproduce --only table2 --seeds 5

Rows marked * are of nets with a sixth convolution, trained on the profile's larger set of classes
first; all layers but the last then go on from there on the task. The source's weights had come by
way of three data sets, and their last training began at a tenth of the first rate. Here there is
one such set, and the profile says the rate. Averages are of probabilities.

Which nets. Rows of one net have an error for each seed: those asked for, and as many more as the
averages need, five and two. The averages are of the first five seeds and the first two, and there
is one of each: further ones would share nets with it or cost five more. So they have no spread over
seeds; their intervals are bootstraps over images. What averaging gains is measured against the mean
of the nets that are averaged, on the same images.

Starred nets see more images than the others, as they did in 2012. How many more is part of the
result.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet import evaluation
from alexnet.claims.statistics import bootstrap_interval
from alexnet.data.pack import Pack
from alexnet.errors import InputError
from alexnet.experiments import table1
from alexnet.experiments.jobs import Job, Packs, Run, Training, base_job, configure, from_weights
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
from alexnet.experiments.showing import COLUMN, Figure, subplots

NAME = "table2"
VERSION = 1
AVERAGED, STARRED = 5, 2
# The paper's numbers on ILSVRC-2012, in percent: top-1 and top-5 on validation images, top-5 on
# test images.
SIFT, PLAIN, STAR, AVERAGES = "SIFT + FVs", "1 CNN", "1 CNN*", "averages"  # arms
FIVE, SEVEN = "5 CNNs", "7 CNNs*"  # rows of the last
PAPER: dict[str, tuple[float | None, ...]] = {
    SIFT: (None, None, 26.2),
    PLAIN: (40.7, 18.2, None),
    FIVE: (38.1, 16.4, 16.4),
    STAR: (39.0, 16.6, None),
    SEVEN: (36.7, 15.4, 15.3),
}
VIEWS = (1, 10)
DRAWS = 2000  # of images, for an interval


def pretraining(profile: Profile) -> tuple[Packs, str]:
    """The packs of the larger set; or none, and the reason."""
    given = profile[NAME].get("pretraining")
    if given is None:
        return {}, "the profile names no larger set to pre-train on"
    try:
        return profile.packs("pretraining", given), ""
    except InputError as error:  # it is another data set, and not here
        return {}, str(error)


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    given, packs, (more, lacks) = profile[NAME], profile.splits(), pretraining(profile)

    def starred(stage: str, seed: int, images: Packs) -> Any:
        """The config of a net with a sixth convolution, in pre-training or after it."""
        preset = given[stage].get("preset", f"{profile['base']}/conv6")
        fields = {name: given[stage][name] for name in ("epochs", "rate") if name in given[stage]}
        return configure(profile, preset, packs=images, seed=seed, **fields)

    left_out = {} if more else dict.fromkeys((STAR, SEVEN), lacks)
    jobs: dict[str, dict[int, tuple[Job, ...]]] = {
        PLAIN: {s: (base_job(profile, s),) for s in enough(seeds, AVERAGED)},
        STAR: {},
    }
    for seed in enough(seeds, STARRED) if more else ():
        before = Training(starred("pretraining", seed, more), more)
        jobs[STAR][seed] = (
            before,
            Training(starred("finetuning", seed, packs), packs, (before,), from_weights),
        )
    members = [
        needed[-1]
        for needed in [*jobs[PLAIN].values()][:AVERAGED] + [*jobs[STAR].values()][:STARRED]
    ]
    if table1.NAME in profile.settings:  # whose row it is
        jobs[SIFT] = {seed: (table1.baseline(profile, SIFT, seed),) for seed in seeds}
    else:
        left_out[SIFT] = "the profile has no Table 1, whose row this is"
    own = {"averaged": [AVERAGED, STARRED], "draws": DRAWS, "left_out": left_out}
    if more:
        own["pretraining"] = {
            "classes": len(more["train"].classes),
            "train_images": len(more["train"]),
        }
    made = [
        Entry(arm, seed, packs, needed)
        for arm, by_seed in jobs.items()
        for seed, needed in by_seed.items()
    ]
    return [*made, Entry(AVERAGES, None, packs, tuple(members), own)]


def enough(seeds: list[int], least: int) -> list[int]:
    """The seeds asked for, and the smallest others until there are `least`.

    Args:
        seeds: Those asked for.
        least: How many there must be.
    """
    others = (seed for seed in range(len(seeds) + least) if seed not in seeds)
    return [*seeds, *(next(others) for _ in range(least - len(seeds)))]


def measure(entry: Entry, runs: list[Run]) -> Metrics:
    if entry.arm == SIFT:
        return runs[0].summary["errors"]
    splits = {split: pack for split, pack in entry.packs.items() if split != "train"}
    if entry.arm == AVERAGES:
        return _measure_averages(entry, runs, splits)
    views = {
        split: {
            str(n): evaluation.errors(*predict(runs[-1].folder, pack, n)).rounded() for n in VIEWS
        }
        for split, pack in splits.items()
    }
    seen = [
        round(len(job.packs["train"]) * run.summary["epochs"])
        for job, run in zip(entry.jobs, runs, strict=True)
    ]
    return {"views": views, "images_seen": sum(seen)}


def _measure_averages(entry: Entry, runs: list[Run], splits: Packs) -> Metrics:
    folders, seeds = [run.folder for run in runs], [run.config.seed for run in runs]
    measured = {split: _averages(folders, pack) for split, pack in splits.items()}
    plain, starred = seeds[:AVERAGED], seeds[AVERAGED:]
    return {
        "images": {split: len(pack) for split, pack in splits.items()},
        "classes": len(entry.packs["train"].classes),
        "rows": {split: rows for split, (rows, _) in measured.items()},
        "gains": {split: gains for split, (_, gains) in measured.items()},
        "averaged": {FIVE: plain, SEVEN: [plain, starred] if starred else None},
        "pretraining": entry.settings.get("pretraining"),
        "left_out": entry.settings["left_out"],
    }


def _averages(folders: Sequence[Path], pack: Pack) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rows of the table on a pack, of the five nets first and of all; what averaging gains."""
    rows: dict[str, Any] = {}
    gains: dict[str, Any] = {}
    for views in VIEWS:
        each = [predict(folder, pack, views) for folder in folders]
        labels = each[0][1]
        missed = {PLAIN: np.mean([misses(*one) for one in each[:AVERAGED]], axis=0)}
        for row, count, than in ((FIVE, AVERAGED, PLAIN), (SEVEN, AVERAGED + STARRED, FIVE)):
            if len(each) < count:
                continue
            average = torch.as_tensor(
                sum(probabilities for probabilities, _ in each[:count]) / count
            )
            missed[row] = misses(average, labels)
            errors = {
                **evaluation.errors(average, labels).rounded(),
                "interval": _both(interval, missed[row]),
            }
            rows.setdefault(row, {"views": {}})["views"][str(views)] = errors
            gains.setdefault(f"{row} for {than}", {})[str(views)] = _both(
                gain, missed[row] - missed[than]
            )
    return rows, gains


@lru_cache(maxsize=4 * (AVERAGED + STARRED))  # each net is a row, and part of the averages
def predict(folder: Path, pack: Pack, views: int) -> tuple[Tensor, Tensor]:
    """A net's probabilities, and the labels.

    Args:
        folder: The run's.
        pack: The images.
        views: 1 or 10.
    """
    net, augment = Run(folder).net()
    return evaluation.predict(net, pack, augment, views, progress=True)


def misses(probabilities: Tensor, labels: Tensor) -> np.ndarray:
    """Of each image, whether it is missed, top-1 and top-5: (2, N), 0..1.

    Args:
        probabilities: (N, classes).
        labels: int64 (N,).
    """
    return np.stack([1.0 - evaluation.hits(probabilities, labels, k).numpy() for k in (1, 5)])


def interval(values: np.ndarray) -> list[float]:
    """The 95 % bootstrap interval of the mean of `values` (N,), as it is stored."""
    return [round(end, 5) for end in bootstrap_interval(values, DRAWS)]


def gain(values: np.ndarray) -> list[float]:
    """The mean, and its interval."""
    return [round(float(values.mean()), 5), *interval(values)]


def _both(what: Callable[[np.ndarray], list[float]], values: np.ndarray) -> dict[str, list[float]]:
    return {name: what(of) for name, of in zip(("top1", "top5"), values, strict=True)}


def collect(records: list[Record]) -> Metrics:
    nets, about = by_arm(records, (SIFT, PLAIN, STAR)), dict(only(records, AVERAGES))
    seen = {
        row: round(float(np.mean([net["images_seen"] for net in nets[row].values()])))
        for row in (PLAIN, STAR)
        if row in nets
    }
    tables: dict[str, dict[str, Any]] = {}
    for split, averages in about.pop("rows").items():
        tables[split] = {}
        for row, seeds in nets.items():  # of the older system, one split has been measured
            views = {
                s: net if row == SIFT else {"views": net["views"][split]}
                for s, net in seeds.items()
            }
            if kept := {s: net for s, net in views.items() if net.get("split", split) == split}:
                tables[split][row] = kept
        tables[split] |= averages
    return about | {
        "nets": tables.get("val", {}),  # on validation images, as the paper's table
        "test": tables.get("test"),
        "test_left_out": None if "test" in tables else "its labels are not public",
        "images_seen": seen,
    }


# --- as the paper prints it ---------------------------------------------------------------------


def rows(result: Result, views: int = 10) -> list[tuple[str, ...]]:
    """Rows of text: the net, its top-1 and top-5 error on validation images and top-5 on test
    images, means over seeds where there are several, in percent; then the paper's three. A dash
    stands where there is no number.

    Args:
        result: Of the experiment.
        views: 1 or 10.
    """
    metrics, lines = result["metrics"], []
    columns = [
        (metrics["nets"], "top1"),
        (metrics["nets"], "top5"),
        (metrics["test"] or {}, "top5"),
    ]
    for row, paper in PAPER.items():
        measured = [_errors(by_row.get(row, {}), views, what) for by_row, what in columns]
        numbers = (*(float(np.mean(errors)) if errors else None for errors in measured), *paper)
        lines.append((row, *("-" if number is None else f"{number:.1f}" for number in numbers)))
    return lines


def _errors(row: dict[str, Any], views: int, what: str) -> list[float]:
    """Of a row, in percent: one, or one for each seed. Baselines have one view."""
    nets = [row] if "views" in row else row.values()
    return [100 * net["views"].get(str(views), net["views"].get("1"))[what] for net in nets]


def table(result: Result, views: int = 10) -> Table:
    """Table 2 in words, beside the paper's; below it, rows of several seeds seed by seed, and what
    is left out."""
    metrics, notes = result["metrics"], []
    for row, net in metrics["nets"].items():
        if len(errors := _errors(net, views, "top1")) > 1:
            notes.append(
                f"{row}, validation top-1 seed by seed: "
                f"{', '.join(f'{error:.1f}' for error in errors)}"
            )
    left_out = metrics["left_out"] | {"test images": metrics["test_left_out"]}
    notes += [f"{row}: left out, {why}" for row, why in left_out.items() if why]
    head = ["errors in percent, ten views", "validation top-1", "top-5", "test top-5"]
    return Table([*head, "the paper: top-1", "top-5", "test top-5"], rows(result, views), notes)


def tested(result: Result, views: int = 10) -> Table:
    """Errors on test images, where their labels are known: of one kind of net the mean over seeds.

    Args:
        result: Of the experiment.
        views: 1 or 10.
    """
    lines = []
    for row, net in (result["metrics"]["test"] or {}).items():
        count = "one average" if "views" in net else f"{len(net)} nets"
        errors = (np.mean(_errors(net, views, what)) for what in ("top1", "top5"))
        lines.append([row, count, *(f"{error:.1f} %" for error in errors)])
    return Table([f"test images, {views} views", "", "top-1 error", "top-5 error"], lines)


def plot(result: Result) -> Figure:
    """Errors on validation images from ten views, row by row: dots are seeds, bars the bootstrap's
    intervals of the averages."""
    nets = result["metrics"]["nets"]
    order = [row for row in PAPER if row in nets]
    figure, panels = subplots(9, 0.8 + 0.45 * len(order), across=2, sharey=True)
    for panel, what in zip(panels, ("top1", "top5"), strict=True):
        for place, row in enumerate(order):
            errors, look = (
                _errors(nets[row], 10, what),
                {"color": COLUMN[1], "ms": 4, "alpha": 0.8},
            )
            if "views" in nets[row]:
                ends = [100 * end for end in nets[row]["views"]["10"]["interval"][what]]
                panel.plot(ends, [-place] * 2, color=COLUMN[0], lw=2, alpha=0.6)
                look = {"color": COLUMN[0], "ms": 6}
            panel.plot(errors, [-place] * len(errors), "o", **look)
        panel.set_xlabel(f"top-{what[-1]} error, percent", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(axis="x", lw=0.4, alpha=0.6)
    panels[0].set_yticks([-place for place in range(len(order))], order)
    panels[0].set_ylim(0.5 - len(order), 0.5)
    return figure
