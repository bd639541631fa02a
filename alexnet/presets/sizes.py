"""The arithmetic of a table of layers: sizes, counts, and the tensors that a net keeps."""

import itertools
from dataclasses import dataclass
from math import ceil, inf, prod

from alexnet.errors import InputError, require
from alexnet.presets.layers import Layer, Preset
from alexnet.presets.operations import Kind


@dataclass(frozen=True)
class Kept:
    """A tensor that a layer keeps: in each column, and in the merged layout of one device.

    Args:
        layer: The layer's name.
        name: In one column's layer: "weight", "operations.1.running_mean".
        merged: In the merged layout: "conv1.weight", "conv1.batch_norm.running_mean".
        kind: The kind of a parameter; None: a buffer.
        shape: Of one column's share.
        dim: The dimension along which columns lie side by side in the merged layout; None: the
            merged tensor is column 0's, which others either lack or have the same.
        columns: How many shares the merged tensor consists of.
    """

    layer: str
    name: str
    merged: str
    kind: Kind | None
    shape: tuple[int, ...]
    dim: int | None
    columns: int

    @property
    def merged_shape(self) -> tuple[int, ...]:
        return tuple(n * self.columns if i == self.dim else n for i, n in enumerate(self.shape))


@dataclass(frozen=True)
class Shape:
    """A layer's arithmetic at some width and image size; one column's share unless it says
    otherwise."""

    layer: Layer
    columns: int
    in_maps: int  # read by each column
    in_size: int  # side of the maps read; 1 for fully connected layers above fully connected ones
    pad: tuple[int, int]  # zeros on the left and top, on the right and bottom
    maps: int
    size: int  # side of the map before pooling
    out_size: int  # after pooling

    @property
    def fan_in(self) -> int:
        return self.in_maps * (self.layer.kernel or self.in_size) ** 2

    @property
    def is_last(self) -> bool:
        return self.layer.maps == 0

    @property
    def neurons(self) -> int:
        """Of all columns; the last layer's are the classes, whose sums the columns share."""
        return self.maps * (1 if self.is_last else self.columns) * self.size**2

    @property
    def kernels(self) -> int:
        """Of each map: one for all places, or one for each."""
        return self.size**2 if self.layer.local else 1

    @property
    def weights(self) -> int:
        return self.maps * self.fan_in * self.columns * self.kernels

    @property
    def biases(self) -> int:
        return self.maps * (1 if self.is_last else self.columns) * self.kernels

    @property
    def parameters(self) -> int:
        return sum(prod(tensor.merged_shape) for tensor in self.tensors if tensor.kind)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image, taps on padding included."""
        return self.maps * self.fan_in * self.columns * self.size**2

    @property
    def tensors(self) -> list[Kept]:
        """All that the layer keeps: weights, biases, and what its operations do."""
        name, kernel, count = self.layer.name, self.layer.kernel, self.columns
        weight = (self.maps, self.in_maps, kernel, kernel) if kernel else (self.maps, self.fan_in)
        places = (self.size, self.size) if self.layer.local else ()
        # The last layer's sums belong to all columns; column 0 keeps their bias.
        across, bias = (1, None) if self.is_last else (0, 0)
        kept = [
            Kept(name, "weight", f"{name}.weight", "weight", (*weight, *places), across, count),
            Kept(name, "bias", f"{name}.bias", "bias", (self.maps, *places), bias, count),
        ]
        names = [op.name for op in self.layer.then]
        for i, op in enumerate(self.layer.then):
            number = f"_{repeated + 1}" if (repeated := names[:i].count(op.name)) else ""
            for state in op.state:
                own, dim = f"operations.{i}.{state.name}", None if state.merge == "same" else 0
                merged, shape = f"{name}.{op.name}{number}.{state.name}", state.shape(self.maps)
                kept.append(Kept(name, own, merged, state.kind, shape, dim, count))
        return kept


class TooSmall(InputError):
    """An image that does not reach the last layer of a net."""


def shapes(
    preset: Preset, num_classes: int = 1000, width: float = 1.0, image_size: int = 224
) -> list[Shape]:
    """The table's arithmetic.

    Args:
        preset: The table of layers.
        num_classes: 2 or more.
        width: The factor of the numbers of maps and units, above 0; the classes keep theirs.
        image_size: The side of the net's input, in pixels.

    Returns:
        One row a layer.

    Raises:
        TooSmall: An image is too small to reach the last layer.
        InputError: A number makes no sense.
    """
    given = f"{num_classes}, {width} and {image_size}"
    makes_sense = num_classes >= 2 and 0 < width < inf and image_size > 0
    require(
        makes_sense,
        f"there must be 2 classes or more, a positive width and image size; they are {given}",
    )
    table: list[Shape] = []
    maps, size = 3, image_size
    for layer in preset.layers:
        in_maps = maps * (preset.columns if layer.reads == "both" else 1)
        own = max(1, round(layer.maps * width)) if layer.maps else num_classes
        pad, out = _padding(layer, size) if layer.kernel else ((0, 0), 1)
        pooled = out
        for op in layer.then:
            pooled = op.out_size(pooled)
        if out <= 0 or pooled <= 0:
            small = f"images of {image_size} x {image_size} are too small for preset"
            no = f"{layer.name} would have no output"
            raise TooSmall(f"{small} {preset.name!r}: {no}; use larger ones")
        table.append(Shape(layer, preset.columns, in_maps, size, pad, own, out, pooled))
        maps, size = own, pooled
    return table


def least_image_size(preset: Preset) -> int:
    """The smallest side of an image, in pixels, that reaches the preset's last layer."""

    def reaches(size: int) -> bool:
        try:
            shapes(preset, image_size=size)
        except TooSmall:
            return False
        return True

    return next(size for size in itertools.count(1) if reaches(size))


