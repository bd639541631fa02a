"""Where images come from: finds out how SOURCE is laid out, and lists its images and classes in one fixed order.

| layout       | looks like                                                                                     | splits           |
|--------------|------------------------------------------------------------------------------------------------|------------------|
| torchvision  | the text `torchvision:NAME:ROOT`, a data set that torchvision has under ROOT                    | those it has     |
| ILSVRC       | the archives of ILSVRC-2012 or 2010 as distributed, never unpacked: `alexnet/data/archives.py`  | those it has     |
| archive      | one `.tar` of `<class>.tar`, as the releases of all of ImageNet                                 | train            |
| CIFAR-10     | `cifar-10-batches-py/` or its parent, as torchvision stores it                                  | train, test      |
| Tiny ImageNet| `wnids.txt`, `words.txt`, `train/<wnid>/images/`, `val/val_annotations.txt`                     | train, val       |
| splits       | `train/<class>/<image>`, and `val/` or `test/` likewise                                         | those it has     |
| image folder | `<class>/<image>`: a tree of synsets, say                                                       | train            |

A label is the class's position among the sorted names of train's classes. A class is called as `words.txt` or `synset_words.txt` beside the
class folders calls it, if there is one. What lies among the images and is none (by its ending, a hidden file, a folder) becomes a row of
rejected.csv. A further layout is one function that recognizes it, one that lists it, and a row in LAYOUTS.
"""

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data import archives
from alexnet.data.listing import (
    ENDINGS,
    Entries,
    File,
    Images,
    Item,
    Listing,
    Pixels,
    Reference,
    Stray,
    class_names,
    few,
    lines,
)
from alexnet.errors import InputError, needs

WORDS = ("words.txt", "synset_words.txt", "wnids.txt")  # beside the class folders, and no images


def list_source(
    source: str | Path, classes: Sequence[str] | int | None = None, limit: int | None = None
) -> Listing:
    """List SOURCE, in the first layout of LAYOUTS that it has; classes, limit: a part of it, see `Listing.only`.

    Raises InputError where SOURCE has no layout, or is at odds with it.
    """
    if str(source).startswith("torchvision:"):
        listing = _torchvision(str(source))
    else:
        root = Path(source)
        if not root.exists():
            raise InputError(f"{root} does not exist: name a folder of images, or `pictographs`")
        if not root.is_dir() and root.suffix != ".tar":
            raise InputError(
                f"{root} is a file: name the folder that holds the images, one folder per class"
            )
        try:
            found = next((read(root) for applies, read in LAYOUTS if applies(root)), None)
        except PermissionError as error:
            raise InputError(f"cannot read {error.filename}: permission denied") from None
        if found is None:
            raise InputError(
                f"{root} holds no class folders: put each class's images into a folder of its own in it"
            )
        listing = found
    if classes is not None or limit is not None:
        listing = listing.only(classes, limit)
    try:
        for split, images in listing.splits.items():
            if strays := images.survey.strays:
                among = ", ".join(images.survey.examples) + (
                    f" and {strays - 3} more" if strays > 3 else ""
                )
                listing.notes.append(f"left out of {split}, and listed in rejected.csv: {among}")
    except PermissionError as error:
        raise InputError(f"cannot read {error.filename}: permission denied") from None
    return listing


# --- folders of images --------------------------------------------------------------------------------------------------------------------


def _folders(folder: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if not entry.name.startswith(".") and os.path.isdir(entry.path)
    )


def _images(folder: Path) -> Iterator[Reference | Stray]:
    """What is directly in `folder`, sorted by name."""
    within = os.path.join(folder, "")
    for name in sorted(os.listdir(folder)):
        path = within + name  # os.path.join would take as long as the rest
        if name.startswith("."):
            yield Stray(path, "hidden: its name begins with a dot")
        elif name.lower().endswith(ENDINGS):
            yield File(path)
        else:
            yield Stray(path, "a folder" if os.path.isdir(path) else "no image by its ending")


def _tree(folder: Path, classes: list[str], below: str = "") -> Entries:
    for item in sorted(os.scandir(folder), key=lambda item: item.name):
        if item.is_symlink() and not os.path.exists(item.path):
            yield Stray(item.path, "a link that leads nowhere"), -1
        elif os.path.isdir(item.path):
            if item.name.startswith("."):
                yield Stray(item.path, "hidden: its name begins with a dot"), -1
        elif item.name not in WORDS:
            yield Stray(item.path, "not in a class folder"), -1
    for label, name in enumerate(classes):
        place, images = folder / name / below, 0
        for entry in _images(place) if place.is_dir() else ():
            images += isinstance(entry, File)
            yield entry, label
        if not images:
            raise InputError(f"class folder {place} holds no images: fill it or remove it")


