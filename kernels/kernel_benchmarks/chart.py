"""The rows of results/ as a table and a figure, for the book's appendix."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kernel_benchmarks import record, report
from kernel_benchmarks.record import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHORT = {
    "local_response_norm": "LRN",
    "max_pool": "pooling",
    "response_norm_pool": "block",
    "same_map_norm": "same-map norm",
    "crop_flip_color": "crop, flip, color",
    "momentum_step": "update",
}
# color, size and name of the dot: ours on top, in one color with its other forms
STYLE = {
    "torch": ("#b2452f", 30, "torch, eager"),
    "torch.compile": ("#d99a2b", 30, "torch.compile"),
    "cudnn": ("#6b8e23", 30, "cuDNN"),
    "ours, composite": ("#8fb3d9", 30, "ours in plain torch"),
    "ours": ("#1f5a96", 46, "ours"),
}


def rows(cuda: bool, folder: Path | None = None) -> list[Row]:
    """What was measured last, of one kind of device: the last device's rows, each case's latest.
    Empty where nothing was."""
    files = [(folder or record.ARCHIVE) / f"{name}.csv" for name in SHORT]
    last = record.of_last_device((row for path in files for row in record.read(path)), cuda)
    return report.latest(row for row in last if row["method"] == ("cold" if cuda else "wall"))


def groups(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, Row]]:
    """By what is computed ("LRN, conv1", or where rows differ in it "LRN, conv1, batch 1024, bf16")
    and direction: each implementation's fastest row, ours in its first layout."""
    has_batches = len({row["batch"] for row in rows if row["batch"]}) > 1
    has_dtypes = len({row["dtype"] for row in rows}) > 1
    bests = {}
    for best in report.comparisons(rows):
        row = best["ours"]
        what = f"{SHORT[row['operator']]}, {row['layer']}"
        what += f", batch {row['batch']:.0f}" if row["batch"] and has_batches else ""
        what += f", {row['dtype']}" if has_dtypes else ""
        bests[what, row["direction"]] = best
    return bests


def table(rows: Sequence[Row]) -> str:
    """A line for each case and direction: ours, its share of the copy bandwidth, and how many times
    as long each peer takes."""
    measured = {row["implementation"] for row in rows}
    peers = [name for name in STYLE if name != "ours" and name in measured]
    heads = [name.removeprefix("ours, ").removeprefix("torch.") for name in peers]
    lines = [["what ", "direction ", "ours ms", "of copy", *heads]]
    for (what, direction), best in groups(rows).items():
        ms, percent = (best["ours"][name] for name in ("median_ms", "percent_of_copy"))
        ratios = [f"{best[peer]['median_ms'] / ms:.2f} x" if peer in best else "" for peer in peers]
        lines.append([what, direction, f"{ms:.3g}", f"{percent:.0f} %", *ratios])
    return report.table(lines)


def roofline(rows: Sequence[Row]) -> "Figure":
    """How many times as long as a copy of the fewest bytes each takes, a line for each case and
    direction: 1 is the roof."""
    import matplotlib.pyplot as plt

    drawn = {key: best for key, best in groups(rows).items() if key[1] != "both"}
    size = (6.4, 0.8 + 0.24 * len(drawn))
    figure, axes = plt.subplots(figsize=size, dpi=100, layout="constrained")
    for name, (color, area, label) in STYLE.items():
        points = [
            (100 / best[name]["percent_of_copy"], y)
            for y, best in enumerate(drawn.values())
            if name in best
        ]
        if points:
            axes.scatter(*zip(*points), s=area, color=color, lw=0, label=label, zorder=2)
    axes.axvline(1, color="black", lw=1)
    axes.set_yticks(range(len(drawn)), [", ".join(key) for key in drawn], fontsize=8)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="time, in multiples of a copy's of the fewest bytes")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(axis="y", lw=0.4, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, frameon=False, loc="outside upper center", ncols=3, fontsize=8)
    return figure
