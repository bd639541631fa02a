"""Batches: every image once an epoch, an order from (seed, epoch), the same from any step,
whichever way they come."""

import threading
import time

import numpy as np
import pytest
import torch

from alexnet.data import loader
from alexnet.data.augment import Indexed
from alexnet.data.loader import Images, Loader, Ring, batches, steps_per_epoch
from alexnet.data.pack import open_splits


@pytest.fixture
def pack(packs32):
    return open_splits(packs32)["train"]  # 40 images


def order(*arguments):
    return torch.cat([ids for _, _, ids, _ in batches(*arguments)])


@pytest.mark.parametrize(
    ("size", "counts"),
    [(8, [8] * 5), (16, [16, 16, 8]), (39, [39, 1]), (40, [40]), (128, [40]), (1, [1] * 40)],
)
def test_every_image_once_and_the_short_batch_kept(pack, size, counts):
    found = list(batches(pack, size, 0, 0))
    assert [len(labels) for _, labels, _, _ in found] == counts and steps_per_epoch(
        pack, size
    ) == len(counts)
    assert sorted(order(pack, size, 0, 0).tolist()) == list(range(40))


def test_images_labels_numbers_and_positions_belong_together(pack):
    at = 0
    for images, labels, ids, positions in batches(pack, 16, 3, 2):
        assert images.dtype == torch.uint8 and images.shape == (len(ids), 32, 32, 3)
        assert labels.dtype == ids.dtype == positions.dtype == torch.int64
        assert np.array_equal(images.numpy(), pack.gather(ids.numpy()))
        assert labels.tolist() == pack.labels[ids.numpy()].tolist()
        assert positions.tolist() == list(range(at, at + len(ids)))
        at += len(ids)


def test_the_order_follows_from_seed_and_epoch(pack):
    one = order(pack, 8, 3, 2)
    assert torch.equal(order(pack, 8, 3, 2), one) and torch.equal(order(pack, 16, 3, 2), one)
    assert one.tolist() != list(range(40))
    assert (
        len(
            {tuple(order(pack, 8, seed, epoch).tolist()) for seed in range(3) for epoch in range(3)}
        )
        == 9
    )


@pytest.mark.parametrize("start", range(6))
def test_an_epoch_may_be_entered_at_any_step(pack, start):
    whole, rest = list(batches(pack, 8, 1, 4)), list(batches(pack, 8, 1, 4, start))
    assert len(rest) == 5 - start
    for one, other in zip(whole[start:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_the_shards_of_a_batch_make_up_the_batch(pack, parts):
    whole = list(batches(pack, 16, 1, 4, 1))  # 16 and 8 images
    shards = [list(batches(pack, 16, 1, 4, 1, shard=(d, parts))) for d in range(parts)]
    for number, batch in enumerate(whole):
        pieces = [shard[number] for shard in shards]
        for i in range(4):
            assert torch.equal(torch.cat([piece[i] for piece in pieces]), batch[i])
        n = len(batch[1])
        assert [len(piece[1]) for piece in pieces] == [
            n * (d + 1) // parts - n * d // parts for d in range(parts)
        ]


def test_more_shards_than_images_leave_some_empty(pack):
    sizes = [len(next(batches(pack, 2, 0, 0, shard=(d, 3)))[0]) for d in range(3)]
    assert sizes == [0, 1, 1]
    with pytest.raises(ValueError, match="shard"):
        next(batches(pack, 2, 0, 0, shard=(3, 3)))


# --- the loader -----------------------------------------------------------------------------------


def same(one, other):
    one, other = list(one), list(other)
    return len(one) == len(other) and all(
        torch.equal(*(x.gathered() if isinstance(x, Indexed) else x for x in (a, b)))
        for pair in zip(one, other, strict=True)
        for a, b in zip(*pair, strict=True)
    )


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("loader")}


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize(
    ("start", "shard", "count"), [(0, (0, 1), 1), (3, (0, 1), 3), (1, (1, 3), 2), (0, (2, 20), 4)]
)
def test_the_loader_gives_the_same_batches(pack, resident, start, shard, count):
    ready = Loader(pack, 9, 5, "cpu", shard, resident=resident, threads=count)
    assert ready.images.resident == resident
    for epoch in (2, 0):
        assert same(ready.epoch(epoch, start), batches(pack, 9, 5, epoch, start, shard))
    assert not threads()


def test_batches_outlive_the_ring(pack):
    """What was given out is not overwritten by what comes later, though there are fewer buffers
    than batches."""
    kept = list(Loader(pack, 2, 0, threads=2).epoch(0))  # 20 batches
    assert len(kept) > 2 * loader.DEPTH and same(kept, batches(pack, 2, 0, 0))


def test_an_epoch_left_early_lets_its_threads_go(pack):
    for number, _ in enumerate(Loader(pack, 4, 0, threads=3).epoch(0)):
        assert threads()
        if number == 2:
            break
    assert not threads()


def test_threads_work_ahead_but_not_further_than_the_ring(pack, monkeypatch):
    gathered = []
    gather = pack.gather

    def watched(indices, out=None):
        gathered.append(list(indices))
        return gather(indices, out)

    monkeypatch.setattr(pack, "gather", watched)
    epoch = Loader(pack, 4, 0, threads=1).epoch(0)
    next(epoch)
    for _ in range(500):
        if len(gathered) == loader.DEPTH:
            break
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(gathered) == loader.DEPTH
    next(epoch)
    epoch.close()
    assert len(gathered) <= loader.DEPTH + 1


def test_a_failure_in_a_thread_is_told(pack, monkeypatch):
    gather = pack.gather

    def failing(indices, out=None):
        if 7 in indices:
            raise OSError("the disk is gone")
        return gather(indices, out)

    monkeypatch.setattr(pack, "gather", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        list(Loader(pack, 4, 0, threads=2).epoch(0))
    assert not threads()


def test_images_in_any_order(pack):
    ids = [torch.tensor([3, 3, 0]), torch.tensor([], dtype=torch.int64), torch.arange(40)]
    for resident in (False, True):
        images = Images(pack, resident=resident)
        assert all(
            np.array_equal(got, pack.gather(i.numpy()))
            for got, i in zip(images.of(ids), ids, strict=True)
        )
        assert images.labels(ids[0]).tolist() == pack.labels[[3, 3, 0]].tolist()


def test_what_fits_stays_on_a_gpu(pack, monkeypatch):
    free = pack.pixel_bytes / loader.RESIDENT_SHARE
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    assert loader.fits(pack, torch.device("cuda:1")) and not loader.fits(pack, torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free - 4, 2 * free))
    assert not loader.fits(pack, torch.device("cuda"))


def test_a_ring_of_one(pack):
    ring = Ring(pack, torch.device("cpu"), threads=2, depth=1)
    got = list(ring.run(torch.arange(i, i + 5) for i in range(0, 40, 5)))
    assert np.array_equal(torch.cat(got), pack.gather(range(40)))


@pytest.mark.gpu
@pytest.mark.parametrize("resident", [False, True])
def test_the_gpu_gets_the_same_batches(pack, resident):
    ready = Loader(pack, 3, 5, "cuda", resident=resident, threads=2)
    found = []
    for images, labels, ids, positions in ready.epoch(1):
        images = images.gathered() if resident else images
        assert images.is_cuda and labels.is_cuda and not ids.is_cuda and not positions.is_cuda
        # Later copies overtake the reading of earlier ones, if anything lets them.
        torch.cuda._sleep(1_000_000)
        found.append((images.clone().cpu(), labels.cpu(), ids, positions))
    assert same(found, batches(pack, 3, 5, 1))
