"""The experiment that fits into a live cell: a narrow net, five pictographs, seconds on one thread. Its archive holds the bands that such a
cell is held to."""

import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from alexnet import evaluation, results, training
from alexnet.experiments import models
from alexnet.profiles import Profile, load
from alexnet.training import log


def config(profile: Profile) -> dict[str, Any]:
    return {"live": profile["live"]}


def train(out: Path, seed: int = 0, profile: Profile | None = None) -> dict[str, Any]:
    """Trains anew in `out`, a folder that is not there yet, and measures: {"loss": by window, "first", "last", "one_view", "ten_views"}."""
    profile = profile or load("embedded")
    settings, packs = profile["live"], profile.splits("live")
    torch.set_num_threads(1)
    data = {"train": packs["train"]}
    fields = {name: settings[name] for name in ("width", "batch_size", "rate", "epochs")}
    config = models.configure(profile, settings["preset"], splits=data, seed=seed, **fields)
    training.train(config, data, out, progress=False)
    losses = [row["loss"] for row in log.read(out, "step")]
    net, augment, _ = training.load_run(out)
    one, ten = (evaluation.evaluate(net, packs["test"], augment, views) for views in (1, 10))
    tenth = max(1, len(losses) // 10)
    return {
        "loss": losses,
        "first": sum(losses[:tenth]) / tenth,
        "last": sum(losses[-tenth:]) / tenth,
        "one_view": one.top1,
        "ten_views": ten.top1,
        "images": one.count,
        "classes": config.num_classes,
    }


def run(profile: Profile, seeds: list[int]) -> dict[str, Any]:
    import tempfile

    found = {}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            one = train(Path(folder) / "run", seed, profile)
        found[str(seed)] = {
            name: round(one[name], 4) for name in ("first", "last", "one_view", "ten_views")
        }
    bands = {
        name: band([one[name] for one in found.values()])
        for name in ("last", "one_view", "ten_views")
    }
    return {
        "seeds": found,
        "bands": bands,
        "chance": {"loss": round(math.log(profile["live"]["pictographs"]["classes"]), 4)},
    }


def band(values: list[float]) -> list[float]:
    """What another machine's value may be: the seeds' range, widened on both sides by its own width."""
    low, high = min(values), max(values)
    return [round(max(0.0, low - (high - low)), 4), round(high + (high - low), 4)]


def inside(value: float, name: str) -> bool:
    """Whether a live value lies in the archived band, and is better than chance by a twentieth of it."""
    archived = results.archived("live", "embedded")
    assert archived is not None, "results/embedded/live.json is part of the repository"
    low, high = archived["metrics"]["bands"][name]
    classes = archived["config"]["live"]["pictographs"]["classes"]
    chance = math.log(classes) if name == "last" else 1 - 1 / classes
    return low <= value <= min(high, 0.95 * chance)


def plot(one: dict[str, Any]) -> Figure:
    """The loss of a live run: every step, means over 25 of them, and ln(classes)."""
    steps, window = np.arange(1, len(one["loss"]) + 1), min(25, len(one["loss"]))
    means = np.convolve(one["loss"], np.full(window, 1 / window), mode="valid")
    figure, axes = plt.subplots(figsize=(6, 2.8), layout="constrained")
    axes.plot(steps, one["loss"], lw=0.6, color="C0", alpha=0.4)
    axes.plot(steps[window - 1 :], means, lw=1.6, color="C0")
    axes.axhline(math.log(one["classes"]), color="gray", ls=":", lw=1)
    axes.text(
        len(steps),
        math.log(one["classes"]),
        f"ln {one['classes']}",
        fontsize=8,
        color="gray",
        ha="right",
        va="bottom",
    )
    axes.set(xlabel="step", ylabel="training loss, nats", ylim=(0, None))
    return figure
