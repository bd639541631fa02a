"""Batches in an order that follows from (seed, epoch): the same for every process, and exact on resume from any step."""

from collections.abc import Iterator

import torch
from torch import Tensor

from alexnet import rng
from alexnet.data.pack import Pack


def steps_per_epoch(pack: Pack, batch_size: int) -> int:
    """The last, short batch of an epoch counts as a step, as in 2012."""
    return -(-len(pack) // batch_size)


def batches(pack: Pack, batch_size: int, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """From the `start`-th batch of the epoch: images uint8 (N, S, S, 3), labels int64, numbers in the pack int64, positions in the epoch
    int64 (N,)."""
    order = rng.permutation(rng.key(rng.ORDER, seed, epoch), len(pack))
    for position in range(start * batch_size, len(pack), batch_size):
        ids = order[position : position + batch_size]
        labels = torch.from_numpy(pack.labels[ids.numpy()]).long()
        yield torch.from_numpy(pack.gather(ids.numpy())), labels, ids, torch.arange(position, position + len(ids))
