"""Training steps: one after the other, or as one CUDA graph that the host does not wait in.

Both kinds take batches by `step(batch)`, which returns the result of the last step that is known,
and `last()`, which returns what is still under way.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from alexnet.data.augment import Augment
from alexnet.training.learner import Learner

WARM_UP = 3  # steps before a capture, in which kernels are compiled and tuned; their rate is 0

Draw = tuple[Tensor, Tensor, Tensor, float]  # of Augment.draw


class Flags(NamedTuple):
    """What the ranks tell each other after each step."""

    stop: bool = False  # a signal asked the run to stop
    failed: bool = False  # a checkpoint could not be written
    due: bool = False  # it is time for a checkpoint


@dataclass
class Batch:
    """What one step needs; all tensors hold this row of ranks' share of the batch."""

    images: Tensor  # uint8 (n, S, S, 3)
    labels: Tensor  # int64 (n,)
    ids: Tensor  # numbers in the pack, int64 (n,)
    positions: Tensor  # in the epoch's order, int64 (n,)
    keys: Tensor  # what dropout draws from, int64 (n,)
    rates: list[float]  # one a parameter
    epoch: int
    color: bool  # color shifts are on
    count: int  # images, over all rows


@dataclass(frozen=True)
class StepResult:
    """What a step found, over all ranks."""

    count: int  # images
    loss: float  # summed over the images, in nats; not finite: the step changed nothing
    errors: float
    flags: Flags


class Stopwatch:
    """Counts the seconds spent in `with` blocks."""

    def __init__(self) -> None:
        self._spent = self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._spent += time.monotonic() - self._began

    def seconds(self) -> float:
        """Seconds since the last call."""
        spent, self._spent = self._spent, 0.0
        return spent


class Pending:
    """A step's summed loss in nats and its errors, on their way from the device."""

    def __init__(self, totals: Tensor):
        self.event = torch.cuda.Event() if totals.device.type == "cuda" else None
        self.totals = totals.to("cpu", non_blocking=True, copy=True)
        if self.event is not None:
            self.event.record()

    def read(self) -> tuple[float, float]:
        """Wait for that step, and not for what was sent to the device after it."""
        if self.event is not None:
            self.event.synchronize()
        loss, errors = self.totals.tolist()
        return loss, errors


class EagerStep:
    """Steps one after the other, each known when the next begins.

    Args:
        flags: Gives this rank's flags.
        feeding: Counts the seconds that augmentation takes.
    """

    def __init__(
        self,
        learner: Learner,
        augment: Augment,
        flags: Callable[[], Flags] = Flags,
        feeding: Stopwatch | None = None,
    ):
        self.learner, self.augment = learner, augment
        self.flags, self.feeding = flags, feeding or Stopwatch()

    def step(self, batch: Batch) -> StepResult | None:
        with self.feeding:
            x = self.augment.train(
                batch.images, batch.ids, batch.positions, batch.epoch, batch.color
            )
        share = self.learner.backward(x, batch.labels, batch.keys, batch.count)
        (loss, errors), flags = self.learner.ranks.totals(share, self.flags())
        if math.isfinite(loss):
            self.learner.update(batch.rates)
        return StepResult(batch.count, loss, errors, Flags(*flags))

    def last(self) -> StepResult | None:
        return None


class GraphStep(EagerStep):
    """Steps that the host does not wait in, in one process.

    Augmentation, both passes and the update are one function of tensors that stay where they are,
    on a GPU one CUDA graph. The host copies in what changes from step to step: the pixels, what was
    drawn for them, labels, keys, rates. It sends a step before it reads the loss of the one before,
    so that the device never waits: one step is under way, and `step` returns the result of the one
    before. A short last batch is an eager step.

    Where a loss is not finite, the rates become 0 on the device for that step and all that follow,
    and with them weights and velocities stay what they were: the run stops as the eager one does.

    Args:
        size: Side of the batches' images.
        count: Images in a full batch.
    """

    def __init__(
        self,
        learner: Learner,
        augment: Augment,
        size: int,
        count: int,
        flags: Callable[[], Flags] = Flags,
        feeding: Stopwatch | None = None,
    ):
        super().__init__(learner, augment, flags, feeding)
        self.count = count
        self._under_way: Pending | StepResult | None = None
        device = learner.ranks.device
        rate_type = torch.float64 if device.type == "cpu" else torch.float32
        self.images = torch.zeros(count, size, size, 3, dtype=torch.uint8, device=device)
        self.offsets = torch.zeros(count, 2, dtype=torch.int64, device=device)
        self.flips = torch.zeros(count, dtype=torch.bool, device=device)
        self.shift = torch.zeros(count, 3, device=device)
        self.labels = torch.zeros(count, dtype=torch.int64, device=device)
        self.keys = torch.zeros(count, dtype=torch.int64, device=device)
        self.rates = torch.zeros(len(learner.parameters), dtype=rate_type, device=device)
        self.totals = torch.zeros(2, dtype=torch.float64, device=device)  # summed loss, errors
        self.finite = torch.ones((), dtype=torch.bool, device=device)  # all losses so far
        # by the scale of the pixels, which the kernel holds as a number
        self.graphs: dict[float, torch.cuda.CUDAGraph] = {}

    def step(self, batch: Batch) -> StepResult | None:
        if len(batch.ids) == self.count:
            with self.feeding:
                draw = self.augment.draw(batch.ids, batch.positions, batch.epoch, batch.color)
            pending = self.send(batch.images, draw, batch.labels, batch.keys, batch.rates)
            before, self._under_way = self.last(), pending
            return before
        before = self.last()
        if before is None or math.isfinite(before.loss):
            self._under_way = super().step(batch)
        return before

    def last(self) -> StepResult | None:
        under_way, self._under_way = self._under_way, None
        if not isinstance(under_way, Pending):
            return under_way
        loss, errors = under_way.read()
        return StepResult(self.count, loss, errors, self.flags())

    def send(
        self, images: Tensor, draw: Draw, labels: Tensor, keys: Tensor, rates: list[float]
    ) -> Pending:
        """Start one step, without waiting for it."""
        offsets, flips, shift, scale = draw
        for held, new in (
            (self.images, images),
            (self.offsets, offsets),
            (self.flips, flips),
            (self.shift, shift),
            (self.labels, labels),
            (self.keys, keys),
            (self.rates, torch.tensor(rates, dtype=self.rates.dtype)),
        ):
            held.copy_(new, non_blocking=True)
        if self.images.device.type != "cuda":
            self.compute(scale)
        else:
            if scale not in self.graphs:
                self.graphs[scale] = self._capture(scale)
            self.graphs[scale].replay()
        return Pending(self.totals)

    def compute(self, scale: float) -> None:
        """The step itself: reads and writes nothing but tensors that stay, and asks none for its
        value."""
        x = self.augment.cut(self.images, self.offsets, self.flips, self.shift, scale)
        loss, errors = self.learner.gradients_of(
            x.to(self.learner.dtype), self.labels, self.keys, self.count
        )
        self.finite.logical_and_(loss.isfinite())
        self.learner.update(torch.where(self.finite, self.rates, 0.0).unbind())
        self.totals.copy_(torch.stack([loss.double(), errors.double()]))

    def _capture(self, scale: float) -> torch.cuda.CUDAGraph:
        """Record `compute` as a graph; weights, velocities and buffers stay what they are."""
        rates, buffers = self.rates.clone(), list(self.learner.buffers.values())
        before = [buffer.clone() for buffer in buffers]
        self.rates.zero_()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.compute(scale)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.compute(scale)
        self.rates.copy_(rates)
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        return graph
