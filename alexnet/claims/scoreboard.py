"""The cover's figure: both scoreboards, side by side."""

from typing import Any

from alexnet.claims.entries import VERDICTS, contents
from alexnet.claims.judging import NO_ARCHIVE, Judgement
from alexnet.errors import needs

# color and mark of each verdict, told apart without color by their marks
LOOKS = {
    "exact": ("#1b7837", "✓"),
    "slip": ("#542788", "!"),
    "supported": ("#1b7837", "✓"),
    "contradicted": ("#d7191c", "✗"),
    "inconclusive": ("#fdae61", "?"),
    "not testable here": ("#bdbdbd", "–"),
    "not yet run": ("#eeeeee", ""),
    NO_ARCHIVE: ("#eeeeee", ""),
}
WHITE_INK = ("exact", "slip", "supported", "contradicted")
TITLES, GAP = 8.2, 1.5  # widths of a square: what sections' titles take, and what lies between


def title(section: str) -> str:
    """A section's number and title."""
    words = contents()["sections"][section]
    return f"{section}  {words}" if section[0].isdigit() else words


def draw(judgements: list[Judgement]) -> Any:
    """A row a section, a square a claim, marked and colored by verdict: on the left what arithmetic
    and records say, on the right what experiments say."""
    needs("matplotlib", extra="figures", what="drawing the claims")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    sections = {
        name: row
        for name in contents()["sections"]
        if (row := [one for one in judgements if one.claim.section == name])
    }
    figure, axes = plt.subplots(figsize=(7.2, 0.26 * len(sections) + 1.3), dpi=110)
    figure.subplots_adjust(0.01, 0.17, 0.99, 0.99)
    for i, name in enumerate(sections):
        axes.text(TITLES - 0.35, -i, title(name), ha="right", va="center", fontsize=8)
    left, key = TITLES, []
    for board, verdicts in VERDICTS.items():
        axes.text(left, 0.75, board, fontsize=8, fontweight="bold", va="bottom")
        order = [*verdicts, NO_ARCHIVE]
        width = 0
        for i, row in enumerate(sections.values()):
            own = [one for one in row if one.claim.scoreboard == board]
            own.sort(key=lambda one: order.index(one.verdict))
            for j, one in enumerate(own):
                _square(axes, one.verdict, left + j, -i)
            width = max(width, len(own))
        for name in order:
            number = sum(
                one.claim.scoreboard == board and one.verdict == name for one in judgements
            )
            if number:
                color, mark = LOOKS[name]
                key.append(Patch(facecolor=color, label=f"{mark} {number} {name}".strip()))
        left += max(width, 7) + GAP  # 7: what a heading takes
    axes.set(xlim=(0, left), ylim=(0.4 - len(sections), 1.6))
    axes.axis("off")
    look = {"frameon": False, "fontsize": 7.5, "handlelength": 1.1, "columnspacing": 1.2}
    figure.legend(handles=key, loc="lower center", ncols=4, **look)
    return figure


def _square(axes: Any, verdict: str, x: float, y: float, side: float = 0.84) -> None:
    from matplotlib.patches import Rectangle

    color, mark = LOOKS[verdict]
    axes.add_patch(Rectangle((x, y - side / 2), side, side, facecolor=color))
    ink = "white" if verdict in WHITE_INK else "black"
    axes.text(x + side / 2, y, mark, fontsize=7.5, color=ink, ha="center", va="center")
