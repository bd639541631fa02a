"""What memory a process takes; as a program, what preparing a pack takes.

python -m benchmarks.memory SOURCE OUT     # with two workers: seconds, MB at most, MB of a worker
"""

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from alexnet.data.prepare import prepare


def resident(which: str, process: str = "self") -> float | None:
    """Memory of a process in MiB.

    Args:
        which: "VmRSS" for what it is now, "VmHWM" for the most that it was.
        process: Its number.

    Returns:
        None on systems without /proc, and for a process that has ended.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith(f"{which}:")]
    return int(sizes[0]) / 1024 if sizes else None


def forget_peak() -> None:
    """Let "VmHWM" begin anew, with what there is now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def main(source: str, out: str) -> None:
    largest = 0.0

    def watch() -> None:
        nonlocal largest
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        while True:
            time.sleep(0.1)
            sizes = (resident("VmHWM", child) for child in children.read_text().split())
            largest = max(largest, *(size or 0.0 for size in sizes), 0.0)

    threading.Thread(target=watch, daemon=True).start()
    began = time.perf_counter()
    prepare(source, out, size=64, workers=2)
    print(time.perf_counter() - began, resident("VmHWM"), largest)


if __name__ == "__main__":
    main(*sys.argv[1:])
