"""One operator at one shape, batch and type, beside its peers: each is checked against float64
first, then they take turns. README.md says how.

On a CPU (method "wall") a sample is a call. On a GPU, method "cold" times one call between two
events, with an empty L2 cache; "graph" replays a captured CUDA graph back to back, caches warm.
"both" is forward plus backward: the sum of a round's two samples, or one graph of both.
"""

import argparse
import gc
import math
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import alexnet_kernels as kernels
from kernel_benchmarks import record
from kernel_benchmarks.record import Row
from kernel_benchmarks.runner import Clock, first_line, log, quantiles, take_turns

LAYOUTS = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# The most that a result may be off, as error() measures. A window that misses one map is off by
# some 0.2; rounding after each step, as eager torch does, by 0.004 in bf16.
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 2e-2}

Dims = tuple[int, ...]


def using(mode: str | None) -> AbstractContextManager:
    return kernels.using(mode) if mode else nullcontext()


def label(dims: Dims) -> str:
    return "x".join(map(str, dims))


@dataclass(frozen=True)
class Case:
    # a module with NAME, SHAPES, TINY, label(dims), floor(dims, batch, itemsize), entries(case)
    operator: Any
    layer: str
    dims: Dims
    batch: int  # 0 where the operator knows none
    dtype: str
    layouts: tuple[str, ...]
    device: str
    # not the default generator: a CUDA graph that cannot be captured would leave that one unusable
    generator: torch.Generator = field(compare=False, repr=False)

    def key(self) -> Row:
        """The columns CASE."""
        named = (self.operator.NAME, self.layer, self.operator.label(self.dims))
        return dict(zip(record.CASE, (*named, self.batch, self.dtype), strict=True))

    def floor(self) -> dict[str, int]:
        """The fewest bytes that each direction must move, forward and maybe backward."""
        return self.operator.floor(self.dims, self.batch, DTYPES[self.dtype].itemsize)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Random numbers of the case's type."""
        dtype, generator = DTYPES[self.dtype], self.generator
        return scale * torch.randn(shape, device=self.device, dtype=dtype, generator=generator)

    def integers(self, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        """Random integers from 0 to high - 1."""
        device, generator = self.device, self.generator
        return torch.randint(0, high, shape, dtype=dtype, device=device, generator=generator)

    def __str__(self) -> str:
        return " ".join(str(value) for value in self.key().values() if value)


@dataclass
class Entry:
    """One implementation in one layout, ready to run."""

    implementation: str
    layout: str
    forward: Callable[[], Any]  # timed
    backward: Callable[[Any], Any] | None = None  # timed; takes what forward returned
    check: Callable[[], float] | None = None  # runs both once and returns the error
    capture: bool = True  # whether a CUDA graph may hold it: nothing waits for the device

    def once(self) -> None:
        state = self.forward()
        if self.backward:
            self.backward(state)


# --- differentiable operators: y = call(x, *weights) ---


@dataclass(frozen=True)
class Peer:
    name: str
    call: Callable[..., Any]
    reference: Callable[..., Any]  # what it should compute; run in float64
    mode: str | None = None  # of kernels.using


def ours(call: Callable[..., Any], reference: Callable[..., Any]) -> list[Peer]:
    modes = {"ours": "auto", "ours, again": "auto", "ours, composite": "composite"}
    return [Peer(name, call, reference, mode) for name, mode in modes.items()]


def torchs(eager: Callable[..., Any], reference: Callable[..., Any]) -> list[Peer]:
    compiled = torch.compile(eager, dynamic=False, fullgraph=True)
    return [Peer("torch", eager, reference), Peer("torch.compile", compiled, reference)]


def differentiable(
    case: Case, peers: Sequence[Peer], x: Tensor, dy: Tensor, *weights: Tensor
) -> list[Entry]:
    """Every peer in every layout.

    Args:
        x: (N, C, H, W).
        dy: The gradient of the result.
        weights: What has gradients too.
    """
    references = {peer.reference for peer in peers}
    expected = {each: in_float64(each, x, dy, *weights) for each in references}
    entries = []
    for layout in case.layouts:
        form = LAYOUTS[layout]
        leaves = [t.detach().requires_grad_() for t in (x.contiguous(memory_format=form), *weights)]
        gradient = dy.contiguous(memory_format=form)
        entries += [_entry(one, layout, leaves, gradient, expected[one.reference]) for one in peers]
    return entries


def _entry(
    peer: Peer, layout: str, leaves: list[Tensor], dy: Tensor, expected: list[Tensor]
) -> Entry:
    def forward() -> Tensor:
        with using(peer.mode):
            return peer.call(*leaves)

    def backward(y: Tensor) -> tuple[Tensor, ...]:
        with using(peer.mode):
            return torch.autograd.grad(y, leaves, dy)

    def check() -> float:
        poison(dy, *leaves)
        y = forward()
        return worst(map(error, (y, *backward(y)), expected))

    return Entry(peer.name, layout, forward, backward, check)


def in_float64(
    reference: Callable[..., Tensor], x: Tensor, dy: Tensor, *weights: Tensor, images: int = 32
) -> list[Tensor]:
    """The result, and the gradients of x and the weights, in float64, some images at a time."""
    parts = []
    for xs, dys in zip(x.split(images), dy.split(images), strict=True):
        leaves = [t.double().detach().requires_grad_() for t in (xs, *weights)]
        y = reference(*leaves)
        parts.append((y.detach(), *torch.autograd.grad(y, leaves, dys.double())))
    ys, dxs, *rest = zip(*parts)
    return [torch.cat(ys), torch.cat(dxs), *(torch.stack(each).sum(0) for each in rest)]


def error(result: Tensor, expected: Tensor) -> float:
    """The largest over all maps of |result - expected| / |expected|, Euclidean norms, so that a
    wrong map at an edge does not drown in the rest. NaN where anything is.

    Args:
        result: (N, C, ...), or of one dimension, which counts as one map.
        expected: The same in float64.
    """
    if result.shape != expected.shape:
        return math.nan
    if result.dim() == 1:
        result, expected = result[:, None], expected[:, None]
    others = [d for d in range(result.dim()) if d != 1]
    differences = result.detach().double() - expected
    off, size = (t.square().sum(others).sqrt() for t in (differences, expected))
    typical = size.square().mean().sqrt()  # a map that is all but zero is held to 1 % of this
    return float((off / size.clamp(min=1e-2 * typical)).max())


def worst(errors: Iterable[float]) -> float:
    """The largest; NaN if one is."""
    return float(np.max(list(errors)))


def poison(*like: Tensor) -> None:
    """Leave NaN in the memory that the allocator hands out next: an element nobody writes shows."""
    _ = [torch.full_like(t, torch.nan) for t in like]


def saved_bytes(forward: Callable[[], Any]) -> int:
    """What autograd keeps for the backward pass, inputs included, each piece of memory once."""
    pieces: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        pieces[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        _ = forward()
    return sum(pieces.values())


def copier(case: Case) -> Entry:
    """Copies, forward and backward, as many bytes as the operator must move: half read, half
    written."""
    floor = case.floor()
    halves = {way: case.integers(256, 2, floor[way] // 2, dtype=torch.uint8) for way in floor}

    def copy(way: str, _: Any = None) -> None:
        halves[way][0].copy_(halves[way][1])

    backward = partial(copy, "backward") if "backward" in floor else None
    return Entry("copy", "", partial(copy, "forward"), backward)


# --- one case ---


def measure(
    case: Case, clock: Clock, bandwidth: Callable[[], float], args: argparse.Namespace
) -> list[Row]:
    """Check and time all implementations of a case.

    Args:
        bandwidth: Gives that of a large copy, in GB/s.

    Returns:
        A row for each implementation, layout, direction and method, and one with the reason for
        each implementation that is wrong or cannot run; without the columns that all have alike.
    """
    if clock.cuda:
        gc.collect()  # the last case's tensors
        torch.cuda.empty_cache()
    common = {"seed": random.randrange(2**31) if args.seed is None else args.seed}
    common["copy_gb_per_s"] = bandwidth()
    case.generator.manual_seed(common["seed"])
    skipped: list[Row] = []
    ready: list[tuple[Entry, Row]] = []
    for entry in [*case.operator.entries(case), copier(case)]:
        if args.implementations and entry.implementation not in (*args.implementations, "copy"):
            continue
        facts = common | {"implementation": entry.implementation, "layout": entry.layout}
        try:
            facts |= examine(entry, case)
        except Exception as problem:  # an implementation that cannot run is a finding
            facts["note"] = f"skipped: {first_line(problem)}"
        if "note" in facts:
            skipped.append(facts)
        else:
            ready.append((entry, facts))
    return skipped + timed(case, ready, clock, args)


def examine(entry: Entry, case: Case) -> Row:
    """Whether it computes the right thing, and what it keeps. Compiles and tunes whatever does so
    at first use."""
    if entry.check is None:
        return {}
    off, allowed = entry.check(), TOLERANCE[case.dtype]
    if not off <= allowed:  # so that NaN is wrong
        note = f"wrong, not timed: off by {off:.2g}, more than the {allowed:.0e} allowed"
        return {"error": off, "note": note}
    facts: Row = {"error": off}
    if entry.backward:
        facts["saved_bytes"] = saved_bytes(entry.forward)
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        entry.once()
        facts["peak_bytes"] = torch.cuda.max_memory_allocated() - before
    return facts


def timed(
    case: Case, ready: Sequence[tuple[Entry, Row]], clock: Clock, args: argparse.Namespace
) -> list[Row]:
    """The rows of the implementations that are right, with their times."""
    entries = [entry for entry, _ in ready]
    gc.collect()
    gc.disable()
    try:
        methods = {"cold" if clock.cuda else "wall": single_calls(entries, clock, args)}
        if clock.cuda:
            methods["graph"] = replays(entries, clock, args)
    finally:
        gc.enable()
    # at once, while the clocks are still those of the work
    sm_mhz = record.nvidia_smi("clocks.sm") if clock.cuda else ""
    rows, floor = [], case.floor()
    floor["both"] = sum(floor.values())
    for method, samples in methods.items():
        for (number, direction), times in samples.items():
            row = ready[number][1] | quantiles(times)
            row |= {"direction": direction, "method": method, "sm_mhz": sm_mhz}
            row["floor_bytes"] = floor[direction]
            row["gb_per_s"] = floor[direction] / row["median_ms"] / 1e6
            row["percent_of_copy"] = 100 * row["gb_per_s"] / row["copy_gb_per_s"]
            rows.append(row)
    return rows


Samples = dict[tuple[int, str], list[float]]  # milliseconds by the entry's number and direction


def single_calls(entries: Sequence[Entry], clock: Clock, args: argparse.Namespace) -> Samples:
    def sample(entry: Entry) -> dict[str, float]:
        forward, state = clock.sample(entry.forward)
        if not entry.backward:
            return {"forward": forward}
        backward, _ = clock.sample(partial(entry.backward, state))
        return {"forward": forward, "backward": backward, "both": forward + backward}

    samplers = {number: partial(sample, entry) for number, entry in enumerate(entries)}
    turns = take_turns(samplers, args.runs, args.seconds)
    return {
        (number, direction): [each[direction] for each in samples]
        for number, samples in turns.items()
        for direction in samples[0]
    }


def replays(entries: Sequence[Entry], clock: Clock, args: argparse.Namespace) -> Samples:
    """The same for CUDA graphs of the forward pass, and of forward and backward. What cannot be
    captured is left out."""
    # one pool for all: they never run at once, and nobody reads their results
    pool = torch.cuda.graph_pool_handle()
    samplers: dict[tuple[int, str], Callable[[], float]] = {}
    for number, entry in enumerate(entries):
        calls = {"forward": entry.forward} | ({"both": entry.once} if entry.backward else {})
        for direction, call in calls.items() if entry.capture else ():
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream()):
                    call()
            except Exception as problem:
                name = f"{entry.implementation} {entry.layout}, {direction}"
                log(f"no CUDA graph of {name}: {first_line(problem)}")
                pool = torch.cuda.graph_pool_handle()  # torch thinks the old one is in use
                continue
            graph.replay()
            alone = max(clock.time(graph.replay, cold=False), 0.02)
            repeat = math.ceil(1.0 / alone)  # some 1 ms per sample, 50 replays at most
            samplers[number, direction] = partial(clock.time, graph.replay, False, repeat)
    return take_turns(samplers, args.runs, args.seconds / 2)
