"""Every verdict of an experiment, derived again from the results: by SciPy and by the rules as
`alexnet.claims.judging` states them in words, and by none of its code."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from alexnet import claims, experiments, results
from alexnet.claims import plans
from alexnet.keys import key

ROOT = Path(__file__).resolve().parents[1]
FILE = yaml.safe_load((ROOT / "alexnet/claims/claims.yml").read_text())
SCALE = {"points": 100, "percent": 100, "times": 1, "seeds": 1}


def at(metrics, path, arm=None):
    """What lies at the end of a path: {seed: number}, or {None: number}."""
    if not path:
        return {None: metrics}
    step, rest = path[0], path[1:]
    if step == "*":
        return {seed: at(below, rest, arm)[None] for seed, below in metrics.items()}
    names = step if isinstance(step, list) else [arm if step == "ARM" else step]
    here = next(
        metrics[str(name)] for name in names if metrics.get(str(name)) is not None or rest == []
    )
    return at(here, rest, arm)


def survival(first, second):
    """The p-value of a log-rank test over all permutations, by SciPy's statistic; and which arm is
    later."""
    every, n = [*first, *second], len(first)

    def statistic(own):
        arms = [[every[i] for i in own], [every[i] for i in range(len(every)) if i not in own]]
        data = [
            stats.CensoredData([t for t, e in arm if e], right=[t for t, e in arm if not e])
            for arm in arms
        ]
        return stats.logrank(*data).statistic

    if not any(event for _, event in every):
        return 1.0, 0
    z = statistic(range(n))
    others = [statistic(own) for own in itertools.combinations(range(len(every)), n)]
    return float(np.mean([abs(o) >= abs(z) - 1e-9 for o in others])), -int(np.sign(z))


def measured(claim, metrics, margin):
    """Seeds, the side, the p-value of no effect and that of lying inside the margin."""
    test, scale = claim["test"], SCALE[claim["unit"]]
    form, path = test["form"], test["path"]
    if form == "share":
        found = at(metrics, path)
        hits, n = sum(v is not None for v in found.values()), len(found)
        return n, int(np.sign(2 * hits - n)), stats.binomtest(hits, n).pvalue, 1.0
    if form == "estimate":
        found = at(metrics, path)[None]
        value, low, high = (
            found if isinstance(found, list) else (found, *at(metrics, test["interval"])[None])
        )
        error = scale * (high - low) / 2 / stats.norm.ppf(0.975)
        return 1, *sides(claim, scale * value, error, np.inf, margin)
    if form == "value":
        first, second = at(metrics, path), None
    else:
        first, second = (at(metrics, path, test[arm]) for arm in ("arm", "against"))
    if form == "times":
        limits = [at(metrics, test["limit"], test[arm]) for arm in ("arm", "against")]
        full = [
            [
                (limit.get(s, limit.get(None)) if v is None else v, v is not None)
                for s, v in arm.items()
            ]
            for arm, limit in zip((first, second), limits)
        ]
        p, side = survival(*full)
        if not all(event for arm in full for _, event in arm):
            return min(map(len, full)), side, p, 1.0
        _, _, inside = of_arms(claim, *([math.log(t) for t, _ in arm] for arm in full), margin)
        return min(map(len, full)), side, p, inside
    values = [scale * v for v in first.values()]
    if form == "value":
        return len(values), *of_runs(claim, values, margin)
    if None in second or test.get("paired"):
        pairs = [(v, second.get(s, second.get(None))) for s, v in first.items()]
        return len(pairs), *of_runs(claim, [scale * (a - b) for a, b in pairs], margin)
    others = [scale * v for v in second.values()]
    if form == "ratio":
        values, others = (np.log(one).tolist() for one in (values, others))
    return min(len(values), len(others)), *of_arms(claim, values, others, margin)


def of_runs(claim, values, margin):
    if len(values) < 2:
        return 0, 1.0, 1.0
    return sides(claim, np.mean(values), stats.sem(values), len(values) - 1, margin)


def of_arms(claim, first, second, margin):
    if min(len(first), len(second)) < 2:
        return 0, 1.0, 1.0
    found = stats.ttest_ind(first, second, equal_var=False)
    value = np.mean(first) - np.mean(second)
    error = np.hypot(stats.sem(first), stats.sem(second))
    return sides(claim, value, error, found.df, margin)


def sides(claim, value, error, df, margin):
    middle = claim["size"] if claim["sign"] == "=" else 0
    half = math.log(margin) if claim["test"]["form"] in ("ratio", "times") else margin
    low, high = middle - half, middle + half
    inside = min(
        1.0, 2 * max(stats.t.sf((value - low) / error, df), stats.t.sf((high - value) / error, df))
    )
    if claim["sign"] != "=":
        return int(np.sign(value)), 2 * stats.t.sf(abs(value) / error, df), inside
    side = int(value > high) - int(value < low)
    end = high if side > 0 else low
    return side, 2 * stats.t.sf(abs(value - end) / error, df) if side else 1.0, inside


def holm(ps, size):
    order, largest, adjusted = np.argsort(ps), 0.0, [0.0] * len(ps)
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (size - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted


def plan_of(profile, experiment):
    path = plans.FOLDER / f"{profile}.yml"
    return yaml.safe_load(path.read_text()).get(experiment) if path.exists() else None


def digests_of(claim, records):
    steps = [step for step in claim["test"]["path"] if not isinstance(step, list)]
    names = {str(step) for step in steps} | {claim["test"].get("arm"), claim["test"].get("against")}
    own = [record for record in records if record["arm"] in names] or records
    return {record.get("plan") for record in own}


def derived():
    """{claim's id: verdict} of all that experiments may judge."""
    verdicts, families = {}, {}
    for claim in FILE["claims"]:
        if "compute" in claim.get("test", {}):
            continue
        verdicts[claim["id"]] = "not testable here" if claim.get("needs") else "not yet run"
        found = []
        for profile in FILE["profiles"]:
            if profile not in claim.get("decides", []):
                continue
            name = claim["test"]["experiment"]
            if (result := experiments.archived(name, profile)) is None:
                continue
            part = plan_of(profile, name)
            named = part is not None and claim["id"] in part["claims"]
            margin = part["claims"][claim["id"]] if named else claim.get("margin")
            try:
                tests = measured(claim, result["metrics"], margin)
            except (KeyError, AttributeError, StopIteration):
                continue
            known = digests_of(claim, results.load(name, results.ARCHIVE / profile))
            planned = named and None not in known
            found.append((not planned, FILE["profiles"].index(profile), name, profile, tests))
        if found:
            exploratory, _, name, profile, tests = min(found, key=lambda one: one[:2])
            families.setdefault((name, profile, exploratory), []).append((claim, tests))
    for (name, profile, exploratory), members in families.items():
        part = None if exploratory else plan_of(profile, name)
        size = max(len(members), len(part["claims"])) if part else len(members)
        apart = holm([tests[2] for _, tests in members], size)
        within = holm([tests[3] for _, tests in members], size)
        for (claim, (seeds, side, *_)), p, inside in zip(members, apart, within):
            verdict = "inconclusive"
            if exploratory or seeds < claim["seeds"]:
                pass
            elif claim["sign"] == "=":
                verdict = "supported" if inside < 0.05 else "contradicted" if p < 0.05 else verdict
            elif inside < 0.05:
                verdict = "contradicted"
            elif p < 0.05 and side:
                verdict = "supported" if (side > 0) == (claim["sign"] == "+") else "contradicted"
            verdicts[claim["id"]] = verdict
    return verdicts


def judged():
    return {
        one.claim.id: one.verdict
        for one in claims.judge_all()
        if one.claim.scoreboard == "experiments"
    }


def test_every_verdict_follows_from_the_results_again():
    assert judged() == derived()


@pytest.mark.parametrize("seed", range(3))
def test_and_would_follow_if_the_archived_runs_had_been_planned(seed, tmp_path, monkeypatch):
    """The pictographs' archive, as if it were of photographs and planned, with margins of any
    size: so that all verdicts come up, whatever the archive holds by now."""
    generator, parts = np.random.default_rng(seed), {}
    names = {c["id"]: c for c in FILE["claims"] if "tiny-imagenet-cpu" in c.get("decides", [])}
    for claim in names.values():
        factor = claim["test"]["form"] in ("ratio", "times")
        margin = float(generator.choice([1.05, 1.5, 4] if factor else [0.1, 3, 60]))
        part = {"arms": ["full"], "seeds": 5, "epochs": 1, "stopping": "none", "metric": "top-1"}
        part = parts.setdefault(claim["test"]["experiment"], part | {"claims": {}})
        part["claims"][claim["id"]] = None if claim["test"]["form"] == "share" else margin
    monkeypatch.setattr(plans, "FOLDER", tmp_path)
    for part, arm in ("recipe", "text"), ("table1", "CNN"), ("table2", "1 CNN"):
        parts[part]["arms"] = [arm]
    (tmp_path / "tiny-imagenet-cpu.yml").write_text(yaml.safe_dump(parts))
    for name, part in parts.items():
        for record in results.load(name, ROOT / "results" / "embedded"):
            record |= {"profile": "tiny-imagenet-cpu", "plan": key(part)}
            results.save(record, tmp_path / "archive" / "tiny-imagenet-cpu")
    monkeypatch.setattr(results, "ARCHIVE", tmp_path / "archive")
    again = derived()
    assert judged() == again
    kinds = {again[name] for name in names}
    assert {"supported", "contradicted", "inconclusive"} <= kinds
