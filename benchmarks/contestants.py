"""Who takes part in the benchmark of a training step: a row of CONTESTANTS each, built once and
then called for a step."""

import gc
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from alexnet import AlexNet, presets, rng
from alexnet.convolutions import in_blocks
from alexnet.data.augment import Augment
from alexnet.presets import shapes, total
from alexnet.processes import cores, follow_parent
from alexnet.training.learner import Learner
from alexnet.training.precision import PRECISIONS
from alexnet.training.ranks import Ranks
from alexnet.training.steps import GraphStep, StepInput
from benchmarks.plain import Plain, sgd
from kernel_benchmarks.measure import using
from kernel_benchmarks.record import Row

PEER = "torch layers"  # what ratios refer to

Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    name: str
    preset: str
    width: float
    image_size: int
    batch: int
    precision: str  # of the contestants that have none of their own
    repeat: int = 1  # steps of a turn
    threads: int | None = None  # None: torch's choice
    everyone: bool = field(default=False, compare=False)  # whether all take part, on a CPU

    @property
    def sizes(self) -> tuple[int, float, int]:
        """Number of classes, width and image size, as a net takes them."""
        return 1000 if self.image_size == 224 else 40, self.width, self.image_size

    @property
    def stored_size(self) -> int:
        """The side of the images that crops are cut from."""
        return round(self.image_size * 8 / 7)

    def key(self, kind: str = "steps") -> Row:
        """The columns that say what is measured. kind: "steps", "parts", "pack", ..."""
        name = self.name if kind == "steps" else kind
        net = {"preset": self.preset, "width": self.width, "image_size": self.image_size}
        row = {"case": name, **net, "batch": self.batch, "precision": self.precision}
        return row | ({"threads": self.threads} if self.threads else {})

    def learner(self, device: str, compiled: bool = False) -> Learner:
        """The trainer's net and update rule."""
        recipe, dtype = presets.get(self.preset).recipe, PRECISIONS[self.precision]
        net = AlexNet(self.preset, *self.sizes)
        return Learner(net, recipe, Ranks(device), dtype, compiled=compiled)

    def augment(self) -> Augment:
        """The recipe's augmentation, with some mean and some colors."""
        color = {"eigenvalues": np.ones(3), "eigenvectors": np.eye(3)}
        mean = np.full((self.stored_size, self.stored_size, 3), 120, np.float32)
        recipe, dtype = presets.get(self.preset).recipe, PRECISIONS[self.precision]
        blocks = in_blocks(presets.shapes(presets.get(self.preset), *self.sizes)[0], dtype)
        return Augment(recipe, mean, self.image_size, color, dtype=dtype, blocks=blocks)

    def noise(self, device: str) -> Tensor:
        """A batch of bytes (N, S, S, 3)."""
        shape = (self.batch, self.stored_size, self.stored_size, 3)
        return torch.randint(256, shape, dtype=torch.uint8).to(device)

    def inputs(self, device: str) -> tuple[Tensor, Tensor]:
        """A batch (N, 3, S, S) as the net takes it, and its labels."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch, 3, self.image_size, self.image_size)
        x = 50 * torch.randn(shape, generator=generator)
        labels = torch.randint(self.sizes[0], (self.batch,), generator=generator)
        return in_form(x.to(device), self.precision), labels.to(device)

    def work(self, name: str) -> float:
        """The floating-point operations of a contestant's step: a product and a sum for each
        multiply-accumulate, forward and twice backward, but for the image's gradient."""
        if name.startswith("torchvision"):
            with torch.device("meta"), FlopCounterMode(display=False) as counter:
                torchvision(self)(
                    torch.empty(1, 3, self.image_size, self.image_size)
                ).sum().backward()
            return self.batch * counter.get_total_flops()
        table = shapes(presets.get(self.preset), *self.sizes)
        return 2 * self.batch * (3 * total(table, "macs") - table[0].macs)

    def __str__(self) -> str:
        threads = {None: "", 1: ", 1 thread"}.get(self.threads, f", {self.threads} threads")
        return f"{self.name}, {self.preset}, batch {self.batch}, {self.precision}{threads}"


