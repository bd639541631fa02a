"""What is written down with a time, where, and how it is shown: provenance, one CSV per operator, a table.

The files lie beside the scripts, in benchmarks/results/, and not in results/: that archive holds one answer per experiment and data set,
while here rows accumulate, over machines and commits, so that a slowdown shows. Every row says where it comes from; git shows which are
new."""

import csv
import io
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import torch

from alexnet import results
from alexnet.errors import InputError

Row = dict[str, Any]

HERE = Path(__file__).resolve().parent
ARCHIVE = HERE / "results"
SOURCES = (HERE.parent / "kernels", HERE)  # what a time depends on

MACHINE = (
    "device",
    "processor",
    "cores",
    "threads",
    "memory_gb",
    "driver",
    "python",
    "torch",
    "triton",
    "cuda",
    "cudnn",
)
CASE = ("operator", "layer", "shape", "batch", "dtype")
COLUMNS = (
    *("time", "commit", "dirty", "source", *MACHINE, "busy_percent"),
    *(
        *CASE,
        "implementation",
        "layout",
        "direction",
        "method",
        "seed",
        "runs",
        "median_ms",
        "p20_ms",
        "p80_ms",
    ),
    *(
        "floor_bytes",
        "gb_per_s",
        "copy_gb_per_s",
        "percent_of_copy",
        "error",
        "saved_bytes",
        "peak_bytes",
        "sm_mhz",
        "note",
    ),
)
NUMBERS = {
    "batch",
    "threads",
    "runs",
    "median_ms",
    "p20_ms",
    "p80_ms",
    "floor_bytes",
    "gb_per_s",
    "copy_gb_per_s",
    "percent_of_copy",
}
NUMBERS |= {"error", "saved_bytes", "peak_bytes", "busy_percent", "memory_gb"}


def machine(device: str, commit: str | None = None, sources: Sequence[Path] = SOURCES) -> Row:
    """Where and with what a row is measured. commit: for a copy of the files that is no git checkout; sources: what a time depends on."""
    known = results.provenance(0.0)
    gpu = device == "cuda"

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *args], cwd=HERE, capture_output=True, text=True, check=False
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # the CSVs themselves do not count: every run changes them
    changed = git("status", "--porcelain", "--", *map(str, sources), f":(exclude){ARCHIVE}")
    processor = known["hardware"]["processor"]
    return {
        "commit": commit or git("rev-parse", "--short=12", "HEAD") or "unknown",
        "dirty": "unknown" if changed is None else "yes" if changed else "no",
        "source": source_digest(sources),
        "device": torch.cuda.get_device_name() if gpu else processor,
        "processor": processor,
        "cores": f"{psutil.cpu_count(logical=False)} ({os.cpu_count()} logical)",
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "driver": nvidia_smi("driver_version") if gpu else "",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": known["versions"]["triton"] or "",
        "cuda": (torch.version.cuda or "") if gpu else "",
        "cudnn": str(torch.backends.cudnn.version() or "") if gpu else "",
        "busy_percent": psutil.cpu_percent(0.2),  # by other programs, before we begin
    }


