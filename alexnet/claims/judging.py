"""Verdicts on claims, on two scoreboards that are never added up.

Arithmetic and records are judged by `alexnet.arithmetic`, always: *exact*, or a *slip* where the
paper contradicts its own sizes or its authors' records. Experiments are judged by results, the
archive's or the user's own. A claim is about the sign of a difference; its size is shown beside the
paper's, and is judged on the paper's own data only (sign "=").

The claims of one experiment on one profile are a family: p-values are adjusted over it by Holm's
method, in one go for differences and in another for equivalences, each at a level of 5 %.

1. *contradicted*, if the effect lies inside the margin that was declared to mean "no effect" (two
   one-sided tests at 2.5 % each: the 95 % interval lies inside), even with the claimed sign;
2. else *supported* or *contradicted*, by the side on which it lies, if "no effect" is excluded
   (steps that a budget may cut off: by a log-rank test over permutations, whose inversion gives
   the interval where some are cut off);
3. else *inconclusive*, with what it would take: seeds for an effect of the margin's size, and the
   smallest effect that these seeds could have shown with a power of 80 %.

Where the claim is the paper's number itself (sign "="), *supported* is inside the margin, and
*contradicted* outside it. A bound judges the side only, never the size, and no equivalence.

Which result. Of the profiles that may decide a claim (`decides`), the first whose runs were planned
decides, whatever comes out there. Runs were planned if each of them keeps the digest of a plan
(`alexnet.claims.plans`) that was committed before it and that names the claim. If the committed
plan is another by now, the verdict says so. All other runs are exploratory: they show an effect,
but their verdict is *inconclusive*, because seeds, budget and margin may have been chosen after
looking. Fewer seeds than the claim asks for decide nothing either. Pictographs (profile `embedded`)
and other profiles that a claim does not name demonstrate: it stays *not yet run*.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from alexnet import arithmetic, experiments, profiles, results
from alexnet.claims import plans, statistics
from alexnet.claims.entries import ARITHMETIC, UNITS, Claim, contents, load
from alexnet.claims.measuring import Measured, Missing, measure
from alexnet.claims.plans import Plan
from alexnet.claims.statistics import LEVEL

NO_ARCHIVE = "archive missing"  # in the place of a verdict
PLANNED, CHANGED, EXPLORATORY, DEMONSTRATION = (
    "planned",
    "planned; the plan changed after the runs",
    "exploratory",
    "demonstration",
)


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict and what it rests on; numbers are in the claim's unit.

    Args:
        verdict: One of VERDICTS of its scoreboard, or NO_ARCHIVE.
        shown: The number as a reader sees it, with its interval, unit and number of seeds.
        why: What the verdict rests on, or what it would take.
        measured: The effect, its interval and tests; None for arithmetic and what is not run.
        adjusted: The p-value of "no effect" after Holm's correction.
        smallest: The smallest effect that these seeds could have shown; infinite for one seed.
        needed: Seeds an arm with which an effect of the margin's size would show.
        status: Of the runs: PLANNED, CHANGED, EXPLORATORY or DEMONSTRATION.
        plan: The digest of the committed plan.
        provenance: Of the runs: folder, entries, commits, processors.
    """

    claim: Claim
    verdict: str
    shown: str = ""
    why: str = ""
    measured: Measured | None = None
    adjusted: float | None = None
    smallest: float | None = None
    needed: int | None = None
    profile: str = ""
    data: str = ""
    status: str = ""
    plan: str | None = None
    provenance: dict[str, Any] | None = None

    @property
    def on(self) -> str:
        """What it was judged on: "arithmetic", or the data's name."""
        return "arithmetic" if self.claim.scoreboard == ARITHMETIC else self.data


class Evidence(NamedTuple):
    """A result of an experiment on a profile, and the entries that it was assembled from."""

    result: dict[str, Any]
    records: Sequence[results.Record]
    plan: Plan | None = None
    folder: str = ""


class Candidate(NamedTuple):
    """What one profile's runs say of a claim."""

    measured: Measured
    evidence: Evidence
    status: str


