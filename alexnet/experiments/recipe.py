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

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from alexnet.experiments.jobs import Run, Training, configure, train_only
from alexnet.experiments.protocol import Arm, Entry, by_arm, by_kind, chosen, common
from alexnet.profiles import Profile
from alexnet.results import Record
from alexnet.tables import Table
from alexnet.training import log

NAME = "recipe"
VERSION = 1
# the smallest change with which the text's net learns within the budget; the arms below it change
# one thing more
LEARNS = "paper/sigma-0.03"
PANELS = ("first weights", "input, biases, dropout, normalization", "one fall of the rate")
ARMS = {  # a profile runs those that it lists
    "text": Arm(
        "paper", "the text: sigma 0.01 everywhere", who="Caffe, in its convolutions", budgets=4
    ),
    "sigma-0.03": Arm(LEARNS, "sigma 0.03 in conv3 to conv5", who="the source, cuda-convnet2"),
    "source": Arm("source", "all of the source's net", who="the source"),
    "unscaled-sigma": Arm(f"{LEARNS}/unscaled-sigma", "a narrower net, its sigmas not scaled up"),
    "torch-init": Arm(f"{LEARNS}/torch-init", "torch's default first weights", who="torchvision"),
    "he-init": Arm(f"{LEARNS}/he-init", "He's first weights"),
    "unit-input": Arm(f"{LEARNS}/unit-input", "pixels in 0..1", panel=1),
    "unit-variance": Arm(
        f"{LEARNS}/unit-variance", "pixels of unit variance", who="torchvision", panel=1
    ),
    "unit-variance, he-init": Arm(
        f"{LEARNS}/unit-variance/he-init", "pixels of unit variance, He's first weights", panel=1
    ),
    "zero-biases": Arm(
        f"{LEARNS}/zero-biases", "first biases 0 instead of 1", who="torchvision, nearly", panel=1
    ),
    "inverted-dropout": Arm(
        f"{LEARNS}/inverted-dropout", "inverted dropout", who="Caffe, torchvision", panel=1
    ),
    "lrn-over-size": Arm(
        f"{LEARNS}/lrn-over-size",
        "LRN's alpha divided by its size",
        who="the source, Caffe, torch",
        panel=1,
    ),
    "rate inside": Arm(
        f"{LEARNS}/one-fall",
        "one fall of the rate, inside the velocity",
        who="the text, the source",
        panel=2,
    ),
    "rate outside": Arm(
        f"{LEARNS}/one-fall/rate-outside",
        "one fall of the rate, outside the velocity",
        who="torch",
        panel=2,
    ),
}
WINDOW = 50  # steps that a loss is averaged over
DROP = 0.2  # nats below ln(classes): the net has left
AFTER = 20  # steps after a fall of the rate, in which the two ways to write momentum differ
KINDS = ("left_at_step", "end", "loss", "diverged_at", "steps")


def settings(profile: Profile) -> dict[str, Any]:
    profile[NAME]  # says so where there are none
    return {"window": WINDOW, "drop": DROP, "after": AFTER}


def entries(profile: Profile, seeds: Sequence[int]) -> list[Entry]:
    own, packs, arms = settings(profile), train_only(profile.splits()), chosen(profile, NAME, ARMS)
    return [
        Entry(name, seed, packs, (job(profile, arm, seed),), own, tuple(seeds))
        for name, arm in arms.items()
        for seed in seeds
    ]


def job(profile: Profile, arm: Arm, seed: int) -> Training:
    packs, epochs = train_only(profile.splits()), arm.budgets * profile[NAME]["epochs"]
    config = configure(profile, preset(arm), packs=packs, seed=seed, epochs=epochs)
    return Training(config, packs)


def preset(arm: Arm) -> str:
    return arm.preset if "one-fall" in arm.preset else f"{arm.preset}/constant-rate"


def measure(entry: Entry, runs: Sequence[Run]) -> dict[str, Any]:
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
        "after_the_fall": round(sum(behind) / len(behind), 4) if falls else None,
    }


