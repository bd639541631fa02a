"""Training steps: one after the other, or as one CUDA graph that the host does not wait in.

Both kinds take batches by `step(batch)`, which returns the result of the last step that is known,
and `last()`, which returns what is still under way.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

import alexnet_kernels as kernels
from alexnet.data.augment import Augment, Indexed
from alexnet.errors import require
from alexnet.exchange import Stopwatch
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

    images: Tensor | Indexed  # uint8 (n, S, S, 3)
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


class Pending:
    """A step's summed loss in nats and its errors, on their way from the device."""

    def __init__(self, totals: Tensor):
        self.totals = totals.to("cpu", non_blocking=True, copy=True)
        self.event = torch.cuda.current_stream().record_event() if totals.is_cuda else None

    def read(self) -> tuple[float, float]:
        """Wait for that step, and not for what was sent to the device after it."""
        if self.event is not None:
            self.event.synchronize()
        loss, errors = self.totals.tolist()
        return loss, errors


def check_graph(device: torch.device, dtype: torch.dtype) -> None:
    """Raise InputError where a GPU cannot record a step of this type: operators in plain torch ask
    tensors for their values on the way.

    Args:
        device: Where the step would be recorded.
        dtype: Of the net's weights.
    """
    form = kernels.form_of(device, dtype)
    remedy = "use the mode plain" if dtype == torch.float64 else "unset ALEXNET_KERNELS"
    require(
        device.type != "cuda" or form == "triton",
        f"mode graph records Triton's kernels, and the operators' form for {dtype} on this GPU is "
        f"{form}; {remedy}",
    )


@contextmanager
def timed_convolutions() -> Iterator[None]:
    """Let cuDNN time its algorithms once for each shape, and take the fastest: a graph's shapes
    stay what they are."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class EagerStep:
    """Steps one after the other, each known when the next begins.

    Args:
        count: Images in a full batch.
        flags: Gives this rank's flags.
    """

    def __init__(
        self, learner: Learner, augment: Augment, count: int, flags: Callable[[], Flags] = Flags
    ):
        self.learner, self.augment, self.count, self.flags = learner, augment, count, flags
        self.feeding = Stopwatch()  # what augmentation takes, and whoever makes batches

    def step(self, batch: StepInput) -> StepResult | None:
        with self.feeding.running():
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
    on a GPU one CUDA graph. The host copies in what changes from step to step: the pixels, or of a
    pack that stays on the device the images' numbers; what was drawn for them, labels, keys, rates.
    It sends a step before it reads the loss of the one before, so that the device never waits: one
    step is under way, and `step` returns the result of the one before. A short last batch is an
    eager step.

    Where a loss is not finite, the rates become 0 on the device for that step and all that follow,
    and with them weights and velocities stay what they were: the run stops as the eager one does.

    Args:
        count: Images in a full batch.
    """

    def __init__(
        self, learner: Learner, augment: Augment, count: int, flags: Callable[[], Flags] = Flags
    ):
        super().__init__(learner, augment, count, flags)
        device = learner.ranks.device
        check_graph(device, learner.dtype)
        self._under_way: Pending | StepResult | None = None
        # of the last full batch: all images of a pack that stays on the device, if it does; images
        # or their index, draw, labels, keys
        self.pixels: Tensor | None = None
        self.inputs: list[Tensor] = []
        self.sources: dict[int, tuple[Tensor | None, list[Tensor]]] = {}  # these two, by the pack
        rate_type = torch.float64 if device.type == "cpu" else torch.float32
        self.rates = torch.zeros(len(learner.parameters), dtype=rate_type, device=device)
        self.totals = torch.zeros(2, dtype=torch.float64, device=device)  # summed loss, errors
        self.finite = torch.ones((), dtype=torch.bool, device=device)  # all losses so far
        # by the pack, and the scale of the crops, which their kernel holds as a number
        self.graphs: dict[tuple[int, float], torch.cuda.CUDAGraph] = {}

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
        *drawn, scale = batch.draw
        pixels, first = None, batch.images
        if isinstance(first, Indexed):
            pixels, first = first.pixels, first.index
        new, source = (first, *drawn, batch.labels, batch.keys), id(pixels)
        if source not in self.sources:
            own = [value.to(self.rates.device, copy=True) for value in new]
            self.sources[source] = pixels, own
        self.pixels, self.inputs = self.sources[source]
        rates = torch.tensor(batch.rates, dtype=self.rates.dtype)
        for tensor, value in zip((*self.inputs, self.rates), (*new, rates), strict=True):
            tensor.copy_(value, non_blocking=True)
        if not self.rates.is_cuda:
            self.compute(scale)
        else:
            if (source, scale) not in self.graphs:
                self.graphs[source, scale] = self._capture(scale)
            self.graphs[source, scale].replay()
        return Pending(self.totals)

    def compute(self, scale: float) -> None:
        """The step itself: reads and writes nothing but tensors that stay, and asks none for its
        value."""
        first, offsets, flips, shift, labels, keys = self.inputs
        images = first if self.pixels is None else Indexed(self.pixels, first)
        x = self.augment.cut(images, offsets, flips, shift, scale).to(self.learner.dtype)
        loss, errors = self.learner.gradients_of(x, labels, keys, self.count)
        self.finite.logical_and_(loss.isfinite())
        self.learner.update(torch.where(self.finite, self.rates, 0.0).unbind())
        for total, value in zip(self.totals, (loss, errors), strict=True):
            total.copy_(value)

    def _capture(self, scale: float) -> torch.cuda.CUDAGraph:
        """Record `compute` as a graph; weights, velocities and buffers stay what they are."""
        rates, buffers = self.rates.clone(), list(self.learner.buffers.values())
        before = [buffer.clone() for buffer in buffers]
        self.rates.zero_()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), timed_convolutions():
            for _ in range(WARM_UP):
                self.compute(scale)
        torch.cuda.current_stream().wait_stream(stream)
        check_graph(self.rates.device, self.learner.dtype)  # by now a launch may have failed
        # Other threads, such as a loader's, go on with what a thread that records may not do. One
        # pool holds what is between the results, of which none outlives its graph's replay.
        pool = next((graph.pool() for graph in self.graphs.values()), None)
        graph = torch.cuda.CUDAGraph()
        mode = torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local")
        with timed_convolutions(), mode:
            self.compute(scale)
        self.rates.copy_(rates)
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        return graph
