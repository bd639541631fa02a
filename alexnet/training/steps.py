"""Training steps: one after the other, or as one CUDA graph that the host does not wait in.

Both kinds take batches by `step(batch)`, which returns the result of the last step that is known,
and `last()`, which returns what is still under way.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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


class StepInput(NamedTuple):
    """What one step needs; all tensors hold this row of ranks' share of the batch."""

    images: Tensor  # uint8 (n, S, S, 3)
    draw: Draw  # of each image's crop, reflection and color shift
    labels: Tensor  # int64 (n,)
    keys: Tensor  # what dropout draws from, int64 (n,)
    rates: list[float]  # one a parameter
    size: int  # images, over all rows


@dataclass(frozen=True)
class StepResult:
    """What came of a step, over all ranks."""

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
    """

    def __init__(self, learner: Learner, augment: Augment, flags: Callable[[], Flags] = Flags):
        self.learner, self.augment, self.flags = learner, augment, flags
        self.feeding = Stopwatch()  # what augmentation takes, and whoever makes batches

    def step(self, batch: StepInput) -> StepResult | None:
        with self.feeding:
            x = self.augment.cut(batch.images, *batch.draw)
        share = self.learner.backward(x, batch.labels, batch.keys, batch.size)
        (loss, errors), flags = self.learner.ranks.totals(share, self.flags())
        if math.isfinite(loss):
            self.learner.update(batch.rates)
        return StepResult(batch.size, loss, errors, Flags(*flags))

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
    ):
        super().__init__(learner, augment, flags)
        self.count, device = count, learner.ranks.device
        self._under_way: Pending | StepResult | None = None
        zeros = partial(torch.zeros, device=device)
        self.images = zeros(count, size, size, 3, dtype=torch.uint8)
        self.offsets, self.shift = zeros(count, 2, dtype=torch.int64), zeros(count, 3)
        self.flips = zeros(count, dtype=torch.bool)
        self.labels, self.keys = (zeros(count, dtype=torch.int64) for _ in range(2))
        rate_type = torch.float64 if device.type == "cpu" else torch.float32
        self.rates = zeros(len(learner.parameters), dtype=rate_type)
        self.totals = zeros(2, dtype=torch.float64)  # summed loss, errors
        self.finite = torch.ones((), dtype=torch.bool, device=device)  # all losses so far
        # by the scale of the pixels, which the kernel holds as a number
        self.graphs: dict[float, torch.cuda.CUDAGraph] = {}

    def step(self, batch: StepInput) -> StepResult | None:
        if len(batch.labels) == self.count:
            pending = self.send(batch)
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
        return StepResult(self.count, *under_way.read(), self.flags())

    def send(self, batch: StepInput) -> Pending:
        """Start one step of a full batch, without waiting for it."""
        offsets, flips, shift, scale = batch.draw
        rates = torch.tensor(batch.rates, dtype=self.rates.dtype)
        new = (batch.images, offsets, flips, shift, batch.labels, batch.keys, rates)
        held = (self.images, self.offsets, self.flips, self.shift, self.labels, self.keys)
        for tensor, value in zip((*held, self.rates), new, strict=True):
            tensor.copy_(value, non_blocking=True)
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
