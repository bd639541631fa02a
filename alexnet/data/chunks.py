"""Chunks of prepared images: what a worker makes of a piece of the source, and how that returns."""

import functools
import itertools
import math
import mmap
import os
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from alexnet.data import decode
from alexnet.data.listing import Reference, Stray
from alexnet.data.moments import Moments
from alexnet.processes import Crashed, OrderedMap

Entry = tuple[Reference | Stray, int]  # and its label


@dataclass(frozen=True)
class Target:
    """What images become.

    Args:
        size: Pixels of a side, S.
        native: Images must have this size already.
        encoding: "raw" or "jpeg".
        step: Images of a chunk, at most 256.
        megapixels: The most that an image may have.
        upright: Images are turned as their orientation tags say.
    """

    size: int
    native: bool
    encoding: str
    step: int
    megapixels: int
    upright: bool = False


@dataclass
class Chunk:
    """What became of a piece.

    Args:
        images: uint8 (n, S, S, 3); none where they are on the shelf, or files.
        rejected: What was left out, in order, with the reason.
        labels: Of the n images.
        moments: Of the n images.
        files: JPEG files of the n images, where the encoding is "jpeg".
        misfit: The first image that is not of the native size, in words; work ends there.
    """

    images: np.ndarray
    rejected: list[tuple[Reference | Stray, str]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    moments: Moments | None = None
    files: list[bytes] | None = None
    misfit: str = ""

    @property
    def count(self) -> int:
        """Images of the piece, rejected ones included."""
        return len(self.labels) + sum(not isinstance(one, Stray) for one, _ in self.rejected)


class Shelf:
    """Memory that this process shares with its workers, in slots for a chunk's pixels each: a pipe
    would copy them four times. Where the system offers none, to this process or to a worker, pixels
    go through the pipe."""

    def __init__(self, target: Target, slots: int):
        self.shape = (slots, target.step, target.size, target.size, 3)
        self.slots: deque[int] = deque()
        self.path = ""
        with suppress(OSError, AttributeError):  # sandboxes refuse, other systems have none
            if not slots:
                return
            descriptor = os.memfd_create("alexnet-prepare")
            weakref.finalize(self, os.close, descriptor)
            os.ftruncate(descriptor, math.prod(self.shape))
            path = f"/proc/{os.getpid()}/fd/{descriptor}"
            self.pixels = _pixels(path).reshape(self.shape)
            self.path = path
            self.slots.extend(range(slots))


def _pixels(path: str) -> np.ndarray:
    with open(path, "r+b") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0), np.uint8)


@functools.cache  # a worker has one parent and sees one shelf in its life
def _in_worker(path: str) -> np.ndarray | None:
    try:
        return _pixels(path)
    except OSError:
        return None


@dataclass(frozen=True)
class Piece:
    """What becomes a chunk, and where its pixels go: slot `slot` of the shelf at `path`."""

    entries: list[Entry]
    path: str = ""
    slot: int | None = None


def prepared(
    entries: Iterable[Entry], target: Target, ordered_map: OrderedMap, shelf: Shelf
) -> Iterator[Chunk]:
    """Prepare images chunk by chunk, in order. A chunk's pixels are valid until the next one.

    Args:
        entries: Images, and what is known to be wrong, in the pack's order.
        target: What they become: size and encoding.
        ordered_map: Maps a function over pieces, in a pool or in this process, and keeps their
            order.
        shelf: The memory that workers leave pixels in.
    """
    remaining, work = iter(entries), functools.partial(make_chunk, target=target)
    slots: deque[int | None] = deque()  # of the pieces under way

    def pieces() -> Iterator[Piece]:
        while entries := list(itertools.islice(remaining, target.step)):
            slots.append(shelf.slots.popleft() if shelf.slots else None)
            yield Piece(entries, shelf.path, slots[-1])

    for result in ordered_map(work, pieces()):
        slot = slots.popleft()
        if isinstance(result, Crashed):  # one image killed the process: which?
            for one in ordered_map(work, [Piece([pair]) for pair in result.item.entries]):
                if isinstance(one, Crashed):
                    reason = "the process that read it died"
                    rejected = [(entry, reason) for entry, _ in one.item.entries]
                    one = Chunk(np.empty((0, target.size, target.size, 3), np.uint8), rejected)
                yield one
        else:
            if slot is not None and not len(result.images):
                result.images = shelf.pixels[slot, : len(result.labels)]
            yield result
        if slot is not None:
            shelf.slots.append(slot)


def make_chunk(piece: Piece, target: Target) -> Chunk:
    """Prepare the images of a piece; in a worker.

    Args:
        piece: Some consecutive images.
        target: What they become.
    """
    Image.preinit()  # loads the common formats, which would count as the first image's time
    shape = (len(piece.entries), target.size, target.size, 3)
    shelf = None if piece.slot is None else _in_worker(piece.path)
    if piece.slot is None or shelf is None:
        pixels = np.empty(shape, np.uint8)
    else:
        begin = piece.slot * target.step * math.prod(shape[1:])
        pixels = shelf[begin : begin + math.prod(shape)].reshape(shape)
    chunk = Chunk(pixels[:0], files=[] if target.encoding == "jpeg" else None)
    for entry, label in piece.entries:
        if isinstance(entry, Stray):
            chunk.rejected.append((entry, entry.reason))
            continue
        size = None if target.native else target.size
        image = decode.read(entry, size, target.megapixels, target.upright)
        if isinstance(image, str):
            chunk.rejected.append((entry, image))
            continue
        if image.size != shape[1:3]:
            chunk.misfit = f"{entry.path} is {image.width}x{image.height}"
            break
        if chunk.files is None:
            pixels[len(chunk.labels)] = np.asarray(image)
        else:
            chunk.files.append(decode.jpeg_file(entry, image, target.upright))
            pixels[len(chunk.labels)] = decode.jpeg_pixels(chunk.files[-1])
        chunk.labels.append(label)
    images = pixels[: len(chunk.labels)]
    chunk.moments = Moments.of(images)
    # 16 bits hold the sum of at most 256 images, in a quarter of the bytes to send.
    chunk.moments.total = chunk.moments.total.astype(np.uint16)
    if shelf is None and chunk.files is None:
        chunk.images = images
    return chunk
