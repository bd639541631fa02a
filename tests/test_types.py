"""Types: mypy holds what annotations say, in all that is installed or run by hand.

A test, so that `make test` checks types on one core while others are at work.
"""

import subprocess
import sys
from pathlib import Path


def test_types():
    command, root = [sys.executable, "-m", "mypy"], Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
