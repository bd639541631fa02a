"""Process pools, one way: many small items in order, or a few long tasks as they end.

No worker outlives its parent, and Ctrl-C is the parent's alone (`follow_parent`).
"""

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from alexnet import container

# The environment of processes that decode. BLAS starts no threads, of which there would be one a
# core; and glibc keeps the memory that one image frees for the next, for it takes time to get pages
# anew from the system.
SPARING = {
    "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2**28), "MALLOC_MMAP_THRESHOLD_": str(2**25),
}  # fmt: skip


class _SparingProcess(SpawnProcess):
    """Starts in the environment SPARING, which is read before any code of ours runs there."""

    def start(self) -> None:
        before = {name: os.environ.get(name) for name in SPARING}
        os.environ.update(SPARING)
        try:
            super().start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


class _SparingContext(SpawnContext):
    Process = _SparingProcess  # type: ignore[assignment]


R = TypeVar("R")
# A `map` whose results come in the order of the items.
OrderedMap = Callable[[Callable[..., Any], Iterable[Any]], Iterator[Any]]


def cores() -> int:
    """How many cores this process may use (at least 1), as its container limits them."""
    own = hasattr(os, "sched_getaffinity")
    present = len(os.sched_getaffinity(0)) if own else os.cpu_count() or 1
    return max(1, min(present, int(container.cores())))


def in_flight(workers: int) -> int:
    """Items that an ordered map has at most under way: taken, and their results not yet used."""
    return 2 * workers + 1


@dataclass(frozen=True)
class Crashed:
    """Stands for a result when the process that worked on `item`, and on nothing else, died."""

    item: Any


@contextmanager
def process_pool(workers: int, isolated: bool = False) -> Iterator[OrderedMap]:
    """Give an ordered map over processes, which live as long as the block.

    It takes no more items than `in_flight`. When a process dies (a decoder's fault, or memory), the
    others' work is done again, and the item that it died of comes out as `Crashed`.

    Args:
        workers: Processes. A single one is this process, unless `isolated`.
        isolated: The work must not be able to take this process with it.
    """
    if workers <= 1 and not isolated:
        yield map  # no result of it is ever Crashed
        return
    pool = _executor(workers)

    def ordered_map(function: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        nonlocal pool
        coming, waiting = iter(items), deque[tuple[Any, Future]]()
        while True:
            # Two tasks per worker under way keep memory constant and every worker busy.
            for item in itertools.islice(coming, in_flight(workers) - len(waiting)):
                waiting.append((item, _submit(pool, function, item)))
            if not waiting:
                return
            item, future = waiting.popleft()
            try:
                result = future.result()
            except (BrokenProcessPool, CancelledError):
                pool.shutdown(cancel_futures=True)
                with _executor(1) as alone:
                    future = alone.submit(function, item)
                    died = isinstance(future.exception(), BrokenProcessPool)
                    result = Crashed(item) if died else future.result()
                pool = _executor(workers)
                waiting = deque((item, _submit(pool, function, item)) for item, _ in waiting)
            yield result

    try:
        yield ordered_map
    finally:
        pool.shutdown(cancel_futures=True)


def _executor(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, _SparingContext(), initializer=follow_parent)


def as_they_end(
    function: Callable[..., R],
    tasks: Iterable[tuple],
    workers: int,
    begin: Callable[[], object] | None = None,
    on_wait: Callable[[], object] | None = None,
) -> Iterator[tuple[int, Future[R]]]:
    """Run `function(*task)` for a few long tasks, each in one of `workers` processes.

    Left early, as by Ctrl-C or by an exception in the caller, the processes get SIGTERM and are
    waited for: a training run leaves a checkpoint, everything else just ends. Tasks that have not
    begun never do.

    Args:
        function: What every process runs.
        tasks: The arguments of each call.
        workers: Processes.
        begin: What a process does first, in place of `follow_parent`.
        on_wait: Called here about twice a second while tasks run, to show progress.

    Yields:
        A task's number and its finished future, as it ends. A process that dies breaks all tasks
        that have not ended (BrokenProcessPool).
    """
    pool = ProcessPoolExecutor(workers, SpawnContext(), begin or follow_parent)
    left, numbers = iter(tasks), itertools.count()
    pending: dict[Future[R], int] = {}
    try:
        while True:
            for task in itertools.islice(left, workers - len(pending)):
                pending[_submit(pool, function, *task)] = next(numbers)
            if not pending:
                return
            done, _ = wait(pending, 0.5 if on_wait else None, FIRST_COMPLETED)
            if on_wait:
                on_wait()
            yield from ((pending.pop(job), job) for job in done)
    except BaseException:  # also where nobody wants the rest
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:  # once: a second call would not wait
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, function: Callable[..., R], *task: Any) -> Future[R]:
    try:
        return pool.submit(function, *task)
    except BrokenProcessPool as broken:  # since the last look
        failed: Future[R] = Future()
        failed.set_exception(broken)
        return failed


def follow_parent() -> None:
    """Leave Ctrl-C and a closed terminal to the parent, and die with it: a killed parent would
    otherwise leave its pool waiting for ever. What every worker does first."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
