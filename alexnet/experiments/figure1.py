"""Figure 1 (section 3.1 of the paper): training error by epoch of a four-layer net with ReLU, with
tanh and with the logistic function, no regularization, up to a threshold. The figure has the first
two; of the third the text speaks.

    alexnet reproduce --only figure1 --seeds 5

The paper chose the rates of the nets separately, to make each as fast as it can be. So does this:
each rate that the profile has for a kind is tried for some epochs, and the one with the lowest loss
over the last quarter of them is taken.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from alexnet.experiments.jobs import (
    Packs,
    Run,
    Training,
    at_best_rate,
    late_loss,
    train_only,
    training_job,
)
from alexnet.experiments.protocol import (
    Entry,
    Metrics,
    Profile,
    Record,
    Result,
    Table,
    by_arm,
    by_kind,
    common,
    each,
)
from alexnet.experiments.showing import Figure, curves, subplots

NAME = "figure1"
VERSION = 1
KINDS = {"ReLU": "four-layer", "tanh": "four-layer/tanh", "logistic": "four-layer/sigmoid"}
STYLES = {"ReLU": ("C0", "-"), "tanh": ("C3", "--"), "logistic": ("C2", "-.")}


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    given, packs, made = profile[NAME], train_only(profile.splits(NAME)), []
    fields = {"width": 1.0, "image_size": packs["train"].size}
    end = {"epochs": given["epochs"], "stop_at_train_error": given["threshold"]}
    for kind, preset in KINDS.items():
        tried = sweep(profile, NAME, preset, given["rates"].get(kind, ()), **fields)
        own = {"threshold": given["threshold"]}
        made += at_best_rates(kind, tried, seeds, packs, own, **end)
    return made


def sweep(
    profile: Profile, part: str, preset: str, rates: Iterable[float], **fields: Any
) -> list[Training]:
    """Short runs of a net at several rates, on the training images of a part of the profile.

    Args:
        profile: Whose settings the nets have.
        part: The part of its images to train on.
        preset: The net.
        rates: Learning rates.
        fields: Further fields of the config.
    """
    packs = train_only(profile.splits(part))
    fields |= {"batch_size": 128, "seed": 0, "epochs": profile[part]["sweep_epochs"]}
    return [training_job(profile, preset, packs, rate=rate, **fields) for rate in rates]


def at_best_rates(
    arm: str,
    tried: Sequence[Training],
    seeds: list[int],
    packs: Packs,
    own: Mapping[str, Any],
    **end: Any,
) -> list[Entry]:
    """An entry for each rate that was tried, and for each seed one at the best of them, whose
    config differs by `end`.

    Args:
        arm: Its name.
        tried: The runs of `sweep`.
        seeds: Of the entries at the best rate.
        packs: Packs by split.
        own: Settings of the entries.
        end: Fields in which the longer runs' config differs.
    """
    made = [Entry(f"{arm}, rate {job.config.rate}", None, job.packs, (job,)) for job in tried]
    for seed in seeds if tried else ():
        config = replace(tried[0].config, seed=seed, rate=None, **end)
        job = Training(config, tried[0].packs, tuple(tried), at_best_rate)
        made.append(Entry(arm, seed, packs, (job,), own))
    return made


def measure(entry: Entry, runs: list[Run]) -> Metrics:
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


def measure_sweep(run: Run) -> Metrics:
    """The late loss at a rate; None, for JSON has no infinity, where the run diverged."""
    loss = late_loss(run)
    return {"rate": run.config.rate, "late_loss": round(loss, 4) if math.isfinite(loss) else None}


def collect(records: list[Record]) -> Metrics:
    kinds = by_arm(records, KINDS)
    nets = {
        kind: common(by_seed.values(), "rate")
        | {"sweep": collect_sweep(records, kind)}
        | by_kind(by_seed, ("error_by_epoch", "epochs_to_threshold"))
        for kind, by_seed in kinds.items()
    }
    return common(each(kinds), "images", "threshold", "budget") | {"nets": nets}


def collect_sweep(records: list[Record], arm: str) -> dict[str, float | None]:
    """The late loss by rate, of the rates that were tried for an arm.

    Args:
        records: Entries as files hold them.
        arm: Its name.
    """
    own = [r["metrics"] for r in records if r["arm"].startswith(f"{arm}, rate ")]
    return {str(m["rate"]): m["late_loss"] for m in sorted(own, key=lambda m: m["rate"])}


def arrival(errors: list[float], threshold: float) -> int | None:
    """The number of epochs after which the error is at the threshold or below; None: not within
    the budget.

    Args:
        errors: One for each epoch, 0..1.
        threshold: 0..1.
    """
    return next((epoch for epoch, error in enumerate(errors, 1) if error <= threshold), None)


def table(result: Result) -> Table:
    """Epochs to the threshold, seed by seed, at each kind's best rate."""
    metrics, rows = result["metrics"], []
    for kind, net in metrics["nets"].items():
        late = f"> {metrics['budget']:g}"
        epochs = [late if n is None else str(n) for n in net["epochs_to_threshold"].values()]
        rows.append([kind, f"{net['rate']:g}", "  ".join(epochs)])
    head = [f"epochs to {metrics['threshold']:.0%} training error", "rate", "seed by seed"]
    return Table(head, rows)


def plot(result: Result) -> Figure:
    """Training error by epoch, as Figure 1 draws it: ReLU solid, tanh dashed, and the logistic
    function; thin lines are further seeds."""
    metrics = result["metrics"]
    figure, axes = subplots(5, 3.2)
    for kind, net in metrics["nets"].items():
        label, (color, style) = f"{kind}, rate {net['rate']:g}", STYLES[kind]
        look = {"color": color, "ls": style, "lw": 1.6}
        curves(axes, net["error_by_epoch"], 1, label, {"lw": 0.8}, **look)
    axes.axhline(metrics["threshold"], color="gray", ls=":", lw=1)
    axes.set(xlabel="epochs", ylabel="training error rate", ylim=(0, 0.95))
    axes.legend(frameon=False)
    return figure
