"""What a file of published weights holds, however it is written."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from alexnet import presets
from alexnet.errors import InputError, require
from alexnet.presets import Activation, Layer, Pool, Preset, Shape
from alexnet.presets.operations import LRN, Operation

# The nets of the files that say theirs, the likeliest first.
CAFFE_NETS = (
    "caffe",
    "caffe/pool-before-norm",
    "caffe/224-unpadded",
    "caffe/224-unpadded/pool-before-norm",
)
# the mean color of ImageNet, RGB, as Caffe's users take it
CAFFE_COLOR = np.array([123, 117, 104], np.float32)


@dataclass(frozen=True)
class Published:
    """The content of a file.

    Args:
        kind: What file it is, in words.
        tensors: In the merged layout, except for the order of colors.
        preset: The net that the weights belong to.
        image_size: Side of its input, in pixels.
        bgr: conv1 reads blue, green, red.
        width: None: follows from the tensors.
        mean: The mean image, RGB, float32 (S, S, 3), where the file holds it; or the mean color.
        classes: Identifiers of the classes, where the file holds them; `names`: what people call
            them.
        license: Of the weights, where the file says it.
    """

    kind: str
    tensors: dict[str, Tensor]
    preset: str
    image_size: int
    bgr: bool
    width: float | None = None
    mean: np.ndarray | None = None
    classes: list[str] | None = None
    names: list[str] | None = None
    license: str | None = None


@dataclass(frozen=True)
class Options:
    """What a user says of a file that does not say it itself; None: nothing."""

    preset: str | None = None
    image_size: int | None = None
    bgr: bool = False


def refuse_torchvision(file: object, first: tuple[int, ...]) -> None:
    """Raise InputError where a first convolution's weights of this shape are torchvision's.

    Args:
        file: Named in the message.
        first: The shape of the first convolution's weights.
    """
    require(
        first != (64, 3, 11, 11),
        f"{file} holds torchvision's AlexNet, which is another net: 64, 192, 384, 256 and 256 maps "
        "in one column, no response normalization, pixels by mean and standard deviation; use it "
        "by torchvision.models.alexnet",
    )


def net_of(
    file: object, layers: list[Layer], image_size: int, num_classes: int, preset: str | None
) -> str:
    """The preset that a file's layers are those of.

    Args:
        layers: With `reads` "both" for a convolution without groups.
        preset: The one that it must be, if any.

    Raises:
        InputError: They are of another net; the first difference is named.
    """
    candidates = (preset,) if preset else CAFFE_NETS
    best, difference = -1, ""
    own = presets.shapes(Preset("file", tuple(layers)), num_classes, image_size=image_size)
    for name in candidates:
        try:
            expected = presets.shapes(presets.get(name), num_classes, image_size=image_size)
        except InputError as error:
            difference = difference or str(error)
            continue
        same = [described(a) == described(b) for a, b in zip(own, expected)]
        if len(own) == len(expected) and all(same):
            return name
        if sum(same) > best and len(own) == len(expected):
            best, row = sum(same), same.index(False)
            difference = (
                f"{own[row].layer.name} is {described(own[row])}; in preset {name} it is "
                f"{described(expected[row])}"
            )
        difference = difference or f"{len(own)} layers with weights instead of {len(expected)}"
    raise InputError(f"{file} holds another net than AlexNet as Caffe has it: {difference}")


def described(row: Shape) -> str:
    """What a layer computes from trained weights, in words that agree where the layers do."""
    layer, size = row.layer, row.size
    words = ["fully connected"]
    if layer.kernel:
        before, after = row.pad
        words = [f"{layer.kernel} x {layer.kernel}, stride {layer.stride}"]
        words.append(f"padding {before} before and {after} after")
        words.append(f"groups {row.columns if layer.reads == 'own' else 1}")
    for op in layer.then:
        size = op.out_size(size)
        words += _operation(op, size)
    return ", ".join(words)


def _operation(op: Operation, size: int) -> list[str]:
    match op:
        case Activation():
            return list(op.label)
        case LRN():
            where = "" if op.merged else " within columns"
            numbers = f"{op.size}, alpha {op.alpha:.4g}, beta {op.beta:.4g}, k {op.k:.4g}"
            return [f"LRN{where} ({numbers})"]
        case Pool():
            return [f"max pooling {op.size} / {op.stride} to {size} x {size}"]
    return []  # dropout, which does nothing at test time


def convolution(
    file: object,
    name: str,
    weight: np.ndarray,
    groups: int,
    stride: int,
    pad: int,
    then: Iterable[Operation] = (),
) -> Layer:
    """A convolution as a row of the table; in two groups it reads its own column.

    Args:
        file: Named in messages.
        name: The layer's.
        weight: (out, in, height, width).
        groups: 1 or 2.
        stride: In pixels.
        pad: Zeros on each side.
        then: What follows the sums.

    Raises:
        InputError: It has other groups, or kernels that are no squares.
    """
    shape = weight.shape
    require(
        groups in (1, 2) and len(shape) == 4 and shape[2] == shape[3],
        f"{file}: {name} has weights {shape} in {groups} groups; AlexNet has square kernels in one "
        "group or two",
    )
    reads = {("conv1", 1): "image"}.get((name, groups), "both" if groups == 1 else "own")
    return Layer(name, shape[0], cast(Any, reads), shape[2], stride, pad, then=tuple(then))


def full_layer(name: str, units: int, then: Iterable[Operation] = ()) -> Layer:
    """A fully connected layer as a row of the table.

    Args:
        name: The layer's.
        units: Of both columns together.
        then: What follows the sums.
    """
    if name == presets.get(CAFFE_NETS[0]).layers[-1].name:
        return Layer(name, 0, "own", then=tuple(then))
    return Layer(name, units, "both", then=tuple(then))


def layer_names(file: object, given: Iterable[str]) -> list[str]:
    """AlexNet's names for a file's layers with weights, which may have names of their own.

    Args:
        file: Named in messages.
        given: The file's names, in the order of the layers.

    Raises:
        InputError: They are more or fewer.
    """
    own, names = list(given), [layer.name for layer in presets.get(CAFFE_NETS[0]).layers]
    count = f"{len(own)} layers with weights ({', '.join(own)})" if own else "no layers"
    require(len(own) == len(names), f"{file} holds {count}; AlexNet has {len(names)}")
    return names


def tensors(
    names: Iterable[str], pairs: Iterable[tuple[np.ndarray, np.ndarray]]
) -> dict[str, Tensor]:
    """The merged layout, float32, of weights (out, in, ...) and biases of the layers named.

    Args:
        names: Of the layers.
        pairs: Weights and biases of each, in the same order.
    """
    merged = {}
    for name, pair in zip(names, pairs, strict=True):
        for part, values in zip(("weight", "bias"), pair, strict=True):
            own = np.array(values, np.float32)  # a copy, which torch may write to
            merged[f"{name}.{part}"] = torch.from_numpy(own)
    return merged
