"""The command line that the scripts share, and the run over their cases."""

import argparse
import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from alexnet.cli import Parser
from alexnet.errors import InputError
from alexnet.results import ROOT
from benchmarks import measure, record
from benchmarks.measure import Case
from benchmarks.record import Row

DEFAULTS: dict[str, dict[str, Any]] = {
    "cpu": {"batch": [16], "dtype": ["fp32"], "layouts": ["nchw"], "runs": 20, "seconds": 10.0},
    "cuda": {
        "batch": [1024, 128],
        "dtype": ["bf16", "fp32"],
        "layouts": ["nhwc", "nchw"],
        "runs": 50,
        "seconds": 4.0,
    },
}
TINY: dict[str, Any] = {"batch": [2], "runs": 2, "seconds": 0.5}
TINY_FOLDER = ROOT / "runs" / "benchmarks"
EPILOG = """
All implementations take turns in one run, each checked against float64 first. The table at the end gives the median time, the percentage
of the device's copy bandwidth that the fewest possible bytes make of it, and each one's time over ours. benchmarks/README.md says more."""


def main(operator: Any, argv: Sequence[str] | None = None) -> int:
    """The whole of one operator's script. Returns the exit status."""
    shapes = ", ".join(
        f"{layer} {'x'.join(map(str, dims))}" for layer, dims in operator.SHAPES.items()
    )
    default = record.ARCHIVE / f"{operator.NAME}.csv"
    form = parser(operator.NAME, f"{operator.__doc__}{EPILOG}")
    form.add_argument(
        "--shapes", nargs="+", metavar="SHAPE", help=f"names or sizes; default: {shapes}"
    )
    form.add_argument(
        "--out",
        type=Path,
        metavar="CSV",
        help=f"append the rows here; default: {default.relative_to(record.HERE.parent)}",
    )
    args = form.parse_args(argv)

    def work() -> int:
        settle(args)
        path = args.out or (TINY_FOLDER / default.name if args.tiny else default)
        rows, left = run(cases(operator, args, args.shapes), args, lambda case: path)
        print(f"{record.summary(rows)}\n\nrows: {path}")
        return 1 if left else 0

    return guarded(work)


def parser(name: str, doc: str) -> argparse.ArgumentParser:
    form = Parser(
        f"python -m benchmarks.{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = form.add_argument
    add("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    add(
        "--batch",
        type=positive,
        nargs="+",
        metavar="N",
        help="images; default: 16 on a CPU, 1024 and 128 on a GPU",
    )
    add(
        "--dtype",
        choices=tuple(measure.DTYPES),
        nargs="+",
        help="default: fp32 on a CPU, bf16 and fp32 on a GPU",
    )
    layouts = "memory formats; ratios are to ours in the first; default: nchw on a CPU, nhwc and nchw on a GPU"
    add("--layouts", choices=tuple(measure.LAYOUTS), nargs="+", help=layouts)
    add(
        "--implementations",
        nargs="+",
        metavar="NAME",
        help='only these, e.g. ours "ours, composite" torch torch.compile; default: all',
    )
    add(
        "--runs",
        type=positive,
        metavar="N",
        help="rounds at most; default: 20 on a CPU, 50 on a GPU",
    )
    limit = f"begin no round of a case after S seconds, once there are {measure.FEWEST}; default: 10 on a CPU, 4 on a GPU"
    add("--seconds", type=seconds, metavar="S", help=limit)
    add("--threads", type=positive, metavar="N", help="of the CPU; default: torch's own choice")
    add(
        "--seed",
        type=int,
        help="of the random inputs; default: a new one for each case, written into its rows",
    )
    add(
        "--commit", metavar="ID", help="what to write as commit where the folder is no git checkout"
    )
    add(
        "--tiny",
        action="store_true",
        help="sizes whose times mean nothing, to test the script; rows go to runs/benchmarks/",
    )
    return form


def settle(args: argparse.Namespace) -> None:
    """Fills in what was not asked for."""
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here; use --device cpu")
    for name, value in (DEFAULTS[args.device] | (TINY if args.tiny else {})).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.threads:
        torch.set_num_threads(args.threads)


def cases(
    operator: Any, args: argparse.Namespace, shapes: Sequence[str] | None = None
) -> list[Case]:
    known = operator.TINY if args.tiny else operator.SHAPES
    wanted = {
        text: known[text] if text in known else _dims(text, operator) for text in shapes or known
    }
    fixed = getattr(operator, "FIXED", {})  # what the operator does not vary in
    batch, dtype, layouts = (
        fixed.get(name, getattr(args, name)) for name in ("batch", "dtype", "layouts")
    )
    return [
        Case(
            operator,
            layer if layer in known else "",
            dims,
            n,
            kind,
            tuple(layouts),
            args.device,
            torch.Generator(args.device),
        )
        for (layer, dims), kind, n in product(wanted.items(), dtype, batch)
    ]


def run(
    cases: Sequence[Case],
    args: argparse.Namespace,
    file: Callable[[Case], Path],
    budget: float = math.inf,
) -> tuple[list[Row], list[Case]]:
    """Measures cases and appends each one's rows to its file as soon as it is done. Returns the rows, and the cases that remain because
    they failed or because the budget, in seconds, would not hold another as long as the longest."""
    for path in {file(case) for case in cases}:
        record.check(path)
    began = time.perf_counter()
    rows: list[Row] = []
    left: list[Case] = []
    longest = 0.0
    stream = (
        torch.cuda.Stream() if args.device == "cuda" else None
    )  # not the default stream, which no CUDA graph can capture
    with (
        torch.cuda.stream(stream),
        tqdm(total=len(cases), unit="case", disable=None, leave=False) as bar,
    ):
        bar.set_description("copy bandwidth")
        origin = record.machine(args.device, args.commit)
        clock = measure.Clock(args.device)
        ceiling = measure.copy_bandwidth(
            clock, args.device, 2**23 if args.tiny else 2**30 if clock.cuda else 2**28
        )
        for number, case in enumerate(cases, 1):
            start = time.perf_counter()
            if start - began + longest > budget:
                left += cases[number - 1 :]
                break
            bar.set_description(str(case))
            try:
                new = measure.measure(case, clock, ceiling, args, origin, bar.set_postfix_str)
                record.append(file(case), new)
                rows += new
            except Exception as problem:  # out of memory, say: other cases may fare better
                tqdm.write(f"{case} failed: {measure.first_line(problem)}", sys.stderr)
                left.append(case)
            longest = max(longest, time.perf_counter() - start)
            bar.update()
            tqdm.write(
                f"{time.perf_counter() - began:5.0f} s  {number} of {len(cases)}  {case}",
                sys.stderr,
            )
    return rows, left


def guarded(work: Callable[[], int]) -> int:
    """Exit status: 0 done, 1 something failed or is left, 2 bad input, 130 Ctrl-C or SIGTERM."""
    before = signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # as Ctrl-C, so that what is under way is put in order
    try:
        return work()
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
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


def seconds(text: str) -> float:
    """An option's limit of time."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds from 0 on")
    return value


def _dims(text: str, operator: Any) -> tuple[int, ...]:
    example = next(iter(operator.SHAPES.values()))
    try:
        dims = tuple(positive(part) for part in text.split("x"))
    except argparse.ArgumentTypeError:
        dims = ()
    if len(dims) != len(example):
        raise InputError(
            f"--shapes {text}: give {', '.join(operator.SHAPES)} or a size such as {'x'.join(map(str, example))}"
        )
    return dims
