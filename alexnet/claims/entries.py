"""The entries of `claims.yml`, read and checked."""

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from alexnet import arithmetic, labnotebook
from alexnet.errors import InputError

FILE = Path(__file__).with_name("claims.yml")
ARITHMETIC, EXPERIMENTS = SCOREBOARDS = ("arithmetic and records", "experiments")
VERDICTS = {  # two scoreboards, which are never added up
    ARITHMETIC: ("exact", "slip"),
    EXPERIMENTS: (
        "supported",
        "contradicted",
        "inconclusive",
        "not testable here",
        "not yet run",
    ),
}
PAIRS = ("difference", "ratio", "times")  # forms that compare two arms
FORMS = (*PAIRS, "value", "share", "estimate")
SIGNS = ("+", "-", "=")
ARM, SEED = "ARM", "*"  # in a path: the arm that is compared; one branch a seed
STEPS = ("experiment", "form", "path", "arm", "against", "limit", "paired", "interval")


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
    "TFLOP/s": Unit(".1f", " TFLOP/s"),
    "seeds": Unit(".0f", " seeds"),
}


@dataclass(frozen=True)
class Claim:
    """One entry of claims.yml, whose head describes the fields."""

    id: str
    section: str
    claim: str
    paper: str
    test: dict[str, Any] = field(default_factory=dict)
    agree: dict[str, Any] = field(default_factory=dict)
    unit: str = ""
    sign: str = ""
    size: float | None = None
    margin: float | None = None
    seeds: int = 1
    decides: Sequence[str] = ()
    needs: str = ""
    also: Sequence[dict[str, Any]] = ()
    slip: str = ""
    log: str = ""
    source: str = ""
    note: str = ""
    chapter: str = ""

    @property
    def scoreboard(self) -> str:
        return ARITHMETIC if "compute" in self.test else EXPERIMENTS

    @property
    def form(self) -> str:
        return self.test["form"]

    @property
    def paths(self) -> list[list[Any]]:
        """Of the experiment's numbers: of both arms where two are compared, else one."""
        path = self.test["path"]
        if self.form not in PAIRS:
            return [path]
        arms = (self.test["arm"], self.test["against"])
        return [[arm if step == ARM else step for step in path] for arm in arms]

    @property
    def no_effect(self) -> float:
        """The value that means that there is no effect."""
        return 1.0 if self.form in ("ratio", "times") else 0.5 if self.form == "share" else 0.0

    @property
    def band(self) -> tuple[float, float]:
        """Between which ends the number of an arithmetic claim agrees, in its unit."""
        if "near" in self.agree:
            middle, half = self.agree["near"], self.agree["within"]
            return middle - half, middle + half
        low, high = self.agree.get("range", (self.agree.get("equals"),) * 2)
        return -math.inf if low is None else low, math.inf if high is None else high

    def rule(self) -> str:
        """What decides the claim, in words."""
        if self.scoreboard == EXPERIMENTS:
            return self._rule_of_experiment()
        if "equals" in self.agree:
            return "exact if equal"
        low, high = (f"{round(end, 6):,}".removesuffix(".0") for end in self.band)
        what = low if low == high else f"{low} to {high}"
        what = f"at most {high}" if low == "-inf" else f"at least {low}" if high == "inf" else what
        return f"exact if {what}"

    def _rule_of_experiment(self) -> str:
        if not self.test:
            return ""
        least, word = f"{self.seeds} seeds an arm at least", UNITS[self.unit].word
        if self.sign == "=":
            return f"claimed: {self.size:g}{word}, to within {self.margin:g}; {least}"
        side = "more" if self.sign == "+" else "less"
        if self.form == "share":
            return f"claimed: {side} than half of the seeds; {least}"
        none = f"no effect: within a factor of {self.margin:g}"
        if self.no_effect == 0 and self.margin is not None:
            none = f"no effect: within ±{self.margin:g}{word}"
        return f"claimed: {side} than {self.no_effect:g}; {none}; {least}"

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
    """claims.yml: {"sections": {number: title}, "profiles": [which decides first], "claims":
    [...]}."""
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
    """One entry of the file as a claim. Raises InputError as `load` does.

    Args:
        entry: A mapping of claims.yml.
        sections: Of the paper, which an entry may name.
    """
    if problem := next(_problems(entry, sections), None):
        raise InputError(f"{FILE.name}: claim {entry.get('id', entry)!r}: {problem}")
    return Claim(**entry)


def unknown(name: object, known: Iterable[str], kind: str) -> str:
    """What is wrong with a name that is none of `known`, with the nearest of them; else empty.

    Args:
        name: The one that was given.
        known: The names that there are.
        kind: What such a name is of, for the message: "arm".
    """
    if name in (names := sorted(known)):
        return ""
    near = difflib.get_close_matches(str(name), names, n=1)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    return f"there is no {kind} {name!r}{meant}; there are {', '.join(filter(None, names))}"


def _problems(entry: dict[str, Any], sections: Iterable[str]) -> Iterator[str]:
    optional = {one.name: (one.default, one.default_factory) for one in fields(Claim)}
    needed = [name for name, given in optional.items() if given == (MISSING, MISSING)]
    yield from filter(None, (unknown(name, optional, "field") for name in entry))
    yield from (f"it lacks {name!r}" for name in needed if name not in entry)
    for kind, allowed in (("section", sections), ("unit", UNITS)):
        yield from filter(None, [unknown(entry.get(kind, ""), allowed, kind)])
    claim = Claim(**entry)
    claim.logged()  # raises what is wrong with it
    for step in (claim.test, *claim.also):
        if "compute" in step and not callable(getattr(arithmetic, step["compute"], None)):
            yield f"alexnet.arithmetic has no function {step['compute']!r}"
    if claim.scoreboard == ARITHMETIC:
        kinds = sum(kind in claim.agree for kind in ("equals", "near", "range"))
        if kinds != 1 or ("near" in claim.agree) != ("within" in claim.agree):
            yield "agree needs one of equals, near with within, or range"
    elif claim.test:
        yield from _problems_of_test(claim)
    elif not claim.needs or claim.decides:
        yield "without a test it must say what it needs, and no profile decides it"


def _problems_of_test(claim: Claim) -> Iterator[str]:
    test = claim.test
    yield from filter(None, (unknown(name, STEPS, "part of a test") for name in test))
    yield from filter(None, [unknown(test.get("form"), FORMS, "form")])
    path, pair = test.get("path", ""), claim.form in PAIRS
    if "experiment" not in test or not isinstance(path, list) or path.count(SEED) > 1:
        yield f"its test needs an experiment, and a path with one {SEED!r} at most, for the seed"
    if not {"arm", "against"} <= test.keys() if pair else {"arm", "against"} & test.keys():
        yield f"{claim.form} needs {'arm and against' if pair else 'neither arm nor against'}"
    if (ARM in path) != pair:
        yield f"a path has {ARM} where two arms are compared, and only there"
    yield from filter(None, [unknown(claim.sign, SIGNS, "sign")])
    if claim.sign == "=" and claim.size is None:
        yield "sign = needs the size that is claimed"
    least = 1.0 if claim.no_effect == 1 else 0.0
    if claim.form != "share" and not (claim.margin is not None and claim.margin > least):
        yield f"it needs a margin, above {least:g}"
    if not claim.decides:
        yield "it needs the profiles that may decide it (decides)"
    known = contents()["profiles"]
    yield from filter(
        None, (unknown(name, known, "profile that decides") for name in claim.decides)
    )
