"""Figure 2 (sections 3.2 and 3.5 of the paper), drawn from a network object: whatever the net is,
the drawing is of that net.

Columns lie one above the other. A box is a layer of one column: its height follows the side of the
maps, its length their number, both compressed, or a 224 x 224 image would leave no room for 6 x 6
maps. The small box inside is the window that one kernel of the next layer sees, through all maps
that it reads. Every length is in inches and every layer has a slot of one width, so texts keep
clear of each other in nets of any depth and width.
"""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Polygon

from alexnet.network import AlexNet
from alexnet.presets import Shape, crossings

COLUMN = ("#3b6fa0", "#c77c11")
CROSSING, INK, PALE = "#b3244f", "#222222", "#666666"
RED_GREEN_BLUE = ("#d0605e", "#6aa56e", "#5b7fb8")
SLOT, ROW = 0.82, 1.76  # between layers, between columns
SLANT = (0.36, 0.28)  # where one unit of depth goes on paper
Point = tuple[float, float]


def draw(net: AlexNet) -> Figure:
    """The net as a figure of (layers + 1) slots, made with pyplot.

    Red arrows, one for each pair of columns and direction, are what crosses between columns, with
    the number of elements per image that each column sends to each other; their `gid` is "crossing
    <layer>", that of all other arrows "inside <layer>".
    """
    table, count = net.table, net.table[0].columns
    rows = [
        ROW * ((count - 1) / 2 - column) for column in range(count)
    ]  # heights of the columns' middles, column 0 on top
    heights = [_extent(row)[1] for row in table] + ([_side(table[0].in_size)] if count == 1 else [])
    tallest = max(heights) * (1 + SLANT[1]) / 2
    notes = max(len(_notes(row)) for row in table)
    top = rows[0] + tallest + (1.02 if count > 1 else 0.7)
    bottom = rows[-1] - tallest - 0.46 - 0.15 * notes
    width = SLOT * (len(table) + 1) + 0.1
    figure = plt.figure(
        figsize=(round(width, 2), round(top - bottom, 2)), dpi=130, facecolor="white"
    )
    axes = figure.add_axes(
        (0, 0, 1, 1), xlim=(-SLOT / 2 - 0.05, width - SLOT / 2 - 0.05), ylim=(bottom, top)
    )
    axes.set_axis_off()

    def text(slot: float, y: float, words: str, color: str = INK, va: str = "top", **more) -> None:
        axes.text(
            SLOT * slot, y, words, color=color, ha="center", va=va, size=9, linespacing=1.15, **more
        )

    first = table[0]
    image = _Box(
        axes, 0, 0, 0.1, _side(first.in_size), "#999999", first.layer.kernel, bands=RED_GREEN_BLUE
    )
    text(0, top - 0.08, "image", weight="bold")
    text(0, top - 0.25, f"3 maps\n{first.in_size} × {first.in_size}", PALE)
    sources = [image] * count
    for slot, (row, above) in enumerate(zip(table, [*table[1:], None]), 1):
        text(slot, top - 0.08, row.layer.name, weight="bold")
        text(slot, top - 0.25, _reads(row), PALE)
        text(slot, rows[-1] - tallest - 0.42, "\n".join(_notes(row)), PALE)
        length, height = _extent(row)
        places = [0.0] if row.is_last else rows
        colors = ["#777777"] if row.is_last and count > 1 else COLUMN
        boxes = [
            _Box(axes, slot, y, length, height, color, above.layer.kernel if above else 0)
            for y, color in zip(places, colors)
        ]
        for box, color in zip(boxes, colors):
            upper = box.middle[1] > 0 or len(boxes) < count  # where no arrow passes
            x = (
                slot + 0.1 if len(boxes) < count else slot
            )  # beside the arrows that meet in a shared sum
            text(
                x,
                box.high + 0.05 if upper else box.low - 0.05,
                _size(row),
                color,
                "bottom" if upper else "top",
            )
        for sender, source in enumerate(sources):
            for receiver, box in enumerate(boxes):
                own = sender == receiver and not (row.is_last and count > 1)
                if own or row.layer.reads == "both" or row.is_last:
                    _arrow(
                        axes,
                        source,
                        box,
                        COLUMN[receiver] if own else CROSSING,
                        f"{'inside' if own else 'crossing'} {row.layer.name}",
                    )
        if row.layer.name in crossings(table):
            words = f"{crossings(table)[row.layer.name]:,}\neach way"
            x, y = (slot + 0.1, boxes[0].low - 0.27) if row.is_last else (slot - 0.5, 0.0)
            text(
                x,
                y,
                words,
                CROSSING,
                "center",
                bbox={
                    "facecolor": "none" if row.is_last else "white",
                    "edgecolor": "none",
                    "pad": 1.2,
                },
            )
        sources = boxes * count if row.is_last else boxes
    if count > 1:
        for y, color, number in zip(rows, COLUMN, range(count)):
            clear = max(abs(y), image.high + 0.1)
            text(0, clear if y > 0 else -clear, f"column {number}", color, "center", weight="bold")
    return figure