FULL_NET, DEFAULT = ("full net", "paper", 1.0, 224), ("default profile", "paper", 1 / 4, 64)
CPU = (  # in which contestants of both precisions stand side by side
    Case(*DEFAULT, 32, "fp32", repeat=40, threads=2, everyone=True),
    Case(*FULL_NET, 32, "fp32", repeat=2, threads=2, everyone=True),
    Case(*DEFAULT, 128, "fp32", repeat=10, threads=2),
    Case(*FULL_NET, 128, "fp32", threads=2),
    Case("half width", "paper", 1 / 2, 112, 128, "fp32", repeat=2, threads=2),
    Case(*DEFAULT, 32, "fp32", repeat=40, threads=1),
    Case(*FULL_NET, 32, "fp32", repeat=2, threads=1),
    Case(*DEFAULT, 128, "fp32", repeat=10, threads=1),
    Case(*FULL_NET, 128, "fp32", threads=1),
    Case("half width", "paper", 1 / 2, 112, 128, "fp32", repeat=2, threads=1),
    Case("default profile", "source", 1 / 4, 64, 32, "fp32", repeat=40, threads=2, everyone=True),
    Case("full net", "source", 1.0, 224, 32, "fp32", repeat=2, threads=2, everyone=True),
)
GPU = (  # what matters most first
    Case("full net", "paper", 1.0, 224, 128, "bf16"),
    Case("full net", "paper", 1.0, 224, 1024, "bf16"),
    Case("full net", "source", 1.0, 224, 128, "bf16"),
    Case("full net", "source", 1.0, 224, 1024, "bf16"),
    Case("full net", "paper", 1.0, 224, 128, "tf32"),
    Case("full net", "paper", 1.0, 224, 1024, "tf32"),
    Case("full net", "paper", 1.0, 224, 128, "fp32"),
)
TINY = Case("tiny", "paper", 1 / 16, 64, 2, "fp32", everyone=True)


def cases(device: str, kind: str, threads: int | None = None) -> list[Case]:
    """What is measured: on a CPU the parts, and steps from a pack, of the cases of everyone alone,
    in either precision.

    Args:
        kind: "steps", "parts" or "pack".
        threads: Of all cases; None: their own, as far as there are cores.
    """
    if device == "cuda":
        return list(GPU)
    own = [replace(case, threads=threads or min(case.threads or 1, cores())) for case in CPU]
    if kind != "steps":
        precisions = "fp32", "bf16"
        own = [
            replace(case, precision=name) for case in own if case.everyone for name in precisions
        ]
    return list(dict.fromkeys(own))


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Have torch compute by so many threads within the block; None: as many as it does anyway."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_form(x: Tensor, precision: str) -> Tensor:
    """Maps in the layout that a device likes."""
    last = x.is_cuda or precision == "bf16"
    return x.contiguous(memory_format=torch.channels_last) if last else x


# --- the contestants ---


def ours(case: Case, device: str, mode: str | None = None, compiled: bool = False) -> Step:
    """A step as the trainer does it. mode: of kernels.using."""
    (x, labels), learner = case.inputs(device), case.learner(device, compiled)
    x = x.to(learner.dtype)  # as augmentation gives it
    rates = [1e-4] * len(learner.parameters)
    keys = rng.key(rng.DROPOUT, 0, 0, torch.arange(case.batch))

    def step() -> None:
        with using(mode):
            learner.backward(x, labels, keys, case.batch)
            learner.update(rates)

    return step


def graph(case: Case, device: str, compiled: bool = False) -> Step:
    """A step as the trainer does it in the mode graph: from bytes, augmentation included."""
    learner, augment, images = case.learner(device, compiled), case.augment(), case.noise(device)
    whole = GraphStep(learner, augment, case.batch)
    ids, rates = torch.arange(case.batch), [1e-4] * len(learner.parameters)
    keys, draw = rng.key(rng.DROPOUT, 0, 0, ids), augment.draw(ids, ids, 0)
    batch = StepInput(images, draw, case.inputs(device)[1], keys, rates, case.batch)
    return lambda: whole.send(batch)


