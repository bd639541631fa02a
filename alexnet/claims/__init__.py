"""The paper as a list of claims, each judged.

`claims.yml` says what is claimed, how it is tested and what counts as agreement; its head describes
the fields. `judging` gives the verdicts, `statistics` the intervals, `reports` what readers see.
"""

from alexnet.claims.entries import VERDICTS, Claim, contents, load, parse
from alexnet.claims.judging import Judgement, judge, judge_all
from alexnet.claims.statistics import bootstrap_interval, mean_interval

__all__ = [
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
