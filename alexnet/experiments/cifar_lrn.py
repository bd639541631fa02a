"""The four-layer net on CIFAR-10 with response normalization and without it (section 3.3 of the
paper, which reports 11 and 13 percent of test error and says no more about that net).

    alexnet reproduce --only cifar_lrn --profile cifar10 --seeds 3

Both are the small net of Figure 1, this time with regularization: crops, reflections, weight decay,
one fall of the rate. Normalization follows the first two convolutions, as in the large net. It
makes responses smaller, so that another rate may suit it: each of the two has the one of the
profile's rates with the lowest loss over the last quarter of a short run, as in Figure 1. Seeds are
paired.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from alexnet import evaluation
from alexnet.claims.statistics import mean_interval
from alexnet.data.pack import held_out
from alexnet.experiments import figure1
from alexnet.experiments.jobs import Run, Training, at_best_rate, configure, train_only
from alexnet.experiments.protocol import Entry, by_arm, common
from alexnet.profiles import Profile
from alexnet.results import Record
from alexnet.tables import Table

NAME = "cifar_lrn"
VERSION = 1
ARMS = {"without": "four-layer/regularized", "with": "four-layer/regularized/lrn"}
PAPER = {"without": 0.13, "with": 0.11}  # top-1 errors
COLORS = {"without": "#c77c11", "with": "#3b6fa0"}


def settings(profile: Profile) -> dict[str, Any]:
    profile[NAME]  # says so where there are none
    return {}


def sweep(profile: Profile, arm: str) -> list[Training]:
    """A short run at each of the profile's rates."""
    given, packs = profile[NAME], train_only(profile.splits(NAME))
    fields = {"width": given.get("width", 1.0), "image_size": given["image_size"]}
    fields |= {"batch_size": 128, "seed": 0, "epochs": given["sweep_epochs"], "packs": packs}
    return [
        Training(configure(profile, ARMS[arm], rate=rate, **fields), packs)
        for rate in given["rates"]
    ]


def entries(profile: Profile, seeds: Sequence[int]) -> list[Entry]:
    own, packs, made = settings(profile), profile.splits(NAME), []
    for arm in ARMS:
        tried = sweep(profile, arm)
        made += figure1.sweep_entries(arm, tried, own)
        for seed in seeds:
            config = replace(tried[0].config, seed=seed, epochs=profile[NAME]["epochs"], rate=None)
            job = Training(config, tried[0].packs, tuple(tried), at_best_rate)
            made.append(Entry(arm, seed, packs, (job,), own, tuple(seeds)))
    return made


def measure(entry: Entry, runs: Sequence[Run]) -> dict[str, Any]:
    (run,) = runs
    if entry.seed is None:
        return figure1.measure_sweep(run)
    split = held_out(entry.packs, "the CIFAR-10 net")
    net, augment = run.net()
    views = {
        str(n): evaluation.evaluate(net, entry.packs[split], augment, n, progress=True).rounded()
        for n in (1, 10)
    }
    return {
        "split": split,
        "images": len(entry.packs[split]),
        "train_images": len(entry.packs["train"]),
        "epochs": run.config.epochs,
        "rate": run.config.rate,
        "views": views,
        "ended": run.summary["ended"],
    }


def collect(records: Sequence[Record]) -> dict[str, Any]:
    nets = by_arm(records, ARMS)
    every = [metrics for by_seed in nets.values() for metrics in by_seed.values()]
    return {
        **common(every, "split", "images", "train_images", "epochs"),
        "rates": {arm: common(nets[arm].values(), "rate")["rate"] for arm in nets},
        "sweep": {arm: figure1.collect_sweep(records, arm) for arm in nets},
        "nets": {
            arm: {seed: {what: m[what] for what in ("views", "ended")} for seed, m in of.items()}
            for arm, of in nets.items()
        },
    }


def errors(result: dict[str, Any], arm: str, views: int = 1) -> dict[str, float]:
    """Top-1 errors by seed, shares of 1."""
    return {
        seed: net["views"][str(views)]["top1"]
        for seed, net in result["metrics"]["nets"][arm].items()
    }


def table(result: dict[str, Any]) -> Table:
    """Errors of both from one view and from ten, and what normalization takes off, seed by seed."""
    metrics = result["metrics"]
    rows, notes = [], []
    for arm in ARMS:
        shown = []
        for views in (1, 10):
            mean, half = mean_interval(
                [100 * error for error in errors(result, arm, views).values()]
            )
            shown.append(f"{mean:.1f}" + (f" ± {half:.1f}" if half != float("inf") else "") + " %")
        rows.append(
            [f"{arm} normalization", f"{PAPER[arm]:.0%}", *shown, f"{metrics['rates'][arm]:g}"]
        )
    for views, what in ((1, "one view"), (10, "ten views")):
        own, plain = (errors(result, arm, views) for arm in ("with", "without"))
        apart = "  ".join(f"{100 * (own[seed] - plain[seed]):+.1f}" for seed in own)
        notes.append(
            f"difference, {what}, seed by seed, percentage points (the paper: -2): {apart}"
        )
    return Table(["top-1 error", "the paper", "one view", "ten views", "rate"], rows, notes)


def plot(result: dict[str, Any]) -> Figure:
    """Each seed's two errors, one view, joined by a line; diamonds are the paper's."""
    figure, axes = plt.subplots(figsize=(4.4, 2.8), layout="constrained")
    both = [errors(result, arm) for arm in ARMS]
    for seed in both[0]:
        axes.plot([0, 1], [100 * of[seed] for of in both], "-", color="gray", lw=1, zorder=0)
    for place, (arm, of) in enumerate(zip(ARMS, both, strict=True)):
        axes.plot(
            [place] * len(of), [100 * error for error in of.values()], "o", color=COLORS[arm], ms=5
        )
        axes.plot(
            place,
            100 * PAPER[arm],
            "D",
            color="C3",
            mfc="none",
            ms=6,
            label="the paper" if place == 0 else None,
        )
    axes.set_xticks([0, 1], [f"{arm} normalization" for arm in ARMS])
    axes.set(xlim=(-0.4, 1.4), ylim=(0, None), ylabel="top-1 error, one view, %")
    axes.legend(frameon=False, fontsize=8)
    return figure