def torchs(
    build: Callable[[Case], nn.Module], case: Case, device: str, compiled: bool = False
) -> Step:
    """Any net, torch's loss and torch's SGD; bf16 by autocast, as is usual."""
    (x, labels), net = case.inputs(device), build(case).to(device).train()
    half = case.precision == "bf16"
    if device == "cuda" or half:
        net = net.to(memory_format=torch.channels_last)
    optimizer = sgd(net)
    call = torch.compile(net, dynamic=False) if compiled else net

    def step() -> None:
        with torch.autocast(device, torch.bfloat16) if half else nullcontext():
            loss = F.cross_entropy(call(x), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def plain(case: Case) -> nn.Module:
    return Plain(case.preset, *case.sizes)


def torchvision(case: Case) -> nn.Module:
    from torchvision.models import alexnet

    return alexnet(num_classes=case.sizes[0])


def always(case: Case, device: str) -> bool:
    return True


def on_a_cpu(case: Case, device: str) -> bool:
    return device == "cpu"


def of_everyone(case: Case, device: str) -> bool:
    """In a CPU's cases in which all take part."""
    return device == "cpu" and case.everyone


def of_its_size(case: Case, device: str) -> bool:
    """torchvision's net takes images of 224 pixels."""
    return case.image_size == 224


def compiles(case: Case, device: str) -> bool:
    """Whether compiled contestants, which take minutes on a GPU, take part."""
    return case.everyone or (
        device == "cuda" and case.preset == "paper" and case.precision == "bf16"
    )


@dataclass(frozen=True)
class Contestant:
    """Who takes part: what builds its step, and in which cases, on which devices."""

    build: Callable[[Case, str], Step]
    takes_part: Callable[[Case, str], bool] = always
    precision: str | None = None  # None: the case's

    def prepare(self, case: Case, device: str) -> Step:
        return self.build(self.own(case), device)

    def own(self, case: Case) -> Case:
        """The case in its precision."""
        return replace(case, precision=self.precision or case.precision)


vision = partial(torchs, torchvision)
CONTESTANTS = {
    "ours": Contestant(ours),
    "ours, again": Contestant(ours, lambda case, device: device == "cuda" or case.everyone),
    "ours, bf16": Contestant(ours, on_a_cpu, "bf16"),
    "ours, no compiler": Contestant(partial(ours, mode="composite"), of_everyone),
    "ours, graph": Contestant(graph, lambda case, device: device == "cuda"),
    PEER: Contestant(partial(torchs, plain)),
    f"{PEER}, bf16": Contestant(partial(torchs, plain), on_a_cpu, "bf16"),
    "torchvision": Contestant(vision, of_its_size),
    "torchvision, bf16": Contestant(
        vision, lambda *given: on_a_cpu(*given) and of_its_size(*given), "bf16"
    ),
    "ours, compiled": Contestant(partial(ours, compiled=True), compiles),
    "ours, compiled graph": Contestant(
        partial(graph, compiled=True),
        lambda case, device: device == "cuda" and compiles(case, device),
    ),
    f"{PEER}, compiled": Contestant(partial(torchs, plain, compiled=True), compiles),
    "torchvision, compiled": Contestant(
        partial(vision, compiled=True), lambda *given: compiles(*given) and of_its_size(*given)
    ),
}


def names(case: Case, device: str, only: Sequence[str] = ()) -> list[str]:
    """The names of those that take part; only: those of an option, beside whom the peer is."""
    everyone = [name for name, one in CONTESTANTS.items() if one.takes_part(case, device)]
    return [name for name in everyone if not only or name in (*only, PEER)]


def compare(case: Case, device: str) -> None:
    """Raise RuntimeError where our net and torch's layers do not give the same outputs from the
    same weights."""
    net, x = AlexNet(case.preset, *case.sizes).to(device).eval(), case.inputs(device)[0][:4]
    peer = plain(case).eval()
    peer.load_state_dict(net.export_merged())
    with torch.no_grad():
        outputs, expected = net(x), peer.to(device)(x)
    if not torch.allclose(outputs, expected, 1e-3, 1e-3 * float(expected.abs().max())):
        off = float((outputs - expected).abs().max())
        raise RuntimeError(f"{case}: the nets' outputs differ by {off:.2g}")


# --- ready to be timed: a call that is a turn, and the MiB that a step needs at most ---


def on_gpu(case: Case, name: str, stack: ExitStack) -> tuple[Step, float | None]:
    torch.manual_seed(0)
    step = CONTESTANTS[name].prepare(case, "cuda")
    for _ in range(2):  # compiles
        step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    return step, torch.cuda.max_memory_allocated() / 2**20


def on_cpu(case: Case, name: str, stack: ExitStack) -> tuple[Step, float | None]:
    """In a process of its own, which lives as long as `stack`; memory where the system tells."""
    context = multiprocessing.get_context("spawn")
    pool = stack.enter_context(ProcessPoolExecutor(1, context, follow_parent))
    peak = pool.submit(begin, case, name, torch.get_num_threads()).result()
    return lambda: pool.submit(turn, case.repeat).result(), peak


READY: list[Step] = []  # the contestant of a process


def begin(case: Case, name: str, threads: int) -> float | None:
    """In the process: build the contestant, and return the memory that a step needs."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    # libraries count for nobody
    CONTESTANTS[name.replace("torchvision", PEER)].prepare(TINY, "cpu")()
    gc.collect()
    torch.compiler.reset()
    before = resident("VmRSS")
    READY.append(CONTESTANTS[name].prepare(case, "cpu"))
    turn(2)  # compiles
    forget_peak()
    turn(1)
    peak = resident("VmHWM")
    return None if peak is None or before is None else peak - before


def turn(steps: int) -> None:
    for _ in range(steps):
        READY[0]()


def resident(which: str) -> float | None:
    """MiB; None on systems without /proc.

    Args:
        which: "VmRSS" for what it is now, "VmHWM" for the most that it was.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(which)), None)


def forget_peak() -> None:
    """Let "VmHWM" begin anew, with what there is now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
