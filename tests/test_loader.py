"""Batches: every image once an epoch, an order from (seed, epoch), the same from any step."""

import numpy as np
import pytest
import torch

from alexnet.data.loader import batches, steps_per_epoch
from alexnet.data.pack import open_splits


@pytest.fixture
def pack(packs32):
    return open_splits(packs32)["train"]  # 40 images


def order(*arguments):
    return torch.cat([ids for _, _, ids, _ in batches(*arguments)])


@pytest.mark.parametrize(("size", "counts"), [(8, [8] * 5), (16, [16, 16, 8]), (39, [39, 1]), (40, [40]), (128, [40]), (1, [1] * 40)])
def test_every_image_once_and_the_short_batch_kept(pack, size, counts):
    found = list(batches(pack, size, 0, 0))
    assert [len(labels) for _, labels, _, _ in found] == counts and steps_per_epoch(pack, size) == len(counts)
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
    assert len({tuple(order(pack, 8, seed, epoch).tolist()) for seed in range(3) for epoch in range(3)}) == 9


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
        assert [len(piece[1]) for piece in pieces] == [n * (d + 1) // parts - n * d // parts for d in range(parts)]


def test_more_shards_than_images_leave_some_empty(pack):
    sizes = [len(next(batches(pack, 2, 0, 0, shard=(d, 3)))[0]) for d in range(3)]
    assert sizes == [0, 1, 1]
    with pytest.raises(ValueError, match="shard"):
        next(batches(pack, 2, 0, 0, shard=(3, 3)))
