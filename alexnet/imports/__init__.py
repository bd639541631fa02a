"""Others' published weights as a run folder, which evaluates, predicts, exports and shows its
kernels like one that was trained here.

The files are Caffe's, the ONNX zoo's, those of a TensorFlow port, and tensors in the merged layout.
Each reader says what net its file is of; what follows, here, is the same for all: colors in RGB
order, the mean image, the classes, and a summary that says whose weights they are.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from alexnet import presets
from alexnet.errors import InputError, require
from alexnet.files import file_digest, new_folder
from alexnet.imports import arrays, caffe, graph
from alexnet.imports.published import Options, Published
from alexnet.network import check_merged
from alexnet.training import folder
from alexnet.training.config import Config

READERS: dict[str, Callable[[Path, Options], Published]] = {
    ".caffemodel": caffe.read,
    ".onnx": graph.read,
    ".npy": arrays.read_npy,
    ".safetensors": arrays.read_safetensors,
    **dict.fromkeys((".pth", ".pt", ".bin"), arrays.read_torch),
}
# Files whose content is known, by SHA-1: what they are called, and their terms.
# Source: readme.md of models/bvlc_alexnet and models/bvlc_reference_caffenet in Caffe.
FREE = "released for unrestricted use by the Berkeley Vision and Learning Center"
KNOWN = {
    "9116a64c0fbe4459d18f4bb6b56d647b63920377": ("BVLC AlexNet", FREE),
    "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46": ("BVLC CaffeNet", FREE),
}
UNKNOWN = "not known: ask where the file came from"
SIZE = 256  # pixels of prepared images, for crops of 224 and 227


def import_weights(
    file: str | Path,
    out: str | Path,
    *,
    preset: str | None = None,
    image_size: int | None = None,
    bgr: bool = False,
    mean: str | None = None,
    classes: str | Path | None = None,
) -> dict[str, Any]:
    """Make a run folder of a file of published weights.

    Args:
        file: .caffemodel, .onnx, .npy, .pth, .pt, .bin or .safetensors; or the name of weights
            that come along.
        out: The run's folder, which must not be there yet.
        preset: The net, where the file does not say it; otherwise what it must be.
        image_size: Side of the input in pixels; None: the file's, or the preset's.
        bgr: A state dict's conv1 reads blue, green, red. Caffe's always does.
        mean: What is subtracted from the input, in RGB: "123,117,104", or a file: .binaryproto of
            Caffe's, .npy (3, S, S) in BGR as Caffe has it, or .npy (S, S, 3) in RGB. None: the
            file's own; ImageNet's mean color for the files that came from Caffe.
        classes: A file with a line for each output, in order, such as Caffe's synset_words.txt.
            None: the file's own, or none.

    Returns:
        The run's summary.

    Raises:
        InputError: A file cannot be read, or is of another net, or `out` is there already.
    """
    file, out = _named(Path(file)), Path(out)
    published = _read(file, Options(preset, image_size, bgr))
    weights = _in_rgb(file, published)
    config = _config(file, published, weights)
    image = _mean_image(file, published, mean, config.image_size)
    given = (published.classes, published.names)
    identifiers, names = _classes(Path(classes), config.num_classes) if classes else given
    summary = _summary(file, published, config, image)
    net = config.network()
    net.load_merged(weights)
    with new_folder(out) as part:
        np.save(part / folder.MEAN, image)
        if identifiers:
            _write_json(part / folder.CLASSES, identifiers)
            _write_json(part / folder.NAMES, names or identifiers)
        (part / folder.LICENSE).write_text(summary["imported"]["license"] + "\n", encoding="utf-8")
        (part / "log.jsonl").touch()  # nothing was trained
        save_file(net.export_merged(), part / folder.WEIGHTS)
        _write_json(part / folder.CONFIG, asdict(config))
        _write_json(part / folder.SUMMARY, summary)
    return summary


def _named(file: Path) -> Path:
    """The file of weights that come along, where they have this name; else what was given."""
    from alexnet import pretrained  # which evaluates nets

    known = not file.exists() and str(file) in pretrained.names()
    return pretrained.path_of(str(file)) if known else file


def _read(file: Path, options: Options) -> Published:
    endings = ", ".join(READERS)
    require(file.exists(), f"{file} does not exist; name a file of weights")
    require(file.is_file(), f"{file} is a folder; name a file of weights")
    require(file.suffix in READERS, f"{file} should end in one of {endings}")
    require(file.stat().st_size, f"{file} is empty; fetch it again")
    try:
        return READERS[file.suffix](file, options)
    except InputError as error:  # a table's row, say, knows of no file
        named = str(file) in str(error)
        raise InputError(str(error) if named else f"{file}: {error}") from None


def _in_rgb(file: Path, published: Published) -> dict[str, Tensor]:
    """The tensors of a net that reads red, green, blue."""
    weights = dict(published.tensors)
    for name, tensor in weights.items():
        require(
            tensor.isfinite().all(),
            f"{file}: {name} holds numbers that are not finite; the file is damaged",
        )
    first = f"{presets.get(published.preset).layers[0].name}.weight"
    if published.bgr and first in weights:
        weights[first] = weights[first].flip(1)
    return weights


def _config(file: Path, published: Published, weights: dict[str, Tensor]) -> Config:
    preset = presets.get(published.preset)
    *layers, last = preset.layers
    counts = {name: len(tensor) for name, tensor in weights.items() if tensor.dim()}
    widest = max(layers, key=lambda layer: layer.maps)
    for name in (f"{last.name}.bias", f"{widest.name}.bias"):
        require(name in counts, f"{file} lacks {name}; preset {preset.name!r} needs it")
    full = widest.maps * preset.columns
    config = Config(
        preset=preset.name,
        num_classes=counts[f"{last.name}.bias"],
        width=published.width or counts[f"{widest.name}.bias"] / full,
        image_size=published.image_size,
        epochs=0.0,
        data={},
        batch_size=preset.recipe.batch_size,
        imported=file_digest(file),
    )
    try:
        check_merged(weights, preset, config.shapes)
    except InputError as error:
        raise InputError(f"{file}: {error}; another --preset or --image-size may fit") from None
    return config


def _mean_image(file: Path, published: Published, given: str | None, size: int) -> np.ndarray:
    """The mean image, float32 (S, S, 3), RGB."""
    mean = published.mean if given is None else _given_mean(given)
    if mean is None:
        raise InputError(
            f"{file} does not say what is subtracted from the input: give --mean, a file or three "
            "numbers in RGB, as 123,117,104"
        )
    if mean.shape == (3,):
        side = SIZE if 224 <= size <= SIZE else round(size * 8 / 7)
        mean = np.broadcast_to(mean, (side, side, 3))
    image = np.ascontiguousarray(mean, np.float32)
    square = image.ndim == 3 and image.shape[2] == 3 and image.shape[0] == image.shape[1]
    where = given or file
    require(square, f"{where}: a mean image has the shape (S, S, 3), not {image.shape}")
    require(
        image.shape[0] >= size,
        f"{where}: the mean image is {image.shape[0]} pixels wide, less than the net's {size}",
    )
    fits = np.isfinite(image).all() and image.min() >= 0 and 1 < image.max() <= 255
    require(fits, f"{where}: a mean is in gray levels, 0 to 255; this one is not")
    return image


def _given_mean(given: str) -> np.ndarray:
    number = r"\s*\d+(\.\d*)?\s*"
    if re.fullmatch(f"{number},{number},{number}", given):
        return np.array([float(part) for part in given.split(",")], np.float32)
    file = Path(given)
    known = file.suffix in (".binaryproto", ".npy")
    require(known, f"--mean {given}: give three numbers in RGB, a .binaryproto or a .npy file")
    require(file.is_file(), f"--mean {given}: there is no such file")
    if file.suffix == ".binaryproto":
        return caffe.read_mean(file)
    try:
        mean = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{file} is no array of numbers ({error})") from None
    # Caffe's has planes of blue, green, red
    return mean[::-1].transpose(1, 2, 0) if mean.ndim == 3 and mean.shape[0] == 3 else mean


def _classes(file: Path, count: int) -> tuple[list[str], list[str]]:
    """Identifiers and names of the classes, from lines such as "n01440764 tench, Tinca tinca"."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"cannot read {file}: {reason}") from None
    lines = [line for line in lines if line]
    require(len(lines) == count, f"{file} has {len(lines)} lines; the net has {count} outputs")
    found = [re.fullmatch(r"(n\d{8})\s+(.+)", line) for line in lines]
    pairs = [match.groups() if match else (line, line) for match, line in zip(found, lines)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _summary(file: Path, published: Published, config: Config, mean: np.ndarray) -> dict[str, Any]:
    """How the run ended: it was none."""
    with file.open("rb") as opened:
        name, terms = KNOWN.get(hashlib.file_digest(opened, "sha1").hexdigest(), (None, UNKNOWN))
    origin = {
        "file": file.name,
        "sha256": config.imported,
        "kind": published.kind,
        "known_as": name,
        "license": published.license or terms,
        "mean_color": [round(float(value), 2) for value in mean.mean((0, 1))],
        "prepared_size": mean.shape[0],
        "note": "others' weights; nothing was trained here",
    }
    return {
        "config": asdict(config),
        "steps": 0,
        "epochs": 0.0,
        "ended": "imported",
        "diverged_at": None,
        "falls": 0,
        "seconds": 0.0,
        "threads": torch.get_num_threads(),
        "device": "cpu",
        "ranks": [1, 1],
        "imported": origin,
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
