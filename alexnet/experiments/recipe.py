"""What the recipe of section 5 depends on: from which step the loss leaves ln(classes), for the
text's net, for the source's, and for what re-implementations commonly do otherwise, one thing at a
time. The text's net is given more steps than the others, lest it only lack patience.

    alexnet reproduce --only recipe --seeds 5

Every arm keeps its first rate, so that nothing but the named change differs; the last two have one
fall of it, where the two ways to write momentum part. An arm that does not leave within the budget
is reported so.
"""

import math
from collections.abc import Sequence
from typing import Any

from alexnet.data.loader import steps_per_epoch
from alexnet.experiments.jobs import Run, first_below, train_only, training_job
from alexnet.experiments.protocol import (
    Arm,
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
from alexnet.experiments.showing import Figure, chance_line, curves, name_chance, span, subplots
from alexnet.training import log
from alexnet.training.config import LOSSES

NAME = "recipe"
VERSION = 1
# the smallest change with which the text's net learns within the budget; the arms below it change
# one thing more
LEARNS = "paper/sigma-0.03"
PANELS = ("initialization", "input, biases, dropout, normalization", "one fall of the rate")


def _more(variant: str, what: str, who: str = "", panel: int = 0) -> Arm:
    return Arm(f"{LEARNS}/{variant}", what, who=who, panel=panel)


ARMS = {  # a profile runs those that it lists
    "text": Arm(
        "paper", "the text: sigma 0.01 everywhere", who="Caffe, in its convolutions", budgets=4
    ),
    "sigma-0.03": Arm(LEARNS, "sigma 0.03 in conv3 to conv5", who="the source, cuda-convnet2"),
    "source": Arm("source", "all of the source's net", who="the source"),
    "unscaled-sigma": _more("unscaled-sigma", "a narrower net, its sigmas not scaled up"),
    "torch-init": _more("torch-init", "torch's default initialization, biases 0", "torchvision"),
    "he-init": _more("he-init", "He's initialization, biases 0"),
    "torch-weights": _more("torch-weights", "torch's default weights, biases as they were"),
    "he-weights": _more("he-weights", "He's weights, biases as they were"),
    "unit-input": _more("unit-input", "pixels in 0..1", panel=1),
    "unit-variance": _more("unit-variance", "pixels of unit variance", "torchvision", 1),
    "unit-variance, he-init": _more(
        "unit-variance/he-init", "pixels of unit variance, He's initialization", panel=1
    ),
    "zero-biases": _more("zero-biases", "biases 0 instead of 1", "torchvision, nearly", 1),
    "biases-0.1": _more("biases-0.1", "biases 0.1 instead of 1", "Caffe's AlexNet", 1),
    "inverted-dropout": _more("inverted-dropout", "inverted dropout", "Caffe, torchvision", 1),
    "lrn-over-size": _more(
        "lrn-over-size", "LRN's alpha divided by its size", "the source, Caffe, torch", 1
    ),
    "rate inside": _more(
        "one-fall", "one fall of the rate, inside the velocity", "the text, the source", 2
    ),
    "rate outside": _more(
        "one-fall/rate-outside", "one fall of the rate, outside the velocity", "torch", 2
    ),
}
WINDOW = LOSSES  # steps that a loss is averaged over, as where a run is ended
DROP = 0.2  # nats below ln(classes): the net has left
AFTER = 20  # steps after a fall of the rate, in which the two ways to write momentum differ
OWN = {"window": WINDOW, "drop": DROP, "after": AFTER}
KINDS = ("left_at_step", "end", "loss", "diverged_at", "steps")


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    packs, given, made = train_only(profile.splits()), profile[NAME], []
    for name, arm in chosen(profile, NAME, ARMS).items():
        own, fields = dict[str, Any](OWN), dict[str, Any]()
        if "steps" in given:  # the same number for each arm
            own["steps"] = given["steps"]
            per_epoch = steps_per_epoch(packs["train"], profile["batch_size"])
            fields["epochs"] = given["steps"] / per_epoch
        else:
            fields["epochs"] = arm.budgets * given["epochs"]
        if given.get("stop") and "one-fall" not in arm.preset:
            fields["stop_at_loss"] = round(math.log(len(packs["train"].classes)) - DROP, 6)
        for seed in seeds:
            job = training_job(profile, preset(arm), packs, seed=seed, **fields)
            made.append(Entry(name, seed, packs, (job,), own))
    return made


def preset(arm: Arm) -> str:
    return arm.preset if "one-fall" in arm.preset else f"{arm.preset}/constant-rate"


def measure(entry: Entry, runs: list[Run]) -> Metrics:
    (run,), pack = runs, entry.packs["train"]
    losses, diverged, classes = run.losses, run.summary["diverged_at"], len(pack.classes)
    rates = run.rows("step", "rate")
    falls = [step for step in range(1, len(rates)) if rates[step] < rates[step - 1]]
    behind = losses[falls[0] : falls[0] + AFTER] if falls else []
    return {
        "classes": classes,
        "images": len(pack),
        "left_at_step": None if diverged else left_at(losses, classes),
        "end": None if diverged else round(sum(losses[-WINDOW:]) / len(losses[-WINDOW:]), 4),
        "loss": [round(mean, 4) for mean in log.means(losses, WINDOW)],
        "diverged_at": diverged,
        "steps": run.summary["steps"],
        "budget": entry.settings.get("steps", run.summary["steps"]),
        "after_the_fall": round(sum(behind) / len(behind), 4) if falls else None,
    }


def collect(records: list[Record]) -> Metrics:
    nested = by_arm(records, ARMS)
    sizes = common(each(nested), "classes", "images")
    arms = {name: by_kind(by_seed, KINDS) for name, by_seed in nested.items()}
    after: dict[str, dict[str, float]] = {}
    for name, by_seed in nested.items():
        for seed, one in by_seed.items():
            if one["after_the_fall"] is not None:
                after.setdefault(name, {})[seed] = one["after_the_fall"]
    spent = {
        arm: max(one.get("budget") or one["steps"] for one in by_seed.values())
        for arm, by_seed in nested.items()
    }
    budgets = [steps // ARMS[arm].budgets for arm, steps in spent.items()]
    return {**sizes, "steps": max(budgets), **OWN, "arms": arms, "after_the_fall": after}


def left_at(
    losses: list[float], classes: int, window: int = WINDOW, drop: float = DROP
) -> int | None:
    """The first step at which the mean loss of the last `window` steps is `drop` nats below
    ln(classes); None: never.

    Args:
        losses: In nats, one for each step.
        classes: Of the net.
        window: Steps of a mean.
        drop: In nats.
    """
    return first_below(losses, window, math.log(classes) - drop + 1e-6)  # as a run is ended


def table(result: Result) -> Table:
    """Which of them keep the paper's SGD from training, and who does so."""
    metrics, rows = result["metrics"], []
    for name, measured in metrics["arms"].items():
        arm, left = ARMS[name], list(measured["left_at_step"].values())
        if name == "unscaled-sigma":
            rows.append(["with sigma 0.03 in conv3 to conv5, and"])
        when = span(left, "d") or f"not in {max(measured['steps'].values()):,}"
        if broken := span(measured["diverged_at"].values(), "d"):
            when = f"diverges at {broken}"
        trains = f"{sum(step is not None for step in left)} of {len(left)}"
        end = span(measured["end"].values(), ".2f") or "-"
        rows.append(["  " * (arm.preset.count("/") > 1) + arm.what, arm.who, trains, when, end])
    floor = f"ln {metrics['classes']} = {math.log(metrics['classes']):.2f} nats"
    notes = [
        f"trains: so many seeds' mean loss of {WINDOW} steps comes {DROP} nats below {floor}, "
        f"within {metrics['steps']} steps"
    ]
    for name, arm in ARMS.items():
        own = metrics["arms"].get(name, {"steps": {}})["steps"].values()
        if arm.budgets > 1 and max(own, default=metrics["steps"] + 1) > metrics["steps"]:
            notes.append(f"  ({arm.what}: within {arm.budgets * metrics['steps']:,})")
    for name, after in metrics["after_the_fall"].items():
        seeds = ", ".join(f"{loss:.3f}" for loss in after.values())
        notes.append(f"{name} the velocity, mean loss of the {AFTER} steps after the fall: {seeds}")
    head = ["one thing at a time", "as in", "trains", "from step", "loss at the end"]
    return Table(head, rows, notes)


def plot(result: Result) -> Figure:
    """Loss by step: initialization; input, biases, dropout and normalization; the fall of the rate.
    Thin lines are further seeds."""
    metrics = result["metrics"]
    chance, ratios = math.log(metrics["classes"]), {"height_ratios": (6, 6, 4)}
    figure, panels = subplots(7, 7, 3, sharey=True, gridspec_kw=ratios)
    for i, (axes, title) in enumerate(zip(panels, PANELS, strict=True)):
        shown = [name for name in metrics["arms"] if ARMS[name].panel == i]
        if i == 1 and "sigma-0.03" in metrics["arms"]:
            shown.insert(0, "sigma-0.03")
        for color, name in enumerate(shown):
            style = {"color": f"C{color}", "lw": 1.4, "alpha": 0.85}
            losses = metrics["arms"][name]["loss"]
            curves(axes, losses, WINDOW, ARMS[name].what, {"alpha": 0.4}, **style)
        chance_line(axes, metrics["classes"])
        axes.set(ylabel="training loss, nats", ylim=(None, chance + 0.4))
        axes.set_title(title, fontsize=9)
        if shown:
            axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_xlabel("step")
    name_chance(panels[0], metrics["classes"], panels[0].get_xlim()[1], 0.01, "right")
    return figure


def plot_steps(
    result: Result, arms: Sequence[str] = ("sigma-0.03", "zero-biases", "text")
) -> Figure:
    """The step at which each run leaves its plateau, a row of dots for each arm; runs that never do
    stand at their budget, as crosses, and make the axis logarithmic.

    Args:
        result: Of the experiment.
        arms: Names, one a row.
    """
    shown = [arm for arm in arms if arm in result["metrics"]["arms"]]
    figure, axes = subplots(6, 0.45 * len(shown) + 0.9)
    for row, arm in enumerate(shown):
        kinds = result["metrics"]["arms"][arm]
        for seed, step in kinds["left_at_step"].items():
            place, mark = (kinds["steps"][seed], "x") if step is None else (step, "o")
            axes.plot(place, row, mark, color=f"C{row}", ms=6, alpha=0.7)
            if step is None:
                axes.set_xscale("log")
    names = ["the same, " * (ARMS[a].preset.count("/") > 1) + ARMS[a].what for a in shown]
    axes.set_yticks(range(len(shown)), names)
    if axes.get_xscale() == "linear":
        axes.set_xlim(0, None)
    axes.set(ylim=(len(shown) - 0.5, -0.5))
    axes.set_xlabel("step at which the loss leaves chance")
    return figure
