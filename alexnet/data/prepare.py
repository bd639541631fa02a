"""From images of all sizes to a pack of one size: the short side is scaled to 256 pixels and the center square cropped (section 2 of the
paper), and the same pass sums up the mean image (section 2) and the colors' covariance (section 4.1).

Geometry: an image of w x h becomes W x H, round(w s) x round(h s) with s = size / min(w, h), halves rounded up; of that the crop begins at
((W - size) // 2, (H - size) // 2). The filter is Pillow's bicubic, widened where it shrinks (antialiased); smaller images are enlarged. An
image whose short side is `size` already is only cropped.
Color: everything becomes 8-bit RGB. Gray is repeated, palettes and CMYK are converted, transparency lies over black, 16-bit gray keeps its
upper eight bits, an animation gives its first frame. Orientation tags and color profiles are not looked at.
"""

import functools
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL
from PIL import Image, features
from tqdm import tqdm

from alexnet.data.pack import Moments, PackWriter, building, read_manifest, temporary
from alexnet.data.parallel import OrderedMap, cores, crew
from alexnet.data.sources import Listing, Reference, list_source
from alexnet.errors import InputError

CHUNK_BYTES = 2**24
MOST_PIXELS = 2**26  # of a scaled image before it is cropped
NATIVE: Literal["native"] = "native"


def prepare(source: str | Path, out: str | Path, *, size: int | str = 256, skip_bad: bool = False, workers: int | None = None) -> Path:
    """Make the pack `out` from the images of `source` (a folder of packs, where it has several splits), and return its path.

    source: a folder in one of the layouts of `alexnet.data.sources`, or the word "pictographs": the embedded data set.
    size: pixels of a side, or "native": take the images as they are, all square and of one size.
    skip_bad: leave unreadable images out and list them in rejected.csv, instead of stopping at the first.
    workers: processes; by default as many as there are cores, one for few images. The pack does not depend on it. They are
        spawned: a script that calls this needs `if __name__ == "__main__":`.

    The pack appears under its name when it is whole. One that is there already, of the same source and options, is left as it is.
    Raises InputError for whatever is wrong with `source`, `out` or an image.
    """
    out = Path(out)
    if size != NATIVE and not (isinstance(size, int) and 1 <= size <= 4096):
        raise InputError(f"size {size}: give the pixels of a side, 1 to 4096, or `native`")
    if workers is not None and workers < 1:
        raise InputError(f"workers {workers}: give 1 or more")
    if str(source) == "pictographs":
        return _prepare_pictographs(out, size, workers)
    listing = list_source(source)
    if out.resolve().is_relative_to(listing.root.resolve()):
        raise InputError(f"{out} lies in {source}, among the images: choose a place outside")
    name = listing.root.resolve().name
    origin = {split: {"layout": listing.layout, "name": name, "sha256": listing.fingerprint(split)} for split in listing.splits}
    return _prepare(listing, out, origin, size, skip_bad, workers)


def _prepare_pictographs(out: Path, size: int | str, workers: int | None) -> Path:
    from alexnet.data import pictographs

    if not isinstance(size, int):
        raise InputError("pictographs come in many sizes: give the pixels of a side instead of `native`")
    origin = {split: {"layout": "pictographs", "name": "pictographs", "recipe": pictographs.RECIPE} for split in pictographs.SPLITS}
    if _is_there(out, origin, {"size": size, "skip_bad": False}):
        return out
    with temporary(out, "images") as folder:
        pictographs.write(folder / "pictographs", size=size, workers=workers)
        return _prepare(list_source(folder / "pictographs"), out, origin, size, False, workers)


