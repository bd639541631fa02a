"""ImageNet as it is distributed: tar archives, read where they lie. Nothing is unpacked; an image is some bytes at some place of a file.

    ILSVRC-2012   ILSVRC2012_img_train.tar (of <wnid>.tar), ILSVRC2012_img_val.tar, ILSVRC2012_devkit_t12.tar.gz,
                  ILSVRC2012_img_test_v10102019.tar or ILSVRC2012_img_test.tar, whose labels are not public
    ILSVRC-2010   ILSVRC2010_images_train.tar, ..._val.tar, ..._test.tar, ILSVRC2010_devkit-1.0.tar.gz,
                  ILSVRC2010_test_ground_truth.txt, patch_images.tar
    all of it     one .tar of <wnid>.tar

The development kit tells which class a validation image is of, and what the classes are called; it may be unpacked. Names and formats:
torchvision's `ImageNet`, and fuel's converter for 2010. Of members with one name the last counts, as it does when an archive is unpacked.
"""

import functools
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np

from alexnet.data.listing import (
    ENDINGS,
    UNLABELED,
    Entries,
    Images,
    Listing,
    Member,
    Stray,
    class_names,
    few,
)
from alexnet.errors import InputError, needs


@dataclass(frozen=True)
class Release:
    """The files of one year."""

    title: str
    train: str
    devkit: str
    number: str  # the field of meta.mat that the ground truth refers to
    val: str
    val_truth: str  # in the development kit
    test: tuple[str, ...] = ()  # the first of these that is there
    test_truth: str = ""  # beside the archives
    patches: str = ""  # images that replace broken ones, in train/, val/, test/


RELEASES = (
    Release(
        "ILSVRC-2012",
        "ILSVRC2012_img_train.tar",
        "ILSVRC2012_devkit_t12.tar.gz",
        "ILSVRC2012_ID",
        "ILSVRC2012_img_val.tar",
        "ILSVRC2012_validation_ground_truth.txt",
        ("ILSVRC2012_img_test_v10102019.tar", "ILSVRC2012_img_test.tar"),
    ),
    Release(
        "ILSVRC-2010",
        "ILSVRC2010_images_train.tar",
        "ILSVRC2010_devkit-1.0.tar.gz",
        "ILSVRC2010_ID",
        "ILSVRC2010_images_val.tar",
        "ILSVRC2010_validation_ground_truth.txt",
        ("ILSVRC2010_images_test.tar",),
        "ILSVRC2010_test_ground_truth.txt",
        "patch_images.tar",
    ),
)


# --- tar ----------------------------------------------------------------------------------------------------------------------------------


class _Window:
    """Bytes `begin` to `begin + size` of a file, as a file that tarfile can read."""

    def __init__(self, descriptor: int, begin: int, size: int):
        self.descriptor, self.begin, self.size, self.at = descriptor, begin, size, 0

    def read(self, count: int) -> bytes:
        data = os.pread(
            self.descriptor, max(0, min(count, self.size - self.at)), self.begin + self.at
        )
        self.at += len(data)
        return data

    def seek(self, position: int) -> None:
        self.at = position

    def tell(self) -> int:
        return self.at


def members(archive: Path, inside: Member | None = None) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """The headers in an archive, or in an archive `inside` it, and where in the file their bytes begin.

    Raises InputError where it is damaged or ends too early.
    """
    name = inside.path if inside else str(archive)
    with archive.open("rb") as file:
        begin, size = (inside.offset, inside.size) if inside else (0, archive.stat().st_size)
        window = _Window(file.fileno(), begin, size)
        try:
            with tarfile.open(fileobj=window, mode="r:") as tar:  # type: ignore[call-overload]  # read, seek and tell are all it needs
                while (info := tar.next()) is not None:
                    tar.members.clear()  # it would keep a million
                    if info.offset_data + info.size > size:
                        raise tarfile.ReadError("unexpected end of data")
                    yield info, begin + info.offset_data
                window.seek(
                    tar.offset
                )  # at the mark of the end: zeros. tarfile takes any other nonsense for it
                if any(window.read(512)):
                    raise tarfile.ReadError(
                        f"no header where one should be, at byte {begin + tar.offset}"
                    )
        except tarfile.TarError as error:
            raise InputError(f"{name} is a damaged archive ({error}): fetch it again") from None


