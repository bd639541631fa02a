"""The experiment that fits into a live cell: a narrow net, five pictographs, seconds on one thread.
Its archive holds the bands that such a cell is held to.

    alexnet reproduce --only live --seeds 6
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from alexnet import evaluation, experiments, training
from alexnet.data.pack import Pack
from alexnet.experiments.jobs import Run, Training, configure, train_only
from alexnet.experiments.protocol import Entry, by_seed, common
from alexnet.profiles import Profile, load
from alexnet.results import Record
from alexnet.tables import Table

NAME = "live"
VERSION = 1
NET = "net"
HELD = ("last", "one_view", "ten_views")  # to the archive's bands


def settings(profile: Profile) -> dict[str, Any]:
    profile[NAME]  # says so where there are none
    return {}


def job(profile: Profile, seed: int) -> Training:
    given, packs = profile[NAME], train_only(profile.splits(NAME))
    fields = {name: given[name] for name in ("width", "batch_size", "rate", "epochs")}
    return Training(configure(profile, given["preset"], packs=packs, seed=seed, **fields), packs)


def entries(profile: Profile, seeds: Sequence[int]) -> list[Entry]:
    own, packs = settings(profile), profile.splits(NAME)
    return [Entry(NET, seed, packs, (job(profile, seed),), own, tuple(seeds)) for seed in seeds]


def measure(entry: Entry, runs: Sequence[Run]) -> dict[str, Any]:
    one = _measured(runs[0], entry.packs["test"])
    names = ("first", *HELD)
    return {name: round(one[name], 4) for name in names} | {"classes": one["classes"]}


def _measured(run: Run, test: Pack) -> dict[str, Any]:
    losses, (net, augment) = run.losses, run.net()
    one, ten = (evaluation.evaluate(net, test, augment, views) for views in (1, 10))
    tenth = max(1, len(losses) // 10)
    return {
        "loss": losses,
        "first": sum(losses[:tenth]) / tenth,
        "last": sum(losses[-tenth:]) / tenth,
        "one_view": one.top1,
        "ten_views": ten.top1,
        "images": one.count,
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


def collect(records: Sequence[Record]) -> dict[str, Any]:
    seeds = by_seed(records, NET)
    sizes = common(seeds.values(), "classes")
    each = {
        seed: {name: metrics[name] for name in ("first", *HELD)} for seed, metrics in seeds.items()
    }
    bands = {name: band([one[name] for one in each.values()]) for name in HELD}
    chance = {"loss": round(math.log(sizes["classes"]), 4)}
    return {"seeds": each, "bands": bands, "chance": chance, **sizes}


def band(values: list[float]) -> list[float]:
    """What another machine's value may be: the seeds' range, widened on both sides by its own
    width."""
    low, high = min(values), max(values)
    return [round(max(0.0, low - (high - low)), 4), round(high + (high - low), 4)]


def inside(value: float, name: str) -> bool:
    """Whether a live value lies in the archived band, and is better than chance by a twentieth of
    it."""
    archived = experiments.archived(NAME, "embedded")
    assert archived is not None, "results/embedded/live is part of the repository"
    metrics = archived["metrics"]
    low, high = metrics["bands"][name]
    classes = metrics["classes"]
    chance = math.log(classes) if name == "last" else 1 - 1 / classes
    return low <= value <= min(high, 0.95 * chance)


def table(result: dict[str, Any]) -> Table:
    """What the seeds measured, and the bands that follow."""
    metrics = result["metrics"]
    rows = [
        [seed, *(f"{one[name]:.4g}" for name in HELD)] for seed, one in metrics["seeds"].items()
    ]
    bands = ["{:.4g} to {:.4g}".format(*metrics["bands"][name]) for name in HELD]
    return Table(
        ["seed", "loss at the end", "error, one view", "ten views"], [*rows, ["band", *bands]]
    )


def plot(result: dict[str, Any]) -> Figure:
    """Each seed's values within their bands."""
    metrics = result["metrics"]
    figure, panels = plt.subplots(1, len(HELD), figsize=(6, 2), layout="constrained")
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
    chance, words = math.log(one["classes"]), {"fontsize": 8, "color": "gray"}
    figure, axes = plt.subplots(figsize=(6, 2.8), layout="constrained")
    axes.plot(steps, one["loss"], lw=0.6, color="C0", alpha=0.4)
    axes.plot(steps[window - 1 :], means, lw=1.6, color="C0")
    axes.axhline(chance, color="gray", ls=":", lw=1)
    axes.text(len(steps), chance, f"ln {one['classes']}", ha="right", va="bottom", **words)
    axes.set(xlabel="step", ylabel="training loss, nats", ylim=(0, None))
    return figure
