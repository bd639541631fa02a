"""How columns meet (section 3.2 of the paper).

The network asks for a gathering of maps and a sum of partial logits, and does not know where the
columns live. `Together` keeps all columns in one process. `Across` spreads them over the ranks of a
process group, where they meet by collectives behind the same methods: one all-gather before each
layer that reads both columns, whose gradient is a reduce-scatter, and one all-reduce of the partial
logits, whose gradient needs no message, since every rank holds the whole of it.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from alexnet.errors import require


class RankLost(RuntimeError):
    """Another rank no longer answers. That one says why, or was killed."""


@contextmanager
def reaching_others() -> Iterator[None]:
    """Turn failures of messages, which say at length how but not what to do, into `RankLost`.

    The block must do nothing but send or wait for messages.
    """
    try:
        yield
    except RuntimeError as error:
        raise RankLost(
            "lost another rank, which says why or was killed; --resume goes on from the last "
            "checkpoint"
        ) from error


class Stopwatch:
    """Counts the seconds that blocks take."""

    def __init__(self):
        self._host = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self, cuda: bool = False) -> Iterator[None]:
        """Time the block; `cuda`: what it has a GPU do."""
        if cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self._events.append((begin, end))
        else:
            start = time.perf_counter()
            yield
            self._host += time.perf_counter() - start

    def seconds(self) -> float:
        """Seconds since the last call. On a GPU the device must have been waited for."""
        spent = self._host + sum(begin.elapsed_time(end) for begin, end in self._events) / 1e3
        self._host, self._events = 0.0, []
        return spent


class Together:
    """All columns in one process."""

    def own_columns(self, columns: int) -> range:
        """Numbers of the columns that this process owns, of so many."""
        return range(columns)

    def gather(self, parts: list[Tensor], layer: str) -> Tensor:
        """Bring the maps or units of all columns together for a layer to read.

        Args:
            parts: Of this process's columns, in their order: (N, C, H, W) or (N, C) each.
            layer: The name of the layer that reads them.

        Returns:
            Side by side along dimension 1, column 0 first.
        """
        return torch.cat(parts, dim=1)

    def sum(self, parts: list[Tensor], layer: str) -> Tensor:
        """Add up all columns' partial logits.

        Args:
            parts: Of this process's columns: (N, classes) each.
            layer: The name of the layer that made them.

        Returns:
            (N, classes).
        """
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def seconds(self) -> float:
        """Seconds spent on messages since the last call."""
        return 0.0


class Across(Together):
    """Each rank of a group owns as many columns as every other, rank 0 the first.

    Every rank must pass the same images. `sent` counts the elements that this rank hands to each
    other one, by (layer, "forward" or "backward"): elements of tensors, whatever the transport
    makes of them.

    Args:
        group: The ranks.
        enter: Called before each collective.
    """

    def __init__(self, group: dist.ProcessGroup, enter: Callable[[], None] = lambda: None):
        self.group, self.rank, self.size = group, group.rank(), group.size()
        self.sent: Counter[tuple[str, str]] = Counter()
        self.enter = enter
        self.waited = Stopwatch()

    def own_columns(self, columns: int) -> range:
        require(
            columns % self.size == 0,
            f"{columns} columns cannot be shared evenly by {self.size} ranks; choose a divisor of "
            f"{columns}",
        )
        share = columns // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def gather(self, parts: list[Tensor], layer: str) -> Tensor:
        return _Gather.apply(super().gather(parts, layer), self, layer)

    def sum(self, parts: list[Tensor], layer: str) -> Tensor:
        return _Sum.apply(super().sum(parts, layer), self, layer)

    def seconds(self) -> float:
        return self.waited.seconds()

    @contextmanager
    def message(self, layer: str, direction: str, own: Tensor) -> Iterator[None]:
        """Count and time the block's collective, which hands `own` on.

        Args:
            layer: The name of the layer that it is for.
            direction: "forward" or "backward".
            own: What this rank hands on.
        """
        self.sent[layer, direction] += own.numel()
        self.enter()
        with reaching_others(), self.waited.running(own.is_cuda):
            yield


class _Gather(torch.autograd.Function):
    """All ranks' maps side by side. A rank's own get the sum of all ranks' gradients for them."""

    @staticmethod
    def forward(ctx, own: Tensor, across: Across, layer: str) -> Tensor:
        ctx.across, ctx.layer = across, layer
        last = own.dim() == 4 and own.is_contiguous(memory_format=torch.channels_last)
        ctx.moved = last and not own.is_contiguous()  # (N, H, W, C): maps travel as they lie
        wire = own.movedim(1, -1) if ctx.moved else own.contiguous()
        if not wire.numel():
            return own.repeat(1, across.size, *[1] * (own.dim() - 2))
        gathered = wire.new_empty(across.size * len(wire), *wire.shape[1:])  # rank after rank
        with across.message(layer, "forward", wire):
            dist.all_gather_into_tensor(gathered, wire, group=across.group)
        whole = torch.cat(gathered.chunk(across.size), -1 if ctx.moved else 1)
        return whole.movedim(-1, 1) if ctx.moved else whole

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        across = ctx.across
        if ctx.moved:
            grad = grad.movedim(1, -1)
        parts = torch.cat(grad.chunk(across.size, -1 if ctx.moved else 1))  # rank after rank
        own = parts.new_empty(len(grad), *parts.shape[1:])
        if own.numel():
            with across.message(ctx.layer, "backward", own):
                dist.reduce_scatter_tensor(own, parts, group=across.group)
        return own.movedim(-1, 1) if ctx.moved else own, None, None


class _Sum(torch.autograd.Function):
    """The sum over ranks. Each rank's part has the gradient of the whole."""

    @staticmethod
    def forward(ctx, own: Tensor, across: Across, layer: str) -> Tensor:
        whole = own.clone(memory_format=torch.contiguous_format)
        if whole.numel():
            with across.message(layer, "forward", whole):
                dist.all_reduce(whole, group=across.group)
        return whole

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None
