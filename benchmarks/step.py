"""A training step, timed: the paper's net beside the same net written with torch's own layers, and beside torchvision's AlexNet, which is
lighter and has no response normalization.

    python -m benchmarks.step                     # on a CPU: the default profile's net and the full one; on a GPU: batches of 128 and 1024
    python -m benchmarks.step parts               # what it is made of: convolutions, what follows them, update, augmentation
    python -m benchmarks.step pack                # end to end: from a pack in the host's memory to the update

A step is forward pass, loss, backward pass and update, on images that are there already (`parts` has augmentation apart, `pack` has it
too). All take turns, round by round, in a new order each; medians and 20 % and 80 % quantiles are kept. On a CPU each is a process of its
own, where nobody else's settings of threads and allocator reach it, and a turn is a few steps, so that caches are warm as in training.
Before anything is timed, the nets are compared: same weights, same outputs. Rows go to benchmarks/results/step.csv.

Peak memory is what a step needs at most, weights and all: of a GPU as torch counts it, of a CPU as the system does, less what the process
had before its net and batch were made.
"""

import argparse
import gc
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import chain, count, islice, repeat, tee
from multiprocessing.connection import Connection
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

import alexnet_kernels as kernels
from alexnet import AlexNet, presets, rng
from alexnet.cli import Parser
from alexnet.data.augment import Augment
from alexnet.data.loader import Batch, Images, Loader, order
from alexnet.data.pack import Pack
from alexnet.data.pack_writer import PackWriter
from alexnet.errors import InputError
from alexnet.network import Stage
from alexnet.training.learner import Learner
from alexnet.training.precision import PRECISIONS, using_precision
from alexnet.training.ranks import Ranks
from alexnet.training.steps import GraphStep, StepInput
from benchmarks import measure, record, script
from benchmarks.plain import Plain, sgd
from benchmarks.record import Row

COLUMNS = (
    *("time", "commit", "dirty", "source", *record.MACHINE, "busy_percent", "torchvision"),
    *(
        "case",
        "preset",
        "width",
        "image_size",
        "batch",
        "precision",
        "implementation",
        "runs",
        "median_ms",
        "p20_ms",
        "p80_ms",
    ),
    *("images_per_s", "peak_mb", "against", "ratio", "wanted", "floor_ms", "note"),
)
FILE = record.ARCHIVE / "step.csv"
SOURCES = (record.HERE.parent / "kernels", record.HERE.parent / "alexnet", record.HERE)
PEER = "torch layers"  # what ratios refer to
OURS = ("ours", "ours, again", "ours, no compiler", "ours, graph", "ours, compiled")
IMPLEMENTATIONS = (*OURS, PEER, f"{PEER}, compiled", "torchvision", "torchvision, compiled")


@dataclass(frozen=True)
class Case:
    name: str
    preset: str
    width: float
    image_size: int
    batch: int
    precision: str
    wanted: tuple[
        tuple[str, float], ...
    ] = ()  # (implementation, how many times as fast as its peer)
    repeat: int = 1  # steps of a turn

    @property
    def classes(self) -> int:
        return 1000 if self.image_size == 224 else 40

    def key(self, kind: str) -> Row:
        """The columns that tell what is measured. kind: "steps", "parts" or "pack"."""
        facts = {
            "case": self.name if kind == "steps" else kind,
            "preset": self.preset,
            "width": self.width,
        }
        return facts | {
            "image_size": self.image_size,
            "batch": self.batch,
            "precision": self.precision,
        }

    def __str__(self) -> str:
        return f"{self.name}, {self.preset}, batch {self.batch}, {self.precision}"


