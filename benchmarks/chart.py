"""The rows of benchmarks/results/ as a table and a figure, for the book's appendix."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks import record
from benchmarks.record import Row

SHORT = {
    "local_response_norm": "LRN",
    "max_pool": "pooling",
    "response_norm_pool": "block",
    "same_map_norm": "same-map norm",
    "crop_flip_color": "crop, flip, color",
    "momentum_step": "update",
}
# color and size of the dot, and what it is called: ours on top, in one color with its other forms
STYLE = {
    "torch": ("#b2452f", 30, "torch, eager"),
    "torch.compile": ("#d99a2b", 30, "torch.compile"),
    "cudnn": ("#6b8e23", 30, "cuDNN"),
    "ours, composite": ("#8fb3d9", 30, "ours in plain torch"),
    "ours": ("#1f5a96", 46, "ours"),
}


def rows(cuda: bool, folder: Path | None = None) -> list[Row]:
    """What was measured last, of one kind of device: the last device's rows, each case's latest. Empty where nothing was."""
    files = [(folder or record.ARCHIVE) / f"{name}.csv" for name in SHORT]
    found = [row for path in files for row in record.read(path) if bool(row["cuda"]) == cuda]
    if not found:
        return []
    device = max(found, key=lambda row: row["time"])["device"]
    method = "cold" if cuda else "wall"
    kept = record.cases([row for row in found if row["device"] == device])
    return [
        row
        for (how, *_), own in kept.items()
        if how == method
        for row in own
        if row["method"] == method
    ]


def groups(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, Row]]:
    """By what is computed ("LRN, conv1", or where rows differ in it "LRN, conv1, batch 1024, bf16") and direction: each implementation's
    fastest row, ours in its first layout."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    several = (
        len({row["batch"] for row in rows if row["batch"]}) > 1,
        len({row["dtype"] for row in rows}) > 1,
    )
    for row in rows:
        batch = f", batch {row['batch']:.0f}" if row["batch"] and several[0] else ""
        dtype = f", {row['dtype']}" if several[1] else ""
        own = found.setdefault(
            (f"{SHORT[row['operator']]}, {row['layer']}{batch}{dtype}", row["direction"]), {}
        )
        name = row["implementation"]
        if name not in own or (name != "ours" and row["median_ms"] < own[name]["median_ms"]):
            own[name] = row
    return {key: own for key, own in found.items() if "ours" in own}


def table(rows: Sequence[Row]) -> str:
    """A line for each case and direction: ours, its share of the copy bandwidth, and how many times as long each peer takes."""
    peers = [
        name
        for name in STYLE
        if name != "ours" and any(row["implementation"] == name for row in rows)
    ]
    short = {"ours, composite": "composite", "torch.compile": "compile"}
    lines = [
        ["what ", "direction ", "ours ms", "of copy", *(short.get(name, name) for name in peers)]
    ]
    for (what, direction), own in groups(rows).items():
        ours = own["ours"]
        ratios = [
            f"{own[name]['median_ms'] / ours['median_ms']:.2f} x" if name in own else ""
            for name in peers
        ]
        lines.append(
            [
                what,
                direction,
                f"{ours['median_ms']:.3g}",
                f"{ours['percent_of_copy']:.0f} %",
                *ratios,
            ]
        )
    return record.table(lines)


def roofline(rows: Sequence[Row]) -> Figure:
    """How many times as long as a copy of the fewest bytes each takes, a line for each case and direction: 1 is the roof."""
    drawn = {key: own for key, own in groups(rows).items() if key[1] != "both"}
    figure, axes = plt.subplots(
        figsize=(6.4, 0.8 + 0.24 * len(drawn)), dpi=100, layout="constrained"
    )
    for name, (color, size, label) in STYLE.items():
        points = [
            (100 / own[name]["percent_of_copy"], y)
            for y, own in enumerate(drawn.values())
            if name in own
        ]
        if points:
            axes.scatter(*zip(*points), s=size, color=color, lw=0, label=label, zorder=2)
    axes.axvline(1, color="black", lw=1)
    axes.set_yticks(
        range(len(drawn)), [f"{what}, {direction}" for what, direction in drawn], fontsize=8
    )
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="time, in multiples of a copy's of the fewest bytes")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(axis="y", lw=0.4, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axes.get_legend_handles_labels(),
        frameon=False,
        loc="outside upper center",
        ncols=3,
        fontsize=8,
    )
    return figure
