"""Tables that a terminal prints aligned and a notebook shows as tables, and durations in words."""

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"(> )?[-+]?[\d.,]+ ?%?|-")


class Table(str):
    """Aligned text, which `print` and files take as any other; displayed by a notebook, Markdown.

    A column of plain numbers is aligned to the right. Spaces before a row's first cell indent it in
    both forms.

    Args:
        head: A title for each column.
        rows: As many cells each; or one alone, a heading of the rows below it.
        notes: Lines beneath.
    """

    markdown: str

    def __new__(
        cls, head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
    ) -> "Table":
        full = [row for row in rows if len(row) == len(head)]
        columns = list(zip(*full, strict=True)) or [()] * len(head)
        right = [any(column) and all(map(_is_number, column)) for column in columns]
        aligned = iter(align([head, *full], right))
        lines = [next(aligned) if len(row) == len(head) else row[0] for row in [head, *rows]]
        table = super().__new__(cls, "\n".join([*lines, *notes]))
        marked = [
            [*map(_plain, row)] if len(row) == len(head) else _heading(row[0], len(head))
            for row in rows
        ]
        table.markdown = markdown([_plain(title) for title in head], marked, right)
        if notes:
            table.markdown += "\n\n" + "<br>\n".join(map(_plain, notes))
        return table

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        return self.markdown


def _is_number(cell: str) -> bool:
    return not cell or _NUMBER.fullmatch(cell) is not None


def _plain(cell: str) -> str:
    """A cell that says in Markdown what it says in plain text."""
    text = cell.lstrip(" ")
    return "&ensp;" * (len(cell) - len(text)) + re.sub(r"([\\|*_<>`$])", r"\\\1", text)


def _heading(text: str, columns: int) -> list[str]:
    return [f"*{_plain(text)}*", *[""] * (columns - 1)]


def markdown(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool] | None = None
) -> str:
    """A table of Markdown out of cells that are marked up already; `right` as in `align`.

    Args:
        head: The first row.
        rows: The others, as many cells each.
        right: Which columns are set flush right; None: as `align` decides.
    """
    rule = ["---:" if is_right else "---" for is_right in right or [False] * len(head)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


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
            whole, rest = divmod(round(seconds / below) * below, size)
            name = "hours" if below == 3600 else "minutes"
            count = rest // below
            small = f" {count} {name[: -1 if count == 1 else None]}" if below > 1 and count else ""
            return f"{whole} {unit}s{small}"
    return f"{max(seconds, 1):.0f} second{'s' * (round(seconds) > 1)}"


def in_bytes(number: float) -> str:
    """A number of bytes in words: "5.4 GB"."""
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"
