"""How times are taken and kept, and the command line, for every benchmark of this repository.

Contestants take turns, round by round, in a new order each, so that drift (clocks, temperature,
other programs) meets all alike. Medians and 20 % and 80 % quantiles of the rounds after a warm-up
are kept. What is to be measured is a list of tasks; the rows of each are in its file as soon as it
is done, and what a file holds already, of the same code on the same machine, is not repeated.
"""

import argparse
import math
import random
import signal
import sys
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import SubprocessError
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch

from kernel_benchmarks import record
from kernel_benchmarks.record import HERE, QUANTILES, InputError, Row

ROOT = HERE.parents[1]
TINY_FOLDER = ROOT / "runs" / "benchmarks"

Reader = Callable[[str], Any]  # of an option's text

WARM_UP, WARM_SECONDS = 2, 0.2  # at least so many rounds, and so long, are not kept
FEWEST = 5  # rounds that are kept however long they take

K = TypeVar("K", bound=Hashable)
S = TypeVar("S")


# --- one time ---


class Clock:
    """Times one call. On a GPU everything runs on the current stream."""

    def __init__(self, device: str):
        self.cuda = device == "cuda"
        if self.cuda:
            self.flush = torch.empty(2**30, dtype=torch.int8, device=device)
            self.start, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def sample(self, call: Callable[[], S], cold: bool = True, repeat: int = 1) -> tuple[float, S]:
        """Milliseconds per call, and what the last call returned.

        Args:
            cold: Empty a GPU's L2 cache first, by a write of 1 GiB, which also outlasts the
                host's launching of the call.
        """
        if self.cuda:
            if cold:
                self.flush.zero_()
            self.start.record()
        began = time.perf_counter_ns()
        for _ in range(repeat):
            result = call()
        if not self.cuda:
            return (time.perf_counter_ns() - began) / 1e6 / repeat, result
        self.end.record()
        self.end.synchronize()
        return self.start.elapsed_time(self.end) / repeat, result

    def time(self, call: Callable[[], object], cold: bool = True, repeat: int = 1) -> float:
        """Milliseconds per call."""
        return self.sample(call, cold, repeat)[0]

    def median(self, call: Callable[[], object], runs: int, cold: bool = True) -> float:
        """The median in milliseconds of `runs` calls, after half as many that do not count."""
        return float(np.median([self.time(call, cold) for _ in range(3 * runs // 2)][runs // 2 :]))


def copy_bandwidth(clock: Clock, device: str, size: int) -> float:
    """GB/s of a copy of `size` bytes, read and written counted: the ceiling."""
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / clock.median(lambda: target.copy_(source), 14) / 1e6


# --- many times ---


def take_turns(
    samplers: Mapping[K, Callable[[], S]],
    runs: int,
    seconds: float = math.inf,
    warm_up: int = WARM_UP,
) -> dict[K, list[S]]:
    """Take a sample of each, round by round, in a new order each.

    Args:
        samplers: What gives a sample, by name.
        runs: Rounds that are kept at most.
        seconds: Begin no round after so long, once FEWEST are kept.
        warm_up: Rounds that are not kept at least.

    Returns:
        The kept samples, by name.
    """
    samples: dict[K, list[S]] = {name: [] for name in samplers}
    began, rounds, kept = time.perf_counter(), 0, 0
    while kept < runs and (kept < FEWEST or time.perf_counter() - began <= seconds):
        warming = rounds < warm_up or time.perf_counter() - began < WARM_SECONDS
        rounds, kept = rounds + 1, kept + (not warming)
        for name in random.sample(list(samplers), len(samplers)):
            sample = samplers[name]()
            if not warming:
                samples[name].append(sample)
    return samples


def quantiles(samples: Sequence[float], names: Sequence[str] = QUANTILES) -> Row:
    """The columns of a row that hold how many samples there are, their median, and their 20 % and
    80 % quantiles."""
    return dict(zip(names, (len(samples), *map(float, np.percentile(samples, [50, 20, 80])))))


def timed(
    calls: Mapping[str, Callable[[], object]], args: argparse.Namespace, steps: int = 1
) -> list[Row]:
    """A row for each call with the times of one of the `steps` that it does."""
    clock = Clock(args.device)
    samplers = {name: partial(clock.time, call) for name, call in calls.items()}
    turns = take_turns(samplers, args.runs, args.seconds)
    return [
        {"implementation": name} | quantiles([ms / steps for ms in times])
        for name, times in turns.items()
    ]


def times_of(rows: list[Row], peer: str, targets: Mapping[str, float]) -> list[Row]:
    """Fill in how many times as many images a second each contestant does as its peer, and its
    target."""
    rates = {row["implementation"]: row["images_per_s"] for row in rows}
    for row in rows:
        row["target"] = targets.get(row["implementation"])
        if peer in rates and row["implementation"] != peer:
            row |= {"against": peer, "ratio": row["images_per_s"] / rates[peer]}
    return rows


# --- tasks ---


@dataclass(frozen=True)
class Task:
    """Something to measure, and where its rows are."""

    title: str
    key: Row  # the columns that say what is measured
    measure: Callable[[], list[Row]]  # its rows, without `key` and where they were measured
    file: Path
    needed: Collection[Row] = ({},)  # what rows the file must hold, each at least once

    def held(self, origin: Row, columns: Sequence[str]) -> list[Row]:
        """What the file holds of it, of this code on this machine; none unless it is all."""
        code = {name: origin[name] for name in ("source", *record.MACHINE)}
        kinds = [record.written(code | self.key | need).items() for need in self.needed]
        rows = record.read(self.file, columns)
        each = [[row for row in rows if kind <= row.items()] for kind in kinds]
        return [row for some in each for row in some] if all(each) else []


def run(
    tasks: Sequence[Task], columns: Sequence[str], origin: Row, args: argparse.Namespace
) -> tuple[list[Row], list[str]]:
    """Measure what the files do not hold yet, and append each task's rows as soon as it is done.

    Args:
        tasks: In the order in which they matter.
        origin: Where they are measured, of `record.machine`.
        args: `fresh` measures what the files hold as well; after `limit` seconds no task begins.

    Returns:
        All tasks' rows, and the titles of those that failed or did not begin.
    """
    for path in {task.file for task in tasks}:
        record.append(path, [], columns)
    began, rows, failed, known = time.perf_counter(), list[Row](), list[str](), 0
    for number, task in enumerate(tasks, 1):
        if held := [] if args.fresh else task.held(origin, columns):
            rows, known = rows + held, known + 1
            continue
        if time.perf_counter() - began > args.limit:
            log(f"{task.title}: no time left")
            failed.append(task.title)
            continue
        torch.compiler.reset()  # otherwise a ninth shape would run uncompiled
        try:
            blank = dict.fromkeys(columns)
            new = [blank | origin | task.key | row for row in task.measure()]
            rows += record.append(task.file, new, columns)
        except (RuntimeError, OSError, SubprocessError) as error:  # out of memory, say
            log(f"{task.title} failed: {first_line(error)}")
            failed.append(task.title)
        log(f"{time.perf_counter() - began:5.0f} s  {number} of {len(tasks)}  {task.title}")
    if known:
        log(f"{known} of {len(tasks)} were in the files already; --fresh measures them again")
    return rows, failed


def first_line(error: Exception) -> str:
    """The kind of an exception and the first line of its message."""
    first, *_ = [*str(error).strip().splitlines(), ""]
    return f"{type(error).__name__}: {first[:200]}"


def log(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr)


# --- the command line ---


class Parser(argparse.ArgumentParser):
    """A parser that complains in one line."""

    def __init__(self, module: str, doc: str | None):
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(f"python -m {module}", description=doc, formatter_class=raw)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser(module: str, doc: str | None, out: Path) -> Parser:
    """The options that every benchmark has; `out` is the default of --out."""
    form = Parser(module, doc)
    add, devices = form.add_argument, ["cuda"] * torch.cuda.is_available() + ["cpu"]
    add("--device", choices=devices, default=devices[0], help="default: cuda if there is one")
    add("--threads", type=positive, metavar="N", help="of the CPU (default: torch's own choice)")
    add("--commit", metavar="ID", help="what to write as commit where there is no git checkout")
    add("--out", type=Path, help=f"where rows go (default: {out.relative_to(ROOT)})")
    add("--fresh", action="store_true", help="measure again what the file holds already")
    limit = "begin no case after so many seconds; the same command goes on with the rest"
    add("--limit", type=positive, default=math.inf, metavar="S", help=limit)
    add("--tiny", action="store_true", help="a rehearsal; rows go to runs/benchmarks/")
    form.set_defaults(default_out=out)
    return form


def add_limits(form: argparse.ArgumentParser, runs: int | None, time: float | None) -> None:
    """Add the options of what is measured in rounds; None is a default that varies."""
    add = form.add_argument
    add("--runs", type=positive, default=runs, metavar="N", help="rounds at most")
    limit = f"begin no round of a case after this, once there are {FEWEST}"
    add("--seconds", type=seconds, default=time, metavar="S", help=limit)


def main(
    form: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    work: Callable[[argparse.Namespace], int],
    *refused: type[Exception],
) -> int:
    """Run a program with its options, as `guarded`; threads are set and `out` is filled in."""
    args = form.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.out is None:
        out = args.default_out
        args.out = TINY_FOLDER / (out.name if out.suffix else "") if args.tiny else out
    return guarded(lambda: work(args), *refused)


def guarded(work: Callable[[], int], *refused: type[Exception]) -> int:
    """Run a program and return its exit status: 0 done, 1 something failed or is left, 2 bad input,
    130 Ctrl-C or SIGTERM.

    Args:
        refused: Exceptions that mean bad input, beside InputError.
    """
    # SIGTERM as Ctrl-C, so that what is under way is put in order
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return work()
    except (InputError, *refused) as error:  # type: ignore[misc]
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the rows of every finished case are kept", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def checked(read: Callable[[str], Any], holds: Callable[[Any], bool], what: str) -> Reader:
    """What reads an option: `read` of its text, where `holds` is true of that."""

    def parse(text: str) -> Any:
        with suppress(ValueError):
            if holds(value := read(text)):
                return value
        raise argparse.ArgumentTypeError(f"{text} is {what}")

    return parse


def one_of(names: Collection[str]) -> Reader:
    """What reads an argument that is one of some names."""
    return checked(str, names.__contains__, f"none of {', '.join(names)}")


positive = checked(int, lambda n: n > 0, "no whole number from 1 on")
seconds = checked(float, lambda s: s >= 0, "no number of seconds from 0 on")
