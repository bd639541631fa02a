"""Claims and their verdicts as a reader sees them: the table of `alexnet claims`, JSON, the cover's figure, the tables of appendix D."""

import json
import textwrap
from collections import Counter
from collections.abc import Mapping
from typing import Any

from alexnet.claims import VERDICTS, Judgement, contents, reckon
from alexnet.errors import InputError
from alexnet.results import ROOT

# told apart without color by their marks
COLORS = dict(zip(VERDICTS, ("#1b7837", "#a6d96a", "#d7191c", "#dddddd", "#542788"), strict=True))
MARKS = dict(zip(VERDICTS, ("✓", "→", "✗", "", "!"), strict=True))
SHORT = {"slip": "paper's slip", "papers slip": "paper's slip"}


def select(
    judgements: list[Judgement], section: str | None = None, verdict: str | None = None
) -> list[Judgement]:
    """Those of a section ("3" holds 3.1 to 3.5) and of a verdict ("same-direction", "slip" will do). Raises InputError that lists the
    sections or verdicts."""
    sections = contents()["sections"]
    if section is not None:
        if not any(_within(name, section) for name in sections):
            raise InputError(
                f"the paper has no section {section!r} here; there are {', '.join(sections)}"
            )
        judgements = [one for one in judgements if _within(one.claim.section, section)]
    if verdict is not None:
        plain = verdict.lower().replace("-", " ")
        plain = SHORT.get(plain, plain)
        if plain not in VERDICTS:
            raise InputError(f"there is no verdict {verdict!r}; there are {', '.join(VERDICTS)}")
        judgements = [one for one in judgements if one.verdict == plain]
    return judgements


def _within(name: str, section: str) -> bool:
    return name == section or name.startswith(f"{section}.")


def count(judgements: list[Judgement]) -> dict[str, int]:
    """How many of each verdict, in the order of VERDICTS."""
    found = Counter(one.verdict for one in judgements)
    return {verdict: found[verdict] for verdict in VERDICTS}


def line(judgements: list[Judgement]) -> str:
    """How many claims, and how many of each verdict that occurs."""
    total, *rest = _words(judgements)
    return f"{total}: {', '.join(rest)}" if rest else total


def block(judgements: list[Judgement]) -> str:
    """The same, a line each."""
    return "\n  ".join(_words(judgements))


def _words(judgements: list[Judgement]) -> list[str]:
    words = [f"{len(judgements)} claim{'s' * (len(judgements) != 1)}"]
    unclear = sum(one.undecided for one in judgements)
    for verdict, n in count(judgements).items():
        more = f" ({unclear} undecided)" if verdict == "not reproduced" and unclear else ""
        if n:
            words.append(f"{n} {verdict}{'s' * (n > 1 and verdict.endswith('slip'))}{more}")
    return words


def table(judgements: list[Judgement]) -> str:
    """An aligned table with long cells folded, and `line`."""
    head = ("section", "claim", "paper", "here", "verdict", "on")
    rows = [
        head,
        *(
            (one.claim.section, one.claim.claim, one.claim.paper, _here(one), one.verdict, one.on)
            for one in judgements
        ),
    ]
    lines: list[tuple[str, ...]] = []
    for row in rows:
        folded = [textwrap.wrap(cell, 46 if i == 1 else 30) or [""] for i, cell in enumerate(row)]
        deep = max(len(cell) for cell in folded)
        lines.extend(
            tuple(cell[i] if i < len(cell) else "" for cell in folded) for i in range(deep)
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    aligned = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in lines]
    rule = "-" * max(len(line) for line in aligned)
    return "\n".join([aligned[0], rule, *aligned[1:], rule, line(judgements)])


def _here(one: Judgement) -> str:
    return f"{one.here} (undecided)" if one.undecided else one.here


def as_json(judgements: list[Judgement]) -> str:
    """{"counts", "claims"}: each claim with its fields, its verdict and what that rests on; numbers in the claim's unit."""

    def flat(one: Judgement) -> dict[str, Any]:
        claim = one.claim
        found: dict[str, Any] = {
            name: getattr(claim, name)
            for name in ("id", "section", "claim", "paper", "kind", "unit")
        }
        found |= {
            "verdict": one.verdict,
            "undecided": one.undecided,
            "why": one.why,
            "here": one.here,
            "by_seed": one.values,
        }
        found |= {
            "mean": one.mean,
            "half_width": one.half,
            "on": one.on,
            "profile": one.profile,
            "test": claim.test,
            "agree": claim.agree,
        }
        return found | {
            "log": claim.logged(),
            "source": claim.source,
            "note": claim.note,
            "chapter": claim.chapter,
        }

    return json.dumps(
        {"counts": count(judgements), "claims": [flat(one) for one in judgements]},
        indent=1,
        ensure_ascii=False,
    )


