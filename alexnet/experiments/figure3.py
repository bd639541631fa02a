"""Figure 3 (section 6.1 of the paper): the kernels that conv1 has learned, column by column, and
whether one column takes the colors.

    alexnet reproduce --only figure3 --seeds 5

Of each kernel: how much of it is color, and how much of it has one direction. A column has
specialized if the two columns' mean share of color differ by more than luck, which shuffling the
same kernels over the columns tells, and by the 25 points that the claim asks for.
"""

from typing import Any

import numpy as np

from alexnet.errors import require
from alexnet.experiments.jobs import Packs, Run, Training, base_job, training_job
from alexnet.experiments.page import around_gray, eight_bits, unpack
from alexnet.experiments.protocol import (
    Entry,
    Metrics,
    Profile,
    Record,
    Result,
    Table,
    by_seed,
    common,
    pick,
)
from alexnet.experiments.showing import COLUMN, Figure, pyplot, side_by_side

NAME = "figure3"
VERSION = 1
NET = "full"  # the arm: the net that the profile's experiments share, or its own
LEAST = 0.25  # of the difference between two columns' mean share of color
LUCK = 0.01  # of shuffles that may have as large a difference
SIZES = ("net", "train_images", "columns", "kernels_a_column", "shuffles")
MEASURED = ("color", "orientation", "difference", "color_gap", "luck", "specialized_column")


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    own = {"shuffles": profile[NAME]["shuffles"], "least": LEAST, "luck": LUCK}
    packs = profile.splits()
    return [Entry(NET, seed, packs, (_job(profile, packs, seed),), own) for seed in seeds]


def _job(profile: Profile, packs: Packs, seed: int) -> Training:
    """Of the net that the profile's experiments share, or of the one that its settings of this
    experiment name, for so many epochs."""
    if "preset" in (given := profile[NAME]):
        return training_job(profile, given["preset"], packs, epochs=given["epochs"], seed=seed)
    return base_job(profile, seed)


def measure(entry: Entry, runs: list[Run]) -> Metrics:
    (run,), shuffles = runs, entry.settings["shuffles"]
    net, _ = run.net()
    packed = eight_bits(net.export_merged()["conv1.weight"])
    both = columns(packed, len(net.numbers))
    return {
        "net": run.config.preset,
        "train_images": len(entry.packs["train"]),
        "columns": len(both),
        "kernels_a_column": both.shape[1],
        "shuffles": shuffles,
        **measure_columns(both, shuffles),
        "kernels": packed,
    }


def collect(records: list[Record]) -> Metrics:
    seeds = by_seed(records, NET)
    return common(seeds.values(), *SIZES) | {"seeds": pick(seeds, (*MEASURED, "kernels"))}


def columns(packed: dict[str, Any], count: int = 2) -> np.ndarray:
    """Stored kernels as float (columns, maps per column, height, width, 3).

    Args:
        packed: As results hold kernels.
        count: Columns that share them.
    """
    weights = unpack(packed).numpy().astype(float)
    return weights.reshape(count, -1, *weights.shape[1:]).transpose(0, 1, 3, 4, 2)


def measure_columns(both: np.ndarray, shuffles: int) -> dict[str, Any]:
    """Of kernels (columns, maps, height, width, 3): medians by column, and whether a column has
    taken the colors.

    color_gap is the difference of two columns' mean share of color, less the mean of the same
    difference over shuffles: 0 in expectation where columns differ by nothing but luck, and up to
    1. luck is the share of shuffles whose difference is as large.

    Args:
        both: Kernels (2, maps, height, width, 3).
        shuffles: How often kernels are dealt to columns at random.
    """
    color, direction = colorfulness(both), orientation(both)
    difference, generator = _difference(color), np.random.default_rng(0)
    lots = [generator.permutation(color.ravel()).reshape(color.shape) for _ in range(shuffles)]
    shuffled = np.array([_difference(lot) for lot in lots])
    # the columns as they are count as one shuffle
    luck = (1 + int((shuffled >= difference - 1e-12).sum())) / (1 + shuffles)
    specialized = luck <= LUCK and difference >= LEAST
    return {
        "color": [round(float(value), 4) for value in np.median(color, axis=1)],
        "orientation": [round(float(value), 4) for value in np.median(direction, axis=1)],
        "difference": round(difference, 4),
        "color_gap": round(float(difference - shuffled.mean()), 4),
        "luck": round(luck, 5),
        "specialized_column": int(color.mean(axis=1).argmax()) if specialized else None,
    }


def measure_others(
    kernels: np.ndarray, source: str, *, zero: float = 0.0, columns: int = 2, shuffles: int = 10_000
) -> Metrics:
    """The measurement of kernels that were trained elsewhere: evidence from outside.

    The order of their colors does not matter, for color is what lies off the gray axis.

    Args:
        kernels: (maps, height, width, 3), any type, the first column's maps first.
        source: Whose they are, and where they are from.
        zero: The value that stands for 0, as in pictures of kernels.

    Raises:
        InputError: They have another shape, or no source is stated.
    """
    shape = kernels.shape
    fits = len(shape) == 4 and shape[3] == 3 and shape[0] and shape[0] % columns == 0
    require(
        fits, f"kernels have the shape (maps, height, width, 3), not {shape}, in {columns} columns"
    )
    require(source.strip(), "state the source of the kernels")
    both = (kernels.astype(float) - zero).reshape(columns, -1, *shape[1:])
    own = {"columns": columns, "kernels_a_column": both.shape[1], "shuffles": shuffles}
    return {"source": source, **own, **measure_columns(both, shuffles)}


