"""The entries of `claims.yml`, read and checked."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from alexnet import arithmetic, labnotebook
from alexnet.errors import InputError

FILE = Path(__file__).with_name("claims.yml")
VERDICTS = ("reproduced", "same direction", "not reproduced", "not yet run", "paper's slip")
PAIRED = ("difference", "ratio", "gap")
FORMS = ("value", *PAIRED, "arrives")
SEED = "*"  # in a path: one branch a seed


class Unit(NamedTuple):
    """How a number is shown: multiplied by `scale`, formatted by `form`, followed by `word`.

    Shares count in hundreds, memory in GiB, in the claim's own numbers too.
    """

    form: str = ","
    word: str = ""
    scale: float = 1

    def show(self, value: float) -> str:
        if self.word == " times":
            return format(value, ".2f" if value < 1.95 else ".1f" if value < 100 else ",.0f")
        return format(value, self.form)


UNITS = {
    "": Unit(),
    "points": Unit("+.1f", " points", 100),
    "percent": Unit(".1f", " %", 100),
    "times": Unit(word=" times"),
    "GiB": Unit(".1f", " GiB", 1 / 2**30),
    "bits": Unit(".2f", " bits"),
    "days": Unit(".1f", " days"),
    "files": Unit(",", " files"),
    "TFLOP/s": Unit(".1f", " TFLOP/s"),
    "seeds": Unit(".0%", " of the seeds"),
}


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
    also: Sequence[dict[str, Any]] = ()
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
        """Those of an experiment's test: two where its form compares, else one."""
        given = self.test[self.form]
        return given if self.form in PAIRED else [given]

    @property
    def band(self) -> tuple[float, float]:
        """What counts as agreement, in the claim's unit."""
        if "near" in self.agree:
            middle, half = self.agree["near"], self.agree["within"]
            return middle - half, middle + half
        low, high = self.agree.get("range", (self.agree.get("equals"),) * 2)
        return -math.inf if low is None else low, math.inf if high is None else high

    def agreement(self) -> str:
        """What counts as agreement, in words."""
        if "equals" in self.agree:
            return "agrees if equal"
        low, high = (f"{round(end, 6):,}".removesuffix(".0") for end in self.band)
        what = low if low == high else f"{low} to {high}"
        what = f"at most {high}" if low == "-inf" else f"at least {low}" if high == "inf" else what
        seeded = self.kind == "experiment" and any(SEED in path for path in self.paths)
        if seeded and "against" in self.agree:
            what += f" and the interval excludes {self.agree['against']}"
        return f"agrees if {what}"

    def logged(self) -> str:
        """What the 2012 logs say, with unit; empty where they say nothing."""
        if not self.log:
            return ""
        name, what = self.log.split(".")
        value = labnotebook.derive(name, what)
        return f"{value:+.2f} points" if labnotebook.is_difference(name) else f"{value:.2f} %"

    def log_source(self) -> str:
        return labnotebook.sources(self.log.split(".")[0]) if self.log else ""


@cache
def contents() -> dict[str, Any]:
    """claims.yml: {"sections": {number: title}, "profiles": [largest first], "claims": [...]}."""
    return yaml.safe_load(FILE.read_text())


@cache
def load() -> tuple[Claim, ...]:
    """All claims, in the paper's order.

    Raises:
        InputError: An entry is wrong; the message names the claim and what is wrong with it.
    """
    claims = tuple(parse(entry, contents()["sections"]) for entry in contents()["claims"])
    name, count = Counter(claim.id for claim in claims).most_common(1)[0]
    if count > 1:
        raise InputError(f"{FILE.name}: there are two claims {name!r}; give each an id of its own")
    return claims


def parse(entry: dict[str, Any], sections: Iterable[str]) -> Claim:
    """One entry of the file as a claim. Raises InputError as `load` does."""
    if problem := next(_problems(entry, sections), None):
        raise InputError(f"{FILE.name}: claim {entry.get('id', entry)!r}: {problem}")
    return Claim(**entry)


def _problems(entry: dict[str, Any], sections: Iterable[str]) -> Iterator[str]:
    known = {one.name: one.default is MISSING for one in fields(Claim)}
    for name in entry.keys() - known.keys():
        yield f"there is no field {name!r}; there are {', '.join(sorted(known))}"
    for name in (name for name, needed in known.items() if needed and name not in entry):
        yield f"it lacks {name!r}"
    for kind, allowed in (("section", sections), ("unit", UNITS)):
        if (value := entry.get(kind, "")) not in allowed:
            yield f"there is no {kind} {value!r}; there are {', '.join(filter(None, allowed))}"
    claim = Claim(**entry)
    test, agree = claim.test, claim.agree
    claim.logged()  # raises what is wrong with it
    for step in (test, *claim.also):
        if "compute" in step and not callable(getattr(arithmetic, step["compute"], None)):
            yield f"alexnet.arithmetic has no function {step['compute']!r}"
    if claim.kind == "experiment":
        if sum(form in test for form in FORMS) != 1 or "experiment" not in test:
            yield f"its test needs either compute, or an experiment and one of {', '.join(FORMS)}"
        pair = claim.form in PAIRED
        lists = all(isinstance(path, list) and path.count(SEED) <= 1 for path in claim.paths)
        if len(claim.paths) != 1 + pair or not lists:
            number = "two paths" if pair else "one path"
            yield f"{claim.form} takes {number}, each with one {SEED!r} at most, for the seed"
    kinds = sum(kind in agree for kind in ("equals", "near", "range"))
    if kinds != 1 or ("near" in agree) != ("within" in agree):
        yield "agree needs one of equals, near with within, or range"
    if "against" in agree and claim.band[0] < agree["against"] < claim.band[1]:
        yield f"the band that agrees must lie on one side of {agree['against']}, which is no effect"
