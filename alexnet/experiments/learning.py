"""Does the recipe of section 5 learn? From which step the loss leaves ln(classes), for both presets and for what is said to break them.

Every arm keeps its first rate, so that nothing but the named change differs. An arm that does not leave within the budget is reported so.
"""

import math
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from alexnet.experiments import models
from alexnet.profiles import Profile
from alexnet.training import log

ARMS = {
    "paper": "the text's net",
    "paper/sigma-0.03": "the text's net with the source's sigma in conv3-5",
    "source": "the source's net",
    "paper/unscaled-sigma": "the text's net, sigma not scaled with fan-in",
    "source/unscaled-sigma": "the source's net, sigma not scaled with fan-in",
    "source/unit-input": "the source's net, pixels scaled to 0..1",
    "source/zero-biases": "the source's net, all biases 0",
    "source/inverted-dropout": "the source's net, inverted dropout",
}
WINDOW = 50  # steps that a loss is averaged over
DROP = 0.2  # nats below ln(classes): the net has left


def config(profile: Profile) -> dict[str, Any]:
    digests = {name: pack.digest for name, pack in profile.splits().items()}
    return {"learning": profile["learning"], "net": profile.net, "arms": list(ARMS), "window": WINDOW, "drop": DROP, "data": digests}


def run(profile: Profile, seeds: list[int]) -> dict[str, Any]:
    splits = {"train": profile.splits()["train"]}
    jobs = {
        (arm, seed): models.configure(profile, f"{arm}/constant-rate", splits=splits, seed=seed, epochs=profile["learning"]["epochs"])
        for arm in ARMS
        for seed in seeds
    }
    trained = dict(zip(jobs, models.train_all(profile, list(jobs.values()), title="learning"), strict=True))
    classes = len(splits["train"].classes)
    arms: dict[str, dict[str, Any]] = {arm: {"left_at_step": {}, "loss": {}, "diverged_at": {}} for arm in ARMS}
    steps = 0
    for (arm, seed), path in trained.items():
        losses = [row["loss"] for row in log.read(path, "step")]
        steps = max(steps, len(losses))
        arms[arm]["left_at_step"][str(seed)] = left_at(losses, classes)
        arms[arm]["loss"][str(seed)] = [round(mean, 4) for mean in means(losses)]
        arms[arm]["diverged_at"][str(seed)] = models.summary(path)["diverged_at"]
    return {"classes": classes, "steps": steps, "images": len(splits["train"]), "window": WINDOW, "drop": DROP, "arms": arms}


def means(losses: list[float], window: int = WINDOW) -> list[float]:
    """Means over consecutive windows of steps."""
    return [sum(losses[i : i + window]) / window for i in range(0, len(losses) - window + 1, window)]


def left_at(losses: list[float], classes: int, window: int = WINDOW, drop: float = DROP) -> int | None:
    """The first step at which the mean loss of the last `window` steps is `drop` nats below ln(classes); None: never."""
    total = 0.0
    for step, loss in enumerate(losses, 1):
        total += loss - (losses[step - 1 - window] if step > window else 0.0)
        if step >= window and total / window <= math.log(classes) - drop:
            return step
    return None


def plot(result: dict[str, Any]) -> Figure:
    """Loss by step, one panel for what learns and one for what is said to break it; thin lines are seeds."""
    metrics = result["metrics"]
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    weights = [arm for arm in ARMS if "/" not in arm or "sigma" in arm]
    groups = (weights, ["source", *(arm for arm in ARMS if arm not in weights)])
    for panel, group in zip(panels, groups, strict=True):
        for arm in group:
            color = f"C{list(ARMS).index(arm)}"  # an arm keeps its color from panel to panel
            for i, losses in enumerate(metrics["arms"][arm]["loss"].values()):
                at = [WINDOW * (k + 1) for k in range(len(losses))]
                panel.plot(at, losses, color=color, lw=1.4, alpha=0.85 if i == 0 else 0.4, label=arm if i == 0 else None)
        panel.axhline(math.log(metrics["classes"]), color="gray", ls=":", lw=1)
        panel.set_xlabel("step")
        panel.legend(fontsize=7, frameon=False)
    panels[0].set_ylabel("training loss, nats")
    panels[0].set_title("initial weights", fontsize=9)
    panels[1].set_title("input, biases, dropout", fontsize=9)
    chance = math.log(metrics["classes"])
    panels[0].text(metrics["steps"], chance - 0.01, f"ln {metrics['classes']}", fontsize=7, color="gray", ha="right", va="top")
    return figure
