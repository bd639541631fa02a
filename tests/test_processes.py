"""Process pools: results in order, and a bound on what is under way, whatever dies.

Long tasks, `as_they_end`, are tested with what runs them.
"""

import os
import signal
import subprocess
import sys
import time

import pytest

from alexnet.errors import EnvironmentFault
from alexnet.processes import SPARING, Crashed, in_flight, process_pool


def square(number: int) -> int:
    if number < 0:
        os._exit(3)
    time.sleep(0.01 * (number % 3))  # later items overtake
    return number**2


def refuse(word: str) -> None:
    raise ValueError(word)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_no_more_is_taken_than_is_in_flight(workers):
    taken = []
    with process_pool(workers) as ordered_map:
        for done, result in enumerate(ordered_map(square, map_over(20, taken))):
            assert result == done**2
            assert len(taken) <= done + in_flight(workers)
    assert taken == list(range(20))


def map_over(count, taken):
    for number in range(count):
        taken.append(number)
        yield number


def test_an_item_that_kills_its_process_comes_out_as_such():
    with process_pool(1, isolated=True) as ordered_map:
        assert list(ordered_map(square, [1, -2, 3, 4])) == [1, Crashed(-2), 9, 16]
        with pytest.raises(ValueError, match="five"):  # an exception is none of these
            list(ordered_map(refuse, ["five"]))
        assert list(ordered_map(square, [5])) == [25]  # it is of use still


def killed(number: int) -> int:
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_process_that_is_killed_is_not_its_items_fault():
    with process_pool(1, isolated=True) as ordered_map:
        with pytest.raises(
            EnvironmentFault, match=r"killed \(SIGKILL\), as the system does when mem"
        ):
            list(ordered_map(killed, [1, -2, 3]))
        assert list(ordered_map(killed, [5])) == [5]


def environment(_: int) -> tuple[int, dict[str, str | None]]:
    time.sleep(0.2)  # so that each process gets one to do
    return os.getpid(), {name: os.environ.get(name) for name in SPARING}


def test_every_worker_is_sparing(monkeypatch):
    """And the environment of this process is what it was."""
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with process_pool(2) as ordered_map:
        found = dict(ordered_map(environment, range(8)))
    assert len(found) == 2 and all(each == SPARING for each in found.values())
    assert os.environ["MKL_NUM_THREADS"] == "7" and "OPENBLAS_NUM_THREADS" not in os.environ


SCRIPT = """
import os, signal, sys, time
from alexnet.errors import EnvironmentFault
from alexnet.processes import process_pool

def work(_):
    for number in (signal.SIGINT, signal.SIGHUP):
        assert signal.getsignal(number) is signal.SIG_IGN
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    with process_pool(2) as ordered_map:
        list(ordered_map(work, range(2)))
"""


def test_workers_leave_ctrl_c_and_a_closed_terminal_to_their_parent_and_die_with_it(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    workers = [int(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)
