"""From images of all sizes to a pack of one size: the short side is scaled to 256 pixels and the center square cropped (section 2 of the
paper), and the same pass sums up the mean image (section 2) and the colors' covariance (section 4.1).

Geometry: an image of w x h becomes W x H, round(w s) x round(h s) with s = size / min(w, h), halves rounded up; of that the crop begins at
((W - size) // 2, (H - size) // 2). The filter is Pillow's bicubic (a = -1/2), widened where it shrinks (antialiased), along one direction
and then the other (Pillow 13 begins with the cheaper, older ones with the rows), each time rounded to 8 bits. Smaller images are enlarged;
one whose short side is `size` already is only cropped.
Color: everything becomes 8-bit RGB. Gray is repeated, palettes are looked up, CMYK becomes (255 - C)(255 - K) / 255, rounded, and so on;
transparency lies over black, 16-bit gray keeps its upper eight bits, an animation gives its first frame. Orientation tags and color
profiles are not looked at: an image is as its rows are stored, as it was for the readers of 2012.
Formats: `listing.FORMATS`, whatever a file's ending says; others that Pillow knows are rejected.
Encoding: "raw" keeps these pixels; "jpeg" keeps a JPEG file of them (quality 90, colors at half resolution), a tenth of the room, or the
source's own file where that is an RGB JPEG of this size already.
"""

import errno
import fcntl
import functools
import itertools
import json
import math
import mmap
import os
import shutil
import sys
import time
import warnings
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL
from PIL import ExifTags, Image, features
from tqdm import tqdm

from alexnet.data.listing import FORMATS, Listing, Reference, Stray, Survey, few
from alexnet.data.pack import VERSIONS, Moments, Pack, PackWriter, read_manifest, temporary
from alexnet.data.sources import list_source
from alexnet.errors import InputError
from alexnet.processes import Crashed, OrderedMap, cores, crew, in_flight

CHUNK_BYTES = 2**23
CHECKPOINT_SECONDS = 10.0
MOST_PIXELS = 2**26  # of a scaled image before it is cropped
NATIVE: Literal["native"] = "native"
TURNED_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip
QUALITY = 90  # of encoding "jpeg"
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
    """Make the pack `out` from the images of `source` (a folder of packs, where it has several splits), and return its path.

    source: a folder or an archive in one of the layouts of `alexnet.data.sources`, or the word "pictographs": the embedded data set.
    size: pixels of a side, or "native": take the images as they are, all square and of one size.
    skip_bad: leave unreadable images out and list them in rejected.csv, instead of stopping at the first.
    workers: processes; by default as many as there are cores, one for few images. The pack does not depend on it. They are
        spawned (a single one too with skip_bad, for a decoder may crash): a script that calls this needs `if __name__ == "__main__":`.
    encoding: "raw" or "jpeg", see the head of this module.
    classes, limit: a part of the source, the first so many classes or those named, and of each class at most `limit` images a split.

    The pack appears under its name when it is whole. Until then it grows in `.<out>.partial` beside it; whatever stops the process, even a
    kill, the same call goes on from there, at most CHECKPOINT_SECONDS back. A pack that is there already, of the same source and options,
    is left as it is. Raises InputError for whatever is wrong with `source`, `out`, an image, or the room on the disk.
    """
    out = Path(out)
    if size != NATIVE and not (isinstance(size, int) and 1 <= size <= 4096):
        raise InputError(f"size {size}: give the pixels of a side, 1 to 4096, or `native`")
    if workers is not None and workers < 1:
        raise InputError(f"workers {workers}: give 1 or more")
    if encoding not in VERSIONS:
        raise InputError(f"encoding {encoding}: give {' or '.join(VERSIONS)}")
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit}: give 1 or more")
    if not isinstance(classes, int | None) and not list(classes):
        raise InputError("classes: name at least one")
    options: dict[str, Any] = {"size": size, "skip_bad": skip_bad}
    options |= {"encoding": encoding, "quality": QUALITY} if encoding == "jpeg" else {}
    options |= (
        {}
        if classes is None
        else {"classes": classes if isinstance(classes, int) else list(classes)}
    )
    options |= {} if limit is None else {"limit": limit}
    if str(source) == "pictographs":
        return _prepare_pictographs(out, options, workers)
    listing = list_source(source, classes, limit)
    if out.resolve().is_relative_to(listing.root.resolve()):
        raise InputError(f"{out} lies in {source}, among the images: choose a place outside")
    name = listing.root.resolve().name
    origin = {
        split: {"layout": listing.layout, "name": name, "sha256": listing.fingerprint(split)}
        for split in listing.splits
    }
    return _prepare(listing, out, origin, options, workers)


