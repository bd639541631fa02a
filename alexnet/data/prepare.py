"""From images of all sizes to a pack of one size, in one pass (section 2 of the paper).

`alexnet.data.decode` says what becomes of an image, `alexnet.data.pack` what a pack is. The same
pass sums up the mean image (section 2) and the covariance of the colors (section 4.1).
"""

import errno
import functools
import itertools
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from alexnet.data.chunks import Entry, Piece, Shelf, Target, make_chunk, prepared
from alexnet.data.decode import QUALITY, decoders, read
from alexnet.data.listing import Listing, Stray, few
from alexnet.data.pack import CHECKPOINT, VERSIONS, Pack
from alexnet.data.pack_writer import PackWriter
from alexnet.data.partial import is_done, partial_folder, place_of
from alexnet.data.sources import list_source
from alexnet.errors import InputError
from alexnet.files import temporary_folder
from alexnet.processes import Crashed, OrderedMap, cores, in_flight, process_pool
from alexnet.tables import duration

CHUNK_BYTES = 2**23
CHECKPOINT_SECONDS = 10.0
NATIVE: Literal["native"] = "native"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    size: int | str = 256,
    skip_bad: bool = False,
    workers: int | None = None,
    encoding: str = "raw",
    classes: Sequence[str] | int | None = None,
    limit: int | None = None,
) -> Path:
    """Make the pack `out` from the images of `source`; a folder of packs, if it has several splits.

    The pack appears under its name when it is whole. Until then it grows in `.<out>.partial` beside
    it; whatever stops the process, even a kill, the same call goes on from there, at most
    CHECKPOINT_SECONDS back. A pack of the same source and options that is there stays as it is.

    Args:
        source: A folder or an archive in one of the layouts of `alexnet.data.sources`, or the word
            "pictographs": the embedded data set.
        out: The pack's folder.
        size: Pixels of a side; or "native": the images are square and of one size, and stay so.
        skip_bad: Leave unreadable images out and list them in rejected.csv, instead of stopping at
            the first.
        workers: Processes; by default as many as there are cores, one for few images. The pack does
            not depend on it. They are spawned (a single one too with skip_bad, for a decoder may
            crash): a script that calls this needs `if __name__ == "__main__":`.
        encoding: "raw" or "jpeg", see `alexnet.data.decode`.
        classes: A part of the source: the first so many classes, or those named.
        limit: Images of each class in each split, at most.

    Returns:
        The path of the pack.

    Raises:
        InputError: Whatever is wrong with `source`, `out`, an image, or the room on the disk.
    """
    out = Path(out)
    if size != NATIVE and not (isinstance(size, int) and 1 <= size <= 4096):
        raise InputError(f"size {size}: give the pixels of a side, 1 to 4096, or `native`")
    for name, number in (("workers", workers), ("limit", limit)):
        if number is not None and number < 1:
            raise InputError(f"{name} {number}: give 1 or more")
    if encoding not in VERSIONS:
        raise InputError(f"encoding {encoding}: give {' or '.join(VERSIONS)}")
    if not isinstance(classes, int | None) and not list(classes):
        raise InputError("classes: name at least one")
    options: dict[str, Any] = {"size": size, "skip_bad": skip_bad}
    if encoding == "jpeg":
        options |= {"encoding": encoding, "quality": QUALITY}
    if classes is not None:
        options["classes"] = classes if isinstance(classes, int) else list(classes)
    if limit is not None:
        options["limit"] = limit
    if str(source) == "pictographs":
        return _prepare_pictographs(out, options, workers)
    listing = list_source(source, classes, limit)
    if out.resolve().is_relative_to(listing.root.resolve()):
        raise InputError(f"{out} lies in {source}, among the images: choose a place outside")
    name = listing.root.resolve().name
    origin = {
        split: {"layout": listing.layout, "name": name, "sha256": images.survey.digest}
        for split, images in listing.splits.items()
    }
    return _prepare(listing, out, origin, options, workers)


def _prepare_pictographs(out: Path, options: dict[str, Any], workers: int | None) -> Path:
    from alexnet.data import pictographs

    size = options["size"]
    if not isinstance(size, int):
        need = "give the pixels of a side instead of `native`"
        raise InputError(f"pictographs come in many sizes: {need}")
    one = {"layout": "pictographs", "name": "pictographs", "recipe": pictographs.RECIPE}
    origin = dict.fromkeys(pictographs.SPLITS, one)
    options = options | {"skip_bad": False}
    if is_done(out, origin, options):
        return out
    with temporary_folder(out, "images") as folder:
        pictographs.write(folder / "pictographs", size=size, workers=workers)
        listing = list_source(folder / "pictographs", options.get("classes"), options.get("limit"))
        return _prepare(listing, out, origin, options, workers)


