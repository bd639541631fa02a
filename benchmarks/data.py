"""The data's way, timed: preparing packs, and feeding from them, beside what people use.

    python -m benchmarks.data                       # prepare, gather, feed, on photographs that the dependencies ship: some minutes
    python -m benchmarks.data tiny --images DIR     # all of Tiny ImageNet, in DIR: prepared, verified, loaded
    python -m benchmarks.data memory --images DIR   # peak memory at 10,000 and at 1,000,000 images, links to those in DIR; 13 GB of disk
    python -m benchmarks.data gpu                   # augmentation, streaming, and both under training; on a CPU it only shows that it runs

Rows go to benchmarks/results/data.csv. Contestants take turns, round by round, in a new order each; medians and 20 % and 80 % quantiles are
kept. Their images are compared before anything is timed.
"""

import argparse
import functools
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from alexnet.cli import Parser
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
from benchmarks import record, script
from benchmarks.record import Row

COLUMNS = (
    *("time", "commit", "dirty", "source", *record.MACHINE, "busy_percent", "pillow"),
    *("case", "implementation", "images", "size", "workers", "runs", "images_per_s", "p20", "p80"),
    *("against", "ratio", "wanted", "value", "unit", "note"),
)
FILE = record.ARCHIVE / "data.csv"
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(record.HERE.parent), *filter(None, sys.path)])
}
SOURCES = (
    record.HERE.parent / "alexnet" / "data",
    record.HERE / "data.py",
    record.HERE / "pillow_loop.py",
)


# --- images ---


def photographs(folder: Path, count: int, classes: int = 4) -> Path:
    """`count` JPEG files as ImageNet's are, 500 x 375 in the middle, of patches of the photographs that the dependencies ship."""
    rng = np.random.default_rng(0)
    pictures = [
        Image.fromarray(photograph.pixels) for photograph in pictographs.photographs().values()
    ]
    for i in range(count):
        picture = pictures[int(rng.integers(len(pictures)))]
        size = (500, 375) if rng.random() < 0.7 else (375, 500)
        zoom = rng.uniform(0.5, 1.0) * min(picture.width / size[0], picture.height / size[1])
        width, height = size[0] * zoom, size[1] * zoom
        left, top = rng.uniform(0, picture.width - width), rng.uniform(0, picture.height - height)
        place = folder / f"class{i % classes}" / f"{i:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.resize(
            size, Image.Resampling.BICUBIC, (left, top, left + width, top + height)
        ).save(place, quality=92)
    return folder


def alone(*command: object) -> None:
    """A Python program of its own, as a user runs it: starting it counts."""
    subprocess.run(
        [sys.executable, *map(str, command)], env=ENVIRONMENT, check=True, capture_output=True
    )


# --- the clock ---


Contestant = Callable[[], int]  # does its work once and returns how many images it was


def turns(contestants: dict[str, Contestant], rounds: int, title: str) -> dict[str, list[float]]:
    """Images a second of each, in `rounds` rounds after one that is not kept."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in tqdm(range(rounds + 1), desc=title, unit="round", leave=False, disable=None):
        for name in random.sample(list(contestants), len(contestants)):
            began = time.perf_counter()
            count = contestants[name]()
            if number:
                found[name].append(count / (time.perf_counter() - began))
    return found


def rows_of(
    case: str,
    found: dict[str, list[float]],
    origin: Row,
    against: str = "",
    wanted: dict[str, float] | None = None,
    **facts,
) -> list[Row]:
    """A row each. against: the contestant that the others' ratios refer to; wanted: the least ratio, or rate, asked of some."""
    middle = {name: float(np.median(rates)) for name, rates in found.items()}
    rows = []
    for name, rates in found.items():
        low, high = (float(q) for q in np.percentile(rates, [20, 80]))
        row = (
            dict.fromkeys(COLUMNS)
            | origin
            | {
                "case": case,
                "implementation": name,
                "runs": len(rates),
                "images_per_s": middle[name],
            }
        )
        row |= {"p20": low, "p80": high, "wanted": (wanted or {}).get(name)} | facts
        if against and name != against:
            row |= {"against": against, "ratio": middle[name] / middle[against]}
        rows.append(row)
    return rows


