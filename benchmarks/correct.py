"""Is everything right, before anything is timed?

    python -m benchmarks.correct

    operators   each at the net's shapes, forward and backward, beside float64, on poisoned memory
    net         loss and gradients beside the same net in float64
    ways        weights after three steps: as one graph, and compiled, beside one after the other

With ALEXNET_TUNING=off kernels run in one configuration each, so that a GPU need not compile and
time the others first. Rows go to results/correct.csv, each as soon as it is known.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product

import torch
from torch import Tensor

from alexnet import rng
from alexnet.training.precision import using_precision
from alexnet.training.steps import EagerStep, GraphStep, StepInput
from benchmarks import ARCHIVE, SOURCES, contestants
from benchmarks.contestants import TINY, Case
from kernel_benchmarks import operators, record, report, runner
from kernel_benchmarks.measure import LAYOUTS, TOLERANCE, Entry, using, worst
from kernel_benchmarks.measure import Case as OperatorCase
from kernel_benchmarks.record import Row

COLUMNS = (*record.ORIGIN, "case", "implementation", "error", "target", "seconds", "note")
FILE = ARCHIVE / "correct.csv"
# How far off a net's gradient is, rounding decides: it flips ReLUs and maxima. So an error is
# counted in that of the same net by plain torch, and one of a way to do a step in that of the
# precision: so many times it may be. FLOOR: no error, |a - b| / |b|, counts as less.
NET, WAYS = 3.0, 1.5
FLOOR = {"fp32": 1e-4, "bf16": 1e-2}
HIGHER = {"fp32": "fp64", "bf16": "fp32"}
STEPS = 3

Check = tuple[str, str, float, Callable[[], float]]  # a case, what is checked, its bound, its error


# --- operators ---


def of_operators(args: argparse.Namespace) -> Iterator[Check]:
    """What matters most first: bf16 before fp32, channels-last before planes."""
    for layout, dtype in product(LAYOUTS, ("bf16", "fp32") if args.device == "cuda" else ("fp32",)):
        for module in operators.OPERATORS.values():
            fixed = getattr(module, "FIXED", {})
            if fixed and (layout, dtype) != ("nhwc", fixed["dtype"][0]):
                continue
            for name, dims in (module.TINY if args.tiny else module.SHAPES).items():
                layouts, (batch,) = (
                    fixed.get("layouts", (layout,)),
                    fixed.get("batch", [args.batch]),
                )
                rest = (batch, dtype, tuple(layouts), args.device, torch.Generator(args.device))
                case = OperatorCase(module, name, dims, *rest)
                what = f"{layout} {dtype}"
                yield f"{module.NAME} {name}", what, TOLERANCE[dtype], partial(operator, case)


def operator(case: OperatorCase) -> float:
    """The largest error of ours."""
    case.generator.seed()
    ours = next(each for each in case.operator.entries(case) if each.implementation == "ours")
    return checked(ours)


def checked(entry: Entry) -> float:
    return entry.check() if entry.check else 0.0


# --- the net ---


def of_net(args: argparse.Namespace) -> Iterator[Check]:
    for precision in ("fp32", "bf16"):
        for preset in ("paper", "source"):
            case = net_case(args, preset, precision)
            yield str(case), "gradients", NET, partial(gradients_off, case, args.device)


def net_case(args: argparse.Namespace, preset: str, precision: str) -> Case:
    whole = TINY if args.tiny else contestants.GPU[0]
    return replace(whole, preset=preset, precision=precision, batch=args.batch)


def gradients_off(case: Case, device: str) -> float:
    """The error of the loss, or of a parameter's gradient, beside float64, in those of plain torch:
    the worst."""
    result, expected = (gradients(each, device) for each in (case, replace(case, precision="fp64")))
    with using("composite"):
        plain = gradients(case, device)
    return times(result, expected, plain, expected, FLOOR[case.precision])


def times(
    a: dict[str, Tensor],
    b: dict[str, Tensor],
    c: dict[str, Tensor],
    d: dict[str, Tensor],
    floor: float,
) -> float:
    """How many times as far a is from b as c is from d, in the worst of them; NaN if one is."""
    ratios = [off(a[name], b[name]) / max(off(c[name], d[name]), floor) for name in a]
    return worst(ratios)


def gradients(case: Case, device: str) -> dict[str, Tensor]:
    """The loss and the gradients, by name, of the same weights and images in any precision."""
    torch.manual_seed(0)
    with using_precision(case.precision, torch.device(device)):
        learner, (x, labels) = case.learner(device), case.inputs(device)
        keys = rng.key(rng.DROPOUT, 0, 0, torch.arange(case.batch))
        x = x.bfloat16()  # which every precision holds
        loss, _ = learner.backward(x, labels, keys, case.batch)
        own = {name: p.grad for name, p in learner.parameters.items() if p.grad is not None}
        return {"loss": torch.tensor(loss), **own}


def off(result: Tensor, expected: Tensor) -> float:
    """|result - expected| / |expected|, of Euclidean norms; NaN where anything is."""
    expected = expected.double()
    return float((result.double() - expected).norm() / expected.norm())


# --- ways to do a step ---


def of_ways(args: argparse.Namespace) -> Iterator[Check]:
    for precision, way in product(("bf16", "fp32"), ("graph", "compiled")):
        case = net_case(args, "paper", precision)
        yield str(case), way, WAYS, partial(updates_off, case, args.device, way)


def updates_off(case: Case, device: str, way: str) -> float:
    """How far a parameter's change over the steps is from that by eager steps, in what that is from
    eager steps of the next higher precision: the worst."""
    higher = replace(case, precision=HIGHER[case.precision])
    result, eager, fine = (
        changed(*each) for each in ((case, device, way), (case, device), (higher, device))
    )
    return times(result, eager, eager, fine, FLOOR[case.precision])


def changed(case: Case, device: str, way: str = "eager") -> dict[str, Tensor]:
    """What some steps add to the weights. way: "eager", "graph" or "compiled"."""
    with using_precision(case.precision, torch.device(device)):
        return stepped(case, device, way)


def stepped(case: Case, device: str, way: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    learner = case.learner(device, compiled=way == "compiled")
    weights = learner.weights.items()
    before = {name: value.detach().to(torch.float64, copy=True) for name, value in weights}
    step = (GraphStep if way == "graph" else EagerStep)(learner, case.augment(), case.batch)
    torch.manual_seed(1)
    images, labels, ids = case.noise(device), case.inputs(device)[1], torch.arange(case.batch)
    rates = [1e-3] * len(learner.parameters)
    for epoch in range(STEPS):
        draw, keys = step.augment.draw(ids, ids, epoch), rng.key(rng.DROPOUT, 0, epoch, ids)
        step.step(StepInput(images, draw, labels, keys, rates, case.batch))
    step.last()
    return {name: value.detach().double() - before[name] for name, value in weights}


# --- all of it ---

CHECKS = {"operators": of_operators, "net": of_net, "ways": of_ways}


def measured(allowed: float, check: Callable[[], float]) -> list[Row]:
    began = time.perf_counter()
    row: Row = {"error": check(), "target": allowed}
    if not row["error"] <= allowed:  # so that NaN is wrong
        row["note"] = "WRONG"
    return [row | {"seconds": time.perf_counter() - began}]


def work(args: argparse.Namespace) -> int:
    origin, tasks = record.machine(args.device, args.commit, SOURCES), list[runner.Task]()
    for case, what, allowed, check in (each for name in args.what for each in CHECKS[name](args)):
        key = {"case": case, "implementation": what}
        measure = partial(measured, allowed, check)
        tasks.append(runner.Task(f"{case}, {what}", key, measure, args.out))
    rows, failed = runner.run(tasks, COLUMNS, origin, args)
    wrong = [row for row in rows if row["note"]]
    rows.sort(key=lambda row: bool(row["note"]))  # what is wrong is seen at the end
    shown = ("case", "implementation", "error", "target", "seconds", "note")
    print(report.listing(rows, shown) if rows else "Nothing was checked.")
    failures = "".join(f"\nfailed: {title}" for title in failed)
    print(f"{len(rows)} of {len(tasks)} checked, {len(wrong)} wrong{failures}\n\nrows: {args.out}")
    return int(bool(failed or wrong))


def main(argv: Sequence[str] | None = None) -> int:
    form = runner.parser("benchmarks.correct", __doc__, FILE)
    add, known = form.add_argument, f"{', '.join(CHECKS)} (default: all)"
    add("what", nargs="*", type=runner.one_of(CHECKS), default=list(CHECKS), help=known)
    add("--batch", type=runner.positive, metavar="N", help="images (default: 32, or 8)")
    return runner.main(form, argv, begin)


def begin(args: argparse.Namespace) -> int:
    # of two images, one ReLU that rounding flips would be a twentieth of a gradient
    args.batch = args.batch or (8 if args.tiny else 32)
    return work(args)


if __name__ == "__main__":
    sys.exit(main())
