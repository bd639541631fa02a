"""Rows of operators on a screen."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kernel_benchmarks.record import CASE, NUMBERS, Row

SAME = (*CASE, "implementation", "layout", "direction", "method")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned text; the first row is the heading, and its names are flush left where they end in a
    space."""
    left = [name.endswith(" ") for name in rows[0]]
    rows = [[name.strip() for name in rows[0]], *rows[1:]]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join(c.ljust(w) if f else c.rjust(w) for c, w, f in zip(row, widths, left)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


HEADS = {  # of columns of numbers that are not shown by their own names
    "median_ms": "ms", "images_per_s": "images/s", "ratio": "times", "floor_ms": "floor ms",
    "peak_mb": "peak MB", "percent_of_copy": "% of copy",
}  # fmt: skip


def listing(rows: Iterable[Row], names: Sequence[str]) -> str:
    """A table of some columns of rows."""
    heads = [HEADS.get(name, name) if name in NUMBERS else f"{name} " for name in names]
    return table([heads, *([_cell(name, row[name]) for name in names] for row in rows)])


def _cell(name: str, value: Any) -> str:
    if value is None or name not in NUMBERS:
        return str(value or "")
    return f"{value:,.0f}" if name == "images_per_s" else f"{value:,.3g}"


def where(row: Row) -> str:
    """The machine in words, with a warning where it was not ours alone."""
    threads = "" if row["cuda"] else f", threads: {row['threads']:.0f}"
    changes = " with changes" if row["dirty"] == "yes" else ""
    text = f"{row['device']}{threads}, torch {row['torch']}, commit {row['commit']}{changes}"
    busy = f"\nOther programs kept {row['busy_percent']:.0f} % of the processors busy at the start."
    return text + busy * (row["busy_percent"] > 10)


def page(rows: Sequence[Row], names: Sequence[str], *headings: str) -> str:
    """The machine, some columns of its rows, and the rows' notes."""
    if not rows:
        return "Nothing was measured."
    who = [" ".join(filter(None, (r["implementation"], r.get("layout")))) for r in rows]
    notes = [f"{r['case']}, {name}: {r['note']}" for r, name in zip(rows, who) if r["note"]]
    return "\n".join([where(rows[0]), *headings, "", listing(rows, names), *notes])


def latest(rows: Iterable[Row], names: Sequence[str] = SAME) -> list[Row]:
    """Of rows that measure the same thing, for which these columns are alike, the last."""
    return list({tuple(row[name] for name in names): row for row in rows}.values())


def comparisons(rows: Iterable[Row]) -> Iterator[dict[str, Row]]:
    """Each implementation's fastest row, for every case, method and direction that ours is timed
    in; ours in the layout in which it was timed first, the one it is written for."""
    groups: dict[tuple, list[Row]] = {}
    for row in latest(rows):
        if row["method"]:
            group = tuple(row[name] for name in (*CASE, "method", "direction"))
            groups.setdefault(group, []).append(row)
    for own in groups.values():
        layout = next((row["layout"] for row in own if row["implementation"] == "ours"), None)
        best: dict[str, Row] = {}
        for row in sorted(own, key=lambda row: row["median_ms"]):
            if row["layout"] == layout or row["implementation"] not in ("ours", "ours, again"):
                best.setdefault(row["implementation"], row)
        if "ours" in best:
            yield best


def summary(rows: Sequence[Row]) -> str:
    """A line for each implementation in each case: median, percent of the copy bandwidth, and how
    many times as fast as ours, in the first layout of the case, it is. The line "ours, again" is
    the same code timed as if it were a peer: how far its ratio is from 1 is how finely the table
    can be read."""
    shown, ours = [], dict[tuple, float]()
    for row in latest(rows):
        batch = f"batch {row['batch']:.0f}, " if row["batch"] else ""
        case = f"{row['operator']}, {row['layer']} {row['shape']}, {batch}{row['dtype']}"
        group, ms = (case, row["direction"], row["method"]), row["median_ms"]
        if row["implementation"] == "ours" and ms:
            ours.setdefault(group, ms)
        ratio = ours[group] / ms if ms and group in ours else None
        shown.append(row | {"case": case, "ratio": ratio})
    names = ("case", "implementation", "layout", "direction", "method", "median_ms")
    more = ("percent_of_copy", "ratio", "saved_bytes", "error")
    copy = [f"copy: {row['copy_gb_per_s']:.4g} GB/s" for row in rows[:1]]
    return page(shown, (*names, *more), *copy)
