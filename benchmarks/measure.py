"""How a time is taken here.

A case is one operator at one shape, batch and type. All its implementations run in one process on the same random inputs:

1. each is checked against float64 (results and gradients, every element, outputs poisoned before); a wrong one is reported, not timed;
2. they take turns, in a new order each round, so that drift (clocks, temperature, other programs) meets all alike; the first are a warm-up;
3. medians and 20 % and 80 % quantiles are kept; "ours, again" is ours a second time, which shows what difference means nothing;
4. the ceiling is a large copy timed in the same run, and "copy" takes its turn too, moving as many bytes as the operator must.

On a CPU (method "wall") a sample is a call. On a GPU, method "cold" times one call between two events, after a write of 1 GiB that
empties the L2 cache and lasts longer than the host needs to launch the call; "graph" replays a captured CUDA graph back to back, caches
warm. "both" is forward plus backward: the sum of a round's two samples, or one graph of both."""

import argparse
import gc
import math
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import alexnet_kernels as kernels
from benchmarks import record
from benchmarks.record import Row

LAYOUTS = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# The most that a result may be off, as error() measures. A window that misses one map is off by some 0.2; rounding after each step, as
# eager torch does, by 0.004 in bf16.
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 2e-2}
WARM_UP, WARM_SECONDS = 2, 0.2  # at least so many rounds, and so long, are not kept
FEWEST = 5  # rounds that are kept however long they take


def using(mode: str | None) -> AbstractContextManager:
    return kernels.using(mode) if mode else nullcontext()


