"""A visit to a GPU: all that only one can show, in the order in which it matters, each part in less
than eight minutes.

    python -m benchmarks.visit                        # all parts; what is done is not repeated
    python -m benchmarks.visit images --budget 420    # some, with another limit, in seconds

    check       the tests that need a GPU; the kernels under compute-sanitizer, where installed
    operators   every operator beside its peers, and the targets
    steps       whole training steps of both presets; from a pack; what a step is made of
    ranks       two columns as two ranks on one device, beside one process
    images      Tiny ImageNet (a folder that ALEXNET_DATA names): one net of full width, its kernels
                and neighbors; then the ablations
    reach       the time to errors on Tiny ImageNet's validation images

A part that runs out of time goes on where it was when it is asked for again; check, which is
short, begins again. --tiny tries all of it at sizes that mean nothing; rows go to runs/.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch

from benchmarks import ROOT, environment
from kernel_benchmarks import report, runner
from kernel_benchmarks.record import InputError

RESERVE = 20  # seconds of a limit that a program has to end by itself
IMAGES = ("figure3", "figure4", "ablations")
OUT_OF_TIME = "out of time: ask for it again"


def parts(tiny: bool) -> dict[str, list[list[str]]]:
    """Commands of each part."""
    short = "--tiny --seconds 1 --runs 1" if tiny else "--seconds 6"
    goal = "--tiny --epochs 1" if tiny else "--mode graph --epochs 20 --error 0.8 0.7"
    small, large = ("visit", "visit") if tiny else ("embedded", "tiny-imagenet --archive")
    reproduce = "alexnet reproduce --profile"
    plan = {
        "check": ["pytest -q -x -m gpu kernels/tests" + " tests" * (not tiny)],
        "operators": ["kernel_benchmarks.operators" + " --tiny" * tiny],
        "steps": [f"benchmarks.step steps pack parts {short}"],
        "ranks": [f"{reproduce} {small} --only devices"],
        "images": [f"{reproduce} {large} --only {what}" for what in IMAGES],
        "reach": [f"benchmarks.reach --profile {large.split()[0]} {goal}"],
    }
    python = [sys.executable, "-m"]
    commands = {part: [python + words.split() for words in each] for part, each in plan.items()}
    if sanitizer := shutil.which("compute-sanitizer"):
        some = "kernel_benchmarks.operators local_response_norm max_pool response_norm_pool"
        commands["check"].append([sanitizer, *python, *some.split(), "--tiny", "--fresh"])
    return commands


def run(command: list[str], seconds: float, variables: dict[str, str]) -> str:
    """Run one program, and what it starts, for at most so long.

    When its time is over all of it is asked to end, as by Ctrl-C, and keeps what it has. Nothing of
    it outlives this call, also where the visit itself is stopped.

    Returns:
        "done", "failed" or OUT_OF_TIME.
    """
    print(f"\n$ {' '.join(command)}", flush=True)
    # a shell has what it starts with & ignore Ctrl-C
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    options: dict[str, Any] = {"start_new_session": True, "preexec_fn": listen}
    process = subprocess.Popen(command, cwd=ROOT, env=variables, **options)
    try:
        # pytest's 5: no test for this machine
        return "done" if process.wait(seconds) in (0, 5) else "failed"
    except subprocess.TimeoutExpired:
        return OUT_OF_TIME
    finally:
        for number in (signal.SIGINT, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired, KeyboardInterrupt):
                os.killpg(process.pid, number)
                process.wait(RESERVE)


def work(args: argparse.Namespace) -> int:
    if not args.tiny and not torch.cuda.is_available():
        raise InputError("there is no CUDA device; --tiny rehearses without one")
    variables = environment()
    if args.tiny:
        variables["ALEXNET_PROFILES"] = str(ROOT / "benchmarks" / "profiles")
    plan = parts(args.tiny)
    lines = [["part ", "seconds", "outcome "]]
    for name in args.parts:
        began, outcomes = time.monotonic(), list[str]()
        for command in plan[name]:
            left = args.budget - (time.monotonic() - began)
            outcomes.append(run(command, left, variables) if left > RESERVE else OUT_OF_TIME)
        worst = next((outcome for outcome in outcomes if outcome != "done"), "done")
        lines.append([name, f"{time.monotonic() - began:.0f}", worst])
    print("\n" + report.table(lines))
    return int(any(line[2] != "done" for line in lines[1:]))


def main(argv: Sequence[str] | None = None) -> int:
    form = runner.Parser("benchmarks.visit", __doc__)
    add, names = form.add_argument, list(parts(True))
    what = f"default: {' '.join(names)}"
    add("parts", nargs="*", type=runner.one_of(names), default=names, metavar="PART", help=what)
    limit = "seconds for each part (default: %(default)s)"
    add("--budget", type=runner.positive, default=470, metavar="S", help=limit)
    add("--tiny", action="store_true", help="a rehearsal, on a CPU as well")
    args = form.parse_args(argv)
    return runner.guarded(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
