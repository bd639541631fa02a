"""What a container lets this process use of the machine: limits of control groups, version 1 and 2.

Those of the group itself and of all groups around it count.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> float:
    """How many cores' time the processes of the container have together; infinity: no limit."""
    limits = [math.inf]
    for folder, unified in _folders("cpu"):
        if unified:
            numbers = _numbers(folder / "cpu.max")
        else:
            numbers = _numbers(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")
        if len(numbers) == 2 and numbers[0] > 0 < numbers[1]:
            limits.append(numbers[0] / numbers[1])
    return min(limits)


def memory() -> float:
    """Bytes of memory that the container may use; of the machine, where there is no limit."""
    limits = [float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))]
    for folder, unified in _folders("memory"):
        limits += _numbers(folder / ("memory.max" if unified else "memory.limit_in_bytes"))
    return min(limits)


def _folders(controller: str) -> Iterator[tuple[Path, bool]]:
    """The folders of a controller's groups, and whether they are of version 2."""
    try:
        lines = OWN.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = GROUPS / controllers if controllers else GROUPS
        # inside a container the name may be that outside, and the group's own folder the top
        own = top if ".." in name else top / name.lstrip("/")
        for folder in (own, *own.parents):
            yield folder, not controllers
            if folder == top:
                break


def _numbers(*files: Path) -> list[float]:
    """What stands in the files; "max" is infinity."""
    try:
        words = " ".join(file.read_text() for file in files).split()
        return [math.inf if word == "max" else float(word) for word in words]
    except (OSError, ValueError):
        return []
