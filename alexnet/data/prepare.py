"""From images of all sizes to a pack of one size, in one pass (section 2 of the paper).

`alexnet.data.decode` says what becomes of an image, `alexnet.data.pack` what a pack is. The same
pass sums up the mean image (section 2) and the covariance of the colors (section 4.1).
"""

import errno
import functools
import itertools
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from alexnet.data import hold_out as held
from alexnet.data.changes import changes
from alexnet.data.chunks import Chunk, Entry, Piece, Shelf, Target, make_chunk, prepared
from alexnet.data.decode import MEGAPIXELS, QUALITY, decoders, read
from alexnet.data.listing import Images, Listing, Stray, few
from alexnet.data.pack import VERSIONS, Pack
from alexnet.data.pack_writer import PackWriter, resumed
from alexnet.data.partial import is_done, partial_folder, place_of
from alexnet.data.sources import list_source
from alexnet.errors import EnvironmentFault, InputError, printable, reason, say
from alexnet.files import explained, free_bytes, temporary_folder
from alexnet.keys import key
from alexnet.processes import Crashed, OrderedMap, cores, in_flight, process_pool
from alexnet.tables import duration, in_bytes

CHUNK_BYTES = 2**23
NATIVE: Literal["native"] = "native"
ALREADY = "{} is prepared already, from the same images with the same options"
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
    hold_out: held.Rule | None = None,
    seed: int = 0,
    max_megapixels: int | None = None,
) -> Path:
    """Make the pack `out` from the images of `source`; a folder of packs, if it has several splits.

    The pack appears under its name when it is whole. Until then it grows in `.<out>.partial` beside
    it; whatever stops the process, even a kill, the same call goes on after the last shard that was
    finished (1 GiB: seconds at 256 pixels, minutes of JPEG files). A pack of the same source and
    options that is there stays as it is.

    Args:
        source: A folder or an archive in one of the layouts of `alexnet.data.sources`, or the word
            "pictographs": the embedded data set.
        out: The pack's folder.
        size: Pixels of a side; or "native": the images are square and of one size, and stay so.
        skip_bad: Leave unreadable images out and list them in rejected.csv. Else all of them are
            named at the end, and there is no pack.
        workers: Processes; by default as many as there are cores, one for few images. The pack does
            not depend on it. They are spawned; a single one too with skip_bad, for a decoder may
            crash.
        encoding: "raw" or "jpeg", see `alexnet.data.decode`.
        classes: A part of the source: the first so many classes, or those named.
        limit: Images of each class in each split, at most.
        hold_out: Splits to make of others, see `alexnet.data.hold_out`.
        seed: Of the draw of images that are held out.
        max_megapixels: The most that an image may have; by default `decode.MEGAPIXELS`.

    Returns:
        The path of the pack.

    Raises:
        InputError: Whatever is wrong with `source`, `out`, an image, or the room on the disk.
        EnvironmentFault: A disk, the network, memory or a worker failed. No image is left out for
            that; the same call goes on where this one was.
    """
    out = Path(out)
    options = _options(size, skip_bad, workers, encoding, classes, limit, max_megapixels)
    if hold_out is not None:
        options["hold_out"] = dict(hold_out) | ({"seed": seed} if seed else {})
    if str(source) == "pictographs":
        return _prepare_pictographs(out, options, workers)
    listing = list_source(source, classes, limit)
    if hold_out is not None:
        listing = held.hold_out(listing, hold_out, seed)
    if listing.upright:
        options["orientation"] = "applied"
    root, whole = listing.root.resolve(), Path(source).resolve()
    if any(out.resolve().is_relative_to(place) for place in (root, whole)):
        raise InputError(f"{out} lies in {source}, among the images: choose a place outside")
    origin = {
        split: {"layout": listing.layout, "name": root.name, "sha256": images.survey.digest}
        for split, images in listing.splits.items()
    }
    return _prepare(listing, out, origin, options, workers)