def judge_all(profile: str | None = None, own: bool = False) -> list[Judgement]:
    """Judge all claims, in the paper's order.

    Args:
        profile: Judge by that one's results; None: by those that decide each claim.
        own: Judge by the user's results, not by the archive.

    Raises:
        InputError: The profile is unknown, or a result or a plan is damaged.
    """
    if profile:
        profiles.load(profile)
    names = [profile] if profile else contents()["profiles"]
    known: dict[tuple[str, str], Evidence | None] = {}
    missing = not own and not results.ARCHIVE.is_dir()
    judged: dict[str, Judgement] = {}
    families: dict[tuple[str, str, bool], list[Candidate]] = {}
    for claim in load():
        if claim.scoreboard == ARITHMETIC or missing:
            judged[claim.id] = _without_results(claim, missing)
            continue
        chosen, why = _choose(claim, names, known, profile is not None, own)
        if chosen is None:
            judged[claim.id] = replace(_without_results(claim), why=why or claim.needs)
        else:
            result = chosen.evidence.result
            planned = chosen.status in (PLANNED, CHANGED)
            family = (result["experiment"], result["profile"], planned)
            families.setdefault(family, []).append(chosen)
    for members in families.values():
        judged |= {one.claim.id: one for one in judge_family(members)}
    return [judged[claim.id] for claim in load()]


def _without_results(claim: Claim, missing: bool = False) -> Judgement:
    if claim.scoreboard == ARITHMETIC:
        return _judge_arithmetic(claim)
    if missing and claim.test:
        return Judgement(claim, NO_ARCHIVE, why=f"there is no {results.ARCHIVE}")
    verdict = "not testable here" if claim.needs else "not yet run"
    return Judgement(claim, verdict, why=f"needs {claim.needs}" if claim.needs else "")


def _choose(
    claim: Claim,
    names: Iterable[str],
    known: dict[tuple[str, str], Evidence | None],
    explicit: bool,
    own: bool,
) -> tuple[Candidate | None, str]:
    """What decides a claim; or why nothing does."""
    found, why = [], f"needs {claim.needs}" if claim.needs else ""
    for name in names if claim.test else ():
        if name in claim.decides or (explicit and not claim.needs):
            key = (claim.test["experiment"], name)
            if key not in known:
                known[key] = evidence(*key, own)
            if (given := known[key]) is not None:
                try:
                    found.append(candidate(claim, given))
                except Missing as lack:
                    why = why or f"{key[0]} on {given.result['data']['title']} has no {lack}"
    planned = (one for one in found if one.status != EXPLORATORY)
    return next(planned, found[0] if found else None), why


def evidence(experiment: str, profile: str, own: bool = False) -> Evidence | None:
    """What the archive (or the user's folder) holds of an experiment; None where it has not been
    run to its end."""
    folder = results.runs(profile) / "results" if own else results.ARCHIVE / profile
    result = experiments.load(experiment, folder)
    if result is None:
        return None
    plan = plans.of_profile(profile).get(experiment)
    place = Path("runs" if own else "results") / profile / experiment
    return Evidence(result, results.load(experiment, folder), plan, place.as_posix())


def candidate(claim: Claim, given: Evidence) -> Candidate:
    """A claim's quantity in an experiment's result, and whether its runs were planned.

    Raises:
        Missing: The result has no such numbers.
    """
    plan, profile = given.plan, given.result["profile"]
    named = plan is not None and claim.id in plan.margins
    margin = plan.margins[claim.id] if plan is not None and named else None
    measured = measure(claim, given.result["metrics"], margin)
    digests = {record.get("plan") for record in relevant(claim, given.records)}
    status = CHANGED
    if profile not in claim.decides:
        status = DEMONSTRATION
    elif plan is None or not named or not digests or None in digests:
        status = EXPLORATORY
    elif digests == {plan.digest}:
        status = PLANNED
    return Candidate(measured, given, status)


def relevant(claim: Claim, records: Sequence[results.Record]) -> list[results.Record]:
    """The entries of the arms that a claim's paths name; all, where they name none.

    Args:
        claim: Its paths.
        records: The entries of its experiment.
    """
    names = {str(step) for path in claim.paths for step in path if not isinstance(step, list)}
    own = [record for record in records if record["arm"] in names]
    return own or list(records)


