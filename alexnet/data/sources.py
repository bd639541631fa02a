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

In the last two `<class>.tar`, as `n01440764.tar`, may stand for a folder `<class>/`.

SOURCE may also hold a single folder that has one of these, some levels down. What counts as a class
or a split is said in `alexnet.data.folders`, and which files are images in `alexnet.data.formats`.
A label is the class's position among the sorted names of train's classes. A class is called as
`words.txt` or `synset_words.txt` beside the class folders calls it, if there is one. What lies
among the images and is none (by its ending, a hidden file, a folder) becomes a row of rejected.csv.
A further layout is one function that recognizes it, one that lists it, and a row in LAYOUTS.
"""

import functools
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from alexnet.data import archives, torchvision_sets
from alexnet.data.folders import (
    IMAGES,
    WORDS,
    class_folders,
    holds_classes,
    images_in,
    is_splits,
    same_classes,
    split_folders,
    splits_of,
    subfolders,
    tree,
)
from alexnet.data.formats import ARCHIVES, kind_of
from alexnet.data.listing import (
    File,
    Finds,
    Images,
    Listing,
    Reference,
    Stray,
    class_names,
    few,
    normal,
)
from alexnet.errors import EnvironmentFault, InputError, reason
from alexnet.files import lines

DEPTH = 3  # levels down to the class folders, or splits, of a source that holds them in a folder


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
    except OSError as error:
        place = error.filename or source
        raise EnvironmentFault(
            f"cannot read {place}: {reason(error)}; see that it can be reached, and try again"
        ) from None
    return listing


def _whole_listing(source: str | Path) -> Listing:
    if str(source).startswith("torchvision:"):
        return torchvision_sets.named(str(source))
    root = Path(source)
    if not root.exists():
        raise InputError(f"{root} does not exist: name a folder of images, or `pictographs`")
    kind = "" if root.is_dir() else kind_of(File(str(root)).head())
    if kind in ARCHIVES:
        what = f"{root} is compressed ({kind}), and cannot be read in place"
        raise InputError(f"{what}: unpack it and name what comes out of it")
    if not root.is_dir() and kind != "tar" and root.suffix.lower() != ".tar":
        raise InputError(f"{root} is a file: name the folder that holds one folder per class")
    place, read = _find_layout(root)
    listing = read(place)
    if place != root:
        listing.notes.insert(0, f"the images are those of {place}")
    return listing


def _find_layout(root: Path) -> tuple[Path, Callable[[Path], Listing]]:
    """A folder that has a layout, `root` or one at most DEPTH levels down, and what lists it.

    Raises:
        InputError: There is none, or several are equally near.
    """
    level = [root]
    for _ in range(DEPTH + 1):
        fits = [(path, read) for path in level if (read := _layout(path)) is not None]
        if len(fits) == 1:
            return fits[0]
        if fits:
            what = f"{root} has no class folders of its own; several folders in it have"
            raise InputError(f"{what}: name one, {few([str(path) for path, _ in fits])}")
        level = [inner for path in level for inner in subfolders(path)]
    names = [entry.name for entry in os.scandir(root) if not entry.name.startswith(".")]
    archives = [
        name for name in sorted(names) if re.search(r"\.(tar|tgz|zip|rar|7z|gz)$", name, re.I)
    ]
    if archives:
        what = f"{root} holds no class folders, and archives: {few(archives)}"
        raise InputError(f"{what}: unpack them, or name one that is a .tar of one .tar per class")
    what = f"{root} holds no class folders with images"
    raise InputError(f"{what}: give each class's images a folder in it")


def _layout(path: Path) -> Callable[[Path], Listing] | None:
    return next((read for applies, read in LAYOUTS if applies(path)), None)


# --- folders of images ----------------------------------------------------------------------------


def _image_folder(root: Path) -> Listing:
    folders = class_folders(root)
    classes, find = list(folders), functools.partial(tree, root, list(folders.values()))
    if len(classes) == 1 and re.fullmatch(IMAGES, classes[0], re.IGNORECASE):
        what = f"{folders[classes[0]]} is the only folder of images, and is called as no class is"
        raise InputError(f"{what}: give each class's images a folder in it")
    names = class_names(root, classes)
    return Listing("image folder", root, classes, names, {"train": Images(root, find)}, [])


def _splits(root: Path) -> Listing:
    places, notes = splits_of(root)
    folders = {split: class_folders(place) for split, place in places.items()}
    classes, named = list(folders["train"]), split_folders(root).values()
    others = [path for path in subfolders(root) if not any(path in paths for paths in named)]
    notes += [f"left out: {path} (a split is train, val or test)" for path in others]
    names = sorted({*os.listdir(root)} - {path.name for path in subfolders(root)} - {*WORDS})
    if loose := [str(root / name) for name in names]:
        notes.append(f"left out: {few(loose)} (not in a class folder of a split)")

    def find(split: str) -> Finds:
        here = folders[split]
        empty = {name for name, path in here.items() if path.is_dir() and not any(path.iterdir())}
        taken = [name for name in here if name in classes or name not in empty]
        yield from same_classes(places[split], taken, classes)
        yield from tree(places[split], [here.get(name) for name in classes])

    splits = {split: Images(root, functools.partial(find, split)) for split in places}
    return Listing("splits", root, classes, class_names(root, classes), splits, notes)


# --- Tiny ImageNet --------------------------------------------------------------------------------


def _is_tiny_imagenet(root: Path) -> bool:
    files = (root / "wnids.txt", root / "val" / "val_annotations.txt")
    folders = (root / "train", root / "val" / "images")  # the latter is gone where it was sorted
    return all(map(Path.is_file, files)) and all(
        path.is_dir() and any(path.iterdir()) for path in folders
    )


def _tiny_imagenet(root: Path) -> Listing:
    folders, val = class_folders(root / "train"), root / "val"
    classes, images = list(folders), val / "images"
    label = {name: i for i, name in enumerate(classes)}
    wnids = [normal(line) for line in lines(root / "wnids.txt")]

    def train() -> Finds:
        yield from same_classes(root / "wnids.txt", wnids, classes)
        yield from tree(root / "train", list(folders.values()))

    def annotated() -> Finds:
        validation: dict[str, int] = {}
        for number, line in enumerate(lines(val / "val_annotations.txt"), 1):
            name, wnid, *_ = [*line.split("\t"), ""]
            wnid = normal(wnid.strip())
            if wnid in label and os.path.basename(name) == name:
                validation[name] = label[wnid]
                continue
            what = f"line {number} names no image and class of train, {line[:80]!r}"
            yield InputError(f"{val / 'val_annotations.txt'}: {what}"), None
        yield from same_classes(val, {classes[i] for i in validation.values()}, classes)
        present = dict[str, Reference]()
        for entry in images_in(images):
            name = os.path.basename(entry.path)
            if isinstance(entry, Stray):
                yield entry, -1
            elif name not in validation:
                yield Stray(entry.path, "not in val_annotations.txt"), -1
            else:
                present[name] = entry
        for name in sorted(validation):
            lost = Stray(str(images / name), "in val_annotations.txt, and not there")
            yield present.get(name, lost), validation[name]

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
    (is_splits, _splits),
    (holds_classes, _image_folder),
]