def _side(size: float) -> float:
    return 0.13 * size**0.4


def _extent(row: Shape) -> Point:
    """Length and height of a layer's box."""
    if row.layer.kernel:
        return 0.026 * row.maps**0.5, _side(row.size)
    return 0.1, 0.092 * row.maps**0.3


class _Box:
    """A cuboid around (slot, y): length to the right, height upward, depth slanting away; and the
    window of a kernel that looks at it."""

    def __init__(
        self,
        axes: Axes,
        slot: int,
        y: float,
        length: float,
        height: float,
        color: str,
        kernel: int,
        bands: tuple[str, ...] = (),
    ):
        depth = height if bands or length != 0.1 else 0.2  # a bar of units has no maps to show
        dx, dy = depth * SLANT[0], depth * SLANT[1]
        x, y0 = SLOT * slot - (length + dx) / 2, y - (height + dy) / 2
        self.low, self.high = y0, y0 + height + dy
        self.left, self.height = (x, y), height
        self.middle = (x + length + dx / 2, y)  # of the face that shows a map
        _cuboid(axes, (x, y0), length, height, depth, color, 0.32)
        for i, band in enumerate(bands):
            _cuboid(
                axes,
                (x + length * i / len(bands), y0),
                length / len(bands),
                height,
                depth,
                band,
                0.8,
            )
        if kernel:
            side = min(_side(kernel), 0.8 * height)
            window = side * SLANT[0], side * SLANT[1]
            corner = (
                self.middle[0] - window[0] / 2 - length,
                self.middle[1] - (side + window[1]) / 2,
            )
            _cuboid(axes, corner, length, side, side, INK if bands else color, 0.75)


def _cuboid(
    axes: Axes,
    corner: Point,
    length: float,
    height: float,
    depth: float,
    color: str,
    strength: float,
) -> None:
    """Front, top and right faces, each a little darker than the one before."""
    (x, y), dx, dy = corner, depth * SLANT[0], depth * SLANT[1]
    faces = (
        [(x, y), (x + length, y), (x + length, y + height), (x, y + height)],
        [
            (x, y + height),
            (x + length, y + height),
            (x + length + dx, y + height + dy),
            (x + dx, y + height + dy),
        ],
        [
            (x + length, y),
            (x + length + dx, y + dy),
            (x + length + dx, y + dy + height),
            (x + length, y + height),
        ],
    )
    for face, more in zip(faces, (0.0, -0.12, 0.12)):
        tint = tuple(1 - (1 - part) * (strength + more) for part in to_rgb(color))
        axes.add_patch(Polygon(face, facecolor=tint, edgecolor=color, lw=0.7, joinstyle="round"))


def _arrow(axes: Axes, source: _Box, target: _Box, color: str, gid: str) -> None:
    """From the middle of the face that shows a map to the left side of the next layer, a little
    nearer to where it comes from."""
    (x, y), (left, middle) = source.middle, target.left
    lean = 0.3 * target.height * ((y > middle + 0.3) - (y < middle - 0.3))
    arrow = FancyArrowPatch(
        (x, y),
        (left, middle + lean),
        arrowstyle="-|>",
        mutation_scale=7,
        lw=0.9,
        color=color,
        shrinkA=0,
        shrinkB=1,
    )
    arrow.set_gid(gid)
    arrow.set_zorder(3)
    axes.add_patch(arrow)


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
    lines = [line for operation in row.layer.then for line in operation.label]
    return ["columns", "summed"] if row.is_last and row.columns > 1 else lines
