"""What each part of the net and of its recipe is worth: every part that the text takes away, or praises (sections 3 to 5 and 7 of the
paper), taken away alone.

All arms have the same budget, and an arm shares its seed with the full net: initial weights as far as the layers agree, the order of the
images, crops, shifts and masks. So differences are taken seed by seed. Ten views against one need no arm: each net is read both ways.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from alexnet import evaluation
from alexnet.claims import mean_interval
from alexnet.data.augment import Augment
from alexnet.data.pack import Pack, held_out
from alexnet.experiments import models
from alexnet.network import AlexNet
from alexnet.profiles import Profile
from alexnet.tables import Table
from alexnet.training import Config, log


class Arm(NamedTuple):
    variant: str | None  # of the profile's base; None: a net of its own
    what: str
    section: str
    paper: str  # what the text says that it costs
    mark: float | None = None  # the same in points of top-1 error, where it says a number


FULL = "full"
ARMS = {
    FULL: Arm("", "the full net", "3.5", ""),
    "source": Arm(None, "the released source's net, the text's rule for the rate", "", ""),
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
SOURCE = "source/plateau-rate"
WINDOW = 50  # steps that a loss is averaged over
ENDS = ("epochs", "ended", "falls", "diverged_at")  # what is told of how a run ended
NEAR = 0.1  # of the best validation error: so near to it, a run has converged
DEFINITIONS = {
    "train_error": "top-1 error on a fixed sample of the training images, one view, in evaluation mode: center crops, all units on",
    "overfitting": "top-1 error on the test images (validation images, where these have no labels), one view, minus the training error",
    "iterations": "steps after which the validation error is for the first time within 10 % of the run's lowest (above it by a tenth of it "
    "at most); it is measured once an epoch",
}


def config(profile: Profile) -> dict[str, Any]:
    settings = profile["ablations"]
    about = {
        "base": profile["base"],
        "epochs": profile["epochs"],
        "net": profile.net,
        "arms": arms(profile),
    }
    return {
        "ablations": settings,
        **about,
        "window": WINDOW,
        "near": NEAR,
        "data": {n: p.digest for n, p in profile.splits().items()},
    }


def arms(profile: Profile) -> list[str]:
    """Those that a profile runs: all, or those that it lists."""
    return profile["ablations"].get("arms", list(ARMS))


def configure(profile: Profile, arm: str, seed: int) -> Config:
    variant = ARMS[arm].variant
    if variant is None:
        return models.configure(profile, SOURCE, epochs=profile["epochs"], seed=seed)
    return models.base(profile, seed, variant)


def nets(profile: Profile, seeds: list[int]) -> list[models.Planned]:
    return [
        (configure(profile, arm, seed), profile.splits()) for seed in seeds for arm in arms(profile)
    ]


def run(profile: Profile, seeds: list[int]) -> dict[str, Any]:
    splits, asked = profile.splits(), arms(profile)
    jobs = {(arm, seed): configure(profile, arm, seed) for seed in seeds for arm in asked}
    trained = dict(
        zip(jobs, models.train_all(profile, list(jobs.values()), title="ablations"), strict=True)
    )
    reported = splits[held_out(splits, "the ablations")]
    sample = spread(len(splits["train"]), profile["ablations"]["sample"])
    kinds = ("nets", "train_error", "overfitting", "iterations", "val_error", "loss")
    found: dict[str, dict[str, dict[str, Any]]] = {
        kind: {arm: {} for arm in asked} for kind in kinds
    }
    for (arm, seed), path in trained.items():
        net, augment = models.trained(path)
        by_count = {count: evaluation.evaluate(net, reported, augment, count) for count in (1, 10)}
        summary, epochs = models.summary(path), list(log.read(path, "epoch"))
        train_error = error_on(net, splits["train"], augment, sample)
        measured = {
            "nets": {"views": {str(count): one.rounded() for count, one in by_count.items()}}
            | {name: summary[name] for name in ENDS},
            "train_error": round(train_error, 5),
            "overfitting": round(by_count[1].top1 - train_error, 5),
            "iterations": iterations(
                [row["step"] for row in epochs], [row["val_top1"] for row in epochs]
            ),
            "val_error": [round(row["val_top1"], 4) for row in epochs],
            "loss": [round(mean, 3) for mean in log.means(log.losses(path), WINDOW)],
        }
        for kind, value in measured.items():
            found[kind][arm][str(seed)] = value
    sizes = {"images": len(reported), "train_images": len(splits["train"]), "sample": len(sample)}
    return {
        **sizes,
        "classes": len(reported.classes),
        "window": WINDOW,
        "definitions": DEFINITIONS,
        **found,
    }


def spread(count: int, wanted: int) -> np.ndarray:
    """The numbers of at most `wanted` images of `count`, evenly spread: int64 (n,)."""
    return np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64)


@torch.no_grad()
def error_on(net: AlexNet, pack: Pack, augment: Augment, ids: np.ndarray) -> float:
    """The top-1 error, 0..1, of a net in evaluation mode on the images at `ids` (n,), one view."""
    device, wrong = next(net.parameters()).device, 0
    for part in np.array_split(ids, -(-len(ids) // 250)):
        (view,) = augment.views(torch.from_numpy(pack.gather(part)).to(device))
        wrong += int((net(view).argmax(1).cpu().numpy() != pack.labels[part]).sum())
    return wrong / len(ids)


def iterations(steps: list[int], errors: list[float], near: float = NEAR) -> int | None:
    """The first of `steps` after which the validation error is at most 1 + near times its lowest; None: there was no epoch."""
    return next(
        (
            step
            for step, error in zip(steps, errors, strict=True)
            if error <= (1 + near) * min(errors)
        ),
        None,
    )


def differences(
    result: dict[str, Any], arm: str, views: int = 10, what: str = "top1"
) -> list[float]:
    """The arm's test error minus the full net's, seed by seed, in percentage points; empty where the arm was not run."""
    nets = result["metrics"]["nets"]
    own, full = (errors(result, name, views, what) for name in (arm, FULL))
    return [100 * (own[seed] - full[seed]) for seed in full if seed in own] if arm in nets else []


def gains(result: dict[str, Any], what: str = "top1") -> list[float]:
    """The full net's error from ten views minus that from one, seed by seed, in percentage points."""
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
            f"{_spread(full, '.1f')} %",
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
    here = (
        [_spread(values, "+.1f"), "  ".join(f"{d:+.1f}" for d in values)]
        if values
        else ["not yet run", ""]
    )
    return [f"  {what}", f"+{paper}" if paper[:1].isdigit() else paper, *here]


