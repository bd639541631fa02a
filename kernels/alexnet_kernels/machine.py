"""The machine and the code that a measurement depends on, as words to store with it."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version
from pathlib import Path

# what decides how fast a processor computes: its name alone may say no more than "EPYC"
_INSTRUCTION_SETS = ("amx_bf16", "amx_tile", "avx512_bf16", "avx512f", "avx2", "fma")


def processor() -> str:
    """The processor's name, as the system tells it."""
    return cpuinfo("model name") or platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """The vector and matrix instruction sets of the processor; none where the system has no
    /proc/cpuinfo."""
    flags = cpuinfo("flags").split()
    return [name for name in _INSTRUCTION_SETS if name in flags]


def cpuinfo(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo; "" where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":")[1].strip() for line in lines if line.startswith(field)), "")


def version(package: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return _version(package)
    except PackageNotFoundError:
        return None


def git(folder: Path, *arguments: str) -> str | None:
    """What git prints in a folder; None without git, without a repository, or on an error.

    Args:
        folder: Of a repository, or any other.
        arguments: Of the command.
    """
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
