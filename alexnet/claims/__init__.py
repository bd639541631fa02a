"""The paper as a list of claims, each judged.

`claims.yml` says what is claimed and what decides it; its head describes the fields. `plans` is
what was fixed before the runs. `measuring` reads an experiment's numbers, `statistics` has the
tests and intervals, `judging` gives the verdicts and states their rules, `reports` is what readers
see.
"""

from alexnet.claims.entries import SCOREBOARDS, VERDICTS, Claim, contents, load, parse
from alexnet.claims.judging import Judgement, judge, judge_all
from alexnet.claims.statistics import bootstrap_interval, mean_interval

__all__ = [
    "SCOREBOARDS",
    "VERDICTS",
    "Claim",
    "Judgement",
    "bootstrap_interval",
    "contents",
    "judge",
    "judge_all",
    "load",
    "mean_interval",
    "parse",
]
