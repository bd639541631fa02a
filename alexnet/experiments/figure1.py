"""Figure 1 (section 3.1 of the paper): training error by epoch of a four-layer net with ReLU, with tanh and with the logistic function, no
regularization, up to a threshold. The figure has the first two; of the third the text speaks.

The paper chose the rates of the nets separately, to make each as fast as it can be. So does this: each rate that the profile has for a kind
is tried for some epochs, and the one with the lowest loss over the last quarter of them is taken.
"""

import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from alexnet.data.pack import Pack
from alexnet.experiments import models
from alexnet.profiles import Profile
from alexnet.training import log

KINDS = {"ReLU": "four-layer", "tanh": "four-layer/tanh", "logistic": "four-layer/sigmoid"}
STYLES = {"ReLU": ("C0", "-"), "tanh": ("C3", "--"), "logistic": ("C2", "-.")}


def config(profile: Profile) -> dict[str, Any]:
    return {"figure1": profile["figure1"], "data": profile.splits("figure1")["train"].digest}


def nets(profile: Profile, seeds: list[int]) -> list[models.Planned]:
    """Those of the sweep; which rates the others have, it decides."""
    return [(config, profile.splits("figure1")) for config in _sweep(profile).values()]


def then(profile: Profile, seeds: list[int]) -> models.Later:
    """Those at the best rates."""
    splits, sweep = {"train": profile.splits("figure1")["train"]}, _sweep(profile)
    best, _ = choose(profile, sweep, splits)
    full = _full(profile, sweep, best, seeds)
    return [
        (full[key], splits) for key in reversed(full)
    ], {}  # the slowest nonlinearity first, so that it does not end alone


def _sweep(profile: Profile) -> dict[tuple[str, float], models.Config]:
    settings, splits = profile["figure1"], {"train": profile.splits("figure1")["train"]}
    common = {
        "width": 1.0,
        "image_size": splits["train"].size,
        "batch_size": 128,
        "epochs": settings["sweep_epochs"],
        "seed": 0,
    }
    return {
        (kind, rate): models.configure(profile, preset, splits=splits, rate=rate, **common)
        for kind, preset in KINDS.items()
        for rate in settings["rates"].get(kind, [])  # a kind without any is left out
    }


def _full(
    profile: Profile, sweep: dict, best: dict[str, float], seeds: list[int]
) -> dict[tuple[str, int], models.Config]:
    settings = profile["figure1"]
    goal = {"epochs": settings["epochs"], "stop_at_train_error": settings["threshold"]}
    return {
        (kind, seed): models.change(sweep[kind, rate], seed=seed, **goal)
        for kind, rate in best.items()
        for seed in seeds
    }


def run(profile: Profile, seeds: list[int]) -> dict[str, Any]:
    settings, splits, sweep = (
        profile["figure1"],
        {"train": profile.splits("figure1")["train"]},
        _sweep(profile),
    )
    best, losses = choose(profile, sweep, splits)
    full = _full(profile, sweep, best, seeds)
    trained = dict(
        zip(
            full,
            models.train_all(profile, list(full.values()), splits, title="Figure 1"),
            strict=True,
        )
    )
    curves = {
        key: [row["error"] for row in log.read(path, "epoch")] for key, path in trained.items()
    }
    return {
        "images": len(splits["train"]),
        "threshold": settings["threshold"],
        "budget": settings["epochs"],
        "nets": {
            kind: {
                "rate": best[kind],
                "sweep": losses[kind],
                "error_by_epoch": {
                    str(seed): [round(e, 5) for e in curves[kind, seed]] for seed in seeds
                },
                "epochs_to_threshold": {
                    str(seed): arrival(curves[kind, seed], settings["threshold"]) for seed in seeds
                },
            }
            for kind in best
        },
    }


def choose(
    profile: Profile, sweep: dict[tuple[str, float], models.Config], splits: dict[str, Pack]
) -> tuple[dict[str, float], dict[str, dict[str, float | None]]]:
    """Of runs by kind and rate: for each kind the rate with the lowest late loss; and all of these losses, None where a run diverged."""
    tried = dict(
        zip(
            sweep,
            models.train_all(profile, list(sweep.values()), splits, title="choosing rates"),
            strict=True,
        )
    )
    losses: dict[str, dict[float, float]] = {}
    for (kind, rate), path in tried.items():
        losses.setdefault(kind, {})[rate] = late_loss(path)
    best = {kind: min(by_rate, key=by_rate.__getitem__) for kind, by_rate in losses.items()}
    told = {
        kind: {str(r): round(x, 4) if math.isfinite(x) else None for r, x in by_rate.items()}
        for kind, by_rate in losses.items()
    }
    return best, told


def arrival(errors: list[float], threshold: float) -> int | None:
    """The number of epochs after which the error is at the threshold or below; None: not within the budget."""
    return next((epoch for epoch, error in enumerate(errors, 1) if error <= threshold), None)


def late_loss(path: Path) -> float:
    """Mean loss of the last quarter of a run's steps; infinite if it diverged."""
    if models.summary(path)["ended"] == "diverged":
        return math.inf
    losses = log.losses(path)
    late = losses[-max(1, len(losses) // 4) :]
    return sum(late) / len(late)


def plot(result: dict[str, Any]) -> Figure:
    """Training error by epoch, as Figure 1 draws it: ReLU solid, tanh dashed, and the logistic function; thin lines are further seeds."""
    metrics = result["metrics"]
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for kind, net in metrics["nets"].items():
        color, style = STYLES[kind]
        for i, errors in enumerate(net["error_by_epoch"].values()):
            label = f"{kind}, rate {net['rate']:g}" if i == 0 else None
            axes.plot(
                range(1, len(errors) + 1),
                errors,
                style,
                color=color,
                lw=1.6 if i == 0 else 0.8,
                label=label,
            )
    axes.axhline(metrics["threshold"], color="gray", ls=":", lw=1)
    axes.set(xlabel="epochs", ylabel="training error rate", ylim=(0, 0.95))
    axes.legend(frameon=False)
    return figure
