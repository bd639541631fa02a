"""ImageNet as it is distributed: tar archives, read where they lie. Nothing is unpacked; an image
is some bytes at some place of a file.

    ILSVRC-2012   ILSVRC2012_img_train.tar (of <wnid>.tar), ILSVRC2012_img_val.tar,
                  ILSVRC2012_devkit_t12.tar.gz, ILSVRC2012_img_test_v10102019.tar or
                  ILSVRC2012_img_test.tar, whose labels are not public
    ILSVRC-2010   ILSVRC2010_images_train.tar, ..._val.tar, ..._test.tar,
                  ILSVRC2010_devkit-1.0.tar.gz, ILSVRC2010_test_ground_truth.txt, patch_images.tar
    all of it     one .tar of <wnid>.tar; or these beside each other, as it unpacks: then each is a
                  class of `alexnet.data.folders`

The development kit says which class a validation image is of, and what the classes are called; it
may be unpacked. Names and formats: torchvision's `ImageNet`, and fuel's converter for 2010. Of
members with one name the last counts, as it does when an archive is unpacked.
"""

import codecs
import functools
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np

from alexnet.data.formats import ARCHIVES, HEAD, is_image, kind_of
from alexnet.data.listing import (
    HIDDEN,
    NO_ENDING,
    UNLABELED,
    Entries,
    Finds,
    Images,
    Listing,
    Member,
    Stray,
    class_names,
    few,
)
from alexnet.errors import InputError, is_environments, needs

LEADS_OUT = "a path that leads out of the archive"


@dataclass(frozen=True)
class Release:
    """The files of one year.

    Args:
        title: Its name.
        train: The archive of the training images' archives.
        devkit: The development kit.
        number: The field of meta.mat that the ground truth refers to.
        val: The archive of the validation images.
        val_truth: Their classes, in the development kit.
        test: The archive of the test images: the first of these that is there.
        test_truth: Their classes, beside the archives; "" where they are not public.
        patches: Images that replace broken ones, in train/, val/, test/.
    """

    title: str
    train: str
    devkit: str
    number: str
    val: str
    val_truth: str
    test: tuple[str, ...] = ()
    test_truth: str = ""
    patches: str = ""


RELEASES = (
    Release(
        "ILSVRC-2012",
        train="ILSVRC2012_img_train.tar",
        devkit="ILSVRC2012_devkit_t12.tar.gz",
        number="ILSVRC2012_ID",
        val="ILSVRC2012_img_val.tar",
        val_truth="ILSVRC2012_validation_ground_truth.txt",
        test=("ILSVRC2012_img_test_v10102019.tar", "ILSVRC2012_img_test.tar"),
    ),
    Release(
        "ILSVRC-2010",
        train="ILSVRC2010_images_train.tar",
        devkit="ILSVRC2010_devkit-1.0.tar.gz",
        number="ILSVRC2010_ID",
        val="ILSVRC2010_images_val.tar",
        val_truth="ILSVRC2010_validation_ground_truth.txt",
        test=("ILSVRC2010_images_test.tar",),
        test_truth="ILSVRC2010_test_ground_truth.txt",
        patches="patch_images.tar",
    ),
)


# --- tar ------------------------------------------------------------------------------------------


