"""All operators in one run, and what was asked of them beside what was measured.

What matters most comes first, each case's rows are in benchmarks/results/ as soon as it is done, and a run that was stopped, or whose
budget was spent, goes on where it ended when started again with the same code on the same machine."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import (
    crop_flip_color,
    local_response_norm,
    max_pool,
    momentum_step,
    record,
    response_norm_pool,
    same_map_norm,
    script,
)
from benchmarks.measure import Case
from benchmarks.record import Row

SECONDS = 1.5  # per case on a GPU, so that all fit into the budget
OPERATORS = (
    local_response_norm,
    max_pool,
    response_norm_pool,
    same_map_norm,
    crop_flip_color,
    momentum_step,
)


# --- the targets ---


class Measured:
    """What was measured in the targets' case: ours in the layout it was written for (the first), a peer in its fastest."""

    def __init__(self, rows: Iterable[Row], cuda: bool, dtype: str, batch: int):
        self.method = "cold" if cuda else "wall"
        mine = [row for row in rows if bool(row["cuda"]) == cuda and row["method"] == self.method]
        self.all = [row for own in record.cases(mine).values() for row in own]
        self.here = [row for row in self.all if row["dtype"] == dtype and row["batch"] == batch]

    @staticmethod
    def _best(rows: Sequence[Row], implementation: str, column: str) -> float | None:
        own = [
            row
            for row in rows
            if row["implementation"] == implementation and row[column] is not None
        ]
        if implementation == "ours":
            return own[0][column] if own else None
        return min((row[column] for row in own), default=None)

    def _rows(self, operator: str, layer: str, direction: str) -> list[Row]:
        return [
            row
            for row in self.here
            if (row["operator"], row["layer"], row["direction"]) == (operator, layer, direction)
        ]

    def percent(self, operator: str, direction: str) -> float | None:
        return self._best(self._rows(operator, "conv1", direction), "ours", "percent_of_copy")

    def faster(self, operator: str, direction: str, than: str, ours: str = "ours") -> float | None:
        rows = self._rows(operator, "conv1", direction)
        mine, theirs = (self._best(rows, name, "median_ms") for name in (ours, than))
        return theirs / mine if mine and theirs else None

    def never_slower(self, operator: str, than: str) -> float | None:
        """The least ratio in any case, forward and backward."""
        ratios = []
        for rows in record.cases(self.all).values():
            for direction in ("forward", "backward"):
                own = [
                    row
                    for row in rows
                    if (row["operator"], row["direction"]) == (operator, direction)
                ]
                mine, theirs = (self._best(own, name, "median_ms") for name in ("ours", than))
                ratios += [theirs / mine] if mine and theirs else []
        return min(ratios, default=None)

    def saved(self, operator: str, than: str) -> float | None:
        """Of conv1 and conv2 together."""
        totals = []
        for name in ("ours", than):
            parts = [
                self._best(self._rows(operator, layer, "forward"), name, "saved_bytes")
                for layer in ("conv1", "conv2")
            ]
            totals.append(None if None in parts else sum(part or 0 for part in parts))
        mine, theirs = totals
        return mine / theirs if mine and theirs else None


@dataclass(frozen=True)
class Target:
    what: str
    wanted: float
    unit: str  # "%" or "x"
    value: Callable[[Measured], float | None]
    most: bool = False  # the wanted value is the most allowed, not the least


LRN, POOL, BLOCK = "local_response_norm", "max_pool", "response_norm_pool"
GPU_TARGETS = (  # for an H200, bf16, batch 1024, conv1's shape
    Target("LRN forward, of copy bandwidth", 85, "%", lambda m: m.percent(LRN, "forward")),
    Target("LRN forward, over torch eager", 7, "x", lambda m: m.faster(LRN, "forward", "torch")),
    Target("LRN backward, of copy bandwidth", 75, "%", lambda m: m.percent(LRN, "backward")),
    Target("LRN backward, over torch eager", 10, "x", lambda m: m.faster(LRN, "backward", "torch")),
    Target("pooling forward, of copy bandwidth", 80, "%", lambda m: m.percent(POOL, "forward")),
    Target("pooling backward, of copy bandwidth", 80, "%", lambda m: m.percent(POOL, "backward")),
    Target(
        "block forward, over torch.compile",
        2,
        "x",
        lambda m: m.faster(BLOCK, "forward", "torch.compile"),
    ),
    Target(
        "block backward, over torch.compile",
        2,
        "x",
        lambda m: m.faster(BLOCK, "backward", "torch.compile"),
    ),
    Target(
        "LRN over cuDNN's, the worst of all cases", 1, "x", lambda m: m.never_slower(LRN, "cudnn")
    ),
    Target(
        "saved activations of both blocks, of eager's",
        0.2,
        "x",
        lambda m: m.saved(BLOCK, "torch"),
        most=True,
    ),
)
CPU_TARGETS = (  # fp32, batch 16, conv1's shape
    Target("LRN forward, over torch eager", 4, "x", lambda m: m.faster(LRN, "forward", "torch")),
    Target(
        "LRN forward and backward, over torch eager",
        4,
        "x",
        lambda m: m.faster(LRN, "both", "torch"),
    ),
    Target(
        "the same without a compiler, forward",
        1.5,
        "x",
        lambda m: m.faster(LRN, "forward", "torch", "ours, composite"),
    ),
    Target(
        "the same without a compiler, forward and backward",
        1.5,
        "x",
        lambda m: m.faster(LRN, "both", "torch", "ours, composite"),
    ),
)


