"""Batches in an order that follows from (seed, epoch): the same for every process, and exact on
resume from any step.

A pack that fits into the device's memory is copied to it once, and batches say which of its images
they are: they are gathered where they are cropped. A larger one streams: threads copy the images of
coming batches into a ring of pinned buffers and from those to the device, while the device works on
earlier ones. The batches are the same bytes either way, and on every device.
"""

import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alexnet import rng
from alexnet.data.augment import Indexed
from alexnet.data.pack import Pack
from alexnet.processes import cores

# images uint8 (n, S, S, 3); labels, numbers in the pack, positions in the epoch: int64 (n,)
Batch = tuple[Tensor | Indexed, Tensor, Tensor, Tensor]
Shard = tuple[int, int]  # (d, D): the d-th of D parts of every batch

DEPTH = 4  # batches in the ring
RESIDENT_SHARE = 0.5  # of a device's free memory, for a pack that stays: the rest is for the net


def steps_per_epoch(pack: Pack, batch_size: int) -> int:
    """Count the steps of an epoch. The last, short batch counts as one, as in 2012.

    Args:
        pack: The training images.
        batch_size: Images of a step.
    """
    return -(-len(pack) // batch_size)


def order(
    pack: Pack, batch_size: int, seed: int, epoch: int, start: int = 0, shard: Shard = (0, 1)
) -> Iterator[tuple[Tensor, Tensor]]:
    """Which images make up the batches of an epoch.

    Args:
        pack: The data set.
        batch_size: Images of a batch; the last one of an epoch may be shorter.
        seed: Of the order.
        epoch: From 0.
        start: The batch to begin with.
        shard: A part of every batch, for data parallelism: of a batch of n, (d, D) has images
            n d // D to n (d + 1) // D. The parts make up the batch; some may be empty.

    Yields:
        The images' numbers in the pack, and their positions in the epoch, int64 (n,).

    Raises:
        ValueError: There is no such part.
    """
    part, parts = shard
    if not 0 <= part < parts:
        raise ValueError(f"shard {shard}: give (d, D) with d in 0..D-1")
    shuffled = rng.permutation(rng.key(rng.ORDER, seed, epoch), len(pack))
    for position in range(start * batch_size, len(pack), batch_size):
        n = min(batch_size, len(pack) - position)
        positions = torch.arange(position + n * part // parts, position + n * (part + 1) // parts)
        yield shuffled[positions], positions


def batches(
    pack: Pack, batch_size: int, seed: int, epoch: int, start: int = 0, shard: Shard = (0, 1)
) -> Iterator[Batch]:
    """The batches of `order`, one after the other, on the CPU.

    Args:
        pack: The data set.
        batch_size: Images of a batch; see `order`, as for the other arguments.
        seed: Of the order.
        epoch: From 0.
        start: The batch to begin with.
        shard: A part of every batch.
    """
    for ids, positions in order(pack, batch_size, seed, epoch, start, shard):
        yield torch.from_numpy(pack.gather(ids.numpy())), _labels(pack, ids), ids, positions


def _labels(pack: Pack, ids: Tensor) -> Tensor:
    return torch.from_numpy(pack.labels[ids.numpy()]).long()


class Loader:
    """The same batches, made ready ahead of their use: images and labels on `device`; numbers and
    positions, from which augmentation and dropout draw, on the CPU.

    One loader may serve many epochs; an epoch that is left early lets its threads go.

    Args:
        pack: The data set.
        batch_size: See `order`; so are `seed` and `shard`.
        device: Where images and labels go.
        resident: Whether the whole pack is kept on the device; by default where it fits, on a
            device that is no CPU.
        threads: Those that copy; by default up to four.
    """

    def __init__(
        self,
        pack: Pack,
        batch_size: int,
        seed: int,
        device: str | torch.device = "cpu",
        shard: Shard = (0, 1),
        *,
        resident: bool | None = None,
        threads: int | None = None,
    ):
        self.pack, self.batch_size, self.seed, self.shard = pack, batch_size, seed, shard
        self.images = Images(pack, device, resident=resident, threads=threads)

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch, from the `start`-th on.

        Args:
            epoch: From 0.
            start: The batch to begin with, from 0.
        """
        plan = list(order(self.pack, self.batch_size, self.seed, epoch, start, self.shard))
        images = self.images.batches(ids for ids, _ in plan)
        for batch, (ids, positions) in zip(images, plan, strict=True):
            yield batch, self.images.labels(ids), ids, positions


class Images:
    """A pack's images on a device, in any order. For the arguments see `Loader`."""

    def __init__(
        self,
        pack: Pack,
        device: str | torch.device = "cpu",
        *,
        resident: bool | None = None,
        threads: int | None = None,
    ):
        self.pack, self.device = pack, torch.device(device)
        self.threads = threads or min(4, cores())
        self.resident = fits(pack, self.device) if resident is None else resident
        self._all: Tensor | None = None  # (N, S, S, 3), on the device

    def of(self, numbers: Iterable[Tensor]) -> Iterator[Tensor]:
        """The images uint8 (n, S, S, 3) of each of `numbers`, int64 (n,) on the CPU."""
        for images in self.batches(numbers):
            yield images.gathered() if isinstance(images, Indexed) else images

    def batches(self, numbers: Iterable[Tensor]) -> Iterator[Tensor | Indexed]:
        """The same as augmentation takes them: of a pack that stays on the device ungathered."""
        if not self.resident:
            return self._stream(numbers)
        return (Indexed(self._everything(), self._sent(ids)) for ids in numbers)

    def labels(self, ids: Tensor) -> Tensor:
        """int64 (n,), on the device."""
        return self._sent(_labels(self.pack, ids))

    def _sent(self, small: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return small.to(self.device)
        return small.pin_memory().to(self.device, non_blocking=True)

    def _everything(self) -> Tensor:
        if self._all is None:
            size, count = self.pack.size, len(self.pack)
            everything = torch.empty(count, size, size, 3, dtype=torch.uint8, device=self.device)
            pieces = torch.arange(count).split(max(1, 2**26 // (3 * size * size)))
            for ids, images in zip(pieces, self._stream(pieces), strict=True):
                everything[ids[0] : ids[0] + len(ids)].copy_(images)
            self._all = everything
        return self._all

    def _stream(self, numbers: Iterable[Tensor]) -> Iterator[Tensor]:
        return Ring(self.pack, self.device, self.threads).run(numbers)


def fits(pack: Pack, device: torch.device) -> bool:
    """Whether the pack's pixels may stay on the device: on a GPU, if they take no more than
    RESIDENT_SHARE of its free memory.

    Args:
        pack: The data set.
        device: Where it would stay.
    """
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return pack.pixel_bytes <= RESIDENT_SHARE * free


# --- the ring -------------------------------------------------------------------------------------


@dataclass
class _Slot:
    """A host buffer, uint8 (n, S, S, 3), pinned where the device is a GPU; and when what it held
    has arrived there."""

    buffer: Tensor | None = None
    arrived: "torch.cuda.Event | None" = None


class Ring:
    """`depth` buffers that go round: threads fill them with the images of coming batches, each a
    piece of a batch; one more sends a batch that is whole to the device, on a stream of its own; a
    buffer is filled again when what it held has arrived.

    On a CPU there is nowhere to send them: what is filled is handed out, and the slot gets a new
    buffer. The rest is the same ring, which tests go through.
    """

    def __init__(self, pack: Pack, device: torch.device, threads: int = 1, depth: int = DEPTH):
        self.pack, self.device, self.threads, self.depth = pack, device, threads, depth
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None

    def run(self, numbers: Iterable[Tensor]) -> Generator[Tensor, None, None]:
        """The images of each of `numbers`, in order, on the device. Left early, the threads end."""
        free, under_way = [_Slot() for _ in range(self.depth)], deque[tuple[_Slot, Future]]()
        coming = iter(numbers)
        fillers = ThreadPoolExecutor(self.threads, "loader")
        sender = ThreadPoolExecutor(1, "loader-sender")
        try:
            while True:
                while free and (ids := next(coming, None)) is not None:
                    slot = free.pop()
                    pieces = self._fill(slot, ids.numpy(), fillers)
                    under_way.append((slot, sender.submit(self._send, slot, len(ids), pieces)))
                if not under_way:
                    return
                slot, sent = under_way.popleft()
                images = sent.result()
                if slot.arrived is not None:
                    torch.cuda.current_stream(self.device).wait_event(slot.arrived)
                    # Its memory may be used anew only after what reads it now.
                    images.record_stream(torch.cuda.current_stream(self.device))
                free.append(slot)
                yield images
        finally:  # batches under way are lost
            for pool in (fillers, sender):
                pool.shutdown(cancel_futures=True)

    def _fill(self, slot: _Slot, ids: np.ndarray, fillers: ThreadPoolExecutor) -> list[Future]:
        size, n = self.pack.size, len(ids)
        pinned, arrived = self._copying is not None, slot.arrived
        if slot.buffer is None or len(slot.buffer) < n or not pinned:
            slot.buffer = torch.empty(n, size, size, 3, dtype=torch.uint8, pin_memory=pinned)
        pixels, pieces = slot.buffer.numpy(), max(1, min(self.threads, n))

        def fill(begin: int, end: int) -> None:
            if arrived is not None:
                arrived.synchronize()  # what the buffer held is being read until then
            self.pack.gather(ids[begin:end], pixels[begin:end])

        edges = [n * i // pieces for i in range(pieces + 1)]
        return [fillers.submit(fill, *ends) for ends in itertools.pairwise(edges)]

    def _send(self, slot: _Slot, n: int, pieces: list[Future]) -> Tensor:
        for piece in pieces:
            piece.result()
        assert slot.buffer is not None
        if self._copying is None:
            return slot.buffer
        with torch.cuda.device(self.device), torch.cuda.stream(self._copying):
            images = slot.buffer[:n].to(self.device, non_blocking=True)
            slot.arrived = torch.cuda.Event()
            slot.arrived.record(self._copying)
        return images
