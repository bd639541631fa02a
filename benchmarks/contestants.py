"""Who takes part in the benchmark of a training step: each is built once, and then called for a
step."""

import gc
import multiprocessing
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import AlexNet, presets, rng
from alexnet.data.augment import Augment
from alexnet.training.learner import Learner
from alexnet.training.precision import PRECISIONS
from alexnet.training.ranks import Ranks
from alexnet.training.steps import GraphStep, StepInput
from benchmarks.memory import forget_peak, resident
from benchmarks.plain import Plain, sgd
from kernel_benchmarks.measure import using
from kernel_benchmarks.record import Row
from kernel_benchmarks.runner import first_line

PEER = "torch layers"  # what ratios refer to
OURS = ("ours", "ours, again", "ours, no compiler", "ours, graph", "ours, compiled")
IMPLEMENTATIONS = (*OURS, PEER, f"{PEER}, compiled", "torchvision", "torchvision, compiled")

Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    name: str
    preset: str
    width: float
    image_size: int
    batch: int
    precision: str
    # how many times as fast as its peer an implementation is to be
    wanted: tuple[tuple[str, float], ...] = ()
    repeat: int = 1  # steps of a turn

    @property
    def sizes(self) -> tuple[int, float, int]:
        """Number of classes, width and image size, as a net takes them."""
        return 1000 if self.image_size == 224 else 40, self.width, self.image_size

    @property
    def stored_size(self) -> int:
        """The side of the images that crops are cut from."""
        return round(self.image_size * 8 / 7)

    def key(self, kind: str) -> Row:
        """The columns that say what is measured. kind: "steps", "parts" or "pack"."""
        name = self.name if kind == "steps" else kind
        net = {"preset": self.preset, "width": self.width, "image_size": self.image_size}
        return {"case": name, **net, "batch": self.batch, "precision": self.precision}

    def learner(self, device: str, compiled: bool = False) -> Learner:
        """The trainer's net and update rule."""
        recipe, dtype = presets.get(self.preset).recipe, PRECISIONS[self.precision]
        net = AlexNet(self.preset, *self.sizes)
        return Learner(net, recipe, Ranks(device), dtype, compiled=compiled)

    def augment(self) -> Augment:
        """The recipe's augmentation, with some mean and some colors."""
        color = {"eigenvalues": np.ones(3), "eigenvectors": np.eye(3)}
        mean = np.full((self.stored_size, self.stored_size, 3), 120, np.float32)
        return Augment(presets.get(self.preset).recipe, mean, self.image_size, color)

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
        return x.to(device), labels.to(device)

    def __str__(self) -> str:
        return f"{self.name}, {self.preset}, batch {self.batch}, {self.precision}"


