"""Where images come from: finds out how SOURCE is laid out, and lists its images and classes in one
fixed order.

| layout        | looks like                                                       | splits        |
|---------------|------------------------------------------------------------------|---------------|
| torchvision   | the text `torchvision:NAME:ROOT`, a data set of torchvision's    | those it has  |
| ILSVRC        | the archives of ILSVRC-2012 or 2010 as distributed, never        | those it has  |
|               | unpacked: `alexnet/data/archives.py`                             |               |
| archive       | one `.tar` of `<class>.tar`, as the releases of all of ImageNet  | train         |
| CIFAR-10      | `cifar-10-batches-py/` or its parent, as torchvision stores it   | train, test   |
| Tiny ImageNet | `wnids.txt`, `words.txt`, `train/<wnid>/images/`,                | train, val    |
|               | `val/val_annotations.txt`                                        |               |
| splits        | `train/<class>/<image>`, and `val/` or `test/` likewise          | those it has  |
| image folder  | `<class>/<image>`: a tree of synsets, say                        | train         |

A label is the class's position among the sorted names of train's classes. A class is called as
`words.txt` or `synset_words.txt` beside the class folders calls it, if there is one. What lies
among the images and is none (by its ending, a hidden file, a folder) becomes a row of rejected.csv.
A further layout is one function that recognizes it, one that lists it, and a row in LAYOUTS.
"""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from alexnet.data import archives, torchvision_sets
from alexnet.data.listing import (
    ENDINGS,
    HIDDEN,
    NO_ENDING,
    Entries,
    File,
    Images,
    Listing,
    Reference,
    Stray,
    class_names,
    few,
    lines,
)
from alexnet.data.pack import SPLITS
from alexnet.errors import InputError

WORDS = ("words.txt", "synset_words.txt", "wnids.txt")  # beside the class folders, and no images


def list_source(
    source: str | Path, classes: Sequence[str] | int | None = None, limit: int | None = None
) -> Listing:
    """List SOURCE, in the first layout of LAYOUTS that it has.

    Args:
        source: A path, or `torchvision:NAME:ROOT`.
        classes: A part of it, see `Listing.only`.
        limit: The same.

    Raises:
        InputError: SOURCE has no layout, or is at odds with it.
    """
    try:
        listing = _whole_listing(source)
        if classes is not None or limit is not None:
            listing = listing.only(classes, limit)
        for split, images in listing.splits.items():
            if count := images.survey.strays:
                names = ", ".join(images.survey.examples) + f" and {count - 3} more" * (count > 3)
                listing.notes.append(f"left out of {split}, and listed in rejected.csv: {names}")
    except PermissionError as error:
        raise InputError(f"cannot read {error.filename}: permission denied") from None
    return listing


def _whole_listing(source: str | Path) -> Listing:
    if str(source).startswith("torchvision:"):
        return torchvision_sets.named(str(source))
    root = Path(source)
    if not root.exists():
        raise InputError(f"{root} does not exist: name a folder of images, or `pictographs`")
    if not root.is_dir() and root.suffix != ".tar":
        raise InputError(f"{root} is a file: name the folder that holds one folder per class")
    for applies, read in LAYOUTS:
        if applies(root):
            return read(root)
    raise InputError(f"{root} holds no class folders: give each class's images a folder in it")


# --- folders of images ----------------------------------------------------------------------------


def _folders(folder: Path) -> list[str]:
    entries = os.scandir(folder)
    return sorted(e.name for e in entries if not e.name.startswith(".") and os.path.isdir(e.path))


def _images(folder: Path) -> Iterator[Reference | Stray]:
    """What is directly in `folder`, sorted by name."""
    within = os.path.join(folder, "")
    for name in sorted(os.listdir(folder)):
        path = within + name  # os.path.join would take as long as the rest
        if name.startswith("."):
            yield Stray(path, HIDDEN)
        elif name.lower().endswith(ENDINGS):
            yield File(path)
        else:
            yield Stray(path, "a folder" if os.path.isdir(path) else NO_ENDING)


def _tree(folder: Path, classes: list[str], below: str = "") -> Entries:
    for item in sorted(os.scandir(folder), key=lambda item: item.name):
        if item.is_symlink() and not os.path.exists(item.path):
            yield Stray(item.path, "a link that leads nowhere"), -1
        elif os.path.isdir(item.path):
            if item.name.startswith("."):
                yield Stray(item.path, HIDDEN), -1
        elif item.name not in WORDS:
            yield Stray(item.path, "not in a class folder"), -1
    for label, name in enumerate(classes):
        place, images = folder / name / below, 0
        for entry in _images(place) if place.is_dir() else ():
            images += isinstance(entry, File)
            yield entry, label
        if not images:
            raise InputError(f"class folder {place} holds no images: fill it or remove it")


