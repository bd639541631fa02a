"""The command line that the benchmarks share."""

import argparse
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch

from kernel_benchmarks.record import HERE, InputError
from kernel_benchmarks.runner import FEWEST

ROOT = HERE.parents[1]
TINY_FOLDER = ROOT / "runs" / "benchmarks"

Reader = Callable[[str], Any]  # of an option's text


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
    add("--tiny", action="store_true", help="a rehearsal; rows go to runs/benchmarks/")
    form.set_defaults(default_out=out)
    return form


def add_limits(form: argparse.ArgumentParser, runs: int | None, time: float | None) -> None:
    """Add the options of what is measured in rounds; None is a default that varies."""
    add = form.add_argument
    add("--runs", type=positive, default=runs, metavar="N", help="rounds at most")
    limit = f"begin no round of a case after this, once there are {FEWEST}"
    add("--seconds", type=seconds, default=time, metavar="S", help=limit)


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
