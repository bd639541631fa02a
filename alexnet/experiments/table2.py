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

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from alexnet import evaluation
from alexnet.claims.statistics import bootstrap_interval
from alexnet.data.pack import Pack
from alexnet.errors import InputError
from alexnet.experiments import table1
from alexnet.experiments.jobs import Packs, Run, Training, base_job, configure, from_weights
from alexnet.experiments.protocol import Entry, by_arm, only
from alexnet.profiles import Profile
from alexnet.results import Record
from alexnet.tables import Table

NAME = "table2"
VERSION = 1
AVERAGED, STARRED = 5, 2
# The paper's numbers on ILSVRC-2012, in percent: top-1 and top-5 on validation images, top-5 on
# test images.
PAPER: dict[str, tuple[float | None, float | None, float | None]] = {
    "SIFT + FVs": (None, None, 26.2),
    "1 CNN": (40.7, 18.2, None),
    "5 CNNs": (38.1, 16.4, 16.4),
    "1 CNN*": (39.0, 16.6, None),
    "7 CNNs*": (36.7, 15.4, 15.3),
}
DRAWS = 2000  # of images, for an interval
SIFT, PLAIN, STAR, AVERAGES = "SIFT + FVs", "1 CNN", "1 CNN*", "averages"  # arms
FIVE, SEVEN = "5 CNNs", "7 CNNs*"  # rows of the last


def settings(profile: Profile) -> dict[str, Any]:
    profile[NAME]  # says so where there are none
    return {"averaged": [AVERAGED, STARRED], "draws": DRAWS}


def pretraining(profile: Profile) -> tuple[Packs, str]:
    """The packs of the larger set; or none, and the reason."""
    given = profile[NAME].get("pretraining")
    if given is None:
        return {}, "the profile names no larger set to pre-train on"
    try:
        return profile.packs("pretraining", given), ""
    except InputError as error:  # it is another data set, and not here
        return {}, str(error)


def entries(profile: Profile, seeds: Sequence[int]) -> list[Entry]:
    own, packs, (more, lacks) = settings(profile), profile.splits(), pretraining(profile)
    left_out = {} if more else dict.fromkeys((STAR, SEVEN), lacks)
    plain = {seed: base_job(profile, seed) for seed in enough(seeds, AVERAGED)}
    starred = {}
    for seed in enough(seeds, STARRED) if more else ():
        before = Training(_starred(profile, "pretraining", seed, more), more)
        config = _starred(profile, "finetuning", seed, packs)
        starred[seed] = (before, Training(config, packs, (before,), from_weights))
    made = [Entry(PLAIN, seed, packs, (job,), seeds=tuple(seeds)) for seed, job in plain.items()]
    made += [Entry(STAR, seed, packs, both, seeds=tuple(seeds)) for seed, both in starred.items()]
    if table1.NAME in profile.settings:  # whose row it is
        sift = {seed: table1.baseline(profile, SIFT, seed) for seed in seeds}
        made += [Entry(SIFT, seed, packs, (job,), seeds=tuple(seeds)) for seed, job in sift.items()]
    else:
        left_out[SIFT] = "the profile has no Table 1, whose row this is"
    own |= {"left_out": left_out}
    members = [*list(plain.values())[:AVERAGED], *(job for _, job in starred.values())]
    members = members[: AVERAGED + STARRED]
    if more:
        about = {"classes": len(more["train"].classes), "train_images": len(more["train"])}
        own |= {"pretraining": about}
    return [*made, Entry(AVERAGES, None, packs, tuple(members), own, tuple(seeds))]


def enough(seeds: Sequence[int], least: int) -> list[int]:
    """The seeds asked for, and the smallest others until there are `least`."""
    others = (seed for seed in range(len(seeds) + least) if seed not in seeds)
    return [*seeds, *(next(others) for _ in range(least - len(seeds)))]


def _starred(profile: Profile, stage: str, seed: int, packs: Packs) -> Any:
    """The config of a net with a sixth convolution, in pre-training or after it."""
    given = profile[NAME][stage]
    preset = given.get("preset", f"{profile['base']}/conv6")
    fields = {name: given[name] for name in ("epochs", "rate") if name in given}
    return configure(profile, preset, packs=packs, seed=seed, **fields)