def _same_classes(split: Path, names: Iterable[str], classes: list[str]) -> None:
    names = set(names)
    surplus, missing = sorted(names - set(classes)), sorted(set(classes) - names)
    if surplus or missing:
        faults = [f"has {few(surplus)}, which train lacks"] * bool(surplus)
        faults += [f"lacks {few(missing)}"] * bool(missing)
        raise InputError(f"{split} {' and '.join(faults)}: every split needs the same classes")


def _image_folder(root: Path) -> Listing:
    classes = _folders(root)
    images = Images(root, functools.partial(_tree, root, classes))
    return Listing("image folder", root, classes, class_names(root, classes), {"train": images}, [])


def _is_splits(root: Path) -> bool:
    """Whether `train/` holds folders; a folder of pictures of trains holds images.

    Raises:
        InputError: It holds both.
    """
    train = root / "train"
    if not train.is_dir() or not (folders := _folders(train)):
        return False
    if images := [os.path.basename(e.path) for e in _images(train) if isinstance(e, File)]:
        what = f"{train} holds folders ({few(folders)}) and images ({few(images)})"
        raise InputError(f"{what}: take out the images of a split, the folders of a class")
    return True


def _splits(root: Path) -> Listing:
    classes, folders = _folders(root / "train"), _folders(root)
    others = [root / name for name in folders if name not in SPLITS]
    notes = [f"left out: {path} (a split is train, val or test)" for path in others]
    names = sorted({*os.listdir(root)} - {*folders, *WORDS})
    if loose := [str(root / name) for name in names]:
        notes.append(f"left out: {few(loose)} (not in a class folder of a split)")
    splits = {}
    for split in SPLITS:
        if split in folders:
            _same_classes(root / split, _folders(root / split), classes)
            splits[split] = Images(root, functools.partial(_tree, root / split, classes))
    return Listing("splits", root, classes, class_names(root, classes), splits, notes)


# --- Tiny ImageNet --------------------------------------------------------------------------------


def _is_tiny_imagenet(root: Path) -> bool:
    files = (root / "wnids.txt", root / "val" / "val_annotations.txt")
    return all(file.is_file() for file in files) and (root / "train").is_dir()


def _tiny_imagenet(root: Path) -> Listing:
    classes, val = _folders(root / "train"), root / "val"
    _same_classes(root / "wnids.txt", lines(root / "wnids.txt"), classes)
    label = {name: i for i, name in enumerate(classes)}
    validation: dict[str, int] = {}
    for number, line in enumerate(lines(val / "val_annotations.txt"), 1):
        name, wnid, *_ = [*line.split("\t"), ""]
        if wnid not in label or os.path.basename(name) != name:
            what = f"line {number} names no image and class of train, {line[:80]!r}"
            raise InputError(f"{val / 'val_annotations.txt'}: {what}")
        validation[name] = label[wnid]
    _same_classes(val, (classes[i] for i in validation.values()), classes)

    def annotated() -> Entries:
        for entry in _images(val / "images"):
            if isinstance(entry, File) and os.path.basename(entry.path) not in validation:
                yield Stray(entry.path, "not in val_annotations.txt"), -1
            elif isinstance(entry, Stray):
                yield entry, -1
        for name in sorted(validation):
            yield File(str(val / "images" / name)), validation[name]

    train = functools.partial(_tree, root / "train", classes, "images")
    splits = {"train": Images(root, train), "val": Images(root, annotated)}
    test = root / "test"
    notes = [f"left out: {test} (its images have no labels)"] if test.is_dir() else []
    return Listing("Tiny ImageNet", root, classes, class_names(root, classes), splits, notes)


# --- all of them ----------------------------------------------------------------------------------

LAYOUTS: list[tuple[Callable[[Path], bool], Callable[[Path], Listing]]] = [
    (archives.is_ilsvrc, archives.ilsvrc),
    (archives.is_archive, archives.archive),
    (torchvision_sets.is_cifar10, torchvision_sets.cifar10),
    (_is_tiny_imagenet, _tiny_imagenet),
    (_is_splits, _splits),
    (lambda root: bool(_folders(root)), _image_folder),
]
