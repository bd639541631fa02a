"""The paper as a list of claims, each judged: claims.yml says what is claimed, how it is tested and what counts as agreement.

Arithmetic claims are reckoned by `alexnet.arithmetic`, always and exactly. The others are judged by results, those of the archive or the
user's own, paired over seeds, with 95 % intervals by Student's t. The head of `claims.yml` describes its fields; a new experiment needs
only an entry there. `alexnet.scoreboard` shows what is found here.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from alexnet import arithmetic, experiments, labnotebook, profiles, results
from alexnet.errors import InputError

FILE = Path(__file__).with_suffix(".yml")
VERDICTS = ("reproduced", "same direction", "not reproduced", "not yet run", "paper's slip")
FORMS = ("value", "difference", "ratio", "gap", "arrives")
SEED = "*"  # in a path: one branch a seed

# How a number is shown; what is measured as a share, times 100, is compared in the unit too.
UNITS: dict[str, tuple[float, Callable[[float], str]]] = {
    "": (1, lambda v: f"{v:,}"),
    "points": (100, lambda v: f"{v:+.1f}"),
    "percent": (100, lambda v: f"{v:.1f}"),
    "times": (1, lambda v: f"{v:.2f}" if v < 1.95 else f"{v:.1f}" if v < 100 else f"{v:,.0f}"),
    "GiB": (1 / 2**30, lambda v: f"{v:.1f}"),
    "bits": (1, lambda v: f"{v:.2f}"),
    "days": (1, lambda v: f"{v:.1f}"),
    "files": (1, lambda v: f"{v:,}"),
    "TFLOP/s": (1, lambda v: f"{v:.1f}"),
    "seeds": (1, lambda v: f"{v:.0%}"),
}
WORDS = {"percent": " %", "points": " points", "times": " times", "seeds": " of the seeds"}


@dataclass(frozen=True)
class Claim:
    """One entry of claims.yml, whose head describes the fields."""

    id: str
    section: str
    claim: str
    paper: str
    test: dict[str, Any]
    agree: dict[str, Any]
    unit: str = ""
    also: tuple[dict[str, Any], ...] = ()
    slip: str = ""
    log: str = ""
    source: str = ""
    note: str = ""
    chapter: str = ""

    @property
    def kind(self) -> str:
        return "arithmetic" if "compute" in self.test else "experiment"

    @property
    def form(self) -> str:
        return next(form for form in FORMS if form in self.test)

    @property
    def paths(self) -> list[list[Any]]:
        """Those of an experiment's test."""
        found = self.test[self.form]
        return found if self.form in ("difference", "ratio", "gap") else [found]

    @property
    def band(self) -> tuple[float, float]:
        """What counts as agreement, in the claim's unit."""
        if "near" in self.agree:
            return self.agree["near"] - self.agree["within"], self.agree["near"] + self.agree[
                "within"
            ]
        low, high = self.agree.get("range", (self.agree.get("equals"),) * 2)
        return -math.inf if low is None else low, math.inf if high is None else high

    def agreement(self) -> str:
        """In words: what counts as agreement."""
        if "equals" in self.agree:
            return "agrees if equal"
        low, high = (
            None if math.isinf(end) else f"{round(end, 6):,}".removesuffix(".0")
            for end in self.band
        )
        what = (
            f"at least {low}"
            if high is None
            else f"at most {high}"
            if low is None
            else low
            if low == high
            else f"{low} to {high}"
        )
        excludes = (
            self.kind == "experiment"
            and "against" in self.agree
            and any(SEED in path for path in self.paths)
        )
        return f"agrees if {what}" + (
            f" and the interval excludes {self.agree['against']}" if excludes else ""
        )

    def logged(self) -> str:
        """What the 2012 logs say, with unit; empty where they say nothing."""
        if not self.log:
            return ""
        name, what = self.log.split(".")
        value = labnotebook.derive(name, what)
        return f"{value:+.2f} points" if labnotebook.is_difference(name) else f"{value:.2f} %"

    def log_source(self) -> str:
        return labnotebook.sources(self.log.split(".")[0]) if self.log else ""


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict, one of VERDICTS, and what it rests on. Numbers are in the claim's unit; half is half the width of the 95 %
    interval, None where there is none. undecided: a "not reproduced" whose numbers speak neither for the claim nor against it."""

    claim: Claim
    verdict: str
    here: str = ""
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


class Missing(Exception):
    """A result does not hold what a claim asks for."""


# --- loading ------------------------------------------------------------------------------------------------------------------------------


@cache
def contents() -> dict[str, Any]:
    """claims.yml: {"sections": {number: title}, "profiles": [largest first], "claims": [...]}."""
    return yaml.safe_load(FILE.read_text())


@cache
def load() -> tuple[Claim, ...]:
    """All claims, in the paper's order. Raises InputError that names the claim and what is wrong with it."""
    claims = tuple(parse(entry, contents()["sections"]) for entry in contents()["claims"])
    twice = [name for name, count in Counter(claim.id for claim in claims).items() if count > 1]
    if twice:
        raise InputError(
            f"{FILE.name}: there are two claims {twice[0]!r}; give each an id of its own"
        )
    return claims


