"""A source of images, as the rest sees it: splits of references and labels, listed anew by every
pass, so that fifteen million images take no more memory than ten."""

import functools
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from alexnet.errors import InputError

# Not EPS, say, for which Pillow would start a program.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
ENDINGS = (
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm",
)  # fmt: skip
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

    def stamp(self) -> str:
        """Changes when the image does, as far as can be known without reading it."""
        return ""


@dataclass(frozen=True, slots=True)
class File(Reference):
    """An image in a file."""

    def file(self) -> bytes:
        """The bytes of the file, read at once. Raises OSError where there is no such file."""
        # Without O_NONBLOCK a pipe would keep its reader waiting for ever.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError("not a regular file")
            return _bytes(descriptor, status.st_size, 0)
        finally:
            os.close(descriptor)

    def stamp(self) -> str:
        try:
            return str(os.path.getsize(self.path))
        except OSError:
            return "missing"


def _bytes(descriptor: int, size: int, offset: int) -> bytes:
    if size > MOST_BYTES:
        raise OSError(f"{size} bytes, too many for an image")
    data = os.pread(descriptor, size, offset)
    while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
        data += more
    return data


@dataclass(frozen=True, slots=True)
class Pixels(Reference):
    """An image in memory, uint8 (H, W, 3)."""

    array: np.ndarray

    def open(self) -> Image.Image:
        return Image.fromarray(self.array)

    def stamp(self) -> str:
        return hashlib.sha256(self.array.tobytes()).hexdigest()


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
        data = _bytes(_descriptor(self.archive), self.size, self.offset)
        if len(data) < self.size:
            raise OSError("the archive ends within it")
        return data

    def stamp(self) -> str:
        return str(self.size)


@functools.cache
def _descriptor(archive: str) -> int:
    return os.open(archive, os.O_RDONLY)


@dataclass(frozen=True, slots=True)
class Stray:
    """What lies among the images and is none of them."""

    path: str
    reason: str


Entries = Iterator[tuple[Reference | Stray, int]]  # and labels; a stray's may be -1, of no class
UNLABELED = -1  # all images of a split whose classes are unknown


@dataclass(frozen=True)
class Survey:
    """What one pass over a split finds.

    Args:
        count: Images.
        digest: SHA-256 over their paths below SOURCE, labels, and sizes in bytes.
        sample: Some of them, evenly spread.
        strays: How many.
        examples: Some of these.
    """

    count: int
    digest: str
    sample: list[tuple[Reference, int]]
    strays: int
    examples: list[str]


class Images:
    """The images of a split and their labels, in order, listed anew by every iteration.

    Args:
        root: SOURCE, which paths are given relative to.
        find: Gives what there is, images and strays.
        labeled: Whether the images' classes are known.
    """

    def __init__(self, root: Path, find: Callable[[], Entries], labeled: bool = True):
        self.root, self._find, self.labeled = root, find, labeled

    def entries(self) -> Entries:
        """Images and what lies among them."""
        return self._find()

    def __iter__(self) -> Iterator[tuple[Reference, int]]:
        return ((entry, label) for entry, label in self._find() if not isinstance(entry, Stray))

    def __len__(self) -> int:
        return self.survey.count

    def below(self, entry: Reference | Stray) -> str:
        """The path of an entry below SOURCE."""
        return entry.path.removeprefix(f"{self.root}{os.sep}")

    @functools.cached_property
    def survey(self) -> Survey:
        digest, count, step, strays = hashlib.sha256(), 0, 1, 0
        sample, examples = list[tuple[Reference, int]](), list[str]()
        bar = {"desc": f"listing {self.root.name}", "unit": " images", "delay": 3}
        for entry, label in tqdm(self._find(), leave=False, disable=None, **bar):
            if isinstance(entry, Stray):
                strays += 1
                examples += [self.below(entry)] * (len(examples) < 3)
                continue
            line = f"{self.below(entry)}\t{label}\t{entry.stamp()}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
            if count % step == 0:
                sample.append((entry, label))
                if len(sample) == 2 * SAMPLE:
                    sample, step = sample[::2], 2 * step
            count += 1
        return Survey(count, digest.hexdigest(), sample, strays, examples)

    def only(self, labels: dict[int, int], limit: int | None) -> "Images":
        """A part: those whose label is a key of `labels`, relabeled, and of each class the first
        `limit`."""

        def find() -> Entries:
            seen: Counter[int] = Counter()
            for entry, label in self._find():
                if label == -1:
                    yield entry, label
                elif label in labels and (limit is None or seen[label] < limit):
                    seen[label] += not isinstance(entry, Stray)
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

    def only(self, classes: Sequence[str] | int | None, limit: int | None) -> "Listing":
        """A part: the first so many classes, or those named, and of each at most `limit` images.

        Raises:
            InputError: There is no such class.
        """
        if isinstance(classes, int):
            if not 1 <= classes <= len(self.classes):
                raise InputError(f"classes {classes}: {self.root} has {len(self.classes)}")
            chosen = self.classes[:classes]
        else:
            chosen = sorted(set(self.classes if classes is None else classes))
        place = {name: i for i, name in enumerate(self.classes)}
        if unknown := [name for name in chosen if name not in place]:
            raise InputError(f"{self.root} has no class {few(unknown)}; it has {few(self.classes)}")
        labels = {place[name]: i for i, name in enumerate(chosen)}
        parts = {split: i.only(labels, limit) for split, i in self.splits.items() if i.labeled}
        why = "its images have no labels, of which to take a part"
        notes = [f"left out: {split} ({why})" for split in self.splits if split not in parts]
        names = [self.names[label] for label in labels]
        numbers = [self.numbers[label] for label in labels] if self.numbers else None
        return Listing(self.layout, self.root, chosen, names, parts, self.notes + notes, numbers)


def class_names(root: Path, classes: list[str]) -> list[str]:
    """What classes are called: by WordNet, where `words.txt` or `synset_words.txt` in `root` says
    so; else by their folders."""
    words: dict[str, str] = {}
    # n01440764<TAB>tench, Tinca tinca; n01440764 tench, Tinca tinca
    for file, mark in (("words.txt", "\t"), ("synset_words.txt", " ")):
        if (root / file).is_file():
            words |= dict(line.split(mark, 1) for line in lines(root / file) if mark in line)
    return [words.get(name, name.replace("_", " ")) for name in classes]


def lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines() if line.strip()]


def few(names: Sequence[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