def _images(
    archive: Path, label: int, inside: Member | None = None
) -> Iterator[tuple[Member | Stray, int]]:
    """What an archive holds beside folders, sorted by name."""
    prefix = inside.path if inside else str(archive)
    found: dict[str, Member] = {}
    strays: list[Stray] = []
    for info, offset in members(archive, inside):
        path, parts = f"{prefix}/{info.name}", PurePosixPath(info.name).parts
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            strays.append(Stray(path, "not a plain file in the archive"))
        elif _leads_out(parts):
            strays.append(Stray(path, "a path that leads out of the archive"))
        elif parts[-1].startswith("."):
            strays.append(Stray(path, "hidden: its name begins with a dot"))
        elif not parts[-1].lower().endswith(ENDINGS):
            strays.append(Stray(path, "no image by its ending"))
        else:
            if (name := "/".join(parts)) in found:  # without "./"
                strays.append(
                    Stray(found[name].path, "a later member of the archive has the same name")
                )
            found[name] = Member(path, str(archive), offset, info.size)
    yield from ((stray, label) for stray in strays)
    yield from ((found[name], label) for name in sorted(found))


def _leads_out(parts: tuple[str, ...]) -> bool:
    return not parts or parts[0].startswith("/") or ".." in parts


def _classes(archive: Path) -> tuple[dict[str, Member], list[Stray]]:
    """The archives of single classes inside one of them all, by class, sorted; and whatever else it holds."""
    found: dict[str, Member] = {}
    strays: list[Stray] = []
    for info, offset in members(archive):
        path, name = f"{archive}/{info.name}", PurePosixPath(info.name)
        if info.isdir():
            continue
        if not info.isreg() or name.suffix != ".tar" or name.name.startswith("."):
            strays.append(Stray(path, "not an archive of a class"))
        elif _leads_out(name.parts):
            strays.append(Stray(path, "a path that leads out of the archive"))
        elif name.stem in found:
            raise InputError(f"{archive} has two members {name.name}: fetch it again")
        else:
            found[name.stem] = Member(path, str(archive), offset, info.size)
    return dict(sorted(found.items())), strays


def _all(
    archive: Path, classes: dict[str, Member], strays: list[Stray], replaced: dict[str, Member]
) -> Entries:
    yield from ((stray, -1) for stray in strays)
    for label, inside in enumerate(classes.values()):
        images = 0
        for entry, _ in _images(archive, label, inside):
            if isinstance(entry, Member):
                entry, images = replaced.get(os.path.basename(entry.path), entry), images + 1
            yield entry, label
        if not images:
            raise InputError(f"{inside.path} holds no images: fetch it again")


# --- one archive of all classes -----------------------------------------------------------------------------------------------------------


def is_archive(root: Path) -> bool:
    return root.is_file()


def archive(root: Path) -> Listing:
    classes, strays = _classes(root)
    if not classes:
        raise InputError(
            f"{root} holds no `<class>.tar`: name an archive of one archive per class, or a folder of class folders"
        )
    images = Images(root.parent, functools.partial(_all, root, classes, strays, {}))
    return Listing(
        "archive",
        root,
        list(classes),
        class_names(root.parent, list(classes)),
        {"train": images},
        [],
    )


# --- ILSVRC -------------------------------------------------------------------------------------------------------------------------------


def is_ilsvrc(root: Path) -> bool:
    return any((root / release.train).is_file() for release in RELEASES)


def ilsvrc(root: Path) -> Listing:
    release = next(release for release in RELEASES if (root / release.train).is_file())
    classes, strays = _classes(root / release.train)
    if not classes:
        raise InputError(f"{root / release.train} holds no `<class>.tar`: fetch it again")
    patches = (
        _patches(root / release.patches)
        if release.patches and (root / release.patches).is_file()
        else {}
    )
    splits = {
        "train": Images(
            root,
            functools.partial(
                _all, root / release.train, classes, strays, patches.get("train", {})
            ),
        )
    }
    wnids, words = _synsets(root, release)
    if unknown := [name for name in classes if name not in words]:
        raise InputError(
            f"{root / release.train} holds {few(unknown)}, which {release.devkit} does not know: fetch both again"
        )
    label = {name: i for i, name in enumerate(classes)}
    truths: dict[str, tuple[str, Callable[[], bytes] | None]] = {
        "val": (release.val, lambda: _devkit(root, release, release.val_truth))
    }
    if test := next((name for name in release.test if (root / name).is_file()), ""):
        truths["test"] = (
            test,
            (lambda: _truth_beside(root, release, test)) if release.test_truth else None,
        )
    for split, (file, truth) in truths.items():
        if (root / file).is_file():
            labels = _labels(truth().decode().split(), wnids, label, file) if truth else None
            find = functools.partial(_numbered, root / file, labels, patches.get(split, {}))
            splits[split] = Images(root, find, labeled=labels is not None)
    number = {wnid: number for number, wnid in wnids.items()}
    names, numbers = [words[name] for name in classes], [number[name] for name in classes]
    return Listing(release.title, root, list(classes), names, splits, [], numbers)


