"""Claims and their verdicts as a reader sees them: the table of `alexnet claims`, JSON, the cover's
figure, the tables of chapters and of appendix D."""

import json
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from alexnet import tables
from alexnet.claims.entries import VERDICTS, contents
from alexnet.claims.judging import Judgement, compute
from alexnet.errors import InputError, needs
from alexnet.results import ROOT

# told apart without color by their marks
COLORS = dict(zip(VERDICTS, ("#1b7837", "#a6d96a", "#d7191c", "#dddddd", "#542788"), strict=True))
MARKS = dict(zip(VERDICTS, ("✓", "→", "✗", "", "!"), strict=True))


def select(
    judgements: list[Judgement], section: str | None = None, verdict: str | None = None
) -> list[Judgement]:
    """The judgements of one section and one verdict.

    Args:
        judgements: Of which.
        section: As "3.2"; "3" holds 3.1 to 3.5; None: all.
        verdict: As in VERDICTS; "same-direction" and "slip" will do; None: all.

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
    plain = verdict.lower().replace("-", " ")
    plain = "paper's slip" if plain in ("slip", "papers slip") else plain
    if plain not in VERDICTS:
        raise InputError(f"there is no verdict {verdict!r}; there are {', '.join(VERDICTS)}")
    return [one for one in judgements if one.verdict == plain]


def count(judgements: list[Judgement]) -> dict[str, int]:
    """How many of each verdict, in the order of VERDICTS."""
    counts = Counter(one.verdict for one in judgements)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def line(judgements: list[Judgement]) -> str:
    """How many claims, and how many of each verdict that occurs."""
    total, *rest = _counted(judgements)
    return f"{total}: {', '.join(rest)}" if rest else total


def block(judgements: list[Judgement]) -> str:
    """The same, a line each."""
    return "\n  ".join(_counted(judgements))


def _counted(judgements: list[Judgement]) -> list[str]:
    undecided = sum(one.undecided for one in judgements)
    more = {"not reproduced": f" ({undecided} undecided)" if undecided else ""}
    return [
        f"{len(judgements)} claim{'s' * (len(judgements) != 1)}",
        *(
            f"{n} {verdict}{'s' * (n > 1 and verdict.endswith('slip'))}{more.get(verdict, '')}"
            for verdict, n in count(judgements).items()
            if n
        ),
    ]


def table(judgements: list[Judgement]) -> str:
    """An aligned table with long cells folded, and `line`."""
    rows: list[Sequence[str]] = [("section", "claim", "paper", "here", "verdict", "on")]
    for one in judgements:
        claim = one.claim
        shown = f"{one.shown} (undecided)" if one.undecided else one.shown
        cells = (claim.section, claim.claim, claim.paper, shown, one.verdict, one.on)
        folded = [textwrap.wrap(cell, 46 if i == 1 else 30) or [""] for i, cell in enumerate(cells)]
        depth = max(map(len, folded))
        rows.extend(zip(*(cell + [""] * (depth - len(cell)) for cell in folded), strict=True))
    head, *lines = tables.align(rows)
    rule = "-" * max(map(len, [head, *lines]))
    return "\n".join([head, rule, *lines, rule, line(judgements)])


def as_json(judgements: list[Judgement]) -> str:
    """{"counts", "claims"}: each claim with its fields, its verdict and what that rests on; numbers
    in the claim's unit."""

    def fields(thing: Any, names: str) -> dict[str, Any]:
        return {name: getattr(thing, name) for name in names.split()}

    claims = [
        fields(one.claim, "id section claim paper kind unit")
        | fields(one, "verdict undecided why")
        | {"here": one.shown, "by_seed": one.values, "mean": one.mean, "half_width": one.half}
        | fields(one, "on profile")
        | fields(one.claim, "test agree")
        | {"log": one.claim.logged()}
        | fields(one.claim, "source note chapter")
        for one in judgements
    ]
    return json.dumps({"counts": count(judgements), "claims": claims}, indent=1, ensure_ascii=False)


def draw(judgements: list[Judgement]) -> Any:
    """The cover's figure: a row a section, a square a claim, marked and colored by verdict; hollow
    ones are undecided."""
    needs("matplotlib", extra="figures", what="drawing the claims")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    rows = {
        name: sorted(row, key=lambda one: VERDICTS.index(one.verdict))
        for name in contents()["sections"]
        if (row := [one for one in judgements if one.claim.section == name])
    }
    titles = 8.2  # widths of a square that the sections' titles take
    figure, axes = plt.subplots(figsize=(5.8, 0.26 * len(rows) + 0.8), dpi=110)
    figure.subplots_adjust(0.01, 0.15, 0.99, 0.99)
    for i, (name, row) in enumerate(rows.items()):
        axes.text(titles - 0.35, -i, title(name), ha="right", va="center", fontsize=8)
        for j, one in enumerate(row):
            _square(axes, one, titles + j, -i)
    axes.set(xlim=(0, titles + max(map(len, rows.values()))), ylim=(0.4 - len(rows), 0.6))
    axes.axis("off")
    key = [
        Patch(facecolor=COLORS[name], label=f"{MARKS[name]} {n} {name}".strip())
        for name, n in count(judgements).items()
        if n
    ]
    if undecided := sum(one.undecided for one in judgements):
        label, edge = f"{undecided} of these undecided", COLORS["not reproduced"]
        key.append(Patch(facecolor="white", edgecolor=edge, label=label))
    look = {"frameon": False, "fontsize": 7.5, "handlelength": 1.1, "columnspacing": 1.2}
    figure.legend(handles=key, loc="lower center", ncols=3, **look)
    return figure


def _square(axes: Any, one: Judgement, x: float, y: float, side: float = 0.84) -> None:
    from matplotlib.patches import Rectangle

    color = COLORS[one.verdict]
    ink = color if one.undecided else "black" if one.verdict in VERDICTS[1::2] else "white"
    face = "white" if one.undecided else color
    place = (x, y - side / 2)
    axes.add_patch(Rectangle(place, side, side, facecolor=face, edgecolor=color, lw=1.1))
    middle = {"ha": "center", "va": "center"}
    axes.text(x + side / 2, y, MARKS[one.verdict], fontsize=7.5, color=ink, **middle)


def title(section: str) -> str:
    """A section's number and title."""
    words = contents()["sections"][section]
    return f"{section}  {words}" if section[0].isdigit() else words


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
    return f"{one.verdict}, undecided" if one.undecided else one.verdict


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
            if claim.kind == "arithmetic":
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
        claim, test = one.claim, one.claim.test
        if claim.kind == "arithmetic":
            by = f"`arithmetic.{test['compute']}`"
        elif one.shown:
            by = f"`results/{one.profile}/{test['experiment']}/`"
        else:
            only = f", on {' or '.join(test['only_on'])} only" if "only_on" in test else ""
            by = f"experiment {test['experiment']}{only}"
        parts = [
            by,
            claim.agreement(),
            one.why,
            *(f"{step['what']}: {compute(step, step.get('unit', ''))[1]}" for step in claim.also),
            f"logs: {claim.log_source()}" if claim.log else "",
            f"source: {claim.source}" if claim.source else "",
            claim.note,
        ]
        rows.append(f"- **{claim.id}**: {'; '.join(filter(None, parts))}")
    return "\n".join(rows)
