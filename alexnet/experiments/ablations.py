"""What each part of the net and of its recipe is worth: every part that the text takes away, or
praises (sections 3 to 5 and 7 of the paper), taken away alone.

    alexnet reproduce --only ablations --seeds 5

All arms have the same budget, and an arm shares its seed with the full net: initial weights as far
as the layers agree, the order of the images, crops, shifts and masks. So differences are taken seed
by seed. Ten views against one need no arm: each net is read both ways.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from alexnet import evaluation
from alexnet.claims.statistics import mean_interval
from alexnet.data.augment import Augment
from alexnet.data.pack import Pack, held_out
from alexnet.experiments import protocol
from alexnet.experiments.jobs import Run, Training, configure
from alexnet.experiments.protocol import Arm, Entry, by_arm, by_kind, common
from alexnet.network import AlexNet
from alexnet.profiles import Profile
from alexnet.results import Record
from alexnet.tables import Table
from alexnet.training import log

NAME = "ablations"
VERSION = 1
FULL = "full"
ARMS = {  # a profile runs those that it lists
    FULL: Arm("", "the full net", "3.5"),
    "source": Arm("source/plateau-rate", "the released source's net, the text's rule for the rate"),
    "no-lrn": Arm("/no-lrn", "without response normalization", "3.3", "1.4", 1.4),
    "no-overlap": Arm("/no-overlap", "pooling without overlap", "3.4", "0.4", 0.4),
    "one-column": Arm(
        "/one-column", "one column, its convolutions half as wide", "3.2", "1.7", 1.7
    ),
    "no-crops": Arm("/no-crops", "without crops and reflections", "4.1", "substantial overfitting"),
    "no-color": Arm("/no-color", "without color shifts", "4.1", "over 1", 1.0),
    "no-dropout": Arm("/no-dropout", "without dropout", "4.2", "substantial overfitting"),
    "no-decay": Arm("/no-decay", "without weight decay", "5", "higher training error"),
    "no-conv2": Arm("/no-conv2", "without conv2", "7", "about 2", 2.0),
    "no-conv3": Arm("/no-conv3", "without conv3", "7", "about 2", 2.0),
    "no-conv4": Arm("/no-conv4", "without conv4", "7", "about 2", 2.0),
    "no-conv5": Arm("/no-conv5", "without conv5", "7", "about 2", 2.0),
}
TEN_VIEWS = ("ten views against one", "-1.5", -1.5)  # section 4.1, of the full net
WINDOW = 50  # steps that a loss is averaged over
ENDS = ("epochs", "ended", "falls", "diverged_at")  # of a run's summary
NEAR = 0.1  # of the best validation error: so near to it, a run has converged
KINDS = ("nets", "train_error", "overfitting", "iterations", "val_error", "loss")
DEFINITIONS = {
    "train_error": "top-1 error on a fixed sample of the training images, one view, in evaluation "
    "mode: center crops, all units on",
    "overfitting": "top-1 error on the test images (validation images, where these have no "
    "labels), one view, minus the training error",
    "iterations": "steps after which the validation error is for the first time within 10 % of "
    "the run's lowest (above it by a tenth of it at most); it is measured once an epoch",
}


def settings(profile: Profile) -> dict[str, Any]:
    return {"sample": profile[NAME]["sample"], "window": WINDOW, "near": NEAR}


def arms(profile: Profile) -> list[str]:
    """Those that a profile runs."""
    return list(protocol.chosen(profile, NAME, ARMS))


def entries(profile: Profile, seeds: Sequence[int]) -> list[Entry]:
    own, packs = settings(profile), profile.splits()
    return [
        Entry(name, seed, packs, (job(profile, arm, seed),), own, tuple(seeds))
        for seed in seeds
        for name, arm in protocol.chosen(profile, NAME, ARMS).items()
    ]


def job(profile: Profile, arm: Arm, seed: int) -> Training:
    preset = arm.preset_on(profile["base"])
    config = configure(profile, preset, epochs=profile["epochs"], seed=seed)
    return Training(config, profile.splits())


def measure(entry: Entry, runs: Sequence[Run]) -> dict[str, Any]:
    (run,), train = runs, entry.packs["train"]
    reported = entry.packs[held_out(entry.packs, "the ablations")]
    sample = evenly(len(train), entry.settings["sample"])
    net, augment = run.net()
    by_count = {count: evaluation.evaluate(net, reported, augment, count) for count in (1, 10)}
    train_error = error_on(net, train, augment, sample)
    steps, errors = run.rows("epoch", "step"), run.rows("epoch", "val_top1")
    views = {str(count): one.rounded() for count, one in by_count.items()}
    return {
        "images": len(reported),
        "train_images": len(train),
        "sample": len(sample),
        "classes": len(reported.classes),
        "nets": {"views": views} | {name: run.summary[name] for name in ENDS},
        "train_error": round(train_error, 5),
        "overfitting": round(by_count[1].top1 - train_error, 5),
        "iterations": iterations(steps, errors),
        "val_error": [round(error, 4) for error in errors],
        "loss": [round(mean, 3) for mean in log.means(run.losses, WINDOW)],
    }


def collect(records: Sequence[Record]) -> dict[str, Any]:
    nested = by_arm(records, ARMS)
    every = [metrics for by_seed in nested.values() for metrics in by_seed.values()]
    each = {arm: by_kind(by_seed, KINDS) for arm, by_seed in nested.items()}
    kinds = {kind: {arm: each[arm][kind] for arm in each} for kind in KINDS}
    sizes = common(every, "images", "train_images", "sample", "classes")
    return {**sizes, "window": WINDOW, "definitions": DEFINITIONS, **kinds}


def evenly(count: int, most: int) -> np.ndarray:
    """The numbers of at most `most` images of `count`, evenly apart, both ends included: int64."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)