def parse(entry: dict[str, Any], sections: Iterable[str]) -> Claim:
    def wrong(what: str) -> InputError:
        return InputError(f"{FILE.name}: claim {entry.get('id', entry)!r}: {what}")

    known = {one.name for one in fields(Claim)}
    needed = {"id", "section", "claim", "paper", "test", "agree"}
    if surplus := entry.keys() - known:
        raise wrong(f"there is no field {min(surplus)!r}; there are {', '.join(sorted(known))}")
    if lacking := needed - entry.keys():
        raise wrong(f"it lacks {min(lacking)!r}")
    if entry["section"] not in sections:
        raise wrong(f"there is no section {entry['section']!r}; there are {', '.join(sections)}")
    if entry.get("unit", "") not in UNITS:
        raise wrong(
            f"there is no unit {entry['unit']!r}; there are {', '.join(name for name in UNITS if name)}"
        )
    claim = Claim(**entry | {"also": tuple(entry.get("also", ()))})
    for step in (claim.test, *claim.also):
        if "compute" in step and not callable(getattr(arithmetic, step["compute"], None)):
            raise wrong(f"alexnet.arithmetic has no function {step['compute']!r}")
    if claim.kind == "experiment":
        forms = [form for form in FORMS if form in claim.test]
        if len(forms) != 1 or "experiment" not in claim.test:
            raise wrong(
                f"its test needs either compute, or an experiment and one of {', '.join(FORMS)}"
            )
        pair = claim.form in ("difference", "ratio", "gap")
        if len(claim.paths) != 1 + pair or not all(
            isinstance(path, list) and path.count(SEED) <= 1 for path in claim.paths
        ):
            raise wrong(
                f"{claim.form} takes {'two paths' if pair else 'one path'}, each with one {SEED!r} at most, for the seed"
            )
    if sum(key in claim.agree for key in ("equals", "near", "range")) != 1 or (
        "near" in claim.agree
    ) != ("within" in claim.agree):
        raise wrong("agree needs one of equals, near with within, or range")
    if "against" in claim.agree and not (
        claim.band[0] >= claim.agree["against"] or claim.band[1] <= claim.agree["against"]
    ):
        raise wrong(
            f"what counts as agreement must lie on one side of {claim.agree['against']}, which would mean no effect"
        )
    if claim.log:
        claim.logged()
    return claim


# --- judging ------------------------------------------------------------------------------------------------------------------------------


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % interval by Student's t; infinite for a single value."""
    from scipy import stats  # takes most of a second

    n = len(values)
    if n == 1:
        return values[0], math.inf
    return statistics.mean(values), float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(
        values
    ) / n**0.5


