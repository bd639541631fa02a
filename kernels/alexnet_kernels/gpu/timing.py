"""How long kernels take on the device, without what the host takes to launch them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

CALLS, REPLAYS = 5, 5


def milliseconds(call: Callable[[], Any]) -> float:
    """The median time of a call, of replays of a CUDA graph that holds CALLS of them.

    At the batches of training the host takes longer for a launch than the device for the kernel.
    The call is made once before, so that whatever compiles or may fail does so outside the graph.
    """
    call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # a loader's threads go on
        for _ in range(CALLS):
            call()
    times = []
    for _ in range(REPLAYS + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / CALLS)
    return sorted(times[1:])[REPLAYS // 2]  # the first replay uploads the graph


def of_configuration(call: Callable[[], Any], quantiles: Sequence[float]) -> list[float]:
    """The same as `triton.autotune` takes it: one number for each quantile."""
    return [milliseconds(call)] * len(quantiles)
