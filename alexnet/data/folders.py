"""Folders of images as people have them: which of them are splits, classes, or neither.

A class is a folder that holds images, or whose only folder does and is called for that
(`n01440764/images/`); or an archive of them, `n01440764.tar`, see `archives.of_classes`. Splits are
called as in SPLIT_NAMES, in any case; an ending that says no more is ignored (`training_set`).
Folders that systems make, `__MACOSX` say, are neither. A class has its folder's name, in NFC.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from alexnet.data import archives
from alexnet.data.formats import is_image
from alexnet.data.listing import (
    HIDDEN,
    NO_ENDING,
    File,
    Finds,
    Reference,
    Stray,
    fault,
    few,
    normal,
)
from alexnet.errors import InputError

SPLIT_NAMES = {
    "train": r"train|training|trn",
    "val": r"val|valid|validation|validate|dev|eval",
    "test": r"test\d?|testing",
}
IMAGES = r"images?|imgs?|pictures|photos"
SYSTEM = ("__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found",
          "system volume information", "thumbs.db", "desktop.ini", "__pycache__")  # fmt: skip
WORDS = ("words.txt", "synset_words.txt", "wnids.txt")  # beside the class folders, and no images


def subfolders(folder: Path) -> list[Path]:
    """The folders in `folder` that may be classes or splits, sorted."""
    with os.scandir(folder) as entries:
        return sorted(
            folder / entry.name
            for entry in entries
            if not entry.name.startswith(".")
            and entry.name.lower() not in SYSTEM
            and _is_folder(entry)
        )


def _is_folder(entry: os.DirEntry) -> bool:
    """Whether it is a folder, or a link to one. Where a disk fails, `os.path.isdir` says no."""
    try:
        return entry.is_dir()
    except OSError as error:
        fault(error, entry.path)
        return False


def _is_broken(link: str) -> bool:
    try:
        os.stat(link)
    except OSError as error:
        fault(error, link)
        return True
    return False


def images_in(folder: Path) -> Iterator[Reference | Stray]:
    """What is directly in `folder`, sorted by name."""
    within = os.path.join(folder, "")
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name, path = entry.name, within + entry.name
        if name.startswith("."):
            yield Stray(path, HIDDEN)
        elif not _is_named_image(entry):
            yield Stray(path, "a folder" if _is_folder(entry) else NO_ENDING)
        else:
            yield File(path)


def _is_named_image(entry: os.DirEntry) -> bool:
    def head() -> bytes:
        try:
            return File(entry.path).head()
        except OSError as error:
            fault(error, entry.path)
            return b""

    return is_image(entry.name, head)


def few_images(folder: Path) -> list[str]:
    """The names of the first images in `folder`, at most six."""
    names: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and _is_named_image(entry) and not _is_folder(entry):
                names.append(entry.name)
                if len(names) == 6:
                    break
    return sorted(names)


def class_place(folder: Path) -> Path | None:
    """Where the images of the class `folder` are: in it, or in its `images/`; None: nowhere."""
    if few_images(folder):
        return folder
    inner = subfolders(folder)
    is_inner = len(inner) == 1 and re.fullmatch(IMAGES, inner[0].name, re.IGNORECASE)
    return inner[0] if is_inner and few_images(inner[0]) else None


def holds_classes(folder: Path) -> bool:
    is_held = any(class_place(inner) for inner in subfolders(folder))
    return is_held or bool(archives.of_classes(folder))


def class_folders(folder: Path) -> dict[str, Path]:
    """The class folders in `folder`, and archives, by the names of the classes, sorted by these.

    Raises:
        InputError: Two of them have one name, written in two ways.
    """
    folders: dict[str, Path] = {}
    for path in subfolders(folder):
        if (name := normal(path.name)) in folders:
            what = f"{folder} has two folders {name}, whose names Unicode writes in two ways"
            raise InputError(f"{what}: put their images into one")
        folders[name] = path
    for path in archives.of_classes(folder):  # half unpacked: the folder counts
        folders.setdefault(normal(path.stem), path)
    return dict(sorted(folders.items()))


def class_root(folder: Path) -> Path:
    """The folder that holds the class folders: `folder`, or the only one in it (`train/train/`)."""
    inner = subfolders(folder)
    is_doubled = len(inner) == 1 and not class_place(inner[0]) and holds_classes(inner[0])
    return inner[0] if is_doubled else folder


def split_folders(root: Path) -> dict[str, list[Path]]:
    """The folders in `root` that are called as splits are."""
    splits: dict[str, list[Path]] = {split: [] for split in SPLIT_NAMES}
    for path in subfolders(root):
        name = re.sub(r"[ _-]?(set|data|images)$", "", path.name.lower())
        for split, pattern in SPLIT_NAMES.items():
            if re.fullmatch(pattern, name):
                splits[split].append(path)
    return splits


def is_splits(root: Path) -> bool:
    """Whether `train/` holds class folders; a folder of pictures of trains holds images.

    Raises:
        InputError: It holds both; or images only, and what lies beside it are splits.
    """
    splits = split_folders(root)
    sorted_ones = [path for path in splits["train"] if holds_classes(class_root(path))]
    for train in sorted_ones:
        if images := few_images(train):
            folders = few([path.name for path in subfolders(train)])
            what = f"{train} holds folders ({folders}) and images ({few(images)})"
            raise InputError(f"{what}: take out the images of a split, the folders of a class")
    is_all = sum(map(len, splits.values())) == len(subfolders(root))
    if not sorted_ones and is_all and any(map(few_images, splits["train"])):
        what = f"{splits['train'][0]} holds images, and no class folders"
        raise InputError(f"{what}: sort them into one folder per class in it")
    return bool(sorted_ones)


def splits_of(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The folder of each split that has class folders; and notes on those that have none.

    Raises:
        InputError: There are two of a split, or the images of validation are not sorted.
    """
    places, notes = {}, []
    for split, paths in split_folders(root).items():
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            what = f"{root} has two folders for {split}, {names}"
            raise InputError(f"{what}: take one of them out, or rename it to leave it out")
        for path in paths:
            place = class_root(path)
            if holds_classes(place) or not (images := few_images(path)):
                places[split] = place
            elif split == "test":
                notes.append(f"left out: {path} (its images have no labels)")
            else:
                what = f"{path} holds images ({few(images)}), and no class folders"
                remedy = "sort them into folders called as those of train, or rename it"
                raise InputError(f"{what}: {remedy} to leave it out")
    return places, notes