ASKED = (("ours", 1.5), ("ours, no compiler", 1.0))
CPU = (
    Case("default profile", "paper", 1 / 4, 64, 64, "fp32", ASKED, repeat=40),
    Case("full net", "paper", 1.0, 224, 16, "fp32", ASKED, repeat=3),
    Case("default profile", "source", 1 / 4, 64, 64, "fp32", repeat=40),
    Case("full net", "source", 1.0, 224, 16, "fp32", repeat=3),
)
GPU = tuple(  # what matters most first; compiled peers, which take minutes, in the first two alone
    Case("full net", preset, 1.0, 224, batch, precision)
    for precision, presets_, batches in (
        ("bf16", ("paper", "source"), (128, 1024)),
        ("tf32", ("paper",), (128, 1024)),
        ("fp32", ("paper",), (128,)),
    )
    for preset in presets_
    for batch in batches
)
TINY = Case("tiny", "paper", 1 / 16, 64, 2, "fp32")


# --- contestants: each is built once, and then called for a step ---


Step = Callable[[], object]


def ours(
    case: Case,
    device: str,
    x: Tensor,
    labels: Tensor,
    mode: str | None = None,
    compiled: bool = False,
) -> Step:
    """As the trainer does it. mode: of kernels.using."""
    net = AlexNet(case.preset, case.classes, case.width, case.image_size)
    learner = Learner(
        net,
        presets.get(case.preset).recipe,
        Ranks(device),
        PRECISIONS[case.precision],
        compiled=compiled,
    )
    rates = [1e-4] * len(learner.parameters)
    keys = rng.key(rng.DROPOUT, 0, 0, torch.arange(case.batch))

    def step() -> None:
        with kernels.using(mode) if mode else nullcontext():
            learner.backward(x, labels, keys, case.batch)
            learner.update(rates)

    return step


def graph(case: Case, device: str, labels: Tensor) -> Step:
    """As the trainer does it in the mode graph: from bytes, augmentation included."""
    recipe, size = presets.get(case.preset).recipe, round(case.image_size * 8 / 7)
    learner = Learner(
        AlexNet(case.preset, case.classes, case.width, case.image_size),
        recipe,
        Ranks(device),
        PRECISIONS[case.precision],
    )
    augment = any_augment(recipe, size, case.image_size)
    whole = GraphStep(learner, augment, size, case.batch)
    images = torch.randint(256, (case.batch, size, size, 3), dtype=torch.uint8).to(device)
    ids, rates = torch.arange(case.batch), [1e-4] * len(learner.parameters)
    keys, draw = rng.key(rng.DROPOUT, 0, 0, ids), augment.draw(ids, ids, 0)
    return lambda: whole.send(StepInput(images, draw, labels, keys, rates, case.batch))


def any_augment(recipe: presets.Recipe, size: int, crop: int) -> Augment:
    color = {"eigenvalues": np.ones(3), "eigenvectors": np.eye(3)}
    return Augment(recipe, np.full((size, size, 3), 120, np.float32), crop, color)


