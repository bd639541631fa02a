"""What arithmetic says of the paper's claims: functions that claims.yml names.

They read the table of layers and the notes of 2012, never a result; nothing is trained. Needs no
torch.
"""

from dataclasses import replace
from itertools import pairwise, product
from math import log2, prod
from typing import Any

import numpy as np

from alexnet import labnotebook
from alexnet.presets import LRN, PAPER, SOURCE, Pool, SameMapNorm, get
from alexnet.presets.sizes import Shape, crossings, shapes, total
from alexnet.training.schedule import Schedule

GIB = 2**30


def table(preset: str = "paper") -> list[Shape]:
    return shapes(get(preset))


def parameters(preset: str = "paper") -> int:
    return total(table(preset), "parameters")


def neurons() -> int:
    return total(table(), "neurons")


def connections() -> int:
    """Multiply-accumulates for one image: each is one use of a weight."""
    return total(table(), "macs")


def connections_of_net_120() -> int:
    """The same for an earlier net of the source: conv1 has 32 maps a column, and conv2 reads 3
    low-resolution maps more."""
    conv1, conv2, *above = table()
    return total([replace(conv1, maps=32), replace(conv2, in_maps=32 + 3), *above], "macs")


def layers() -> list[int]:
    """Convolutions, fully connected layers."""
    spatial = sum(row.layer.kernel > 0 for row in table())
    return [spatial, len(table()) - spatial]


def inputs() -> int:
    return 3 * table()[0].in_size ** 2


def kernels() -> list[str]:
    """Of each convolution, all columns: how many, and their size."""
    return [
        f"{row.maps * row.columns} of {row.layer.kernel}x{row.layer.kernel}x{row.in_maps}"
        for row in table()
        if row.layer.kernel
    ]


def units(first: str, last: str) -> list[int] | int:
    """Neurons of the layers from `first` to `last`; of a single one, a number.

    Args:
        first: A layer's name.
        last: The same, or a later one.
    """
    names, counts = zip(*((row.layer.name, row.neurons) for row in table()))
    chosen = [*counts[names.index(first) : names.index(last) + 1]]
    return chosen if len(chosen) > 1 else chosen[0]


def _row(layer: str) -> Shape:
    return next(row for row in table() if row.layer.name == layer)


def side(layer: str) -> int:
    """The side of a layer's map before pooling."""
    return _row(layer).size


def dense_parameters() -> int:
    """Parameters of a fully connected net whose layers have as many units."""
    sizes = [inputs(), *(row.neurons for row in table())]
    return sum((below + 1) * above for below, above in pairwise(sizes))


def dense_ratio() -> float:
    return dense_parameters() / parameters()


def largest_convolution() -> float:
    """The largest share of all parameters that one convolution has."""
    return max(row.parameters for row in table() if row.layer.kernel) / parameters()


def share(layer: str) -> float:
    """A layer's share of all parameters."""
    return _row(layer).parameters / parameters()


def layers_that_meet() -> list[str]:
    """Layers that read the maps of both columns."""
    return [row.layer.name for row in table() if row.layer.reads == "both"]


def crossing() -> int:
    """Elements that one column sends the other for one image, forward."""
    return sum(crossings(table()).values())


def one_column_ratio() -> float:
    """Parameters of the one-column net, over those of the net with two."""
    return parameters("paper/one-column") / parameters()


def memory(columns: int, batch: int = 128) -> int:
    """Bytes of float32 that training must keep on a GPU that holds `columns` of the two columns.

    Weights, gradients and velocities; the images; every output and its gradient, ReLU and dropout
    in place; the denominators of normalization; a copy of what the other column sends. Scratch
    memory of convolutions, and images that wait, come on top.

    Args:
        columns: 1 or 2.
        batch: Images of a step.
    """
    rows, elements = table(), 0
    sent = crossings(rows) | {rows[-1].layer.name: 0} if columns < rows[0].columns else {}
    for row in rows:
        before, after = row.maps * row.size**2, row.maps * row.out_size**2
        norms = sum(isinstance(op, LRN | SameMapNorm) for op in row.layer.then)
        pools = sum(isinstance(op, Pool) for op in row.layer.then)
        outputs = before * (1 + norms) + after * pools
        elements += columns * (2 * outputs + before * norms + 2 * sent.get(row.layer.name, 0))
    shared = total(rows, "parameters") - rows[-1].biases  # those of the last layer lie on one GPU
    held = shared * columns // rows[0].columns + rows[-1].biases
    return 4 * (3 * held + batch * (inputs() + elements))


