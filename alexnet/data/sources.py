"""Where images come from: finds out how SOURCE is laid out, and lists its images and classes in one fixed order.

| layout       | looks like                                                                        | splits           |
|--------------|-----------------------------------------------------------------------------------|------------------|
| CIFAR-10     | `cifar-10-batches-py/` or its parent, as torchvision stores it                    | train, test      |
| Tiny ImageNet| `wnids.txt`, `words.txt`, `train/<wnid>/images/`, `val/val_annotations.txt`        | train, val       |
| splits       | `train/<class>/<image>`, and `val/` or `test/` likewise                           | those it has     |
| image folder | `<class>/<image>`                                                                 | train            |

A label is the class's position among the sorted names of train's class folders. A further layout is one function that recognizes it, one
that lists it, and a row in LAYOUTS.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet.errors import InputError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")


@dataclass(frozen=True, slots=True)
class File:
    """An image in a file."""

    path: str

    def open(self) -> Image.Image:
        return Image.open(self.path)

    def stamp(self) -> str:
        """Changes when the image does, as far as can be told without reading it."""
        return str(os.path.getsize(self.path)) if os.path.exists(self.path) else "missing"


@dataclass(frozen=True, slots=True)
class Pixels:
    """An image in memory, uint8 (H, W, 3); `path` says where it came from."""

    path: str
    array: np.ndarray

    def open(self) -> Image.Image:
        return Image.fromarray(self.array)

    def stamp(self) -> str:
        return hashlib.sha256(self.array.tobytes()).hexdigest()


Reference = File | Pixels


@dataclass(frozen=True)
class Listing:
    """What SOURCE holds.

    splits: for each split its (image, label) in order; classes: folder names in label order; names: human names; notes: what was left out.
    """

    layout: str
    root: Path
    classes: list[str]
    names: list[str]
    splits: dict[str, list[tuple[Reference, int]]]
    notes: list[str]

    def fingerprint(self, split: str) -> str:
        """SHA-256 over the split's images: their paths below SOURCE, labels, and sizes in bytes."""
        digest = hashlib.sha256()
        for image, label in self.splits[split]:
            line = f"{self.below(image)}\t{label}\t{image.stamp()}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def below(self, image: Reference) -> str:
        """The image's path below SOURCE."""
        return image.path.removeprefix(f"{self.root}{os.sep}")


def list_source(source: str | Path) -> Listing:
    """List SOURCE, in the first layout of LAYOUTS that it has. Raises InputError where it has none, or is at odds with it."""
    root = Path(source)
    if not root.exists():
        raise InputError(f"{root} does not exist: name a folder of images, or `pictographs`")
    if not root.is_dir():
        raise InputError(f"{root} is a file: name the folder that holds the images, one folder per class")
    try:
        for applies, read in LAYOUTS:
            if applies(root):
                return read(root)
    except PermissionError as error:
        raise InputError(f"cannot read {error.filename}: permission denied") from None
    raise InputError(f"{root} holds no class folders: put each class's images into a folder of its own in it")


# --- folders of images --------------------------------------------------------------------------------------------------------------------


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: Path, notes: list[str]) -> list[Reference]:
    """The images directly in `folder`, sorted by name; anything else in it is noted."""
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    images = [name for name in names if name.lower().endswith(ENDINGS)]
    if len(images) < len(names):
        others = [name for name in names if not name.lower().endswith(ENDINGS)]
        notes.append(f"left out of {folder}: {_few(others)} (no image by its ending)")
    return [File(os.path.join(folder, name)) for name in images]


def _tree(folder: Path, classes: list[str], notes: list[str], below: str = "") -> list[tuple[Reference, int]]:
    listed: list[tuple[Reference, int]] = []
    for label, name in enumerate(classes):
        images = _images(folder / name / below, notes) if (folder / name / below).is_dir() else []
        if not images:
            raise InputError(f"class folder {folder / name / below} holds no images: fill it or remove it")
        listed += [(image, label) for image in images]
    return listed


def _same_classes(split: Path, found: Iterable[str], classes: list[str]) -> None:
    found = set(found)
    surplus, missing = sorted(found - set(classes)), sorted(set(classes) - found)
    if surplus or missing:
        faults = [f"has {_few(surplus)}, which train lacks"] * bool(surplus) + [f"lacks {_few(missing)}"] * bool(missing)
        raise InputError(f"{split} {' and '.join(faults)}: every split needs the same classes")


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _image_folder(root: Path) -> Listing:
    notes: list[str] = []
    classes = _folders(root)
    return Listing("image folder", root, classes, [_plain(name) for name in classes], {"train": _tree(root, classes, notes)}, notes)


