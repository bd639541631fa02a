"""On what the recipe of section 5 hangs: from which step the loss leaves ln(classes), for the text's net, for the source's, and for what
re-implementations commonly do otherwise, one thing at a time. The text's net is given more steps than the others, lest it want patience.

Every arm keeps its first rate, so that nothing but the named change differs; the last two have one fall of it, where the two ways to write
momentum part. An arm that does not leave within the budget is reported so.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from alexnet.errors import InputError
from alexnet.experiments import models
from alexnet.profiles import Profile
from alexnet.tables import Table
from alexnet.training import log


class Arm(NamedTuple):
    preset: str
    what: str
    who: str = ""  # programs that do so: only those whose files were read
    panel: int = 1  # of the figure
    budgets: int = 1  # of steps that it is given


LEARNS = "paper/sigma-0.03"  # the smallest change with which the text's net learns within the budget; the arms below change one thing of it
ARMS = {
    "text": Arm(
        "paper", "the text: sigma 0.01 everywhere", "Caffe, in its convolutions", 0, budgets=4
    ),
    "sigma-0.03": Arm(LEARNS, "sigma 0.03 in conv3 to conv5", "the source, cuda-convnet2", 0),
    "source": Arm("source", "all of the source's net", "the source", 0),
    "unscaled-sigma": Arm(
        f"{LEARNS}/unscaled-sigma", "a narrower net, its sigmas not scaled up", "", 0
    ),
    "torch-init": Arm(f"{LEARNS}/torch-init", "torch's default first weights", "torchvision", 0),
    "he-init": Arm(f"{LEARNS}/he-init", "He's first weights", "", 0),
    "unit-input": Arm(f"{LEARNS}/unit-input", "pixels in 0..1", ""),
    "unit-variance": Arm(f"{LEARNS}/unit-variance", "pixels of unit variance", "torchvision"),
    "unit-variance, he-init": Arm(
        f"{LEARNS}/unit-variance/he-init", "pixels of unit variance, He's first weights", ""
    ),
    "zero-biases": Arm(
        f"{LEARNS}/zero-biases", "first biases 0 instead of 1", "torchvision, nearly"
    ),
    "inverted-dropout": Arm(f"{LEARNS}/inverted-dropout", "inverted dropout", "Caffe, torchvision"),
    "lrn-over-size": Arm(
        f"{LEARNS}/lrn-over-size", "LRN's alpha divided by its size", "the source, Caffe, torch"
    ),
    "rate inside": Arm(
        f"{LEARNS}/one-fall", "one fall of the rate, inside the velocity", "the text, the source", 2
    ),
    "rate outside": Arm(
        f"{LEARNS}/one-fall/rate-outside", "one fall of the rate, outside the velocity", "torch", 2
    ),
}
WINDOW = 50  # steps that a loss is averaged over
DROP = 0.2  # nats below ln(classes): the net has left
AFTER = 20  # steps after a fall of the rate, in which the two ways to write momentum differ


def config(profile: Profile) -> dict[str, Any]:
    settings, digests = (
        profile["recipe"],
        {name: pack.digest for name, pack in profile.splits().items()},
    )
    arms = {name: [arm.preset, arm.budgets] for name, arm in _arms(profile).items()}
    return {
        "recipe": settings,
        "net": profile.net,
        "arms": arms,
        "window": WINDOW,
        "drop": DROP,
        "after": AFTER,
        "data": digests,
    }


def nets(profile: Profile, seeds: list[int]) -> list[models.Planned]:
    return [(config, profile.splits()) for config in _jobs(profile, seeds).values()]


def _arms(profile: Profile) -> dict[str, Arm]:
    """All, or those that the profile names."""
    names = profile["recipe"].get("arms", ARMS)
    if unknown := [name for name in names if name not in ARMS]:
        raise InputError(
            f"profile {profile.name!r}: recipe has no arm {unknown[0]!r}; it has {', '.join(ARMS)}"
        )
    return {name: ARMS[name] for name in names}


def _jobs(profile: Profile, seeds: list[int]) -> dict[tuple[str, int], models.Config]:
    splits, epochs = {"train": profile.splits()["train"]}, profile["recipe"]["epochs"]
    return {
        (name, seed): models.configure(
            profile, preset(arm), splits=splits, seed=seed, epochs=arm.budgets * epochs
        )
        for name, arm in _arms(profile).items()
        for seed in seeds
    }


def run(profile: Profile, seeds: list[int]) -> dict[str, Any]:
    splits, jobs = {"train": profile.splits()["train"]}, _jobs(profile, seeds)
    trained = dict(
        zip(jobs, models.train_all(profile, list(jobs.values()), title="recipe"), strict=True)
    )
    classes = len(splits["train"].classes)
    kinds = ("left_at_step", "end", "loss", "diverged_at", "steps")
    arms: dict[str, dict[str, dict[str, Any]]] = {
        name: {kind: {} for kind in kinds} for name in _arms(profile)
    }
    after: dict[str, dict[str, Any]] = {}
    for (name, seed), path in trained.items():
        losses = log.losses(path)
        summary = models.summary(path)
        diverged = summary["diverged_at"]
        measured = {
            "left_at_step": None if diverged else left_at(losses, classes),
            "end": None if diverged else round(sum(losses[-WINDOW:]) / len(losses[-WINDOW:]), 4),
            "loss": [round(mean, 4) for mean in log.means(losses, WINDOW)],
            "diverged_at": diverged,
            "steps": summary["steps"],
        }
        for kind, value in measured.items():
            arms[name][kind][str(seed)] = value
        rates = [row["rate"] for row in log.read(path, "step")]
        if (
            fall := next(
                (step for step in range(1, len(rates)) if rates[step] < rates[step - 1]), None
            )
        ) is not None:
            behind = losses[fall : fall + AFTER]
            after.setdefault(name, {})[str(seed)] = round(sum(behind) / len(behind), 4)
    steps = max(max(arm["steps"].values()) // ARMS[name].budgets for name, arm in arms.items())
    sizes = {"classes": classes, "steps": steps, "images": len(splits["train"])}
    return {
        **sizes,
        "window": WINDOW,
        "drop": DROP,
        "after": AFTER,
        "arms": arms,
        "after_the_fall": after,
    }


def preset(arm: Arm) -> str:
    return arm.preset if "one-fall" in arm.preset else f"{arm.preset}/constant-rate"


def left_at(
    losses: list[float], classes: int, window: int = WINDOW, drop: float = DROP
) -> int | None:
    """The first step at which the mean loss of the last `window` steps is `drop` nats below ln(classes); None: never."""
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
        found = metrics["arms"][name]
        if name == "unscaled-sigma":
            rows.append(["with sigma 0.03 in conv3 to conv5, and"])
        left = list(found["left_at_step"].values())
        trains = f"{sum(step is not None for step in left)} of {len(left)}"
        steps, broken = (
            _span(left, "d") or f"not in {max(found['steps'].values()):,}",
            _span(list(found["diverged_at"].values()), "d"),
        )
        when = f"diverges at {broken}" if broken else steps
        what, end = (
            "  " * (arm.preset.count("/") > 1) + arm.what,
            _span(list(found["end"].values()), ".2f"),
        )
        rows.append([what, arm.who, trains, when, end or "-"])
    floor = f"ln {metrics['classes']} = {math.log(metrics['classes']):.2f} nats"
    notes = [
        f"trains: so many seeds' mean loss of {WINDOW} steps comes {DROP} nats below {floor}, within {metrics['steps']} steps"
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
    """Loss by step: first weights; input, biases, dropout and normalization; the fall of the rate. Thin lines are further seeds."""
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
    for i, title in enumerate(
        ("first weights", "input, biases, dropout, normalization", "one fall of the rate")
    ):
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
