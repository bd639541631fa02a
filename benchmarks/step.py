"""A training step, timed: the paper's net beside the same net in torch's own layers, and beside
torchvision's AlexNet, which is lighter and has no response normalization.

    python -m benchmarks.step           # forward, loss, backward, update
    python -m benchmarks.step parts     # what it is made of, each part beside its floor
    python -m benchmarks.step kernels   # which kernels a step's time goes to
    python -m benchmarks.step convolutions   # the two columns' convolutions in other forms
    python -m benchmarks.step pack      # end to end: from a pack in the host's memory to the update

README.md says how. Rows go to results/step.csv.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from itertools import chain, count, islice, product, repeat, tee
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from alexnet import rng
from alexnet.data.loader import Batch, Images, Loader, order
from alexnet.data.pack import Pack
from alexnet.data.pack_writer import PackWriter
from alexnet.errors import InputError
from alexnet.training.precision import using_precision
from alexnet.training.steps import EagerStep, GraphStep, StepInput
from benchmarks import ARCHIVE, SOURCES
from benchmarks.contestants import (
    CONTESTANTS,
    GPU,
    PEER,
    TINY,
    Case,
    Step,
    cases,
    compare,
    names,
    on_cpu,
    on_gpu,
    using_threads,
)
from benchmarks.convolutions import convolutions
from benchmarks.kernel_times import kernel_times
from benchmarks.parts import parts, product_rate
from kernel_benchmarks import record, report, runner
from kernel_benchmarks.record import Row

COLUMNS = (
    *(*record.ORIGIN, "torchvision", "case", "preset", "width", "image_size", "batch"),
    *("precision", "implementation", *record.QUANTILES, "images_per_s", "peak_mb", "against"),
    *("ratio", "target", "floor_ms", "note", "peak_gflops"),
)
FILE = ARCHIVE / "step.csv"

# how many times as fast as the peer the paper's net is to be
TARGETS = {"cpu": {"ours": 1.5, "ours, no compiler": 1.0}, "cuda": {"ours, graph": 3.0}}


# --- a step ---


def steps(case: Case, args: argparse.Namespace) -> list[Row]:
    """Every contestant's step, its peak memory, and the least that its multiplications take at the
    rate of a large matrix product, measured in the same run."""
    rows: list[Row] = []
    ready: dict[str, Step] = {}
    facts: dict[str, Row] = {}
    begin = on_cpu if args.device == "cpu" else on_gpu
    with using_precision(case.precision, torch.device(args.device)), ExitStack() as stack:
        compare(case, args.device)
        taking_part = names(case, args.device, args.implementations)
        own = {name: CONTESTANTS[name].own(case) for name in taking_part}
        rates = {each: product_rate(each, args.device) for each in {*own.values()}}
        for name, each in own.items():
            facts[name] = {"implementation": name, "precision": each.precision}
            try:
                ready[name], facts[name]["peak_mb"] = begin(case, name, stack)
            except Exception as error:  # what cannot run is a finding
                rows.append(facts[name] | {"note": f"skipped: {runner.first_line(error)}"})
                continue
            facts[name]["peak_gflops"] = rates[each] / 1e6
            facts[name]["floor_ms"] = case.work(name) / rates[each]
        times = [
            row | facts[row["implementation"]] for row in runner.timed(ready, args, case.repeat)
        ]
    is_main = case.preset == "paper" and (case.everyone or case in GPU[:2])
    return rows + with_rates(times, case, PEER, TARGETS[args.device] if is_main else {})


def with_rates(rows: list[Row], case: Case, peer: str, targets: Mapping[str, float]) -> list[Row]:
    """Fill in images a second, and the ratios to a peer, with their targets."""
    for row in rows:
        row["images_per_s"] = 1e3 * case.batch / row["median_ms"]
    return runner.times_of(rows, peer, targets)


# --- end to end ---


def pack(case: Case, args: argparse.Namespace) -> list[Row]:
    """The trainer's steps with all that feeds them: bytes of a pack, in the host's memory, are
    gathered by threads and sent ahead of their use, or put on a GPU once and gathered there; then
    cropped, mirrored and shifted in color where the net is. Beside them steps, as whole as these,
    on one batch of bytes that stays. A turn begins with nothing made ready."""
    device, one = torch.device(args.device), "one batch"
    is_gpu = device.type == "cuda"
    per_turn = 25600 // case.batch if is_gpu else 2 * case.repeat
    with tempfile.TemporaryDirectory() as folder, using_precision(case.precision, device):
        images = min(4096, 64 * case.batch)
        source = random_pack(Path(folder) / "pack", case.stored_size, images, case.sizes[0])
        step = fed_step(case, args.device)
        fed = {"streamed": Images(source, device, resident=False)}
        if is_gpu:
            fed["resident"] = Images(source, device, resident=True)
        fixed = next(iter(Loader(source, case.batch, 0, device, resident=False).epoch(0)))

        def turn(name: str) -> None:
            batches = endless(source, fed[name], case.batch) if name in fed else repeat(fixed)
            for batch in islice(batches, per_turn):
                step(*batch)

        turns = {name: partial(turn, name) for name in (one, *fed)}
        rows = runner.timed(turns, args, per_turn)
    return with_rates(rows, case, one, dict.fromkeys(fed, 0.95) if is_gpu else {})


def fed_step(case: Case, device: str) -> Callable[..., object]:
    """A step as the trainer does it, from a batch of a loader."""
    torch.manual_seed(0)
    learner, augment = case.learner(device), case.augment()
    rates = [1e-4] * len(learner.parameters)
    step = EagerStep(learner, augment, case.batch)
    if device == "cuda":
        step = GraphStep(learner, augment, case.batch)

    def fed(images: Tensor, labels: Tensor, ids: Tensor, positions: Tensor) -> None:
        keys, draw = rng.key(rng.DROPOUT, 0, 0, ids), augment.draw(ids, positions, 0)
        step.step(StepInput(images, draw, labels, keys, rates, case.batch))

    return fed


def endless(source: Pack, images: Images, batch_size: int) -> Iterator[Batch]:
    """Epochs without a seam: those of a real pack have thousands of steps."""
    epochs = (order(source, batch_size, 0, epoch) for epoch in count())
    plan, ahead = tee(chain.from_iterable(epochs))
    coming = images.batches(ids for ids, _ in ahead)
    for batch, (ids, positions) in zip(coming, plan, strict=False):
        yield batch, images.labels(ids), ids, positions


def random_pack(folder: Path, size: int, images: int, classes: int) -> Pack:
    """Noise: what is in the images does not change how long they take."""
    folder.mkdir()
    writer, generator = PackWriter(folder, size), np.random.default_rng(0)
    for begin in range(0, images, 256):
        n = min(256, images - begin)
        noise = generator.integers(256, size=(n, size, size, 3), dtype=np.uint8)
        writer.append(noise, generator.integers(classes, size=n).tolist())
    names = [str(number) for number in range(classes)]
    writer.finish(names, names)
    return Pack.open(folder)


# --- shown ---


ONE = (*TINY.key(), "threads", "implementation")  # the columns that tell what was measured


def latest(kind: str, cuda: bool, path: Path = FILE) -> list[Row]:
    """The last row of each contestant in each case, "steps", "parts" or "pack", of the device that
    was measured last; none where nothing was."""
    rows = record.read(path, COLUMNS)
    own = [r for r in rows if kind == (r["case"] if r["case"] in KINDS else "steps")]
    return report.latest(record.of_last_device(own, cuda), ONE)


def plot(rows: Sequence[Row]) -> Figure:
    """What a step is made of: a pair of bars for each part, its time and, over it, the least that
    its multiplications or bytes take."""
    size = (6.4, 0.8 + 0.26 * len(rows))
    figure, axes = plt.subplots(figsize=size, dpi=100, layout="constrained")
    places, times = range(len(rows)), [row["median_ms"] for row in rows]
    floors = [row["floor_ms"] for row in rows]
    axes.barh(places, times, color="#8fb3d9", label="time")
    axes.barh(places, floors, height=0.35, color="#1f5a96", label="floor")
    axes.set_yticks(places, [str(row["implementation"]) for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("ms, forward and backward")
    axes.set_title(f"{rows[0]['device']}, commit {rows[0]['commit']}", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure


def table(rows: Sequence[Row]) -> str:
    shown, same = [], len({row["threads"] for row in rows}) == 1
    for row in rows:
        net = f"{row['preset']}, {row['image_size']:.0f} px, batch {row['batch']:.0f}"
        threads = "" if row["cuda"] or same else f", threads: {row['threads']:.0f}"
        shown.append(row | {"case": f"{row['case']}, {net}, {row['precision']}{threads}"})
    columns = ("case", "implementation", "median_ms", "images_per_s", "ratio", "target")
    heading = f"times: how many times as fast as {PEER} in the same case; "
    heading += "from a pack, as one batch that stays"
    text = report.page(shown, (*columns, "floor_ms", "peak_mb"), heading)
    others = [row for row in rows if row["commit"] != rows[0]["commit"]]
    notes = dict.fromkeys(f"{row['case']}: commit {row['commit']}" for row in others)
    return "\n".join([text, *notes, *bfloat16(rows)])


def bfloat16(rows: Sequence[Row]) -> Iterator[str]:
    """What bfloat16 brings to our step in each case of a CPU."""
    peers = {"ours": "as fast as in fp32", "torchvision, bf16": "as fast as torchvision's in bf16"}
    alike = ("case", "preset", "image_size", "batch", "threads")
    for own in rows:
        if own["implementation"] != "ours, bf16" or not own["median_ms"]:
            continue
        same = [row for row in rows if all(row[name] == own[name] for name in alike)]
        times = {row["implementation"]: row["median_ms"] for row in same if row["median_ms"]}
        ratios = {times[name] / own["median_ms"]: peers[name] for name in peers if name in times}
        found = [f"{ratio:.3g} times {what}" for ratio, what in ratios.items()]
        found.append(f"at {own['floor_ms'] / own['median_ms']:.0%} of the bound")
        net = f"{own['case']}, {own['preset']}, batch {own['batch']:.0f}"
        yield f"{net}, threads {own['threads']:.0f}: ours, bf16, is {', '.join(found)}"


# --- all of it ---

KINDS = {"steps": steps, "parts": parts, "pack": pack}
KINDS |= {"kernels": kernel_times, "convolutions": convolutions}


def measured(kind: str, case: Case, args: argparse.Namespace) -> list[Row]:
    with using_threads(case.threads):
        return KINDS[kind](case, args)


def work(args: argparse.Namespace) -> int:
    origin = record.machine(args.device, args.commit, SOURCES)
    origin["torchvision"] = version("torchvision")
    tasks = []
    every = {
        kind: [TINY] if args.tiny else cases(args.device, kind, args.threads) for kind in args.what
    }
    for case, kind in product(dict.fromkeys(chain(*every.values())), every):
        if case not in every[kind] or args.only not in f"{case},":
            continue
        needed: list[Row] = [{}]
        if kind == "steps":
            own = [(n, CONTESTANTS[n]) for n in names(case, args.device, args.implementations)]
            needed = [{"implementation": n, "precision": c.own(case).precision} for n, c in own]
        measure, title = partial(measured, kind, case, args), f"{kind} of {case}"
        tasks.append(runner.Task(title, case.key(kind), measure, args.out, needed))
    rows, failed = runner.run(tasks, COLUMNS, origin, args)
    print(f"{table(report.latest(rows, ONE))}\n\nrows: {args.out}")
    return int(bool(failed))


def main(argv: Sequence[str] | None = None) -> int:
    form = runner.parser("benchmarks.step", __doc__, FILE)
    add, kinds = form.add_argument, f"{', '.join(KINDS)} (default: steps)"
    add("what", nargs="*", type=runner.one_of(KINDS), default=["steps"], help=kinds)
    known, what = runner.one_of(CONTESTANTS), f"only these, and {PEER}"
    add("--implementations", nargs="+", type=known, default=(), metavar="NAME", help=what)
    add(
        "--only",
        default="",
        metavar="TEXT",
        help='only cases with this in their name, "batch 128, bf16,"',
    )
    runner.add_limits(form, runs=20, time=90.0)
    return runner.main(form, argv, work, InputError)


if __name__ == "__main__":
    sys.exit(main())