def judge(claim: Claim, result: dict[str, Any] | None = None) -> Judgement:
    """Judge one claim by itself: arithmetic, or by the result of its experiment on some profile, of
    whose plan nothing is known; None: it has not been run.

    Args:
        claim: An entry of claims.yml.
        result: Of its experiment.
    """
    if claim.scoreboard == ARITHMETIC or result is None:
        return _without_results(claim)
    try:
        return judge_family([candidate(claim, Evidence(result, ()))])[0]
    except Missing as lack:
        why = f"{result['experiment']} on {result['data']['title']} has no {lack}"
        return Judgement(claim, "not yet run", why=why)


def judge_family(members: Sequence[Candidate]) -> list[Judgement]:
    """Judge the claims of one experiment on one profile together.

    Args:
        members: All planned, or none. A plan's family has all claims that the plan names.
    """
    plan = members[0].evidence.plan
    planned = plan is not None and members[0].status in (PLANNED, CHANGED)
    size = max(len(members), len(plan.margins)) if plan is not None and planned else len(members)
    apart = statistics.holm([one.measured.p for one in members], size)
    within = statistics.holm([one.measured.p_within for one in members], size)
    return [
        _judgement(one, p, p_within, LEVEL / size)
        for one, p, p_within in zip(members, apart, within, strict=True)
    ]


def _judgement(one: Candidate, p: float, p_within: float, level: float) -> Judgement:
    measured, (result, records, plan, folder) = one.measured, one.evidence
    verdict, reason = decide(measured, p, p_within)
    smallest, needed = takes(measured, level)
    reasons = [reason]
    if verdict == "inconclusive" or not reason:
        reasons.append(_what_it_takes(measured, smallest, needed))
    if one.status == EXPLORATORY:
        verdict = "inconclusive"
        reasons.insert(0, "exploratory: no plan was fixed before these runs")
    elif one.status == DEMONSTRATION:
        verdict = "not yet run"
        reasons = [f"{result['data']['title']}: a demonstration, which decides nothing"]
    elif one.status == CHANGED:
        reasons.insert(0, "the plan changed after the runs")
    planned = plan.seeds if plan is not None and one.status in (PLANNED, CHANGED) else 0
    if measured.claim.form != "estimate" and measured.seeds < planned:
        reasons.append(f"{measured.seeds} of {planned} planned seeds")
    own = relevant(measured.claim, records)
    return Judgement(
        measured.claim, verdict, measured.shown(), "; ".join(filter(None, reasons)),
        measured, p, smallest, needed, result["profile"], result["data"]["title"],
        one.status, plan.digest if plan else None, _provenance(own, folder),
    )  # fmt: skip


def decide(measured: Measured, p: float, p_within: float) -> tuple[str, str]:
    """The verdict, and its reason where it is not the plain one.

    Args:
        measured: The claim's quantity.
        p, p_within: After correction.
    """
    claim, least = measured.claim, measured.claim.seeds
    if measured.seeds < least:
        return "inconclusive", f"{measured.seeds} of {least} seeds an arm that it asks for"
    if claim.sign == "=":
        verdict = "supported" if p_within < LEVEL else "contradicted" if p < LEVEL else ""
        return verdict or "inconclusive", ""
    if p_within < LEVEL:
        return "contradicted", "inside the margin that means no effect"
    if p < LEVEL and measured.side:
        claimed = measured.side == (1 if claim.sign == "+" else -1)
        return ("supported", "") if claimed else ("contradicted", "the opposite sign")
    return "inconclusive", ""


