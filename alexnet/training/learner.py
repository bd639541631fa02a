"""A net and what moves its weights (section 5 of the paper): gradients, velocities, and the update rule over all of them in one launch; in
one of four precisions.

    fp32   everything in float32; on a GPU without TF32, which torch would use for convolutions
    tf32   float32 whose products a GPU rounds to 10 bits of mantissa first
    bf16   weights, activations and gradients in bfloat16; the weights that are updated, and the velocities, in float32
    fp64   everything in float64, to compare with
"""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.errors import InputError
from alexnet.network import AlexNet
from alexnet.presets import Recipe
from alexnet.training.checkpoint import Columns
from alexnet.training.ranks import Gradients, Ranks
from alexnet_kernels import momentum_step_

PRECISIONS = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp64": torch.float64,
}


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[torch.dtype]:
    """Sets how a GPU multiplies float32 within the block; yields the type of a net's weights and input. Raises InputError for a precision
    that does not exist, or not on this device."""
    if precision not in PRECISIONS:
        raise InputError(f"there is no precision {precision!r}; there are {', '.join(PRECISIONS)}")
    if precision == "tf32" and device.type != "cuda":
        raise InputError("precision tf32 needs a CUDA device; use fp32")
    switches = (torch.backends.cuda.matmul, getattr(torch.backends.cudnn, "conv"))  # noqa: B009 (unknown to the type checker)
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield PRECISIONS[precision]
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


class Learner:
    """Takes over `net`, which must be in float32, and moves it to the ranks' device and to `dtype`."""

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
        net.to(ranks.device)
        half = dtype == torch.bfloat16
        masters = (
            {name: value.detach().clone() for name, value in net.named_parameters()} if half else {}
        )
        self.net = net.to(dtype)
        self.call = torch.compile(self.net, dynamic=False) if compiled else self.net
        self.parameters = dict(
            net.named_parameters()
        )  # "columns.0.conv1.weight": what the net computes with
        self.weights: Mapping[str, Tensor] = masters or self.parameters  # what is updated and kept
        self.velocities = {name: torch.zeros_like(value) for name, value in self.weights.items()}
        self.decays: list[Any] = [
            0.0 if name.endswith("bias") else recipe.weight_decay for name in self.parameters
        ]
        self.rates: list[
            float
        ] = []  # the last ones, where the velocity is to be rescaled as they change
        self.gradients = Gradients(self.parameters.values(), ranks, overlap)

    def backward(
        self, images: Tensor, labels: Tensor, keys: Tensor, count: int
    ) -> tuple[float, int]:
        """Adds the gradients of the mean loss over a batch of `count` images, of which `images` (N, 3, S, S) are this row's share. labels,
        keys: int64 (N,), as for the net. Returns the share's summed loss in nats and its number of errors."""
        device = self.ranks.device
        loss, wrong = self.gradients_of(
            images.to(device, self.dtype), labels.to(device), keys.to(device), count
        )
        self.gradients.wait()
        return float(loss), int(wrong)

    def gradients_of(
        self, images: Tensor, labels: Tensor, keys: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """The same on the device, which the host does not wait for: 0-d tensors come back."""
        logits = self.call(images, keys)
        if self.dtype == torch.bfloat16:
            logits = logits.float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        (loss / count).backward()
        return loss.detach(), (logits.detach().argmax(1) != labels).sum()

    def update(self, rates: Sequence[float] | Sequence[Tensor]) -> None:
        """One step at a rate for each parameter, in the order of `parameters`; the gradients are gone afterwards. rates: numbers, or 0-d
        tensors on the device, which a CUDA graph needs."""
        weights, velocities = list(self.weights.values()), list(self.velocities.values())
        if isinstance(rates[0], Tensor) and not isinstance(self.decays[0], Tensor):
            self.decays = list(
                torch.tensor(self.decays, dtype=rates[0].dtype, device=rates[0].device).unbind()
            )
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        half: dict[str, Any] = (
            {"copies": list(self.parameters.values())}
            if self.weights is not self.parameters
            else {}
        )
        if self.recipe.velocity == "without rate":
            self.rates = rescale_(velocities, self.rates or rates, rates)
        momentum_step_(
            weights, gradients, velocities, rates, self.recipe.momentum, self.decays, **half
        )
        for parameter in self.parameters.values():
            parameter.grad = None

    def columns(self) -> Columns:
        """Weights and velocities by column, as checkpoints hold them."""
        columns: Columns = {}
        for name, value in self.weights.items():
            _, number, rest = name.split(".", 2)
            columns.setdefault(number, {}).update(
                {rest: value, f"velocity.{rest}": self.velocities[name]}
            )
        return columns

    @torch.no_grad()
    def restore(self, columns: Columns) -> None:
        """Takes weights and velocities back. Raises InputError that names what does not fit, and then changes nothing."""
        own = self.columns()
        for number, tensors in own.items():
            found = columns.get(number, {})
            for name in tensors.keys() ^ found.keys():
                raise InputError(
                    f"column {number} {'lacks' if name in tensors else 'holds a surplus'} {name}: it belongs to another net"
                )
            for name, value in tensors.items():
                if found[name].shape != value.shape or found[name].dtype != value.dtype:
                    theirs, ours = (
                        f"{t.dtype} of shape {tuple(t.shape)}" for t in (found[name], value)
                    )
                    raise InputError(
                        f"{name} of column {number} is {theirs}, this net's {ours}: it belongs to another net"
                    )
        for number, tensors in own.items():
            for name, value in tensors.items():
                value.copy_(columns[number][name])
        if self.weights is not self.parameters:
            for name, value in self.parameters.items():
                value.copy_(self.weights[name])


@cache
def keep_memory() -> None:
    """From now on this process keeps the memory that it frees, where its allocator is glibc's. Each step asks again for what the last one
    freed, and getting those pages from the system, one by one, takes a share of a step that can be seen on a CPU."""
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(trim_threshold, 2**31 - 1)
    for least in (2**30, 2**25):  # some versions take no more than the latter
        if mallopt(mmap_threshold, least):
            return


def rescale_(
    velocities: Sequence[Tensor], before: Sequence[Any], rates: Sequence[Any]
) -> list[float]:
    """Where a rate is not what it was before, the velocity is multiplied by their ratio, in place: with the rate outside of it, as torch
    writes SGD, the velocity would not have known the old one. Returns the rates to come here with next time; 0 is frozen, and changes
    nothing."""
    for v, old, new in zip(velocities, before, rates, strict=True):
        if new and old and new != old:
            v.mul_(new / old)
    return [new or old for old, new in zip(before, rates, strict=True)]
