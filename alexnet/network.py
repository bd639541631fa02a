"""AlexNet as Figure 2 draws it (section 3 of the paper): columns, and the places where they meet.

The layers, their order and their sizes stand in `alexnet.presets`; this file turns such a table
into modules.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import alexnet_kernels as kernels
from alexnet import inputs, rng
from alexnet.convolutions import blocked_weight, in_blocks, locally_connected, space_to_depth
from alexnet.errors import InputError, require
from alexnet.exchange import Together
from alexnet.presets import Preset, get
from alexnet.presets.operations import LRN, Activation, Operation, Pool
from alexnet.presets.sizes import Shape, initial_sigmas, shapes
from alexnet.presets.variants import with_activation
from alexnet.summary import summary

if TYPE_CHECKING:
    from alexnet.classifier import Classifier


class OperationModule(nn.Module):
    """One column's share of an operation: a row of the table, with the tensors that it keeps."""

    def __init__(self, row: Operation, maps: int, layer: int, column: int):
        super().__init__()
        self.row, self.layer, self.column = row, layer, column
        for state in row.state:
            value = torch.full(state.shape(maps), state.initial)
            if state.kind:
                self.register_parameter(state.name, nn.Parameter(value))
            else:
                self.register_buffer(state.name, value)

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        return self.row.apply(x, self, keys)

    def extra_repr(self) -> str:
        return repr(self.row)

    def _apply(self, fn, recurse=True):
        """Keep statistics at least in float32: a running mean would stand still in less."""
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, new in dict(self.named_buffers()).items():
            if new.dtype.itemsize < 4:
                self._buffers[name] = before[name].to(new.device, torch.float32)
        return self


