"""Claims and their verdicts as a reader sees them: the tables of `alexnet claims`, JSON, the
README's table, those of chapters and of appendix D. `scoreboard` draws the cover's figure."""

import json
import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet import __version__, results, tables
from alexnet.claims.entries import (
    ARITHMETIC,
    EXPERIMENTS,
    VERDICTS,
    Claim,
    contents,
    unknown,
)
from alexnet.claims.judging import CHANGED, NO_ARCHIVE, Judgement, compute, show_smallest
from alexnet.claims.scoreboard import draw
from alexnet.claims.statistics import LEVEL
from alexnet.errors import InputError
from alexnet.results import ROOT

__all__ = [
    "as_json",
    "block",
    "chapter",
    "count",
    "draw",
    "fields",
    "line",
    "markdown",
    "notes",
    "readme",
    "schema",
    "select",
    "table",
]

SCHEMA = Path(__file__).with_name("claims.schema.json")
FORMAT = 1  # of `as_json`; the schema has it too
HEAD = "section|claim|paper|effect, 95 % interval|p, Holm|detectable|verdict|on".split("|")


def select(
    judgements: list[Judgement], section: str | None = None, verdict: str | None = None
) -> list[Judgement]:
    """The judgements of one section and one verdict.

    Args:
        judgements: Of which.
        section: As "3.2"; "3" holds 3.1 to 3.5; None: all.
        verdict: As in VERDICTS; "not-yet-run" will do; None: all.

    Raises:
        InputError: There is no such section or verdict; the message lists them.
    """

    def within(name: str) -> bool:
        return section is None or name == section or name.startswith(f"{section}.")

    if not any(map(within, contents()["sections"])):
        every = ", ".join(contents()["sections"])
        raise InputError(f"the paper has no section {section!r} here; there are {every}")
    judgements = [one for one in judgements if within(one.claim.section)]
    if verdict is None:
        return judgements
    known = [name for names in VERDICTS.values() for name in names]
    if problem := unknown(plain := verdict.lower().replace("-", " "), known, "verdict"):
        raise InputError(problem)
    return [one for one in judgements if one.verdict == plain]


def count(judgements: list[Judgement]) -> dict[str, dict[str, int]]:
    """How many of each verdict, by scoreboard, in the order of VERDICTS."""
    counts = Counter((one.claim.scoreboard, one.verdict) for one in judgements)
    numbers = {
        board: {verdict: counts[board, verdict] for verdict in verdicts}
        for board, verdicts in VERDICTS.items()
    }
    if missing := counts[EXPERIMENTS, NO_ARCHIVE]:
        numbers[EXPERIMENTS][NO_ARCHIVE] = missing
    return numbers


def line(judgements: list[Judgement]) -> str:
    """Both scoreboards in a line: how many of each verdict that occurs."""
    return "; ".join(_boards(judgements)) or "no claims"


def block(judgements: list[Judgement]) -> str:
    """The same, a line each."""
    return "\n".join(_boards(judgements)) or "no claims"


def _boards(judgements: list[Judgement]) -> list[str]:
    boards = []
    for board, verdicts in count(judgements).items():
        counted = [
            f"{n} {verdict}{'s' * (n > 1 and verdict == 'slip')}"
            for verdict, n in verdicts.items()
            if n
        ]
        if counted:
            boards.append(f"{board}: {', '.join(counted)}")
    return boards


def table(judgements: list[Judgement]) -> str:
    """Both scoreboards, the claims that experiments judge, and those of arithmetic."""
    boards = {
        board: [one for one in judgements if one.claim.scoreboard == board] for board in VERDICTS
    }
    parts, rows = [block(judgements)], list[tuple[str, ...]]()
    if any(one.verdict == NO_ARCHIVE for one in judgements):
        remedy = "run this in a clone of the repository, or with --runs to judge your own results"
        parts[0] += f"\nthe archive {results.ARCHIVE} is missing: {remedy}"
    if boards[EXPERIMENTS]:
        rows = [tuple(HEAD), *map(_row, boards[EXPERIMENTS])]
        parts.append(_folded(rows, (8, 36, 14, 28, 8, 11, 18, 20)))
    if boards[ARITHMETIC]:
        rows = [("section", "claim", "paper", "here", "verdict")]
        for one in boards[ARITHMETIC]:
            claim = one.claim
            rows.append((claim.section, claim.claim, claim.paper, one.shown, one.verdict))
        parts.append(_folded(rows, (8, 60, 20, 40, 18)))
    return "\n\n".join(parts)


