"""Batches in an order that follows from (seed, epoch): the same for every process, and exact on resume from any step."""

from collections.abc import Iterator

import torch
from torch import Tensor

from alexnet import rng
from alexnet.data.pack import Pack


def steps_per_epoch(pack: Pack, batch_size: int) -> int:
    """The last, short batch of an epoch counts as a step, as in 2012."""
    return -(-len(pack) // batch_size)


def batches(
    pack: Pack, batch_size: int, seed: int, epoch: int, start: int = 0, shard: tuple[int, int] = (0, 1)
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """From the `start`-th batch of the epoch: images uint8 (n, S, S, 3), labels int64, numbers in the pack int64, positions in the epoch
    int64 (n,).

    shard: (d, D), the d-th of D parts of every batch, for data parallelism: images n d // D to n (d + 1) // D of a batch of n. The parts
    make up the batch whatever D is, and one may be empty. Raises ValueError for a part that there is not.
    """
    part, parts = shard
    if not 0 <= part < parts:
        raise ValueError(f"shard {shard}: give (d, D) with d in 0..D-1")
    order = rng.permutation(rng.key(rng.ORDER, seed, epoch), len(pack))
    for position in range(start * batch_size, len(pack), batch_size):
        n = min(batch_size, len(pack) - position)
        positions = torch.arange(position + n * part // parts, position + n * (part + 1) // parts)
        ids = order[positions]
        labels = torch.from_numpy(pack.labels[ids.numpy()]).long()
        yield torch.from_numpy(pack.gather(ids.numpy())), labels, ids, positions
