"""Preparing packs, timed: whole commands, and all of Tiny ImageNet."""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet.data import pictographs
from alexnet.data.loader import Loader
from alexnet.data.pack import Pack, open_splits
from alexnet.data.prepare import prepare
from alexnet.processes import cores
from benchmarks import environment
from kernel_benchmarks import runner
from kernel_benchmarks.record import Row

NOTHING: Mapping[str, float] = {}
WARM_UP = 1  # rounds that are not kept


def photographs(folder: Path, count: int) -> Path:
    """Write JPEG files as ImageNet's are, 500 x 375 in the middle, of patches of the photographs
    that the dependencies ship."""
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(one.pixels) for one in pictographs.photographs().values()]
    for i in range(count):
        picture = pictures[int(rng.integers(len(pictures)))]
        size = (500, 375) if rng.random() < 0.7 else (375, 500)
        zoom = rng.uniform(0.5, 1.0) * min(picture.width / size[0], picture.height / size[1])
        width, height = size[0] * zoom, size[1] * zoom
        left, top = rng.uniform(0, picture.width - width), rng.uniform(0, picture.height - height)
        box = (left, top, left + width, top + height)
        picture.resize(size, Image.Resampling.BICUBIC, box).save(_place(folder, i), quality=92)
    return folder


def _place(folder: Path, number: int) -> Path:
    place = folder / f"class{number % 4:03d}" / f"{number:07d}.jpg"
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def small_photographs(folder: Path, photographs: Path, count: int) -> Path:
    """Write JPEG files of 64 pixels, as Tiny ImageNet's, which are taken as they are."""
    originals = sorted(photographs.rglob("*.jpg"), key=lambda path: path.name)
    for i in range(count):
        if i < 500:
            small = Image.open(originals[i % len(originals)]).resize((64, 64))
            small.save(_place(folder, i), quality=90)
        else:
            _place(folder, i).hardlink_to(_place(folder, i % 500))
    return folder


def program(*command: object) -> str:
    """Run a Python program of its own, as a user does (starting it counts), and return what it
    prints."""
    words = [sys.executable, *map(str, command)]
    return subprocess.check_output(words, env=environment(), text=True)


def rates(
    case: str, contestants: Mapping[str, Callable[[], int]], args: argparse.Namespace,
    against: str = "", wanted: Mapping[str, float] = NOTHING, **facts,
) -> list[Row]:  # fmt: skip
    """Images a second.

    Args:
        contestants: By name, what does its work once and returns how many images that was.
        against: The contestant that the others' ratios refer to.
        wanted: The least ratio, or rate, of some.
    """

    def sample(name: str) -> float:
        began = time.perf_counter()
        return contestants[name]() / (time.perf_counter() - began)

    samplers = {name: partial(sample, name) for name in contestants}
    samples = runner.take_turns(samplers, args.runs, warm_up=WARM_UP)
    rows = [
        {"case": case, "implementation": name, "wanted": wanted.get(name)}
        | (runner.quantiles(each, ("runs", "images_per_s", "p20", "p80")) | facts)
        for name, each in samples.items()
    ]
    runner.times_of(rows, against)
    return rows


def preparing(folder: Path, args: argparse.Namespace) -> list[Row]:
    """Two workers against one process that does nothing but Pillow's work, to the same pixels. Ours
    also sums up the mean and the colors, and digests."""
    large, many = photographs(folder / "photographs", args.count), 12 * args.count
    rows, out, array = list[Row](), folder / "out", folder / "array.npy"
    small = small_photographs(folder / "small", large, many)

    def ours(workers: int, encoding: str, source: Path, size: int, count: int) -> int:
        shutil.rmtree(out, ignore_errors=True)
        options = ("--size", size, "--workers", workers, "--encoding", encoding)
        program("-m", "alexnet", "prepare", source, out, *options)
        return count

    def theirs(source: Path, size: int, count: int) -> int:
        array.unlink(missing_ok=True)
        program("-m", "benchmarks.pillow_loop", source, array, size)
        return count

    for job in ((large, args.size, args.count), (small, 64, many)):
        count = ours(2, "raw", *job) and theirs(*job)
        if not np.array_equal(Pack.open(out).gather(np.arange(count)), np.load(array, "r")):
            raise RuntimeError("the two ways make different pixels")
        contestants = {
            "Pillow, one process": partial(theirs, *job),
            "ours, 2 workers": partial(ours, 2, "raw", *job),
            "ours, 1 worker": partial(ours, 1, "raw", *job),
            "ours, 2 workers, jpeg": partial(ours, 2, "jpeg", *job),
        }
        peer, facts = "Pillow, one process", {"images": count, "size": job[1]}
        rows += rates("prepare", contestants, args, peer, {"ours, 2 workers": 1.7}, **facts)
    return rows


def tiny(folder: Path, args: argparse.Namespace) -> list[Row]:
    """Tiny ImageNet, whole: prepared, verified, loaded."""
    rows: list[Row] = []
    for encoding in ("raw", "jpeg"):
        times, out = [time.perf_counter()], folder / encoding
        prepare(args.images, out, size="native", encoding=encoding, skip_bad=True)
        packs = open_splits(out)
        times.append(time.perf_counter())
        for pack in packs.values():
            pack.verify()
        times.append(time.perf_counter())
        loaders = [Loader(pack, 128, 0, threads=cores()) for pack in packs.values()]
        count = sum(len(labels) for loader in loaders for _, labels, _, _ in loader.epoch(0))
        times.append(time.perf_counter())
        if count != (images := sum(map(len, packs.values()))):
            raise RuntimeError(f"{count} images came, of {images}")
        strays = sum(pack.manifest["rejected"] for pack in packs.values())
        digests = ", ".join(f"{split} {pack.digest[:16]}" for split, pack in packs.items())
        note = f"{strays} rejected; {digests}"
        for step, seconds in zip(("prepare", "verify", "load"), np.diff(times).tolist()):
            what = {"case": f"Tiny ImageNet, {step}", "implementation": encoding, "note": note}
            facts = {"images": images, "size": pack.size, "images_per_s": images / seconds}
            rows.append(what | facts | {"value": seconds, "unit": "s"})
            note = ""
    return rows
