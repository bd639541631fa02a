"""Whole training steps, the data's way and the time to an error, beside peers. README.md says how.

The package runs in a checkout and is not installed; its runner is that of the operators'
benchmarks, the package `kernel_benchmarks` in kernels/.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ARCHIVE = ROOT / "benchmarks" / "results"

if str(ROOT / "kernels") not in sys.path:
    sys.path.append(str(ROOT / "kernels"))


# what a time depends on
SOURCES = (*(ROOT / "kernels" / name for name in ("alexnet_kernels", "kernel_benchmarks")),)
SOURCES += (ROOT / "alexnet", ROOT / "benchmarks")


def environment() -> dict[str, str]:
    """Of programs that find what this one does."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
