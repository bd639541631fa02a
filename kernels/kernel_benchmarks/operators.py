"""Operators beside their peers, and the targets beside what was measured.

    python -m kernel_benchmarks.operators                                     # in kernels/
    python -m kernel_benchmarks.operators local_response_norm --shapes 96x55x55 --batch 64

What matters most comes first, each case's rows are in results/ as soon as it is done, and a run
that was stopped, or whose budget was spent, goes on where it ended. README.md says more.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch

from kernel_benchmarks import (
    crop_flip_color,
    local_response_norm,
    max_pool,
    measure,
    momentum_step,
    record,
    report,
    response_norm_pool,
    runner,
    same_map_norm,
    script,
)
from kernel_benchmarks.measure import Case, Dims
from kernel_benchmarks.record import InputError, Row

OPERATORS: dict[str, Any] = {
    operator.NAME: operator
    for operator in (
        *(local_response_norm, max_pool, response_norm_pool, same_map_norm),
        *(crop_flip_color, momentum_step),
    )
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "cpu": {"batch": [16], "dtype": ["fp32"], "layouts": ["nchw"], "runs": 20, "seconds": 10.0},
    "cuda": {
        "batch": [1024, 128],
        "dtype": ["bf16", "fp32"],
        "layouts": ["nhwc", "nchw"],
        "runs": 50,
        "seconds": 1.5,  # so that all cases fit into the budget
    },
}
TINY: dict[str, Any] = {"batch": [2], "runs": 2, "seconds": 0.5}


# --- the targets ---


@dataclass(frozen=True)
class Target:
    """What is wanted of an operator in conv1's shape.

    kind: "percent" of the copy bandwidth; "times" as fast as a peer in its fastest layout; "least",
    that in any case, forward and backward; "saved", the most bytes kept of the peer's, conv1 and
    conv2 together.
    """

    what: str
    limit: float
    kind: str
    operator: str
    direction: str = "forward"
    peer: str = "torch"
    ours: str = "ours"

    def value(self, bests: Iterable[dict[str, Row]], dtype: str, batch: int) -> float | None:
        own = [best for best in bests if best["ours"]["operator"] == self.operator]
        if self.kind == "least":
            one_way = [best for best in own if best["ours"]["direction"] != "both"]
            return min((r for best in one_way if (r := self.ratio(best))), default=None)
        case = {"dtype": dtype, "batch": batch, "direction": self.direction}.items()
        layers = {best["ours"]["layer"]: best for best in own if case <= best["ours"].items()}
        best = layers.get("conv1", {})
        if self.kind == "percent":
            return best["ours"]["percent_of_copy"] if best else None
        if self.kind == "times":
            return self.ratio(best)
        pairs = [layers[name] for name in ("conv1", "conv2") if self.peer in layers.get(name, {})]
        ours, peer = (sum(p[name]["saved_bytes"] for p in pairs) for name in ("ours", self.peer))
        return ours / peer if len(pairs) == 2 else None

    def ratio(self, best: dict[str, Row]) -> float | None:
        known = self.peer in best and self.ours in best
        return best[self.peer]["median_ms"] / best[self.ours]["median_ms"] if known else None


LRN, POOL, BLOCK = "local_response_norm", "max_pool", "response_norm_pool"
GPU_TARGETS = (  # for an H200, bf16, batch 1024
    Target("LRN forward, of copy bandwidth", 85, "percent", LRN),
    Target("LRN forward, over torch eager", 7, "times", LRN),
    Target("LRN backward, of copy bandwidth", 75, "percent", LRN, "backward"),
    Target("LRN backward, over torch eager", 10, "times", LRN, "backward"),
    Target("pooling forward, of copy bandwidth", 80, "percent", POOL),
    Target("pooling backward, of copy bandwidth", 80, "percent", POOL, "backward"),
    Target("block forward, over torch.compile", 2, "times", BLOCK, "forward", "torch.compile"),
    Target("block backward, over torch.compile", 2, "times", BLOCK, "backward", "torch.compile"),
    Target("LRN over cuDNN's, the worst of all cases", 1, "least", LRN, peer="cudnn"),
    Target("saved activations of both blocks, of eager's", 0.2, "saved", BLOCK),
)
PLAIN = ("torch", "ours, composite")
CPU_TARGETS = (  # fp32, batch 16
    Target("LRN forward, over torch eager", 4, "times", LRN),
    Target("LRN forward and backward, over torch eager", 4, "times", LRN, "both"),
    Target("the same without a compiler, forward", 1.5, "times", LRN, "forward", *PLAIN),
    Target("the same without a compiler, forward and backward", 1.5, "times", LRN, "both", *PLAIN),
)


def verdicts(rows: Sequence[Row], tiny: bool = False) -> str:
    """The targets beside what was measured.

    Args:
        rows: Of one machine; targets of another kind of device are not judged.
        tiny: Whether the sizes mean nothing.
    """
    lines = [["on ", "target ", "wanted", "measured", " "]]
    kinds = (("GPU", GPU_TARGETS, "bf16", 1024), ("CPU", CPU_TARGETS, "fp32", 16))
    for device, targets, dtype, batch in kinds:
        method = "cold" if device == "GPU" else "wall"
        bests = list(report.comparisons(row for row in rows if row["method"] == method))
        for target in targets:
            value = target.value(bests, dtype, TINY["batch"][0] if tiny else batch)
            unit, is_most = " %" if target.kind == "percent" else " x", target.kind == "saved"
            if value is None:
                verdict = "not measured"
            elif tiny:
                verdict = "tiny: no verdict"
            else:
                met = value <= target.limit if is_most else value >= target.limit
                verdict = "met" if met else "missed"
            limit = f"{'<=' if is_most else '>='} {target.limit:g}{unit}"
            shown = "" if value is None else f"{value:.3g}{unit}"
            lines.append([device, target.what, limit, shown, verdict])
    return (
        "GPU: H200, bf16, batch 1024, conv1's shape. CPU: fp32, batch 16, conv1's shape. "
        f"Peers in their fastest layout.\n{report.table(lines)}"
    )


# --- the run ---


def cases(operator: Any, args: argparse.Namespace) -> list[Case]:
    """All cases of an operator that the options name."""
    known = operator.TINY if args.tiny else operator.SHAPES
    shapes = {text: known.get(text) or _dims(text, operator) for text in args.shapes or known}
    fixed = getattr(operator, "FIXED", {})  # what the operator does not vary in
    options = {name: fixed.get(name, getattr(args, name)) for name in ("batch", "dtype", "layouts")}
    made = []
    for (layer, dims), dtype, batch in product(shapes.items(), options["dtype"], options["batch"]):
        # only the large batch is measured in a second layout
        layouts = options["layouts"][: None if batch in (0, max(args.batch)) else 1]
        layer, generator = layer if layer in known else "", torch.Generator(args.device)
        rest = (batch, dtype, tuple(layouts), args.device, generator)
        made.append(Case(operator, layer, dims, *rest))
    return made


def _dims(text: str, operator: Any) -> Dims:
    example = next(iter(operator.SHAPES.values()))
    try:
        dims = tuple(script.positive(part) for part in text.split("x"))
    except argparse.ArgumentTypeError:
        dims = ()
    if len(dims) != len(example):
        names = ", ".join(operator.SHAPES)
        raise InputError(
            f"--shapes {text}: give {names} or a size such as {measure.label(example)}"
        )
    return dims


def plan(args: argparse.Namespace) -> list[Case]:
    """All cases, the most important first: bf16 before fp32 and the large batch before the small,
    conv1 before the rest."""
    rank = {"conv1": 0, "conv2": 1}
    large = (0, max(args.batch))
    return sorted(
        (case for name in args.operators for case in cases(OPERATORS[name], args)),
        key=lambda c: (c.dtype != args.dtype[0], c.batch not in large, rank.get(c.layer, 2)),
    )


def parser() -> argparse.ArgumentParser:
    form = script.parser("kernel_benchmarks.operators", __doc__, record.ARCHIVE)
    add, names = form.add_argument, ", ".join(OPERATORS)
    add("operators", nargs="*", metavar="NAME", help=f"only these; all: {names}")
    add("--shapes", nargs="+", metavar="SHAPE", help="of one operator: layers, or 96x55x55")
    add("--batch", type=script.positive, nargs="+", metavar="N", help="images")
    add("--dtype", choices=tuple(measure.DTYPES), nargs="+")
    add("--layouts", choices=tuple(measure.LAYOUTS), nargs="+", help="ratios are to the first")
    add("--implementations", nargs="+", metavar="NAME", help='as "ours, composite" torch')
    add("--seed", type=int, help="of the random inputs (default: a new one for each case)")
    script.add_limits(form, runs=None, time=None, budget=480.0)
    return form


def settle(args: argparse.Namespace) -> None:
    """Check the options and fill in the defaults, which are the device's."""
    script.settle(args)
    args.operators = script.chosen(args.operators, OPERATORS, list(OPERATORS))
    if args.shapes and len(args.operators) > 1:
        raise InputError("--shapes are of one operator; name it")
    for name, value in (DEFAULTS[args.device] | (TINY if args.tiny else {})).items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)

    def work() -> int:
        settle(args)
        clock, gpu = runner.Clock(args.device), args.device == "cuda"
        size = 2**23 if args.tiny else 2**30 if gpu else 2**28
        tasks, ceiling = [], list[float]()

        def measured(case: Case) -> list[Row]:
            ceiling.extend([] if ceiling else [runner.copy_bandwidth(clock, args.device, size)])
            return measure.measure(case, clock, ceiling[0], args)

        for case in plan(args):
            file = args.out / f"{case.operator.NAME}.csv"
            tasks.append(runner.Task(str(case), case.key(), partial(measured, case), file))
        origin = record.machine(args.device, args.commit)
        # not the default stream, which no CUDA graph can capture
        with torch.cuda.stream(torch.cuda.Stream() if gpu else None):
            _, left = runner.run(tasks, record.COLUMNS, origin, args)
        rows = [row for task in tasks for row in task.held(origin, record.COLUMNS)]
        print(f"{report.summary(rows)}\n\nrows: {args.out}\n")
        if left:
            print(f"not measured, run again to go on: {', '.join(left)}\n")
        print(verdicts(rows, args.tiny))
        return 1 if left else 0

    return script.guarded(work)


if __name__ == "__main__":
    sys.exit(main())
