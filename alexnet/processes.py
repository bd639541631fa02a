"""Process pools, one way: many small items in order, or a few long tasks as they end.

No worker outlives its parent, and Ctrl-C is the parent's alone (`follow_parent`).
"""

import itertools
import multiprocessing
import os
import pickle
import signal
import sys
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
from alexnet.errors import EnvironmentFault

# The environment of processes that decode. BLAS starts no threads, of which there would be one a
# core; and glibc keeps the memory that one image frees for the next, for it takes time to get pages
# anew from the system.
SPARING = {
    "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2**28), "MALLOC_MMAP_THRESHOLD_": str(2**25),
}  # fmt: skip


class _Process(SpawnProcess):
    """Starts in an environment of its own, which is read before any code of ours runs there; and
    without the caller's main module, where no work is of it. A script that is imported again would
    do all it does once more, and what came from stdin cannot be imported."""

    environment: dict[str, str]
    imports_main: bool

    def start(self) -> None:
        before = {name: os.environ.get(name) for name in self.environment}
        main = vars(sys.modules["__main__"])
        kept = {} if self.imports_main else {n: main.pop(n, None) for n in ("__spec__", "__file__")}
        os.environ.update(self.environment)
        main.setdefault("__spec__", None)
        try:
            super().start()
        finally:
            main.update({name: value for name, value in kept.items() if value is not None})
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


class _Context(SpawnContext):
    """Starts processes for work that `function` does, and remembers them."""

    def __init__(self, function: Callable[..., Any], environment: dict[str, str]):
        self.imports_main, self.environment = _is_of_main(function), environment
        self.started: list[_Process] = []

    def Process(self, *args: Any, **options: Any) -> _Process:  # type: ignore[override]
        process = _Process(*args, **options)
        process.environment, process.imports_main = self.environment, self.imports_main
        self.started.append(process)
        return process


def _is_of_main(function: Callable[..., Any]) -> bool:
    """Whether a function, or what it is to be called with, is defined in the main module."""
    try:
        return b"__main__" in pickle.dumps(function)
    except Exception:  # which the pool will say better
        return True


SHARED = SpawnContext()  # makes values, queues and locks that processes of a pool can be given
R = TypeVar("R")
# A `map` whose results come in the order of the items.
OrderedMap = Callable[[Callable[..., Any], Iterable[Any]], Iterator[Any]]


def cores() -> int:
    """How many cores this process may use (at least 1), as its container limits them."""
    own = hasattr(os, "sched_getaffinity")
    present = len(os.sched_getaffinity(0)) if own else os.cpu_count() or 1
    return max(1, int(min(present, container.cores())))


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

    It takes no more items than `in_flight`. When a process dies, the others' work is done again,
    and so is its own, in a process alone: an item that kills that one too comes out as `Crashed`.

    Args:
        workers: Processes. A single one is this process, unless `isolated`.
        isolated: The work must not be able to take this process with it.

    Raises:
        EnvironmentFault: In the map: processes die before they do anything, or are killed.
    """
    if workers <= 1 and not isolated:
        yield map  # no result of it is ever Crashed
        return
    pool, has_main = None, False

    def ordered_map(function: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        nonlocal pool, has_main
        if pool is None or (_is_of_main(function) and not has_main):
            pool, has_main = _executor(workers, function), _is_of_main(function)
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
                result = _alone(function, item)
                pool = _executor(workers, function)
                waiting = deque((item, _submit(pool, function, item)) for item, _ in waiting)
            yield result

    try:
        yield ordered_map
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _executor(workers: int, function: Callable[..., Any]) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, _Context(function, SPARING), initializer=follow_parent)


def _alone(function: Callable[..., Any], item: Any) -> Any:
    """The result of an item that a process died of, or `Crashed`.

    Raises:
        EnvironmentFault: It is not the item: a process dies of doing nothing, or is killed.
    """
    context = _Context(function, SPARING)
    with ProcessPoolExecutor(1, context, initializer=follow_parent) as pool:
        if isinstance(pool.submit(_nothing, function).exception(), BrokenProcessPool):
            context.started[0].join()
            status = context.started[0].exitcode
            guard = '; a script needs `if __name__ == "__main__":` around what it does'
            raise EnvironmentFault(
                f"worker processes end as soon as they start (exit status {status})"
                f"{guard if context.imports_main else ''}"
            )
        future = _submit(pool, function, item)
        if not isinstance(future.exception(), BrokenProcessPool):
            return future.result()
    status = context.started[0].exitcode
    if status in (-signal.SIGKILL, -signal.SIGTERM):
        what = f"a process was killed ({signal.Signals(-status).name})"
        raise EnvironmentFault(
            f"{what}, as the system does when memory runs out: use fewer workers"
        )
    return Crashed(item)


def _nothing(_: Any) -> None:
    """What any process can do that can do something."""


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
    pool = ProcessPoolExecutor(workers, _Context(function, {}), begin or follow_parent)
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
