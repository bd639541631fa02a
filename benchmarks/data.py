"""The data's way, timed: preparing packs, and feeding from them, beside what people use.

    python -m benchmarks.data                       # prepare, gather, feed: some minutes
    python -m benchmarks.data tiny --images DIR     # all of Tiny ImageNet

Images are compared before anything is timed. Rows go to results/data.csv.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alexnet.data import pictographs
from alexnet.data.augment import Augment
from alexnet.data.decode import read
from alexnet.data.listing import File
from alexnet.data.loader import Loader, order
from alexnet.data.pack import Pack, open_splits
from alexnet.data.prepare import prepare
from alexnet.errors import InputError
from alexnet.presets import get
from alexnet.processes import cores
from benchmarks import ARCHIVE, ROOT, environment
from kernel_benchmarks import record, report, runner
from kernel_benchmarks.record import Row

COLUMNS = (
    *(*record.ORIGIN, "pillow", "case", "implementation", "images", "size", "workers", "runs"),
    *("images_per_s", "p20", "p80", "against", "ratio", "target", "value", "unit", "note"),
)
FILE = ARCHIVE / "data.csv"
SOURCES = (ROOT / "alexnet" / "data", ROOT / "benchmarks")

Feeds = Mapping[str, Callable[[], int]]
NOTHING: Mapping[str, float] = {}
WARM_UP = 1  # rounds that are not kept
BATCH = 128


# --- images, and rates ---


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
    case: str,
    feeds: Feeds,
    args: argparse.Namespace,
    against: str = "",
    targets: Mapping[str, float] = NOTHING,
    **facts,
) -> list[Row]:
    """Images a second.

    Args:
        feeds: By name, what does its work once and returns how many images that was.
        against: The contestant that the others' ratios refer to.
        targets: The least ratio, or rate, of some.
    """

    def sample(name: str) -> float:
        began = time.perf_counter()
        return feeds[name]() / (time.perf_counter() - began)

    samplers = {name: partial(sample, name) for name in feeds}
    samples = runner.take_turns(samplers, args.runs, warm_up=WARM_UP)
    columns, facts = ("runs", "images_per_s", "p20", "p80"), facts | {"case": case}
    rows = [
        {"implementation": name} | runner.quantiles(each, columns) | facts
        for name, each in samples.items()
    ]
    return runner.times_of(rows, against, targets)


# --- preparing ---


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


# --- feeding ---


def dataloader(folder: Path, crop: int, floats: bool, workers: int):
    """torchvision's ImageFolder and its second transforms in torch's DataLoader, whose workers stay
    from epoch to epoch."""
    from torchvision import datasets
    from torchvision.transforms import v2

    steps: list[Any] = [v2.PILToTensor(), v2.RandomCrop(crop), v2.RandomHorizontalFlip()]
    if floats:
        means, deviations = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(means, deviations)]
    data = datasets.ImageFolder(str(folder), v2.Compose(steps))
    more: Any = {"persistent_workers": True, "prefetch_factor": 4} if workers else {}
    # more workers than processors are tried too
    warnings.filterwarnings("ignore", "This DataLoader will create")
    return torch.utils.data.DataLoader(data, BATCH, shuffle=True, num_workers=workers, **more)


def crops(pack: Pack, augment: Augment, threads: int) -> Iterator[Tensor]:
    """uint8 crops (n, c, c, 3), mirrored by coins, as threads cut them where no device does: each
    gathers a few images at a time, so that they are cut while they are in its cache."""
    size, rng = augment.size, np.random.default_rng(0)

    def cut(out: Tensor, ids: Tensor, corners: Tensor, flips: Tensor) -> None:
        images = torch.from_numpy(pack.gather(ids.numpy()))
        for place, image, (top, left), flip in zip(out, images, corners.tolist(), flips):
            crop = image[top : top + size, left : left + size]
            place.copy_(crop.flip(1) if flip else crop)

    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for ids, _ in order(pack, BATCH, 0, 0):
            out = torch.empty(len(ids), size, size, 3, dtype=torch.uint8)
            corners = torch.from_numpy(rng.integers(0, augment.margin + 1, (len(ids), 2)))
            flips = torch.from_numpy(rng.random(len(ids)) < 0.5)
            list(pool.map(cut, *(t.split(16) for t in (out, ids, corners, flips))))
            yield out


def feeding(folder: Path, args: argparse.Namespace) -> list[Row]:
    """From a raw pack and from a pack of JPEG, against torchvision from the same images as JPEG
    files that need no scaling any more."""
    size, source = args.size, photographs(folder / "photographs", args.count)
    raw = Pack.open(prepare(source, folder / "raw", size=size))
    jpeg = Pack.open(prepare(source, folder / "jpeg", size=size, encoding="jpeg"))
    files = as_files(jpeg, folder / "files")
    ids = np.random.default_rng(0).permutation(len(raw))
    buffer = np.empty((BATCH, size, size, 3), np.uint8)

    def gather(pack: Pack, times: int) -> int:
        for at in (*range(0, len(ids), BATCH),) * times:
            piece = ids[at : at + BATCH]
            pack.gather(piece, buffer[: len(piece)])
        return times * len(ids)

    contestants = {"raw": partial(gather, raw, 4), "jpeg": partial(gather, jpeg, 1)}
    facts = {"images": len(raw), "size": size, "workers": 1}
    rows = rates("gather, one core", contestants, args, targets={"raw": 15000}, **facts)
    return encodings(raw, jpeg) + rows + against_torchvision(raw, jpeg, files, args)


def as_files(jpeg: Pack, folder: Path) -> Path:
    """Write a pack's images as JPEG files, and compare them with the pack."""
    ends = zip(jpeg.labels.tolist(), jpeg._offsets[:-1], jpeg._offsets[1:], strict=True)
    paths: list[Path] = []
    for i, (label, begin, end) in enumerate(ends):
        paths.append(folder / f"class{label}" / f"{i:06d}.jpg")
        paths[i].parent.mkdir(parents=True, exist_ok=True)
        paths[i].write_bytes(bytes(jpeg._shards[0][begin:end]))
    pixels = [np.asarray(read(File(str(path)))) for path in paths[:200]]
    if not np.array_equal(jpeg.gather(np.arange(len(pixels))), pixels):
        raise RuntimeError("the files hold other pixels than the pack")
    return folder