def _prepare(
    listing: Listing,
    out: Path,
    origin: dict[str, Any],
    options: dict[str, Any],
    workers: int | None,
) -> Path:
    for note in listing.notes:
        print(note, file=sys.stderr)
    if is_done(out, origin, options):
        return out
    preparation = _Preparation(listing, out, origin, options, workers)
    # What a partial pack must have been made of for this one to go on from it.
    identity = {"origin": origin, "options": options, "decoders": decoders(), "versions": VERSIONS}
    try:
        if out.is_dir():
            out.rmdir()  # it is empty, and perhaps cannot be replaced: the working folder, say
    except OSError as error:
        raise InputError(f"cannot make {out}: {error.strerror}; choose another name") from None
    with partial_folder(out, identity) as folder:
        preparation.run(folder)
        try:
            os.replace(folder, out)
        except OSError as error:  # something was made in the meantime
            raise InputError(f"cannot make {out}: {error.strerror}; choose another name") from None
    return out


class _Preparation:
    """One pack or folder of packs that is being made, and how far it is."""

    def __init__(
        self,
        listing: Listing,
        out: Path,
        origin: dict[str, Any],
        options: dict[str, Any],
        workers: int | None,
    ):
        self.listing, self.out, self.origin, self.options = listing, out, origin, options
        size = options["size"] if isinstance(options["size"], int) else _native_size(listing)
        self.target = Target(
            size,
            native=options["size"] == NATIVE,
            encoding=options.get("encoding", "raw"),
            step=max(1, min(256, CHUNK_BYTES // (3 * size**2))),
        )
        self.counts = {split: images.survey.count for split, images in listing.splits.items()}
        self.total = sum(self.counts.values())
        # Starting a process takes as long as some hundred images.
        self.workers = workers or min(cores(), self.total // 1024 + 1)
        self.done = self.kept = 0  # images: until now, and those that the next call would find done

    def run(self, folder: Path) -> None:
        """Write the packs into `folder`."""
        # A decoder that crashes must not take this process with it.
        isolated = self.workers > 1 or self.options["skip_bad"]
        title = f"preparing {self.out.name}"
        self.bar = tqdm(total=self.total, unit=" images", desc=title, disable=None)
        try:
            writers = self._open(folder)
            with self.bar, process_pool(self.workers, isolated) as ordered_map:
                shelf = Shelf(self.target, in_flight(self.workers)) if isolated else None
                self._forecast(folder, ordered_map)
                for split, writer in writers.items():
                    try:
                        self._fill(split, writer, ordered_map, shelf)
                        self._finish(split, writer)
                    except BaseException:
                        writer.close()
                        raise
                    self.kept = self.done
        except OSError as error:
            if error.errno not in FULL:
                raise
            what = f"the disk is full ({error.strerror})"
            done = f"after {self.done:,} of {self.total:,} images"
            raise InputError(f"{what} {done}; {self._kept()}: make room first") from None
        except KeyboardInterrupt as stop:
            stop.args = (f"stopped; {self._kept()}",)
            raise

    def _kept(self) -> str:
        if not self.kept:
            return f"nothing of {self.out} is kept, and the same command begins anew"
        what = f"{self.kept:,} of {self.total:,} images of {self.out} are kept"
        return f"{what}, and the same command goes on from there"

    def _advance(self, count: int) -> None:
        self.done += count
        self.bar.update(count)

    def _open(self, folder: Path) -> dict[str, PackWriter]:
        """The writers of the splits that are not finished."""
        writers = {}
        for split, count in self.counts.items():
            place = place_of(folder, split, self.counts)
            if (writer := _writer(place, self.target, count)) is None:
                self._advance(count)
            else:
                writers[split] = writer
                self._advance(writer.note["images"] if writer.note else 0)
        self.kept = self.done
        if self.done:
            done = f"of which {self.done:,} of {self.total:,} images are done"
            print(f"going on with {self.out}, {done}", file=sys.stderr)
        return writers

    def _forecast(self, folder: Path, ordered_map: OrderedMap) -> None:
        """Say how much room and time the rest will take, where there are many images.

        One worker prepares a sample, spread evenly over the whole; its time is divided among all.

        Raises:
            InputError: The disk is too small.
        """
        left = self.total - self.done
        each, seconds = float(3 * self.target.size**2), 0.0
        if left >= 1000 or (self.target.encoding == "jpeg" and left):
            surveys = [images.survey for images in self.listing.splits.values()]
            count = max(4, min(32, left // 500)) // len(surveys) + 1  # few, of each split
            sample: list[Entry] = [
                pair
                for survey in surveys
                for pair in survey.sample[:: -(-len(survey.sample) // count)]
            ]
            work = functools.partial(make_chunk, target=self.target)
            list(ordered_map(work, [Piece([])] * self.workers))  # processes start, side by side
            began, (chunk,) = time.monotonic(), ordered_map(work, [Piece(sample)])
            seconds = (time.monotonic() - began) / len(sample) * left / self.workers
            if not isinstance(chunk, Crashed) and chunk.files:
                each = sum(map(len, chunk.files)) / len(chunk.files)
        needed, free = each * left + 2**20, shutil.disk_usage(folder).free
        if needed > free:
            smaller = "" if self.target.encoding == "jpeg" else ", or --encoding jpeg"
            what = f"{self.out} needs {_bytes(needed)} more, and the disk has {_bytes(free)} left"
            remedy = "make room, choose another place, or take less by --limit or --classes"
            raise InputError(f"{what}: {remedy}{smaller}")
        if left >= 1000:
            room = f"{_bytes(needed)} of {_bytes(free)} free"
            workers = f"{self.workers} worker{'s' * (self.workers > 1)}"
            estimate = f"about {duration(seconds)} with {workers}"
            print(f"{self.out}: {left:,} images, {room}, {estimate}", file=sys.stderr)

    def _fill(
        self, split: str, writer: PackWriter, ordered_map: OrderedMap, shelf: Shelf | None
    ) -> None:
        """Write a split's images, but those that its last checkpoint holds."""
        images, note = self.listing.splits[split], writer.note or {"entries": 0, "images": 0}
        entries, count, saved = note["entries"], note["images"], time.monotonic()
        remaining = itertools.islice(images.entries(), entries, None)
        for chunk in prepared(remaining, self.target, ordered_map, shelf):
            for entry, reason in chunk.rejected:
                if not isinstance(entry, Stray) and not self.options["skip_bad"]:
                    remedy = "mend or remove it, or leave all such out with --skip-bad"
                    raise InputError(f"{entry.path}: {reason}; {remedy}")
                writer.reject(images.below(entry), reason)
            if chunk.misfit:
                expected = f"{self.target.size}x{self.target.size} as the first"
                remedy = "give --size a number, not native"
                raise InputError(f"{chunk.misfit}, not {expected}: {remedy}")
            if chunk.labels:
                writer.append(chunk.images, chunk.labels, chunk.moments, chunk.files)
            entries, count = entries + chunk.entries, count + chunk.count
            self._advance(chunk.count)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                writer.checkpoint({"entries": entries, "images": count})
                self.kept, saved = self.done, time.monotonic()
        if count != self.counts[split]:
            numbers = f"{self.counts[split]} images in {split}, then {count}"
            what = f"{self.listing.root} changed meanwhile, {numbers}"
            raise InputError(f"{what}: start again when it rests")

    def _finish(self, split: str, writer: PackWriter) -> None:
        """Say what was left out, and make the folder a pack."""
        images, classes = self.listing.splits[split], self.listing.classes
        if not writer.labels:
            what = f"{self.listing.root} has no readable image in {split}"
            raise InputError(f"{what}; the first: {': '.join(writer.first_rejection())}")
        if rejected := writer.rejected - images.survey.strays:
            left = f"left out {rejected} of {self.counts[split]} images"
            print(f"{split}: {left}, listed in rejected.csv", file=sys.stderr)
            present = set(writer.labels)
            gone = [name for label, name in enumerate(classes) if label not in present]
            if images.labeled and gone:
                left = f"no image is left of {few(gone)}, still a class of the pack"
                print(f"{split}: {left}", file=sys.stderr)
        writer.finish(
            classes,
            self.listing.names,
            source=self.origin[split],
            options=self.options,
            decoders=decoders(),
            numbers=self.listing.numbers,
        )


def _writer(place: Path, target: Target, expected: int) -> PackWriter | None:
    """A writer that goes on in `place` from the last checkpoint, if that is whole; None where the
    pack is finished."""
    place.mkdir(exist_ok=True)
    try:
        if (place / "manifest.json").exists():
            Pack.open(place)
            (place / CHECKPOINT).unlink(missing_ok=True)
            return None
        return PackWriter(place, target.size, expected, encoding=target.encoding)
    except Exception as error:  # damage shows itself in many ways
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"{place} was left damaged ({reason}): it is begun anew", file=sys.stderr)
    shutil.rmtree(place)
    place.mkdir()
    return PackWriter(place, target.size, expected, encoding=target.encoding)


def _native_size(listing: Listing) -> int:
    for images in listing.splits.values():
        for reference, _ in images:
            image = read(reference)
            if isinstance(image, str):
                continue  # whether bad images are left out is decided where they are met
            if image.width != image.height:
                what = f"{reference.path} is {image.width}x{image.height}, no square"
                raise InputError(f"{what}: give --size a number of pixels, not native")
            return image.width
    raise InputError(f"{listing.root} has no readable image: nothing to prepare")


def _bytes(number: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number / 1e3:,.1f} kB"
