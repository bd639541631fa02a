"""Files of published weights, written as others write them: by hand where no package does."""

import pickle
import struct
from pathlib import Path

import numpy as np
import onnx
from numpy.lib import format as npy

FULL = (("conv1", 96, 3, 11), ("conv2", 256, 48, 5), ("conv3", 384, 256, 3))
FULL += (("conv4", 384, 192, 3), ("conv5", 256, 192, 3))
LIGHT = Path(onnx.__file__).parent / "backend/test/data/light/light_bvlc_alexnet.onnx"
V1 = {"Convolution": 4, "Dropout": 6, "InnerProduct": 14, "LRN": 15, "Pooling": 17, "ReLU": 18}


def weights(classes: int = 1000, share: int = 1, side: int = 6) -> dict[str, list[np.ndarray]]:
    """Random weights and biases, (out, in, ...) in BGR, as Caffe has them.

    They are of 1 / share of the maps, fc6 reads maps of `side`, and signals keep their sizes from
    layer to layer.
    """
    generator = np.random.default_rng(0)
    shapes = {name: (o // share, i if i == 3 else i // share, k, k) for name, o, i, k in FULL}
    units = 4096 // share
    shapes |= {
        "fc6": (units, 256 // share * side**2),
        "fc7": (units, units),
        "fc8": (classes, units),
    }
    made = {}
    for name, shape in shapes.items():
        sigma = (2 / np.prod(shape[1:])) ** 0.5
        weight = generator.standard_normal(shape, np.float32) * np.float32(sigma)
        made[name] = [weight, generator.standard_normal(shape[0], np.float32)]
    return made


def zoo(layers: dict, opset: int = 9, side: int = 224) -> onnx.ModelProto:
    """The ONNX zoo's graph with these weights, as it is written for an opset."""
    model = onnx.load(str(LIGHT))
    graph = model.graph
    kept = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    for node in kept:
        if node.op_type == "Reshape" and opset < 5:
            del node.input[1:]
            node.attribute.append(onnx.helper.make_attribute("shape", [1, -1]))
        if node.op_type == "Gemm" and opset < 7:
            node.attribute.append(onnx.helper.make_attribute("broadcast", 1))
        if node.op_type == "Dropout" and opset < 7:
            node.attribute.append(onnx.helper.make_attribute("is_test", 1))
        if node.op_type == "Dropout" and opset >= 12:
            del node.attribute[:]
    del graph.node[:], graph.initializer[:], graph.input[1:]
    graph.node.extend(kept)
    graph.input[0].type.tensor_type.shape.dim[2].dim_value = side
    graph.input[0].type.tensor_type.shape.dim[3].dim_value = side
    stored = [
        (f"{name}_{part}_0", values) for name in layers for part, values in zip("wb", layers[name])
    ]
    if opset >= 5:
        size = layers["fc6"][0].shape[1]
        stored.append(("OC2_DUMMY_1", np.array([1, size], np.int64)))
    graph.initializer.extend(onnx.numpy_helper.from_array(values, name) for name, values in stored)
    model.opset_import[0].version = opset
    if opset < 9:  # files of then list all that is stored among the inputs
        kinds = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}
        graph.input.extend(
            onnx.helper.make_tensor_value_info(name, kinds[values.dtype], values.shape)
            for name, values in stored
        )
    graph.output[0].type.tensor_type.shape.dim[1].dim_value = len(layers["fc8"][1])
    return model


# --- protobuf, byte by byte ----------------------------------------------------------------------


def varint(value: int) -> bytes:
    value, out = value % 2**64, b""
    while value > 127:
        value, out = value >> 7, out + bytes([value & 127 | 128])
    return out + bytes([value])


def field(number: int, value: int | float | str | bytes) -> bytes:
    """A field of protobuf: a whole number, a float32, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(values: np.ndarray, old: bool = False) -> bytes:
    data = field(5, values.astype("<f4").tobytes())
    if old:  # four sizes, with ones in front
        sizes = [1] * (4 - values.ndim) + list(values.shape)
        return b"".join(field(i, n) for i, n in enumerate(sizes, 1)) + data
    return data + field(7, field(1, b"".join(map(varint, values.shape))))


def caffe_layer(name: str, kind: str, old: bool, blobs=(), **settings: bytes) -> bytes:
    numbers = {"convolution": (106, 10), "norm": (118, 18), "pooling": (121, 19)}
    own = field(4, name) + field(5, V1.get(kind, 5)) if old else field(1, name) + field(2, kind)
    own += b"".join(field(6 if old else 7, blob(values, old)) for values in blobs)
    own += b"".join(field(numbers[what][old], value) for what, value in settings.items())
    return field(2 if old else 100, own)


def caffemodel(layers: dict, *, old: bool = False, pool_first: bool = False, alpha=1e-4) -> bytes:
    """A Caffe model; `old`: as layers were written until 2014."""
    out = field(1, "AlexNet") + caffe_layer("data", "Data", old)
    pads = {"conv1": 0, "conv2": 2, "conv3": 1, "conv4": 1, "conv5": 1}
    for name, (weight, bias) in layers.items():
        settings = {}
        if name.startswith("conv"):
            how = field(1, len(bias)) + field(4, weight.shape[-1]) + field(3, pads[name])
            how += field(6, 4) if name == "conv1" else b""
            settings["convolution"] = how + (
                field(5, 2) if name in ("conv2", "conv4", "conv5") else b""
            )
        kind = "Convolution" if settings else "InnerProduct"
        out += caffe_layer(name, kind, old, (weight, bias), **settings)
        if name != "fc8":
            out += caffe_layer(f"relu_{name}", "ReLU", old)
        norm = caffe_layer(
            f"norm_{name}", "LRN", old, norm=field(1, 5) + field(2, alpha) + field(3, 0.75)
        )
        pool = caffe_layer(
            f"pool_{name}", "Pooling", old, pooling=field(1, 0) + field(2, 3) + field(3, 2)
        )
        if name in ("conv1", "conv2"):
            out += pool + norm if pool_first else norm + pool
        out += pool if name == "conv5" else b""
        out += caffe_layer(f"drop_{name}", "Dropout", old) if name in ("fc6", "fc7") else b""
    return out


# --- .npy ----------------------------------------------------------------------------------------


def tensorflow(layers: dict) -> dict[str, list[np.ndarray]]:
    """The same weights in TensorFlow's order: (height, width, in, out), (in, out), maps last."""
    made = {}
    for name, (weight, bias) in layers.items():
        if name == "fc6":
            units, maps = len(weight), len(layers["conv5"][1])
            side = round((weight.shape[1] / maps) ** 0.5)
            weight = weight.reshape(units, maps, side, side).transpose(0, 2, 3, 1)
            weight = weight.reshape(units, -1)
        made[name] = [weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0), bias]
    return made


def write_npy(file: Path, content: object, protocol: int = 2) -> None:
    """An array of one object, as Python 2's numpy wrote it."""
    boxed = np.empty((), object)
    boxed[()] = content
    with file.open("wb") as opened:
        npy.write_array_header_1_0(opened, {"descr": "|O", "fortran_order": False, "shape": ()})
        text = pickle.dumps(boxed, protocol)
        if protocol < 4:  # of names with their lengths
            text = text.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        opened.write(text)