def _row(one: Judgement) -> tuple[str, ...]:
    p = "" if one.adjusted is None else "< 0.001" if one.adjusted < 0.001 else f"{one.adjusted:.3f}"
    smallest = show_smallest(one.measured, one.smallest) if one.measured else ""
    cells = (one.claim.section, one.claim.claim, one.claim.paper, one.shown, p, smallest)
    return (*cells, one.verdict, one.data or one.claim.needs)


def _folded(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    """An aligned table whose cells are folded to widths."""
    lines: list[Sequence[str]] = []
    for row in rows:
        folded = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths)]
        depth = max(map(len, folded))
        lines.extend(zip(*(cell + [""] * (depth - len(cell)) for cell in folded), strict=True))
    aligned = tables.align(lines)
    heads = max(len(textwrap.wrap(cell, width)) for cell, width in zip(rows[0], widths))
    rule = "-" * max(map(len, aligned))
    return "\n".join([*aligned[:heads], rule, *aligned[heads:]])


def as_json(judgements: list[Judgement]) -> str:
    """Everything that is known of the claims, for programs: a document of `schema`."""
    document = {
        "format": FORMAT,
        "alexnet": __version__,
        "level": LEVEL,
        "counts": count(judgements),
        "claims": [_fields(one) for one in judgements],
    }
    return json.dumps(document, indent=1, ensure_ascii=False)


def schema() -> str:
    """The JSON Schema of `as_json`, which describes every field."""
    return SCHEMA.read_text(encoding="utf-8")


def fields() -> str:
    """A table of what `as_json` says of a claim, from the schema."""
    described = json.loads(schema())["$defs"]["claim"]["properties"]
    rows = [(f"`{name}`", field["description"]) for name, field in described.items()]
    return tables.markdown(("field", "what it is"), rows)


def _fields(one: Judgement) -> dict[str, Any]:
    return _of_claim(one.claim) | _of_judgement(one)


def _of_claim(claim: Claim) -> dict[str, Any]:
    """What is claimed, and what decides it."""
    arithmetic, exact = claim.scoreboard == ARITHMETIC, claim.agree.get("equals")
    tested = bool(claim.test) and not arithmetic
    return {
        **{name: getattr(claim, name) for name in ("id", "section")},
        "statement": claim.claim,
        **{name: getattr(claim, name) for name in ("chapter", "scoreboard", "paper", "unit")},
        "rule": claim.rule(),
        "value": compute(claim.test, claim.unit)[0] if arithmetic else None,
        "band": [*map(_known, claim.band)] if arithmetic and exact is None else None,
        "equals": exact,
        "experiment": claim.test.get("experiment"),
        "form": claim.test.get("form"),
        "sign": claim.sign or None,
        "no_effect": claim.no_effect if tested else None,
        "size": claim.size,
        "least_seeds": claim.seeds if tested else None,
        "decides": [*claim.decides],
        "log": claim.logged(),
        "source": claim.source,
        "note": claim.note,
    }


def _of_judgement(one: Judgement) -> dict[str, Any]:
    """What was measured, and what came of it."""
    measured = one.measured
    return {
        "verdict": one.verdict,
        "why": one.why,
        "margin": measured.margin if measured else one.claim.margin,
        "effect": measured and _known(measured.effect),
        "bound": measured and measured.bound,
        "interval": measured and measured.interval and [*map(_known, measured.interval)],
        "by_seed": measured and measured.values,
        "adjusted_p": one.adjusted,
        "seeds": measured and measured.seeds,
        "on_size": (measured and measured.size) or None,
        "smallest_detectable": _known(one.smallest),
        "seeds_needed": one.needed,
        "profile": one.profile or None,
        "data": one.data or None,
        "runs": one.status or None,
        "plan": one.plan,
        "provenance": one.provenance,
        "shown": one.shown,
    }


