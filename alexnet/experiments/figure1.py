"""Figure 1 (section 3.1 of the paper): training error by epoch of a four-layer net with ReLU, with
tanh and with the logistic function, no regularization, up to a threshold. The figure has the first
two; of the third the text speaks.

    alexnet reproduce --only figure1 --seeds 5

The paper chose the rates of the nets separately, to make each as fast as it can be. So does this:
each rate that the profile has for a kind is tried for some epochs, and the one with the lowest loss
over the last quarter of them is taken.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from alexnet.experiments.jobs import (
    Run,
    Training,
    at_best_rate,
    configure,
    late_loss,
    train_only,
)
from alexnet.experiments.protocol import Entry, by_arm, by_kind, common
from alexnet.profiles import Profile
from alexnet.results import Record
from alexnet.tables import Table

NAME = "figure1"
VERSION = 1
KINDS = {"ReLU": "four-layer", "tanh": "four-layer/tanh", "logistic": "four-layer/sigmoid"}
STYLES = {"ReLU": ("C0", "-"), "tanh": ("C3", "--"), "logistic": ("C2", "-.")}


def settings(profile: Profile) -> dict[str, Any]:
    return {"threshold": profile[NAME]["threshold"]}


def sweep(profile: Profile, kind: str) -> list[Training]:
    """A short run at each of the profile's rates for a kind; it may have none."""
    given, packs = profile[NAME], train_only(profile.splits(NAME))
    fields: dict[str, Any] = {"width": 1.0, "batch_size": 128, "seed": 0, "packs": packs}
    fields |= {"image_size": packs["train"].size, "epochs": given["sweep_epochs"]}
    return [
        Training(configure(profile, KINDS[kind], rate=rate, **fields), packs)
        for rate in given["rates"].get(kind, [])
    ]


def entries(profile: Profile, seeds: Sequence[int]) -> list[Entry]:
    own, given = settings(profile), profile[NAME]
    end = {"epochs": given["epochs"], "stop_at_train_error": given["threshold"], "rate": None}
    made = []
    for kind in KINDS:
        tried = sweep(profile, kind)
        made += sweep_entries(kind, tried, {})
        for seed in seeds if tried else []:
            config, packs = replace(tried[0].config, seed=seed, **end), tried[0].packs
            job = Training(config, packs, tuple(tried), at_best_rate)
            made.append(Entry(kind, seed, packs, (job,), own, tuple(seeds)))
    return made


def sweep_entries(arm: str, jobs: Sequence[Training], own: dict[str, Any]) -> list[Entry]:
    """One for each rate that is tried for an arm."""
    return [Entry(f"{arm}, rate {job.config.rate}", None, job.packs, (job,), own) for job in jobs]


def measure(entry: Entry, runs: Sequence[Run]) -> dict[str, Any]:
    (run,) = runs
    if entry.seed is None:
        return measure_sweep(run)
    errors, threshold = run.rows("epoch", "error"), entry.settings["threshold"]
    return {
        "images": len(entry.packs["train"]),
        "threshold": threshold,
        "budget": run.config.epochs,
        "rate": run.config.rate,
        "error_by_epoch": [round(error, 5) for error in errors],
        "epochs_to_threshold": arrival(errors, threshold),
    }


def measure_sweep(run: Run) -> dict[str, Any]:
    """The late loss at a rate; None, for JSON has no infinity, where the run diverged."""
    loss = late_loss(run)
    return {"rate": run.config.rate, "late_loss": round(loss, 4) if math.isfinite(loss) else None}


def collect(records: Sequence[Record]) -> dict[str, Any]:
    kinds = by_arm(records, KINDS)
    every = [metrics for by_seed in kinds.values() for metrics in by_seed.values()]
    nets = {
        kind: common(by_seed.values(), "rate")
        | {"sweep": collect_sweep(records, kind)}
        | by_kind(by_seed, ("error_by_epoch", "epochs_to_threshold"))
        for kind, by_seed in kinds.items()
    }
    return common(every, "images", "threshold", "budget") | {"nets": nets}


def collect_sweep(records: Sequence[Record], arm: str) -> dict[str, float | None]:
    """The late loss by rate, of the rates that were tried for an arm."""
    own = [r["metrics"] for r in records if r["arm"].startswith(f"{arm}, rate ")]
    return {str(m["rate"]): m["late_loss"] for m in sorted(own, key=lambda m: m["rate"])}


def arrival(errors: list[float], threshold: float) -> int | None:
    """The number of epochs after which the error is at the threshold or below; None: not within
    the budget."""
    return next((epoch for epoch, error in enumerate(errors, 1) if error <= threshold), None)


def table(result: dict[str, Any]) -> Table:
    """Epochs to the threshold, seed by seed, at each kind's best rate."""
    metrics, rows = result["metrics"], []
    for kind, net in metrics["nets"].items():
        epochs = [
            f"> {metrics['budget']:g}" if epoch is None else str(epoch)
            for epoch in net["epochs_to_threshold"].values()
        ]
        rows.append([kind, f"{net['rate']:g}", "  ".join(epochs)])
    head = [f"epochs to {metrics['threshold']:.0%} training error", "rate", "seed by seed"]
    return Table(head, rows)


def plot(result: dict[str, Any]) -> Figure:
    """Training error by epoch, as Figure 1 draws it: ReLU solid, tanh dashed, and the logistic
    function; thin lines are further seeds."""
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