def encodings(raw: Pack, jpeg: Pack) -> list[Row]:
    """What JPEG does to pixels, and bytes an image."""
    some = np.arange(min(200, len(jpeg)))
    before, after = (pack.gather(some).astype(np.float64) for pack in (raw, jpeg))
    psnr = float(np.mean(10 * np.log10(255**2 / ((before - after) ** 2).mean((1, 2, 3)))))
    values = [("jpeg", len(some), psnr, "dB PSNR against raw")]
    for pack in (raw, jpeg):
        each = sum(shard["bytes"] for shard in pack.manifest["shards"]) / len(pack)
        values.append((pack.encoding, len(pack), each, "bytes an image"))
    columns = ("implementation", "images", "value", "unit")
    return [{"case": "encoding", "size": raw.size} | dict(zip(columns, row)) for row in values]


def against_torchvision(raw: Pack, jpeg: Pack, files: Path, args: argparse.Namespace) -> list[Row]:
    """Batches of uint8 and of floats, beside torchvision with the number of workers that is the
    fastest."""
    crop = round(args.size * 7 / 64) * 8
    recipe = get("paper").recipe
    augments = {pack: Augment(recipe, pack.mean, crop, pack.color) for pack in (raw, jpeg)}

    def batches(pack: Pack):
        return Loader(pack, BATCH, 0, threads=cores()).epoch(0)

    def uint8(pack: Pack) -> int:
        return sum(len(images) for images, *_ in batches(pack))

    def cropped(pack: Pack) -> int:
        return sum(map(len, crops(pack, augments[pack], cores())))

    def floats(pack: Pack) -> int:
        train = augments[pack].train
        return sum(len(train(images, ids, at, 0)) for images, _, ids, at in batches(pack))

    def theirs(loader) -> int:
        return sum(len(labels) for _, labels in loader)

    cases: dict[str, tuple[Feeds, dict[str, float]]] = {
        "uint8": (
            {"ours, raw, whole images": partial(uint8, raw)}
            | {f"ours, {p.encoding}, crops": partial(cropped, p) for p in augments},
            {"ours, raw, crops": 10.0},
        ),
        "floats": (
            {f"ours, {p.encoding}": partial(floats, p) for p in augments},
            {"ours, raw": 2.0},
        ),
    }
    rows: list[Row] = []
    for case, (contestants, targets) in cases.items():
        trials: dict[int, float] = {}
        for workers in range(args.most_workers + 1):
            loader = dataloader(files, crop, case == "floats", workers)
            theirs(loader)  # the workers start
            began = time.perf_counter()
            trials[workers] = theirs(loader) / (time.perf_counter() - began)
            del loader
        best = max(trials, key=trials.__getitem__)
        peer, loader = (
            f"torchvision, {best} workers",
            dataloader(files, crop, case == "floats", best),
        )
        everyone: Feeds = {peer: partial(theirs, loader), **contestants}
        facts = {"images": len(raw), "size": crop}
        new = rates(f"feed {case}", everyone, args, peer, targets, **facts)
        trial = ", ".join(f"{workers}: {rate:.0f}/s" for workers, rate in trials.items())
        new[0]["note"] = f"best of {trial}"
        rows += new
        del loader, everyone
    return rows


# --- all of it ---

KINDS = {"prepare": preparing, "feed": feeding, "tiny": tiny}


def table(rows: Sequence[Row]) -> str:
    names = ("case", "implementation", "images", "size", "images_per_s", "ratio", "target")
    return report.page(rows, (*names, "value", "unit"))


def work(args: argparse.Namespace) -> int:
    if "tiny" in args.what and args.images is None:
        raise InputError("name Tiny ImageNet's folder by --images")

    def measured(kind: str) -> list[Row]:
        with tempfile.TemporaryDirectory(dir=args.work) as folder:
            return KINDS[kind](Path(folder), args)

    origin = record.machine("cpu", args.commit, SOURCES) | {"pillow": version("pillow")}
    tasks = [runner.Task(kind, {}, partial(measured, kind), args.out) for kind in args.what]
    rows, failed = runner.run(tasks, COLUMNS, origin, args)
    print(table(rows))
    return int(bool(failed))


def main(argv: Sequence[str] | None = None) -> int:
    form = runner.parser("benchmarks.data", __doc__, FILE)
    add, kinds = form.add_argument, f"{', '.join(KINDS)} (default: prepare feed)"
    default = ["prepare", "feed"]
    add("what", nargs="*", type=runner.one_of(KINDS), default=default, help=kinds)
    add("--images", type=Path, metavar="DIR", help="images for tiny")
    add("--count", type=runner.positive, default=4000, help="photographs")
    add("--size", type=runner.positive, default=256, help="of the packs' images")
    add("--most-workers", type=int, default=2 * cores(), help="of torch's DataLoader, to try")
    add("--runs", type=runner.positive, default=3, help="rounds that are kept")
    add("--work", type=Path, help="folder for the images and packs (default: a temporary one)")
    form.set_defaults(fresh=True)
    return runner.main(form, argv, work, InputError)


if __name__ == "__main__":
    sys.exit(main())
