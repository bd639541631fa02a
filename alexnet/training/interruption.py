"""How a run stops when it is asked to: between two steps, with a checkpoint."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(KeyboardInterrupt):
    """A run that a signal asked to stop and that did, with a checkpoint.

    Args:
        number: The signal's, which becomes the attribute `signal`.
    """

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number

    def __reduce__(self) -> tuple:  # on its way from a worker
        return Interrupted, (self.signal, str(self))


@contextmanager
def collected_signals() -> Iterator[list[int]]:
    """Collect the numbers of SIGINT and SIGTERM in a list while the block runs, so that a step is
    completed; outside the main thread signals stay as they are."""
    numbers: list[int] = []
    try:
        before = {
            number: signal.signal(number, lambda n, _: numbers.append(n))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
    except ValueError:  # not in the main thread
        before = {}
    try:
        yield numbers
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
