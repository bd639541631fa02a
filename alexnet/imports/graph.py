"""The ONNX zoo's files of AlexNet, of any opset: weights, and the graph that says what net they are
of."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.errors import InputError, needs, require
from alexnet.imports.published import (
    CAFFE_COLOR,
    Options,
    Published,
    convolution,
    full_layer,
    layer_names,
    net_of,
    refuse_torchvision,
    tensors,
)
from alexnet.presets import LRN, RELU, Layer, Operation, Pool

# What changes no number at test time, and what is made of the logits.
ASIDE = ("Reshape", "Flatten", "Dropout", "Identity", "Softmax")
ONES = (None, [1, 1])
QUANTIZED = ("QLinear", "Quantize", "Dequantize", "DynamicQuantize", "ConvInteger", "MatMulInteger")


def read(file: Path, options: Options) -> Published:
    """Read a .onnx file.

    Args:
        file: The file.
        options: What the user says of the file.

    Raises:
        InputError: It is damaged, of another net, or its weights are rounded to eight bits.
    """
    onnx = needs("onnx", extra="export", what="reading ONNX")
    try:
        model = onnx.load(str(file))
        values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    except Exception as error:  # protobuf's, and onnx's own of many kinds
        reason = type(error).__name__
        raise InputError(
            f"{file} is no ONNX file, or a truncated one ({reason}); fetch it again"
        ) from None
    graph = model.graph
    require(graph.node, f"{file} is no ONNX file, or an empty one: it has no graph")
    rounded = [node.op_type for node in graph.node if node.op_type.startswith(QUANTIZED)]
    require(
        not rounded,
        f"{file} holds weights and maps rounded to eight bits ({', '.join(sorted(set(rounded)))}), "
        "a net with errors of its own that no preset computes; import the file of the same opset "
        "without -int8 or -qdq",
    )
    nodes = list(_chain(file, graph, values, onnx))
    weighted = [node for node in nodes if node.kind in ("Conv", "Gemm")]
    if weighted and weighted[0].kind == "Conv":
        refuse_torchvision(file, weighted[0].pair(values)[0].shape)
    names = layer_names(file, (node.name for node in weighted))
    pairs = [node.pair(values) for node in weighted]
    layers = _layers(nodes, names, pairs)
    size, classes = _side(file, graph, values), len(pairs[-1][1])
    given = options.image_size
    require(given in (None, size), f"{file} takes images of {size} pixels, not {given}")
    preset = net_of(file, layers, size, classes, options.preset)
    return Published("ONNX graph", tensors(names, pairs), preset, size, True, mean=CAFFE_COLOR)


class Node:
    """A node of the graph, with its attributes."""

    def __init__(self, file: Path, node: Any, onnx: Any):
        self.file, self.kind, self.inputs = file, node.op_type, list(node.input)
        self.name = node.name or node.output[0]
        self.settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}

    def require(self, fits: object, problem: str) -> None:
        """Raise InputError that names the node where something does not fit.

        Args:
            fits: Anything; taken as true or false.
            problem: What is wrong, in words.
        """
        require(fits, f"{self.file}: node {self.name!r} ({self.kind}) {problem}")

    def pair(self, values: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Weights (out, in, ...) and biases."""
        names = self.inputs[1:]
        stored = len(names) == 2 and all(name in values for name in names)
        self.require(stored, "has no weights and biases that are stored in the file")
        weight, bias = (values[name] for name in names)
        if self.kind == "Gemm" and not self.settings.get("transB", 0):
            weight = weight.T
        return weight, bias.reshape(-1)

    @property
    def stride(self) -> int:
        strides = self.settings.get("strides") or [1, 1]
        self.require(len(set(strides)) == 1, f"has strides {strides}")
        return strides[0]

    @property
    def pads(self) -> list[int]:
        """Top, left, bottom, right."""
        plain = self.settings.get("auto_pad", b"NOTSET") == b"NOTSET"
        self.require(plain, "has padding that its input decides")
        self.require(self.settings.get("dilations") in ONES, "is dilated")
        return list(self.settings.get("pads") or [0, 0, 0, 0])

    def operation(self) -> Operation:
        """The row of a table that it is."""
        given = self.settings
        if self.kind == "Relu":
            return RELU
        if self.kind == "LRN":  # alpha is divided by the window
            size, alpha = given["size"], given.get("alpha", 1e-4)
            beta, k = given.get("beta", 0.75), given.get("bias", 1.0)
            return LRN(size, alpha / size, beta, k, merged=True)
        self.require(self.kind == "MaxPool", "is nothing that AlexNet has")
        window, pads, stride = given["kernel_shape"], self.pads, self.stride
        self.require(len(set(window)) == 1, f"has windows {window}")
        over = pads == [0, 0, 1, 1] and stride == 2  # one more row and column: the same as ceil
        self.require(over or not any(pads), f"has padding {pads}")
        return Pool(window[0], stride, ceil=bool(over or given.get("ceil_mode", 0)))


def _chain(file: Path, graph: Any, values: dict, onnx: Any) -> Iterator[Node]:
    """The nodes from the image to the output, each of which reads what the last one made; constants
    go into `values`.

    Raises:
        InputError: They do not lead to the output: the graph branches.
    """
    images = [entry.name for entry in graph.input if entry.name not in values]
    require(images, f"{file} has no input for images")
    current = images[0]
    for one in graph.node:
        if one.op_type == "Constant" and one.attribute and one.attribute[0].name == "value":
            values[one.output[0]] = onnx.numpy_helper.to_array(one.attribute[0].t)
        elif one.input and one.input[0] == current:
            yield Node(file, one, onnx)
            current = one.output[0]
    ends = [entry.name for entry in graph.output]
    require(current in ends, f"{file}: its graph branches at {current!r}, which AlexNet's does not")


def _side(file: Path, graph: Any, values: dict) -> int:
    image = next(entry for entry in graph.input if entry.name not in values)
    dims = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    fits = len(dims) == 4 and dims[1] == 3 and dims[2] == dims[3] > 0
    require(fits, f"{file} takes {dims}, not square images of three colors")
    return dims[2]


def _layers(nodes: list[Node], names: list[str], pairs: list) -> list[Layer]:
    """The table's rows; raises InputError for a node that can be in none."""
    layers: list[Layer] = []
    left = iter(zip(names, pairs, strict=True))
    for node in nodes:
        if node.kind == "Gemm":
            name, (_, bias) = next(left)
            plain = node.settings.get("alpha", 1.0) == node.settings.get("beta", 1.0) == 1.0
            node.require(plain and not node.settings.get("transA", 0), "scales or transposes")
            layers.append(full_layer(name, len(bias)))
        elif node.kind == "Conv":
            name, (weight, _) = next(left)
            pads, groups = node.pads, node.settings.get("group", 1)
            node.require(len(set(pads)) == 1, f"has padding {pads}")
            layers.append(convolution(node.file, name, weight, groups, node.stride, pads[0]))
        elif node.kind not in ASIDE:
            node.require(layers, "comes before any layer with weights")
            layers[-1] = replace(layers[-1], then=(*layers[-1].then, node.operation()))
    return layers
