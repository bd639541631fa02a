"""A training step that the host does not wait in: augmentation, both passes and the update as one function of tensors that stay where they
are, and on a GPU as one CUDA graph, which the host starts with a single call.

The host copies in what changes from step to step: the pixels, what was drawn for them, labels, keys, rates. It may send the next step
before it reads the loss of the last. Where a loss is no number, the rates become 0 on the device, for that step and all that follow, and
with them weights and velocities stay what they were: the run stops as the plain one does.
"""

import torch
from torch import Tensor

from alexnet.data.augment import Augment
from alexnet.training.learner import Learner

WARM_UP = 3  # steps before a capture, in which kernels are compiled and tuned; at a rate of 0 they change nothing

Draw = tuple[Tensor, Tensor, Tensor, float]  # of Augment.draw


class Totals:
    """A step's summed loss in nats and its errors, on their way from the device."""

    def __init__(self, there: Tensor):
        self.event = torch.cuda.Event() if there.device.type == "cuda" else None
        self.here = there.to("cpu", non_blocking=True, copy=True)
        if self.event is not None:
            self.event.record()

    def read(self) -> tuple[float, float]:
        """Waits for that step, and not for what was sent to the device after it."""
        if self.event is not None:
            self.event.synchronize()
        loss, wrong = self.here.tolist()
        return loss, wrong


class WholeStep:
    """Steps of `count` images of `size` pixels each way, in one process. A short last batch goes through the plain path."""

    def __init__(self, learner: Learner, augment: Augment, size: int, count: int):
        device = learner.ranks.device
        self.learner, self.augment, self.count = learner, augment, count
        self.images = torch.zeros(count, size, size, 3, dtype=torch.uint8, device=device)
        self.offsets = torch.zeros(count, 2, dtype=torch.int64, device=device)
        self.flips = torch.zeros(count, dtype=torch.bool, device=device)
        self.shift = torch.zeros(count, 3, device=device)
        self.labels, self.keys = (
            torch.zeros(count, dtype=torch.int64, device=device) for _ in range(2)
        )
        self.rates = torch.zeros(
            len(learner.parameters),
            dtype=torch.float64 if device.type == "cpu" else torch.float32,
            device=device,
        )
        self.totals = torch.zeros(2, dtype=torch.float64, device=device)  # summed loss, errors
        self.well = torch.ones((), dtype=torch.bool, device=device)  # no loss so far was no number
        self.graphs: dict[
            float, torch.cuda.CUDAGraph
        ] = {}  # by the scale of the pixels, which the kernel holds as a number

    def __call__(
        self, images: Tensor, draw: Draw, labels: Tensor, keys: Tensor, rates: list[float]
    ) -> Totals:
        """One step, which the host does not wait for."""
        offsets, flips, shift, scale = draw
        for here, given in (
            (self.images, images), (self.offsets, offsets), (self.flips, flips), (self.shift, shift), (self.labels, labels),
            (self.keys, keys), (self.rates, torch.tensor(rates, dtype=self.rates.dtype)),
        ):  # fmt: skip
            here.copy_(given, non_blocking=True)
        if self.images.device.type != "cuda":
            self.step(scale)
            return Totals(self.totals)
        if scale not in self.graphs:
            self.graphs[scale] = self._capture(scale)
        self.graphs[scale].replay()
        return Totals(self.totals)

    def step(self, scale: float) -> None:
        """Reads and writes nothing but tensors that stay, and asks none for its value."""
        x = self.augment.cut(self.images, self.offsets, self.flips, self.shift, scale).to(
            self.learner.dtype
        )
        loss, wrong = self.learner.gradients_of(x, self.labels, self.keys, self.count)
        self.well.logical_and_(loss.isfinite())
        self.learner.update(torch.where(self.well, self.rates, 0.0).unbind())
        self.totals.copy_(torch.stack([loss.double(), wrong.double()]))

    def _capture(self, scale: float) -> torch.cuda.CUDAGraph:
        asked = self.rates.clone()
        self.rates.zero_()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.step(scale)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step(scale)
        self.rates.copy_(asked)
        return graph
