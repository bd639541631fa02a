"""The convolutions of the paper's net in the forms that it might have, forward and backward."""

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import presets
from alexnet.presets import shapes
from alexnet.presets.sizes import Shape
from alexnet.training.precision import PRECISIONS, using_precision
from benchmarks.contestants import Case, in_form
from benchmarks.parts import product_rate
from kernel_benchmarks.record import Row
from kernel_benchmarks.runner import timed

SEARCHED = ", algorithms timed"  # cudnn.benchmark


def convolutions(case: Case, args: argparse.Namespace) -> list[Row]:
    """A row for each form of each layer: two convolutions; one in two groups; one over both
    columns, whose other half of the weights would be zeros. On a GPU also with the algorithms that
    cuDNN finds the fastest, instead of those that it guesses."""
    rows: list[Row] = []
    with using_precision(case.precision, torch.device(args.device)):
        rate, switch = product_rate(case, args.device), torch.backends.cudnn
        before = switch.benchmark
        try:
            for searched in (False, True)[: 1 + (args.device == "cuda")]:
                switch.benchmark = searched
                calls, floors = dict[str, Callable[[], object]](), dict[str, float]()
                for name, floor, call in forms(case, args.device, rate):
                    name += SEARCHED * searched
                    calls[name], floors[name] = call, floor
                some = timed(calls, args)
                rows += [row | {"floor_ms": floors[row["implementation"]]} for row in some]
        finally:
            switch.benchmark = before
    return rows


def forms(
    case: Case, device: str, rate: float
) -> Iterator[tuple[str, float, Callable[[], object]]]:
    """A form's name, the least milliseconds at `rate` (FLOP a ms), and a call."""
    for row in shapes(presets.get(case.preset), *case.sizes):
        if not row.layer.kernel:
            continue
        is_first = row.layer.reads == "image"
        passes = 2 if is_first else 3  # no gradient for the image
        floor = passes * 2 * row.macs * case.batch / rate
        shared = row.layer.reads != "own"  # columns that read the same maps
        count = 1 if shared else row.columns
        made = partial(inputs, case, device, row)
        two = made(count, row.columns, not is_first)
        yield f"{row.layer.name}, two convolutions", floor, partial(both, row, *two, row.columns)
        one = made(1, 1, not is_first, in_maps=count * row.in_maps, maps=row.columns * row.maps)
        name = "merged" if shared else "one, half of it zeros"
        yield f"{row.layer.name}, {name}", floor, partial(both, row, *one, 1)
        if not shared:
            groups = row.columns
            one = made(1, 1, True, count * row.in_maps, groups * row.maps, row.in_maps)
            call = partial(both, row, *one, 1, groups=groups)
            yield f"{row.layer.name}, {groups} groups", floor, call


def inputs(
    case: Case,
    device: str,
    row: Shape,
    columns_in: int,
    columns: int,
    wants_gradient: bool,
    in_maps: int = 0,
    maps: int = 0,
    fan_maps: int = 0,
) -> tuple[list[Tensor], list[Tensor]]:
    """The maps that are read, and the weights; some maps other than the layer's are given."""
    in_maps, maps, k = in_maps or row.in_maps, maps or row.maps, row.layer.kernel

    def random(*shape: int) -> Tensor:
        x = torch.randn(shape, device=device, dtype=PRECISIONS[case.precision])
        return in_form(x, case.precision)

    xs = [random(case.batch, in_maps, row.in_size, row.in_size) for _ in range(columns_in)]
    weights = [random(maps, fan_maps or in_maps, k, k).requires_grad_() for _ in range(columns)]
    return [x.requires_grad_(wants_gradient) for x in xs], weights


def both(
    row: Shape, xs: list[Tensor], weights: list[Tensor], columns: int, groups: int = 1
) -> tuple[Tensor, ...]:
    """Forward and backward."""
    before, after = row.pad
    leaves, xs = xs, xs * (columns // len(xs))
    if before != after:
        xs = [F.pad(x, (before, after, before, after)) for x in xs]
    padding, stride = before if before == after else 0, row.layer.stride
    ys = [
        F.conv2d(x, w, None, stride, padding, 1, groups) for x, w in zip(xs, weights, strict=True)
    ]
    inputs = [*weights, *(x for x in leaves if x.requires_grad)]
    return torch.autograd.grad(ys, inputs, [torch.ones_like(y) for y in ys])
