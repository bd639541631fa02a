"""How a run that is asked to stop says so; tests/test_run.py has how it stops."""

import pickle
import signal

from alexnet.training import Interrupted


def test_an_interruption_travels_between_processes():
    back = pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM, "stopped at step 3")))
    assert back.signal == signal.SIGTERM and str(back) == "stopped at step 3"