def _prepare(listing: Listing, out: Path, origin: dict[str, Any], size: int | str, skip_bad: bool, workers: int | None) -> Path:
    for note in listing.notes:
        print(note, file=sys.stderr)
    options = {"size": size, "skip_bad": skip_bad}
    if _is_there(out, origin, options):
        return out
    pixels = size if isinstance(size, int) else _native_size(listing)
    total = sum(len(images) for images in listing.splits.values())
    if workers is None:
        workers = min(cores(), total // 1024 + 1)  # starting a process takes as long as some hundred images
    bar = tqdm(total=total, unit=" images", desc=f"preparing {out.name}", disable=None)
    with building(out) as folder, crew(workers) as ordered_map, bar:
        for split, images in listing.splits.items():
            place = folder / split if len(listing.splits) > 1 else folder
            place.mkdir(exist_ok=True)
            writer, rejected = PackWriter(place, pixels, len(images)), []
            for chunk in _chunks(images, pixels, size == NATIVE, ordered_map):
                if chunk.bad and not skip_bad:
                    bad, reason = chunk.bad[0]
                    raise InputError(f"{bad.path}: {reason}; mend or remove it, or leave all such out with --skip-bad")
                if chunk.misfit:
                    raise InputError(f"{chunk.misfit}, not {pixels}x{pixels} as the first: give --size a number, not native")
                rejected += [(listing.below(image), reason) for image, reason in chunk.bad]
                if len(chunk.images):
                    writer.append(chunk.images, chunk.labels, chunk.moments)
                bar.update(len(chunk.images) + len(chunk.bad))
            if not writer.labels:
                raise InputError(f"{listing.root} has no readable image in {split}; the first: {rejected[0][0]}: {rejected[0][1]}")
            writer.finish(listing.classes, listing.names, source=origin[split], options=options, decoders=decoders(), rejected=rejected)
            if rejected:
                print(f"{split}: left out {len(rejected)} of {len(images)} images, listed in rejected.csv", file=sys.stderr)
    return out


def _is_there(out: Path, origin: dict[str, Any], options: dict[str, Any]) -> bool:
    """Whether `out` is the pack that would be made. Raises InputError where it is anything else but nothing or an empty folder."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    found = {split: read_manifest(out / split if len(origin) > 1 else out) for split in origin}
    if all(m is not None and (m["source"], m["options"]) == (origin[split], options) for split, m in found.items()):
        print(f"{out} is prepared already, from the same images with the same options", file=sys.stderr)
        return True
    raise InputError(f"{out} exists already, and is not this source's pack with these options: remove it or choose another name")


def _native_size(listing: Listing) -> int:
    for images in listing.splits.values():
        for reference, _ in images:
            image = read(reference)
            if isinstance(image, str):
                continue  # whether bad images are left out is decided where they are met
            if image.width != image.height:
                raise InputError(f"{reference.path} is {image.width}x{image.height}, no square: give --size a number of pixels, not native")
            return image.width
    raise InputError(f"{listing.root} has no readable image: nothing to prepare")


# --- one chunk, in a worker ---------------------------------------------------------------------------------------------------------------


@dataclass
class _Chunk:
    images: np.ndarray  # uint8 (n, S, S, 3)
    labels: list[int]
    moments: Moments
    bad: list[tuple[Reference, str]]  # and the reason
    misfit: str = ""


def _chunks(images: list[tuple[Reference, int]], size: int, native: bool, ordered_map: OrderedMap) -> Iterator[_Chunk]:
    step = max(1, min(256, CHUNK_BYTES // (3 * size * size)))
    pieces = (images[i:i + step] for i in range(0, len(images), step))
    return ordered_map(functools.partial(_prepare_chunk, size=size, native=native), pieces)


def _prepare_chunk(images: list[tuple[Reference, int]], size: int, native: bool) -> _Chunk:
    out, misfit = np.empty((len(images), size, size, 3), np.uint8), ""
    labels: list[int] = []
    bad: list[tuple[Reference, str]] = []
    for reference, label in images:
        image = read(reference, None if native else size)
        if isinstance(image, str):
            bad.append((reference, image))
            continue
        if image.size != (size, size):
            misfit = f"{reference.path} is {image.width}x{image.height}"
            break
        out[len(labels)] = np.asarray(image)
        labels.append(label)
    done = out[:len(labels)]
    return _Chunk(done, labels, Moments.of(done), bad, misfit)


def read(reference: Reference, size: int | None = None) -> Image.Image | str:
    """The image in RGB, fit to `size` where that is given; or in words why it cannot be had."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata, which is not looked at
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with reference.open() as image:
                image.load()
                return to_rgb(image) if size is None else fit(to_rgb(image), size)
        except Exception as error:  # decoders fail in many ways on damaged bytes
            # Pillow names the file in some messages; ours does already.
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return "no image that Pillow can read" if isinstance(error, PIL.UnidentifiedImageError) else " ".join(reason.split())


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as 8-bit RGB, as the head of this module says. Raises ValueError for floating-point images."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):
        return Image.fromarray((np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.composite(image.convert("RGB"), Image.new("RGB", image.size), image.getchannel("A"))
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
