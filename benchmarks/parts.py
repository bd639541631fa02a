"""What a training step is made of, each part alone, beside its floor."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from alexnet import rng
from alexnet.network import Stage
from alexnet.training.learner import Learner
from alexnet.training.precision import PRECISIONS, using_precision
from benchmarks.contestants import TINY, Case, Step, in_form
from kernel_benchmarks.record import Row
from kernel_benchmarks.runner import Clock, copy_bandwidth, timed

Part = tuple[str, Step, float]  # a name, a call, the least milliseconds that it can take


def parts(case: Case, args: argparse.Namespace) -> list[Row]:
    """Each layer's weighted sums, and what follows them, forward and backward, alone; the update;
    augmentation. Beside each the least time that its multiplications or its bytes take at the rates
    of a large matrix product and a large copy, measured in the same run."""
    with using_precision(case.precision, torch.device(args.device)):
        own = list(all_parts(case, args.device))
        rows = timed({name: call for name, call, _ in own}, args)
    floors = {name: floor for name, _, floor in own}
    return [row | {"floor_ms": floors[row["implementation"]]} for row in rows]


def all_parts(case: Case, device: str) -> Iterator[Part]:
    learner, gpu, clock = case.learner(device), device == "cuda", Clock(device)
    size = 2**30 if gpu else 2**23 if case.name == TINY.name else 2**28
    copy = copy_bandwidth(clock, device, size) * 1e6  # bytes a ms
    yield from layers(case, learner, copy, product_rate(case, device))

    grads = [torch.zeros_like(p) for p in learner.parameters.values()]

    def update() -> None:
        for p, grad in zip(learner.parameters.values(), grads):
            p.grad = grad
        learner.update([1e-6] * len(grads))

    # 4 bytes each: w and v read and written, g read; or in bf16 g and the net's copy, 2 each
    yield "update", update, sum(grad.numel() for grad in grads) * 20 / copy

    augment, images, ids = case.augment(), case.noise(device), torch.arange(case.batch)
    floor = case.batch * 3 * case.image_size**2 * 5 / copy
    yield "augmentation", lambda: augment.train(images, ids, ids, 0), floor


def product_rate(case: Case, device: str) -> float:
    """FLOP a ms of a large matrix product in the case's precision: the ceiling."""
    side = 8192 if device == "cuda" else 256 if case.name == TINY.name else 2048
    dtype = PRECISIONS[case.precision]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / Clock(device).median(lambda: a @ b, 7, cold=False)


def layers(case: Case, learner: Learner, copy: float, product: float) -> Iterator[Part]:
    """Two parts of each layer. copy: bytes a ms; product: FLOP a ms."""
    device, batch = learner.ranks.device, case.batch
    keys = rng.key(rng.DROPOUT, 0, 0, torch.arange(batch)).to(device)

    def given(*shape: int, wants_gradient: bool = True) -> Tensor:
        x = torch.randn(shape, device=device, dtype=learner.dtype)
        x = in_form(x, case.precision) if len(shape) == 4 else x
        return x.requires_grad_(wants_gradient)

    for row in learner.net.table:
        name, stages = row.layer.name, learner.net.stages(row.layer.name)
        is_first, is_convolution = row is learner.net.table[0], bool(row.layer.kernel)
        shape = (row.in_maps, row.in_size, row.in_size) if is_convolution else (row.fan_in,)
        count = 1 if is_first or row.layer.reads == "both" else len(stages)
        xs = [given(batch, *shape, wants_gradient=not is_first) for _ in range(count)]
        xs *= len(stages) // count
        sums = [partial(weighted_sums, s, x) for s, x in zip(stages, xs, strict=True)]
        passes = 2 if is_first else 3  # no gradient for the image
        floor = passes * 2 * row.macs * batch / product
        yield f"{name}, sums", partial(both, sums, leaves(xs, stages)), floor
        if not row.layer.then:
            continue
        shape = (row.maps, row.size, row.size) if is_convolution else (row.maps,)
        outs = [given(batch, *shape) for _ in stages]
        rest = [partial(after, s, out, keys) for s, out in zip(stages, outs, strict=True)]
        # forward reads x and writes y and a byte each; backward reads both and writes dx
        kept = row.out_size**2 / row.size**2
        moved = outs[0].element_size() * (3 + 2 * kept) + 2 * kept
        floor = outs[0].numel() * len(stages) * moved / copy
        yield f"{name}, rest", partial(both, rest, leaves(outs, stages)), floor


def weighted_sums(stage: Stage, x: Tensor) -> Tensor:
    """A layer's weighted sums, its input brought into the convolution's form first."""
    return stage.weighted_sums(stage.prepared(x) if stage.shape.layer.kernel else x, None)


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
