"""The experiment that fits into a live cell: a narrow net, five pictographs, seconds on one thread.
Its archive holds the bands that such a cell is held to.

    alexnet reproduce --only live --seeds 6
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet import experiments, training
from alexnet.data.pack import Pack
from alexnet.experiments.jobs import Run, Training, train_only, training_job
from alexnet.experiments.protocol import (
    Entry,
    Metrics,
    Profile,
    Record,
    Result,
    Table,
    by_seed,
    common,
    pick,
)
from alexnet.experiments.showing import Figure, chance_line, name_chance, subplots
from alexnet.profiles import load

NAME = "live"
VERSION = 1
NET = "net"
HELD = ("last", "one_view", "ten_views")  # to the archive's bands


def job(profile: Profile, seed: int) -> Training:
    """The training of the small net that chapters train anew.

    Args:
        profile: What it is trained on.
        seed: Of the run.
    """
    fields = ("preset", "width", "batch_size", "rate", "epochs")
    given = {name: profile[NAME][name] for name in fields}
    return training_job(profile, packs=train_only(profile.splits(NAME)), seed=seed, **given)


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    packs = profile.splits(NAME)
    return [Entry(NET, seed, packs, (job(profile, seed),)) for seed in seeds]


def measure(entry: Entry, runs: list[Run]) -> Metrics:
    one = _measured(runs[0], entry.packs["test"])
    return {name: round(one[name], 4) for name in ("first", *HELD)} | {"classes": one["classes"]}


def _measured(run: Run, test: Pack) -> dict[str, Any]:
    losses, errors = run.losses, run.errors(test)
    tenth = max(1, len(losses) // 10)
    return {
        "loss": losses,
        "first": sum(losses[:tenth]) / tenth,
        "last": sum(losses[-tenth:]) / tenth,
        "one_view": errors["1"].top1,
        "ten_views": errors["10"].top1,
        "images": len(test),
        "classes": run.config.num_classes,
    }


def train(out: Path, seed: int = 0, profile: Profile | None = None) -> dict[str, Any]:
    """Train anew and measure, in this process, on one thread.

    Args:
        out: The run's folder, which is not there yet.

    Returns:
        {"loss": by step, "first", "last": means of tenths, "one_view", "ten_views": errors, ...}
    """
    profile = profile or load("embedded")
    torch.set_num_threads(1)
    run = job(profile, seed)
    training.train(run.config, run.packs, out, progress=False)
    return _measured(Run(out), profile.splits(NAME)["test"])


def collect(records: list[Record]) -> Metrics:
    seeds = by_seed(records, NET)
    sizes, values = common(seeds.values(), "classes"), pick(seeds, ("first", *HELD))
    bands = {name: band([one[name] for one in values.values()]) for name in HELD}
    chance = {"loss": round(math.log(sizes["classes"]), 4)}
    return {"seeds": values, "bands": bands, "chance": chance, **sizes}


def band(values: list[float]) -> list[float]:
    """What another machine's value may be: the seeds' range, widened on both sides by its own
    width."""
    low, high = min(values), max(values)
    return [round(max(0.0, low - (high - low)), 4), round(high + (high - low), 4)]


def inside(value: float, name: str) -> bool:
    """Whether a live value lies in the archived band, and is better than chance by a twentieth of
    it.

    Args:
        value: In the band's unit.
        name: A metric of the archive.
    """
    archived = experiments.archived(NAME, "embedded")
    assert archived is not None, "results/embedded/live is part of the repository"
    classes, (low, high) = archived["metrics"]["classes"], archived["metrics"]["bands"][name]
    chance = math.log(classes) if name == "last" else 1 - 1 / classes
    return low <= value <= min(high, 0.95 * chance)


def table(result: Result) -> Table:
    """What the seeds measured, and the bands that follow."""
    seeds, bands = (result["metrics"][name] for name in ("seeds", "bands"))
    rows = [[seed, *(f"{one[name]:.4g}" for name in HELD)] for seed, one in seeds.items()]
    rows.append(["band", *("{:.4g} to {:.4g}".format(*bands[name]) for name in HELD)])
    return Table(["seed", "loss at the end", "error, one view", "ten views"], rows)


def plot(result: Result) -> Figure:
    """Each seed's values within their bands."""
    metrics = result["metrics"]
    figure, panels = subplots(6, 2, across=len(HELD))
    for panel, name in zip(panels, HELD, strict=True):
        values = [one[name] for one in metrics["seeds"].values()]
        panel.axhspan(*metrics["bands"][name], color="C0", alpha=0.15)
        panel.plot(range(len(values)), values, "o", color="C0", ms=4)
        panel.set_title(name.replace("_", " "), fontsize=8)
        panel.set(xticks=[], ylim=(0, None))
    return figure


def plot_loss(one: dict[str, Any]) -> Figure:
    """The loss of a live run: every step, means over 25 of them, and ln(classes)."""
    steps, window = np.arange(1, len(one["loss"]) + 1), min(25, len(one["loss"]))
    means = np.convolve(one["loss"], np.full(window, 1 / window), mode="valid")
    figure, axes = subplots(6, 2.8)
    axes.plot(steps, one["loss"], lw=0.6, color="C0", alpha=0.4)
    axes.plot(steps[window - 1 :], means, lw=1.6, color="C0")
    chance_line(axes, one["classes"])
    name_chance(axes, one["classes"], len(steps), ha="right")
    axes.set(xlabel="step", ylabel="training loss, nats", ylim=(0, None))
    return figure