def judge(claim: Claim, result: dict[str, Any] | None = None) -> Judgement:
    """The verdict on a claim. result: that of its experiment on some profile, None: not yet run; arithmetic claims need none."""
    if claim.kind == "arithmetic":
        return _judge_arithmetic(claim)
    if result is None:
        return Judgement(claim, "not yet run")
    about = {
        "profile": result["profile"],
        "data": _hardware(result)
        if claim.test.get("label") == "hardware"
        else result["data"]["title"],
    }
    try:
        values, bound, seeded = measured(claim, result["metrics"])
    except Missing as lack:
        return Judgement(
            claim, "not yet run", why=f"{result['experiment']} on {about['data']} has no {lack}"
        )
    mean, half = interval(values) if seeded else (values[0], 0.0)
    verdict, undecided, why = decide(claim, mean, half, bound)
    least = {1: "more than ", -1: "less than "}.get(bound or 0, "")
    show, word = UNITS[claim.unit][1], WORDS.get(claim.unit, f" {claim.unit}".rstrip())
    # the interval of bounds, or of what is counted, says nothing
    spread = (
        half if seeded and math.isfinite(half) and bound == 0 and claim.form != "arrives" else None
    )
    width = "" if spread is None else f" ± {show(spread).lstrip('+')}"
    seeds = f", {len(values)} seed{'s' * (len(values) > 1)}" if seeded else ""
    here = (
        f"{least}{_holding(show, mean, bound or 0)}{width}{word}{seeds}"
        if bound is not None
        else f"beyond the budget{seeds}"
    )
    if claim.form == "arrives":
        here = f"{sum(values):.0f} of {len(values)} seeds"
    return Judgement(claim, verdict, here, tuple(values), mean, spread, undecided, why, **about)


def _holding(show: Callable[[float], str], value: float, bound: int) -> str:
    """A number as shown; that of a bound is rounded to the side on which it holds."""
    if bound == 0:
        return show(value)
    digits = 10 ** len(show(value).partition(".")[2])
    return show((math.floor if bound > 0 else math.ceil)(value * digits) / digits)


def _hardware(result: dict[str, Any]) -> str:
    """What a time was measured on."""
    found = result["provenance"]["hardware"]
    return found["gpu"] or f"{found['processor']}, {found['cores']} cores"


def measured(claim: Claim, metrics: dict[str, Any]) -> tuple[list[float], int | None, bool]:
    """The claim's quantity, seed by seed, in its unit; whether these are exact (0), least (1) or greatest (-1) values, or both (None); and
    whether they belong to seeds at all. Raises Missing where the result has no such numbers."""
    branches = [_follow(metrics, path) for path in claim.paths]
    seeded = any(SEED in path for path in claim.paths)
    if seeded:  # what has no seeds of its own goes with each
        every = {seed for branch in branches for seed in branch if seed}
        branches = [
            branch if "" not in branch else dict.fromkeys(every, branch[""]) for branch in branches
        ]
    seeds = [seed for seed in branches[0] if all(seed in other for other in branches[1:])]
    if not seeds:
        raise Missing("seed in common")
    if claim.form == "arrives":
        return [float(branches[0][seed] is not None) for seed in seeds], 0, seeded
    limit = _follow(metrics, claim.test["limit"])[""] if "limit" in claim.test else None
    values: list[float] = []
    bounds: set[int | None] = set()
    for seed in seeds:
        pair = [branch[seed] for branch in branches]
        never = [one is None for one in pair]
        bounds.add(
            None if len(never) > 1 and all(never) else never[0] - (len(never) > 1 and never[1])
        )
        pair = [limit if one is None else one for one in pair]
        if not all(isinstance(one, int | float) for one in pair):
            raise Missing(f"number for seed {seed}" if seed else "number there")
        values.append(UNITS[claim.unit][0] * _combine(claim.form, *pair))
    return values, _together(bounds), seeded


def _combine(form: str, one: float, other: float = math.nan) -> float:
    match form:
        case "difference":
            return one - other
        case "ratio":
            return one / other
        case "gap":
            return abs(one - other)
    return float(one)


def _together(bounds: set[int | None]) -> int | None:
    """Exact values count as bounds of either kind; bounds of both kinds say nothing together."""
    kinds = bounds - {0}
    return kinds.pop() if len(kinds) == 1 else None if kinds else 0