def _options(
    size: int | str,
    skip_bad: bool,
    workers: int | None,
    encoding: str,
    classes: Sequence[str] | int | None,
    limit: int | None,
    max_megapixels: int | None,
) -> dict[str, Any]:
    """The options that the pack depends on, as its manifest has them.

    Raises:
        InputError: One of them, or `workers`, is out of range.
    """
    valid = {
        f"size {size}: give the pixels of a side, 1 to 4096, or `native`": size == NATIVE
        or (isinstance(size, int) and 1 <= size <= 4096),
        f"workers {workers}: give 1 or more": workers is None or workers >= 1,
        f"limit {limit}: give 1 or more": limit is None or limit >= 1,
        f"max_megapixels {max_megapixels}: give 1 or more": max_megapixels is None
        or max_megapixels >= 1,
        f"encoding {encoding}: give {' or '.join(VERSIONS)}": encoding in VERSIONS,
        "classes: name at least one": isinstance(classes, int | None) or len(classes),
    }
    if faults := [message for message, is_valid in valid.items() if not is_valid]:
        raise InputError(faults[0])
    options: dict[str, Any] = {"size": size, "skip_bad": skip_bad}
    if encoding == "jpeg":
        options |= {"encoding": encoding, "quality": QUALITY}
    if classes is not None:
        options["classes"] = classes if isinstance(classes, int) else list(classes)
    if limit is not None:
        options["limit"] = limit
    if max_megapixels is not None:
        options["max_megapixels"] = max_megapixels
    return options


