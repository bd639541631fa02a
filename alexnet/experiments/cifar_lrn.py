"""Section 3.3's CIFAR-10 nets, as the files say that the paper's footnote 3 names: 13 % of error
without response normalization, 11 % with it.

    alexnet reproduce --only cifar_lrn --profile cifar10 --seeds 3

The two files differ in four things: normalization, the width of local3, one layer's decay, and
three times the training. So the credit of normalization is measured in a factorial at equal length,
{plain, normalized} x {local3 of 32, of 64 maps}; and both nets are trained as published, at their
own lengths, where a profile asks for it.
"""

from typing import Any

from alexnet.claims.statistics import welch
from alexnet.data.pack import held_out
from alexnet.experiments.jobs import Run, training_job
from alexnet.experiments.protocol import (
    Arm,
    Entry,
    Metrics,
    Profile,
    Record,
    Result,
    Table,
    by_arm,
    chosen,
    common,
    each,
    pick,
)
from alexnet.experiments.showing import COLUMN, Figure, subplots, with_half

NAME = "cifar_lrn"
VERSION = 2
PLAIN = "cifar-13pct"
ARMS = {  # a profile runs those that it lists
    "without": Arm(PLAIN, "without normalization, local3 of 32 maps"),
    "with": Arm(f"{PLAIN}/cifar-lrn", "with normalization, local3 of 32 maps"),
    "without, 64": Arm(f"{PLAIN}/local3-64", "without normalization, local3 of 64 maps"),
    "with, 64": Arm(f"{PLAIN}/local3-64/cifar-lrn", "with normalization, local3 of 64 maps"),
    "13 % net": Arm(PLAIN, "the 13 % net as published", paper="13 %", points=13.0),
    "11 % net": Arm("cifar-11pct", "the 11 % net as published", paper="11 %", points=11.0),
}
PAIRS = (("without", "with"), ("without, 64", "with, 64"))
SIZE = 24  # of the crops of 32


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    given, packs, made = profile[NAME], profile.splits(NAME), []
    lengths = given.get("published", {})  # epochs of the nets as published
    for seed in seeds:
        for name, arm in chosen(profile, NAME, ARMS).items():
            fields: dict[str, Any] = {"batch_size": 128, "rate": None, "image_size": SIZE}
            fields["width"] = given.get("width", 1.0)
            epochs = lengths.get(name, given["epochs"])
            job = training_job(profile, arm.preset, packs, seed=seed, epochs=epochs, **fields)
            made.append(Entry(name, seed, packs, (job,)))
    return made


def measure(entry: Entry, runs: list[Run]) -> Metrics:
    (run,) = runs
    split = held_out(entry.packs, "the CIFAR-10 nets")
    return {
        "split": split,
        "images": len(entry.packs[split]),
        "train_images": len(entry.packs["train"]),
        "epochs": run.config.epochs,
        "views": run.views(entry.packs[split]),
        "ended": run.summary["ended"],
    }


def collect(records: list[Record]) -> Metrics:
    nets = by_arm(records, ARMS)
    return {
        **common(each(nets), "split", "images", "train_images"),
        "epochs": {arm: common(of.values(), "epochs")["epochs"] for arm, of in nets.items()},
        "nets": {arm: pick(of, ("views", "ended")) for arm, of in nets.items()},
    }


def errors(result: Result, arm: str, views: int = 10) -> list[float]:
    """Top-1 errors seed by seed, percent.

    Args:
        result: Of the experiment.
        arm: Its name.
        views: 1 or 10.
    """
    nets = result["metrics"]["nets"].get(arm, {})
    return [100 * net["views"][str(views)]["top1"] for net in nets.values()]


def table(result: Result) -> Table:
    """Errors from one view and from ten, and what normalization takes off at either width."""
    rows, notes, epochs = [], [], result["metrics"]["epochs"]
    for arm, length in epochs.items():
        shown = [f"{with_half(errors(result, arm, views), '.1f')} %" for views in (1, 10)]
        rows.append([ARMS[arm].what, f"{length:g}", ARMS[arm].paper, *shown])
    for plain, normalized in PAIRS:
        before, after = errors(result, plain), errors(result, normalized)
        if min(len(before), len(after)) > 1:
            apart = welch(after, before)
            low, high = apart.interval
            what = f"normalization, {ARMS[plain].what.partition(', ')[2]}, ten views"
            notes.append(
                f"{what}: {apart.value:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}"
            )
    return Table(["top-1 error", "epochs", "the paper", "one view", "ten views"], rows, notes)


def plot(result: Result) -> Figure:
    """Each run's error from ten views: the factorial, and the nets as published beside the paper's
    numbers."""
    arms = list(result["metrics"]["nets"])
    figure, axes = subplots(6, 0.4 * len(arms) + 1)
    for place, arm in enumerate(arms):
        values, color = errors(result, arm), COLUMN["with" in arm.split(",") or "11" in arm]
        axes.plot(values, [place] * len(values), "o", color=color, ms=5)
        if ARMS[arm].points:
            axes.plot(ARMS[arm].points, place, "D", color="C3", mfc="none", ms=6)
    axes.set_yticks(range(len(arms)), [ARMS[arm].what for arm in arms], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("top-1 error, ten views, % (diamonds: the paper's)")
    return figure
