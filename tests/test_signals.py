"""Signals that end a program or are noted by it; tests/test_cli.py has them in a program."""

import os
import signal
import threading

import pytest

from alexnet.signals import STOP, collected_signals, terminable


def handlers():
    return [signal.getsignal(number) for number in STOP]


@pytest.fixture(autouse=True)
def restored():
    before = handlers()
    yield
    for number, handler in zip(STOP, before):
        signal.signal(number, handler)


def test_signals_are_collected_while_the_block_runs():
    before = handlers()
    with collected_signals() as numbers:
        for number in reversed(STOP):
            os.kill(os.getpid(), number)
    assert sorted(numbers) == sorted(STOP)
    assert handlers() == before


@pytest.mark.parametrize("number", STOP)
def test_each_of_them_ends_a_block_that_can_clean_up(number):
    before = handlers()
    with pytest.raises(KeyboardInterrupt) as stop, terminable():
        os.kill(os.getpid(), number)
        signal.pause()
    assert stop.value.signal == number and handlers() == before


@pytest.mark.parametrize("block", [collected_signals, terminable])
def test_what_is_ignored_stays_ignored(block):
    """As SIGHUP under nohup, and SIGINT in a shell's background."""
    for ignored in STOP:
        signal.signal(ignored, signal.SIG_IGN)
        with block():
            os.kill(os.getpid(), ignored)
            assert signal.getsignal(ignored) is signal.SIG_IGN


@pytest.mark.parametrize("block", [collected_signals, terminable])
def test_in_a_thread_signals_stay_as_they_are(block):
    def enter():
        with block():
            seen.append(handlers())

    seen: list = [handlers()]
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen[0] == seen[1]