def measure(entry: Entry, runs: Sequence[Run]) -> dict[str, Any]:
    if entry.arm == SIFT:
        return runs[0].summary["errors"]
    splits = {split: pack for split, pack in entry.packs.items() if split != "train"}
    if entry.arm == AVERAGES:
        return _measure_averages(entry, runs, splits)
    views = {
        split: {
            str(n): evaluation.errors(*predict(runs[-1].folder, pack, n)).rounded() for n in (1, 10)
        }
        for split, pack in splits.items()
    }
    pairs = zip(entry.jobs, runs, strict=True)
    seen = [len(job.packs["train"]) * run.summary["epochs"] for job, run in pairs]
    return {"views": views, "images_seen": sum(round(images) for images in seen)}


def _measure_averages(entry: Entry, runs: Sequence[Run], splits: Packs) -> dict[str, Any]:
    measured = {
        split: _averages([run.folder for run in runs], pack) for split, pack in splits.items()
    }
    seeds = [run.config.seed for run in runs]
    averaged: dict[str, Any] = {FIVE: seeds[:AVERAGED], SEVEN: None}
    if seeds[AVERAGED:]:
        averaged[SEVEN] = [seeds[:AVERAGED], seeds[AVERAGED:]]
    return {
        "images": {split: len(pack) for split, pack in splits.items()},
        "classes": len(entry.packs["train"].classes),
        "rows": {split: rows for split, (rows, _) in measured.items()},
        "gains": {split: gains for split, (_, gains) in measured.items()},
        "averaged": averaged,
        "pretraining": entry.settings.get("pretraining"),
        "left_out": entry.settings["left_out"],
    }


def _averages(folders: Sequence[Path], pack: Pack) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rows of the table on a pack, of the five nets first and of all; what averaging gains."""
    rows: dict[str, Any] = {}
    gains: dict[str, Any] = {}
    for views in (1, 10):
        each = [predict(folder, pack, views) for folder in folders]
        labels = each[0][1]
        missed = {PLAIN: np.mean([misses(*one) for one in each[:AVERAGED]], axis=0)}
        for row, count, than in ((FIVE, AVERAGED, PLAIN), (SEVEN, AVERAGED + STARRED, FIVE)):
            if len(each) < count:
                continue
            total: Tensor | float = 0.0
            for probabilities, _ in each[:count]:
                total = total + probabilities
            average = torch.as_tensor(total / count)
            missed[row] = misses(average, labels)
            measured: dict[str, Any] = evaluation.errors(average, labels).rounded()
            measured |= {"interval": _both(interval, missed[row])}
            rows.setdefault(row, {"views": {}})["views"][str(views)] = measured
            gained = _both(gain, missed[row] - missed[than])
            gains.setdefault(f"{row} for {than}", {})[str(views)] = gained
    return rows, gains


@lru_cache(maxsize=4 * (AVERAGED + STARRED))  # each net is a row, and part of the averages
def predict(folder: Path, pack: Pack, views: int) -> tuple[Tensor, Tensor]:
    """A net's probabilities, and the labels."""
    net, augment = Run(folder).net()
    return evaluation.predict(net, pack, augment, views, progress=True)


def misses(probabilities: Tensor, labels: Tensor) -> np.ndarray:
    """Of each image, whether it is missed, top-1 and top-5: (2, N), 0..1."""
    return np.stack([1.0 - evaluation.hits(probabilities, labels, k).numpy() for k in (1, 5)])


def interval(values: np.ndarray) -> list[float]:
    """The 95 % bootstrap interval of the mean of `values` (N,), as it is stored."""
    return [round(end, 5) for end in bootstrap_interval(values, DRAWS)]


def gain(values: np.ndarray) -> list[float]:
    """The mean, and its interval."""
    return [round(float(values.mean()), 5), *interval(values)]


def _both(what: Callable[[np.ndarray], list[float]], values: np.ndarray) -> dict[str, list[float]]:
    return {name: what(of) for name, of in zip(("top1", "top5"), values, strict=True)}


