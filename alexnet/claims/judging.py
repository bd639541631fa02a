"""Verdicts on claims.

Arithmetic is judged by `alexnet.arithmetic`, always and exactly; everything else by results, the
archive's or the user's own, paired over seeds.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet import arithmetic, experiments, profiles, results
from alexnet.claims.entries import SEED, UNITS, Claim, Unit, contents, load
from alexnet.claims.statistics import mean_interval


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict and what it rests on; numbers are in the claim's unit.

    Args:
        verdict: One of VERDICTS.
        shown: The number as a reader sees it, with its interval, unit and count of seeds.
        half: Half the width of the 95 % interval; None where there is none.
        undecided: A "not reproduced" whose numbers speak neither for the claim nor against it.
    """

    claim: Claim
    verdict: str
    shown: str = ""
    values: tuple[float, ...] = ()
    mean: float | None = None
    half: float | None = None
    undecided: bool = False
    why: str = ""
    profile: str = ""
    data: str = ""

    @property
    def on(self) -> str:
        """What it was judged on: "exact", or the data's name."""
        return "exact" if self.claim.kind == "arithmetic" else self.data


FORMULAS: dict[str, Callable[..., float]] = {
    "value": float,
    "difference": operator.sub,
    "ratio": operator.truediv,
    "gap": lambda first, second: abs(first - second),
}


class Missing(Exception):
    """A result does not hold what a claim asks for."""


def judge_all(profile: str | None = None, own: bool = False) -> list[Judgement]:
    """Judge all claims, in the paper's order.

    Args:
        profile: Judge by that one's results; None: each claim by those of the largest profile that
            has run its experiment.
        own: Judge by the user's results, not by the archive.

    Raises:
        InputError: The profile is unknown, or a result is damaged.
    """
    if profile:
        profiles.load(profile)
    names = (
        [profile] if profile else list(dict.fromkeys([*contents()["profiles"], *profiles.names()]))
    )
    return [_judge_by_first(claim, names, own) for claim in load()]


def _judge_by_first(claim: Claim, names: list[str], own: bool) -> Judgement:
    """Judge by the first profile that has the claim's numbers."""
    first = judge(claim)
    for name in names if claim.kind == "experiment" else ():
        if name in claim.test.get("only_on", names):
            folder = results.runs(name) / "results" if own else results.ARCHIVE / name
            judgement = judge(claim, experiments.load(claim.test["experiment"], folder))
            if judgement.verdict != "not yet run":
                return judgement
            first = first if first.why else judgement
    return first


def judge(claim: Claim, result: dict[str, Any] | None = None) -> Judgement:
    """Judge one claim.

    Args:
        claim: The claim.
        result: That of its experiment on some profile; None: it has not been run. Arithmetic
            claims need none.
    """
    if claim.kind == "arithmetic":
        return _judge_arithmetic(claim)
    if result is None:
        return Judgement(claim, "not yet run")
    data, machine = result["data"]["title"], result.get("provenance", {}).get("hardware", {})
    if claim.test.get("label") == "hardware":
        data = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"
    about = {"profile": result["profile"], "data": data}
    seeded = any(SEED in path for path in claim.paths)
    try:
        values, bound = measure(claim, result["metrics"], seeded)
    except Missing as lack:
        why = f"{result['experiment']} on {data} has no {lack}"
        return Judgement(claim, "not yet run", why=why, **about)
    mean, half = mean_interval(values) if seeded else (values[0], 0.0)
    verdict, undecided, why = decide(claim, mean, half, bound)
    counts = claim.form == "arrives"
    # the interval of bounds, or of what is counted, says nothing
    width = half if seeded and math.isfinite(half) and bound == 0 and not counts else None
    shown = _shown(UNITS[claim.unit], mean, width, bound)
    if counts:
        shown = f"{sum(values):.0f} of {len(values)} seeds"
    elif seeded:
        shown += f", {len(values)} seed{'s' * (len(values) > 1)}"
    return Judgement(claim, verdict, shown, values, mean, width, undecided, why, **about)


def _shown(unit: Unit, mean: float, half: float | None, bound: int | None) -> str:
    """A number with its interval; that of a bound is rounded to the side on which it holds."""
    if bound is None:
        return "beyond the budget"
    if bound:
        digits = 10 ** len(unit.show(mean).partition(".")[2])
        mean = (math.floor if bound > 0 else math.ceil)(mean * digits) / digits
    prefix = {0: "", 1: "more than ", -1: "less than "}[bound]
    width = "" if half is None else f" ± {unit.show(half).lstrip('+')}"
    return f"{prefix}{unit.show(mean)}{width}{unit.word}"


