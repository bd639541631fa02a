"""AlexNet as Figure 2 draws it (section 3 of the paper): columns, and the places where they meet.

The layers, their order and their sizes stand in `alexnet.presets`; this file turns such a table into modules.
"""

from collections.abc import Collection
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import alexnet_kernels as kernels
from alexnet import rng
from alexnet.errors import InputError
from alexnet.exchange import Together
from alexnet.presets import (
    LRN,
    Activation,
    Dropout,
    Operation,
    Pool,
    Preset,
    SameMapNorm,
    Shape,
    get,
    initial_sigmas,
    shapes,
    total,
)

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


class Stage(nn.Module):
    """One column's share of one layer: its weighted sums and whatever follows them."""

    def __init__(self, shape: Shape, column: int, index: int):
        super().__init__()
        self.shape, self.column, self.index = shape, column, index
        kernel = shape.layer.kernel
        size = (shape.in_maps, kernel, kernel) if kernel else (shape.fan_in,)
        self.weight = nn.Parameter(torch.empty(shape.maps, *size))
        # the last layer's sums belong to all columns; column 0 keeps their bias
        self.bias = (
            nn.Parameter(torch.empty(shape.maps)) if column == 0 or not shape.is_last else None
        )

    def initialize(self, sigma: float, seed: int) -> None:
        generator = torch.Generator().manual_seed(
            int(rng.key(rng.INITIAL, seed, self.index, self.column))
        )
        with torch.no_grad():
            self.weight.normal_(0, sigma, generator=generator)
            if self.bias is not None:
                self.bias.fill_(self.shape.layer.bias)

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        """x: maps (N, C, H, W) or units (N, C); keys: int64 (N,), one for each image, from which dropout draws in training."""
        match self.shape.layer.then:  # what one kernel does
            case (Activation("relu"), LRN() as norm, Pool(ceil=False) as pool, *rest):
                x = self.response_norm_pool(self.weighted_sums(x, None), norm, pool, "before")
            case (LRN() as norm, Pool(ceil=False) as pool, Activation("relu"), *rest):
                x = self.response_norm_pool(self.weighted_sums(x, None), norm, pool, "after")
            case rest:
                x = self.weighted_sums(x, self.bias)
        for operation in rest:
            x = self.apply_operation(operation, x, keys)
        return x

    def weighted_sums(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if not self.shape.layer.kernel:
            return F.linear(x.flatten(1), self.weight, bias)
        before, after = self.shape.pad
        return F.conv2d(
            self.padded(x),
            self.weight,
            bias,
            self.shape.layer.stride,
            before if before == after else 0,
        )

    def padded(self, x: Tensor) -> Tensor:
        """With the zeros that a convolution cannot add by itself: as many on the right and bottom as the last kernel needs. Maps that have
        them already stay as they are."""
        before, after = self.shape.pad
        return (
            x
            if before == after or x.shape[-1] > self.shape.in_size
            else F.pad(x, (before, after, before, after))
        )

    def response_norm_pool(self, x: Tensor, norm: LRN, pool: Pool, relu: str) -> Tensor:
        return kernels.response_norm_pool(
            x,
            self.bias,
            norm.size,
            norm.alpha,
            norm.beta,
            norm.k,
            relu=relu,
            pool_size=pool.size,
            pool_stride=pool.stride,
        )

    def apply_operation(self, op: Operation, x: Tensor, keys: Tensor | None) -> Tensor:
        match op:
            case Activation():
                return ACTIVATIONS[op.kind](x)
            case LRN():
                return kernels.local_response_norm(x, op.size, op.alpha, op.beta, op.k)
            case SameMapNorm():
                return kernels.same_map_norm(x, op.size, op.alpha, op.beta, op.k)
            case Pool():
                over = (x.shape[-1] - op.size) % op.stride if op.ceil else 0
                if over:  # nothing wins against -inf
                    x = F.pad(x, (0, op.stride - over, 0, op.stride - over), value=-torch.inf)
                return kernels.max_pool(x, op.size, op.stride)
            case Dropout():
                if self.training and keys is not None:
                    kept = rng.keep(rng.key(keys, self.index, self.column), x.shape[1], op.keep)
                    x = x * kept.to(
                        x.dtype
                    )  # once: bools would be converted here and again for the gradient
                    return x / op.keep if op.inverted else x
                return x if op.inverted else x * op.keep


class AlexNet(nn.Module):
    """The network. Input float (N, 3, S, S), RGB, 0..255 minus the mean image; output logits (N, num_classes).

    preset: "paper" (the text), "source" (net 145 of the released source), "four-layer" (Figure 1), with variants: "paper/no-lrn". width
    scales every layer's maps and units, image_size the maps' sides; smaller nets keep each layer's sigma * sqrt(fan-in). Initial weights
    follow `torch.manual_seed`, and are the same for a column wherever it lives. Raises InputError for an unknown preset, for images too
    small to pass through all layers, and for input of another size.
    """

    def __init__(
        self,
        preset: str | Preset = "paper",
        num_classes: int = 1000,
        width: float = 1.0,
        image_size: int = 224,
        exchange: Together | None = None,
    ):
        super().__init__()
        self.preset, self.width = get(preset), width
        self.table = shapes(self.preset, num_classes, width, image_size)
        self.exchange = exchange or Together()
        self.numbers = self.exchange.here(
            self.preset.columns
        )  # the columns that live in this process
        seed = int(torch.randint(2**62, ()))
        sigmas = initial_sigmas(self.preset, self.table)
        self.columns = nn.ModuleDict()
        for number in self.numbers:
            stages = {
                row.layer.name: Stage(row, number, index) for index, row in enumerate(self.table)
            }
            for stage, sigma in zip(stages.values(), sigmas, strict=True):
                stage.initialize(sigma, seed)
            self.columns[str(number)] = nn.ModuleDict(stages)

    def stages(self, name: str) -> list[Stage]:
        """The shares of layer `name` that live here, column by column."""
        return [cast(Stage, column.get_submodule(name)) for column in self.columns.values()]

    def forward(self, images: Tensor, keys: Tensor | None = None) -> Tensor:
        """keys: int64 (N,), what each image's dropout masks are drawn from in training; None draws them from torch's generator."""
        return self.exchange.sum(self._parts(images, keys, self.table), self.table[-1].layer.name)

    def features(self, images: Tensor, layer: str = "fc7") -> Tensor:
        """What `layer` hands on to the layers above, all columns side by side, column 0 first: units (N, C), 4096 for fc7, or maps
        (N, C, H, W). In evaluation mode; raises InputError for a layer that the net lacks, and for the last, whose sums are the logits."""
        names = [row.layer.name for row in self.table[:-1]]
        if layer not in names:
            raise InputError(
                f"preset {self.preset.name!r} has no layer {layer!r} below its last; it has {', '.join(names)}"
            )
        return self.exchange.gather(
            self._parts(images, None, self.table[: names.index(layer) + 1]), layer
        )

    def _parts(self, images: Tensor, keys: Tensor | None, table: list[Shape]) -> list[Tensor]:
        """What each column that lives here makes of the images by the layers of `table`."""
        side = self.table[0].in_size
        if images.dim() != 4 or images.shape[1:] != (3, side, side):
            raise InputError(
                f"the net's input is (N, 3, {side}, {side}); it is {tuple(images.shape)}: crop it, or set image_size"
            )
        if self.training and keys is None:
            keys = torch.randint(2**62, (images.shape[0],), device=images.device)
        parts = [self.stages(table[0].layer.name)[0].padded(images)] * len(
            self.numbers
        )  # once for all columns
        for row in table:
            if row.layer.reads == "both":
                parts = [self.exchange.gather(parts, row.layer.name)] * len(parts)
            parts = [
                stage(part, keys)
                for stage, part in zip(self.stages(row.layer.name), parts, strict=True)
            ]
        return parts

    def summary(self) -> None:
        """Prints the table of layers: what each reads, its maps, neurons, parameters, multiply-accumulates for one image, columns and
        devices."""
        print(summary(self))

    def export_merged(self) -> dict[str, Tensor]:
        """The layout of one device, column 0 first: conv1.weight (96, 3, 11, 11), conv2.weight (256, 48, 5, 5) ... fc8.weight (num_classes,
        4096), biases."""
        merged = {}
        for row in self.table:
            stages = self.stages(row.layer.name)
            merged[f"{row.layer.name}.weight"] = torch.cat(
                [s.weight.detach() for s in stages], dim=1 if row.is_last else 0
            )
            merged[f"{row.layer.name}.bias"] = torch.cat(
                [s.bias.detach() for s in stages if s.bias is not None]
            )
        return merged

    def load_merged(self, state_dict: dict[str, Tensor], but: Collection[str] = ()) -> None:
        """Takes weights in the merged layout; of each, what the columns that live here need. Layers named in `but` stay as they are,
        whatever the weights hold for them. Raises InputError that names a missing, surplus or misshapen entry, and then changes nothing."""
        rows = [row for row in self.table if row.layer.name not in but]
        check_merged(state_dict, self.preset, self.table, but)
        with torch.no_grad():
            for row in rows:
                weights = state_dict[f"{row.layer.name}.weight"].chunk(
                    row.columns, dim=1 if row.is_last else 0
                )
                biases = state_dict[f"{row.layer.name}.bias"].chunk(
                    1 if row.is_last else row.columns
                )
                for stage in self.stages(row.layer.name):
                    stage.weight.copy_(weights[stage.column])
                    if stage.bias is not None:
                        stage.bias.copy_(biases[stage.column])


def check_merged(
    state_dict: dict[str, Tensor], preset: Preset, table: list[Shape], but: Collection[str] = ()
) -> None:
    """Raises the InputError of `AlexNet.load_merged` where these weights do not fit a net of `preset` whose layers are `table`."""
    own = {
        name: shape
        for row in table
        for name, shape in _merged(row).items()
        if row.layer.name not in but
    }
    for name in state_dict:
        if name not in own and name.rpartition(".")[0] not in but:
            raise InputError(f"the weights hold {name}, which preset {preset.name!r} does not have")
    for name, shape in own.items():
        if name not in state_dict:
            raise InputError(f"the weights lack {name}; preset {preset.name!r} needs it")
        if state_dict[name].shape != shape:
            raise InputError(
                f"{name} has shape {tuple(state_dict[name].shape)}; this net needs {shape}"
            )


def _merged(row: Shape) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a layer's weights and biases in the merged layout."""
    kernel, name = row.layer.kernel, row.layer.name
    if row.is_last:
        return {f"{name}.weight": (row.maps, row.fan_in * row.columns), f"{name}.bias": (row.maps,)}
    reads = (row.in_maps, kernel, kernel) if kernel else (row.fan_in,)
    return {f"{name}.weight": (row.maps * row.columns, *reads), f"{name}.bias": (row.biases,)}


def summary(net: AlexNet) -> str:
    """The table that `AlexNet.summary` prints."""
    devices = " + ".join(str(stage.weight.device) for stage in net.stages(net.table[0].layer.name))
    head = (
        "layer",
        "reads",
        "kernel",
        "maps",
        "map",
        "pooled",
        "neurons",
        "parameters",
        "MACs",
        "columns",
        "device",
    )
    rows: list[tuple[str, ...]] = []
    for row in net.table:
        layer, spatial = row.layer, bool(row.layer.kernel)
        rows.append((
            layer.name,
            layer.reads,
            f"{layer.kernel}x{layer.kernel}/{layer.stride}" if spatial else "full",
            f"{row.maps}" if row.is_last or row.columns == 1 else f"{row.columns} x {row.maps}",
            f"{row.size}x{row.size}" if spatial else "",
            f"{row.out_size}x{row.out_size}" if row.out_size != row.size else "",
            f"{row.neurons:,}",
            f"{row.parameters:,}",
            f"{row.macs:,}",
            " + ".join(str(n) for n in net.numbers),
            devices,
        ))  # fmt: skip
    rows.append(
        (
            "total",
            "",
            "",
            "",
            "",
            "",
            *(f"{total(net.table, what):,}" for what in ("neurons", "parameters", "macs")),
            "",
            "",
        )
    )
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    left = {0, 1, 2, 9, 10}
    aligned = [
        [
            cell.ljust(w) if i in left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths))
        ]
        for row in (head, *rows)
    ]
    lines = ["  ".join(cells) for cells in aligned]
    rule = "-" * max(len(line.rstrip()) for line in lines)
    return "\n".join(line.rstrip() for line in (lines[0], rule, *lines[1:-1], rule, lines[-1]))
