"""Table 2 (section 6 of the paper): one net, five averaged, one that was pre-trained on more classes, and seven averaged, beside SIFT and
Fisher vectors.

Rows marked * are of nets with a sixth convolution, trained on the profile's larger set of classes first; all layers but the last then go on
from there on the task. Averages are of probabilities.

Which nets. Rows of one net have an error for each seed: those asked for, and as many more as the averages need, five and two. The averages
are of the first five seeds and the first two, and there is one of each: further ones would share nets with it or cost five more. So they
have no spread over seeds; their intervals are bootstraps over images. What averaging gains is told against the mean of the nets that are
averaged, on the same images.

Starred nets see more images than the others, as they did in 2012. How many more is part of the result.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from alexnet import evaluation, experiments
from alexnet.data.pack import Pack
from alexnet.errors import InputError
from alexnet.experiments import models
from alexnet.profiles import Profile
from alexnet.tables import Table
from alexnet.training import starting_point

AVERAGED, STARRED = 5, 2
# The paper's numbers on ILSVRC-2012, in percent: top-1 and top-5 on validation images, top-5 on test images.
PAPER: dict[str, tuple[float | None, float | None, float | None]] = {
    "SIFT + FVs": (None, None, 26.2),
    "1 CNN": (40.7, 18.2, None),
    "5 CNNs": (38.1, 16.4, 16.4),
    "1 CNN*": (39.0, 16.6, None),
    "7 CNNs*": (36.7, 15.4, 15.3),
}
DRAWS = 2000  # of the bootstrap


def config(profile: Profile) -> dict[str, Any]:
    settings = profile["table2"]
    more, _ = pretraining(profile)
    digests = {"task": profile.splits(), "pretraining": more}
    return {
        "table2": settings,
        "table1": profile.settings.get("table1"),
        "net": profile.net,
        "base": profile["base"],
        "epochs": profile["epochs"],
        "averaged": [AVERAGED, STARRED],
        "data": {
            what: {split: pack.digest for split, pack in packs.items()}
            for what, packs in digests.items()
        },
    }


def pretraining(profile: Profile) -> tuple[dict[str, Pack], str]:
    """The packs of the larger set; or none, and the reason."""
    settings = profile["table2"].get("pretraining")
    if settings is None:
        return {}, "the profile names no larger set to pre-train on"
    try:
        return profile.packs("pretraining", settings), ""
    except InputError as error:  # it is another data set, and not here
        return {}, str(error)


def nets(profile: Profile, seeds: list[int]) -> list[models.Planned]:
    """Those that do not begin with another's weights."""
    more, _ = pretraining(profile)
    plain = [(models.base(profile, seed), profile.splits()) for seed in enough(seeds, AVERAGED)]
    return plain + [
        (_starry(profile, "pretraining", seed, more), more)
        for seed in enough(seeds, STARRED)
        if more
    ]


def then(profile: Profile, seeds: list[int]) -> models.Later:
    """Those that do."""
    more, _ = pretraining(profile)
    if not more:
        return [], {}
    configs, starts = _starred(profile, enough(seeds, STARRED), more)
    return [(config, profile.splits()) for config in configs], starts


