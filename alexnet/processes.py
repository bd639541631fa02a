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
from typing import Any, Generic, Protocol, TypeVar

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


T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """How many cores this process may use (at least 1)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_flight(workers: int) -> int:
    """Items that an ordered map has at most under way: taken, and their results not yet used."""
    return 2 * workers + 1


@dataclass(frozen=True)
class Crashed(Generic[T]):
    """Stands for a result when the process that worked on `item`, and on nothing else, died."""

    item: T


class OrderedMap(Protocol):
    """A `map` whose results come in the order of the items."""

    def __call__(
        self, function: Callable[[T], R], items: Iterable[T]
    ) -> Iterator[R | Crashed[T]]: ...


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
        yield map  # type: ignore[misc]  # no result of it is ever Crashed
        return
    pool = _executor(workers)

    def ordered_map(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R | Crashed[T]]:
        nonlocal pool
        items = iter(items)
        # Two tasks per worker under way keep memory constant and every worker busy.
        waiting: deque[tuple[T, Future[R]]] = deque(
            (item, _submit(pool, function, item)) for item in itertools.islice(items, 2 * workers)
        )
        while waiting:
            item, future = waiting.popleft()
            result: R | Crashed[T]
            try:
                result = future.result()
            except (BrokenProcessPool, CancelledError):
                pool.shutdown(cancel_futures=True)
                result = _alone(function, item)
                pool = _executor(workers)
                waiting = deque((item, _submit(pool, function, item)) for item, _ in waiting)
            waiting.extend(
                (item, _submit(pool, function, item)) for item in itertools.islice(items, 1)
            )
            yield result

    try:
        yield ordered_map
    finally:
        pool.shutdown(cancel_futures=True)


def _executor(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, _SparingContext(), initializer=follow_parent)


def _alone(function: Callable[[T], R], item: T) -> R | Crashed[T]:
    with _executor(1) as pool:
        try:
            return pool.submit(function, item).result()
        except BrokenProcessPool:
            return Crashed(item)


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
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, begin or follow_parent)
    left, numbers = iter(tasks), itertools.count()
    pending: dict[Future[R], int] = {}
    try:
        while True:
            for task in itertools.islice(left, workers - len(pending)):
                pending[_submit(pool, function, *task)] = next(numbers)
            if not pending:
                return
            pause = 0.5 if on_wait else None
            done, _ = wait(pending, timeout=pause, return_when=FIRST_COMPLETED)
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
    """Leave Ctrl-C to the parent, and die with it: a killed parent would otherwise leave its pool
    waiting for ever. What every worker does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