def tree(folder: Path, places: Sequence[Path | None]) -> Finds:
    """What lies beside the class folders of `folder`, and then the images in each of `places`, in
    label order; None: the split lacks that class.

    Args:
        folder: Of a split, which holds a folder for each class.
        places: Each class's folder, in label order.
    """
    with os.scandir(folder) as entries:
        beside = sorted(entries, key=lambda entry: entry.name)
    taken = {place.name for place in places if place} | {*WORDS}
    for entry in beside:
        if entry.is_symlink() and _is_broken(entry.path):
            yield Stray(entry.path, "a link that leads nowhere"), -1
        elif entry.name.lower() in SYSTEM:
            yield Stray(entry.path, "made by a system, and no class"), -1
        elif entry.name.startswith("."):
            yield Stray(entry.path, HIDDEN), -1
        elif not _is_folder(entry) and entry.name not in taken:
            yield Stray(entry.path, "not in a class folder"), -1
    for label, place in enumerate(places):
        if place is not None:
            yield from of_class(place, label)


def of_class(place: Path, label: int) -> Finds:
    """The images of a class, in its folder or archive `place`; or what is wrong with it.

    Args:
        place: The class's folder or archive.
        label: From 0.
    """
    strays: list[str] = []
    try:
        images, is_archive = 0, place.is_file()
        within: Iterable[Reference | Stray] = (
            entry for entry, _ in archives.images_of(place, label)
        )
        for entry in within if is_archive else images_in(class_place(place) or place):
            if isinstance(entry, Stray):
                strays.append(os.path.basename(entry.path))
            images += isinstance(entry, Reference)
            yield entry, label
    except PermissionError as error:
        yield InputError(f"cannot read {error.filename}: permission denied"), label
        return
    except InputError as error:  # of an archive
        yield error, label
        return
    if not images:
        holds = f"; it holds {few(strays)}" if strays else ""
        what = f"class {'archive' if is_archive else 'folder'} {place} holds no images"
        yield InputError(f"{what}: fill it or remove it{holds}"), label


def same_classes(split: Path, names: Iterable[str], classes: Sequence[str]) -> Finds:
    """What is wrong with the classes `names` of a split, where train's are `classes`.

    Args:
        split: The split's folder, named in messages.
        names: The split's classes.
        classes: Those of train.
    """
    names = list(names)
    surplus, missing = sorted({*names} - {*classes}), sorted({*classes} - {*names})
    faults = [f"has {few(surplus)}, which train lacks"] * bool(surplus)
    faults += [f"lacks {few(missing)}"] * bool(missing)
    error = InputError(f"{split} {' and '.join(faults)}: every split needs the same classes")
    if surplus:
        yield error, None
    yield from ((error, list(classes).index(name)) for name in missing)