def source_digest(folders: Sequence[Path] = SOURCES) -> str:
    """Of every source file that a time depends on; it tells versions apart where there is no git, and between commits."""
    found = (p for folder in folders for p in (folder.rglob("*") if folder.is_dir() else [folder]))
    files = sorted(p for p in found if p.suffix in {".py", ".c", ".cc", ".cpp", ".cu", ".h"})
    digest = sha256()
    for path in files:
        digest.update(f"{path.relative_to(HERE.parent)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def nvidia_smi(field: str) -> str:
    """What the driver says of device 0, or "" where it says nothing."""
    command = ["nvidia-smi", "--id=0", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


# --- rows in files ---


def read(path: Path, columns: Sequence[str] = COLUMNS) -> list[Row]:
    """The rows of a CSV, numbers as numbers, absent ones as None; none where there is no file. Raises InputError for a file that is not
    ours, or is damaged."""
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is no file; name another with --out")
        text = path.read_text() if path.exists() else ""
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(
            f"{path} cannot be read as a CSV ({_reason(problem)}); name another file with --out"
        ) from None
    if not text:
        return []
    reader = csv.reader(io.StringIO(text, newline=""))
    rows: list[Row] = []
    try:
        if tuple(next(reader)) != tuple(columns):
            raise InputError(
                f"{path} has other columns than this version writes; move it away, or name another file with --out"
            )
        for values in reader:
            if len(values) != len(columns):
                raise ValueError(f"{len(values)} fields of {len(columns)}")
            rows.append(
                {
                    name: _number(name, value) if name in NUMBERS else value
                    for name, value in zip(columns, values, strict=True)
                }
            )
        if not text.endswith("\n"):
            raise ValueError("cut off at its end")
    except InputError:
        raise
    except (ValueError, csv.Error) as problem:
        raise InputError(
            f"{path}, line {reader.line_num}: {problem}; mend or remove that line, or name another file with --out"
        ) from None
    return rows


def held(path: Path, wanted: Row, columns: Sequence[str] = COLUMNS) -> list[Row]:
    """The rows of a CSV with these values, as they are once written."""
    texts = {name: "" if value is None else str(_text(value)) for name, value in wanted.items()}
    told = {name: _number(name, text) if name in NUMBERS else text for name, text in texts.items()}
    return [
        row
        for row in read(path, columns)
        if all(row[name] == value for name, value in told.items())
    ]


def check(path: Path, columns: Sequence[str] = COLUMNS) -> None:
    """Raises InputError, before anything is measured, where rows could not be added to a CSV."""
    read(path, columns)
    with _writing(path) as part:
        part.touch()


def append(path: Path, rows: Iterable[Row], columns: Sequence[str] = COLUMNS) -> None:
    """Adds rows to a CSV: all of them or none, also when killed. Rows that have no time yet get that of now."""
    check(path, columns)
    there = path.read_text() if path.exists() else ""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if not there:
        writer.writeheader()
    stamp = now()
    writer.writerows(
        {name: _text(value) for name, value in row.items()} | {"time": row.get("time") or stamp}
        for row in rows
    )
    with _writing(path) as part:
        part.write_text(there + text.getvalue())
        part.replace(path)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """What to write first, beside the file itself; it is gone afterwards. Raises InputError where that cannot be."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.unlink(missing_ok=True)
    except OSError as problem:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise InputError(
            f"{path} cannot be written ({_reason(problem)}); name another file with --out"
        ) from None


def _reason(problem: Exception) -> str:
    return (problem.strerror or "") if isinstance(problem, OSError) else "it is no text"


def _number(name: str, text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise ValueError(f"{text!r} is no number for {name}") from None


def _text(value: Any) -> Any:
    return f"{value:.5g}" if isinstance(value, float) else value


# --- rows on a screen ---


def table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned text; the first row is the heading, and its names are flush left where they end in a space."""
    left = [name.endswith(" ") for name in rows[0]]
    rows = [[name.strip() for name in rows[0]], *rows[1:]]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join(c.ljust(w) if f else c.rjust(w) for c, w, f in zip(row, widths, left)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def summary(rows: Sequence[Row]) -> str:
    """Each case's implementations: median, percent of the copy bandwidth, and how many times as long as ours each takes.

    "Ours" is timed in the first layout of the case. The line "ours, again" is the same code timed as if it were a peer: how far its ratio
    is from 1 is how finely the table can be read."""
    blocks = []
    for (method, *_), own in cases(rows).items():
        timed = {
            (row["implementation"], row["layout"], row["direction"]): row
            for row in own
            if row["method"] == method
        }
        directions = [d for d in ("forward", "backward", "both") if any(k[2] == d for k in timed)]
        layout = next((k[1] for k in timed if k[0] == "ours"), None)
        lines = [
            [
                "implementation ",
                "layout ",
                *(text for d in directions for text in (f"{d} ms", "of copy", "x ours")),
                "saved MB",
                "error",
            ]
        ]
        for name, form in dict.fromkeys(k[:2] for k in timed):
            line = [name, form]
            for direction in directions:
                row, ours = (
                    timed.get((name, form, direction)),
                    timed.get(("ours", layout, direction)),
                )
                line += (
                    [f"{row['median_ms']:.4g}", f"{row['percent_of_copy']:.0f} %"]
                    if row
                    else ["", ""]
                )
                line += [f"{row['median_ms'] / ours['median_ms']:.2f}" if row and ours else ""]
            facts = next(row for k, row in timed.items() if k[:2] == (name, form))
            saved, error = facts["saved_bytes"], facts["error"]
            lines.append(
                [
                    *line,
                    f"{saved / 1e6:.4g}" if saved else "",
                    f"{error:.1e}" if error is not None else "",
                ]
            )
        heading = f"{title(own[0])}, {method}: copy {own[0]['copy_gb_per_s']:.4g} GB/s"
        notes = dict.fromkeys(
            f"{r['implementation']} {r['layout']}: {r['note']}" for r in own if r["note"]
        )
        blocks.append("\n".join([heading, table(lines), *notes]))
    return f"{where(rows[0])}\n\n" + "\n\n".join(blocks) if blocks else "Nothing was measured."


def digest(rows: Sequence[Row]) -> str:
    """One line per case and direction: ours in the case's first layout, and how many times as long each peer takes in its fastest
    layout."""
    lines = [
        [
            "case ",
            "direction ",
            "ours ms",
            "of copy",
            "again",
            "torch",
            "torch.compile",
            "cudnn",
            "others ",
        ]
    ]
    for (method, *_), own in cases(rows).items():
        timed = [row for row in own if row["method"] == method]
        layout = next((row["layout"] for row in timed if row["implementation"] == "ours"), None)
        for direction in ("forward", "backward", "both"):
            here = [row for row in timed if row["direction"] == direction]
            ours = next(
                (
                    row
                    for row in here
                    if row["implementation"] == "ours" and row["layout"] == layout
                ),
                None,
            )
            if ours is None or (direction == "both" and method != "graph"):
                continue
            fastest: dict[str, float] = {}
            for row in here:
                name = row["implementation"]
                if name != "ours" and (name != "ours, again" or row["layout"] == layout):
                    fastest[name] = min(row["median_ms"], fastest.get(name, float("inf")))
            ratio = {name: f"{ms / ours['median_ms']:.2f}" for name, ms in fastest.items()}
            known = [
                ratio.pop(name, "") for name in ("ours, again", "torch", "torch.compile", "cudnn")
            ]
            others = ", ".join(
                f"{name.removeprefix('ours, ')} {value}" for name, value in ratio.items()
            )
            values = [
                f"{ours['median_ms']:.4g}",
                f"{ours['percent_of_copy']:.0f} %",
                *known,
                others,
            ]
            lines.append([f"{title(own[0])}, {method}", direction, *values])
    return f"{where(rows[0])}\n\n{table(lines)}" if len(lines) > 1 else "Nothing was measured."


def cases(rows: Sequence[Row]) -> dict[tuple, list[Row]]:
    """The rows of each case, by method and the columns CASE: those timed by that method, and those that were not timed at all. Of rows
    that measure the same thing the last counts."""
    latest: dict[tuple, Row] = {}
    for row in rows:
        latest[
            tuple(row[name] for name in (*CASE, "implementation", "layout", "direction", "method"))
        ] = row
    found: dict[tuple, list[Row]] = {}
    for row in latest.values():
        if row["method"]:
            found.setdefault((row["method"], *(row[name] for name in CASE)), []).append(row)
    for (_, *key), own in found.items():
        own += [
            row
            for row in latest.values()
            if not row["method"] and [row[name] for name in CASE] == key
        ]
    return found


def title(row: Row) -> str:
    batch = f"batch {row['batch']:.0f}, " if row["batch"] else ""
    return f"{row['operator']}, {row['layer']} {row['shape']}, {batch}{row['dtype']}"


def where(row: Row) -> str:
    """The machine in words, with a warning where it was not ours alone."""
    threads = "" if row["cuda"] else f", threads: {row['threads']:.0f}"
    changes = " with changes" if row["dirty"] == "yes" else ""
    busy = (
        f"\nOther programs kept {row['busy_percent']:.0f} % of the processors busy at the start."
        if row["busy_percent"] > 10
        else ""
    )
    return f"{row['device']}{threads}, torch {row['torch']}, commit {row['commit']}{changes}{busy}"