def _same_classes(split: Path, found: Iterable[str], classes: list[str]) -> None:
    found = set(found)
    surplus, missing = sorted(found - set(classes)), sorted(set(classes) - found)
    if surplus or missing:
        faults = [f"has {few(surplus)}, which train lacks"] * bool(surplus) + [
            f"lacks {few(missing)}"
        ] * bool(missing)
        raise InputError(f"{split} {' and '.join(faults)}: every split needs the same classes")


def _image_folder(root: Path) -> Listing:
    classes = _folders(root)
    images = Images(root, functools.partial(_tree, root, classes))
    return Listing("image folder", root, classes, class_names(root, classes), {"train": images}, [])


def _is_splits(root: Path) -> bool:
    """`train/` holds folders; a folder of pictures of trains holds images. Raises InputError where it holds both."""
    if not (root / "train").is_dir() or not (folders := _folders(root / "train")):
        return False
    if images := [
        os.path.basename(entry.path) for entry in _images(root / "train") if isinstance(entry, File)
    ]:
        both = f"holds folders ({few(folders)}) and images ({few(images)})"
        raise InputError(
            f"{root / 'train'} {both}: take the images out if it is a split, the folders if it is a class"
        )
    return True


def _is_loose(path: Path) -> bool:
    return path.name.startswith(".") or not path.is_dir()


def _splits(root: Path) -> Listing:
    classes = _folders(root / "train")
    notes = [
        f"left out: {root / name} (a split is train, val or test)"
        for name in _folders(root)
        if name not in ("train", "val", "test")
    ]
    if loose := [
        str(root / name)
        for name in sorted(os.listdir(root))
        if name not in WORDS and _is_loose(root / name)
    ]:
        notes.append(f"left out: {few(loose)} (not in a class folder of a split)")
    splits = {}
    for split in ("train", "val", "test"):
        if (root / split).is_dir():
            _same_classes(root / split, _folders(root / split), classes)
            splits[split] = Images(root, functools.partial(_tree, root / split, classes))
    return Listing("splits", root, classes, class_names(root, classes), splits, notes)


# --- Tiny ImageNet ------------------------------------------------------------------------------------------------------------------------


def _is_tiny_imagenet(root: Path) -> bool:
    return (
        (root / "wnids.txt").is_file()
        and (root / "train").is_dir()
        and (root / "val" / "val_annotations.txt").is_file()
    )


