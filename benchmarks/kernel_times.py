"""Which kernels a training step's time goes to, as torch's profiler sees them."""

import argparse
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from alexnet.training.precision import using_precision
from benchmarks.contestants import Case, graph, ours
from kernel_benchmarks.record import Row
from kernel_benchmarks.runner import Clock

STEPS = 3
SHOWN = 24  # kernels; the rest are one row
REST, BUSY, STEP = "all others", "all kernels", "a step"


def kernel_times(case: Case, args: argparse.Namespace) -> list[Row]:
    """A row for each kernel with its time in a step, the longest last; then those of all kernels,
    and of the step without a profiler, which is longer by what the device waits. On a CPU torch's
    operators stand in the place of kernels."""
    gpu = args.device == "cuda"
    with using_precision(case.precision, torch.device(args.device)):
        torch.manual_seed(0)
        step = (graph if gpu else ours)(case, args.device)
        step()
        whole = Clock(args.device).median(step, STEPS if gpu else 1, cold=False)
        kind = ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU
        with profile(activities=[kind]) as profiler:
            for _ in range(STEPS):
                step()
            if gpu:
                torch.cuda.synchronize()
    times, counts = totals(profiler.events(), gpu)
    return [*table(times, counts, STEPS), row(STEP, whole)]


def totals(events: Any, gpu: bool) -> tuple[Counter[str], Counter[str]]:
    """Microseconds, and how many, by name."""
    times, counts = Counter[str](), Counter[str]()
    for event in events:
        if (event.device_type == DeviceType.CUDA) == gpu:
            times[event.name] += event.self_device_time_total if gpu else event.self_cpu_time_total
            counts[event.name] += 1
    return times, counts


def table(times: Mapping[str, float], counts: Mapping[str, int], steps: int) -> list[Row]:
    """The rows, the longest last, and their sum. times: microseconds of `steps` steps."""
    ordered = sorted(times, key=lambda name: times[name])
    rest, shown = ordered[:-SHOWN], ordered[-SHOWN:]
    rows, ends = [], [(name[:56], [name]) for name in shown]
    for title, names in ((REST, rest), *ends, (BUSY, ordered)):
        count, spent = (sum(each[name] for name in names) / steps for each in (counts, times))
        rows += [row(f"{count:g} x {title}", spent / 1e3)] if names else []
    return rows


def row(name: str, ms: float) -> Row:
    return {"implementation": name, "median_ms": ms, "runs": STEPS}
