"""Long tasks in processes: they come as they end, begin as they can, and stop when nobody waits."""

import multiprocessing
import os
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from alexnet.processes import as_they_end


def _wait_for(path: Path | None) -> None:
    deadline = time.monotonic() + 60
    while path and not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def test_long_tasks_come_as_they_end_and_a_process_that_died_is_told(tmp_path: Path) -> None:
    order = []
    for number, _ in as_they_end(_wait_for, [(tmp_path / "go",), (None,)], 2):
        order.append(number)
        (tmp_path / "go").touch()  # the first task ends only once the second has come
    assert order == [1, 0]
    jobs = [job for _, job in as_they_end(os._exit, [(3,), (3,), (3,)], 2)]
    assert [type(job.exception()) for job in jobs] == [BrokenProcessPool] * 3


def test_long_tasks_that_nobody_waits_for_are_stopped() -> None:
    began = time.monotonic()
    for _ in as_they_end(time.sleep, [(0.0,), (600.0,)], 2):
        break
    while multiprocessing.active_children() and time.monotonic() < began + 60:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


class Growing:
    """Tasks of which more come when the first ones have ended."""

    def __init__(self) -> None:
        self.left, self.given = [(0.0,), (0.0,)], 0

    def __iter__(self) -> "Growing":
        return self

    def __next__(self) -> tuple[float]:
        if not self.left:
            raise StopIteration
        self.given += 1
        return self.left.pop(0)


def test_tasks_are_taken_when_a_process_is_free_and_more_may_come() -> None:
    tasks, ended = Growing(), []
    for number, job in as_they_end(time.sleep, tasks, 1):
        job.result()
        ended.append(number)
        assert tasks.given == len(ended), "none is taken before a process is free for it"
        if number == 1:
            tasks.left.append((0.0,))
    assert ended == [0, 1, 2]