def torchs(
    net: nn.Module, case: Case, device: str, x: Tensor, labels: Tensor, compiled: bool = False
) -> Step:
    """Any net, torch's loss and torch's SGD; bf16 by autocast, as is usual."""
    net = net.to(device).train()
    if device == "cuda":
        net = net.to(memory_format=torch.channels_last)
    optimizer = sgd(net)
    call = torch.compile(net, dynamic=False) if compiled else net
    half = case.precision == "bf16"

    def step() -> None:
        with torch.autocast(device, torch.bfloat16) if half else nullcontext():
            loss = F.cross_entropy(call(x), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def contestants(
    case: Case, device: str, x: Tensor, labels: Tensor
) -> dict[str, Callable[[], Step]]:
    sizes = (case.classes, case.width, case.image_size)
    if device == "cuda":
        x = x.contiguous(memory_format=torch.channels_last)
    here = partial(ours, case, device, x, labels)
    found: dict[str, Callable[[], Step]] = {"ours": here, "ours, again": here}
    if device == "cpu":
        found["ours, no compiler"] = partial(here, mode="composite")
    else:
        found["ours, graph"] = partial(graph, case, device, labels)
    there = partial(torchs, case=case, device=device, x=x, labels=labels)
    nets: dict[str, Callable[[], nn.Module]] = {PEER: lambda: Plain(case.preset, *sizes)}
    if case.image_size == 224:
        from torchvision.models import alexnet

        nets["torchvision"] = lambda: alexnet(num_classes=case.classes)
    found |= {name: lambda net=net: there(net()) for name, net in nets.items()}  # type: ignore[misc]
    if compiles(case, device):
        found["ours, compiled"] = partial(here, compiled=True)
        found |= {
            f"{name}, compiled": lambda net=net: there(net(), compiled=True)
            for name, net in nets.items()
        }  # type: ignore[misc]
    return found


def compiles(case: Case, device: str) -> bool:
    """Whether compiled contestants take part."""
    return device == "cpu" or (case.preset == "paper" and case.precision == "bf16")


def asked(case: Case, args: argparse.Namespace) -> set[str]:
    """The names of those that are to take part."""
    names = set(contestants(case, args.device, torch.empty(0, 3, 1, 1), torch.empty(0)))
    return names & {*args.implementations, PEER} if args.implementations else names


def inputs(case: Case, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 50 * torch.randn(case.batch, 3, case.image_size, case.image_size, generator=generator)
    return x.to(device), torch.randint(case.classes, (case.batch,), generator=generator).to(device)


class Apart:
    """A contestant in a process of its own; a call is a turn. `peak`: MiB, once it is built, where the system tells. Raises RuntimeError
    with what went wrong there."""

    def __init__(self, case: Case, name: str, threads: int):
        context = multiprocessing.get_context("spawn")
        self.here, there = context.Pipe()
        self.process = context.Process(target=serve, args=(case, name, threads, there), daemon=True)
        self.process.start()
        there.close()
        self.peak = self.hear()

    def hear(self) -> float | None:
        try:
            word = self.here.recv()
        except EOFError:
            word = "its process died; is there too little memory?"
        if isinstance(word, str):
            raise RuntimeError(word)
        return word

    def __call__(self) -> None:
        self.here.send("step")
        self.hear()

    def stop(self) -> None:
        self.here.close()
        self.process.join()


def serve(case: Case, name: str, threads: int, there: Connection) -> None:
    """In the process: builds the contestant, says what memory a step needs, and does a turn at each word. What goes wrong is its answer."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    try:
        contestants(TINY, "cpu", *inputs(TINY, "cpu"))[
            name.replace("torchvision", PEER)
        ]()()  # libraries, which are no step's memory
        gc.collect()
        torch.compiler.reset()
        before = resident("VmRSS")
        step = contestants(case, "cpu", *inputs(case, "cpu"))[name]()
        for _ in range(2):  # compiles
            step()
        forget_peak()
        step()
        peak = resident("VmHWM")
        there.send(None if peak is None or before is None else peak - before)
        while there.recv():
            for _ in range(case.repeat):
                step()
            there.send(None)
    except (EOFError, KeyboardInterrupt):  # that was all, or the whole program was stopped
        pass
    except Exception as problem:  # what cannot run here is a finding
        there.send(measure.first_line(problem))


def resident(which: str) -> float | None:
    """Memory of this process in MiB, now ("VmRSS") or at most so far ("VmHWM"); None on systems without /proc."""
    try:
        line = next(
            line
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith(f"{which}:")
        )
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) / 1024


def forget_peak() -> None:
    """The most so far is what there is now: a compiler's memory is none of the step's."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def compare(case: Case, device: str, x: Tensor) -> None:
    """Raises RuntimeError where our net and torch's layers do not give the same outputs from the same weights."""
    sizes = (case.classes, case.width, case.image_size)
    net, plain = AlexNet(case.preset, *sizes).to(device).eval(), Plain(case.preset, *sizes).eval()
    plain.load_state_dict(net.export_merged())
    with torch.no_grad():
        got, right = net(x[:4]), plain.to(device)(x[:4])
    if not torch.allclose(got, right, rtol=1e-3, atol=1e-3 * float(right.abs().max())):
        raise RuntimeError(
            f"{case}: the nets' outputs differ by {float((got - right).abs().max()):.2g}"
        )


def steps(case: Case, args: argparse.Namespace, origin: Row) -> list[Row]:
    device = args.device
    x, labels = inputs(case, device)
    base = dict.fromkeys(COLUMNS) | origin | case.key("steps")
    rows: list[Row] = []
    ready: dict[str, Step] = {}
    with using_precision(case.precision, torch.device(device)):
        compare(case, device, x)
        peaks, names = dict[str, float | None](), asked(case, args)
        for name, build in contestants(case, device, x, labels).items():
            if name not in names:
                continue
            try:
                if device == "cpu":
                    ready[name] = one = Apart(case, name, torch.get_num_threads())
                    peaks[name] = one.peak
                    continue
                torch.manual_seed(0)
                step = build()
                for _ in range(2):  # compiles
                    step()
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                step()
                peaks[name] = torch.cuda.max_memory_allocated() / 2**20
                ready[name] = step
            except Exception as problem:  # what cannot run here is a finding
                rows.append(
                    base
                    | {"implementation": name, "note": f"skipped: {measure.first_line(problem)}"}
                )
        times = {
            name: [ms / case.repeat for ms in found] for name, found in clocked(ready, args).items()
        }
    for step in ready.values():
        if isinstance(step, Apart):
            step.stop()
    middle = {name: float(np.median(ms)) for name, ms in times.items()}
    for name, ms in times.items():
        low, high = (float(q) for q in np.percentile(ms, [20, 80]))
        row = base | {
            "implementation": name,
            "runs": len(ms),
            "median_ms": middle[name],
            "p20_ms": low,
            "p80_ms": high,
        }
        row |= {
            "images_per_s": 1e3 * case.batch / middle[name],
            "peak_mb": peaks.get(name),
            "wanted": dict(case.wanted).get(name),
        }
        if name != PEER and PEER in middle:
            row |= {"against": PEER, "ratio": middle[PEER] / middle[name]}
        rows.append(row)
    return rows


def clocked(calls: dict[str, Step], args: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of each, in turns."""
    entries = [measure.Entry(name, "", call) for name, call in calls.items()]
    samples = measure.rounds(entries, measure.Clock(args.device), args, lambda text: None)
    return {entries[number].implementation: ms for (number, _), ms in samples.items()}


# --- what a step is made of ---


def parts(case: Case, args: argparse.Namespace, origin: Row) -> list[Row]:
    """Each layer's weighted sums, and what follows them, forward and backward, alone; the update; augmentation. Beside each the least time
    that its multiplications or its bytes take at the rates of a large matrix product and a large copy, measured in the same run."""
    device, dtype = args.device, PRECISIONS[case.precision]
    clock = measure.Clock(device)
    copy = (
        measure.copy_bandwidth(
            clock, device, 2**30 if device == "cuda" else 2**23 if case is TINY else 2**28
        )
        * 1e6
    )  # bytes a ms
    side = 8192 if device == "cuda" else 256 if case is TINY else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def given(shape: tuple[int, ...], wants_gradient: bool = True) -> Tensor:
        x = torch.randn(shape, device=device, dtype=dtype)
        form = torch.channels_last if x.dim() == 4 and device == "cuda" else torch.contiguous_format
        return x.contiguous(memory_format=form).requires_grad_(wants_gradient)

    with using_precision(case.precision, torch.device(device)):
        product = (
            2
            * side**3
            / float(np.median([clock.sample(lambda: a @ b, cold=False)[0] for _ in range(10)][3:]))
        )  # FLOP a ms
        net = AlexNet(case.preset, case.classes, case.width, case.image_size)
        recipe = presets.get(case.preset).recipe
        learner = Learner(net, recipe, Ranks(device), dtype)
        keys = rng.key(rng.DROPOUT, 0, 0, torch.arange(case.batch)).to(device)
        calls: dict[str, Step] = {}
        floors: dict[str, float] = {}
        for row in net.table:
            maps, at = row.in_maps, row.in_size
            shape = (case.batch, maps, at, at) if row.layer.kernel else (case.batch, row.fan_in)
            first, stages = row is net.table[0], net.stages(row.layer.name)
            shared = first or row.layer.reads == "both"
            xs = (
                [given(shape, not first)] * len(stages)
                if shared
                else [given(shape) for _ in stages]
            )
            passes = 2 if first else 3  # no gradient for the image
            sums = [partial(s.weighted_sums, x, None) for s, x in zip(stages, xs, strict=True)]
            calls[f"{row.layer.name}, sums"] = partial(both, sums, leaves(xs, stages))
            floors[f"{row.layer.name}, sums"] = passes * 2 * row.macs * case.batch / product
            if row.layer.then:
                outs = [
                    given(
                        (case.batch, row.maps, row.size, row.size)
                        if row.layer.kernel
                        else (case.batch, row.maps)
                    )
                    for _ in stages
                ]
                rest = [partial(after, s, out, keys) for s, out in zip(stages, outs, strict=True)]
                calls[f"{row.layer.name}, rest"] = partial(both, rest, leaves(outs, stages))
                kept = (
                    row.out_size**2 / row.size**2
                )  # forward reads x and writes y and a byte each; backward reads both and writes dx
                each = outs[0].numel() * len(stages)
                floors[f"{row.layer.name}, rest"] = (
                    each * (outs[0].element_size() * (3 + 2 * kept) + 2 * kept) / copy
                )
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        grads = {name: p.grad for name, p in net.named_parameters()}

        def update() -> None:
            for name, p in net.named_parameters():
                p.grad = grads[name]
            learner.update([1e-6] * len(grads))

        calls["update"] = update
        half = 2 if dtype == torch.bfloat16 else 0  # the copies that the net computes with
        total = sum(p.numel() for p in net.parameters())
        floors["update"] = (
            total * (4 * 4 + (half or 4) + half) / copy
        )  # w and v read and written, g read
        size = round(case.image_size * 8 / 7)
        augment = any_augment(recipe, size, case.image_size)
        images, ids = (
            torch.randint(256, (case.batch, size, size, 3), dtype=torch.uint8).to(device),
            torch.arange(case.batch),
        )
        calls["augmentation"] = lambda: augment.train(images, ids, ids, 0)
        floors["augmentation"] = case.batch * 3 * case.image_size**2 * 5 / copy
        times = clocked(calls, args)
    base = dict.fromkeys(COLUMNS) | origin | case.key("parts")
    rows = []
    for name, ms in times.items():
        low, middle, high = (float(q) for q in np.percentile(ms, [20, 50, 80]))
        facts = {
            "implementation": name,
            "runs": len(ms),
            "median_ms": middle,
            "p20_ms": low,
            "p80_ms": high,
            "floor_ms": floors[name],
        }
        rows.append(base | facts)
    return rows


def after(stage: Stage, sums: Tensor, keys: Tensor) -> Tensor:
    """What follows a layer's weighted sums."""
    setattr(stage, "weighted_sums", lambda x, bias: x)  # noqa: B010
    try:
        return stage(sums, keys)
    finally:
        del stage.weighted_sums


def leaves(inputs: Sequence[Tensor], stages: Sequence[Stage]) -> list[Tensor]:
    """What has a gradient, each once."""
    tensors = (*inputs, *chain.from_iterable(stage.parameters() for stage in stages))
    return list({id(t): t for t in tensors if t.requires_grad}.values())


def both(calls: Sequence[Callable[[], Tensor]], leaves: Sequence[Tensor]) -> None:
    """Forward and backward of some columns. No gradient stays, as none is left after a step's update: the next would be added to it."""
    ys = [call() for call in calls]
    torch.autograd.grad(ys, leaves, [torch.ones_like(y) for y in ys], allow_unused=True)


# --- end to end ---


def pack(case: Case, args: argparse.Namespace, origin: Row) -> list[Row]:
    """The trainer's steps with all that feeds them: bytes of a pack, in the host's memory, are gathered by threads and sent ahead of their
    use, or put on a GPU once and gathered there; then cropped, mirrored and shifted in color where the net is. Beside them steps, as whole
    as these, on one batch of bytes that stays. A turn begins with nothing made ready."""
    device = torch.device(args.device)
    recipe, size = presets.get(case.preset).recipe, round(case.image_size * 8 / 7)
    per_turn = {"cuda": 25600 // case.batch, "cpu": 2 * case.repeat}[device.type]
    with tempfile.TemporaryDirectory() as folder, using_precision(case.precision, device) as dtype:
        source = random_pack(Path(folder) / "pack", size, min(4096, 64 * case.batch), case.classes)
        torch.manual_seed(0)
        learner = Learner(
            AlexNet(case.preset, case.classes, case.width, case.image_size),
            recipe,
            Ranks(args.device),
            dtype,
        )
        augment, rates = (
            any_augment(recipe, size, case.image_size),
            [1e-4] * len(learner.parameters),
        )
        whole = GraphStep(learner, augment, size, case.batch) if device.type == "cuda" else None
        fed = {"streamed": Images(source, device, resident=False)}
        if device.type == "cuda":
            fed["resident"] = Images(source, device, resident=True)
        fixed = next(iter(Loader(source, case.batch, 0, device, resident=False).epoch(0)))

        def endless(
            images: Images,
        ) -> Iterator[Batch]:  # epochs without a seam: those of a real pack have thousands of steps
            plan, ahead = tee(
                chain.from_iterable(order(source, case.batch, 0, epoch) for epoch in count())
            )
            for batch, (ids, positions) in zip(
                images.of(ids for ids, _ in ahead), plan, strict=False
            ):
                yield batch, images.labels(ids), ids, positions

        def turn(name: str) -> None:
            for images, labels, ids, positions in islice(
                endless(fed[name]) if name in fed else repeat(fixed), per_turn
            ):
                keys = rng.key(rng.DROPOUT, 0, 0, ids)
                if whole is not None:
                    draw = augment.draw(ids, positions, 0)
                    whole.send(StepInput(images, draw, labels, keys, rates, case.batch))
                else:
                    learner.backward(
                        augment.train(images, ids, positions, 0), labels, keys, case.batch
                    )
                    learner.update(rates)

        times = clocked({name: partial(turn, name) for name in ("one batch", *fed)}, args)
    base = dict.fromkeys(COLUMNS) | origin | case.key("pack")
    middle = {name: float(np.median(ms)) / per_turn for name, ms in times.items()}
    rows = []
    for name, ms in times.items():
        low, high = (float(q) / per_turn for q in np.percentile(ms, [20, 80]))
        row = base | {
            "implementation": name,
            "runs": len(ms),
            "median_ms": middle[name],
            "p20_ms": low,
            "p80_ms": high,
        }
        row["images_per_s"] = 1e3 * case.batch / middle[name]
        if name != "one batch":
            row |= {"against": "one batch", "ratio": middle["one batch"] / middle[name]}
            row["wanted"] = 0.95 if device.type == "cuda" else None
        rows.append(row)
    return rows


def random_pack(folder: Path, size: int, images: int, classes: int) -> Pack:
    """Noise: what is in the images does not change how long they take."""
    folder.mkdir()
    writer, generator = PackWriter(folder, size, images), np.random.default_rng(0)
    for begin in range(0, images, 256):
        n = min(256, images - begin)
        noise = generator.integers(256, size=(n, size, size, 3), dtype=np.uint8)
        writer.append(noise, generator.integers(classes, size=n).tolist())
    names = [str(number) for number in range(classes)]
    writer.finish(names, names)
    return Pack.open(folder)


# --- shown ---


def latest(kind: str, cuda: bool, path: Path = FILE) -> list[Row]:
    """The last row of each contestant in each case, "steps", "parts" or "pack", of the device that was measured last; none where nothing
    was."""
    rows = [row for row in record.read(path, COLUMNS) if bool(row["cuda"]) is cuda]
    rows = [
        row
        for row in rows
        if kind == (row["case"] if row["case"] in ("parts", "pack") else "steps")
    ]
    if not rows:
        return []
    device = max(rows, key=lambda row: row["time"])["device"]
    return last(row for row in rows if row["device"] == device)


def last(rows: Iterable[Row]) -> list[Row]:
    """The last row of each contestant in each case."""
    return list(
        {
            tuple(str(row[name]) for name in (*TINY.key("steps"), "implementation")): row
            for row in rows
        }.values()
    )


def plot(rows: Sequence[Row]) -> Figure:
    """What a step is made of: a pair of bars for each part, its time and, over it, the least that its multiplications or bytes take."""
    figure, axes = plt.subplots(
        figsize=(6.4, 0.8 + 0.26 * len(rows)), dpi=100, layout="constrained"
    )
    places = range(len(rows))
    axes.barh(places, [number(row["median_ms"]) for row in rows], color="#8fb3d9", label="time")
    axes.barh(
        places,
        [number(row["floor_ms"]) for row in rows],
        height=0.35,
        color="#1f5a96",
        label="floor",
    )
    axes.set_yticks(places, [str(row["implementation"]) for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("ms, forward and backward")
    axes.set_title(f"{rows[0]['device']}, commit {rows[0]['commit']}", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure


def number(value: object) -> float:
    return float(str(value)) if value not in (None, "") else 0.0


# --- the targets ---


@dataclass(frozen=True)
class Target:
    batch: int
    wanted: float
    peer: str = ""  # whose multiple is wanted; none: images a second


GPU_TARGETS = (  # for an H200: the paper's net in bf16, ours in its fastest form
    Target(128, 50_000),
    Target(1024, 70_000),
    Target(128, 1.0, "torchvision, compiled"),
    Target(1024, 1.0, "torchvision, compiled"),
    Target(128, 3.0, PEER),
)


def verdicts(rows: Sequence[Row]) -> str:
    """The targets beside what was measured. rows: of one GPU."""
    lines = [["target ", "wanted", "measured", " "]]
    for target in GPU_TARGETS:
        what = f"full net, paper, batch {target.batch}, bf16: {f'over {target.peer}' if target.peer else 'images/s'}"
        here = [
            row
            for row in rows
            if (row["case"], row["preset"], row["precision"]) == ("full net", "paper", "bf16")
        ]
        rates = {
            row["implementation"]: number(row["images_per_s"])
            for row in here
            if number(row["batch"]) == target.batch
        }
        ours = max((rates.get(name, 0.0) for name in OURS if name != "ours, again"), default=0.0)
        beside = rates.get(target.peer, 0.0) if target.peer else 1.0
        value = ours / beside if beside else 0.0
        verdict = "not measured" if not value else "met" if value >= target.wanted else "missed"
        lines.append([what, f">= {target.wanted:,g}", f"{value:,.5g}" if value else "", verdict])
    return record.table(lines)


# --- all of it ---


def table(rows: Sequence[Row]) -> str:
    lines = [
        ["case ", "implementation ", "ms", "images/s", "times", "wanted", "floor ms", "peak MB"]
    ]
    for row in rows:
        case = f"{row['case']}, {row['preset']}, {number(row['image_size']):.0f} px, batch {number(row['batch']):.0f}, {row['precision']}"
        shown = [
            row[name]
            for name in ("median_ms", "images_per_s", "ratio", "wanted", "floor_ms", "peak_mb")
        ]
        ms, rate, ratio, wanted, floor, peak = (
            "" if value in (None, "") else f"{number(value):,.3g}" for value in shown
        )
        rate = "" if row["images_per_s"] in (None, "") else f"{number(row['images_per_s']):,.0f}"
        lines.append([case, str(row["implementation"]), ms, rate, ratio, wanted, floor, peak])
    notes = [
        f"{row['case']}, {row['implementation']}: {row['note']}" for row in rows if row["note"]
    ]
    notes += dict.fromkeys(
        f"{row['case']}: commit {row['commit']}"
        for row in rows
        if row["commit"] != rows[0]["commit"]
    )
    heading = f"times: how many times as fast as {PEER} in the same case; from a pack, as one batch that stays"
    return "\n".join([record.where(rows[0]), heading, "", record.table(lines), *notes])


def main(argv: Sequence[str] | None = None) -> int:
    form = Parser(
        "python -m benchmarks.step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = form.add_argument
    add("what", nargs="*", default=[], help="steps, parts, pack (default: steps)")
    add("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    add(
        "--implementations",
        nargs="+",
        choices=IMPLEMENTATIONS,
        metavar="NAME",
        help=f'only these, as "ours, compiled", and {PEER}',
    )
    add(
        "--runs",
        type=script.positive,
        default=20,
        metavar="N",
        help="rounds at most (default: %(default)s)",
    )
    add(
        "--seconds",
        type=script.seconds,
        default=90.0,
        metavar="S",
        help="begin no round of a case after this (default: %(default)s)",
    )
    add(
        "--budget",
        type=script.seconds,
        default=math.inf,
        metavar="S",
        help="begin no case that might end later (default: none)",
    )
    add(
        "--fresh",
        action="store_true",
        help="measure again what the file holds already, of this code on this machine",
    )
    add(
        "--threads",
        type=script.positive,
        metavar="N",
        help="of the CPU (default: torch's own choice)",
    )
    add(
        "--commit", metavar="ID", help="what to write as commit where the folder is no git checkout"
    )
    add(
        "--tiny",
        action="store_true",
        help="sizes whose times mean nothing, to test the script; rows go to runs/benchmarks/",
    )
    add(
        "--out",
        type=Path,
        metavar="CSV",
        help=f"append the rows here; default: {FILE.relative_to(record.HERE.parent)}",
    )
    args = form.parse_args(argv)
    kinds = {"steps": steps, "parts": parts, "pack": pack}

    def work() -> int:
        chosen, args.device = (
            args.what or ["steps"],
            args.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        )
        if unknown := set(chosen) - set(kinds):
            raise InputError(
                f"there is no {', '.join(sorted(unknown))}; there are {', '.join(kinds)}"
            )
        if args.device == "cuda" and not torch.cuda.is_available():
            raise InputError("there is no CUDA device here; use --device cpu")
        if args.threads:
            torch.set_num_threads(args.threads)
        path = args.out or (script.TINY_FOLDER / FILE.name if args.tiny else FILE)
        record.check(path, COLUMNS)
        origin = record.machine(args.device, args.commit, SOURCES)
        origin["torchvision"] = version("torchvision")

        def held(kind: str, case: Case) -> list[Row]:
            """What the file holds of a case, of this code on this machine; none unless it is all that is asked."""
            rows = record.held(
                path,
                {name: origin[name] for name in ("source", *record.MACHINE)} | case.key(kind),
                COLUMNS,
            )
            if kind != "steps":
                return last(rows)
            names = asked(case, args)
            rows = last(row for row in rows if row["implementation"] in names)
            return rows if len(rows) == len(names) else []

        cases = (TINY,) if args.tiny else GPU if args.device == "cuda" else CPU
        plan = [
            (name, case) for case in cases for name in dict.fromkeys(chosen)
        ]  # of each kind some, where the budget does not hold all
        todo = [(name, case) for name, case in plan if args.fresh or not held(name, case)]
        if len(todo) < len(plan):
            print(
                f"{len(plan) - len(todo)} of {len(plan)} are in {path} already; --fresh measures them again",
                file=sys.stderr,
            )
        left: list[str] = []
        began, longest = time.perf_counter(), dict[tuple[str, bool], float]()
        for name, case in todo:
            start, like = time.perf_counter(), (name, compiles(case, args.device))
            if start - began + longest.get(like, 0.0) > args.budget:
                left.append(f"{name} of {case}")
                continue
            torch.compiler.reset()
            record.append(path, kinds[name](case, args, origin), COLUMNS)
            longest[like] = max(longest.get(like, 0.0), time.perf_counter() - start)
        rows = [row for name in dict.fromkeys(chosen) for case in cases for row in held(name, case)]
        print(f"{table(rows) if rows else 'Nothing was measured.'}\n\nrows: {path}")
        if args.device == "cuda" and "steps" in chosen and not args.tiny:
            print(f"\n{verdicts(rows)}")
        if left:
            print(f"not measured, for lack of time; run again to go on: {'; '.join(left)}")
        return 1 if left else 0

    return script.guarded(work)


if __name__ == "__main__":
    sys.exit(main())