def run(profile: Profile, seeds: list[int]) -> dict[str, Any]:
    splits, (more, lacks) = profile.splits(), pretraining(profile)
    plain = enough(seeds, AVERAGED)
    paths = {
        "1 CNN": dict(
            zip(
                plain,
                models.train_all(profile, [models.base(profile, s) for s in plain], title="table2"),
                strict=True,
            )
        )
    }
    seen = {"1 CNN": _seen(paths["1 CNN"].values(), splits["train"])}
    left_out: dict[str, str] = {}
    if more:
        starred = enough(seeds, STARRED)
        configs, starts = _starred(profile, starred, more)
        tuned = models.train_all(profile, configs, title="table2: fine-tuning", starts=starts)
        paths["1 CNN*"] = dict(zip(starred, tuned, strict=True))
        seen["1 CNN*"] = _seen(starts.values(), more["train"]) + _seen(
            paths["1 CNN*"].values(), splits["train"]
        )
    else:
        left_out |= dict.fromkeys(("1 CNN*", "7 CNNs*"), lacks)

    measured = {
        split: _measure(paths, splits[split]) for split in ("val", "test") if split in splits
    }
    tables = {split: rows for split, (rows, _) in measured.items()}
    if "table1" in profile.settings:  # whose row it is, on the split that it was measured on
        first = experiments.result("table1", profile.name, seeds)["metrics"]
        tables[first["split"]] = {"SIFT + FVs": first["nets"]["SIFT + FVs"]} | tables[
            first["split"]
        ]
    else:
        left_out["SIFT + FVs"] = "the profile has no Table 1, whose row this is"
    return {
        "images": {split: len(splits[split]) for split in tables},
        "classes": len(splits["train"].classes),
        "nets": tables.get("val", {}),  # on validation images, as the paper's table
        "test": tables.get("test"),
        "test_left_out": None if "test" in tables else "its labels are not public",
        "left_out": left_out,
        "gains": {split: gains for split, (_, gains) in measured.items()},
        "averaged": {
            "5 CNNs": plain[:AVERAGED],
            "7 CNNs*": [plain[:AVERAGED], enough(seeds, STARRED)[:STARRED]] if more else None,
        },
        "images_seen": seen,
        "pretraining": {"classes": len(more["train"].classes), "train_images": len(more["train"])}
        if more
        else None,
    }


def enough(seeds: Sequence[int], least: int) -> list[int]:
    """The seeds asked for, and the smallest others until there are `least`."""
    others = (seed for seed in range(len(seeds) + least) if seed not in seeds)
    return [*seeds, *(next(others) for _ in range(least - len(seeds)))]


def _starred(
    profile: Profile, seeds: list[int], more: dict[str, Pack]
) -> tuple[list[models.Config], dict[str, Path]]:
    """Of nets with a sixth convolution: the configs with which they go on on the task, and by their `start` the runs of their pre-training.

    The source's weights had come by way of three data sets, and their last training began at a tenth of the first rate. Here there is one
    such set, and the profile says the rate.
    """
    roots = models.train_all(
        profile,
        [_starry(profile, "pretraining", seed, more) for seed in seeds],
        more,
        title="table2: pre-training",
    )
    starts = {starting_point(root): root for root in roots}
    return [
        _starry(profile, "finetuning", seed, start=start)
        for seed, start in zip(seeds, starts, strict=True)
    ], starts


def _starry(
    profile: Profile, stage: str, seed: int, splits: dict[str, Pack] | None = None, **fields
) -> models.Config:
    settings = profile["table2"][stage]
    preset = settings.get("preset", f"{profile['base']}/conv6")
    fields |= {name: settings[name] for name in ("epochs", "rate") if name in settings}
    return models.configure(profile, preset, splits=splits, seed=seed, **fields)


def _seen(runs: Iterable[Path], pack: Pack) -> int:
    """How many images a run saw in training, each as often as it did; the mean of several runs, which may end early."""
    return round(len(pack) * float(np.mean([models.summary(path)["epochs"] for path in runs])))