def _follow(metrics: Any, path: Sequence[Any]) -> dict[str, Any]:
    """What lies at the end of a path, by seed; without a seed in the path, under ""."""
    for i, key in enumerate(path):
        if key == SEED and isinstance(metrics, dict):
            return {seed: _follow(below, path[i + 1 :])[""] for seed, below in metrics.items()}
        if isinstance(metrics, list) and isinstance(key, int) and key < len(metrics):
            metrics = metrics[key]
        elif isinstance(metrics, dict) and str(key) in metrics:
            metrics = metrics[str(key)]
        else:
            raise Missing(" > ".join(str(one) for one in path[: i + 1]))
    return {"": metrics}


def decide(claim: Claim, mean: float, half: float, bound: int | None) -> tuple[str, bool, str]:
    """Verdict, whether it is undecided, and why.

    With an `against` (the value of no effect) the interval must exclude it; then the claim is reproduced if the mean lies in the band, and
    has the same direction if not. bound as in `measured`.
    """
    low, high = claim.band
    if bound is None:
        return "not reproduced", True, "undecided: seeds did not arrive within the budget"
    inside = low <= mean <= high and (
        bound == 0 or (math.isinf(high) if bound > 0 else math.isinf(low))
    )
    if "against" not in claim.agree:
        return "reproduced" if inside else "not reproduced", False, ""
    against = claim.agree["against"]
    above, below = mean - half > against and bound >= 0, mean + half < against and bound <= 0
    wanted, other = (above, below) if low >= against else (below, above)
    if wanted:
        return "reproduced" if inside else "same direction", False, ""
    if other:
        return "not reproduced", False, f"the interval lies on the other side of {against}"
    return (
        "not reproduced",
        True,
        "undecided: "
        + ("one seed has no interval" if math.isinf(half) else f"the interval holds {against}"),
    )


def _judge_arithmetic(claim: Claim) -> Judgement:
    value, here = reckon(claim.test, claim.unit)
    numbers = value if isinstance(value, list) else [value]
    low, high = (claim.agree["equals"],) * 2 if "equals" in claim.agree else claim.band
    agrees = (
        value == low
        if "equals" in claim.agree
        else all(low <= number <= high for number in numbers)
    )
    verdict = "reproduced" if agrees else "paper's slip" if claim.slip else "not reproduced"
    mean = float(value) if isinstance(value, int | float) else None
    return Judgement(claim, verdict, here, mean=mean, why="" if agrees else claim.slip)


def reckon(step: dict[str, Any], unit: str = "") -> tuple[Any, str]:
    """The value of a named function of `alexnet.arithmetic`, in its unit, and as shown."""
    scale, show = UNITS[unit]
    value = getattr(arithmetic, step["compute"])(**step.get("with", {}))
    if scale != 1:
        value = value * scale
    one = value if isinstance(value, list) else [value]
    return value, ", ".join(v if isinstance(v, str) else show(v) for v in one) + WORDS.get(
        unit, f" {unit}".rstrip()
    )


def judge_all(profile: str | None = None, own: bool = False) -> list[Judgement]:
    """All claims, in the paper's order. profile: judged on that one's results; None: each claim on the largest profile that has run its
    experiment. own: by the user's results, not by the archive. Raises InputError for an unknown profile or a damaged result."""
    if profile:
        profiles.load(profile)
    order = contents()["profiles"]
    wanted = (
        [profile]
        if profile
        else [*order, *(name for name in profiles.names() if name not in order)]
    )
    return [_best(claim, wanted, own) for claim in load()]


def _best(claim: Claim, wanted: list[str], own: bool) -> Judgement:
    """On the first profile that has the claim's numbers."""
    first = judge(claim)
    if claim.kind == "arithmetic":
        return first
    for name in wanted:
        if name not in claim.test.get("only_on", wanted):
            continue
        folder = results.runs(name) / "results" if own else results.ARCHIVE / name
        found = judge(claim, experiments.load(claim.test["experiment"], folder))
        if found.verdict != "not yet run":
            return found
        first = first if first.why else found
    return first
