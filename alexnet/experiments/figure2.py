"""Figure 2 (sections 3.2 and 3.5 of the paper), drawn from a network object: whatever the net is,
the drawing is of that net.

Columns lie one above the other. A box is a layer of one column: its height follows the side of the
maps, its length their number, both compressed, or a 224 x 224 image would leave no room for 6 x 6
maps. The small box inside is the window that one kernel of the next layer sees, through all maps
that it reads. Every length is in inches and every layer has a slot of one width, so texts keep
clear of each other in nets of any depth and width.
"""

from typing import Any

import numpy as np

from alexnet.errors import needs
from alexnet.experiments.showing import COLUMN, Axes, Figure, pyplot
from alexnet.network import AlexNet
from alexnet.presets import Shape, crossings

colors = needs("matplotlib.colors", extra="figures", what="drawing Figure 2")
patches = needs("matplotlib.patches", extra="figures", what="drawing Figure 2")

CROSSING, INK, PALE = "#b3244f", "#222222", "#666666"
RED_GREEN_BLUE = ("#d0605e", "#6aa56e", "#5b7fb8")
SLOT, ROW = 0.82, 1.76  # between layers, between columns
SLANT = np.array([0.36, 0.28])  # where one unit of depth goes on paper


def draw(net: AlexNet) -> Figure:
    """The net as a figure of (layers + 1) slots, made with pyplot.

    Red arrows, one for each pair of columns and direction, are what crosses between columns, with
    the number of elements per image that each column sends to each other; their `gid` is "crossing
    <layer>", that of all other arrows "inside <layer>".
    """
    table, count = net.table, net.table[0].columns
    first, sent = table[0], crossings(table)
    # heights of the columns' middles, column 0 on top
    rows = [ROW * ((count - 1) / 2 - column) for column in range(count)]
    heights = [_extent(row)[1] for row in table] + [_side(first.in_size)] * (count == 1)
    tallest = max(heights) * (1 + SLANT[1]) / 2
    top = rows[0] + tallest + (1.02 if count > 1 else 0.7)
    bottom = rows[-1] - tallest - 0.46 - 0.15 * max(len(_notes(row)) for row in table)
    width = SLOT * (len(table) + 1) + 0.1
    figure = pyplot().figure(
        figsize=(round(width, 2), round(top - bottom, 2)), dpi=130, facecolor="white"
    )
    axes = figure.add_axes(
        (0, 0, 1, 1), xlim=(-SLOT / 2 - 0.05, width - SLOT / 2 - 0.05), ylim=(bottom, top)
    )
    axes.set_axis_off()

    def head(slot: int, name: str, about: str) -> None:
        _text(axes, slot, top - 0.08, name, weight="bold")
        _text(axes, slot, top - 0.25, about, PALE)

    box = (0.1, _side(first.in_size))
    image = _Box(axes, (0, 0), box, "#999999", first.layer.kernel, RED_GREEN_BLUE)
    head(0, "image", f"3 maps\n{first.in_size} × {first.in_size}")
    sources = [image] * count
    for slot, (row, above) in enumerate(zip(table, [*table[1:], None]), 1):
        head(slot, row.layer.name, _reads(row))
        _text(axes, slot, rows[-1] - tallest - 0.42, "\n".join(_notes(row)), PALE)
        places, kernel = [0.0] if row.is_last else rows, above.layer.kernel if above else 0
        sources = _layer(axes, slot, row, places, kernel, sources, sent.get(row.layer.name))
    for number, (y, color) in enumerate(zip(rows, COLUMN) if count > 1 else ()):
        clear = max(abs(y), image.high + 0.1) * np.sign(y)
        _text(axes, 0, clear, f"column {number}", color, "center", weight="bold")
    return figure


def _text(
    axes: Axes, slot: float, y: float, words: str, color: str = INK, va: str = "top", **more: Any
) -> None:
    look: dict[str, Any] = {"ha": "center", "va": va, "size": 9, "linespacing": 1.15} | more
    axes.text(SLOT * slot, y, words, color=color, **look)