def _prepare_pictographs(out: Path, options: dict[str, Any], workers: int | None) -> Path:
    from alexnet.data import pictographs

    size = options["size"]
    if size == NATIVE:
        raise InputError("pictographs come in many sizes: give --size a number, not native")
    if "hold_out" in options:
        raise InputError("pictographs come with splits of their own: hold none out")
    one = {"layout": "pictographs", "name": "pictographs", "recipe": pictographs.RECIPE}
    origin = dict.fromkeys(pictographs.SPLITS, one)
    options = options | {"skip_bad": False}
    if is_done(out, origin, options):
        say(ALREADY.format(out))
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
        say(note)
    if is_done(out, origin, options):
        preparation = _Preparation(listing, out, origin, options, workers)
        preparation.compare()
        say(ALREADY.format(out))
        return out
    preparation = _Preparation(listing, out, origin, options, workers)
    # What a partial pack must have been made of for this one to go on from it.
    about = ("layout", "name", "recipe")
    sources = {split: [source.get(name) for name in about] for split, source in origin.items()}
    work_on = {"source": sources, "options": options, "decoders": decoders(), "versions": VERSIONS}
    classes = key([listing.classes, listing.names, listing.numbers])
    made_of = {split: images.survey for split, images in listing.splits.items()}
    images: dict[str, list[Any]] = {
        split: [one.digest, one.newest, classes] for split, one in made_of.items()
    }
    if "recipe" in next(iter(origin.values())):  # drawn anew at other times, and the same
        images = {split: [classes] for split in images}
    cannot = f"cannot make {out}", "choose another name"
    if out.is_dir():
        with explained(*cannot):
            out.rmdir()  # it is empty, and perhaps cannot be replaced: the working folder, say
    with partial_folder(out, work_on, images) as folder:
        preparation.run(folder)
        with explained(*cannot):  # something was made in the meantime
            os.replace(folder, out)
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
        native, encoding = options["size"] == NATIVE, options.get("encoding", "raw")
        self.megapixels = options.get("max_megapixels", MEGAPIXELS)
        size = _native_size(listing, self.megapixels) if native else options["size"]
        step = max(1, min(256, CHUNK_BYTES // (3 * size**2)))
        upright = options.get("orientation") == "applied"
        self.target = Target(size, native, encoding, step, self.megapixels, upright)
        self.counts = {split: images.survey.count for split, images in listing.splits.items()}
        self.total = sum(self.counts.values())
        # Starting a process takes as long as some hundred images.
        self.workers = workers or min(cores(), self.total // 1024 + 1)
        # A decoder that crashes must not take this process with it.
        self.isolated = self.workers > 1 or options["skip_bad"]
        self.done = self.kept = 0  # images: until now, and those that the next call would find done
        self.bad: list[str] = []  # images that cannot be read, with the reasons

    def run(self, folder: Path) -> None:
        """Write the packs into `folder`."""
        title = f"preparing {printable(self.out.name)}"
        self.bar = tqdm(total=self.total, unit=" images", desc=title, disable=None)
        try:
            writers = self._open(folder)
            with self.bar, process_pool(self.workers, self.isolated) as ordered_map:
                shelf = Shelf(self.target, in_flight(self.workers) if self.isolated else 0)
                self._forecast(folder, ordered_map)
                for split, writer in writers.items():
                    self._fill(split, writer, ordered_map, shelf)
                    if not self.bad:
                        self._finish(split, writer)
                        self.kept = self.done
            self._refuse_bad()
        except (OSError, MemoryError, EnvironmentFault) as error:
            if getattr(error, "errno", None) not in FULL:
                path = getattr(error, "filename", None)
                where = f"cannot read or write {path}: " if path else ""
                raise EnvironmentFault(f"{where}{reason(error)}; {self._kept()}") from None
            full = f"the disk is full ({reason(error)}) after {self.done:,} of {self.total:,}"
            raise InputError(f"{full} images; {self._kept()}: make room first") from None
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
        places = {split: place_of(folder, split, self.counts) for split in self.counts}
        writers = {
            split: resumed(place, self.target.size, self.target.encoding)
            for split, place in places.items()
        }
        for split, writer in writers.items():
            self._advance((writer.note or 0) if writer else self.counts[split])
        self.kept = self.done
        if self.done:
            done = f"{self.done:,} of {self.total:,} images are done"
            say(f"going on with {self.out}, of which {done}")
        return {split: writer for split, writer in writers.items() if writer}

    def _forecast(self, folder: Path, ordered_map: OrderedMap) -> None:
        """Say how much room and time the rest will take, where there are many images.

        One worker prepares a sample, spread evenly over the whole; its time is divided among all.

        Raises:
            InputError: The disk is too small.
        """
        left, jpeg = self.total - self.done, self.target.encoding == "jpeg"
        each, seconds = float(3 * self.target.size**2), 0.0
        if left >= 1000 or (jpeg and left):
            samples = [images.survey.sample for images in self.listing.splits.values()]
            count = max(4, min(32, left // 500)) // len(samples) + 1  # few, of each split
            sample: list[Entry] = [pair for s in samples for pair in s[:: -(-len(s) // count)]]
            work = functools.partial(make_chunk, target=self.target)
            list(ordered_map(work, [Piece([])] * self.workers))  # processes start, side by side
            began, (chunk,) = time.monotonic(), ordered_map(work, [Piece(sample)])
            seconds = (time.monotonic() - began) / len(sample) * left / self.workers
            if not isinstance(chunk, Crashed) and chunk.files:
                each = sum(map(len, chunk.files)) / len(chunk.files)
        needed, free = each * left + 2**20, free_bytes(folder)
        if needed > free:
            room = f"the disk has {in_bytes(free)} left"
            what = f"{self.out} needs {in_bytes(needed)} more, and {room}"
            remedy = "make room, choose another place, or take less by --limit or --classes"
            raise InputError(f"{what}: {remedy}{'' if jpeg else ', or --encoding jpeg'}")
        if left >= 1000:
            of = f" of {in_bytes(free)} free" if free < math.inf else ""
            workers = f"{self.workers} worker{'s' * (self.workers > 1)}"
            what = f"{self.out}: {left:,} images, {in_bytes(needed)}{of}"
            say(f"{what}, about {duration(seconds)} with {workers}")

    def _fill(self, split: str, writer: PackWriter, ordered_map: OrderedMap, shelf: Shelf) -> None:
        """Write a split's images, but those that its last checkpoint holds. After an image that
        cannot be read, and must be, the others are only looked at."""
        images, count = self.listing.splits[split], writer.note or 0
        remaining = itertools.islice(images.entries(), len(writer.labels) + writer.rejected, None)
        chunks = prepared(remaining, self.target, ordered_map, shelf)
        while (chunk := self._next(chunks, writer, count)) is not None:
            if not self.options["skip_bad"]:
                bad = (pair for pair in chunk.rejected if not isinstance(pair[0], Stray))
                self.bad += [printable(f"{entry.path}: {why}") for entry, why in bad]
            if chunk.misfit:
                size = f"{self.target.size}x{self.target.size}"
                raise InputError(f"{chunk.misfit}, not {size} as the first: give --size a number")
            is_time = not self.bad and self._write(chunk, images, writer)
            count += chunk.count
            self._advance(chunk.count)
            if is_time:
                writer.checkpoint(count)
                self.kept = self.done
        if count != self.counts[split]:
            what = f"{self.counts[split]} images in {split}, then {count}: start again"
            raise InputError(f"{self.listing.root} changed meanwhile, {what}")

    def _next(self, chunks: Iterator[Chunk], writer: PackWriter, count: int) -> Chunk | None:
        """The next chunk, None at the end. What is done is kept where it cannot be made."""
        try:
            return next(chunks, None)
        except (OSError, MemoryError, EnvironmentFault):
            if not self.bad and count:
                writer.checkpoint(count)
                self.kept = self.done
            raise

    def _write(self, chunk: Chunk, images: Images, writer: PackWriter) -> bool:
        """Write a chunk; returns whether it is time for a checkpoint."""
        for entry, why in chunk.rejected:
            writer.reject(images.below(entry), why)
        return bool(chunk.labels) and writer.append(
            chunk.images, chunk.labels, chunk.moments, chunk.files
        )

    def _refuse_bad(self) -> None:
        """Raise InputError if images cannot be read, and must be."""
        if len(self.bad) > 1:
            for fault in self.bad:
                say(fault)
            more = f"{len(self.bad) - 1} more that cannot be read, all of them listed above"
            raise InputError(f"{self.bad[0]}; and {more}: mend or remove them, or --skip-bad")
        if self.bad:
            raise InputError(f"{self.bad[0]}; mend or remove it, or --skip-bad")

    def compare(self) -> None:
        """Raise InputError if images that were written after the pack are not what it holds."""
        with process_pool(self.workers, self.isolated) as ordered_map:
            for split, images in self.listing.splits.items():
                place = place_of(self.out, split, self.counts)
                shelf = Shelf(self.target, in_flight(self.workers) if self.isolated else 0)
                if changed := changes(images, Pack.open(place), self.target, ordered_map, shelf):
                    what = f"{self.out} is a pack of other images: {few(changed)}"
                    raise InputError(f"{what} were changed; remove it or choose another name")

    def _finish(self, split: str, writer: PackWriter) -> None:
        """Say what was left out, and make the folder a pack."""
        images, classes = self.listing.splits[split], self.listing.classes
        if not writer.labels:
            first = ": ".join(writer.first_rejection())
            raise InputError(f"{self.listing.root} has no readable image in {split}; {first}")
        if rejected := writer.rejected - images.survey.strays:
            left = f"left out {rejected} of {self.counts[split]} images, listed in rejected.csv"
            say(f"{split}: {left}")
            gone = [classes[label] for label in sorted({*range(len(classes))} - {*writer.labels})]
            if images.labeled and gone:
                left = f"no image is left of {few(gone)}, still a class of the pack"
                say(f"{split}: {left}")
        about = {"source": self.origin[split], "options": self.options, "decoders": decoders()}
        writer.finish(classes, self.listing.names, numbers=self.listing.numbers, **about)


def _native_size(listing: Listing, megapixels: int) -> int:
    for images in listing.splits.values():
        for reference, _ in images:
            image = read(reference, megapixels=megapixels)
            if isinstance(image, str):
                continue  # whether bad images are left out is decided where they are met
            if image.width != image.height:
                what = f"{reference.path} is {image.width}x{image.height}, no square"
                raise InputError(f"{what}: give --size a number, not native")
            return image.width
    raise InputError(f"{listing.root} has no readable image: nothing to prepare")
