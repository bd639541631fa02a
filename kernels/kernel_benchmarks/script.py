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

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser(module: str, doc: str | None, out: Path) -> Parser:
    """The options that every benchmark has; `out` is the default of --out."""
    raw = argparse.RawDescriptionHelpFormatter
    form = Parser(f"python -m {module}", description=doc, formatter_class=raw)
    add, kind = form.add_argument, "CSV" if out.suffix else "FOLDER"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", choices=("cpu", "cuda"), default=device, help="default: cuda if there is one")
    add("--threads", type=positive, metavar="N", help="of the CPU (default: torch's own choice)")
    add("--commit", metavar="ID", help="what to write as commit where there is no git checkout")
    add("--out", type=Path, metavar=kind, help=f"where rows go (default: {out.relative_to(ROOT)})")
    form.set_defaults(default_out=out, budget=math.inf, tiny=False)
    return form


def add_limits(
    form: argparse.ArgumentParser, runs: int | None, time: float | None, budget: float = math.inf
) -> None:
    """Add the options of what is measured in rounds; None is a default that varies."""
    add = form.add_argument
    add("--runs", type=positive, default=runs, metavar="N", help="rounds at most")
    limit = f"begin no round of a case after this, once there are {FEWEST}"
    add("--seconds", type=seconds, default=time, metavar="S", help=limit)
    limit = "begin no case that might end later (default: %(default)s)"
    add("--budget", type=seconds, default=budget, metavar="S", help=limit)
    add("--fresh", action="store_true", help="measure again what the file holds already")
    add("--tiny", action="store_true", help="sizes that mean nothing; rows go to runs/benchmarks/")


def settle(args: argparse.Namespace) -> None:
    """Check the device, set the threads, and fill in where rows go."""
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device; use --device cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.out is None:
        out = args.default_out
        tiny = TINY_FOLDER / out.name if out.suffix else TINY_FOLDER
        args.out = tiny if args.tiny else out


def chosen(names: Sequence[str], known: Collection[str], default: Sequence[str]) -> list[str]:
    """The names that a command gives, each once, or the default. Raises InputError."""
    if unknown := sorted({*names} - {*known}):
        raise InputError(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
    return list(dict.fromkeys(names or default))


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