def _layer(
    axes: Axes,
    slot: int,
    row: Shape,
    places: list[float],
    kernel: int,
    sources: "list[_Box]",
    sent: int | None,
) -> "list[_Box]":
    """A layer's boxes at these heights, their sizes, and what comes from the boxes before."""
    name, summed = row.layer.name, row.is_last and row.columns > 1  # of both columns
    colors = ["#777777"] if summed else COLUMN
    extent = _extent(row)
    boxes = [_Box(axes, (slot, y), extent, color, kernel) for y, color in zip(places, colors)]
    for receiver, (box, color) in enumerate(zip(boxes, colors)):
        upper = summed or box.middle[1] > 0  # where no arrow passes
        y, va = (box.high + 0.05, "bottom") if upper else (box.low - 0.05, "top")
        # beside the arrows that meet in a shared sum
        _text(axes, slot + 0.1 * summed, y, _size(row), color, va)
        for sender, source in enumerate(sources):
            if sender == receiver and not summed:
                _arrow(axes, source, box, COLUMN[receiver], f"inside {name}")
            elif row.layer.reads == "both" or row.is_last:
                _arrow(axes, source, box, CROSSING, f"crossing {name}")
    if sent and (row.layer.reads == "both" or row.is_last):
        x, y = (slot + 0.1, boxes[0].low - 0.27) if row.is_last else (slot - 0.5, 0.0)
        clear = {"facecolor": "none" if row.is_last else "white", "edgecolor": "none", "pad": 1.2}
        _text(axes, x, y, f"{sent:,}\neach way", CROSSING, "center", bbox=clear)
    return boxes * row.columns if row.is_last else boxes


def _side(size: float) -> float:
    return 0.13 * size**0.4


def _extent(row: Shape) -> tuple[float, float]:
    """Length and height of a layer's box."""
    if row.layer.kernel:
        return 0.026 * row.maps**0.5, _side(row.size)
    return 0.1, 0.092 * row.maps**0.3


class _Box:
    """A cuboid at (slot, height): length to the right, height upward, depth slanting away; and the
    window of a kernel that looks at it."""

    def __init__(
        self,
        axes: Axes,
        place: tuple[float, float],
        extent: tuple[float, float],
        color: str,
        kernel: int,
        bands: tuple[str, ...] = (),
    ):
        (slot, y), (length, height) = place, extent
        depth = height if bands or length != 0.1 else 0.2  # a bar of units has no maps to show
        dx, dy = depth * SLANT
        x, self.low = SLOT * slot - (length + dx) / 2, y - (height + dy) / 2
        self.high, self.left, self.height = self.low + height + dy, (x, y), height
        self.middle = (x + length + dx / 2, y)  # of the face that shows a map
        _cuboid(axes, np.array([x, self.low]), (length, height, depth), color, 0.32)
        for i, band in enumerate(bands):
            _cuboid(
                axes,
                np.array([x + i * length / len(bands), self.low]),
                (length / len(bands), height, depth),
                band,
                0.8,
            )
        if kernel:
            side = min(_side(kernel), 0.8 * height)
            corner = np.array(self.middle) - side * SLANT / 2 - (length, side / 2)
            _cuboid(axes, corner, (length, side, side), INK if bands else color, 0.75)


def _cuboid(
    axes: Axes, corner: np.ndarray, extent: tuple[float, float, float], color: str, strength: float
) -> None:
    """Front, top and right faces, each a little darker than the one before."""
    x, y, away = np.array([extent[0], 0]), np.array([0, extent[1]]), extent[2] * SLANT
    for face, one, other, more in (
        (corner, x, y, 0.0),
        (corner + y, x, away, -0.12),
        (corner + x, away, y, 0.12),
    ):
        corners = np.array([face, face + one, face + one + other, face + other])
        tint = tuple(1 - (1 - part) * (strength + more) for part in colors.to_rgb(color))
        look = {"facecolor": tint, "edgecolor": color, "lw": 0.7, "joinstyle": "round"}
        axes.add_patch(patches.Polygon(corners, **look))


def _arrow(axes: Axes, source: _Box, target: _Box, color: str, gid: str) -> None:
    """From the middle of the face that shows a map to the left side of the next layer, a little
    nearer to where it comes from."""
    apart = source.middle[1] - target.left[1]
    end = target.left[0], target.left[1] + 0.3 * target.height * ((apart > 0.3) - (apart < -0.3))
    look: dict[str, Any] = {
        "lw": 0.9,
        "color": color,
        "gid": gid,
        "zorder": 3,
        "shrinkA": 0,
        "shrinkB": 1,
    }
    axes.add_patch(
        patches.FancyArrowPatch(source.middle, end, arrowstyle="-|>", mutation_scale=7, **look)
    )


def _reads(row: Shape) -> str:
    """What one kernel or unit reads."""
    kernel, stride = row.layer.kernel, row.layer.stride
    if kernel:
        return f"{kernel} × {kernel} × {row.in_maps}" + (f"\nstride {stride}" if stride > 1 else "")
    return f"reads\n{row.fan_in:,}"


def _size(row: Shape) -> str:
    if row.layer.kernel:
        return f"{row.maps} maps\n{row.size} × {row.size}"
    return f"{row.maps:,}\n{'classes' if row.is_last else 'units'}"


def _notes(row: Shape) -> list[str]:
    """What follows the layer's sums, line by line."""
    if row.is_last and row.columns > 1:
        return ["columns", "summed"]
    return [line for operation in row.layer.then for line in operation.label]