def value(case: str, implementation: str, origin: Row, number: float, unit: str, **facts) -> Row:
    return (
        dict.fromkeys(COLUMNS)
        | origin
        | {"case": case, "implementation": implementation, "value": number, "unit": unit}
        | facts
    )


# --- preparing ---


def preparing(folder: Path, args: argparse.Namespace, origin: Row) -> list[Row]:
    """Two workers against one process that does nothing but Pillow's work, to the same pixels. Ours also sums up the mean and the colors,
    and digests."""
    rows, many = [], 12 * args.count
    small = folder / "small"
    for i in range(many):  # 64 pixels, as Tiny ImageNet's, taken as they are
        place = small / f"class{i % 4}" / f"{i:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        if i < 500:
            picture = Image.open(
                folder / "photographs" / f"class{i % args.count % 4}" / f"{i % args.count:06d}.jpg"
            )
            picture.resize((64, 64), Image.Resampling.BICUBIC).save(place, quality=90)
        else:
            place.hardlink_to(small / f"class{i % 500 % 4}" / f"{i % 500:06d}.jpg")
    for source, size, count in ((folder / "photographs", args.size, args.count), (small, 64, many)):
        out, array = folder / "out", folder / "array.npy"

        def ours(
            workers: int,
            encoding: str = "raw",
            source: Path = source,
            out: Path = out,
            size: int = size,
            count: int = count,
        ) -> int:
            shutil.rmtree(out, ignore_errors=True)
            alone(
                "-m",
                "alexnet",
                "prepare",
                source,
                out,
                "--size",
                size,
                "--workers",
                workers,
                "--encoding",
                encoding,
            )
            return count

        def theirs(
            source: Path = source, array: Path = array, size: int = size, count: int = count
        ) -> int:
            array.unlink(missing_ok=True)
            alone("-m", "benchmarks.pillow_loop", source, array, size)
            return count

        ours(2)
        theirs()
        if not np.array_equal(
            Pack.open(out).gather(np.arange(count)), np.load(array, mmap_mode="r")
        ):
            raise RuntimeError("the two ways make different pixels")
        contestants: dict[str, Contestant] = {"Pillow, one process": theirs}
        contestants |= {
            "ours, 2 workers": functools.partial(ours, 2),
            "ours, 1 worker": functools.partial(ours, 1),
        }
        contestants["ours, 2 workers, jpeg"] = functools.partial(ours, 2, "jpeg")
        found = turns(contestants, args.rounds, f"preparing at {size}")
        wanted = {"ours, 2 workers": 1.7}
        rows += rows_of(
            "prepare", found, origin, "Pillow, one process", wanted, images=count, size=size
        )
        shutil.rmtree(out)
        array.unlink()
    return rows


# --- feeding ---