def verdicts(rows: Sequence[Row], tiny: bool = False) -> str:
    """The targets beside what was measured. rows: of one machine; what its kind of device was not asked is not judged."""
    lines = [["on ", "target ", "wanted", "measured", " "]]
    for device, targets, dtype, batch in (
        ("GPU", GPU_TARGETS, "bf16", 1024),
        ("CPU", CPU_TARGETS, "fp32", 16),
    ):
        if tiny:
            batch = script.TINY["batch"][0]
        measured = Measured(rows, device == "GPU", dtype, batch)
        for target in targets:
            value, unit = target.value(measured), " %" if target.unit == "%" else " x"
            sign = "<=" if target.most else ">="
            met = value is not None and (
                value <= target.wanted if target.most else value >= target.wanted
            )
            verdict = (
                "not measured"
                if value is None
                else "tiny: no verdict"
                if tiny
                else "met"
                if met
                else "missed"
            )
            shown = "" if value is None else f"{value:.3g}{unit}"
            lines.append([device, target.what, f"{sign} {target.wanted:g}{unit}", shown, verdict])
    heading = "GPU: H200, bf16, batch 1024, conv1's shape. CPU: fp32, batch 16, conv1's shape. Peers in their fastest layout."
    return f"{heading}\n{record.table(lines)}"


# --- the run ---


def plan(args) -> list[Case]:
    """All cases, the most important first: bf16 before fp32 and the large batch before the small, conv1 before the rest. Only the large
    batch is measured in a second layout."""
    chosen = [
        operator for operator in OPERATORS if not args.operators or operator.NAME in args.operators
    ]
    found = [case for operator in chosen for case in script.cases(operator, args)]
    large = max(args.batch)
    found = [
        replace(case, layouts=case.layouts if case.batch in (0, large) else case.layouts[:1])
        for case in found
    ]
    rank = {"conv1": 0, "conv2": 1}
    return sorted(
        found,
        key=lambda c: (c.dtype != args.dtype[0], c.batch not in (0, large), rank.get(c.layer, 2)),
    )


def main(argv: Sequence[str] | None = None) -> int:
    form = script.parser("operators", f"{__doc__}{script.EPILOG}")
    names = [operator.NAME for operator in OPERATORS]
    form.add_argument(
        "--operators",
        nargs="+",
        choices=names,
        metavar="NAME",
        help=f"only these; all: {', '.join(names)}",
    )
    form.add_argument(
        "--budget",
        type=script.seconds,
        default=480.0,
        metavar="S",
        help="begin no case that might end later; default: 480 seconds",
    )
    form.add_argument(
        "--fresh", action="store_true", help="measure again what the files hold already"
    )
    form.add_argument(
        "--out", type=Path, metavar="FOLDER", help="of the CSVs; default: benchmarks/results"
    )
    args = form.parse_args(argv)

    def work() -> int:
        asked = args.seconds
        script.settle(args)
        if args.device == "cuda" and asked is None:
            args.seconds = SECONDS
        folder = args.out or (script.TINY_FOLDER if args.tiny else record.ARCHIVE)

        def file(case: Case) -> Path:
            return folder / f"{case.operator.NAME}.csv"

        same = ("source", *record.MACHINE)
        origin = record.machine(args.device, args.commit)

        def held(case: Case) -> list[Row]:
            """What the files hold of a case, of this code on this machine."""
            wanted = {name: origin[name] for name in same} | case.key()
            return record.held(file(case), wanted)

        cases = plan(args)
        todo = [case for case in cases if args.fresh or not held(case)]
        if len(todo) < len(cases):
            print(
                f"{len(cases) - len(todo)} of {len(cases)} cases are in {folder} already; --fresh measures them again",
                file=sys.stderr,
            )
        left = script.run(todo, args, file, args.budget)[1] if todo else []
        rows = [row for case in cases for row in held(case)]
        print(f"{record.digest(rows)}\n")
        if left:
            print(f"not measured, run again to go on: {', '.join(map(str, left))}\n")
        print(verdicts(rows, args.tiny))
        return 1 if left else 0

    return script.guarded(work)


if __name__ == "__main__":
    sys.exit(main())