def _measure(
    paths: dict[str, dict[int, Path]], pack: Pack
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rows of the table on a pack: single nets by seed, averages once; and what averaging gains."""
    rows: dict[str, Any] = {
        row: {str(seed): {"views": {}} for seed in of} for row, of in paths.items()
    }
    rows |= {row: {"views": {}} for row in ("5 CNNs", *["7 CNNs*"] * ("1 CNN*" in paths))}
    gains: dict[str, Any] = {}
    for views in (1, 10):
        sums: dict[str, Tensor | float] = {"5 CNNs": 0.0, "7 CNNs*": 0.0}
        missed: list[np.ndarray] = []  # by the single nets of the five
        for row, of in paths.items():
            for number, (seed, path) in enumerate(of.items()):
                net, augment = models.trained(path)
                p, labels = evaluation.predict(net, pack, augment, views, progress=True)
                rows[row][str(seed)]["views"][str(views)] = evaluation.errors(p, labels).rounded()
                if number < (AVERAGED if row == "1 CNN" else STARRED):
                    sums["7 CNNs*"] = sums["7 CNNs*"] + p
                if row == "1 CNN" and number < AVERAGED:
                    sums["5 CNNs"] = sums["5 CNNs"] + p
                    missed.append(misses(p, labels))
        found = {"1 CNN": np.mean(missed, axis=0)}
        for row, count in (("5 CNNs", AVERAGED), ("7 CNNs*", AVERAGED + STARRED)):
            if row in rows:
                average = torch.as_tensor(sums[row] / count)
                found[row] = misses(average, labels)
                rows[row]["views"][str(views)] = evaluation.errors(average, labels).rounded() | {
                    "interval": _both(interval, found[row])
                }
        for row, than in (("5 CNNs", "1 CNN"), ("7 CNNs*", "5 CNNs")):
            if row in found:
                gains.setdefault(f"{row} for {than}", {})[str(views)] = _both(
                    gain, found[row] - found[than]
                )
    return rows, gains


def misses(probabilities: Tensor, labels: Tensor) -> np.ndarray:
    """Of each image, whether it is missed, top-1 and top-5: (2, N), 0..1."""
    return np.stack([1.0 - evaluation.hits(probabilities, labels, k).numpy() for k in (1, 5)])


def interval(values: np.ndarray) -> list[float]:
    """The 95 % interval of the mean of `values` (N,), by the percentiles of bootstrapped means: images drawn anew, with replacement."""
    generator = np.random.default_rng(0)
    means = [values[generator.integers(len(values), size=len(values))].mean() for _ in range(DRAWS)]
    return [round(float(end), 5) for end in np.quantile(means, [0.025, 0.975])]


def gain(values: np.ndarray) -> list[float]:
    """The mean, and its interval."""
    return [round(float(values.mean()), 5), *interval(values)]


def _both(what, values: np.ndarray) -> dict[str, list[float]]:
    return {name: what(of) for name, of in zip(("top1", "top5"), values, strict=True)}


# --- as the paper prints it ---------------------------------------------------------------------------------------------------------------


def table(result: dict[str, Any], views: int = 10) -> list[tuple[str, ...]]:
    """Rows of text: the net, its top-1 and top-5 error on validation images and top-5 on test images, means over seeds where there are
    several, in percent; then the paper's three. A dash stands where there is no number."""
    metrics = result["metrics"]
    lines = []
    for row, paper in PAPER.items():
        columns = [
            (metrics["nets"], "top1"),
            (metrics["nets"], "top5"),
            (metrics["test"] or {}, "top5"),
        ]
        numbers = [_mean(rows.get(row), views, what) for rows, what in columns]
        lines.append(
            (
                row,
                *("-" if n is None else f"{n:.1f}" for n in numbers),
                *("-" if n is None else f"{n:.1f}" for n in paper),
            )
        )
    return lines


def text(result: dict[str, Any], views: int = 10) -> Table:
    """Table 2 in words, beside the paper's; below it, rows of several seeds seed by seed, and what is left out."""
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
    return Table(head, table(result, views), notes)


def _mean(row: dict[str, Any] | None, views: int, what: str) -> float | None:
    """In percent, over seeds. Baselines have one view."""
    if not row:
        return None
    runs = [row] if "views" in row else list(row.values())
    return 100 * float(
        np.mean([one["views"].get(str(views), one["views"].get("1"))[what] for one in runs])
    )


def plot(result: dict[str, Any]) -> Figure:
    """Errors on validation images from ten views, row by row: dots are seeds, bars the bootstrap's intervals of the averages."""
    rows = result["metrics"]["nets"]
    order = [row for row in PAPER if row in rows]
    figure, panels = plt.subplots(
        1, 2, figsize=(9, 0.8 + 0.45 * len(order)), sharey=True, layout="constrained"
    )
    for panel, what in zip(panels, ("top1", "top5"), strict=True):
        for place, row in enumerate(order):
            found = rows[row]
            if "views" in found:
                at = found["views"]["10"]
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
                    for one in found.values()
                ]  # baselines have one view
                panel.plot(errors, [-place] * len(errors), "o", color="#c77c11", ms=4, alpha=0.8)
        panel.set_xlabel(f"{'top-1' if what == 'top1' else 'top-5'} error, percent", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(axis="x", lw=0.4, alpha=0.6)
    panels[0].set_yticks([-place for place in range(len(order))], order)
    panels[0].set_ylim(0.5 - len(order), 0.5)
    return figure