def _truth_beside(root: Path, release: Release, test: str) -> bytes:
    path = root / release.test_truth
    if not path.is_file():
        raise InputError(
            f"{root / test} needs {release.test_truth} beside it: fetch that, or move the archive elsewhere"
        )
    return path.read_bytes()


def _labels(
    numbers: list[str], wnids: dict[int, str], label: dict[str, int], file: str
) -> list[int]:
    """Our labels of the images 1, 2, ..., from the numbers of their synsets."""
    try:
        found = [wnids[int(number)] for number in numbers]
    except (ValueError, KeyError) as error:
        raise InputError(
            f"the ground truth of {file} names a synset {error} that the development kit does not know"
        ) from None
    if unknown := sorted(set(found) - set(label)):
        raise InputError(
            f"the ground truth of {file} names {few(unknown)}, of which there are no training images"
        )
    return [label[wnid] for wnid in found]


def _numbered(archive: Path, labels: list[int] | None, replaced: dict[str, Member]) -> Entries:
    """Images whose names end in their numbers, `..._00000001.JPEG`, with labels in that order; None: without labels, as UNLABELED."""
    seen = set()
    for entry, _ in _images(archive, -1):
        if isinstance(entry, Stray):
            yield entry, -1
            continue
        name = os.path.basename(entry.path)
        digits = PurePosixPath(name).stem.rpartition("_")[2]
        number = int(digits) if digits.isascii() and digits.isdigit() else 0
        if number in seen:
            yield Stray(entry.path, "the second of its number"), -1
        elif number < 1 or (labels is not None and number > len(labels)):
            yield (
                Stray(
                    entry.path,
                    "no number in its name"
                    if labels is None
                    else "the ground truth has no image of this number",
                ),
                -1,
            )
        else:
            seen.add(number)
            yield replaced.get(name, entry), UNLABELED if labels is None else labels[number - 1]
    for number in range(1, (max(seen, default=0) if labels is None else len(labels)) + 1):
        if number not in seen:
            missing = (
                "missing among the others"
                if labels is None
                else "in the ground truth, and not in the archive"
            )
            yield (
                Stray(f"{archive}/{number:08d}", missing),
                UNLABELED if labels is None else labels[number - 1],
            )


def _patches(archive: Path) -> dict[str, dict[str, Member]]:
    """Replacements of broken images, by split and name: `.../<split>/<name>.JPEG`."""
    found: dict[str, dict[str, Member]] = {}
    for entry, _ in _images(archive, -1):
        if isinstance(entry, Member):
            *_, split, name = PurePosixPath(entry.path).parts
            found.setdefault(split, {})[name] = entry
    return found


def _devkit(root: Path, release: Release, name: str) -> bytes:
    """A file of the development kit's `data/`, which is an archive, or has been unpacked."""
    unpacked = root / release.devkit.removesuffix(".tar.gz") / "data" / name
    if unpacked.is_file():
        return unpacked.read_bytes()
    try:
        with tarfile.open(root / release.devkit, "r:gz") as tar:
            for info in tar:
                if info.isreg() and PurePosixPath(info.name).parts[-2:] == ("data", name):
                    file = tar.extractfile(info)
                    assert file is not None
                    return file.read()
    except FileNotFoundError:
        raise InputError(
            f"{root} lacks {release.devkit}, which says what the classes are: put it beside {release.train}"
        ) from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(
            f"{root / release.devkit} is a damaged archive ({error}): fetch it again"
        ) from None
    raise InputError(f"{root / release.devkit} holds no data/{name}: fetch it again")


def _synsets(root: Path, release: Release) -> tuple[dict[int, str], dict[str, str]]:
    """WordNet's identifiers by the numbers of the ground truth, and what they are called."""
    loadmat = needs("scipy.io", extra="datasets", what="reading ILSVRC's meta.mat").loadmat

    try:
        table = np.atleast_1d(
            loadmat(BytesIO(_devkit(root, release, "meta.mat")), squeeze_me=True)["synsets"]
        )
        leaves = [
            row for row in table if int(row["num_children"]) == 0
        ]  # inner nodes of the hierarchy hold no images
        numbers = {int(row[release.number]): str(row["WNID"]) for row in leaves}
        return numbers, {str(row["WNID"]): str(row["words"]) for row in leaves}
    except InputError:
        raise
    except Exception as error:  # whatever scipy meets in a damaged file
        raise InputError(
            f"meta.mat of {release.devkit} cannot be read ({error}): fetch it again"
        ) from None
