"""Measured rows: where and with what each was measured, and the CSV files that keep them.

Rows accumulate over machines and commits, so that a slowdown shows. Every row says where it comes
from.
"""

import csv
import io
import os
import platform
import subprocess
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import psutil
import torch

from alexnet_kernels.files import tree_digest, write_whole
from alexnet_kernels.machine import git, instruction_sets, processor, version

Row = dict[str, Any]

HERE = Path(__file__).resolve().parent
ARCHIVE = HERE / "results"
SOURCES = (HERE.parent / "alexnet_kernels", HERE)  # what a time depends on
SUFFIXES = {".py", ".c", ".cc", ".cpp", ".cu", ".h"}

MACHINE = (
    *("device", "processor", "flags", "cores", "threads", "memory_gb", "driver", "python"),
    *("torch", "triton", "cuda", "cudnn"),
)
ORIGIN = ("time", "commit", "dirty", "source", *MACHINE, "busy_percent")
QUANTILES = ("runs", "median_ms", "p20_ms", "p80_ms")
CASE = ("operator", "layer", "shape", "batch", "dtype")
COLUMNS = (
    *(*ORIGIN, *CASE, "implementation", "layout", "direction", "method", "seed", *QUANTILES),
    *("floor_bytes", "gb_per_s", "copy_gb_per_s", "percent_of_copy", "error", "saved_bytes"),
    *("peak_bytes", "sm_mhz", "note"),
)
NUMBERS = {
    *("memory_gb", "threads", "busy_percent", "batch", *QUANTILES, "floor_bytes", "gb_per_s"),
    *("copy_gb_per_s", "percent_of_copy", "error", "saved_bytes", "peak_bytes"),
    *("width", "image_size", "images_per_s", "peak_mb", "ratio", "target", "floor_ms"),  # steps
    "peak_gflops",
    *("budget", "reached", "epochs", "seconds", "value", "p20", "p80"),  # trainings, data
}


class InputError(ValueError):
    """Bad input from outside. The message names it and the remedy, in one line."""


def machine(device: str, commit: str | None = None, sources: Sequence[Path] = SOURCES) -> Row:
    """Where and with what a row is measured: the columns ORIGIN without the time.

    Args:
        device: "cpu" or "cuda".
        commit: What to say in a copy of the files that is no git checkout.
        sources: Folders of code that a time depends on.
    """
    gpu = device == "cuda"
    # measured rows do not count as changes: every run adds some
    apart = ":(top,exclude,glob)**/results/**"
    changed = git(HERE, "status", "--porcelain", "--", *map(str, sources), apart)
    return {
        "commit": commit or git(HERE, "rev-parse", "--short=12", "HEAD") or "unknown",
        "dirty": "unknown" if changed is None else "yes" if changed else "no",
        "source": source_digest(sources),
        "device": torch.cuda.get_device_name() if gpu else processor(),
        "processor": processor(),
        "flags": " ".join(instruction_sets()),
        "cores": f"{psutil.cpu_count(logical=False)} ({os.cpu_count()} logical)",
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "driver": nvidia_smi("driver_version") if gpu else "",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": version("triton") or "",
        "cuda": (torch.version.cuda or "") if gpu else "",
        "cudnn": str(torch.backends.cudnn.version() or "") if gpu else "",
        "busy_percent": psutil.cpu_percent(0.2),  # by other programs, before the run begins
    }


def source_digest(sources: Sequence[Path] = SOURCES) -> str:
    """A digest of every source file in some folders, which tells versions apart without git."""
    roots = [source.resolve() for source in sources]
    top = Path(os.path.commonpath([root.parent for root in roots]))
    paths = (path for root in roots for path in root.rglob("*") if path.suffix in SUFFIXES)
    return tree_digest(top, paths)[:12]


def nvidia_smi(field: str) -> str:
    """What the driver says of device 0, or "" where it says nothing."""
    command = ["nvidia-smi", "--id=0", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


# --- files ---


def read(path: Path, columns: Sequence[str] = COLUMNS) -> list[Row]:
    """The rows of a CSV: numbers as numbers, absent ones as None; none where there is no file.

    Raises:
        InputError: The file has other columns, or is damaged.
    """
    number = 0
    try:
        if not path.exists():
            return []
        if not path.is_file():
            raise ValueError("no file")
        text, rows = path.read_text(), []
        for number, values in enumerate(csv.reader(io.StringIO(text, newline="")), 1):
            if number == 1 and values != list(columns):
                raise ValueError("other columns than this version writes")
            if len(values) != len(columns):
                raise ValueError(f"{len(values)} fields of {len(columns)}")
            if number > 1:
                pairs = zip(columns, values, strict=True)
                rows.append({name: _value(name, text) for name, text in pairs})
        if text and not text.endswith("\n"):
            raise ValueError("cut off at its end")
    except (OSError, ValueError, csv.Error) as error:
        place = f"{path}, line {number}: {error}"
        raise InputError(f"{place}; mend it, or name another file with --out") from None
    return rows


def _value(name: str, text: str) -> str | float | None:
    return text if name not in NUMBERS else float(text) if text else None


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def written(row: Row) -> Row:
    """A row as it is read again once it was written."""
    return {name: _value(name, _text(value)) for name, value in row.items()}


def append(path: Path, rows: Collection[Row], columns: Sequence[str] = COLUMNS) -> list[Row]:
    """Add rows to a CSV: all of them or none, also when killed. A row without a time gets that of
    now. No rows only show whether some could be added.

    Returns:
        The rows as they are read again.

    Raises:
        InputError: The file cannot be added to, and is left as it was.
    """
    before = path.read_text() if read(path, columns) else ""
    text, stamp = io.StringIO(), {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if not before:
        writer.writeheader()
    for row in rows:
        values = {name: _text(value) for name, value in row.items()}
        writer.writerow(values | ({} if row.get("time") else stamp))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):  # where nothing is added, that it could be
            pass
        if rows:
            write_whole(path, before + text.getvalue())
    except OSError as error:
        reason = f"cannot be written ({error.strerror})"
        raise InputError(f"{path} {reason}; name another file with --out") from None
    return read(path, columns)[-len(rows) :] if rows else []


def of_last_device(rows: Iterable[Row], cuda: bool) -> list[Row]:
    """The rows of the GPU, or of the CPU, that was measured last."""
    rows = [row for row in rows if bool(row["cuda"]) == cuda]
    last = max(rows, key=lambda row: row["time"], default=None)
    return [row for row in rows if last and row["device"] == last["device"]]