def measure(
    claim: Claim, metrics: dict[str, Any], seeded: bool
) -> tuple[tuple[float, ...], int | None]:
    """A claim's quantity out of its experiment's metrics.

    Returns:
        Its values, seed by seed where they belong to seeds, in its unit; and whether they are exact
        (0), least (1) or greatest (-1) ones, or both (None).

    Raises:
        Missing: The metrics have no such numbers.
    """
    branches = [_follow(metrics, path) for path in claim.paths]
    if seeded:  # what has no seeds of its own goes with each
        every = [seed for branch in branches for seed in branch if seed]
        branches = [
            dict.fromkeys(every, branch[""]) if "" in branch else branch for branch in branches
        ]
    seeds = [seed for seed in branches[0] if all(seed in other for other in branches[1:])]
    if not seeds:
        raise Missing("seed in common")
    if claim.form == "arrives":
        return tuple(float(branches[0][seed] is not None) for seed in seeds), 0
    limit = _follow(metrics, claim.test["limit"])[""] if "limit" in claim.test else None
    values: list[float] = []
    bounds: set[int | None] = set()
    for seed in seeds:
        numbers = [branch[seed] for branch in branches]
        never = [number is None for number in numbers]
        bounds.add(None if never == [True, True] else never[0] - (never[1:] == [True]))
        numbers = [limit if number is None else number for number in numbers]
        if not all(isinstance(number, int | float) for number in numbers):
            raise Missing(f"number for seed {seed}" if seed else "number there")
        values.append(UNITS[claim.unit].scale * FORMULAS[claim.form](*numbers))
    # exact values count as bounds of either kind; bounds of both kinds say nothing together
    kinds = bounds - {0}
    bound = kinds.pop() if len(kinds) == 1 else None if kinds else 0
    return tuple(values), bound


def _follow(metrics: Any, path: Sequence[Any]) -> dict[str, Any]:
    """What lies at the end of a path, by seed; without a seed in the path, under ""."""
    for i, step in enumerate(path):
        if step == SEED and isinstance(metrics, dict):
            return {seed: _follow(below, path[i + 1 :])[""] for seed, below in metrics.items()}
        if isinstance(metrics, list) and isinstance(step, int) and step < len(metrics):
            metrics = metrics[step]
        elif isinstance(metrics, dict) and str(step) in metrics:
            metrics = metrics[str(step)]
        else:
            raise Missing(" > ".join(str(one) for one in path[: i + 1]))
    return {"": metrics}


def decide(claim: Claim, mean: float, half: float, bound: int | None) -> tuple[str, bool, str]:
    """The verdict, whether it is undecided, and why.

    With an `against` (the value of no effect) the interval must exclude it; then the claim is
    reproduced if the mean lies in the band, and has the same direction if not.

    Args:
        claim: The claim.
        mean, half: The interval, in the claim's unit.
        bound: As of `measure`.
    """
    if bound is None:
        return "not reproduced", True, "undecided: seeds did not arrive within the budget"
    low, high = claim.band
    holds = bound == 0 or math.isinf(high if bound > 0 else low)
    inside = low <= mean <= high and holds
    if "against" not in claim.agree:
        return "reproduced" if inside else "not reproduced", False, ""
    against = claim.agree["against"]
    above = mean - half > against and bound >= 0
    below = mean + half < against and bound <= 0
    same_side, other_side = (above, below) if low >= against else (below, above)
    if same_side:
        return "reproduced" if inside else "same direction", False, ""
    if other_side:
        return "not reproduced", False, f"the interval lies on the other side of {against}"
    why = "one seed has no interval" if math.isinf(half) else f"the interval holds {against}"
    return "not reproduced", True, f"undecided: {why}"


def _judge_arithmetic(claim: Claim) -> Judgement:
    value, shown = compute(claim.test, claim.unit)
    if "equals" in claim.agree:
        agrees = value == claim.agree["equals"]
    else:
        low, high = claim.band
        agrees = all(low <= one <= high for one in (value if isinstance(value, list) else [value]))
    verdict = "reproduced" if agrees else "paper's slip" if claim.slip else "not reproduced"
    mean = float(value) if isinstance(value, int | float) else None
    return Judgement(claim, verdict, shown, mean=mean, why="" if agrees else claim.slip)


def compute(step: dict[str, Any], unit: str = "") -> tuple[Any, str]:
    """The value of a named function of `alexnet.arithmetic`, in its unit, and as shown."""
    form = UNITS[unit]
    value = getattr(arithmetic, step["compute"])(**step.get("with", {}))
    value = value if form.scale == 1 else value * form.scale
    values = value if isinstance(value, list) else [value]
    shown = ", ".join(one if isinstance(one, str) else form.show(one) for one in values)
    return value, shown + form.word
