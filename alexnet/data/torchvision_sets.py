"""Data sets as torchvision reads them: CIFAR-10 in its folder, and any other by name."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.listing import (
    Entries,
    File,
    Images,
    Item,
    Listing,
    Pixels,
    Stray,
    fault,
    normal,
)
from alexnet.data.pack import SPLITS
from alexnet.errors import InputError, is_environments, needs, reason


def _cifar10_root(root: Path) -> Path:
    return root.parent if root.name == "cifar-10-batches-py" else root


def is_cifar10(root: Path) -> bool:
    return (_cifar10_root(root) / "cifar-10-batches-py" / "data_batch_1").is_file()


def cifar10(root: Path) -> Listing:
    """List CIFAR-10 as torchvision stores it."""
    listing = named(f"torchvision:CIFAR10:{_cifar10_root(root)}")
    return replace(listing, layout="CIFAR-10", root=root)


def named(source: str) -> Listing:
    """List `torchvision:NAME:ROOT`, every split that NAME has under ROOT."""
    datasets: Any = needs("torchvision.datasets", extra="datasets", what="reading this source")
    _, name, folder = (*source.split(":", 2), "", "")[:3]
    kind: Any = getattr(datasets, name, None)
    base = datasets.VisionDataset
    is_set = kind is not base and base in getattr(kind, "__mro__", ())
    if not folder or not is_set or "root" not in inspect.signature(kind).parameters:
        what = f"{source} names no data set of torchvision and its folder"
        raise InputError(f"{what}: write it as torchvision:CIFAR100:/folder/with/it")
    parameters = inspect.signature(kind).parameters
    options: dict[str, dict[str, Any]] = {"train": {}}
    if "train" in parameters:
        options = {"train": {"train": True}, "test": {"train": False}}
    elif "split" in parameters:
        options = {split: {"split": split} for split in SPLITS}
    sets: dict[str, Any] = {}
    reasons, notes = [], []
    for split, each in options.items():
        each |= {"download": False} if "download" in parameters else {}
        try:
            sets[split] = kind(folder, **each)
        except Exception as error:  # a split that it does not have, or not in this folder
            if is_environments(error) and not isinstance(error, FileNotFoundError):
                raise
            reasons.append(f"{split}: {reason(error)}")
            if not isinstance(error, ValueError):  # it knows the split
                notes.append(f"left out: {split} ({reason(error)})")
    if "train" not in sets:
        raise InputError(f"torchvision finds no {name} in {folder} ({reasons[0]}): fetch it again")
    data = sets["train"]
    labels, called = _classes(data)
    given = list(map(normal, getattr(data, "wnids", None) or called))
    order = sorted(range(len(given)), key=given.__getitem__)
    ours = {label: order.index(i) for i, label in enumerate(labels)}
    splits = {s: _indexed(Path(folder), s, data, ours, options[s]) for s, data in sets.items()}
    classes, names = [given[i] for i in order], [called[i] for i in order]
    return Listing(f"torchvision {name}", Path(folder), classes, names, splits, notes)


def _classes(data: Any) -> tuple[list[int], list[str]]:
    """The labels of a data set, and what it calls the classes; numbers where it has no names."""
    lists = (getattr(data, name, None) for name in ("classes", "categories", "all_categories"))
    if called := next((names for names in lists if names), None):
        names = [c if isinstance(c, str) else ", ".join(map(str, c)) for c in called]
        return list(range(len(names))), names
    if indices := getattr(data, "class_to_idx", None):
        return list(indices.values()), list(map(str, indices))
    targets = _targets(data)
    found = targets if targets is not None else (item[1] for item in data)
    labels = sorted({int(label) for label in found})
    return labels, [str(label).zfill(len(str(labels[-1]))) for label in labels]


def _indexed(
    root: Path, split: str, data: Any, labels: dict[int, int], options: dict[str, Any]
) -> Images:
    """The items of a torchvision data set made with `options`, whose label l is our `labels[l]`.

    They are files where it names them, pixels where it holds them in memory; else workers ask it
    for them, so that none is decoded in this process.
    """
    targets = _targets(data)
    pairs = getattr(data, "samples", None) or getattr(data, "_samples", None)
    paths = getattr(data, "_image_files", None) or getattr(data, "_images", None)
    if pairs is None and targets is not None and paths:
        pairs = list(zip(paths, targets, strict=True))
    held = getattr(data, "data", None)
    in_memory = isinstance(held, np.ndarray) or hasattr(held, "numpy")

    def find() -> Entries:
        if pairs is not None and isinstance(pairs[0][0], str | Path):
            yield from ((File(str(path)), labels[int(label)]) for path, label in pairs)
            return
        for i in range(len(data)):
            path = str(root / split / f"{i:05d}")
            if in_memory:
                image, label = data[i]
                yield Pixels(path, np.asarray(image.convert("RGB"))), labels[int(label)]
                continue
            try:
                label = targets[i] if targets is not None else data[i][1]
            except Exception as error:  # it knows the label of an image that it can decode only
                yield Stray(path, f"torchvision cannot read it: {fault(error, path)}"), -1
                continue
            made_with = tuple(options.items())
            yield Item(path, type(data), str(root), made_with, i), labels[int(label)]

    return Images(root, find)


def _targets(data: Any) -> Any:
    """The labels of a torchvision data set's items, where it has them at hand."""
    lists = (getattr(data, name, ()) for name in ("targets", "_labels", "labels", "y"))
    return next((x for x in lists if hasattr(x, "__len__") and len(x) == len(data)), None)
