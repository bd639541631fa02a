"""A source of images, as the rest sees it: splits of references and labels, listed anew by every
pass, so that fifteen million images take no more memory than ten."""

import errno
import functools
import hashlib
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from alexnet.data.formats import FORMATS, HEAD
from alexnet.errors import EnvironmentFault, InputError, is_environments, printable, reason
from alexnet.files import lines

# reasons to leave something out
HIDDEN, NO_ENDING = "hidden: its name begins with a dot", "no image by its ending"
SAMPLE = 64  # images on which speed and size are estimated
MOST_BYTES = 2**29  # of a file


@dataclass(frozen=True, slots=True)
class Reference:
    """An image that any process may open at any time; `path` says where it came from."""

    path: str

    def file(self) -> bytes | None:
        """The bytes of its file, where it has one of its own."""
        return None

    def open(self) -> Image.Image:
        """The image, perhaps not yet decoded. Raises whatever a decoder may."""
        return Image.open(BytesIO(self.file() or b""), formats=FORMATS)

    def head(self) -> bytes:
        """The first bytes of its file, where it has one of its own."""
        return (self.file() or b"")[:HEAD]

    def stamp(self) -> tuple[str, float]:
        """What changes when the image does, as far as can be known without reading it; and when
        its file was written last, in seconds since 1970."""
        return "", 0.0


@dataclass(frozen=True, slots=True)
class File(Reference):
    """An image in a file."""

    def file(self) -> bytes:
        """The bytes of the file, read at once. Raises OSError where there is no such file."""
        with _opened(self.path) as descriptor:
            return _bytes(descriptor, os.fstat(descriptor).st_size, 0)

    def head(self) -> bytes:
        with _opened(self.path) as descriptor:
            return os.pread(descriptor, HEAD, 0)

    def stamp(self) -> tuple[str, float]:
        try:
            status = os.stat(self.path)
        except OSError as error:
            fault(error, self.path)
            return "missing", 0.0
        return str(status.st_size), status.st_mtime


@contextmanager
def _opened(path: str) -> Iterator[int]:
    # Without O_NONBLOCK a pipe would keep its reader waiting for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a regular file")
        yield descriptor
    except OSError as error:
        if error.errno:  # the system's, unlike what decoders raise
            error.filename = path
        raise
    finally:
        os.close(descriptor)


def _bytes(descriptor: int, size: int, offset: int) -> bytes:
    if size > MOST_BYTES:
        raise OSError(f"{size / 1e6:,.0f} MB, more than the {MOST_BYTES / 1e6:,.0f} of an image")
    data = os.pread(descriptor, size, offset)
    while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
        data += more
    if len(data) < size:  # than the system has just said
        raise OSError(errno.EIO, f"it ends after {len(data)} of {size} bytes")
    return data


def fault(error: Exception, path: str) -> str:
    """Why the image at `path` cannot be read, in words, where that is the image's own fault.

    Args:
        error: What reading it raised.
        path: How messages call the image.

    Raises:
        EnvironmentFault: It is the machine's, a disk's or a network's: no image is to blame.
    """
    if is_environments(error) and not _is_own(error, str(getattr(error, "filename", "") or path)):
        raise EnvironmentFault(f"cannot read {path}: {reason(error)}") from None
    return reason(error)


def _is_own(error: Exception, path: str) -> bool:
    """Whether a system call fails for what lies at `path`, and not for the way there: what is a
    folder, a socket, a link to nothing, or may not be read."""
    code = getattr(error, "errno", None)
    try:
        if code in (errno.ENOENT, errno.ELOOP) and os.path.islink(path):
            # else its file comes and goes with the folder that is to hold it
            return code == errno.ELOOP or (
                not os.path.exists(path) and os.path.isdir(os.path.dirname(os.path.realpath(path)))
            )
        is_closed = code in (errno.EACCES, errno.EPERM) and not os.access(path, os.R_OK)
        is_none = code in (errno.EISDIR, errno.ENXIO) and not os.path.isfile(path)
        return is_none or (is_closed and bool(os.stat(path)))
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Pixels(Reference):
    """An image in memory, uint8 (H, W, 3)."""

    array: np.ndarray

    def open(self) -> Image.Image:
        return Image.fromarray(self.array)

    def stamp(self) -> tuple[str, float]:
        return hashlib.sha256(self.array.tobytes()).hexdigest(), 0.0


