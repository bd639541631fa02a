"""The four-layer net on CIFAR-10 with response normalization and without it (section 3.3 of the
paper, which reports 11 and 13 percent of test error and says no more about that net).

    alexnet reproduce --only cifar_lrn --profile cifar10 --seeds 3

Both are the small net of Figure 1, this time with regularization: crops, reflections, weight decay,
one fall of the rate. Normalization follows the first two convolutions, as in the large net. It
makes responses smaller, so that another rate may suit it: each of the two has the one of the
profile's rates with the lowest loss over the last quarter of a short run, as in Figure 1. Seeds are
paired.
"""

from alexnet.data.pack import held_out
from alexnet.experiments import figure1
from alexnet.experiments.jobs import Run
from alexnet.experiments.protocol import (
    Entry,
    Metrics,
    Profile,
    Record,
    Result,
    Table,
    by_arm,
    common,
    each,
    pick,
)
from alexnet.experiments.showing import COLUMN, Figure, side_by_side, subplots, with_half

NAME = "cifar_lrn"
VERSION = 1
ARMS = {"without": "four-layer/regularized", "with": "four-layer/regularized/lrn"}
PAPER = {"without": 0.13, "with": 0.11}  # top-1 errors


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    given, packs, made = profile[NAME], profile.splits(NAME), []
    fields = {"width": given.get("width", 1.0), "image_size": given["image_size"]}
    for arm, preset in ARMS.items():
        tried = figure1.sweep(profile, NAME, preset, given["rates"], **fields)
        made += figure1.at_best_rates(arm, tried, seeds, packs, {}, epochs=given["epochs"])
    return made


def measure(entry: Entry, runs: list[Run]) -> Metrics:
    (run,) = runs
    if entry.seed is None:
        return figure1.measure_sweep(run)
    split = held_out(entry.packs, "the CIFAR-10 net")
    return {
        "split": split,
        "images": len(entry.packs[split]),
        "train_images": len(entry.packs["train"]),
        "epochs": run.config.epochs,
        "rate": run.config.rate,
        "views": run.views(entry.packs[split]),
        "ended": run.summary["ended"],
    }


def collect(records: list[Record]) -> Metrics:
    nets = by_arm(records, ARMS)
    return {
        **common(each(nets), "split", "images", "train_images", "epochs"),
        "rates": {arm: common(of.values(), "rate")["rate"] for arm, of in nets.items()},
        "sweep": {arm: figure1.collect_sweep(records, arm) for arm in nets},
        "nets": {arm: pick(of, ("views", "ended")) for arm, of in nets.items()},
    }


def errors(result: Result, arm: str, views: int = 1) -> dict[str, float]:
    """Top-1 errors by seed, shares of 1."""
    nets = result["metrics"]["nets"][arm]
    return {seed: net["views"][str(views)]["top1"] for seed, net in nets.items()}


def table(result: Result) -> Table:
    """Errors of both from one view and from ten, and what normalization takes off, seed by seed."""
    rows, notes = [], []
    for arm, rate in result["metrics"]["rates"].items():
        percent = [[100 * e for e in errors(result, arm, n).values()] for n in (1, 10)]
        shown = [f"{with_half(values, '.1f')} %" for values in percent]
        rows.append([f"{arm} normalization", f"{PAPER[arm]:.0%}", *shown, f"{rate:g}"])
    for n, what in ((1, "one view"), (10, "ten views")):
        own, plain = (errors(result, arm, n) for arm in ("with", "without"))
        apart = side_by_side((100 * (own[seed] - plain[seed]) for seed in own), "+.1f")
        about = f"difference, {what}, seed by seed, percentage points (the paper: -2)"
        notes.append(f"{about}: {apart}")
    return Table(["top-1 error", "the paper", "one view", "ten views", "rate"], rows, notes)


def plot(result: Result) -> Figure:
    """Each seed's two errors, one view, joined by a line; diamonds are the paper's."""
    figure, axes = subplots(4.4, 2.8)
    both = [errors(result, arm) for arm in ARMS]
    for seed in both[0]:
        axes.plot([0, 1], [100 * of[seed] for of in both], "-", color="gray", lw=1, zorder=0)
    for place, (arm, of) in enumerate(zip(ARMS, both, strict=True)):
        values = [100 * error for error in of.values()]
        axes.plot([place] * len(of), values, "o", color=COLUMN[1 - place], ms=5)
        label = None if place else "the paper"
        axes.plot(place, 100 * PAPER[arm], "D", color="C3", mfc="none", ms=6, label=label)
    axes.set_xticks([0, 1], [f"{arm} normalization" for arm in ARMS])
    axes.set(xlim=(-0.4, 1.4), ylim=(0, None), ylabel="top-1 error, one view, %")
    axes.legend(frameon=False, fontsize=8)
    return figure
