"""Rows of operators on a screen."""

from collections.abc import Iterator, Sequence

from kernel_benchmarks.record import CASE, Row

DIRECTIONS = ("forward", "backward", "both")


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


def where(row: Row) -> str:
    """The machine in words, with a warning where it was not ours alone."""
    threads = "" if row["cuda"] else f", threads: {row['threads']:.0f}"
    changes = " with changes" if row["dirty"] == "yes" else ""
    text = f"{row['device']}{threads}, torch {row['torch']}, commit {row['commit']}{changes}"
    if row["busy_percent"] > 10:
        busy = f"{row['busy_percent']:.0f} % of the processors busy at the start"
        text += f"\nOther programs kept {busy}."
    return text


def title(row: Row) -> str:
    batch = f"batch {row['batch']:.0f}, " if row["batch"] else ""
    return f"{row['operator']}, {row['layer']} {row['shape']}, {batch}{row['dtype']}"


def by_case(rows: Sequence[Row]) -> dict[tuple, list[Row]]:
    """The rows of each case, by method and the columns CASE: those timed by that method, and those
    that were not timed at all. Of rows that measure the same thing the last counts."""
    names = (*CASE, "implementation", "layout", "direction", "method")
    latest = {tuple(row[name] for name in names): row for row in rows}.values()
    cases: dict[tuple, list[Row]] = {}
    for row in latest:
        if row["method"]:
            cases.setdefault((row["method"], *(row[name] for name in CASE)), []).append(row)
    for (_, *case), own in cases.items():
        own += [r for r in latest if not r["method"] and [r[name] for name in CASE] == case]
    return cases


def comparisons(rows: Sequence[Row]) -> Iterator[tuple[str, str, dict[str, Row]]]:
    """Method, direction, and each implementation's fastest row, for every case in which ours is;
    ours in the layout in which it was timed first, the one it is written for."""
    for (method, *_), own in by_case(rows).items():
        for direction in DIRECTIONS:
            timed = [r for r in own if (r["method"], r["direction"]) == (method, direction)]
            layout = next((r["layout"] for r in timed if r["implementation"] == "ours"), None)
            best: dict[str, Row] = {}
            for row in timed:
                name = row["implementation"]
                if name in ("ours", "ours, again") and row["layout"] != layout:
                    continue
                if name not in best or row["median_ms"] < best[name]["median_ms"]:
                    best[name] = row
            if "ours" in best:
                yield method, direction, best


def summary(rows: Sequence[Row]) -> str:
    """Each case's implementations: median, percent of the copy bandwidth, and how many times as
    long as ours, in the first layout of the case, each takes. The line "ours, again" is the same
    code timed as if it were a peer: how far its ratio is from 1 is how finely the table can be
    read."""
    blocks = []
    for (method, *_), own in by_case(rows).items():
        heading = f"{title(own[0])}, {method}: copy {own[0]['copy_gb_per_s']:.4g} GB/s"
        notes = dict.fromkeys(
            f"{row['implementation']} {row['layout']}: {row['note']}" for row in own if row["note"]
        )
        timed = [row for row in own if row["method"] == method]
        blocks.append("\n".join([heading, _one_case(timed), *notes]))
    return f"{where(rows[0])}\n\n" + "\n\n".join(blocks) if blocks else "Nothing was measured."


def _one_case(rows: Sequence[Row]) -> str:
    timed = {(row["implementation"], row["layout"], row["direction"]): row for row in rows}
    directions = [d for d in DIRECTIONS if any(key[2] == d for key in timed)]
    layout = next((key[1] for key in timed if key[0] == "ours"), None)
    heads = [head for d in directions for head in (f"{d} ms", "of copy", "x ours")]
    lines = [["implementation ", "layout ", *heads, "saved MB", "error"]]
    for name, form in dict.fromkeys(key[:2] for key in timed):
        line = [name, form]
        for direction in directions:
            row, ours = (timed.get((*key, direction)) for key in ((name, form), ("ours", layout)))
            line += (
                (f"{row['median_ms']:.4g}", f"{row['percent_of_copy']:.0f} %") if row else ("", "")
            )
            line.append(f"{row['median_ms'] / ours['median_ms']:.2f}" if row and ours else "")
        facts = next(row for key, row in timed.items() if key[:2] == (name, form))
        saved, error = facts["saved_bytes"], facts["error"]
        line.append(f"{saved / 1e6:.4g}" if saved else "")
        lines.append([*line, f"{error:.1e}" if error is not None else ""])
    return table(lines)
