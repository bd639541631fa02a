"""What a training step is made of, each part alone, beside its floor."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from alexnet import rng
from alexnet.network import Stage
from alexnet.presets import Shape
from alexnet.training.precision import using_precision
from benchmarks.contestants import TINY, Case, Step
from kernel_benchmarks.record import Row
from kernel_benchmarks.runner import Clock, copy_bandwidth, timed


def parts(case: Case, args: argparse.Namespace) -> list[Row]:
    """Each layer's weighted sums, and what follows them, forward and backward, alone; the update;
    augmentation. Beside each the least time that its multiplications or its bytes take at the rates
    of a large matrix product and a large copy, measured in the same run."""
    with using_precision(case.precision, torch.device(args.device)):
        step = Parts(case, args.device)
        for row in step.learner.net.table:
            step.add_layer(row)
        step.add_update()
        step.add_augmentation()
        rows = timed(step.calls, args, f"parts of {case}")
    return [row | {"floor_ms": step.floors[row["implementation"]]} for row in rows]


class Parts:
    """The calls of a step's parts, and the least milliseconds that each can take, by name."""

    def __init__(self, case: Case, device: str):
        self.case, self.device = case, device
        self.learner = case.learner(device)
        self.dtype, gpu, clock = self.learner.dtype, device == "cuda", Clock(device)
        size = 2**30 if gpu else 2**23 if case is TINY else 2**28
        self.copy = copy_bandwidth(clock, device, size) * 1e6  # bytes a ms
        side = 8192 if gpu else 256 if case is TINY else 1024
        a, b = (torch.randn(side, side, device=device, dtype=self.dtype) for _ in range(2))
        self.product = 2 * side**3 / clock.median(lambda: a @ b, 7, cold=False)  # FLOP a ms
        self.keys = rng.key(rng.DROPOUT, 0, 0, torch.arange(case.batch)).to(device)
        self.calls: dict[str, Step] = {}
        self.floors: dict[str, float] = {}

    def given(self, shape: Sequence[int], wants_gradient: bool = True) -> Tensor:
        x = torch.randn(shape, device=self.device, dtype=self.dtype)
        if x.dim() == 4 and self.device == "cuda":
            x = x.contiguous(memory_format=torch.channels_last)
        return x.requires_grad_(wants_gradient)

    def add_layer(self, row: Shape) -> None:
        name, batch, stages = (
            row.layer.name,
            self.case.batch,
            self.learner.net.stages(row.layer.name),
        )
        is_first, is_convolution = row is self.learner.net.table[0], bool(row.layer.kernel)
        shape = (row.in_maps, row.in_size, row.in_size) if is_convolution else (row.fan_in,)
        count = 1 if is_first or row.layer.reads == "both" else len(stages)
        xs = [self.given((batch, *shape), not is_first) for _ in range(count)]
        xs *= len(stages) // count
        sums = [partial(s.weighted_sums, x, None) for s, x in zip(stages, xs, strict=True)]
        self.calls[f"{name}, sums"] = partial(both, sums, leaves(xs, stages))
        passes = 2 if is_first else 3  # no gradient for the image
        self.floors[f"{name}, sums"] = passes * 2 * row.macs * batch / self.product
        if not row.layer.then:
            return
        shape = (row.maps, row.size, row.size) if is_convolution else (row.maps,)
        outs = [self.given((batch, *shape)) for _ in stages]
        rest = [partial(after, s, out, self.keys) for s, out in zip(stages, outs, strict=True)]
        self.calls[f"{name}, rest"] = partial(both, rest, leaves(outs, stages))
        # forward reads x and writes y and a byte each; backward reads both and writes dx
        kept = row.out_size**2 / row.size**2
        moved = outs[0].element_size() * (3 + 2 * kept) + 2 * kept
        self.floors[f"{name}, rest"] = outs[0].numel() * len(stages) * moved / self.copy

    def add_update(self) -> None:
        named = dict(self.learner.net.named_parameters())
        grads = {name: torch.zeros_like(p) for name, p in named.items()}

        def update() -> None:
            for name, p in named.items():
                p.grad = grads[name]
            self.learner.update([1e-6] * len(grads))

        self.calls["update"] = update
        # w and v read and written, g read; and the copies in bf16 that the net computes with
        half = 2 if self.dtype == torch.bfloat16 else 0
        moved = 4 * 4 + (half or 4) + half
        self.floors["update"] = sum(p.numel() for p in named.values()) * moved / self.copy

    def add_augmentation(self) -> None:
        case, augment, ids = self.case, self.case.augment(), torch.arange(self.case.batch)
        images = case.noise(self.device)
        self.calls["augmentation"] = lambda: augment.train(images, ids, ids, 0)
        self.floors["augmentation"] = case.batch * 3 * case.image_size**2 * 5 / self.copy


def after(stage: Stage, sums: Tensor, keys: Tensor) -> Tensor:
    """What follows a layer's weighted sums."""
    setattr(stage, "weighted_sums", lambda x, bias: x)  # noqa: B010
    try:
        return stage(sums, keys)
    finally:
        del stage.weighted_sums


def leaves(inputs: Sequence[Tensor], stages: Sequence[Stage]) -> list[Tensor]:
    """What has a gradient, each once."""
    tensors = (*inputs, *chain.from_iterable(stage.parameters() for stage in stages))
    return list({id(t): t for t in tensors if t.requires_grad}.values())


def both(calls: Sequence[Callable[[], Tensor]], leaves: Sequence[Tensor]) -> None:
    """Forward and backward of some columns. No gradient stays, as none is left after a step's
    update: the next would be added to it."""
    ys = [call() for call in calls]
    torch.autograd.grad(ys, leaves, [torch.ones_like(y) for y in ys], allow_unused=True)