@dataclass(frozen=True)
class Case:
    operator: Any  # a script of this package: NAME, SHAPES, TINY, label(dims), floor(dims, batch, itemsize), entries(case)
    layer: str
    dims: tuple[int, ...]
    batch: int  # 0 where the operator knows none
    dtype: str
    layouts: tuple[str, ...]
    device: str
    # not the default generator: a CUDA graph that cannot be captured would leave that one unusable
    generator: torch.Generator = field(compare=False, repr=False)

    def key(self) -> Row:
        """The columns CASE."""
        shape = self.operator.label(self.dims)
        return {
            "operator": self.operator.NAME,
            "layer": self.layer,
            "shape": shape,
            "batch": self.batch,
            "dtype": self.dtype,
        }

    def floor(self) -> dict[str, int]:
        """The fewest bytes that each direction must move."""
        one_way = self.operator.floor(self.dims, self.batch, DTYPES[self.dtype].itemsize)
        return one_way | ({"both": sum(one_way.values())} if "backward" in one_way else {})

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Random numbers of the case's type."""
        return (
            torch.randn(
                shape, device=self.device, dtype=DTYPES[self.dtype], generator=self.generator
            )
            * scale
        )

    def integers(self, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        """Random integers from 0 to high - 1."""
        return torch.randint(
            0, high, shape, dtype=dtype, device=self.device, generator=self.generator
        )

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


# --- differentiable operators: y = call(x, *weights) ---


@dataclass(frozen=True)
class Peer:
    name: str
    call: Callable[..., Tensor]
    reference: Callable[..., Tensor]  # what it should compute; run in float64
    mode: str | None = None  # of kernels.using


def ours(call: Callable[..., Tensor], reference: Callable[..., Tensor]) -> list[Peer]:
    return [
        Peer("ours", call, reference, "auto"),
        Peer("ours, again", call, reference, "auto"),
        Peer("ours, composite", call, reference, "composite"),
    ]


def torchs(eager: Callable[..., Tensor], reference: Callable[..., Tensor]) -> list[Peer]:
    return [
        Peer("torch", eager, reference),
        Peer("torch.compile", torch.compile(eager, dynamic=False, fullgraph=True), reference),
    ]


def differentiable(
    case: Case, peers: Sequence[Peer], x: Tensor, dy: Tensor, *weights: Tensor
) -> list[Entry]:
    """Every peer in every layout. x: (N, C, H, W); dy: the gradient of the result; weights: have gradients too."""
    expected = {
        each: in_float64(each, x, dy, *weights)
        for each in dict.fromkeys(peer.reference for peer in peers)
    }
    entries = []
    for layout in case.layouts:
        form = LAYOUTS[layout]
        leaves = [
            x.contiguous(memory_format=form).requires_grad_(),
            *(w.detach().requires_grad_() for w in weights),
        ]
        entries += [
            _entry(
                peer, layout, leaves, dy.contiguous(memory_format=form), expected[peer.reference]
            )
            for peer in peers
        ]
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
        return worst(
            error(got, right) for got, right in zip((y, *backward(y)), expected, strict=True)
        )

    return Entry(peer.name, layout, forward, backward, check)


def in_float64(
    reference: Callable[..., Tensor], x: Tensor, dy: Tensor, *weights: Tensor, images: int = 32
) -> list[Tensor]:
    """The result, and the gradients of x and the weights, in float64, some images at a time."""
    parts = []
    for first in range(0, len(x), images):
        leaves = [
            t.double().detach().requires_grad_() for t in (x[first : first + images], *weights)
        ]
        y = reference(*leaves)
        parts.append(
            (y.detach(), *torch.autograd.grad(y, leaves, dy[first : first + images].double()))
        )
    ys, dxs, *rest = zip(*parts)
    return [torch.cat(ys), torch.cat(dxs), *(torch.stack(each).sum(0) for each in rest)]


def error(got: Tensor, expected: Tensor) -> float:
    """The largest over all maps of |got - expected| / |expected|, Euclidean norms, so that a wrong map at an edge does not drown in the
    rest.

    Both: (N, C, ...), or of one dimension, which counts as one map. NaN where anything is.
    """
    if got.shape != expected.shape:
        return math.nan
    if got.dim() == 1:
        got, expected = got[:, None], expected[:, None]
    others = [d for d in range(got.dim()) if d != 1]
    off, size = (
        t.square().sum(others).sqrt() for t in (got.detach().double() - expected, expected)
    )
    typical = (
        size.square().mean().sqrt()
    )  # maps that are all but zero are held to a hundredth of this
    return float((off / size.clamp(min=1e-2 * typical)).max())


def worst(errors: Iterable[float]) -> float:
    """The largest; NaN if one is."""
    return float(np.max(list(errors)))


def poison(*like: Tensor) -> None:
    """Leaves NaN in the memory that the allocator hands out next, so that an element nobody wrote is seen."""
    trap = [torch.full_like(t, torch.nan) for t in like]
    del trap


def saved_bytes(forward: Callable[[], Any]) -> int:
    """What autograd keeps for the backward pass, inputs included, each piece of memory once."""
    kept: dict[int, Tensor] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = forward()
    del y
    return sum(t.untyped_storage().nbytes() for t in kept.values())


# --- the clock ---


class Clock:
    """Times one call. On a GPU everything runs on the current stream."""

    def __init__(self, device: str):
        self.cuda = device == "cuda"
        if self.cuda:
            self.flush = torch.empty(2**30, dtype=torch.int8, device=device)
            self.start, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def sample(
        self, call: Callable[[], Any], cold: bool = True, repeat: int = 1
    ) -> tuple[float, Any]:
        """Milliseconds per call, and what the last call returned."""
        result = None
        if not self.cuda:
            began = time.perf_counter_ns()
            for _ in range(repeat):
                result = call()
            return (time.perf_counter_ns() - began) / 1e6 / repeat, result
        if cold:
            self.flush.zero_()
        self.start.record()
        for _ in range(repeat):
            result = call()
        self.end.record()
        self.end.synchronize()
        return self.start.elapsed_time(self.end) / repeat, result


def copy_bandwidth(clock: Clock, device: str, size: int) -> float:
    """GB/s of a copy of `size` bytes, read and written counted: the ceiling."""
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    samples = [clock.sample(lambda: target.copy_(source))[0] for _ in range(20)][5:]
    return 2 * size / float(np.median(samples)) / 1e6


def copier(case: Case) -> Entry:
    """Copies, forward and backward, as many bytes as the operator must move: half read, half written."""
    pairs = {
        direction: case.integers(256, 2, count // 2, dtype=torch.uint8).unbind()
        for direction, count in case.floor().items()
        if direction != "both"
    }

    def copy(direction: str) -> None:
        target, source = pairs[direction]
        target.copy_(source)

    backward = (lambda _: copy("backward")) if "backward" in pairs else None
    return Entry("copy", "", lambda: copy("forward"), backward)


# --- one case ---


def measure(
    case: Case,
    clock: Clock,
    copy_gb_per_s: float,
    args: argparse.Namespace,
    origin: Row,
    say: Callable[[str], None],
) -> list[Row]:
    """Checks and times all implementations of a case. Returns one row per implementation, layout and direction, and one for each that
    cannot run here, with the reason."""
    say("inputs and float64 reference")
    torch.compiler.reset()  # else a ninth shape would run uncompiled
    if clock.cuda:
        gc.collect()  # the last case's tensors
        torch.cuda.empty_cache()
    seed = args.seed if args.seed is not None else random.randrange(2**31)
    case.generator.manual_seed(seed)
    base = (
        dict.fromkeys(record.COLUMNS)
        | origin
        | case.key()
        | {"seed": seed, "copy_gb_per_s": copy_gb_per_s}
    )
    entries = [
        e
        for e in case.operator.entries(case)
        if not args.implementations or e.implementation in args.implementations
    ]
    rows: list[Row] = []
    ready: list[tuple[Entry, Row]] = []
    for entry in [*entries, copier(case)]:
        say(f"checking {entry.implementation}")
        facts = base | {"implementation": entry.implementation, "layout": entry.layout}
        try:
            facts |= examine(entry, case)
        except (
            Exception
        ) as problem:  # an implementation that cannot run here is a finding, not the end
            facts["note"] = f"skipped: {first_line(problem)}"
        if facts.get("note"):
            rows.append(facts)
        else:
            ready.append((entry, facts))

    gc.collect()
    gc.disable()
    try:
        methods = {
            "cold" if clock.cuda else "wall": rounds([e for e, _ in ready], clock, args, say)
        }
        if clock.cuda:
            methods["graph"] = replays([e for e, _ in ready], clock, args, say)
    finally:
        gc.enable()
    sm_mhz = (
        record.nvidia_smi("clocks.sm") if clock.cuda else ""
    )  # at once, while the clocks are still those of the work
    floor = case.floor()
    for method, samples in methods.items():
        for (number, direction), times in samples.items():
            low, median, high = (float(q) for q in np.percentile(times, [20, 50, 80]))
            speed = floor[direction] / median / 1e6
            share = {
                "floor_bytes": floor[direction],
                "gb_per_s": speed,
                "percent_of_copy": 100 * speed / copy_gb_per_s,
            }
            quantiles = {"runs": len(times), "median_ms": median, "p20_ms": low, "p80_ms": high}
            rows.append(
                ready[number][1]
                | {"direction": direction, "method": method, "sm_mhz": sm_mhz}
                | quantiles
                | share
            )
    return rows


def examine(entry: Entry, case: Case) -> Row:
    """Whether it computes the right thing, and what it keeps. Compiles and tunes whatever does so at first use."""
    if entry.check is None:
        return {}
    off = entry.check()
    if not off <= TOLERANCE[case.dtype]:  # so that NaN is wrong
        return {
            "error": off,
            "note": f"wrong, not timed: off by {off:.2g}, more than the {TOLERANCE[case.dtype]:.0e} allowed",
        }
    facts: Row = {"error": off}
    if entry.backward:
        facts["saved_bytes"] = saved_bytes(entry.forward)
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        once(entry)
        facts["peak_bytes"] = torch.cuda.max_memory_allocated() - before
    return facts


def once(entry: Entry) -> None:
    state = entry.forward()
    if entry.backward:
        entry.backward(state)


def first_line(problem: Exception) -> str:
    return f"{type(problem).__name__}: {next((line for line in str(problem).splitlines() if line.strip()), '')[:200]}"


def turns(runs: int, seconds: float) -> Iterator[int]:
    """One item per round: 0 for those of the warm-up, then 1, 2, ... for those to keep."""
    began = time.perf_counter()
    warm = 0
    while warm < WARM_UP or time.perf_counter() - began < WARM_SECONDS:
        warm += 1
        yield 0
    for kept in range(1, runs + 1):
        if kept > FEWEST and time.perf_counter() - began > seconds:
            return
        yield kept


Samples = dict[tuple[int, str], list[float]]


def rounds(
    entries: Sequence[Entry], clock: Clock, args: argparse.Namespace, say: Callable[[str], None]
) -> Samples:
    """Single calls, taking turns. Returns the samples by number of the entry and direction."""
    samples: Samples = {}
    for kept in turns(args.runs, args.seconds):
        say(f"round {kept} of {args.runs}" if kept else "warming up")
        for number in random.sample(range(len(entries)), len(entries)):
            entry = entries[number]
            took, state = clock.sample(entry.forward)
            taken = {"forward": took}
            if entry.backward:
                back = clock.sample(partial(entry.backward, state))[0]
                taken |= {"backward": back, "both": took + back}
            del state  # before the next one allocates
            for direction, ms in taken.items() if kept else ():
                samples.setdefault((number, direction), []).append(ms)
    return dict(sorted(samples.items(), key=lambda item: item[0][0]))


def replays(
    entries: Sequence[Entry], clock: Clock, args: argparse.Namespace, say: Callable[[str], None]
) -> Samples:
    """The same for CUDA graphs of the forward pass, and of forward and backward. What cannot be captured is left out."""
    pool = (
        torch.cuda.graph_pool_handle()
    )  # one for all: they never run at once, and nobody reads their results
    graphs: dict[tuple[int, str], tuple[torch.cuda.CUDAGraph, int]] = {}
    for number, entry in enumerate(entries):
        calls: dict[str, Callable[[], Any]] = {"forward": entry.forward}
        if entry.backward:
            calls["both"] = partial(once, entry)
        for direction, call in calls.items() if entry.capture else ():
            say(f"capturing {entry.implementation}")
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream()):
                    call()
            except Exception as problem:
                tqdm.write(
                    f"no CUDA graph of {entry.implementation} {entry.layout}, {direction}: {first_line(problem)}",
                    sys.stderr,
                )
                pool = (
                    torch.cuda.graph_pool_handle()
                )  # torch thinks that the old one is still recorded into
                continue
            graph.replay()
            alone, _ = clock.sample(graph.replay, cold=False)
            graphs[number, direction] = (
                graph,
                max(1, min(50, math.ceil(1.0 / max(alone, 1e-3)))),
            )  # some 1 ms per sample
    samples: Samples = {key: [] for key in graphs}
    for kept in turns(args.runs, args.seconds / 2):
        say(f"replaying, round {kept} of {args.runs}")
        for key in random.sample(list(graphs), len(graphs)):
            graph, repeat = graphs[key]
            took = clock.sample(graph.replay, cold=False, repeat=repeat)[0]
            if kept:
                samples[key].append(took)
    return samples