def draw(judgements: list[Judgement]) -> Any:
    """The cover's figure: a row a section, a square a claim, marked and colored by verdict; hollow ones are undecided."""
    import matplotlib.pyplot as plt  # here, so that the command line needs none
    from matplotlib.patches import Patch, Rectangle

    by_section = {
        name: [one for one in judgements if one.claim.section == name]
        for name in contents()["sections"]
    }
    rows = {name: found for name, found in by_section.items() if found}
    longest = max(len(found) for found in rows.values())
    titles, height = (
        8.2,
        0.84,
    )  # widths of a square that the sections' titles take; a square's height
    figure, axes = plt.subplots(figsize=(5.8, 0.26 * len(rows) + 0.8), dpi=110)
    figure.subplots_adjust(0.01, 0.15, 0.99, 0.99)
    for row, (name, found) in enumerate(rows.items()):
        axes.text(titles - 0.35, -row, title(name), ha="right", va="center", fontsize=8)
        for i, one in enumerate(sorted(found, key=lambda one: VERDICTS.index(one.verdict))):
            color, x = COLORS[one.verdict], titles + i
            face, ink = (
                ("white", color)
                if one.undecided
                else (color, "black" if one.verdict in VERDICTS[1::2] else "white")
            )
            axes.add_patch(
                Rectangle(
                    (x, -row - height / 2), height, height, facecolor=face, edgecolor=color, lw=1.1
                )
            )
            axes.text(
                x + height / 2,
                -row,
                MARKS[one.verdict],
                ha="center",
                va="center",
                fontsize=7.5,
                color=ink,
            )
    axes.set(xlim=(0, titles + longest), ylim=(0.4 - len(rows), 0.6))
    axes.axis("off")
    key = [
        Patch(facecolor=COLORS[name], label=f"{MARKS[name]} {n} {name}".strip())
        for name, n in count(judgements).items()
        if n
    ]
    if unclear := sum(one.undecided for one in judgements):
        key.append(
            Patch(
                facecolor="white",
                edgecolor=COLORS["not reproduced"],
                label=f"{unclear} of these undecided",
            )
        )
    figure.legend(
        handles=key,
        loc="lower center",
        ncols=3,
        frameon=False,
        fontsize=7.5,
        handlelength=1.1,
        columnspacing=1.2,
    )
    return figure


def title(section: str) -> str:
    """A section's number and title."""
    words = contents()["sections"][section]
    return f"{section}  {words}" if section[0].isdigit() else words


def markdown(judgements: list[Judgement]) -> str:
    """Appendix D's table: a claim with a link to its chapter, the paper's number, that of its logs, ours, the verdict."""
    rows = ["| claim | the paper | its logs | here | verdict |", "|---|---|---|---|---|"]
    for one in judgements:
        claim = one.claim
        rows.append(
            f"| {claim.claim} {_link(claim.chapter)} | {claim.paper} | {claim.logged()} | {_on_what(one)} | {_verdict(one)} |"
        )
    return "\n".join(rows)


def _on_what(one: Judgement) -> str:
    return f"{one.here}; {one.data}" if one.data and one.here else one.here


def _verdict(one: Judgement) -> str:
    return f"{one.verdict}, undecided" if one.undecided else one.verdict


def chapter(judgements: list[Judgement], name: str, page: Mapping[str, str] | None = None) -> str:
    """A chapter's own table: of each of its claims the paper's number, that of its logs, the archived run's, this page's, the verdict.

    page: what the page has measured itself, by the claim's id. What is arithmetic, a page reckons anew each time.
    """
    rows: list[tuple[str, ...]] = [
        ("claim", "the paper", "its logs", "archived run", "this page's run", "verdict")
    ]
    for one in judgements:
        claim = one.claim
        if claim.chapter == name:
            archived, own = (
                ("", one.here)
                if claim.kind == "arithmetic"
                else (_on_what(one), (page or {}).get(claim.id, ""))
            )
            rows.append((claim.claim, claim.paper, claim.logged(), archived, own, _verdict(one)))
    told = [
        any(column[1:]) for column in zip(*rows, strict=True)
    ]  # a column that holds nothing is left out
    rows = [tuple(cell for cell, kept in zip(row, told, strict=True) if kept) for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ("---",) * sum(told), *rows[1:]))


def _link(chapter: str) -> str:
    """To a chapter, as "chapter 3" or the page's name; nothing where the book has no such page yet."""
    if not chapter or not (ROOT / "book" / f"{chapter}.ipynb").exists():
        return ""
    number = chapter.partition("-")[0]
    return f"([{f'chapter {int(number)}' if number.isdigit() else chapter.replace('-', ' ')}]({chapter}.ipynb))"


def notes(judgements: list[Judgement]) -> str:
    """Appendix D's list: how each claim is judged, where its numbers stand, what the released program did."""
    rows = []
    for one in judgements:
        claim = one.claim
        if claim.kind == "arithmetic":
            said = [f"`arithmetic.{claim.test['compute']}`"]
        elif one.here:
            said = [f"`results/{one.profile}/{claim.test['experiment']}/`"]
        else:
            only = (
                f", on {' or '.join(claim.test['only_on'])} only" if "only_on" in claim.test else ""
            )
            said = [f"experiment {claim.test['experiment']}{only}"]
        said += [claim.agreement(), one.why]
        said += [f"{step['what']}: {reckon(step, step.get('unit', ''))[1]}" for step in claim.also]
        said += [
            f"logs: {claim.log_source()}" if claim.log else "",
            f"source: {claim.source}" if claim.source else "",
            claim.note,
        ]
        rows.append(f"- **{claim.id}**: {'; '.join(part for part in said if part)}")
    return "\n".join(rows)