def torchvisions(folder: Path, crop: int, floats: bool, batch_size: int, workers: int):
    """An epoch of torchvision's ImageFolder, its second transforms, and torch's DataLoader, whose workers stay from epoch to epoch."""
    from torchvision import datasets
    from torchvision.transforms import v2

    steps: list[Any] = [v2.PILToTensor(), v2.RandomCrop(crop), v2.RandomHorizontalFlip()]
    if floats:
        steps += [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    data = datasets.ImageFolder(str(folder), v2.Compose(steps))
    more: Any = {"persistent_workers": True, "prefetch_factor": 4} if workers else {}
    warnings.filterwarnings(
        "ignore", "This DataLoader will create"
    )  # more workers than processors are tried too
    return torch.utils.data.DataLoader(data, batch_size, shuffle=True, num_workers=workers, **more)


def whole(loader) -> int:
    return sum(len(labels) for _, labels in loader)


def crops(
    pack: Pack, augment: Augment, batch_size: int, threads: int, few: int = 16
) -> Iterator[torch.Tensor]:
    """uint8 crops (n, c, c, 3), mirrored by coins, as threads cut them where no device does: each gathers a few images at a time, so that
    they are cut while they are in its cache."""
    size, rng = augment.size, np.random.default_rng(0)
    whole = [torch.empty(few, pack.size, pack.size, 3, dtype=torch.uint8) for _ in range(threads)]
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for chosen, _ in order(pack, batch_size, 0, 0):
            ids = chosen.numpy()
            out = torch.empty(len(ids), size, size, 3, dtype=torch.uint8)
            places = rng.integers(0, augment.margin + 1, (len(ids), 2)).tolist()
            flips = (rng.random(len(ids)) < 0.5).tolist()

            def cut(part: int, ids=ids, out=out, places=places, flips=flips) -> None:
                begin, end = (len(ids) * i // threads for i in (part, part + 1))
                for at in range(begin, end, few):
                    count = min(few, end - at)
                    pack.gather(ids[at : at + count], whole[part].numpy()[:count])
                    for i, image in enumerate(whole[part][:count], at):
                        top, left = places[i]
                        crop = image[top : top + size, left : left + size]
                        out[i] = crop.flip(1) if flips[i] else crop

            list(pool.map(cut, range(threads)))
            yield out


def feeding(folder: Path, args: argparse.Namespace, origin: Row) -> list[Row]:
    """From a raw pack and from a pack of JPEG, against torchvision from the same images as JPEG files that need no scaling any more."""
    size, crop, n = args.size, round(args.size * 7 / 64) * 8, 128
    source = folder / "photographs"
    raw = Pack.open(prepare(source, folder / "raw", size=size))
    jpeg = Pack.open(prepare(source, folder / "jpeg", size=size, encoding="jpeg"))
    files = folder / "files"
    for i, (label, begin, end) in enumerate(
        zip(jpeg.labels.tolist(), jpeg._offsets[:-1], jpeg._offsets[1:], strict=True)
    ):
        place = files / f"class{label}" / f"{i:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(bytes(jpeg._shards[0][begin:end]))
    some = np.arange(min(200, len(jpeg)))
    if not np.array_equal(
        jpeg.gather(some),
        [np.asarray(read(File(str(path)))) for path in sorted(files.glob("*/*"))[: len(some)]],
    ):
        raise RuntimeError("the files hold other pixels than the pack")
    before, after = (pack.gather(some).astype(np.float64) for pack in (raw, jpeg))
    psnr = float(np.mean(10 * np.log10(255**2 / ((before - after) ** 2).mean((1, 2, 3)))))
    rows = [
        value("encoding", "jpeg", origin, psnr, "dB PSNR against raw", size=size, images=len(some))
    ]
    for pack in (raw, jpeg):
        each = sum(shard["bytes"] for shard in pack.manifest["shards"]) / len(pack)
        rows.append(
            value(
                "encoding",
                pack.encoding,
                origin,
                each,
                "bytes an image",
                size=size,
                images=len(pack),
            )
        )

    ids = np.random.default_rng(0).permutation(len(raw))
    pieces, buffer = (
        [ids[i : i + n] for i in range(0, len(ids), n)],
        np.empty((n, size, size, 3), np.uint8),
    )

    def gather(pack: Pack) -> int:
        for piece in pieces:
            pack.gather(piece, buffer[: len(piece)])
        return len(ids)

    found = turns(
        {"raw": lambda: sum(gather(raw) for _ in range(4)), "jpeg": lambda: gather(jpeg)},
        args.rounds,
        "gathering",
    )
    rows += rows_of(
        "gather, one core",
        found,
        origin,
        wanted={"raw": 15000},
        images=len(raw),
        size=size,
        workers=1,
    )

    preset = get("paper").recipe
    augments = {pack.encoding: Augment(preset, pack.mean, crop, pack.color) for pack in (raw, jpeg)}

    def uint8(pack: Pack) -> int:
        return sum(len(images) for images, *_ in Loader(pack, n, 0, threads=cores()).epoch(0))

    def cropped(pack: Pack) -> int:
        return sum(map(len, crops(pack, augments[pack.encoding], n, cores())))

    def floats(pack: Pack) -> int:
        augment = augments[pack.encoding]
        return sum(
            len(augment.train(images, ids, at, 0))
            for images, _, ids, at in Loader(pack, n, 0, threads=cores()).epoch(0)
        )

    for case, want_floats, contestants, wanted in (
        ("uint8", False, {"ours, raw, whole images": lambda: uint8(raw), "ours, raw, crops": lambda: cropped(raw),
                          "ours, jpeg, crops": lambda: cropped(jpeg)}, {"ours, raw, crops": 10.0}),
        ("floats", True, {"ours, raw": lambda: floats(raw), "ours, jpeg": lambda: floats(jpeg)}, {"ours, raw": 2.0}),
    ):  # fmt: skip
        rates = {}
        for workers in range(args.most_workers + 1):
            loader = torchvisions(files, crop, want_floats, n, workers)
            whole(loader)  # the workers start
            began = time.perf_counter()
            rates[workers] = whole(loader) / (time.perf_counter() - began)
            del loader
        best = max(rates, key=rates.__getitem__)
        loader = torchvisions(files, crop, want_floats, n, best)
        peer = f"torchvision, {best} workers"
        found = turns(
            {peer: functools.partial(whole, loader), **contestants}, args.rounds, f"feeding {case}"
        )
        note = "best of " + ", ".join(f"{workers}: {rate:.0f}/s" for workers, rate in rates.items())
        rows += rows_of(f"feed {case}", found, origin, peer, wanted, images=len(raw), size=crop)
        rows[-len(found)]["note"] = note
        del loader
    return rows


# --- Tiny ImageNet, whole ---


def tiny(folder: Path, args: argparse.Namespace, origin: Row) -> list[Row]:
    if args.images is None:
        raise InputError("name Tiny ImageNet's folder by --images")
    rows, steps = [], {}
    for encoding in ("raw", "jpeg"):
        out = folder / encoding
        began = time.perf_counter()
        prepare(args.images, out, size="native", encoding=encoding, skip_bad=True)
        steps["prepare"] = time.perf_counter() - began
        began = time.perf_counter()
        packs = open_splits(out)
        for pack in packs.values():
            pack.verify()
        steps["verify"] = time.perf_counter() - began
        began = time.perf_counter()
        count = sum(
            len(labels)
            for pack in packs.values()
            for _, labels, _, _ in Loader(pack, 128, 0, threads=cores()).epoch(0)
        )
        steps["load"] = time.perf_counter() - began
        images = sum(map(len, packs.values()))
        if count != images:
            raise RuntimeError(f"{count} images came, of {images}")
        strays = sum(pack.manifest["rejected"] for pack in packs.values())
        for step, seconds in steps.items():
            facts = {"images": images, "size": pack.size, "images_per_s": images / seconds}
            rows.append(value(f"Tiny ImageNet, {step}", encoding, origin, seconds, "s", **facts))
        digests = ", ".join(f"{split} {pack.digest[:16]}" for split, pack in packs.items())
        rows[-3]["note"] = f"{strays} rejected; {digests}"
    return rows


# --- memory ---


def memory(folder: Path, args: argparse.Namespace, origin: Row) -> list[Row]:
    """Peak memory of preparing, in processes of their own, and how long a pack of a million takes to open."""
    if args.images is None:
        raise InputError(
            "name a folder of images of 64 x 64 pixels by --images; they are linked to"
        )
    sources = sorted(
        path for path in args.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    )[:2000]
    rows, peaks = [], {}
    for count in args.counts:
        tree = folder / f"tree {count}"
        for i in tqdm(
            range(count), desc=f"linking {count:,}", unit=" images", leave=False, disable=None
        ):
            place = tree / f"class{i % 200:03d}"
            if i < 200:
                place.mkdir(parents=True)
            os.link(sources[i % len(sources)], place / f"{i:07d}.jpg")
        code = (
            "import os, re, sys, threading, time; from pathlib import Path; from alexnet.data.prepare import prepare\n"
            "def peak(who):\n"  # of this program alone: ru_maxrss would begin with that of the one that started it
            "    return int(re.search(r'VmHWM:\\s+(\\d+)', Path(f'/proc/{who}/status').read_text())[1]) / 1024\n"
            "def watch():\n"
            "    while True:\n"
            "        time.sleep(0.1)\n"
            "        for child in Path(f'/proc/self/task/{os.getpid()}/children').read_text().split():\n"
            "            try: largest[0] = max(largest[0], peak(child))\n"
            "            except (OSError, TypeError): pass\n"  # it is gone
            "if __name__ == '__main__':\n"
            "    largest = [0.0]; threading.Thread(target=watch, daemon=True).start()\n"
            "    began = time.perf_counter(); prepare(sys.argv[1], sys.argv[2], size=64, workers=2)\n"
            "    print('measured', time.perf_counter() - began, peak('self'), largest[0])\n"
        )
        script, out = folder / "script.py", folder / f"pack {count}"
        script.write_text(code)
        done = subprocess.run(
            [sys.executable, script, tree, out],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        seconds, parent, child = map(float, done.stdout.split()[1:])
        facts = {"images": count, "size": 64, "workers": 2}
        peaks[count] = parent
        rows.append(
            value(
                "memory",
                "preparing, parent",
                origin,
                parent,
                "MB at most",
                images_per_s=count / seconds,
                **facts,
            )
        )
        rows.append(
            value("memory", "preparing, largest worker", origin, child, "MB at most", **facts)
        )
        code = (
            "import sys, time; from alexnet.data.pack import Pack\n"
            "began = time.perf_counter(); pack = Pack.open(sys.argv[1]); pack.gather([len(pack) - 1])\n"
            "print(time.perf_counter() - began)\n"
        )
        command = [sys.executable, "-c", code, str(out)]
        opened = [
            subprocess.run(
                command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True
            ).stdout
            for _ in range(5)
        ]
        took = float(np.median([float(text.split()[0]) for text in opened]))
        rows.append(
            value(
                "memory",
                "opening a pack, first image",
                origin,
                took,
                "s",
                wanted=2.0,
                runs=5,
                **facts,
            )
        )
        shutil.rmtree(tree)
        shutil.rmtree(out)
    growth = peaks[max(peaks)] - peaks[min(peaks)]
    rows.append(
        value("memory", "preparing, parent", origin, growth, "MB between fewest and most images")
    )
    return rows


# --- on a GPU ---


def gpu(folder: Path, args: argparse.Namespace, origin: Row) -> list[Row]:
    """Images a second of augmentation alone, of streaming, and of both; training on what comes so is `python -m benchmarks.step pack`.
    Without a GPU this only shows that it runs: nothing of it is worth keeping."""
    device, n = args.device, args.batch_size
    pack = Pack.open(
        prepare(photographs(folder / "photographs", args.count), folder / "raw", size=args.size)
    )
    augment = Augment(get("paper").recipe, pack.mean, round(args.size * 7 / 64) * 8, pack.color)
    loaders = {
        name: Loader(pack, n, 0, device, resident=name == "resident")
        for name in ("resident", "streamed")
    }
    fixed = next(iter(loaders["resident"].epoch(0)))

    def done(count: int) -> int:
        if device != "cpu":
            torch.cuda.synchronize()
        return count

    def augmented(name: str) -> int:
        return done(
            sum(
                len(augment.train(images, ids, at, 0))
                for images, _, ids, at in loaders[name].epoch(0)
            )
        )

    contestants: dict[str, Contestant] = {
        "augmentation alone": lambda: done(
            sum(len(augment.train(fixed[0], *fixed[2:], 0)) for _ in range(len(pack) // n))
        ),
        "streaming alone": lambda: done(
            sum(len(batch[0]) for batch in loaders["streamed"].epoch(0))
        ),
        "streaming and augmentation": lambda: augmented("streamed"),
        "resident and augmentation": lambda: augmented("resident"),
    }
    return rows_of("gpu" if device != "cpu" else "gpu, on a CPU", turns(contestants, args.rounds, "on the device"), origin,
                   "augmentation alone", images=len(pack), size=augment.size)  # fmt: skip


# --- all of it ---


def table(rows: Sequence[Row]) -> str:
    lines = [
        [
            "case ",
            "implementation ",
            "images",
            "size",
            "images/s",
            "times",
            "wanted",
            "value",
            "unit ",
        ]
    ]
    for row in rows:
        number = f"{row['value']:,.4g}" if row["value"] is not None else ""
        rate = f"{row['images_per_s']:,.0f}" if row["images_per_s"] else ""
        ratio, wanted = (f"{row[name]:,.3g}" if row[name] else "" for name in ("ratio", "wanted"))
        texts = [str(row[name] or "") for name in ("case", "implementation", "images", "size")]
        lines.append([*texts, rate, ratio, wanted, number, str(row["unit"] or "")])
    notes = [
        f"{row['case']}, {row['implementation']}: {row['note']}" for row in rows if row["note"]
    ]
    return "\n".join([record.where(rows[0]), "", record.table(lines), *notes])


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.data", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "what",
        nargs="*",
        default=[],
        help="prepare, feed, tiny, memory, gpu (default: prepare feed)",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="images for tiny and memory")
    parser.add_argument(
        "--count", type=script.positive, default=4000, help="photographs (default: %(default)s)"
    )
    parser.add_argument(
        "--counts",
        type=script.positive,
        nargs="+",
        default=[10_000, 1_000_000],
        help="images for memory",
    )
    parser.add_argument(
        "--size",
        type=script.positive,
        default=256,
        help="of the packs' images (default: %(default)s)",
    )
    parser.add_argument(
        "--most-workers",
        type=int,
        default=2 * cores(),
        help="of torch's DataLoader, to try (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds", type=script.positive, default=3, help="that are kept (default: %(default)s)"
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="for gpu (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size", type=script.positive, default=128, help="for gpu (default: %(default)s)"
    )
    parser.add_argument(
        "--work",
        type=Path,
        help="folder for the images and packs (default: the system's for temporary files)",
    )
    parser.add_argument("--out", type=Path, default=FILE, help="CSV (default: %(default)s)")
    args = parser.parse_args(arguments)
    kinds = {"prepare": preparing, "feed": feeding, "tiny": tiny, "memory": memory, "gpu": gpu}
    chosen = args.what or ["prepare", "feed"]
    if unknown := set(chosen) - set(kinds):
        parser.error(f"there is no {', '.join(sorted(unknown))}")

    def work() -> int:
        record.check(args.out, COLUMNS)
        origin = record.machine(
            "cuda" if args.device == "cuda" and "gpu" in chosen else "cpu", sources=SOURCES
        )
        origin |= {
            "pillow": importlib.import_module("PIL").__version__,
            "time": record.now(),
        }  # one for all that is measured now
        rows: list[Row] = []
        for name in chosen:
            with tempfile.TemporaryDirectory(dir=args.work) as place:
                folder = Path(place)
                if name in ("prepare", "feed"):
                    photographs(folder / "photographs", args.count)
                new = kinds[name](folder, args, origin)
            record.append(args.out, new, COLUMNS)
            rows += new
        print(table(rows))
        return 0

    return script.guarded(work)


if __name__ == "__main__":
    raise SystemExit(main())