def _known(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def readme(judgements: list[Judgement]) -> str:
    """The README's table: the claims that experiments have decided."""
    rows = [
        (one.claim.claim, one.claim.paper, _on_data(one), one.verdict, f"`{folder}/`")
        for one in judgements
        if one.verdict in ("supported", "contradicted")
        and (folder := (one.provenance or {}).get("folder"))
    ]
    return tables.markdown(("claim", "the paper", "here, 95 % interval", "verdict", "file"), rows)


def markdown(judgements: list[Judgement]) -> str:
    """Appendix D's table: a claim with a link to its chapter, the paper's number, that of its logs,
    ours, the verdict."""
    rows = [("claim", "the paper", "its logs", "here", "verdict")]
    for one in judgements:
        claim, text = one.claim, f"{one.claim.claim} {_link(one.claim.chapter)}"
        rows.append((text, claim.paper, claim.logged(), _on_data(one), _verdict(one)))
    return tables.markdown(rows[0], rows[1:])


def _on_data(one: Judgement) -> str:
    return f"{one.shown}; {one.data}" if one.data and one.shown else one.shown


def _verdict(one: Judgement) -> str:
    return (
        f"{one.verdict}; the plan changed after the runs" if one.status == CHANGED else one.verdict
    )


def chapter(judgements: list[Judgement], name: str, page: Mapping[str, str] | None = None) -> str:
    """A chapter's own table: of each of its claims the paper's number, that of its logs, the
    archived run's, this page's, the verdict.

    Args:
        judgements: Of all claims.
        name: The chapter, as in claims.yml.
        page: What the page has measured itself, by the claim's id. What is arithmetic, a page
            computes anew each time.
    """
    rows = [("claim", "the paper", "its logs", "archived run", "this page's run", "verdict")]
    for one in judgements:
        claim = one.claim
        if claim.chapter == name:
            archived, own = _on_data(one), (page or {}).get(claim.id, "")
            if claim.scoreboard == ARITHMETIC:
                archived, own = "", one.shown
            rows.append((claim.claim, claim.paper, claim.logged(), archived, own, _verdict(one)))
    head, *kept = zip(
        *(column for column in zip(*rows, strict=True) if any(column[1:])), strict=True
    )
    return tables.markdown(head, kept)


def _link(chapter: str) -> str:
    """A link to a chapter, as "chapter 3" or the page's name; empty where there is no such page."""
    if not chapter or not (ROOT / "book" / f"{chapter}.ipynb").exists():
        return ""
    number = chapter.partition("-")[0]
    text = f"chapter {int(number)}" if number.isdigit() else chapter.replace("-", " ")
    return f"([{text}]({chapter}.ipynb))"


def notes(judgements: list[Judgement]) -> str:
    """Appendix D's list: how each claim is judged, where its numbers stand, what the released
    program did."""
    rows = []
    for one in judgements:
        claim, test, measured = one.claim, one.claim.test, one.measured
        by = f"experiment {test['experiment']}" if "experiment" in test else ""
        if claim.scoreboard == ARITHMETIC:
            by = f"`arithmetic.{test['compute']}`"
        elif one.provenance:
            by = f"`{one.provenance['folder']}/`"
        parts = [
            by,
            claim.rule(),
            f"p = {one.adjusted:.2g} after correction" if one.adjusted is not None else "",
            measured.size if measured else "",
            one.why,
            *(f"{step['what']}: {compute(step, step.get('unit', ''))[1]}" for step in claim.also),
            f"logs: {claim.log_source()}" if claim.log else "",
            f"source: {claim.source}" if claim.source else "",
            claim.note,
        ]
        rows.append(f"- **{claim.id}**: {'; '.join(filter(None, parts))}")
    return "\n".join(rows)