WANTED = (("ours", 1.5), ("ours, no compiler", 1.0))
CPU = (
    Case("default profile", "paper", 1 / 4, 64, 64, "fp32", WANTED, repeat=40),
    Case("full net", "paper", 1.0, 224, 16, "fp32", WANTED, repeat=3),
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


def compiles(case: Case, device: str) -> bool:
    """Whether compiled contestants take part."""
    return device == "cpu" or (case.preset == "paper" and case.precision == "bf16")


def ours(
    case: Case, device: str, x: Tensor, labels: Tensor, mode: str | None = None,
    compiled: bool = False,
) -> Step:  # fmt: skip
    """A step as the trainer does it. mode: of kernels.using."""
    learner = case.learner(device, compiled)
    rates = [1e-4] * len(learner.parameters)
    keys = rng.key(rng.DROPOUT, 0, 0, torch.arange(case.batch))

    def step() -> None:
        with using(mode):
            learner.backward(x, labels, keys, case.batch)
            learner.update(rates)

    return step


def graph(case: Case, device: str, labels: Tensor) -> Step:
    """A step as the trainer does it in the mode graph: from bytes, augmentation included."""
    learner, augment, images = case.learner(device), case.augment(), case.noise(device)
    whole = GraphStep(learner, augment, case.batch)
    ids, rates = torch.arange(case.batch), [1e-4] * len(learner.parameters)
    keys, draw = rng.key(rng.DROPOUT, 0, 0, ids), augment.draw(ids, ids, 0)
    return lambda: whole.send(StepInput(images, draw, labels, keys, rates, case.batch))


def torchs(
    build: Callable[[], nn.Module], case: Case, device: str, x: Tensor, labels: Tensor,
    compiled: bool = False,
) -> Step:  # fmt: skip
    """Any net, torch's loss and torch's SGD; bf16 by autocast, as is usual."""
    net = build().to(device).train()
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
    """What builds each contestant, by name."""
    if device == "cuda":
        x = x.contiguous(memory_format=torch.channels_last)
    rest = (case, device, x, labels)
    builders: dict[str, Callable[[], Step]] = dict.fromkeys(OURS[:2], partial(ours, *rest))
    if device == "cpu":
        builders["ours, no compiler"] = partial(ours, *rest, mode="composite")
    else:
        builders["ours, graph"] = partial(graph, case, device, labels)
    nets: dict[str, Callable[[], nn.Module]] = {PEER: partial(Plain, case.preset, *case.sizes)}
    if case.image_size == 224:
        from torchvision.models import alexnet

        nets["torchvision"] = partial(alexnet, num_classes=case.sizes[0])
    builders |= {name: partial(torchs, net, *rest) for name, net in nets.items()}
    if compiles(case, device):
        builders["ours, compiled"] = partial(ours, *rest, compiled=True)
        for name, net in nets.items():
            builders[f"{name}, compiled"] = partial(torchs, net, *rest, compiled=True)
    return builders


def names(case: Case, device: str, only: list[str] | None) -> set[str]:
    """The names of those that take part; only: those of an option, beside whom the peer is."""
    everyone = set(contestants(case, device, torch.empty(0, 3, 1, 1), torch.empty(0)))
    return everyone & {*only, PEER} if only else everyone


def compare(case: Case, device: str, x: Tensor) -> None:
    """Raise RuntimeError where our net and torch's layers do not give the same outputs from the
    same weights."""
    net = AlexNet(case.preset, *case.sizes).to(device).eval()
    plain = Plain(case.preset, *case.sizes).eval()
    plain.load_state_dict(net.export_merged())
    with torch.no_grad():
        outputs, expected = net(x[:4]), plain.to(device)(x[:4])
    if not torch.allclose(outputs, expected, 1e-3, 1e-3 * float(expected.abs().max())):
        off = float((outputs - expected).abs().max())
        raise RuntimeError(f"{case}: the nets' outputs differ by {off:.2g}")


# --- on a CPU: in a process of its own ---


class Apart:
    """A contestant in a process of its own; a call is a turn.

    Attributes:
        peak: What memory a step needs at most, in MiB, where the system tells.

    Raises:
        RuntimeError: Something went wrong in the process; the message says what.
    """

    def __init__(self, case: Case, name: str):
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        arguments = (case, name, torch.get_num_threads(), end)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        end.close()
        self.peak = self.answer()

    def answer(self) -> float | None:
        try:
            answer = self.pipe.recv()
        except EOFError:
            answer = "its process died; is there too little memory?"
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer

    def __call__(self) -> None:
        self.pipe.send("step")
        self.answer()

    def stop(self) -> None:
        self.pipe.close()
        self.process.join()


def serve(case: Case, name: str, threads: int, pipe: Connection) -> None:
    """In the process: build the contestant, answer with the memory that a step needs, and do a turn
    at each word. What goes wrong is an answer, too."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    try:
        # libraries are no step's memory
        contestants(TINY, "cpu", *TINY.inputs("cpu"))[name.replace("torchvision", PEER)]()()
        gc.collect()
        torch.compiler.reset()
        before = resident("VmRSS")
        step = contestants(case, "cpu", *case.inputs("cpu"))[name]()
        for _ in range(2):  # compiles
            step()
        forget_peak()
        step()
        peak = resident("VmHWM")
        pipe.send(None if peak is None or before is None else peak - before)
        while pipe.recv():
            for _ in range(case.repeat):
                step()
            pipe.send(None)
    except (EOFError, KeyboardInterrupt):  # that was all, or the whole program was stopped
        pass
    except Exception as error:  # what cannot run is a finding
        pipe.send(first_line(error))
