"""Claims, results and plans made by hand, for the tests of claims."""

from alexnet import claims
from alexnet.claims.judging import Evidence, candidate, judge_family
from alexnet.claims.plans import Plan

PATH = ["nets", "ARM", "*", "top1"]


def entry(**fields):
    """An entry of claims.yml: leaving something out costs a point."""
    test = {"experiment": "ablations", "form": "difference", "arm": "without", "against": "with"}
    made = {"id": "made-up", "section": "3.3", "claim": "It costs a point.", "paper": "1 point"}
    made |= {"unit": "points", "test": test | {"path": PATH}, "sign": "+", "size": 1.0}
    return made | {"margin": 0.5, "seeds": 3, "decides": ["cifar10", "tiny-imagenet"]} | fields


def parsed(**fields):
    return claims.parse(entry(**fields), claims.contents()["sections"])


def parsed_test(unit="times", margin=1.2, **test):
    """A claim with another test."""
    return parsed(test={"experiment": "ablations", **test}, unit=unit, margin=margin)


def result(metrics, **more):
    about = {"experiment": "ablations", "profile": "cifar10", "data": {"title": "made up"}}
    return about | {"metrics": metrics} | more


def by_seed(values):
    return {str(i): value for i, value in enumerate(values)}


def errors(without, base):
    """Metrics of two arms."""
    arms = {"without": without, "with": base}
    return {"nets": {a: {s: {"top1": v} for s, v in by_seed(vs).items()} for a, vs in arms.items()}}


def evidence(metrics, plan=None, digests=("d",), **more):
    """A result whose entries ran under plans of these digests."""
    about = {"provenance": {"commit": "c", "hardware": {"processor": "slow"}}}
    records = [{"arm": "without", "seed": i, "plan": one} | about for i, one in enumerate(digests)]
    part = None if plan is None else Plan(plan, "d")
    return Evidence(result(metrics, **more), records, part, "results/cifar10/ablations")


def plan(seeds=3, **margins):
    """A plan's part that decides claims, each with its margin."""
    return {"seeds": seeds, "claims": {name.replace("_", "-"): m for name, m in margins.items()}}


def judged(without, base=(0.40, 0.41, 0.39, 0.40, 0.40), margin=0.5, given=None, **fields):
    """A planned claim's judgement."""
    given = given or evidence(errors(without, base), plan(made_up=margin))
    return judge_family([candidate(parsed(**fields), given)])[0]
