"""Batches in an order that follows from (seed, epoch): the same for every process, and exact on
resume from any step.

A pack that fits into the device's memory is copied to it once, and batches are gathered by index. A
larger one streams: threads copy the images of coming batches into a ring of pinned buffers and from
those to the device, while the device works on earlier ones. The batches are the same bytes either
way, and on every device.
"""

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from alexnet import rng
from alexnet.data.pack import Pack
from alexnet.processes import cores

# images uint8 (n, S, S, 3); labels, numbers in the pack, positions in the epoch: int64 (n,)
Batch = tuple[Tensor, Tensor, Tensor, Tensor]
Shard = tuple[int, int]  # (d, D): the d-th of D parts of every batch

DEPTH = 4  # batches in the ring
RESIDENT_SHARE = 0.5  # of a device's free memory, for a pack that stays: the rest is for the net


def steps_per_epoch(pack: Pack, batch_size: int) -> int:
    """The last, short batch of an epoch counts as a step, as in 2012."""
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
    """The batches of `order`, one after the other, on the CPU."""
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
        """The batches of an epoch, from the `start`-th on."""
        plan = list(order(self.pack, self.batch_size, self.seed, epoch, start, self.shard))
        images = self.images.of(ids for ids, _ in plan)
        for batch, (ids, positions) in zip(images, plan, strict=True):
            yield batch, self.images.labels(ids), ids, positions


class Images:
    """A pack's images on a device, in any order: `of` gives uint8 (n, S, S, 3) for each of some
    lists of numbers. For the arguments see `Loader`."""

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
        """The images of each of `numbers`, int64 (n,) on the CPU."""
        if not self.resident:
            return self._stream(numbers)
        return (self._everything().index_select(0, self._sent(ids)) for ids in numbers)

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
        ring = Ring(self.pack, self.device, self.threads)
        try:
            yield from ring.run(numbers)
        finally:
            ring.stop()


def fits(pack: Pack, device: torch.device) -> bool:
    """Whether the pack's pixels may stay on the device: on a GPU, if they take no more than
    RESIDENT_SHARE of its free memory."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return pack.pixel_bytes <= RESIDENT_SHARE * free


# --- the ring -------------------------------------------------------------------------------------


@dataclass
class _Slot:
    """A host buffer and what is in it on its way to the device. `ready` says that the threads have
    done their pieces."""

    buffer: Tensor | None = None  # uint8 (n, S, S, 3), pinned where the device is a GPU
    result: Tensor | None = None
    arrived: "torch.cuda.Event | None" = None
    pieces: int = 0
    error: BaseException | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    ready: threading.Event = field(default_factory=threading.Event)


class Ring:
    """`depth` buffers that go round: threads fill them with the images of coming batches, each a
    piece of a batch; the last to finish sends the batch to the device, on a stream of its own; a
    buffer is filled again when what it held has arrived.

    On a CPU there is nowhere to send them: what is filled is handed out, and the slot gets a new
    buffer. The rest is the same ring, which tests go through.
    """

    def __init__(self, pack: Pack, device: torch.device, threads: int = 1, depth: int = DEPTH):
        self.pack, self.device, self.cuda = pack, device, device.type == "cuda"
        self._free = deque(_Slot() for _ in range(depth))
        self._tasks: queue.SimpleQueue[tuple[_Slot, np.ndarray, int, int] | None] = (
            queue.SimpleQueue()
        )
        self._copying = torch.cuda.Stream(device) if self.cuda else None
        self._threads = [
            threading.Thread(target=self._work, name=f"loader-{i}", daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, numbers: Iterable[Tensor]) -> Iterator[Tensor]:
        """The images of each of `numbers`, in order, on the device."""
        coming, under_way = iter(numbers), deque[_Slot]()
        while True:
            while self._free and (ids := next(coming, None)) is not None:
                slot = self._free.popleft()
                self._plan(slot, ids.numpy())
                under_way.append(slot)
            if not under_way:
                return
            slot = under_way.popleft()
            slot.ready.wait()
            if slot.error is not None:
                raise slot.error
            images, slot.result = slot.result, None
            assert images is not None
            if slot.arrived is not None:
                torch.cuda.current_stream(self.device).wait_event(slot.arrived)
                # Its memory may be used anew only after what reads it now.
                images.record_stream(torch.cuda.current_stream(self.device))
            self._free.append(slot)
            yield images

    def stop(self) -> None:
        """End the threads. Batches under way are lost."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _plan(self, slot: _Slot, ids: np.ndarray) -> None:
        size, n = self.pack.size, len(ids)
        if slot.buffer is None or len(slot.buffer) < n or not self.cuda:
            slot.buffer = torch.empty(n, size, size, 3, dtype=torch.uint8, pin_memory=self.cuda)
        pieces = max(1, min(len(self._threads), n))
        slot.pieces, slot.error = pieces, None
        slot.ready.clear()
        for i in range(pieces):
            self._tasks.put((slot, ids, n * i // pieces, n * (i + 1) // pieces))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            slot, ids, begin, end = task
            try:
                assert slot.buffer is not None
                if slot.arrived is not None:
                    slot.arrived.synchronize()  # what the buffer held is being read until then
                self.pack.gather(ids[begin:end], slot.buffer.numpy()[begin:end])
            except BaseException as error:
                slot.error = error
            with slot.lock:
                slot.pieces -= 1
                last = slot.pieces == 0
            if last:
                try:
                    if slot.error is None:
                        self._send(slot, len(ids))
                except BaseException as error:
                    slot.error = error
                slot.ready.set()

    def _send(self, slot: _Slot, n: int) -> None:
        assert slot.buffer is not None
        if self._copying is None:
            slot.result, slot.buffer = slot.buffer, None
            return
        with torch.cuda.device(self.device), torch.cuda.stream(self._copying):
            slot.result = slot.buffer[:n].to(self.device, non_blocking=True)
            slot.arrived = torch.cuda.Event()
            slot.arrived.record(self._copying)
