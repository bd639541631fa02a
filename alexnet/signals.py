"""Signals that ask the program to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

RETRY = 0.05  # seconds


@contextmanager
def terminable() -> Iterator[None]:
    """End the block by KeyboardInterrupt on SIGTERM and on Ctrl-C, so that it can clean up.

    The exception's `signal` is the signal's number. While anything is being imported the signal is
    put off, by a timer: Python swallows exceptions in some places there and keeps a lock, and
    libraries abort. Outside the main thread all stay as they are, and so does an ignored SIGINT.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGALRM, signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        numbers.append(signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers[1:]:
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