class Stage(nn.Module):
    """One column's share of one layer: its weighted sums and whatever follows them."""

    def __init__(self, shape: Shape, column: int, index: int, sigma: float, seed: int):
        super().__init__()
        self.shape, self.column = shape, column
        weight, bias = shape.tensors[:2]
        key = rng.key(rng.INITIAL, seed, index, column)
        generator = torch.Generator().manual_seed(int(key))
        values = torch.empty(weight.shape).normal_(0, sigma, generator=generator)
        self.weight, self.bias = nn.Parameter(values), None
        if bias.dim is not None or column == 0:
            self.bias = nn.Parameter(torch.empty(bias.shape).fill_(shape.layer.bias))
        self.operations = nn.ModuleList(
            OperationModule(row, shape.maps, index, column) for row in shape.layer.then
        )
        self.fused, count = fuse(shape.layer.then)
        separate = tuple(self.operations)[count:]
        meeting = [i for i, op in enumerate(shape.layer.then[count:]) if op.is_merged]
        bounds = [0, *(meeting if shape.columns > 1 else []), len(separate)]
        # `separate` is the column's own work; each of `met` begins with an operation on the maps
        # of all columns
        self.separate, *self.met = (separate[i:j] for i, j in pairwise(bounds))

    def tensors(self) -> dict[str, Tensor]:
        """Its parameters and buffers by name."""
        return dict(self.named_parameters()) | dict(self.named_buffers())

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        """What the column makes of x before any operation on the maps of all columns.

        x: maps (N, C, H, W) or units (N, C); keys: int64 (N,), one for each image, from which
        dropout draws in training.
        """
        x = self.weighted_sums(x, None if self.fused else self.bias)
        if self.fused:
            x = self.fused(x, self.bias)
        for operation in self.separate:
            x = operation(x, keys)
        return x

    def weighted_sums(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if not self.shape.layer.kernel:
            return F.linear(x.flatten(1), self.weight, bias)
        if self.shape.layer.local:
            before, after = self.shape.pad
            x = F.pad(x, (before, after, before, after))
            sums = locally_connected(x, self.weight, self.shape.layer.stride)
            return sums if bias is None else sums + bias
        if x.shape[1] != self.shape.in_maps:  # `prepared` as blocks
            return F.conv2d(x, blocked_weight(self.weight, self.shape.layer.stride), bias)
        before, after = self.shape.pad
        pad = before if before == after else 0
        return F.conv2d(self.prepared(x), self.weight, bias, self.shape.layer.stride, pad)

    def prepared(self, x: Tensor) -> Tensor:
        """The input as the convolution takes it: with the zeros on the right and bottom that it
        cannot add by itself, or in blocks."""
        before, after = self.shape.pad
        if x.shape[1] != self.shape.in_maps or x.shape[-1] > self.shape.in_size:
            return x
        if form := in_blocks(self.shape, x.dtype):
            return space_to_depth(x, *form)
        return x if before == after else F.pad(x, (before, after, before, after))


def fuse(then: tuple[Operation, ...]) -> tuple[Callable[..., Tensor] | None, int]:
    """What one kernel can do of the operations: a function of the sums without bias and of the
    bias, or None; and how many of the first operations it stands for."""
    match then:
        case (Activation("relu"), LRN(merged=False) as norm, Pool(ceil=False) as pool, *_):
            relu = "before"
        case (LRN(merged=False) as norm, Pool(ceil=False) as pool, Activation("relu"), *_):
            relu = "after"
        case _:
            return None, 0
    settings = {name: getattr(norm, name) for name in ("size", "alpha", "beta", "k")}
    settings |= {"relu": relu, "pool_size": pool.size, "pool_stride": pool.stride}
    return partial(kernels.response_norm_pool, **settings), 3


class AlexNet(nn.Module):
    """The network.

    Input float (N, 3, S, S), RGB, 0..255 minus the mean image, in bfloat16 also in blocks as
    `alexnet.convolutions.in_blocks` has them; output logits (N, num_classes). `preprocess` makes it
    from photographs; the first input that is plainly of another range, such as pixels in 0..1, gets
    a warning. Initial weights follow `torch.manual_seed`, and are the same for a column wherever it
    lives.

    Args:
        preset: "paper" (the text), "source" (net 145 of the released source), "caffe" (that of
            the published weights) or "four-layer" (Figure 1), with variants: "paper/no-lrn".
        width: Scales every layer's maps and units; each layer's sigma * sqrt(fan-in) stays.
        image_size: Side of the input, S.
        exchange: How columns meet; None: all live in this process.
        activation: Takes the place of each nonlinearity of the preset: "relu", "tanh", "sigmoid",
            or a function of a tensor, such as `torch.nn.functional.gelu`.

    Attributes:
        table: The arithmetic of each layer (`alexnet.presets.Shape`).
        mean_image: The mean image of the training images, float32 (S', S', 3) with S' >= S, where
            it is known: `preprocess` takes it away.

    Raises:
        InputError: The preset or activation is unknown, or images are too small to pass through
            all layers.
    """

    mean_image: np.ndarray | None = None
    _range_is_known = False  # whether the range of an input has been looked at

    def __init__(
        self,
        preset: str | Preset = "paper",
        num_classes: int = 1000,
        width: float = 1.0,
        image_size: int = 224,
        exchange: Together | None = None,
        activation: str | Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.preset, self.width = get(preset), width
        if activation is not None:
            self.preset = with_activation(self.preset, activation)
        self.table = shapes(self.preset, num_classes, width, image_size)
        self.exchange = exchange or Together()
        self.numbers = self.exchange.own_columns(self.preset.columns)
        seed = int(torch.randint(2**62, ()))
        rows = list(zip(self.table, initial_sigmas(self.preset, self.table), strict=True))
        self.columns = nn.ModuleDict()
        for number in self.numbers:
            self.columns[str(number)] = column = nn.ModuleDict()
            for index, (row, sigma) in enumerate(rows):
                column[row.layer.name] = Stage(row, number, index, sigma, seed)

    @classmethod
    def from_run(cls, folder: str | Path) -> "Classifier":
        """A finished run's net with its preprocessing and class names, to be called on photographs:
        `AlexNet.from_run("run")("cat.jpg").top()`. See `alexnet.Classifier`."""
        from alexnet.classifier import Classifier

        return Classifier.open(folder)

    @classmethod
    def pretrained(cls, name: str = "tiny-imagenet") -> "Classifier":
        """The same of weights that come along, in results/weights/. Raises InputError, which lists
        them, for another name."""
        from alexnet.pretrained import open_pretrained

        return open_pretrained(name)

    def preprocess(self, photos: Any, mean: Any = None) -> Tensor:
        """Make the net's input from photographs: the short side is scaled to the mean image's, the
        center is cut out, and the mean image is taken away.

        Args:
            photos: One photograph or several: paths, Pillow images, arrays (H, W, 3) in 0..255.
            mean: The mean image (S', S', 3), or three numbers; None: `mean_image`.

        Returns:
            (N, 3, S, S), of the net's type and on its device.

        Raises:
            InputError: One is no image, or no mean image is known.
        """
        return inputs.preprocess(self, photos, mean)

    def __repr__(self) -> str:
        classes, side = self.table[-1].maps, self.table[0].in_size
        kind = f"AlexNet({self.preset.name!r}, {classes}, {self.width:g}, {side})"
        return f"{kind}\n{summary(self)}"

    def stages(self, name: str) -> list[Stage]:
        """This process's shares of layer `name`, column by column."""
        return [cast(Stage, column.get_submodule(name)) for column in self.columns.values()]

    def parameter_kinds(self) -> dict[str, str]:
        """The kind of each parameter ("weight", "bias", "gain"), keyed like `named_parameters`."""
        tensors = (tensor for row in self.table for tensor in row.tensors)
        kinds = {f"{tensor.layer}.{tensor.name}": tensor.kind or "" for tensor in tensors}
        return {name: kinds[name.split(".", 2)[2]] for name, _ in self.named_parameters()}

    def forward(self, images: Tensor, keys: Tensor | None = None) -> Tensor:
        """The logits.

        Args:
            images: (N, 3, S, S).
            keys: int64 (N,), what each image's dropout masks are drawn from in training; None
                draws them from torch's generator.

        Raises:
            InputError: The input is of another size.
        """
        return self.exchange.sum(self._parts(images, keys, self.table), self.table[-1].layer.name)

    def features(self, images: Tensor, layer: str = "fc7") -> Tensor:
        """What a layer hands on to the layers above, as in evaluation: a net in training mode gives
        the same, without dropout's masks, and stays in it.

        Args:
            images: (N, 3, S, S).
            layer: Any but the last, whose sums are the logits.

        Returns:
            All columns side by side, column 0 first: units (N, C), 4096 for fc7, or maps
            (N, C, H, W).

        Raises:
            InputError: The net has no such layer below its last.
        """
        names = [row.layer.name for row in self.table[:-1]]
        require(
            layer in names,
            f"preset {self.preset.name!r} has no layer {layer!r} below its last; it has "
            f"{', '.join(names)}",
        )
        table = self.table[: names.index(layer) + 1]
        modes = [(module, module.training) for module in self.modules()]
        try:
            self.eval()
            return self.exchange.gather(self._parts(images, None, table), layer)
        finally:
            for module, mode in modes:
                module.training = mode

    def _parts(self, images: Tensor, keys: Tensor | None, table: list[Shape]) -> list[Tensor]:
        """What each of this process's columns makes of the images by the layers of `table`."""
        side, form = self.table[0].in_size, in_blocks(self.table[0], images.dtype)
        is_prepared = form and images.shape[1:] == (3 * form[0] ** 2, *[form[1] // form[0]] * 2)
        if images.shape[1:] != (3, side, side) and not is_prepared:
            raise InputError(
                f"the net's input is (N, 3, {side}, {side}); it is {tuple(images.shape)}: crop it, "
                "or set image_size"
            )
        if not self._range_is_known and inputs.is_plain(images):
            self._range_is_known = True
            inputs.warn_of_range(images, self.preset)
        if self.training and keys is None:
            keys = torch.randint(2**62, (images.shape[0],), device=images.device)
        # once for all columns
        parts = [self.stages(table[0].layer.name)[0].prepared(images)] * len(self.numbers)
        for row in table:
            if row.layer.reads == "both":
                parts = [self.exchange.gather(parts, row.layer.name)] * len(parts)
            stages = self.stages(row.layer.name)
            parts = [stage(part, keys) for stage, part in zip(stages, parts, strict=True)]
            for runs in zip(*(stage.met for stage in stages), strict=True):
                parts = self._meet(row, parts, runs, keys)
        return parts

    def _meet(
        self,
        row: Shape,
        parts: list[Tensor],
        runs: tuple[tuple[OperationModule, ...], ...],
        keys: Tensor | None,
    ) -> list[Tensor]:
        """What the columns make of their parts by runs of operations, a run for each of them, of
        which the first operation is on the maps of all columns."""
        whole = runs[0][0](self.exchange.gather(parts, row.layer.name), keys)
        shares = whole.chunk(self.preset.columns, 1)
        parts = [shares[number] for number in self.numbers]
        for i, (_, *own) in enumerate(runs):
            for operation in own:
                parts[i] = operation(parts[i], keys)
        return parts

    def summary(self) -> None:
        """Print the table of layers: what each reads, its maps, neurons, parameters, multiply-
        accumulates for one image, columns and devices."""
        print(summary(self))

    def export_merged(self) -> dict[str, Tensor]:
        """The parameters and buffers in the layout of one device, column 0 first.

        conv1.weight (96, 3, 11, 11), conv2.weight (256, 48, 5, 5) ... fc8.weight (num_classes,
        4096), biases; then what operations keep, such as conv1.batch_norm.running_mean.
        """
        merged = {}
        for row in self.table:
            columns = [stage.tensors() for stage in self.stages(row.layer.name)]
            for kept in row.tensors:
                shares = [own[kept.name].detach() for own in columns if kept.name in own]
                together = shares[:1] if kept.dim is None else shares
                merged[kept.merged] = torch.cat(together, kept.dim or 0)
        return merged

    @torch.no_grad()
    def load_merged(self, state_dict: dict[str, Tensor], but: Collection[str] = ()) -> None:
        """Take parameters and buffers from the layout of one device; of each, what this process's
        columns need.

        Args:
            state_dict: As `export_merged` gives it.
            but: Layers that stay as they are, whatever `state_dict` holds for them.

        Raises:
            InputError: An entry is missing, surplus, misshapen or no tensor of floating-point
                numbers; nothing is changed then.
        """
        check_merged(state_dict, self.preset, self.table, but)
        for row in self.table:
            for stage in self.stages(row.layer.name) if row.layer.name not in but else []:
                own = stage.tensors()
                for kept in (kept for kept in row.tensors if kept.name in own):
                    value, dim, count = state_dict[kept.merged], kept.dim, kept.columns
                    share = value if dim is None else value.chunk(count, dim)[stage.column]
                    own[kept.name].copy_(share)


def check_merged(
    state_dict: dict[str, Tensor], preset: Preset, table: list[Shape], but: Collection[str] = ()
) -> None:
    """Raise the InputError of `AlexNet.load_merged` where `state_dict` does not fit a net of
    `preset` whose layers are `table`."""
    is_mapping = isinstance(state_dict, Mapping)
    require(is_mapping, f"weights are tensors by name; this is a {type(state_dict).__name__}")
    layers = [row.layer.name for row in table]
    for name in but:
        require(name in layers, f"there is no layer {name!r}; there are {', '.join(layers)}")
    kept = [tensor for row in table for tensor in row.tensors if tensor.layer not in but]
    expected, label = {tensor.merged: tensor.merged_shape for tensor in kept}, repr(preset.name)
    for name in state_dict:
        known = name in expected or str(name).partition(".")[0] in but
        require(known, f"the weights hold {name}, which preset {label} does not have")
    for name, shape in expected.items():
        require(name in state_dict, f"the weights lack {name}; preset {label} needs it")
        value = state_dict[name]
        kind: object = value.dtype if isinstance(value, Tensor) else type(value).__name__
        fits = isinstance(value, Tensor) and value.is_floating_point()
        require(fits, f"{name} is of {kind}; give a torch.Tensor of floating-point numbers")
        kind = "on the meta device" if value.is_meta else value.layout
        fits = not value.is_meta and value.layout == torch.strided
        require(fits, f"{name} is {kind}; give a dense tensor with its numbers")
        given = tuple(value.shape)
        require(given == shape, f"{name} has shape {given}; this net needs {shape}")