def _difference(color: np.ndarray) -> float:
    return float(np.ptp(color.mean(axis=1)))


def colorfulness(weights: np.ndarray) -> np.ndarray:
    """Of kernels (..., height, width, 3): the share of their energy that lies off the gray axis, 0
    (gray, or empty) to 1 (pure color).

    Two thirds for a Gaussian kernel that has learned nothing: two of the three axes of color are
    off gray.
    """
    energy = (weights**2).sum((-1, -2, -3))
    off = ((weights - weights.mean(-1, keepdims=True)) ** 2).sum((-1, -2, -3))
    return np.divide(off, energy, out=np.zeros_like(energy), where=energy > 0)


def orientation(weights: np.ndarray) -> np.ndarray:
    """Of kernels (..., height, width, 3): the coherence of the gray kernel's spectrum, 0 (no
    direction, or no gray) to 1 (one direction).

    That is |sum P exp(2 i angle)| / sum P over all frequencies but zero, P the power and angle the
    direction of each: a grating has 1, a round blob 0, noise about 0.1.
    """
    gray = weights.mean(-1)
    power = np.abs(np.fft.fft2(gray)) ** 2
    frequencies = [np.fft.fftfreq(side) for side in gray.shape[-2:]]
    down, across = np.meshgrid(*frequencies, indexing="ij")
    power[..., 0, 0] = 0.0
    total = power.sum((-1, -2))
    summed = np.abs((power * np.exp(2j * np.arctan2(down, across))).sum((-1, -2)))
    # more than what rounding leaves of a pure color
    has_gray = total > 1e-9 * (weights**2).sum((-1, -2, -3)) * gray[0].size
    return np.divide(summed, total, out=np.zeros_like(total), where=has_gray)


def table(result: Result) -> Table:
    """What each column's kernels are like, seed by seed."""
    metrics, rows = result["metrics"], []
    for seed, one in metrics["seeds"].items():
        columns = [side_by_side(one[what], ".2f") for what in ("color", "orientation")]
        who = "neither" if one["specialized_column"] is None else str(one["specialized_column"])
        rows.append([seed, *columns, f"{one['difference']:.2f}", f"{one['luck']:.1%}", who])
    head = ["seed", "share of color", "orientation", "difference", "as large by luck"]
    note = (
        f"{metrics['kernels_a_column']} kernels a column; medians of column 0 and 1; "
        "difference: of the columns' mean share of color"
    )
    return Table([*head, "column that took the colors"], rows, [note])


def plot(result: Result, seed: int | str | None = None) -> Figure:
    """conv1's kernels of one seed (None: the first), column 0 above column 1, each kernel on its
    own scale around gray; beside them, each kernel's share of color and its orientation."""
    metrics = result["metrics"]
    chosen = str(result["seeds"][0] if seed is None else seed)
    both = columns(metrics["seeds"][chosen]["kernels"], metrics["columns"])
    across = min(16, both.shape[1])
    down = -(-both.shape[1] // across)
    height = max(2.2, 0.4 + 0.4 * len(both) * down)
    figure = pyplot().figure(figsize=(9, height), layout="constrained")
    grid = figure.add_gridspec(len(both), 2, width_ratios=(2.2, 1))
    for number, block in enumerate(both):
        panel = figure.add_subplot(grid[number, 0])
        panel.imshow(sheet(block, across), interpolation="nearest")
        panel.set_title(f"column {number}", fontsize=8, loc="left")
        panel.axis("off")
    panel = figure.add_subplot(grid[:, 1])
    for number, block in enumerate(both):
        look: dict[str, Any] = {
            "color": COLUMN[number > 0],
            "alpha": 0.8,
            "label": f"column {number}",
        }
        panel.plot(colorfulness(block), orientation(block), "^" if number else "o", ms=4, **look)
    panel.axvline(2 / 3, color="gray", ls=":", lw=1)
    panel.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    panel.set_xlabel("share of color in a kernel's energy", fontsize=8)
    panel.set_ylabel("orientation", fontsize=8)
    panel.tick_params(labelsize=7)
    panel.legend(fontsize=7, frameon=False)
    return figure


def sheet(kernels: np.ndarray, across: int) -> np.ndarray:
    """Kernels (maps, height, width, 3) as one picture, `across` in a row, white between them;
    values 0..1.

    Args:
        kernels: (maps, height, width, 3).
        across: Kernels in a row.
    """
    maps, height, width, _ = kernels.shape
    picture = np.ones((-(-maps // across) * (height + 1) - 1, across * (width + 1) - 1, 3))
    for i, kernel in enumerate(kernels):
        top, left = i // across * (height + 1), i % across * (width + 1)
        picture[top : top + height, left : left + width] = around_gray(kernel)
    return picture