def _tiny_imagenet(root: Path) -> Listing:
    notes: list[str] = []
    classes = _folders(root / "train")
    _same_classes(root / "wnids.txt", lines(root / "wnids.txt"), classes)
    label, validation = {name: i for i, name in enumerate(classes)}, {}
    for number, line in enumerate(lines(root / "val" / "val_annotations.txt"), 1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in label or os.path.basename(fields[0]) != fields[0]:
            raise InputError(
                f"{root / 'val' / 'val_annotations.txt'}, line {number}, names no image and class of train: {line[:80]!r}"
            )
        validation[fields[0]] = label[fields[1]]
    _same_classes(root / "val", (classes[i] for i in validation.values()), classes)

    def annotated() -> Entries:
        for entry in _images(root / "val" / "images"):
            if isinstance(entry, File) and os.path.basename(entry.path) not in validation:
                yield Stray(entry.path, "not in val_annotations.txt"), -1
            elif isinstance(entry, Stray):
                yield entry, -1
        for name in sorted(validation):
            yield File(str(root / "val" / "images" / name)), validation[name]

    splits = {
        "train": Images(root, functools.partial(_tree, root / "train", classes, "images")),
        "val": Images(root, annotated),
    }
    if (root / "test").is_dir():
        notes.append(f"left out: {root / 'test'} (its images have no labels)")
    return Listing("Tiny ImageNet", root, classes, class_names(root, classes), splits, notes)


# --- what torchvision reads ---------------------------------------------------------------------------------------------------------------


def _cifar10_root(root: Path) -> Path:
    return root.parent if root.name == "cifar-10-batches-py" else root


def _is_cifar10(root: Path) -> bool:
    return (_cifar10_root(root) / "cifar-10-batches-py" / "data_batch_1").is_file()


def _cifar10(root: Path) -> Listing:
    datasets = needs("torchvision.datasets", extra="datasets", what="reading CIFAR-10")

    splits: dict[str, Images] = {}
    classes: list[str] = []
    for split in ("train", "test"):
        try:
            data = datasets.CIFAR10(
                str(_cifar10_root(root)), train=split == "train", download=False
            )
        except Exception as error:  # it unpickles, which fails in any way
            raise InputError(
                f"{root} is not CIFAR-10 as torchvision stores it ({error}): fetch it again"
            ) from None
        order = sorted(data.classes)
        if classes and order != classes:
            raise InputError(
                f"{root} names other classes for its test batch than for its training batches: fetch it again"
            )
        classes = order
        splits[split] = _indexed(root, split, data, [classes.index(name) for name in data.classes])
    return Listing(
        "CIFAR-10", root, classes, [name.replace("_", " ") for name in classes], splits, []
    )


def _indexed(
    root: Path, split: str, data, labels: list[int], options: dict[str, Any] | None = None
) -> Images:
    """The items of a torchvision data set made with `options`, whose label l is our `labels[l]`. They are files where it tells which,
    pixels where it holds them in memory; else workers ask it for them, so that none is decoded here."""
    targets = _targets(data)
    pairs = getattr(data, "samples", None) or getattr(data, "_samples", None)
    if (
        pairs is None
        and targets is not None
        and (paths := getattr(data, "_image_files", None) or getattr(data, "_images", None))
    ):
        pairs = list(zip(paths, targets, strict=True))
    if pairs is not None and not isinstance(pairs[0][0], str | Path):
        pairs = None
    in_memory = isinstance(getattr(data, "data", None), np.ndarray) or hasattr(
        getattr(data, "data", None), "numpy"
    )

    def find() -> Entries:
        if pairs is not None:
            for path, label in pairs:
                yield File(str(path)), labels[int(label)]
            return
        for i in range(len(data)):
            path = str(root / split / f"{i:05d}")
            if in_memory:
                image, label = data[i]
                yield Pixels(path, np.asarray(image.convert("RGB"))), labels[int(label)]
                continue
            try:
                label = targets[i] if targets is not None else data[i][1]
            except Exception as error:  # it tells the label of an image that it can decode only
                yield Stray(path, f"torchvision cannot read it: {error}"), -1
            else:
                yield (
                    Item(path, type(data), str(root), tuple((options or {}).items()), i),
                    labels[int(label)],
                )

    return Images(root, find)


def _targets(data) -> Any:
    """The labels of a torchvision data set's items, where it has them at hand."""
    found: Iterator[Any] = (
        getattr(data, name, ()) for name in ("targets", "_labels", "labels", "y")
    )
    return next(
        (labels for labels in found if hasattr(labels, "__len__") and len(labels) == len(data)),
        None,
    )


def _torchvision(source: str) -> Listing:
    datasets = needs("torchvision.datasets", extra="datasets", what=f"reading {source}")

    _, name, folder = (*source.split(":", 2), "", "")[:3]
    kind: Any = getattr(datasets, name, None)
    base = datasets.VisionDataset
    if (
        not folder
        or kind is base
        or base not in getattr(kind, "__mro__", ())
        or "root" not in inspect.signature(kind).parameters
    ):
        example = "torchvision:CIFAR100:/folder/with/it"
        raise InputError(
            f"{source} names no data set of torchvision and the folder where it lies: write it as {example}"
        )
    accepted = inspect.signature(kind).parameters
    offered: dict[str, dict[str, Any]] = {"train": {}}
    if "train" in accepted:
        offered = {"train": {"train": True}, "test": {"train": False}}
    elif "split" in accepted:
        offered = {split: {"split": split} for split in ("train", "val", "test")}
    found: dict[str, Any] = {}
    reasons = []
    for split, options in offered.items():
        options |= {"download": False} if "download" in accepted else {}
        try:
            found[split] = kind(folder, **options)
        except Exception as error:  # a split that it does not have, or has not here
            reasons.append(f"{split}: {' '.join(str(error).split())}")
    if "train" not in found:
        raise InputError(f"torchvision finds no {name} in {folder} ({reasons[0]})")
    data = found["train"]
    given = [str(c) for c in getattr(data, "wnids", None) or getattr(data, "classes", None) or []]
    if not given:
        targets = _targets(data)
        given = [
            str(c)
            for c in sorted(
                {
                    int(label)
                    for label in (targets if targets is not None else (item[1] for item in data))
                }
            )
        ]
    called = [
        c if isinstance(c, str) else ", ".join(map(str, c))
        for c in getattr(data, "classes", None) or given
    ]
    order = sorted(range(len(given)), key=given.__getitem__)
    labels = [order.index(i) for i in range(len(given))]
    splits = {
        split: _indexed(Path(folder), split, data, labels, offered[split])
        for split, data in found.items()
    }
    return Listing(
        f"torchvision {name}",
        Path(folder),
        [given[i] for i in order],
        [called[i] for i in order],
        splits,
        [],
    )


# --- all of them --------------------------------------------------------------------------------------------------------------------------

LAYOUTS: list[tuple[Callable[[Path], bool], Callable[[Path], Listing]]] = [
    (archives.is_ilsvrc, archives.ilsvrc),
    (archives.is_archive, archives.archive),
    (_is_cifar10, _cifar10),
    (_is_tiny_imagenet, _tiny_imagenet),
    (_is_splits, _splits),
    (lambda root: bool(_folders(root)), _image_folder),
]
