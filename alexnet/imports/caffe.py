"""Caffe's files, without Caffe: a net's weights (.caffemodel) and a mean image (.binaryproto).

Both are messages of protobuf. Of their fields those that decide what a net computes are declared
here; arrays of numbers are read as the bytes that they are.

Source: src/caffe/proto/caffe.proto of Caffe, for names and numbers of fields.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from alexnet import presets
from alexnet.errors import InputError, needs, require
from alexnet.imports.published import (
    CAFFE_COLOR,
    CAFFE_NETS,
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

# The fields of each message: name, number, type (* stands for several), and what it is where it is
# not given. V1 is how layers were written until 2014, with kinds by number.
MESSAGES = {
    "Shape": "dim 1 int64*",
    "Blob": "num 1 int32, channels 2 int32, height 3 int32, width 4 int32, data 5 bytes*, "
    "shape 7 Shape, double_data 8 bytes*",
    "Convolution": "pad 3 uint32*, group 5 uint32 1, stride 6 uint32*, pad_h 9 uint32, "
    "pad_w 10 uint32, stride_h 13 uint32, stride_w 14 uint32, dilation 18 uint32*",
    "Pooling": "pool 1 int32, kernel_size 2 uint32, stride 3 uint32 1, pad 4 uint32, "
    "round_mode 13 int32",
    "Norm": "local_size 1 uint32 5, alpha 2 float 1, beta 3 float 0.75, region 4 int32, "
    "k 5 float 1",
    "Layer": "name 1 string, type 2 string, blobs 7 Blob*, convolution 106 Convolution, "
    "norm 118 Norm, pooling 121 Pooling",
    "LayerV1": "v0 1 bytes, name 4 string, type 5 int32, blobs 6 Blob*, "
    "convolution 10 Convolution, norm 18 Norm, pooling 19 Pooling",
    "Net": "name 1 string, layers 2 LayerV1*, layer 100 Layer*",
}
KINDS = {4: "Convolution", 14: "InnerProduct", 15: "LRN", 17: "Pooling", 18: "ReLU"}
# what feeds a net, what is made of its logits, and dropout, which does nothing at test time
ASIDE = {1: "Accuracy", 5: "Data", 6: "Dropout", 8: "Flatten", 9: "HDF5Data", 12: "ImageData"}
ASIDE |= {20: "Softmax", 21: "SoftmaxWithLoss", 22: "Split", 24: "WindowData", 29: "MemoryData"}
ASIDE |= {32: "DummyData", 36: "Silence", -1: "Input"}


@cache
def _messages() -> dict[str, Any]:
    """A class for each of `MESSAGES`."""
    protobuf = "google.protobuf"
    parts = ("descriptor_pb2", "descriptor_pool", "message_factory")
    pb2, pool, factory = (
        needs(f"{protobuf}.{part}", extra="export", what="reading Caffe's files") for part in parts
    )
    kinds = pb2.FieldDescriptorProto
    file = pb2.FileDescriptorProto(name="alexnet_caffe.proto", package="alexnet", syntax="proto2")
    for name, described in MESSAGES.items():
        message = file.message_type.add(name=name)
        for row in described.split(", "):
            field, number, kind, *default = row.split()
            label = 3 if kind.endswith("*") else 1  # repeated, optional
            made = message.field.add(name=field, number=int(number), label=label)
            if (one := kind.removesuffix("*")) in MESSAGES:
                made.type, made.type_name = kinds.TYPE_MESSAGE, f".alexnet.{one}"
            else:
                made.type = getattr(kinds, f"TYPE_{one.upper()}")
            if default:
                made.default_value = default[0]
    known = pool.DescriptorPool()
    known.Add(file)
    named = ((name, known.FindMessageTypeByName(f"alexnet.{name}")) for name in MESSAGES)
    return {name: factory.GetMessageClass(descriptor) for name, descriptor in named}


def _parse(file: Path, message: str, what: str) -> Any:
    parsed = _messages()[message]()
    error = needs("google.protobuf.message", extra="export", what=what).DecodeError
    try:
        parsed.ParseFromString(file.read_bytes())
    except error:
        raise InputError(f"{file} is no {what}, or a truncated one; fetch it again") from None
    return parsed


def read(file: Path, options: Options) -> Published:
    """Read a .caffemodel.

    Args:
        file: The file.
        options: What the user says of the file.

    Raises:
        InputError: It is damaged, or of another net.
    """
    net = _parse(file, "Net", "Caffe model")
    rows = list(net.layer) or list(net.layers)
    require(
        not any(getattr(row, "v0", b"") for row in rows),
        f"{file} is of Caffe's first format; rewrite it by Caffe's upgrade_net_proto_binary",
    )
    weighted, following = _split(file, rows)
    names = layer_names(file, (row.name for row in weighted))
    pairs = [_weights(file, row) for row in weighted]
    refuse_torchvision(file, pairs[0][0].shape)
    layers = [
        _layer(file, name, row, then, pair)
        for name, row, then, pair in zip(names, weighted, following, pairs, strict=True)
    ]
    reference = presets.get(options.preset or CAFFE_NETS[0]).reference_size
    size, classes = options.image_size or reference, len(pairs[-1][1])
    preset = net_of(file, layers, size, classes, options.preset)
    return Published("Caffe model", tensors(names, pairs), preset, size, True, mean=CAFFE_COLOR)


def _kind(row: Any) -> str:
    if isinstance(row.type, str):
        return row.type
    return (KINDS | ASIDE).get(row.type, f"number {row.type}")


def _split(file: Path, rows: Iterable[Any]) -> tuple[list[Any], list[list[Operation]]]:
    """The layers with weights, and the operations that follow each.

    Raises:
        InputError: The net has a layer of another kind.
    """
    weighted: list[Any] = []
    following: list[list[Operation]] = []
    for row in rows:
        kind = _kind(row)
        if kind in ("Convolution", "InnerProduct"):
            weighted.append(row)
            following.append([])
        elif kind not in ASIDE.values():
            operation = _operation(file, row, kind)
            require(following, f"{file} has {kind} before any layer with weights")
            following[-1].append(operation)
    return weighted, following


def _operation(file: Path, row: Any, kind: str) -> Operation:
    norm, pool = row.norm, row.pooling
    refusal = f"{file}: layer {row.name!r} is of kind {kind}"
    if kind == "ReLU":
        return RELU
    if kind == "LRN":
        require(norm.region == 0, f"{refusal} within maps, which AlexNet has not")
        alpha = norm.alpha / norm.local_size  # Caffe divides by the window
        return LRN(norm.local_size, alpha, norm.beta, norm.k, merged=True)
    require(kind == "Pooling", f"{refusal}, which AlexNet has not")
    plain = pool.pool == 0 and pool.pad == 0 and pool.kernel_size
    require(plain, f"{refusal}, but no max pooling without padding; AlexNet has no other")
    return Pool(pool.kernel_size, pool.stride, ceil=pool.round_mode == 0)


def _layer(
    file: Path, name: str, row: Any, then: list[Operation], pair: tuple[np.ndarray, np.ndarray]
) -> Layer:
    if _kind(row) == "InnerProduct":
        return full_layer(name, len(pair[1]), then)
    how = row.convolution
    stride, pad = ([*values, default][0] for values, default in ((how.stride, 1), (how.pad, 0)))
    plain = (how.stride_h, how.pad_h) == (how.stride_w, how.pad_w) and set(how.dilation) <= {1}
    require(plain, f"{file}: layer {row.name!r} is dilated, or differs by direction")
    stride, pad = how.stride_h or stride, how.pad_h or pad
    return convolution(file, name, pair[0], how.group, stride, pad, then)


def _weights(file: Path, row: Any) -> tuple[np.ndarray, np.ndarray]:
    require(len(row.blobs) == 2, f"{file}: layer {row.name!r} holds no weights and biases")
    weight, bias = (_array(file, row.name, blob) for blob in row.blobs)
    if _kind(row) == "InnerProduct":  # (1, 1, out, in) in older files
        weight = weight.reshape(-1, weight.shape[-1])
    return weight, bias.reshape(-1)


def _array(file: Path, name: str, blob: Any) -> np.ndarray:
    wide = blob.double_data
    data = np.frombuffer(b"".join(wide or blob.data), "<f8" if wide else "<f4")
    shape = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
    whole = data.size == np.prod(shape, dtype=object) and min(shape, default=0) > 0
    require(whole, f"{file}: {name} holds {data.size} numbers instead of {shape}; it is damaged")
    return data.reshape(shape)


def read_mean(file: Path) -> np.ndarray:
    """Read a mean image from a .binaryproto: RGB, float32 (S, S, 3).

    Raises:
        InputError: It is none.
    """
    values = _array(file, "the mean image", _parse(file, "Blob", "mean image of Caffe's"))
    shape = values.shape[-3:]
    fits = values.size == np.prod(shape) and shape[0] == 3 and shape[-1] == shape[-2]
    require(fits, f"{file} holds {values.shape}, not a square image of three colors")
    planes = values.reshape(shape)
    return np.ascontiguousarray(planes[::-1].transpose(1, 2, 0), np.float32)
