"""What the archive's experiment `recipe` says of a cause: in how many runs such a net trained."""

from functools import cache
from typing import Any

from alexnet import results

# the one nearest to the paper's data first
PROFILES = ("ilsvrc2012", "ilsvrc2010", "tiny-imagenet", "tiny-imagenet-cpu", "cifar10", "embedded")
BASELINE = "sigma-0.03"  # the arm that the others change one thing of


@cache
def _arms(profile: str) -> dict[str, list[dict[str, Any]]]:
    arms: dict[str, list[dict[str, Any]]] = {}
    for record in results.load("recipe", results.ARCHIVE / profile):
        if record["metrics"].keys() >= {"left_at_step", "steps"}:
            arms.setdefault(record["arm"], []).append(record["metrics"])
    return arms


def cite(arm: str) -> str:
    """What the archive has of an arm, in a sentence; empty where it has nothing."""
    for profile in PROFILES:
        arms = _arms(profile)
        if arm in arms:
            said = f"Archive, recipe, {profile}: {_trained(arms[arm])} with this change"
            if arm != BASELINE and BASELINE in arms:
                said += f", {_trained(arms[BASELINE])} without"
            return f"{said}."
    return ""


def _trained(runs: list[dict[str, Any]]) -> str:
    left = sum(run["left_at_step"] is not None for run in runs)
    steps = max(run["steps"] for run in runs)
    return f"{left} of {len(runs)} runs leave chance within {steps:,} steps"