def pooled_sides(overlap: bool) -> list[int]:
    """Sides of the maps after the three pooling layers.

    Without overlap windows are 2 wide and 2 apart, and nothing else is changed.
    """
    window = Pool() if overlap else Pool(2, 2)
    layers = tuple(
        replace(row, then=tuple(window if isinstance(op, Pool) else op for op in row.then))
        for row in PAPER.layers
    )
    rows = shapes(replace(PAPER, layers=layers))
    return [row.out_size for row in rows if row.out_size < row.size]


def views() -> int:
    """Distinct crops of 224 of an image of 256, with their reflections."""
    return 2 * (256 - table()[0].in_size + 1) ** 2


def label_bits() -> float:
    return log2(table()[-1].maps)


def dropout_error(hidden: int = 8, classes: int = 4, seed: int = 0) -> float:
    """How far halving the units is from the geometric mean over all 2^hidden masks.

    For one layer of dropped units under a softmax.

    Args:
        hidden: Units that are dropped, each with probability one half.
        classes: Outputs of the softmax.
        seed: Of the weights.

    Returns:
        The largest difference of any class's probability.
    """
    rng = np.random.default_rng(seed)
    units, weights = rng.normal(size=hidden), rng.normal(size=(classes, hidden))
    masked = [weights @ (units * mask) for mask in product((0, 1), repeat=hidden)]
    mean = np.mean([sums - np.logaddexp.reduce(sums) for sums in masked], axis=0)
    half = weights @ (units / 2)
    ours, theirs = (np.exp(sums - np.logaddexp.reduce(sums)) for sums in (half, mean))
    return round(float(np.abs(ours - theirs).max()), 12)


def sustained_teraflops(days: float, epochs: int = 90, images: int = 1_200_000) -> float:
    """What two GPUs together must sustain to train in so many days.

    Each connection takes three passes of two operations.

    Args:
        days: Of training.
        epochs: Passes over the images.
        images: Of an epoch.

    Returns:
        10^12 operations a second.
    """
    return prod((6, connections(), epochs, images)) / (days * 86_400) / 1e12


# --- from the notes of 2012 ---

PAPERS_RUNS = ("145-2010", "145")


def train_images(data: str) -> int:
    return labnotebook.load()["data"][data]["train"]


def images_in_files(data: str, split: str) -> list[int]:
    """The fewest and the most images that a split can have: the source lists its files, of 1,024
    images each, the last of them perhaps not full.

    Args:
        data: A data set of labnotebook.yml.
        split: One whose files stand there.
    """
    first, last = labnotebook.load()["data"][data]["files"][split]
    return [1024 * (last - first) + 1, 1024 * (last - first + 1)]


def falls() -> list[int]:
    """How often the weights' rate fell, in the two runs of the paper's net."""
    return [len(_schedule(run)["falls"]) for run in PAPERS_RUNS]


def cycles() -> list[int]:
    """Epochs until the two runs of the paper's net were ended."""
    return [_schedule(run)["end"] for run in PAPERS_RUNS]


def rates(bias: bool = False) -> int:
    """How many different courses of the rate the layers' weights (or biases) had in the source."""
    schedule, kind = Schedule.of(SOURCE.recipe, SOURCE.recipe.cycles), "bias" if bias else "weight"
    epochs, names = range(int(schedule.epochs)), [layer.name for layer in SOURCE.layers]
    return len({tuple(schedule.rate(epoch, name, kind) for epoch in epochs) for name in names})


def _schedule(run: str) -> dict[str, Any]:
    return labnotebook.load()["runs"][run]["schedule"]