def takes(measured: Measured, level: float) -> tuple[float | None, int | None]:
    """The smallest effect that these seeds could have shown, and the seeds that an effect of the
    margin's size takes; None where that cannot be said.

    Args:
        measured: The claim's quantity.
        level: Of each test, after correction: that of Holm's first step.
    """
    estimate, margin, claim = measured.estimate, measured.margin, measured.claim
    if claim.form == "share":
        smallest = measured.seeds * statistics.smallest_share(measured.seeds, level)
        return smallest, _fewest(level, lambda seeds: 2**seeds)
    if claim.form == "estimate":
        z = statistics.t_quantile(1 - level / 2, math.inf)
        error = estimate.error if estimate else math.inf
        return error * (z + statistics.t_quantile(statistics.POWER, math.inf)), None
    spread, arms = (estimate.spread, estimate.arms) if estimate else (_spread(measured), 2)
    smallest = statistics.smallest_effect(spread, measured.seeds, arms, level)
    effect = math.log(margin) if margin and claim.no_effect == 1 else margin
    needed = None
    if math.isfinite(spread) and estimate and effect:
        needed = statistics.seeds_needed(effect, spread, arms, level)
    if claim.form == "times":  # which a test over permutations judges
        fewest = _fewest(level, lambda seeds: math.comb(2 * seeds, seeds))
        smallest = smallest if measured.seeds >= fewest else math.inf
        needed = max(needed or 0, fewest)
    if claim.no_effect == 1:
        smallest = math.exp(smallest) if smallest < 700 else math.inf
    return smallest, needed


def _fewest(level: float, ways: Callable[[int], int]) -> int:
    """How many seeds an arm decide if they all agree, which is one of so many `ways`."""
    return next(seeds for seeds in range(1, 1000) if 2 / ways(seeds) < level)


def _spread(measured: Measured) -> float:
    """Of the logarithms of times in an arm without censored ones, the other arm's being unknown;
    infinite without such an arm."""
    arms = [[*arm.values()] for arm in measured.values if None not in arm.values()]
    logs = [[math.log(step) for step in arm] for arm in arms]
    return next((statistics.one_sample(arm).spread for arm in logs), math.inf)


def show_smallest(measured: Measured, smallest: float | None) -> str:
    """The smallest effect that could have shown, with unit; empty where none could."""
    if smallest is None or not math.isfinite(smallest):
        return ""
    if measured.claim.form == "share":
        return f"{100 * smallest / measured.seeds:.0f} % of seeds"
    unit = UNITS[measured.claim.unit]
    return unit.show(smallest).lstrip("+") + unit.word


def _what_it_takes(measured: Measured, smallest: float | None, needed: int | None) -> str:
    unit, claim, parts = UNITS[measured.claim.unit], measured.claim, []
    if shown := show_smallest(measured, smallest):
        what = "these images" if claim.form == "estimate" else f"{measured.seeds} seeds"
        parts.append(f"{what} could have shown {shown}")
    if needed is not None and measured.estimate is None:
        longer = "" if claim.form == "share" else ", or a longer budget"
        parts.append(f"it takes at least {needed} seeds an arm{longer}")
    elif needed is not None and measured.margin is not None:
        shown = unit.show(measured.margin).lstrip("+")
        parts.append(f"the margin's {shown}{unit.word} would take {needed:,} seeds an arm")
    return ", ".join(parts)


def _provenance(records: Sequence[results.Record], folder: str) -> dict[str, Any]:
    about = [record["provenance"] for record in records]
    return {
        "folder": folder,
        "entries": len(records),
        "commits": sorted({str(one.get("commit")) for one in about}),
        "processors": sorted({str(one.get("hardware", {}).get("processor")) for one in about}),
    }


def _judge_arithmetic(claim: Claim) -> Judgement:
    value, shown = compute(claim.test, claim.unit)
    values = value if isinstance(value, list) else [value]
    if "equals" in claim.agree:
        agrees = value == claim.agree["equals"]
    else:
        low, high = claim.band
        agrees = all(low <= one <= high for one in values)
    verdict = "exact" if agrees else "slip"
    return Judgement(claim, verdict, shown, "" if agrees else claim.slip)


def compute(step: dict[str, Any], unit: str = "") -> tuple[Any, str]:
    """The value of a named function of `alexnet.arithmetic`, in its unit, and as shown."""
    form = UNITS[unit]
    value = getattr(arithmetic, step["compute"])(**step.get("with", {}))
    value = value if form.scale == 1 else value * form.scale
    values = value if isinstance(value, list) else [value]
    shown = ", ".join(one if isinstance(one, str) else form.show(one) for one in values)
    return value, shown + form.word
