"""What memory this process takes."""

from contextlib import suppress
from pathlib import Path


def resident(which: str) -> float | None:
    """MiB; None on systems without /proc.

    Args:
        which: "VmRSS" for what it is now, "VmHWM" for the most that it was.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(which)), None)


def forget_peak() -> None:
    """Let "VmHWM" begin anew, with what there is now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
