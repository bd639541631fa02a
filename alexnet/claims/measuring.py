"""What an experiment's numbers say of a claim, before any verdict: an estimate, a p-value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from alexnet.claims import statistics
from alexnet.claims.entries import SEED, UNITS, Claim, Unit
from alexnet.claims.statistics import Estimate

Branch = dict[str, Any]  # numbers by seed; what has no seeds lies under ""


class Missing(Exception):
    """A result does not hold what a claim asks for."""


@dataclass(frozen=True)
class Measured:
    """A claim's quantity, in the claim's unit.

    Args:
        values: Of each arm, by seed.
        effect: The estimate, of factors between censored times that of their medians; None where
            not even a bound is known.
        interval: Its 95 % interval, of censored times perhaps from 0 or to infinity; None where
            there is none.
        p: Two-sided, of "no effect"; with sign "=", of a number inside the margin.
        p_within: Of the effect lying inside the margin (two one-sided tests); 1 where unknown.
        side: Of "no effect" (with sign "=": of the margin) on which the effect lies: 1, -1, or 0.
        bound: The effect is exact (0), at least (1) or at most (-1) this number.
        seeds: Of the smaller arm.
        estimate: Behind the interval, in logarithms for factors; None for shares and where times
            are censored.
    """

    claim: Claim
    margin: float | None
    values: tuple[Branch, ...]
    effect: float | None
    interval: tuple[float, float] | None
    p: float
    p_within: float
    side: int
    bound: int = 0
    seeds: int = 1
    estimate: Estimate | None = None

    @property
    def size(self) -> str:
        """Whether the interval holds the paper's number; empty where the paper says none."""
        if self.claim.size is None or self.effect is None:
            return ""
        if self.bound:
            return "a bound, inconclusive on size"
        if self.interval is None:
            return ""
        low, high = self.interval
        holds = low <= self.claim.size <= high
        return f"the interval {'holds' if holds else 'excludes'} the paper's number"

    def shown(self) -> str:
        """The effect as a reader sees it, with its interval, unit and number of seeds."""
        unit, claim = UNITS[self.claim.unit], self.claim
        seeds = f"{self.seeds} seed{'s' * (self.seeds > 1)}"
        if claim.form == "share":
            return f"{self.effect:.0f} of {seeds}{self._ends()}"
        if claim.form == "estimate":
            seeds = "bootstrap over images"
        if claim.form == "times" and self.estimate is None:
            seeds = f"medians of {seeds}"
        if self.effect is None:
            return f"beyond the budget{self._ends()}, {seeds}"
        effect = unit.show(self.effect)
        if self.bound:
            effect = _bound(unit, self.effect, self.bound)
        return f"{effect}{self._ends()}{unit.word}, {seeds}"

    def _ends(self) -> str:
        """The interval, as it follows the effect; empty where there is none."""
        unit = UNITS[self.claim.unit]
        if self.interval is None:
            return ""
        low, high = self.interval
        if self.claim.form == "share":
            return f" ({100 * low / self.seeds:.0f} to {100 * high / self.seeds:.0f} %)" * (
                self.seeds > 1
            )
        if self.claim.no_effect != 1:
            return f" ± {unit.show((high - low) / 2).lstrip('+')}"
        if math.isinf(high):
            return f" (at least {unit.show(low)})"
        return (
            f" ({unit.show(low)} to {unit.show(high)})" if low else f" (at most {unit.show(high)})"
        )


def _bound(unit: Unit, value: float, bound: int) -> str:
    """A bound, rounded to the side on which it holds."""
    digits = 10 ** len(unit.show(value).partition(".")[2])
    value = (math.floor if bound > 0 else math.ceil)(round(value * digits, 6)) / digits
    return f"{'more' if bound > 0 else 'less'} than {unit.show(value)}"


def measure(claim: Claim, metrics: dict[str, Any], margin: float | None = None) -> Measured:
    """A claim's quantity out of its experiment's metrics.

    Args:
        claim: One with a test that names an experiment.
        metrics: Of the experiment, as `alexnet.experiments.archived` gives them.
        margin: Of no effect; None: the claim's own.

    Raises:
        Missing: The metrics have no such numbers.
    """
    margin = claim.margin if margin is None else margin
    arms = tuple(_follow(metrics, path) for path in claim.paths)
    if claim.form == "share":
        return _share(claim, *arms)
    if claim.form == "times":
        return _times(claim, margin, metrics, arms)
    arms = tuple({seed: _number(seed, value) for seed, value in arm.items()} for arm in arms)
    if claim.form == "estimate":
        estimate = _over_images(claim, metrics, arms[0])
        return _measured(claim, margin, ({"": estimate.value},), estimate)
    scale = UNITS[claim.unit].scale
    scaled = [{seed: value * scale for seed, value in arm.items()} for arm in arms]
    return _measured(claim, margin, tuple(scaled), _estimate(claim, scaled))