def _prepare_pictographs(out: Path, options: dict[str, Any], workers: int | None) -> Path:
    from alexnet.data import pictographs

    size = options["size"]
    if not isinstance(size, int):
        raise InputError(
            "pictographs come in many sizes: give the pixels of a side instead of `native`"
        )
    origin = {
        split: {"layout": "pictographs", "name": "pictographs", "recipe": pictographs.RECIPE}
        for split in pictographs.SPLITS
    }
    options = options | {"skip_bad": False}
    if _is_there(out, origin, options):
        return out
    with temporary(out, "images") as folder:
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
    if _is_there(out, origin, options):
        return out
    side = options["size"] if isinstance(options["size"], int) else _native_size(listing)
    step = max(1, min(256, CHUNK_BYTES // (3 * side**2)))
    job = _Job(
        side, native=options["size"] == NATIVE, encoding=options.get("encoding", "raw"), step=step
    )
    surveys = {split: images.survey for split, images in listing.splits.items()}
    total = sum(survey.count for survey in surveys.values())
    if workers is None:
        workers = min(
            cores(), total // 1024 + 1
        )  # starting a process takes as long as some hundred images
    # What a partial pack must have been made of for this one to go on from it.
    identity = {"origin": origin, "options": options, "decoders": decoders(), "versions": VERSIONS}
    try:
        if out.is_dir():
            out.rmdir()  # it is empty, and might be something that cannot be replaced: the working folder
    except OSError as error:
        raise InputError(f"cannot make {out}: {error.strerror}; choose another name") from None
    with _working(out, identity) as folder:
        try:
            bar = tqdm(total=total, unit=" images", desc=f"preparing {out.name}", disable=None)
            done = _Done(bar)
            writers: dict[str, PackWriter] = {}
            for split in listing.splits:
                place = folder / split if len(listing.splits) > 1 else folder
                if (writer := _writer(place, job, surveys[split].count)) is None:
                    done.add(surveys[split].count)
                else:
                    writers[split] = writer
                    done.add(writer.note["images"] if writer.note else 0)
                done.kept = done.count
            if done.count:
                print(
                    f"going on with {out}, of which {done.count:,} of {total:,} images are done",
                    file=sys.stderr,
                )
            apart = (
                workers > 1 or options["skip_bad"]
            )  # a decoder that crashes must not take this process with it
            with bar, crew(workers, apart) as ordered_map:
                shelf = _Shelf(job, in_flight(workers)) if apart else None
                _foresee(
                    listing, surveys, out, folder, job, workers, total - done.count, ordered_map
                )
                for split, writer in writers.items():
                    _fill(
                        writer, listing, split, job, options["skip_bad"], ordered_map, shelf, done
                    )
                    writer.finish(
                        listing.classes,
                        listing.names,
                        source=origin[split],
                        options=options,
                        decoders=decoders(),
                        numbers=listing.numbers,
                    )
                    done.kept = done.count
        except OSError as error:
            if error.errno not in FULL:
                raise
            full = f"the disk is full ({error.strerror}) after {done.count:,} of {total:,} images"
            raise InputError(f"{full}; {done.told(total, out)}: make room first") from None
        except KeyboardInterrupt as stop:
            stop.args = (f"stopped; {done.told(total, out)}",)
            raise
        try:
            os.replace(folder, out)
        except OSError as error:  # something has come to be there meanwhile
            raise InputError(f"cannot make {out}: {error.strerror}; choose another name") from None
    return out


@dataclass
class _Done:
    """How many images of all are done, and how many of these the next call would find done."""

    bar: tqdm
    count: int = 0
    kept: int = 0

    def told(self, total: int, out: Path) -> str:
        if not self.kept:
            return f"nothing of {out} is kept, and the same command begins anew"
        return f"{self.kept:,} of {total:,} images of {out} are kept, and the same command goes on from there"

    def add(self, count: int) -> None:
        self.count += count
        self.bar.update(count)


def _writer(place: Path, job: "_Job", expected: int) -> PackWriter | None:
    """What goes on with a split in `place`, from its last checkpoint if there is one that is whole; None where the split is done."""
    place.mkdir(exist_ok=True)
    try:
        if (place / "manifest.json").exists():
            Pack.open(place)
            shutil.rmtree(place / "checkpoint", ignore_errors=True)
            return None
        return PackWriter(place, job.size, expected, encoding=job.encoding)
    except Exception as error:  # damage shows itself in many ways
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        print(
            f"{place} was left damaged ({' '.join(str(error).split()) or type(error).__name__}): it is begun anew",
            file=sys.stderr,
        )
    shutil.rmtree(place)
    place.mkdir()
    return PackWriter(place, job.size, expected, encoding=job.encoding)


def _fill(
    writer: PackWriter,
    listing: Listing,
    split: str,
    job: "_Job",
    skip_bad: bool,
    ordered_map: OrderedMap,
    shelf: "_Shelf | None",
    done: _Done,
) -> None:
    """Write a split's images, but those that its last checkpoint holds."""
    images, note = listing.splits[split], writer.note or {"entries": 0, "images": 0}
    entries, here = note["entries"], note["images"]
    saved = time.monotonic()
    try:
        for chunk in _chunks(
            itertools.islice(images.entries(), entries, None), job, ordered_map, shelf
        ):
            for entry, reason in chunk.rejected:
                if isinstance(entry, Stray):
                    writer.reject(images.below(entry), reason)
                    continue
                if not skip_bad:
                    raise InputError(
                        f"{entry.path}: {reason}; mend or remove it, or leave all such out with --skip-bad"
                    )
                writer.reject(images.below(entry), reason)
            if chunk.misfit:
                raise InputError(
                    f"{chunk.misfit}, not {job.size}x{job.size} as the first: give --size a number, not native"
                )
            if chunk.labels:
                writer.append(
                    chunk.images,
                    chunk.labels,
                    chunk.moments,
                    chunk.encoded if job.encoding == "jpeg" else None,
                )
            entries, here = entries + chunk.entries, here + chunk.count
            done.add(chunk.count)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                writer.checkpoint({"entries": entries, "images": here})
                done.kept = done.count
                saved = time.monotonic()
        if here != images.survey.count:
            numbers = f"{images.survey.count} images in {split}, then {here}"
            raise InputError(
                f"{listing.root} changed meanwhile, {numbers}: start again when it rests"
            )
        if not writer.labels:
            first = next(row for row in writer.rejections() if row[1])
            raise InputError(
                f"{listing.root} has no readable image in {split}; the first: {first[0]}: {first[1]}"
            )
        if writer.rejected - images.survey.strays:
            left = f"left out {writer.rejected - images.survey.strays} of {here} images"
            print(f"{split}: {left}, listed in rejected.csv", file=sys.stderr)
            present = set(writer.labels)
            if images.labeled and (
                gone := [name for label, name in enumerate(listing.classes) if label not in present]
            ):
                print(
                    f"{split}: no image is left of {few(gone)}, still a class of the pack",
                    file=sys.stderr,
                )
    except BaseException:
        writer.close()
        raise


def _is_there(out: Path, origin: dict[str, Any], options: dict[str, Any]) -> bool:
    """Whether `out` is the pack that would be made. Raises InputError where it is anything else but nothing or an empty folder."""
    if out.is_symlink() and not out.exists():
        raise InputError(f"{out} is a link that leads nowhere: remove it or choose another name")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    found = {split: read_manifest(out / split if len(origin) > 1 else out) for split in origin}
    if all(
        m is not None and (m["source"], m["options"]) == (origin[split], options)
        for split, m in found.items()
    ):
        try:
            for split in origin:
                Pack.open(out / split if len(origin) > 1 else out)
        except InputError as error:
            raise InputError(f"{out} is there, and of no use: {error}") from None
        print(
            f"{out} is prepared already, from the same images with the same options",
            file=sys.stderr,
        )
        return True
    raise InputError(
        f"{out} exists already, and is not this source's pack with these options: remove it or choose another name"
    )


@contextmanager
def _working(out: Path, identity: dict[str, Any]) -> Iterator[Path]:
    """The folder in which `out` grows: that of an earlier process, if it was at the same work, else a new one. One process at a time has
    it. It stays when the block fails after a checkpoint, and goes otherwise.
    """
    work = out.parent / f".{out.name}.partial"
    folder = work / "pack"
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / "lock").open("w")
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; choose another place") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"another process is preparing {out}: wait for it, or choose another name"
            ) from None
        try:
            try:
                _begin(work, out, identity)
            except OSError as error:  # a full disk
                raise InputError(
                    f"cannot write {out}: {error.strerror}; make room, or choose another place"
                ) from None
            yield folder
        finally:
            if not (folder.is_dir() and _has_checkpoint(folder)):
                shutil.rmtree(work, ignore_errors=True)


