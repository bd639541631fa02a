"""Tables that a terminal prints aligned and a notebook shows as tables."""

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"(> )?[-+]?[\d.,]+ ?%?|-")


class Table(str):
    """Aligned text, which `print` and files take as any other; where a notebook displays it, a table of Markdown.

    head: a title for each column; rows: as many cells each, or one alone, a heading of the rows below it; notes: lines beneath. A column of
    plain numbers is aligned to the right. Spaces before a row's first cell indent it in both forms.
    """

    markdown: str

    def __new__(
        cls, head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
    ) -> "Table":
        whole = [row for row in rows if len(row) == len(head)]
        cells = list(zip(*whole, strict=True)) or [()] * len(head)
        right = [
            any(column) and all(not cell or _NUMBER.fullmatch(cell) for cell in column)
            for column in cells
        ]
        widths = [max(map(len, column)) for column in zip(head, *whole, strict=True)]
        lines = []
        for row in [head, *rows]:
            aligned = (
                [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right)]
                if len(row) == len(head)
                else row
            )
            lines.append("  ".join(aligned).rstrip())
        made = super().__new__(cls, "\n".join([*lines, *notes]))
        rule = ["---:" if r else "---" for r in right]
        marked = [
            [_plain(cell) for cell in row] + [""] * (len(head) - len(row)) for row in [head, *rows]
        ]
        marked = [
            [f"*{row[0]}*", *row[1:]] if len(old) < len(head) else row
            for row, old in zip(marked, [head, *rows], strict=True)
        ]
        below = "".join(f"\n{_plain(note)}<br>" for note in notes).removesuffix("<br>")
        made.markdown = "\n".join(
            f"| {' | '.join(row)} |" for row in [marked[0], rule, *marked[1:]]
        ) + (f"\n{below}" if notes else "")
        return made

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        return self.markdown


def _plain(cell: str) -> str:
    """A cell that says in Markdown what it says in plain text."""
    text = cell.lstrip(" ")
    return "&ensp;" * (len(cell) - len(text)) + re.sub(r"([\\|*_<>`$])", r"\\\1", text)


def align(rows: Sequence[Sequence[str]], right: Sequence[bool] | None = None) -> list[str]:
    """Rows of equally many cells as lines of aligned text.

    Args:
        rows: The cells.
        right: For each column, whether it is aligned to the right; None aligns all to the left.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = right or [False] * len(widths)
    return [
        "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, sides, strict=True)
        ).rstrip()
        for row in rows
    ]


def duration(seconds: float) -> str:
    """A duration in words, two units at most: "3 hours 20 minutes"."""
    for unit, size, below in (("day", 86400, 3600), ("hour", 3600, 60), ("minute", 60, 1)):
        if seconds >= 2 * size:
            whole, rest = divmod(seconds, size)
            name = "hours" if below == 3600 else "minutes"
            small = f" {rest / below:.0f} {name}" if below > 1 and rest >= below else ""
            return f"{whole:.0f} {unit}s{small}"
    return f"{max(seconds, 1):.0f} second{'s' * (round(seconds) > 1)}"
