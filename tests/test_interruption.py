"""How a run that is asked to stop says so; tests/test_run.py has how it stops."""

import os
import pickle
import signal
import threading

from alexnet.signals import collected_signals
from alexnet.training import Interrupted


def test_an_interruption_travels_between_processes():
    back = pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM, "stopped at step 3")))
    assert back.signal == signal.SIGTERM and str(back) == "stopped at step 3"


def test_signals_are_collected_while_the_block_runs():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with collected_signals() as numbers:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert numbers == [signal.SIGTERM, signal.SIGINT]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_in_a_thread_signals_stay_as_they_are():
    def collect():
        with collected_signals():
            handlers.append(signal.getsignal(signal.SIGINT))

    handlers = [signal.getsignal(signal.SIGINT)]
    thread = threading.Thread(target=collect)
    thread.start()
    thread.join()
    assert handlers[0] == handlers[1]