def _begin(work: Path, out: Path, identity: dict[str, Any]) -> None:
    """Make the folder `work` fit for `identity`, keeping what it holds of that. InputError where it holds a part of something else."""
    folder, told = work / "pack", work / "job.json"
    same = [identity]
    if identity["options"]["skip_bad"]:  # until now, there has been nothing to skip
        same.append(identity | {"options": identity["options"] | {"skip_bad": False}})
    text, *older = [json.dumps(one, sort_keys=True) for one in same]
    if not _has_checkpoint(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    elif not (told.is_file() and told.read_text() in [text, *older]):
        made = f"{work} holds a part of {out} that was made of other images, with other options, or by other decoders"
        raise InputError(
            f"{made}: give those again to go on with it, remove it, or choose another name"
        )
    if not (told.is_file() and told.read_text() == text):
        (work / "job.part").write_text(text)
        os.replace(work / "job.part", told)


def _has_checkpoint(folder: Path) -> bool:
    return (
        any(folder.glob("checkpoint/state.json"))
        or any(folder.glob("*/checkpoint/state.json"))
        or any(folder.glob("*/manifest.json"))
    )


def _native_size(listing: Listing) -> int:
    for images in listing.splits.values():
        for reference, _ in images:
            image = read(reference)
            if isinstance(image, str):
                continue  # whether bad images are left out is decided where they are met
            if image.width != image.height:
                raise InputError(
                    f"{reference.path} is {image.width}x{image.height}, no square: give --size a number of pixels, not native"
                )
            return image.width
    raise InputError(f"{listing.root} has no readable image: nothing to prepare")


def _foresee(
    listing: Listing,
    surveys: dict[str, Survey],
    out: Path,
    folder: Path,
    job: "_Job",
    workers: int,
    left: int,
    ordered_map: OrderedMap,
) -> None:
    """Say how much room and time the rest will take, from a sample where there are many images. Raises InputError where the disk is too
    small. The sample is read from the disk by one worker, evenly over the whole; its time is divided among them all.
    """
    each, seconds = float(3 * job.size**2), 0.0
    if left >= 1000 or (job.encoding == "jpeg" and left):
        some = (
            max(4, min(32, left // 500)) // len(surveys) + 1
        )  # of a split: not so many as to take long themselves
        sample: list[Entry] = [
            pair
            for survey in surveys.values()
            for pair in survey.sample[:: -(-len(survey.sample) // some)]
        ]
        work = functools.partial(_prepare_chunk, job=job)
        list(ordered_map(work, [_Piece([])] * workers))  # processes start, side by side
        began, (chunk,) = time.monotonic(), ordered_map(work, [_Piece(sample)])
        seconds = (time.monotonic() - began) / len(sample) * left / workers
        if job.encoding == "jpeg" and not isinstance(chunk, Crashed) and chunk.encoded:
            each = sum(map(len, chunk.encoded)) / len(chunk.encoded)
    needed, free = each * left + 2**20, shutil.disk_usage(folder).free
    if needed > free:
        smaller = "" if job.encoding == "jpeg" else ", or --encoding jpeg"
        what = f"{out} needs {_bytes(needed)} more, and the disk has {_bytes(free)} left"
        raise InputError(
            f"{what}: make room, choose another place, or take less by --limit or --classes{smaller}"
        )
    if left >= 1000:
        estimate = f"about {_duration(seconds)} with {workers} worker{'s' * (workers > 1)}"
        print(
            f"{out}: {left:,} images, {_bytes(needed)} of {_bytes(free)} free, {estimate}",
            file=sys.stderr,
        )


def _bytes(number: float) -> str:
    for unit, of in (("GB", 1e9), ("MB", 1e6)):
        if number >= of:
            return f"{number / of:,.1f} {unit}"
    return f"{number / 1e3:,.1f} kB"


def _duration(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 5400
        else f"{seconds / 60:.0f} min"
        if seconds >= 90
        else f"{max(seconds, 1):.0f} s"
    )


# --- one chunk, in a worker ---------------------------------------------------------------------------------------------------------------


Entry = tuple[Reference | Stray, int]


@dataclass(frozen=True)
class _Job:
    size: int
    native: bool
    encoding: str
    step: int  # images of a chunk, at most 256


class _Shelf:
    """Memory that this process and its workers share, in places for a chunk's pixels each: a pipe would copy them four times.

    Where the system has no such thing, `path` is "", and pixels go through the pipe.
    """

    def __init__(self, job: _Job, places: int):
        self.shape, self.free, self.path = (
            (job.step, job.size, job.size, 3),
            deque(range(places)),
            "",
        )
        if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
            descriptor = os.memfd_create("alexnet-prepare")
            os.ftruncate(descriptor, places * math.prod(self.shape))
            self.path = f"/proc/{os.getpid()}/fd/{descriptor}"
            self._all = np.frombuffer(mmap.mmap(descriptor, 0), np.uint8).reshape(
                places, *self.shape
            )
            weakref.finalize(self, os.close, descriptor)

    def place(self, number: int) -> np.ndarray:
        return self._all[number]


@functools.cache
def _shelf_of_parent(path: str) -> np.ndarray:
    """In a worker, which has one parent and sees one shelf in its life."""
    with open(path, "r+b") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0), np.uint8)


@dataclass
class _Chunk:
    """entries: how many references and strays it was made of; count: how many of these are images, rejected ones included."""

    entries: int
    count: int
    images: (
        np.ndarray
    )  # uint8 (n, S, S, 3); without images where there are files, or where they are on the shelf
    labels: list[int]
    moments: Moments | None
    rejected: list[tuple[Reference | Stray, str]] = field(
        default_factory=list
    )  # and the reason, in order
    encoded: list[bytes] = field(default_factory=list)
    misfit: str = ""
    place: int | None = None  # on the shelf


def _chunks(
    entries: Iterable[Entry], job: _Job, ordered_map: OrderedMap, shelf: _Shelf | None
) -> Iterator[_Chunk]:
    iterator, work = iter(entries), functools.partial(_prepare_chunk, job=job)
    places = shelf.path if shelf is not None else ""

    def pieces() -> Iterator[_Piece]:
        while piece := list(itertools.islice(iterator, job.step)):
            yield (
                _Piece(piece, shelf.path, shelf.free.popleft())
                if shelf and places
                else _Piece(piece)
            )

    for result in ordered_map(work, pieces()):
        if isinstance(result, Crashed):
            for alone in ordered_map(
                work, [_Piece([entry]) for entry in result.item.entries]
            ):  # one of these killed its process
                if isinstance(alone, Crashed):
                    ((entry, _),) = alone.item.entries
                    nothing = np.empty((0, job.size, job.size, 3), np.uint8)
                    alone = _Chunk(
                        1, 1, nothing, [], None, [(entry, "the process that read it died")]
                    )
                yield alone
            number = result.item.place
        else:
            number = result.place
            if shelf is not None and number is not None:
                result.images = shelf.place(number)[: len(result.labels)]
            yield result
        if shelf is not None and number is not None:
            shelf.free.append(number)


@dataclass(frozen=True)
class _Piece:
    """What becomes a chunk, and where its pixels are to go: a place of the shelf at `path`."""

    entries: list[Entry]
    path: str = ""
    place: int | None = None


def _prepare_chunk(piece: _Piece, job: _Job) -> _Chunk:
    Image.preinit()  # loads the common formats: the first image would, and the forecast counts that for every image
    entries = piece.entries
    size = job.size
    chunk = _Chunk(
        len(entries), 0, np.empty((0, size, size, 3), np.uint8), [], None, place=piece.place
    )
    shape = (len(entries), size, size, 3)
    if piece.place is None:
        out = np.empty(shape, np.uint8)
    else:
        out = _shelf_of_parent(piece.path)[piece.place * 3 * job.step * size**2 :][
            : math.prod(shape)
        ].reshape(shape)
    for entry, label in entries:
        if isinstance(entry, Stray):
            chunk.rejected.append((entry, entry.reason))
            continue
        chunk.count += 1
        image = read(entry, None if job.native else size)
        if isinstance(image, str):
            chunk.rejected.append((entry, image))
            continue
        if image.size != (size, size):
            chunk.misfit = f"{entry.path} is {image.width}x{image.height}"
            break
        if job.encoding == "jpeg":
            file = _encoded(entry, image)
            chunk.encoded.append(file)
            image = Image.open(BytesIO(file), formats=("JPEG",)).convert("RGB")
        out[len(chunk.labels)] = np.asarray(image)
        chunk.labels.append(label)
    done = out[: len(chunk.labels)]
    chunk.moments = Moments.of(done)
    chunk.moments.total = chunk.moments.total.astype(
        np.uint16
    )  # of at most 256 images, and a quarter of the bytes to send
    if piece.place is None and job.encoding == "raw":
        chunk.images = done
    return chunk


def _encoded(reference: Reference, image: Image.Image) -> bytes:
    """A JPEG file of `image`: that which it came from, if it is one of the same pixels, else a new one."""
    if (file := reference.file()) is not None:
        with Image.open(BytesIO(file), formats=FORMATS) as original:
            if (
                original.format == "JPEG"
                and original.mode in ("RGB", "L")
                and original.size == image.size
            ):
                return file
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def read(reference: Reference, size: int | None = None) -> Image.Image | str:
    """The image in RGB, fit to `size` where that is given; or in words why it cannot be had."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata, which is not looked at
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with reference.open() as image:
                rgb = to_rgb(_as_stored(image))
                return rgb if size is None else fit(rgb, size)
        except Exception as error:  # decoders fail in many ways on damaged bytes
            # Pillow names the file in some messages; ours does already.
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return (
                "no image that Pillow can read"
                if isinstance(error, PIL.UnidentifiedImageError)
                else " ".join(reason.split())
            )


def _as_stored(image: Image.Image) -> Image.Image:
    """Load `image`, rows as they are stored: Pillow turns TIFFs, and no others, as their orientation tag says, which is undone here."""
    turned = image.getexif().get(ExifTags.Base.Orientation) if image.format == "TIFF" else None
    image.load()
    return image.transpose(TURNED_BACK[turned]) if turned in TURNED_BACK else image


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as 8-bit RGB, as the head of this module says. Raises ValueError for floating-point images."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        values[values == image.info.get("transparency", -1)] = 0
        return Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.composite(
            image.convert("RGB"), Image.new("RGB", image.size), image.getchannel("A")
        )
    return image.convert("RGB")


def fit(image: Image.Image, size: int) -> Image.Image:
    """Scale the short side to `size` and crop the center square, as the head of this module says. Raises ValueError for endless ribbons."""
    w, h = image.size
    short = min(w, h)
    wide, high = (2 * w * size + short) // (2 * short), (2 * h * size + short) // (2 * short)
    left, top = (wide - size) // 2, (high - size) // 2
    if wide * high > MOST_PIXELS:
        raise ValueError(f"{w}x{h} is too narrow to be scaled to {wide}x{high}")
    if short != size:
        image = image.resize((wide, high), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + size, top + size))


def decoders() -> dict[str, str | None]:
    """Versions of what decodes and scales: two of them may differ by a gray level."""
    libraries = {name: features.version(name) for name in ("libjpeg_turbo", "jpg", "zlib", "webp")}
    return {"pillow": PIL.__version__, **libraries, "numpy": np.__version__}