def _is_splits(root: Path) -> bool:
    """`train/` holds folders; a folder of pictures of trains holds images. Raises InputError where it holds both."""
    if not (root / "train").is_dir() or not (folders := _folders(root / "train")):
        return False
    if images := _images(root / "train", []):
        both = f"holds folders ({_few(folders)}) and images ({_few([os.path.basename(image.path) for image in images])})"
        raise InputError(f"{root / 'train'} {both}: take the images out if it is a split, the folders if it is a class")
    return True


def _splits(root: Path) -> Listing:
    classes = _folders(root / "train")
    notes = [f"left out: {root / name} (a split is train, val or test)" for name in _folders(root) if name not in ("train", "val", "test")]
    splits = {}
    for split in ("train", "val", "test"):
        if (root / split).is_dir():
            _same_classes(root / split, _folders(root / split), classes)
            splits[split] = _tree(root / split, classes, notes)
    return Listing("splits", root, classes, [_plain(name) for name in classes], splits, notes)


# --- Tiny ImageNet ------------------------------------------------------------------------------------------------------------------------


def _is_tiny_imagenet(root: Path) -> bool:
    return (root / "wnids.txt").is_file() and (root / "train").is_dir() and (root / "val" / "val_annotations.txt").is_file()


def _tiny_imagenet(root: Path) -> Listing:
    notes: list[str] = []
    classes = _folders(root / "train")
    _same_classes(root / "wnids.txt", _lines(root / "wnids.txt"), classes)
    words = dict(line.split("\t", 1) for line in _lines(root / "words.txt") if "\t" in line) if (root / "words.txt").is_file() else {}
    splits = {"train": _tree(root / "train", classes, notes, "images")}
    label, validation = {name: i for i, name in enumerate(classes)}, {}
    for number, line in enumerate(_lines(root / "val" / "val_annotations.txt"), 1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in label or os.path.basename(fields[0]) != fields[0]:
            raise InputError(f"{root / 'val' / 'val_annotations.txt'}, line {number}, names no image and class of train: {line[:80]!r}")
        validation[fields[0]] = label[fields[1]]
    _same_classes(root / "val", (classes[i] for i in validation.values()), classes)
    splits["val"] = [(File(str(root / "val" / "images" / name)), validation[name]) for name in sorted(validation)]
    if (root / "test").is_dir():
        notes.append(f"left out: {root / 'test'} (its images have no labels)")
    return Listing("Tiny ImageNet", root, classes, [words.get(name, name) for name in classes], splits, notes)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


# --- CIFAR-10 -----------------------------------------------------------------------------------------------------------------------------


def _cifar10_root(root: Path) -> Path:
    return root.parent if root.name == "cifar-10-batches-py" else root


def _is_cifar10(root: Path) -> bool:
    return (_cifar10_root(root) / "cifar-10-batches-py" / "data_batch_1").is_file()


def _cifar10(root: Path) -> Listing:
    from torchvision.datasets import CIFAR10  # heavy, and needed here only

    splits: dict[str, list[tuple[Reference, int]]] = {}
    classes: list[str] = []
    for split in ("train", "test"):
        try:
            data = CIFAR10(str(_cifar10_root(root)), train=split == "train", download=False)
        except Exception as error:  # it unpickles, which fails in any way
            raise InputError(f"{root} is not CIFAR-10 as torchvision stores it ({error}): fetch it again") from None
        order = sorted(data.classes)
        if classes and order != classes:
            raise InputError(f"{root} names other classes for its test batch than for its training batches: fetch it again")
        classes = order
        labels = [classes.index(name) for name in data.classes]
        pairs = zip(data.data, data.targets, strict=True)
        splits[split] = [(Pixels(str(root / split / f"{i:05d}"), pixels), labels[target]) for i, (pixels, target) in enumerate(pairs)]
    return Listing("CIFAR-10", root, classes, [_plain(name) for name in classes], splits, [])


LAYOUTS: list[tuple[Callable[[Path], bool], Callable[[Path], Listing]]] = [
    (_is_cifar10, _cifar10),
    (_is_tiny_imagenet, _tiny_imagenet),
    (_is_splits, _splits),
    (lambda root: bool(_folders(root)), _image_folder),
]
