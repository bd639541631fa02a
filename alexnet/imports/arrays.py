"""Files of named arrays: `.npy` of the TensorFlow port, PyTorch's state dicts, safetensors.

Two of them are pickles, which are programs. None is run: a pickle may make arrays and containers of
them, and anything else that it calls for is refused by name.
"""

import base64
import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alexnet import presets
from alexnet.errors import InputError, require
from alexnet.imports.published import (
    CAFFE_COLOR,
    CAFFE_NETS,
    Options,
    Published,
    layer_names,
    refuse_torchvision,
    tensors,
)

TORCHVISION = "features.0.weight"  # of its state dict, and of those of nets made like it


# --- .npy of objects ------------------------------------------------------------------------------


def _latin(text: str, encoding: str = "latin1", *_: Any) -> bytes:
    """What Python 3 has pickles of protocol 2 call for bytes, and nothing else of its module."""
    return text.encode("latin1")


def _allowed() -> dict[tuple[str, str], Any]:
    rebuild: Any = np.empty(0).__reduce__()[0]
    return {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): rebuild,  # before numpy 2
        ("numpy._core.multiarray", "_reconstruct"): rebuild,
        ("_codecs", "encode"): _latin,
    }


class ArrayUnpickler(pickle.Unpickler):
    """Reads arrays, texts, numbers, lists and dicts, and refuses all else by name."""

    allowed = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.allowed:
            return self.allowed[module, name]
        raise InputError(f"it is a pickle that calls for {module}.{name}, which is not executed")


def _read_objects(file: IO[bytes]) -> Any:
    version = npy.read_magic(file)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    shape, _, dtype = readers[version](file)
    if not dtype.hasobject:
        raise InputError(f"it is a plain array {shape}, without names of layers")
    return ArrayUnpickler(file, encoding="latin1").load()


def read_npy(file: Path, options: Options) -> Published:
    """Read `bvlc_alexnet.npy` and its like: {layer: [weights, biases]}, in TensorFlow's order.

    That is (height, width, in, out), fully connected (in, out); fc6 reads maps row by row, with the
    channels of a place side by side.

    Args:
        file: The file.
        options: What the user says of the file.

    Raises:
        InputError: It is no such file, damaged, or calls for something to be executed.
    """
    try:
        with file.open("rb") as opened:
            loaded = _read_objects(opened)
        layers = dict(loaded.item() if isinstance(loaded, np.ndarray) else loaded)
        rows = {str(name): _pair(pair) for name, pair in layers.items()}
    except InputError as error:
        raise InputError(f"{file} cannot be imported: {error}") from None
    except Exception as error:  # numpy's and pickle's: one bit fails in many ways
        reason = type(error).__name__
        raise InputError(
            f"{file} is no .npy file of layers, or a truncated one ({reason}); fetch it again"
        ) from None
    names = layer_names(file, sorted(rows))
    preset = options.preset or CAFFE_NETS[0]
    size = options.image_size or presets.get(preset).reference_size
    pairs = [_from_tensorflow(file, name, *pair) for name, pair in sorted(rows.items())]
    refuse_torchvision(file, pairs[0][0].shape)
    pairs[5] = (_channels_first(file, pairs[4][0].shape[0], pairs[5][0]), pairs[5][1])
    return Published("array file", tensors(names, pairs), preset, size, True, mean=CAFFE_COLOR)


def _pair(pair: Any) -> tuple[np.ndarray, np.ndarray]:
    weight, bias = (pair["weights"], pair["biases"]) if isinstance(pair, dict) else pair
    return np.asarray(weight, np.float32), np.asarray(bias, np.float32)


def _from_tensorflow(
    file: Path, name: str, weight: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    require(weight.ndim in (2, 4), f"{file}: {name} has weights of shape {weight.shape}")
    return (weight.T if weight.ndim == 2 else weight.transpose(3, 2, 0, 1)), bias.reshape(-1)


def _channels_first(file: Path, maps: int, weight: np.ndarray) -> np.ndarray:
    """fc6's weights (out, side * side * maps) as (out, maps * side * side)."""
    units, inputs = weight.shape
    side = round((inputs / maps) ** 0.5)
    require(side * side * maps == inputs, f"{file}: fc6 reads {inputs} numbers, of {maps} maps")
    return weight.reshape(units, side, side, maps).transpose(0, 3, 1, 2).reshape(units, inputs)


# --- state dicts ----------------------------------------------------------------------------------


def read_torch(file: Path, options: Options) -> Published:
    """Read a state dict that torch saved.

    Args:
        file: The file.
        options: What the user says of the file.

    Raises:
        InputError: It is damaged, holds more than tensors, or is of another net.
    """
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's, zipfile's, torch's
        blocked = "Weights only load failed" in str(error)
        reason = (
            "a pickle that calls for more than tensors, which is not executed: save its state dict "
            "alone, by safetensors"
            if blocked and file.stat().st_size
            else f"no file of torch's, or a truncated one ({type(error).__name__})"
        )
        raise InputError(f"{file} is {reason}") from None
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    is_state = isinstance(loaded, Mapping) and all(isinstance(v, Tensor) for v in loaded.values())
    require(is_state and loaded, f"{file} holds no state dict: names, each with a tensor")
    return _of_state(file, dict(loaded), {}, options)


def read_safetensors(file: Path, options: Options) -> Published:
    """Read tensors in the merged layout; what `alexnet export` has put beside them, too.

    Args:
        file: The file.
        options: What the user says of the file.

    Raises:
        InputError: It is damaged, or of another net.
    """
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} is no safetensors file, or a truncated one ({reason})") from None
    return _of_state(file, state, metadata, options)


def _of_state(
    file: Path, state: dict[str, Tensor], metadata: Mapping[str, str], options: Options
) -> Published:
    if TORCHVISION in state:
        refuse_torchvision(file, tuple(state[TORCHVISION].shape))
    layers = {name.partition(".")[0] for name in state}
    require(
        all("." in name for name in state) and "conv1.weight" in state,
        f"{file} is not in the merged layout: it holds {', '.join(sorted(layers)[:4])} ...; the "
        "names are conv1.weight, conv1.bias ... fc8.bias",
    )
    refuse_torchvision(file, tuple(state["conv1.weight"].shape))
    preset = options.preset or metadata.get("preset")
    if preset is None:
        raise InputError(
            f"{file} does not say what net it is of: give --preset, as caffe for weights that came "
            "from Caffe, or paper"
        )
    try:
        stated = metadata.get("width"), metadata.get("image_size")
        width, size = (kind(x) if x else None for kind, x in zip((float, int), stated))
        mean = _mean(metadata["mean"]) if "mean" in metadata else None
        classes, names = (
            json.loads(metadata[name]) if name in metadata else None
            for name in ("classes", "names")
        )
    except (ValueError, TypeError, EOFError) as error:
        raise InputError(f"the metadata of {file} are damaged ({error}): export again") from None
    return Published(
        "state dict",
        {name: tensor.to(torch.float32) for name, tensor in state.items()},
        preset,
        options.image_size or size or presets.get(preset).reference_size,
        bgr=options.bgr,
        width=width,
        mean=mean,
        classes=classes,
        names=names,
        license=metadata.get("license"),
    )


def _mean(text: str) -> np.ndarray:
    return np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