def _padding(layer: Layer, size: int) -> tuple[tuple[int, int], int]:
    """A convolution's zeros, before and after, and the side of its output."""
    if layer.pad is None:
        out = max(0, ceil((size - layer.kernel) / layer.stride)) + 1
        return (0, (out - 1) * layer.stride + layer.kernel - size), out
    return (layer.pad, layer.pad), (size + 2 * layer.pad - layer.kernel) // layer.stride + 1


def initial_sigmas(preset: Preset, table: list[Shape]) -> list[float]:
    """The standard deviation of each layer's initial weights.

    The table's sigma, times sqrt(fan-in of the full net / fan-in of this one), unless the preset
    says not to, or has a gain.

    Args:
        preset: Its sigmas, gain and reference size.
        table: The net's layers, as `shapes` gives them.

    Returns:
        One number a layer.
    """
    if preset.gain is not None:
        return [preset.gain / row.fan_in**0.5 for row in table]
    if not preset.scale_sigma:
        return [row.layer.sigma for row in table]
    full = shapes(preset, image_size=preset.reference_size)
    return [
        row.layer.sigma * (big.fan_in / row.fan_in) ** 0.5
        for row, big in zip(table, full, strict=True)
    ]


def total(table: list[Shape], what: str) -> int:
    """The sum of a property, such as "parameters", over all layers.

    Args:
        table: The net's layers, as `shapes` gives them.
        what: The name of a property of `Shape` that is a number.
    """
    return sum(getattr(row, what) for row in table)


def crossings(table: list[Shape]) -> dict[str, int]:
    """Elements per image that each column sends to each other one, by the layer that reads them.

    These are the maps that a layer reads from both columns, those that it normalizes across
    columns, and the last layer's partial logits.
    """
    if table[0].columns == 1:
        return {}
    counts: dict[str, int] = {}
    for row in table:
        count = row.in_maps // row.columns * row.in_size**2 if row.layer.reads == "both" else 0
        size = row.size
        for op in row.layer.then:
            count += row.maps * size**2 if op.is_merged else 0
            size = op.out_size(size)
        counts |= {row.layer.name: count} if count else {}
    return counts | {table[-1].layer.name: table[-1].maps}