def members(archive: Path, inside: Member | None = None) -> Iterator[tarfile.TarInfo]:
    """The headers in an archive, or in an archive `inside` it, with places in the outer file.

    Args:
        archive: A tar file, compressed or not.
        inside: An archive within it; None: the outer one.

    Raises:
        InputError: It is damaged or ends too early.
    """
    name = inside.path if inside else str(archive)
    begin, size = (inside.offset, inside.size) if inside else (0, archive.stat().st_size)
    with archive.open("rb") as file:
        file.seek(begin)
        if (kind := kind_of(file.read(HEAD))) in ARCHIVES:
            what = f"{name} is compressed ({kind}), and cannot be read in place"
            raise InputError(f"{what}: decompress it, and keep the name that it has")
        file.seek(begin)  # which is where tarfile begins
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (info := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # it would keep a million
                    if info.offset_data + info.size > begin + size:
                        raise tarfile.ReadError("unexpected end of data")
                    yield info
                # The end is marked by zeros. tarfile takes any other nonsense for it.
                file.seek(tar.offset)
                if any(file.read(512)):
                    raise tarfile.ReadError(f"no header at byte {tar.offset}")
        except tarfile.TarError as error:
            raise InputError(f"{name} is a damaged archive ({error}): fetch it again") from None


def images_of(archive: Path, label: int, inside: Member | None = None) -> Entries:
    """What an archive holds beside folders, sorted by name.

    Args:
        archive: A tar.
        label: Of its images, from 0.
        inside: The tar within `archive` that is read; None: `archive` itself.
    """
    images: dict[str, Member] = {}
    for info in members(archive, inside):
        name = PurePosixPath(info.name)  # without "./"
        path = f"{inside.path if inside else archive}/{info.name}"
        member = Member(path, str(archive), info.offset_data, info.size)
        faults = {
            "not a plain file in the archive": not info.isreg() or info.issparse(),
            LEADS_OUT: _leads_out(name),
            HIDDEN: name.name.startswith("."),
            NO_ENDING: not info.isdir() and not is_image(name.name, member.head),
        }
        if info.isdir():
            continue
        if reason := next((reason for reason, applies in faults.items() if applies), ""):
            yield Stray(path, reason), label
            continue
        if earlier := images.get(str(name)):
            reason = "a later member of the archive has the same name"
            yield Stray(earlier.path, reason), label
        images[str(name)] = member
    yield from ((images[name], label) for name in sorted(images))


def _leads_out(name: PurePosixPath) -> bool:
    return not name.parts or name.is_absolute() or ".." in name.parts


def _classes(archive: Path) -> tuple[dict[str, Member], list[Stray]]:
    """The archives of single classes inside one of them all, by class, sorted; and whatever else it
    holds.

    Raises:
        InputError: There are none, or two of one class.
    """
    classes: dict[str, Member] = {}
    strays: list[Stray] = []
    for info in members(archive):
        path, name = f"{archive}/{info.name}", PurePosixPath(info.name)
        if info.isdir():
            continue
        if not info.isreg() or name.suffix.lower() != ".tar" or name.name.startswith("."):
            strays.append(Stray(path, "not an archive of a class"))
        elif _leads_out(name):
            strays.append(Stray(path, LEADS_OUT))
        elif name.stem in classes:
            raise InputError(f"{archive} has two members {name.name}: fetch it again")
        else:
            classes[name.stem] = Member(path, str(archive), info.offset_data, info.size)
    if not classes:
        raise InputError(f"{archive} holds no `<class>.tar`: name one that does, or a folder")
    return dict(sorted(classes.items())), strays


def _all(
    archive: Path, classes: dict[str, Member], strays: list[Stray], replaced: dict[str, Member]
) -> Finds:
    yield from ((stray, -1) for stray in strays)
    for label, inside in enumerate(classes.values()):
        images = 0
        try:
            for entry, _ in images_of(archive, label, inside):
                if isinstance(entry, Member):
                    entry, images = replaced.get(os.path.basename(entry.path), entry), images + 1
                yield entry, label
        except InputError as error:  # that counts where the class is taken
            yield error, label
        if not images:
            yield InputError(f"{inside.path} holds no images: fetch it again"), label


# --- archives of classes, beside each other -------------------------------------------------------


def of_classes(folder: Path) -> list[Path]:
    """The archives in `folder` that are classes, sorted: those called as synsets; or all, where no
    folders are there, and each holds images."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if re.fullmatch(r"[^.].*\.tar", entry.name, re.I)]
    archives = [path for path in map(folder.joinpath, sorted(names)) if path.is_file()]
    if synsets := [path for path in archives if re.fullmatch(r"n\d{8}", path.stem)]:
        return synsets
    is_all = len(archives) > 1 and all(map(_holds_images, archives))
    return archives if is_all and not any(path.is_dir() for path in folder.iterdir()) else []


def _holds_images(archive: Path) -> bool:
    """Whether an archive begins with an image, and is none of a contest's."""
    if archive.name.startswith("ILSVRC"):
        return False
    try:
        first = next((info for info in members(archive) if not info.isdir()), None)
    except InputError:
        return False
    return first is not None and is_image(first.name, bytes)


# --- one archive of all classes -------------------------------------------------------------------


def is_archive(root: Path) -> bool:
    return root.is_file()


def archive(root: Path) -> Listing:
    """List one archive of all classes."""
    classes, strays = _classes(root)
    images = Images(root.parent, functools.partial(_all, root, classes, strays, {}))
    names = class_names(root.parent, list(classes))
    return Listing("archive", root, list(classes), names, {"train": images}, [])


# --- ILSVRC ---------------------------------------------------------------------------------------


def is_ilsvrc(root: Path) -> bool:
    return any((root / release.train).is_file() for release in RELEASES)


def ilsvrc(root: Path) -> Listing:
    """List the archives of one year's contest."""
    release = next(release for release in RELEASES if (root / release.train).is_file())
    train = root / release.train
    classes, strays = _classes(train)
    patches = _patches(root / release.patches) if release.patches else {}
    find = functools.partial(_all, train, classes, strays, patches.get("train", {}))
    splits = {"train": Images(root, find)}
    wnids, words = _synsets(root, release)
    if unknown := [name for name in classes if name not in words]:
        raise InputError(f"{release.devkit} knows no {few(unknown)} of {train}: fetch both again")
    label = {name: i for i, name in enumerate(classes)}
    for split, files in (("val", [release.val]), ("test", release.test)):
        for file in [name for name in files if (root / name).is_file()][:1]:
            truth = _truth(root, release, split, file)
            given = None if truth is None else truth.removeprefix(codecs.BOM_UTF8).split()
            labels = None if given is None else _labels(given, wnids, label, file)
            numbered = functools.partial(_numbered, root / file, labels, patches.get(split, {}))
            splits[split] = Images(root, numbered, labeled=labels is not None)
    number = {wnid: number for number, wnid in wnids.items()}
    names, numbers = [words[name] for name in classes], [number[name] for name in classes]
    return Listing(release.title, root, list(classes), names, splits, [], numbers)


def _truth(root: Path, release: Release, split: str, file: str) -> bytes | None:
    """The ground truth of a split's archive `file`, None where it is not public."""
    if split == "val":
        return _devkit(root, release, release.val_truth)
    if release.test_truth and not (root / release.test_truth).is_file():
        raise InputError(f"{root / file} needs {release.test_truth} beside it: fetch that")
    return (root / release.test_truth).read_bytes() if release.test_truth else None


def _labels(
    numbers: list[bytes], wnids: dict[int, str], label: dict[str, int], file: str
) -> list[int]:
    """Our labels of the images 1, 2, ..., from the numbers of their synsets."""
    what = f"the ground truth of {file} names"
    try:
        truth = [wnids[int(number)] for number in numbers]
    except (ValueError, KeyError) as error:
        raise InputError(f"{what} a synset {error} that is not in the development kit") from None
    if absent := sorted(set(truth) - set(label)):
        raise InputError(f"{what} {few(absent)}, of which there are no training images")
    return [label[wnid] for wnid in truth]


def _numbered(archive: Path, labels: list[int] | None, replaced: dict[str, Member]) -> Entries:
    """Images whose names end in their numbers, `..._00000001.JPEG`, with labels in that order.

    Args:
        archive: Their archive.
        labels: Of the images 1, 2, ...; None where they are unknown.
        replaced: What stands for broken images, by name.
    """
    surplus, absent = "no number in its name", "missing among the others"
    if labels is not None:
        surplus = "the ground truth has no image of this number"
        absent = "in the ground truth, and not in the archive"
    known, seen = dict(enumerate(labels or [], 1)), set()
    for entry, _ in images_of(archive, -1):
        if isinstance(entry, Stray):
            yield entry, -1
            continue
        name = os.path.basename(entry.path)
        digits = PurePosixPath(name).stem.rpartition("_")[2]
        number = int(digits) if digits.isascii() and digits.isdigit() else 0
        if number in seen:
            yield Stray(entry.path, "the second of its number"), -1
        elif number < 1 or (labels is not None and number not in known):
            yield Stray(entry.path, surplus), -1
        else:
            seen.add(number)
            yield replaced.get(name, entry), known.get(number, UNLABELED)
    for number in sorted({*range(1, max(known or seen, default=0) + 1)} - seen):
        yield Stray(f"{archive}/{number:08d}", absent), known.get(number, UNLABELED)


def _patches(archive: Path) -> dict[str, dict[str, Member]]:
    """What replaces broken images, by split and name: `.../<split>/<name>.JPEG`."""
    patches: dict[str, dict[str, Member]] = {}
    for entry, _ in images_of(archive, -1) if archive.is_file() else ():
        if isinstance(entry, Member):
            *_, split, name = PurePosixPath(entry.path).parts
            patches.setdefault(split, {})[name] = entry
    return patches


def _devkit(root: Path, release: Release, name: str) -> bytes:
    """A file of the development kit's `data/`, which is an archive, or has been unpacked."""
    kit = root / release.devkit
    unpacked = root / release.devkit.removesuffix(".tar.gz") / "data" / name
    if unpacked.is_file():
        return unpacked.read_bytes()
    try:
        with tarfile.open(kit, "r:*") as tar:
            for info in tar:
                if info.isreg() and PurePosixPath(info.name).parts[-2:] == ("data", name):
                    file = tar.extractfile(info)
                    assert file is not None
                    return file.read()
    except FileNotFoundError:
        raise InputError(f"{root} lacks {release.devkit}, which says the classes: add it") from None
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        if is_environments(error):
            raise
        raise InputError(f"{kit} is a damaged archive ({error}): fetch it again") from None
    raise InputError(f"{kit} holds no data/{name}: fetch it again")


def _synsets(root: Path, release: Release) -> tuple[dict[int, str], dict[str, str]]:
    """WordNet's identifiers by the numbers of the ground truth, and what they are called."""
    loadmat = needs("scipy.io", extra="datasets", what="reading ILSVRC's meta.mat").loadmat
    try:
        data = BytesIO(_devkit(root, release, "meta.mat"))
        table = np.atleast_1d(loadmat(data, squeeze_me=True)["synsets"])
        # Inner nodes of the hierarchy hold no images.
        leaves = [row for row in table if int(row["num_children"]) == 0]
        numbers = {int(row[release.number]): str(row["WNID"]) for row in leaves}
        return numbers, {str(row["WNID"]): str(row["words"]) for row in leaves}
    except InputError:
        raise
    except Exception as error:  # whatever scipy meets in a damaged file
        what = f"meta.mat of {release.devkit} cannot be read ({error})"
        raise InputError(f"{what}: fetch it again") from None
