"""The pilot: how much runs of one net differ, and so what further runs could show. It comes before
a plan (`alexnet.claims.plans`), looks at validation images only, and judges nothing.

    alexnet reproduce --profile tiny-imagenet-cpu --only pilot --seeds 2
"""

import statistics
from typing import Any

from alexnet.claims.statistics import smallest_effect
from alexnet.experiments import ablations
from alexnet.experiments.jobs import Run
from alexnet.experiments.protocol import (
    Entry,
    Metrics,
    Profile,
    Record,
    Result,
    Table,
    by_arm,
    by_kind,
    chosen,
    common,
    each,
)
from alexnet.experiments.showing import Figure, subplots, with_half

NAME = "pilot"
VERSION = 1
SEEDS = (3, 5, 8)  # an arm, for which the smallest effect is shown
KINDS = ("val_error", "train_error", "seconds")


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    packs = profile.splits()
    seen = {split: packs[split] for split in ("train", "val")}
    arms = chosen(profile, NAME, ablations.ARMS)
    return [
        Entry(name, seed, seen, (ablations.job(profile, arm, seed),))
        for seed in seeds
        for name, arm in arms.items()
    ]


def measure(entry: Entry, runs: list[Run]) -> Metrics:
    (run,) = runs
    return {
        "train_images": len(entry.packs["train"]),
        "val_images": len(entry.packs["val"]),
        "epochs": run.summary["epochs"],
        "val_error": [round(error, 4) for error in run.rows("epoch", "val_top1")],
        "train_error": [round(error, 4) for error in run.rows("epoch", "error")],
        "seconds": run.summary["seconds"],
    }


def collect(records: list[Record]) -> Metrics:
    nested = by_arm(records, ablations.ARMS)
    arms = {arm: by_kind(by_seed, KINDS) for arm, by_seed in nested.items()}
    return common(each(nested), "train_images", "val_images", "epochs") | {"arms": arms}


def last_errors(result: Result, arm: str) -> list[float]:
    """Of each seed, the validation error after the last epoch, percent.

    Args:
        result: Of the experiment.
        arm: Its name.
    """
    return [100 * errors[-1] for errors in result["metrics"]["arms"][arm]["val_error"].values()]


def table(result: Result) -> Table:
    """Errors, their spread over seeds, and the smallest difference of two arms' means that so many
    seeds an arm would show (power 80 %, level 5 %, one comparison)."""
    metrics, rows = result["metrics"], []
    for arm, kinds in metrics["arms"].items():
        errors, hours = last_errors(result, arm), [s / 3600 for s in kinds["seconds"].values()]
        spread = statistics.stdev(errors) if len(errors) > 1 else None
        row: list[Any] = [ablations.ARMS[arm].what, f"{with_half(errors, '.1f')} %"]
        row += ["-" if spread is None else f"{spread:.2f}", f"{statistics.mean(hours):.1f}"]
        rows.append(
            row + ["-" if spread is None else f"{smallest_effect(spread, n):.1f}" for n in SEEDS]
        )
    head = ["validation error, one view", "mean", "spread", "hours a run"]
    epochs = f"{metrics['epochs']:g} epochs of {metrics['train_images']:,} images"
    return Table([*head, *(f"{n} seeds show" for n in SEEDS)], rows, [epochs])


def plot(result: Result) -> Figure:
    """Error by epoch: training (with dropout and augmentation) dashed, validation solid."""
    figure, axes = subplots(5, 3)
    for color, (arm, kinds) in enumerate(result["metrics"]["arms"].items()):
        for kind, style in (("val_error", "-"), ("train_error", "--")):
            for errors in kinds[kind].values():
                epochs = range(1, len(errors) + 1)
                axes.plot(epochs, errors, style, color=f"C{color}", lw=1, label=arm)
                arm = "_" + arm.lstrip("_")  # one label
    axes.set(xlabel="epoch", ylabel="top-1 error")
    axes.legend(frameon=False)
    return figure
