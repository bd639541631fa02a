"""Operators beside their peers, and the targets beside what was measured.

    python -m kernel_benchmarks.operators                                     # in kernels/
    python -m kernel_benchmarks.operators local_response_norm --batch 64

What matters most comes first, each case's rows are in results/ as soon as it is done, and a run
that was stopped goes on where it ended. README.md says more.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from itertools import product
from typing import Any

import torch

from kernel_benchmarks import chart, measure, record, report, runner
from kernel_benchmarks.measure import Case
from kernel_benchmarks.record import Row

OPERATORS: dict[str, Any] = {n: import_module(f"kernel_benchmarks.{n}") for n in chart.SHORT}
CPU: dict[str, Any] = {"batch": [16], "dtype": ["fp32"], "layouts": ["nchw"]}
CPU |= {"runs": 20, "seconds": 10.0}
GPU: dict[str, Any] = {"batch": [1024, 128], "dtype": ["bf16", "fp32"], "layouts": ["nhwc", "nchw"]}
GPU |= {"runs": 50, "seconds": 1.5}  # so that all cases fit into eight minutes
TINY = {"batch": [2], "runs": 2, "seconds": 0.5}


# --- the targets ---


@dataclass(frozen=True)
class Target:
    """What is expected of an operator in conv1's shape.

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


def verdicts(rows: Sequence[Row]) -> str:
    """The targets beside what was measured. rows: of one machine, or a GPU and a CPU."""
    lines = [["on ", "target ", "limit", "measured", " "]]
    kinds = (("GPU", GPU_TARGETS, "bf16", 1024), ("CPU", CPU_TARGETS, "fp32", 16))
    for device, targets, dtype, batch in kinds:
        method = "cold" if device == "GPU" else "wall"
        bests = list(report.comparisons(row for row in rows if row["method"] == method))
        for target in targets:
            value = target.value(bests, dtype, batch)
            unit = " %" if target.kind == "percent" else " x"
            relation, sign = ("<=", -1) if target.kind == "saved" else (">=", 1)
            limit, verdict = f"{relation} {target.limit:g}{unit}", "not measured"
            if value is not None:
                verdict = "met" if sign * value >= sign * target.limit else "missed"
            shown = "" if value is None else f"{value:.3g}{unit}"
            lines.append([device, target.what, limit, shown, verdict])
    return (
        "GPU: H200, bf16, batch 1024, conv1's shape. CPU: fp32, batch 16, conv1's shape. "
        f"Peers in their fastest layout.\n{report.table(lines)}"
    )


# --- the run ---


def plan(args: argparse.Namespace) -> list[Case]:
    """All cases that the options name, the most important first: bf16 before fp32 and the large
    batch before the small, conv1 before the rest."""
    cases, rank, large = list[Case](), {"conv1": 0, "conv2": 1}, (0, max(args.batch))
    for operator in (OPERATORS[name] for name in args.operators):
        shapes = (operator.TINY if args.tiny else operator.SHAPES).items()
        settings = vars(args) | getattr(operator, "FIXED", {})  # what it does not vary in
        for (layer, dims), dtype, batch in product(shapes, settings["dtype"], settings["batch"]):
            # only the large batch is measured in a second layout
            layouts = settings["layouts"][: None if batch in large else 1]
            rest = (batch, dtype, tuple(layouts), args.device, torch.Generator(args.device))
            cases.append(Case(operator, layer, dims, *rest))
    cases.sort(key=lambda c: (c.dtype != args.dtype[0], c.batch not in large, rank.get(c.layer, 2)))
    return cases


def parser() -> argparse.ArgumentParser:
    form = runner.parser("kernel_benchmarks.operators", __doc__, record.ARCHIVE)
    add = form.add_argument
    names = runner.one_of(OPERATORS)
    add("operators", nargs="*", type=names, default=list(OPERATORS), help=", ".join(OPERATORS))
    add("--batch", type=runner.positive, nargs="+", metavar="N", help="images")
    add("--dtype", choices=tuple(measure.DTYPES), nargs="+")
    add("--layouts", choices=tuple(measure.LAYOUTS), nargs="+", help="ratios are to the first")
    add("--implementations", nargs="+", metavar="NAME", help='as "ours, composite" torch')
    add("--seed", type=int, help="of the random inputs (default: a new one for each case)")
    runner.add_limits(form, runs=None, time=None)
    return form


def work(args: argparse.Namespace) -> int:
    gpu = args.device == "cuda"
    for name, value in ((GPU if gpu else CPU) | (TINY if args.tiny else {})).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    # not the default stream, which no CUDA graph can capture
    with torch.cuda.stream(torch.cuda.Stream() if gpu else None):
        clock, size = runner.Clock(args.device), 2**23 if args.tiny else 2**30 if gpu else 2**28
        bandwidth = cache(partial(runner.copy_bandwidth, clock, args.device, size))
        tasks = []
        for case in plan(args):
            measured = partial(measure.measure, case, clock, bandwidth, args)
            file = args.out / f"{case.operator.NAME}.csv"
            tasks.append(runner.Task(str(case), case.key(), measured, file))
        origin = record.machine(args.device, args.commit)
        rows, failed = runner.run(tasks, record.COLUMNS, origin, args)
    print(f"{report.summary(rows)}\n\nrows: {args.out}\n\n{verdicts([] if args.tiny else rows)}")
    return int(bool(failed))


def main(argv: Sequence[str] | None = None) -> int:
    return runner.main(parser(), argv, work)


if __name__ == "__main__":
    sys.exit(main())
