"""The command line that the benchmarks share."""

import argparse
import math
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NoReturn

import torch

from kernel_benchmarks.record import HERE, InputError
from kernel_benchmarks.runner import FEWEST

ROOT = HERE.parents[1]
TINY_FOLDER = ROOT / "runs" / "benchmarks"


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
    form.set_defaults(default_out=out, budget=math.inf, tiny=False)
    return form


def add_limits(form: argparse.ArgumentParser, runs: int | None, time: float | None) -> None:
    """Add the options of what is measured in rounds; None is a default that varies."""
    add = form.add_argument
    add("--runs", type=positive, default=runs, metavar="N", help="rounds at most")
    limit = f"begin no round of a case after this, once there are {FEWEST}"
    add("--seconds", type=seconds, default=time, metavar="S", help=limit)
    limit = "begin no case after this (default: no limit)"
    add("--budget", type=seconds, default=math.inf, metavar="S", help=limit)
    add("--tiny", action="store_true", help="sizes that mean nothing; rows go to runs/benchmarks/")


def run(
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


def one_of(names: Collection[str]) -> Callable[[str], str]:
    """What reads an argument that is one of some names."""

    def parse(text: str) -> str:
        if text not in names:
            known = ", ".join(names)
            raise argparse.ArgumentTypeError(f"there is no {text}; there are {known}")
        return text

    return parse


def positive(text: str) -> int:
    """An option's whole number."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 on")
    return int(text)


def between(low: float, high: float, what: str) -> Callable[[str], float]:
    """What reads an option's number."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is no {what}")
        return value

    return parse


seconds = between(0, math.inf, "number of seconds from 0 on")