def collect(records: Sequence[Record]) -> dict[str, Any]:
    nets, about = by_arm(records, (SIFT, PLAIN, STAR)), only(records, AVERAGES)
    sift, single = nets.pop(SIFT, {}), nets
    seen = {
        row: round(float(np.mean([net["images_seen"] for net in of.values()])))
        for row, of in single.items()
    }
    tables: dict[str, dict[str, Any]] = {}
    for split, averages in about["rows"].items():
        rows = {SIFT: {seed: row for seed, row in sift.items() if row["split"] == split}}
        rows |= {
            row: {seed: {"views": net["views"][split]} for seed, net in of.items()}
            for row, of in single.items()
        }
        tables[split] = {row: of for row, of in rows.items() if of} | averages
    return {
        "images": about["images"],
        "classes": about["classes"],
        "nets": tables.get("val", {}),  # on validation images, as the paper's table
        "test": tables.get("test"),
        "test_left_out": None if "test" in tables else "its labels are not public",
        "left_out": about["left_out"],
        "gains": about["gains"],
        "averaged": about["averaged"],
        "images_seen": seen,
        "pretraining": about["pretraining"],
    }


# --- as the paper prints it ---------------------------------------------------------------------


def rows(result: dict[str, Any], views: int = 10) -> list[tuple[str, ...]]:
    """Rows of text: the net, its top-1 and top-5 error on validation images and top-5 on test
    images, means over seeds where there are several, in percent; then the paper's three. A dash
    stands where there is no number."""
    metrics = result["metrics"]
    lines = []
    for row, paper in PAPER.items():
        columns = [
            (metrics["nets"], "top1"),
            (metrics["nets"], "top5"),
            (metrics["test"] or {}, "top5"),
        ]
        numbers = [_mean(by_row.get(row), views, what) for by_row, what in columns]
        lines.append(
            (
                row,
                *("-" if n is None else f"{n:.1f}" for n in numbers),
                *("-" if n is None else f"{n:.1f}" for n in paper),
            )
        )
    return lines


def table(result: dict[str, Any], views: int = 10) -> Table:
    """Table 2 in words, beside the paper's; below it, rows of several seeds seed by seed, and what
    is left out."""
    metrics = result["metrics"]
    head = [
        "errors in percent, ten views",
        *("validation top-1", "top-5", "test top-5"),
        *("the paper: top-1", "top-5", "test top-5"),
    ]
    notes = []
    for row, by_seed in metrics["nets"].items():
        if "views" not in by_seed and len(by_seed) > 1:
            shown = ", ".join(
                f"{100 * one['views'][str(views)]['top1']:.1f}" for one in by_seed.values()
            )
            notes.append(f"{row}, validation top-1 seed by seed: {shown}")
    notes += [f"{row}: left out, {why}" for row, why in metrics["left_out"].items()]
    notes += (
        [f"test images: left out, {metrics['test_left_out']}"] if metrics["test_left_out"] else []
    )
    return Table(head, rows(result, views), notes)


def _mean(row: dict[str, Any] | None, views: int, what: str) -> float | None:
    """In percent, over seeds. Baselines have one view."""
    if not row:
        return None
    runs = [row] if "views" in row else list(row.values())
    return 100 * float(
        np.mean([one["views"].get(str(views), one["views"].get("1"))[what] for one in runs])
    )


def plot(result: dict[str, Any]) -> Figure:
    """Errors on validation images from ten views, row by row: dots are seeds, bars the bootstrap's
    intervals of the averages."""
    nets = result["metrics"]["nets"]
    order = [row for row in PAPER if row in nets]
    figure, panels = plt.subplots(
        1, 2, figsize=(9, 0.8 + 0.45 * len(order)), sharey=True, layout="constrained"
    )
    for panel, what in zip(panels, ("top1", "top5"), strict=True):
        for place, row in enumerate(order):
            net = nets[row]
            if "views" in net:
                at = net["views"]["10"]
                panel.plot(
                    [100 * end for end in at["interval"][what]],
                    [-place] * 2,
                    color="#3b6fa0",
                    lw=2,
                    alpha=0.6,
                )
                panel.plot(100 * at[what], -place, "o", color="#3b6fa0", ms=6)
            else:
                errors = [
                    100 * one["views"].get("10", one["views"].get("1"))[what]
                    for one in net.values()
                ]  # baselines have one view
                panel.plot(errors, [-place] * len(errors), "o", color="#c77c11", ms=4, alpha=0.8)
        panel.set_xlabel(f"{'top-1' if what == 'top1' else 'top-5'} error, percent", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(axis="x", lw=0.4, alpha=0.6)
    panels[0].set_yticks([-place for place in range(len(order))], order)
    panels[0].set_ylim(0.5 - len(order), 0.5)
    return figure