def collect(records: Sequence[Record]) -> dict[str, Any]:
    nested = by_arm(records, ARMS)
    every = [metrics for by_seed in nested.values() for metrics in by_seed.values()]
    sizes = common(every, "classes", "images")
    arms = {name: by_kind(by_seed, KINDS) for name, by_seed in nested.items()}
    after = {
        name: {
            seed: m["after_the_fall"]
            for seed, m in by_seed.items()
            if m["after_the_fall"] is not None
        }
        for name, by_seed in nested.items()
    }
    steps = max(max(arm["steps"].values()) // ARMS[name].budgets for name, arm in arms.items())
    return {
        **sizes,
        "steps": steps,
        "window": WINDOW,
        "drop": DROP,
        "after": AFTER,
        "arms": arms,
        "after_the_fall": {name: by_seed for name, by_seed in after.items() if by_seed},
    }


def left_at(
    losses: list[float], classes: int, window: int = WINDOW, drop: float = DROP
) -> int | None:
    """The first step at which the mean loss of the last `window` steps is `drop` nats below
    ln(classes); None: never."""
    total = 0.0
    for step, loss in enumerate(losses, 1):
        total += loss - (losses[step - 1 - window] if step > window else 0.0)
        if step >= window and total / window <= math.log(classes) - drop:
            return step
    return None


def table(result: dict[str, Any]) -> Table:
    """Which of them keep the paper's SGD from training, and who does so."""
    metrics = result["metrics"]
    rows: list[list[str]] = []
    for name, arm in ARMS.items():
        if name not in metrics["arms"]:
            continue
        measured = metrics["arms"][name]
        if name == "unscaled-sigma":
            rows.append(["with sigma 0.03 in conv3 to conv5, and"])
        left = list(measured["left_at_step"].values())
        trains = f"{sum(step is not None for step in left)} of {len(left)}"
        steps, broken = (
            _span(left, "d") or f"not in {max(measured['steps'].values()):,}",
            _span(list(measured["diverged_at"].values()), "d"),
        )
        when = f"diverges at {broken}" if broken else steps
        what, end = (
            "  " * (arm.preset.count("/") > 1) + arm.what,
            _span(list(measured["end"].values()), ".2f"),
        )
        rows.append([what, arm.who, trains, when, end or "-"])
    floor = f"ln {metrics['classes']} = {math.log(metrics['classes']):.2f} nats"
    notes = [
        f"trains: so many seeds' mean loss of {WINDOW} steps comes {DROP} nats below {floor}, "
        f"within {metrics['steps']} steps"
    ]
    notes += [
        f"  ({arm.what}: within {arm.budgets * metrics['steps']:,})"
        for arm in ARMS.values()
        if arm.budgets > 1
    ]
    for name, after in metrics["after_the_fall"].items():
        seeds = ", ".join(f"{loss:.3f}" for loss in after.values())
        notes.append(f"{name} the velocity, mean loss of the {AFTER} steps after the fall: {seeds}")
    return Table(
        ["one thing at a time", "as in", "trains", "from step", "loss at the end"], rows, notes
    )


def _span(values: Sequence[float | None], form: str) -> str:
    """From the least to the greatest of several seeds' numbers; "" without any."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return ""
    least, most = f"{known[0]:{form}}", f"{known[-1]:{form}}"
    return least if least == most else f"{least} to {most}"


def plot(result: dict[str, Any]) -> Figure:
    """Loss by step: first weights; input, biases, dropout and normalization; the fall of the rate.
    Thin lines are further seeds."""
    metrics = result["metrics"]
    figure, panels = plt.subplots(
        3,
        1,
        figsize=(7, 7),
        sharey=True,
        layout="constrained",
        gridspec_kw={"height_ratios": (6, 6, 4)},
    )
    chance = math.log(metrics["classes"])
    for i, title in enumerate(PANELS):
        shown = [
            name
            for name in metrics["arms"]
            if ARMS[name].panel == i or (i == 1 and name == "sigma-0.03")
        ]
        for color, name in enumerate(shown):
            for k, losses in enumerate(metrics["arms"][name]["loss"].values()):
                at = [WINDOW * (j + 1) for j in range(len(losses))]
                style = {"color": f"C{color}", "lw": 1.4, "alpha": 0.85 if k == 0 else 0.4}
                panels[i].plot(at, losses, label=ARMS[name].what if k == 0 else None, **style)
        panels[i].axhline(chance, color="gray", ls=":", lw=1)
        panels[i].set(
            xlabel="step" if i == 2 else None,
            ylabel="training loss, nats",
            ylim=(None, chance + 0.4),
        )
        panels[i].set_title(title, fontsize=9)
        if shown:
            panels[i].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    panels[0].text(
        panels[0].get_xlim()[1],
        chance + 0.01,
        f"ln {metrics['classes']}",
        fontsize=8,
        color="gray",
        ha="right",
        va="bottom",
    )
    return figure