def _measured(
    claim: Claim, margin: float | None, values: tuple[Branch, ...], estimate: Estimate
) -> Measured:
    """With the tests that the claim asks for."""
    assert margin is not None  # which `entries` has checked
    factor = claim.no_effect == 1
    if claim.sign == "=":
        assert claim.size is not None
        low, high = claim.size - margin, claim.size + margin
        side = (estimate.value > high) - (estimate.value < low)
        p = estimate.p(high if side > 0 else low) if side else 1.0
    else:
        high = math.log(margin) if factor else margin
        low = -high
        side, p = (estimate.value > 0) - (estimate.value < 0), estimate.p()
    ends: tuple[float, float] | None = estimate.interval
    effect = estimate.value
    if not math.isfinite(estimate.half):
        ends = None
    if factor:
        effect, ends = math.exp(effect), ends and (math.exp(ends[0]), math.exp(ends[1]))
    within = estimate.p_within(low, high)
    return Measured(
        claim, margin, values, effect, ends, p, within, side, 0, estimate.seeds, estimate
    )


def _estimate(claim: Claim, arms: Sequence[Branch]) -> Estimate:
    if claim.form == "value":
        return statistics.one_sample([*arms[0].values()])
    if claim.form in ("ratio", "times"):
        if min(value for arm in arms for value in arm.values()) <= 0:
            raise Missing("positive numbers there")
        arms = [{seed: math.log(value) for seed, value in arm.items()} for arm in arms]
    first, second = arms
    if "" in second:  # it has no seeds, and goes with each of the other arm
        second = dict.fromkeys(first, second[""])
    elif not claim.test.get("paired"):
        return statistics.welch([*first.values()], [*second.values()])
    if not (seeds := [seed for seed in first if seed in second]):
        raise Missing("seed in common")
    return statistics.paired([first[s] for s in seeds], [second[s] for s in seeds])


def _over_images(claim: Claim, metrics: dict[str, Any], arm: Branch) -> Estimate:
    ends: Any = arm.get("")
    if "interval" in claim.test:
        low_high = _follow(metrics, claim.test["interval"]).get("")
        ends = [ends, *low_high] if isinstance(low_high, list) else None
    if not isinstance(ends, list) or len(ends) != 3:
        raise Missing("interval there")
    scale = UNITS[claim.unit].scale
    return statistics.from_interval(*(scale * end for end in ends))


def _share(claim: Claim, arm: Branch) -> Measured:
    hits, seeds = sum(value is not None for value in arm.values()), len(arm)
    p, ends = statistics.binomial(hits, seeds, claim.no_effect)
    interval = (seeds * ends[0], seeds * ends[1])
    side = (2 * hits > seeds) - (2 * hits < seeds)
    return Measured(claim, None, (arm,), float(hits), interval, p, 1.0, side, 0, seeds)


def _times(
    claim: Claim, margin: float | None, metrics: dict[str, Any], arms: tuple[Branch, ...]
) -> Measured:
    """Steps until something happens, compared by a log-rank test; those that are null are censored
    at their limit. With some censored, the effect is the factor between medians, or a bound on it
    where one of them lies beyond the budget."""
    numbers: list[Branch] = []
    times: list[list[statistics.Time]] = []
    for arm, name in zip(arms, ("arm", "against"), strict=True):
        limits = _limits(claim, metrics, claim.test[name])
        full = {s: limits.get(s, limits.get("")) if v is None else v for s, v in arm.items()}
        numbers.append({seed: _number(seed, value) for seed, value in full.items()})
        times.append([(numbers[-1][seed], value is not None) for seed, value in arm.items()])
    z, p = statistics.log_rank(*times)
    if all(happened for arm in times for _, happened in arm):
        measured = _measured(claim, margin, arms, _estimate(claim, numbers))
        side = measured.side if p < 1 else 0
        return replace(measured, p=p, side=side)
    medians = [statistics.median(arm) for arm in times]
    later, sooner = (one or max(step for step, _ in arm) for one, arm in zip(medians, times))
    bound = (medians[0] is None) - (medians[1] is None)
    effect = later / sooner if medians != [None, None] else None
    ends = statistics.factor_interval(*times)
    interval = ends if ends != (0.0, math.inf) else None
    seeds, side = min(map(len, arms)), (z < 0) - (z > 0)  # below 0: the arm is later
    return Measured(claim, margin, arms, effect, interval, p, 1.0, side, bound, seeds)


def _limits(claim: Claim, metrics: dict[str, Any], arm: str) -> Branch:
    if "limit" not in claim.test:
        return {}
    return _follow(metrics, [arm if step == "ARM" else step for step in claim.test["limit"]])


def _number(seed: str, value: Any) -> Any:
    """A number, or the list of one with its interval.

    Raises:
        Missing: It is none.
    """
    if isinstance(value, int | float | list) and not isinstance(value, bool):
        return value
    raise Missing(f"number for seed {seed}" if seed else "number there")


def _follow(metrics: Any, path: Sequence[Any]) -> Branch:
    """What lies at the end of a path, by seed; without a seed in the path, under ""."""
    for i, step in enumerate(path):
        if step == SEED and isinstance(metrics, dict) and metrics:
            return {seed: _follow(below, path[i + 1 :])[""] for seed, below in metrics.items()}
        names = list(map(str, step)) if isinstance(step, list) else [str(step)]
        found = [name for name in names if isinstance(metrics, dict) and name in metrics]
        metrics = next((metrics[name] for name in found if metrics[name] is not None), None)
        if not found or (metrics is None and i < len(path) - 1):
            way = [" or ".join(one) if isinstance(one, list) else str(one) for one in path[: i + 1]]
            raise Missing(" > ".join(way))
    return {"": metrics}
