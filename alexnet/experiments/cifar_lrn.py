"""The four-layer net on CIFAR-10 with response normalization and without it (section 3.3 of the paper, which reports 11 and 13 percent of
test error and says no more about that net).

Both are the small net of Figure 1, this time with regularization: crops, reflections, weight decay, one fall of the rate. Normalization
follows the first two convolutions, as in the large net. It makes responses smaller, so that another rate may suit it: each of the two has
the one of the profile's rates with the lowest loss over the last quarter of a short run, as in Figure 1. Seeds are paired.
"""

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from alexnet import evaluation
from alexnet.claims import mean_interval
from alexnet.data.pack import held_out
from alexnet.experiments import models
from alexnet.experiments.figure1 import choose
from alexnet.profiles import Profile
from alexnet.tables import Table

ARMS = {"without": "four-layer/regularized", "with": "four-layer/regularized/lrn"}
PAPER = {"without": 0.13, "with": 0.11}  # top-1 errors
COLORS = {"without": "#c77c11", "with": "#3b6fa0"}


def config(profile: Profile) -> dict[str, Any]:
    settings = profile["cifar_lrn"]
    return {
        "cifar_lrn": settings,
        "arms": ARMS,
        "data": {name: pack.digest for name, pack in profile.splits("cifar_lrn").items()},
    }


def nets(profile: Profile, seeds: list[int]) -> list[models.Planned]:
    """Those of the sweep; which rates the others have, it decides."""
    return [(config, profile.splits("cifar_lrn")) for config in _sweep(profile).values()]


def then(profile: Profile, seeds: list[int]) -> models.Later:
    """Those at the best rates."""
    sweep, splits = _sweep(profile), _training(profile)
    best, _ = choose(profile, sweep, splits)
    return [(config, splits) for config in _full(profile, sweep, best, seeds).values()], {}


def _sweep(profile: Profile) -> dict[tuple[str, float], models.Config]:
    settings, splits = profile["cifar_lrn"], _training(profile)
    common = {
        "width": settings.get("width", 1.0),
        "image_size": settings["image_size"],
        "batch_size": 128,
        "seed": 0,
    }
    return {
        (arm, rate): models.configure(
            profile, preset, splits=splits, rate=rate, epochs=settings["sweep_epochs"], **common
        )
        for arm, preset in ARMS.items()
        for rate in settings["rates"]
    }


def _training(profile: Profile):
    return {"train": profile.splits("cifar_lrn")["train"]}


def _full(
    profile: Profile, sweep: dict, best: dict[str, float], seeds: list[int]
) -> dict[tuple[str, int], models.Config]:
    epochs = profile["cifar_lrn"]["epochs"]
    return {
        (arm, seed): models.change(sweep[arm, best[arm]], seed=seed, epochs=epochs)
        for arm in ARMS
        for seed in seeds
    }


def run(profile: Profile, seeds: list[int]) -> dict[str, Any]:
    settings, splits, sweep = profile["cifar_lrn"], profile.splits("cifar_lrn"), _sweep(profile)
    split = held_out(splits, "the CIFAR-10 net")
    best, losses = choose(profile, sweep, _training(profile))
    jobs = _full(profile, sweep, best, seeds)
    trained = dict(
        zip(
            jobs,
            models.train_all(profile, list(jobs.values()), _training(profile), title="cifar_lrn"),
            strict=True,
        )
    )
    found: dict[str, dict[str, Any]] = {arm: {} for arm in ARMS}
    for (arm, seed), path in trained.items():
        net, augment = models.trained(path)
        views = {
            str(n): evaluation.evaluate(net, splits[split], augment, n, progress=True).rounded()
            for n in (1, 10)
        }
        found[arm][str(seed)] = {"views": views, "ended": models.summary(path)["ended"]}
    return {
        "split": split,
        "images": len(splits[split]),
        "train_images": len(splits["train"]),
        "epochs": settings["epochs"],
        "rates": best,
        "sweep": losses,
        "nets": found,
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