def learning(result: dict[str, Any], arms: Iterable[str] = ARMS) -> Table:
    """Training error, test error from one view, overfitting and iterations to convergence, means over seeds."""
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


def _spread(values: list[float], form: str) -> str:
    mean, half = mean_interval(values)
    return f"{mean:{form}}" + (f" ± {half:.1f}" if np.isfinite(half) else "")


def again(result: dict[str, Any], other: dict[str, Any]) -> Table:
    """The same nets on two processors: each arm's validation error, one view, after the last epoch that all of both have, minus the full
    net's, percentage points."""
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
    rows = [[ARMS[FULL].what, *(f"{_spread(list(one[FULL].values()), '.1f')} %" for one in at)]]
    rows.append(["differences from it, percentage points"])
    for arm in (arm for arm in ARMS if arm != FULL and arm in at[0] and arm in at[1]):
        paired = [
            [error - one[FULL][s] for s, error in one[arm].items() if s in one[FULL]] for one in at
        ]
        rows.append(
            [f"  {ARMS[arm].what}", *(_spread(differences, "+.1f") for differences in paired)]
        )
    processors = [one["provenance"]["hardware"]["processor"] for one in (result, other)]
    return Table([f"validation error after epoch {epoch}, one view", *processors], rows)


def plot(result: dict[str, Any]) -> Figure:
    """What each arm costs, paired over seeds: small dots are seeds, bars 95 % intervals around the mean, diamonds the paper's numbers."""
    rows = [
        (about.what, differences(result, arm), about.mark)
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
