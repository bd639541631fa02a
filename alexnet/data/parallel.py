"""Many images at once: an ordered map over processes that neither outruns its reader nor outlives its parent."""

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """How many cores this process may use (at least 1)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class OrderedMap(Protocol):
    def __call__(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]: ...


@contextmanager
def crew(workers: int) -> Iterator[OrderedMap]:
    """Give an ordered `map`: in this process with `workers` of 1 or less, else in that many processes, which live as long as the block."""
    if workers <= 1:
        yield _one_by_one
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=follow_parent)

    def ordered_map(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        items = iter(items)
        # Two tasks per worker under way keep memory constant and every worker busy.
        waiting: deque[Future[R]] = deque(pool.submit(function, item) for item in itertools.islice(items, 2 * workers))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in itertools.islice(items, 1))
            yield result

    try:
        yield ordered_map
    finally:
        pool.shutdown(cancel_futures=True)


def _one_by_one(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    return map(function, items)


def follow_parent() -> None:
    """Leave Ctrl-C to the parent, and die with it: a killed parent would otherwise leave its pool waiting for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
