"""Chunks of prepared images: what a worker makes of a piece of the source, and how that returns."""

import functools
import itertools
import math
import mmap
import os
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
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
    """

    size: int
    native: bool
    encoding: str
    step: int


@dataclass
class Chunk:
    """What became of a piece.

    Args:
        entries: References and strays that it was made of.
        count: Images among these, rejected ones included.
        images: uint8 (n, S, S, 3); none where there are JPEG files and no shelf.
        labels: Of the n images.
        moments: Of the n images.
        rejected: What was left out, in order, with the reason.
        files: JPEG files of the n images, where the encoding is "jpeg".
        misfit: The first image that is not of the native size, in words; work ends there.
    """

    entries: int
    count: int
    images: np.ndarray
    labels: list[int] = field(default_factory=list)
    moments: Moments | None = None
    rejected: list[tuple[Reference | Stray, str]] = field(default_factory=list)
    files: list[bytes] | None = None
    misfit: str = ""


class Shelf:
    """Memory that this process shares with its workers, in slots for a chunk's pixels each: a pipe
    would copy them four times. Where the system offers none, `slots` is empty and pixels go
    through the pipe."""

    def __init__(self, target: Target, slots: int):
        self.shape = (target.step, target.size, target.size, 3)
        self.slots: deque[int] = deque()
        self.path = ""
        if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
            descriptor = os.memfd_create("alexnet-prepare")
            os.ftruncate(descriptor, slots * math.prod(self.shape))
            self.slots.extend(range(slots))
            self.path = f"/proc/{os.getpid()}/fd/{descriptor}"
            self.pixels = _pixels(descriptor).reshape(slots, *self.shape)
            weakref.finalize(self, os.close, descriptor)


def _pixels(descriptor: int) -> np.ndarray:
    return np.frombuffer(mmap.mmap(descriptor, 0), np.uint8)


@functools.cache
def _parents_pixels(path: str) -> np.ndarray:
    """The shelf's memory, in a worker: it has one parent and sees one shelf in its life."""
    with open(path, "r+b") as file:
        return _pixels(file.fileno())


@dataclass(frozen=True)
class Piece:
    """What becomes a chunk, and where its pixels go: slot `slot` of the shelf at `path`."""

    entries: list[Entry]
    path: str = ""
    slot: int | None = None


def prepared(
    entries: Iterable[Entry], target: Target, ordered_map: OrderedMap, shelf: Shelf | None
) -> Iterator[Chunk]:
    """Prepare images chunk by chunk, in order. A chunk's pixels are valid until the next one."""
    remaining, work = iter(entries), functools.partial(make_chunk, target=target)
    slots: deque[int | None] = deque()  # of the pieces under way

    def pieces() -> Iterator[Piece]:
        while entries := list(itertools.islice(remaining, target.step)):
            slots.append(shelf.slots.popleft() if shelf and shelf.slots else None)
            yield Piece(entries, shelf.path if shelf else "", slots[-1])

    for result in ordered_map(work, pieces()):
        slot = slots.popleft()
        if isinstance(result, Crashed):
            yield from _one_by_one(result.item.entries, target, ordered_map)
        else:
            if shelf and slot is not None:
                result.images = shelf.pixels[slot, : len(result.labels)]
            yield result
        if shelf and slot is not None:
            shelf.slots.append(slot)


def _one_by_one(entries: list[Entry], target: Target, ordered_map: OrderedMap) -> Iterator[Chunk]:
    """Prepare images of which one killed its process."""
    work = functools.partial(make_chunk, target=target)
    for result in ordered_map(work, [Piece([entry]) for entry in entries]):
        if isinstance(result, Crashed):
            ((entry, _),) = result.item.entries
            result = Chunk(1, 1, np.empty((0, target.size, target.size, 3), np.uint8))
            result.rejected.append((entry, "the process that read it died"))
        yield result


def make_chunk(piece: Piece, target: Target) -> Chunk:
    """Prepare the images of a piece; in a worker."""
    Image.preinit()  # loads the common formats, which would count as the first image's time
    shape = (len(piece.entries), target.size, target.size, 3)
    if piece.slot is None:
        pixels = np.empty(shape, np.uint8)
    else:
        begin = piece.slot * target.step * math.prod(shape[1:])
        pixels = _parents_pixels(piece.path)[begin : begin + math.prod(shape)].reshape(shape)
    chunk = Chunk(len(piece.entries), 0, pixels[:0])
    chunk.files = [] if target.encoding == "jpeg" else None
    for entry, label in piece.entries:
        if isinstance(entry, Stray):
            chunk.rejected.append((entry, entry.reason))
            continue
        chunk.count += 1
        image = decode.read(entry, None if target.native else target.size)
        if isinstance(image, str):
            chunk.rejected.append((entry, image))
            continue
        if image.size != shape[1:3]:
            chunk.misfit = f"{entry.path} is {image.width}x{image.height}"
            break
        place = pixels[len(chunk.labels)]
        if chunk.files is None:
            place[:] = np.asarray(image)
        else:
            chunk.files.append(decode.jpeg_file(entry, image))
            place[:] = decode.jpeg_pixels(chunk.files[-1])
        chunk.labels.append(label)
    images = pixels[: len(chunk.labels)]
    chunk.moments = Moments.of(images)
    # 16 bits hold the sum of at most 256 images, in a quarter of the bytes to send.
    chunk.moments.total = chunk.moments.total.astype(np.uint16)
    if piece.slot is None and chunk.files is None:
        chunk.images = images
    return chunk