@torch.no_grad()
def error_on(net: AlexNet, pack: Pack, augment: Augment, ids: np.ndarray) -> float:
    """The top-1 error, 0..1, of a net in evaluation mode on the images at `ids` (n,), one view."""
    device, wrong = next(net.parameters()).device, 0
    for part in np.array_split(ids, -(-len(ids) // 250)):
        (view,) = augment.views(torch.from_numpy(pack.gather(part)).to(device))
        wrong += int((net(view).argmax(1).cpu().numpy() != pack.labels[part]).sum())
    return wrong / len(ids)


def iterations(steps: list[int], errors: list[float], near: float = NEAR) -> int | None:
    """The first of `steps` after which the validation error is at most 1 + near times its lowest;
    None: there was no epoch."""
    pairs = zip(steps, errors, strict=True)
    return next((step for step, error in pairs if error <= (1 + near) * min(errors)), None)


def differences(
    result: dict[str, Any], arm: str, views: int = 10, what: str = "top1"
) -> list[float]:
    """The arm's test error minus the full net's, seed by seed, in percentage points; empty where
    the arm was not run."""
    nets = result["metrics"]["nets"]
    own, full = (errors(result, name, views, what) for name in (arm, FULL))
    return [100 * (own[seed] - full[seed]) for seed in full if seed in own] if arm in nets else []


def gains(result: dict[str, Any], what: str = "top1") -> list[float]:
    """The full net's error from ten views minus that from one, seed by seed, in percentage
    points."""
    ten, one = (errors(result, FULL, views, what) for views in (10, 1))
    return [100 * (ten[seed] - one[seed]) for seed in ten]


def errors(
    result: dict[str, Any], arm: str, views: int = 10, what: str = "top1"
) -> dict[str, float]:
    """An arm's test errors by seed, shares of 1."""
    return {
        seed: net["views"][str(views)][what]
        for seed, net in result["metrics"]["nets"].get(arm, {}).items()
    }


def table(result: dict[str, Any]) -> Table:
    """What each arm costs in test error, beside what the paper says."""
    full = [100 * error for error in errors(result, FULL).values()]
    rows = [
        [
            ARMS[FULL].what,
            "",
            f"{_with_half(full, '.1f')} %",
            "  ".join(f"{error:.1f}" for error in full),
        ]
    ]
    rows.append(["differences from it, percentage points"])
    for arm, about in ARMS.items():
        if arm != FULL:
            rows.append(
                _row(
                    f"{about.what}{f' ({about.section})' if about.section else ''}",
                    about.paper,
                    differences(result, arm),
                )
            )
    what, paper, _ = TEN_VIEWS
    rows.append(_row(f"{what}, of the full net (4.1)", paper, gains(result)))
    return Table(
        ["top-1 error, ten views", "the paper", "mean, 95 % interval", "seed by seed"], rows
    )


def _row(what: str, paper: str, values: list[float]) -> list[str]:
    measured = ["not yet run", ""]
    if values:
        measured = [_with_half(values, "+.1f"), "  ".join(f"{d:+.1f}" for d in values)]
    return [f"  {what}", f"+{paper}" if paper[:1].isdigit() else paper, *measured]


def learning(result: dict[str, Any], arms: Iterable[str] = ARMS) -> Table:
    """Training error, test error from one view, overfitting and iterations to convergence, means
    over seeds."""
    metrics, rows = result["metrics"], []
    for arm in arms:
        if arm in metrics["nets"]:
            train, over, steps = (
                list(metrics[kind][arm].values())
                for kind in ("train_error", "overfitting", "iterations")
            )
            known = [step for step in steps if step is not None]
            errors = [
                f"{np.mean(train):.1%}",
                f"{np.mean(train) + np.mean(over):.1%}",
                f"{100 * np.mean(over):+.1f}",
            ]
            rows.append([ARMS[arm].what, *errors, f"{np.mean(known) if known else 0:,.0f}"])
    notes = [
        f"{name.replace('train_', 'training ')}: {what}"
        for name, what in metrics["definitions"].items()
    ]
    return Table(
        ["mean over seeds", "training error", "test error", "overfitting", "iterations"],
        rows,
        notes,
    )


def _with_half(values: list[float], form: str) -> str:
    """The mean, and half of its 95 % interval where there is one."""
    mean, half = mean_interval(values)
    return f"{mean:{form}}" + (f" ± {half:.1f}" if np.isfinite(half) else "")


def again(result: dict[str, Any], other: dict[str, Any]) -> Table:
    """The same nets on two processors: each arm's validation error, one view, after the last epoch
    that all of both have, minus the full net's, percentage points."""
    runs = [one["metrics"]["val_error"] for one in (result, other)]
    epoch = min(
        len(errors) for arms in runs for by_seed in arms.values() for errors in by_seed.values()
    )
    at = [
        {
            arm: {s: 100 * errors[epoch - 1] for s, errors in by_seed.items()}
            for arm, by_seed in arms.items()
        }
        for arms in runs
    ]
    rows = [[ARMS[FULL].what, *(f"{_with_half(list(one[FULL].values()), '.1f')} %" for one in at)]]
    rows.append(["differences from it, percentage points"])
    for arm in (arm for arm in ARMS if arm != FULL and arm in at[0] and arm in at[1]):
        paired = [
            [error - one[FULL][s] for s, error in one[arm].items() if s in one[FULL]] for one in at
        ]
        rows.append(
            [f"  {ARMS[arm].what}", *(_with_half(differences, "+.1f") for differences in paired)]
        )
    processors = [one["provenance"]["hardware"]["processor"] for one in (result, other)]
    return Table([f"validation error after epoch {epoch}, one view", *processors], rows)


def plot(result: dict[str, Any]) -> Figure:
    """What each arm costs, paired over seeds: small dots are seeds, bars 95 % intervals around the
    mean, diamonds the paper's numbers."""
    rows = [
        (about.what, differences(result, arm), about.points)
        for arm, about in ARMS.items()
        if arm != FULL
    ]
    rows = [row for row in [*rows, (TEN_VIEWS[0], gains(result), TEN_VIEWS[2])] if row[1]]
    figure, axes = plt.subplots(figsize=(7, 0.32 * len(rows) + 1), layout="constrained")
    for y, (_, values, mark) in enumerate(rows):
        mean, half = mean_interval(values)
        axes.plot(values, [y] * len(values), ".", color="C0", ms=4, alpha=0.5)
        axes.errorbar(
            mean, y, xerr=half if np.isfinite(half) else None, fmt="o", color="C0", ms=5, capsize=3
        )
        if mark is not None:
            label = None if axes.get_legend_handles_labels()[1] else "the paper, on ImageNet"
            axes.plot(mark, y, "D", color="C3", ms=5, mfc="none", label=label)
    axes.axvline(0, color="gray", ls=":", lw=1)
    axes.set_yticks(range(len(rows)), [what for what, _, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("top-1 error minus the full net's, ten views, percentage points", fontsize=9)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=8)
    return figure
