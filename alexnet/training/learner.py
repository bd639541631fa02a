"""A net and what changes its weights (section 5 of the paper): gradients, velocities, updates."""

import ctypes
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.errors import require
from alexnet.network import AlexNet
from alexnet.presets import Recipe
from alexnet.training.checkpoint import Columns
from alexnet.training.ranks import Gradients, Ranks
from alexnet_kernels import momentum_step_


class Learner:
    """Takes over a net, and moves it to the ranks' device and to `dtype`.

    Parameters have names such as "columns.0.conv1.weight"; all that follows from a parameter is
    listed in their order. In bfloat16 the net computes with copies of the float32 `weights`, which
    are updated and kept. Buffers, such as running means, are kept in whatever type the net has.

    Args:
        net: In float32.
        dtype: Of the net's weights and input.
        overlap: Sum gradients over ranks while the backward pass goes on.
        compiled: Run the net's passes through torch.compile.
    """

    def __init__(
        self,
        net: AlexNet,
        recipe: Recipe,
        ranks: Ranks,
        dtype: torch.dtype = torch.float32,
        overlap: bool = True,
        compiled: bool = False,
    ):
        self.recipe, self.ranks, self.dtype = recipe, ranks, dtype
        if ranks.device.type == "cpu":
            keep_memory()
        self.net = net.to(ranks.device)
        half = dtype == torch.bfloat16
        if half or ranks.device.type == "cuda":  # as the maps are, which convolutions read
            net.to(memory_format=torch.channels_last)
        masters = {name: p.detach().clone() for name, p in net.named_parameters()} if half else {}
        net.to(dtype)
        self.call = torch.compile(net, dynamic=False) if compiled else net
        self.parameters = dict(net.named_parameters())  # what the net computes with
        self.weights: Mapping[str, Tensor] = masters or self.parameters  # what is updated and kept
        self.velocities = {name: torch.zeros_like(value) for name, value in self.weights.items()}
        kept = net.state_dict().keys()
        self.buffers = {name: value for name, value in net.named_buffers() if name in kept}
        self.kinds = net.parameter_kinds()
        self.decays: list[Any] = [self._decay(name, kind) for name, kind in self.kinds.items()]
        self.rates: list[float] = []  # of the last step, where velocities follow a rate's change
        self.gradients = Gradients(self.parameters.values(), ranks, overlap, self.buffers.values())

    def _decay(self, name: str, kind: str) -> float:
        """The weight decay of a parameter: its layer's own, where the table has one."""
        if kind not in self.recipe.decayed:
            return 0.0
        own = self.net.preset.layer(name.split(".")[2]).decay
        return self.recipe.weight_decay if own is None else own

    def backward(
        self, images: Tensor, labels: Tensor, keys: Tensor, count: int
    ) -> tuple[float, int]:
        """Add the gradients of the mean loss over a batch.

        Args:
            images: This row of ranks' share of the batch, (N, 3, S, S).
            labels: int64 (N,).
            keys: int64 (N,), from which dropout draws.
            count: Images in the batch, over all rows.

        Returns:
            The share's summed loss in nats, and its number of errors.
        """
        device = self.ranks.device
        loss, errors = self.gradients_of(
            images.to(device, self.dtype), labels.to(device), keys.to(device), count
        )
        self.gradients.wait()
        return float(loss), int(errors)

    def gradients_of(
        self, images: Tensor, labels: Tensor, keys: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """`backward` on the device, without waiting for it: the results are 0-d tensors there.

        Args:
            images: (N, 3, S, S), of the net's type, on the device.
            labels: int64 (N,), on the device.
            keys: int64 (N,), from which dropout draws, on the device.
            count: Images in the batch, over all rows of ranks.

        Returns:
            The share's summed loss in nats, and its number of errors.
        """
        logits = self.call(images, keys).to(torch.promote_types(self.dtype, torch.float32))
        loss = F.cross_entropy(logits, labels, reduction="sum")
        (loss / count).backward()
        return loss.detach(), (logits.detach().argmax(1) != labels).sum()

    def update(self, rates: Sequence[float] | Sequence[Tensor]) -> None:
        """Change the weights by one step; the gradients are gone afterwards.

        Args:
            rates: One a parameter: numbers, or 0-d tensors on the device, as a CUDA graph needs.
        """
        if isinstance(rates[0], Tensor) and not isinstance(self.decays[0], Tensor):
            self.decays = list(rates[0].new_tensor(self.decays).unbind())
        velocities = list(self.velocities.values())
        if self.recipe.velocity == "without rate":
            self.rates = rescale_(velocities, self.rates or rates, rates)
        parameters = list(self.parameters.values())
        copies = {"copies": parameters} if self.weights is not self.parameters else {}
        gradients = [p.grad for p in parameters if p.grad is not None]
        weights, momentum = list(self.weights.values()), self.recipe.momentum
        momentum_step_(weights, gradients, velocities, rates, momentum, self.decays, **copies)
        for parameter in parameters:
            parameter.grad = None

    def columns(self) -> Columns:
        """Weights, velocities and buffers by column, as checkpoints hold them."""
        columns: Columns = {}
        for name, value in {**self.weights, **self.buffers}.items():
            _, number, rest = name.split(".", 2)
            own = columns.setdefault(number, {})
            own[rest] = value
            if name in self.velocities:
                own[f"velocity.{rest}"] = self.velocities[name]
        return columns

    @torch.no_grad()
    def restore(self, columns: Columns) -> None:
        """Take back what `columns` gave.

        Raises:
            InputError: Something does not fit; the message names it, and nothing is changed.
        """
        own = self.columns()
        for number, tensors in own.items():
            stored = columns.get(number, {})
            theirs, ours = (
                {name: f"{t.dtype} of shape {tuple(t.shape)}" for name, t in held.items()}
                for held in (stored, tensors)
            )
            for name in ours | theirs:
                one, two = theirs.get(name, "missing"), ours.get(name, "missing")
                given = f"{name} of column {number} is {one}, this net's {two}"
                require(one == two, f"{given}: it belongs to another net")
        for number, tensors in own.items():
            for name, value in tensors.items():
                value.copy_(columns[number][name])
        if self.weights is not self.parameters:
            for name, parameter in self.parameters.items():
                parameter.copy_(self.weights[name])


@cache
def keep_memory() -> None:
    """Let this process keep the memory that it frees, where its allocator is glibc's.

    Each step asks again for what the last one freed. To get those pages from the system, one by
    one, takes a visible share of a step on a CPU.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 2**31 - 1)
        # some versions take no more than the latter
        any(mallopt(mmap_threshold, least) for least in (2**30, 2**25))


def rescale_(
    velocities: Sequence[Tensor], before: Sequence[Any], rates: Sequence[Any]
) -> list[float]:
    """Multiply velocities in place by the ratio of their rate to the one before.

    A velocity without the rate in it, as torch writes SGD, would not have known the old rate.

    Args:
        velocities: One for each parameter; changed in place.
        before: The rate that each was gathered at; 0 or None: none yet.
        rates: The rates of the coming step.

    Returns:
        The rates to pass as `before` next time. A rate of 0 is frozen, and changes nothing.
    """
    for v, old, new in zip(velocities, before, rates, strict=True):
        if new and old and new != old:
            v.mul_(new / old)
    return [new or old for old, new in zip(before, rates, strict=True)]