@dataclass(frozen=True, slots=True)
class Item(Reference):
    """An image that a data set of torchvision's opens itself: `index` of `kind(root, **options)`,
    which every process makes for itself."""

    kind: type
    root: str
    options: tuple[tuple[str, Any], ...]
    index: int

    def open(self) -> Image.Image:
        return _made(self.kind, self.root, self.options)[self.index][0]


@functools.cache
def _made(kind: type, root: str, options: tuple[tuple[str, Any], ...]) -> Any:
    return kind(root, **dict(options))


@dataclass(frozen=True, slots=True)
class Member(Reference):
    """An image inside an archive that is not compressed: `size` bytes from `offset`."""

    archive: str
    offset: int
    size: int

    def file(self) -> bytes:
        return _bytes(_descriptor(self.archive), self.size, self.offset)

    def head(self) -> bytes:
        return os.pread(_descriptor(self.archive), min(HEAD, self.size), self.offset)

    def stamp(self) -> tuple[str, float]:
        return str(self.size), os.fstat(_descriptor(self.archive)).st_mtime


_OPEN: dict[str, int] = {}  # archives, at most 16: a synset of ImageNet may have one of its own


def _descriptor(archive: str) -> int:
    if archive not in _OPEN:
        descriptor = os.open(archive, os.O_RDONLY)
        if len(_OPEN) == 16:
            os.close(_OPEN.pop(next(iter(_OPEN))))
        _OPEN[archive] = descriptor
    return _OPEN[archive]


@dataclass(frozen=True, slots=True)
class Stray:
    """What lies among the images and is none of them."""

    path: str
    reason: str


Entries = Iterator[tuple[Reference | Stray, int]]  # and labels; a stray's may be -1, of no class
# The same, and what is wrong with a class: it counts where that class is taken. A label of None is
# that of a class which is none of the source's.
Finds = Iterator[tuple[Reference | Stray | InputError, int | None]]
UNLABELED = -1  # all images of a split whose classes are unknown


@dataclass(frozen=True)
class Survey:
    """What one pass over a split finds.

    Args:
        count: Images.
        digest: SHA-256 over their paths below SOURCE, labels, and sizes in bytes.
        newest: When the last of their files was written, in seconds since 1970.
        sample: Some of them, evenly spread.
        strays: How many.
        examples: Some of these.
    """

    count: int
    digest: str
    newest: float
    sample: list[tuple[Reference, int]]
    strays: int
    examples: list[str]


class Images:
    """The images of a split and their labels, in order, listed anew by every iteration.

    Args:
        root: SOURCE, which paths are given relative to.
        find: Gives what there is, images and strays, and what is wrong with a class.
        labeled: Whether the images' classes are known.
    """

    def __init__(self, root: Path, find: Callable[[], Finds], labeled: bool = True):
        self.root, self._find, self.labeled = root, find, labeled

    def entries(self) -> Entries:
        """Images and what lies among them.

        Raises:
            InputError: Something is wrong with a class.
        """
        for entry, label in self._find():
            if isinstance(entry, InputError) or label is None:
                raise entry if isinstance(entry, InputError) else TypeError(entry)
            yield entry, label

    def __iter__(self) -> Iterator[tuple[Reference, int]]:
        return ((entry, label) for entry, label in self.entries() if not isinstance(entry, Stray))

    def __len__(self) -> int:
        return self.survey.count

    def below(self, entry: Reference | Stray) -> str:
        """The path of an entry below SOURCE."""
        return entry.path.removeprefix(f"{self.root}{os.sep}")

    @functools.cached_property
    def survey(self) -> Survey:
        digest, count, step, strays, newest = hashlib.sha256(), 0, 1, 0, 0.0
        sample, examples = list[tuple[Reference, int]](), list[str]()
        bar = {"desc": f"listing {printable(self.root.name)}", "unit": " images", "delay": 3}
        for entry, label in tqdm(self.entries(), leave=False, disable=None, **bar):
            if isinstance(entry, Stray):
                strays += 1
                examples += [self.below(entry)] * (len(examples) < 3)
                continue
            stamp, written = entry.stamp()
            newest = max(newest, written)
            line = f"{self.below(entry)}\t{label}\t{stamp}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
            if count % step == 0:
                sample.append((entry, label))
                if len(sample) == 2 * SAMPLE:
                    sample, step = sample[::2], 2 * step
            count += 1
        return Survey(count, digest.hexdigest(), newest, sample, strays, examples)

    def only(self, labels: dict[int, int], limit: int | None, is_all: bool) -> "Images":
        """A part of the images.

        Args:
            labels: New labels by those that stay.
            limit: Images a class, the first ones; None: all.
            is_all: Whether the labels are those of all classes.
        """

        def find() -> Finds:
            seen: Counter[int] = Counter()
            for entry, label in self._find():
                if label == -1 or (label is None and is_all):
                    yield entry, label
                elif label in labels and (limit is None or seen[label] < limit):
                    seen[label] += isinstance(entry, Reference)
                    yield entry, labels[label]

        return Images(self.root, find)


