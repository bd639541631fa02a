"""Signals that ask the program to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

RETRY = 0.05  # seconds
# Ctrl-C, whoever ends programs, and a terminal that is closed
STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _heeded() -> list[signal.Signals]:
    """Of the signals STOP those that this process may take note of.

    What is ignored stays so, as SIGHUP under nohup. Handlers are the main thread's.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number in STOP if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def collected_signals() -> Iterator[list[int]]:
    """Collect the numbers of the signals STOP in a list while the block runs, so that a step is
    completed; outside the main thread they stay as they are, and so do ignored ones."""
    numbers: list[int] = []
    before = {number: signal.signal(number, lambda n, _: numbers.append(n)) for number in _heeded()}
    try:
        yield numbers
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """End the block by KeyboardInterrupt on the signals STOP, so that it can clean up.

    The exception's `signal` is the signal's number. While anything is being imported the signal is
    put off, by a timer: Python swallows exceptions in some places there and keeps a lock, and
    libraries abort. Outside the main thread all stay as they are, and so do ignored signals.
    """
    numbers = _heeded()
    if not numbers:
        yield
        return
    before = {number: signal.getsignal(number) for number in [*numbers, signal.SIGALRM]}
    for number in numbers:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            signal.signal(signal.SIGALRM, lambda _, frame: _stop(number, frame))
            signal.setitimer(signal.ITIMER_REAL, RETRY)
            return
        frame = frame.f_back
    stopped = KeyboardInterrupt()
    setattr(stopped, "signal", number)  # noqa: B010 (no such attribute, says the type checker)
    raise stopped