@dataclass(frozen=True)
class Listing:
    """What SOURCE holds.

    Args:
        layout: Its name.
        root: SOURCE.
        classes: Their identifiers, in label order.
        names: What people call them.
        splits: The images of each.
        notes: What was left out.
        numbers: What ILSVRC's ground truth and submissions call the classes.
    """

    layout: str
    root: Path
    classes: list[str]
    names: list[str]
    splits: dict[str, Images]
    notes: list[str]
    numbers: list[int] | None = None

    @property
    def upright(self) -> bool:
        """Whether images are to be turned as their orientation tags say: people's own. Those of
        published data sets, ImageNet's synsets in folders too, count as they are stored."""
        is_own = self.layout in ("image folder", "splits", "archive")
        return is_own and not all(re.fullmatch(r"n\d{8}", name) for name in self.classes)

    def only(self, classes: Sequence[str] | int | None, limit: int | None) -> "Listing":
        """A part: the first so many classes, or those named, and of each at most `limit` images.

        Args:
            classes: Names of classes, or how many of the first ones; None: all.
            limit: Images a class; None: all.

        Raises:
            InputError: There is no such class.
        """
        if isinstance(classes, int):
            if not 1 <= classes <= len(self.classes):
                raise InputError(f"classes {classes}: {self.root} has {len(self.classes)}")
            chosen = self.classes[:classes]
        else:
            named = self.classes if classes is None else classes
            chosen = sorted({normal(name) for name in named})
        place = {name: i for i, name in enumerate(self.classes)}
        if unknown := [name for name in chosen if name not in place]:
            raise InputError(f"{self.root} has no class {few(unknown)}; it has {few(self.classes)}")
        labels = {place[name]: i for i, name in enumerate(chosen)}
        parts = {
            split: images.only(labels, limit, classes is None)
            for split, images in self.splits.items()
            if images.labeled
        }
        why = "its images have no labels, of which to take a part"
        notes = [f"left out: {split} ({why})" for split in self.splits if split not in parts]
        names = [self.names[label] for label in labels]
        numbers = [self.numbers[label] for label in labels] if self.numbers else None
        return Listing(self.layout, self.root, chosen, names, parts, self.notes + notes, numbers)


def normal(name: str) -> str:
    """The name of a class in one of the ways that Unicode has to write it (NFC): macOS takes
    another one for names of files than keyboards do."""
    return unicodedata.normalize("NFC", name)


def class_names(root: Path, classes: list[str]) -> list[str]:
    """What classes are called: by WordNet, where `words.txt` or `synset_words.txt` in `root` says
    so; else by their folders.

    Args:
        root: The source's folder.
        classes: Its classes, as its folders call them.
    """
    words: dict[str, str] = {}
    # n01440764<TAB>tench, Tinca tinca; n01440764 tench, Tinca tinca
    for file, mark in (("words.txt", "\t"), ("synset_words.txt", " ")):
        if (root / file).is_file():
            pairs = (line.split(mark, 1) for line in lines(root / file) if mark in line)
            words |= {normal(name): text.strip() for name, text in pairs}
    return [words.get(name, name.replace("_", " ")) for name in classes]


def few(names: Sequence[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
