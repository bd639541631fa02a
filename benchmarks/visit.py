"""A visit to a GPU: all that only one can show, in the order in which it matters, each part in less than eight minutes.

    python -m benchmarks.visit                                   # the parts one after the other; what is done is not repeated
    python -m benchmarks.visit check operators                   # these
    python -m benchmarks.visit images --budget 420               # with another limit, in seconds

    check       the tests that need a GPU; the kernels under compute-sanitizer, where it is installed
    operators   every operator beside its peers, and the targets
    steps       whole training steps of both presets, beside torch's layers and torchvision's AlexNet; from a pack; what a step is made of
    data        augmentation and streaming, without a net
    ranks       two columns as two ranks on one device, beside one process
    images      Tiny ImageNet (a folder that ALEXNET_DATA names): one net of full width, its kernels and neighbors; then the ablations
    reach       the time to errors on Tiny ImageNet's validation images, beside torch's layers

A part that runs out of time goes on where it was when it is asked for again; check and data, which are short, begin again. Rows go to
benchmarks/results/, results to results/ and what was trained to runs/. The table at the end says what passed. --tiny tries all of it at
sizes whose numbers mean nothing; they go to runs/.
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

import torch

from alexnet.cli import Parser
from alexnet.errors import InputError
from alexnet.results import ROOT
from benchmarks import script

RESERVE = 20  # seconds of a limit that a program has to end by itself


def parts(tiny: bool, budget: int) -> dict[str, list[list[str]]]:
    """Commands of each part."""
    python, small, limit = (
        [sys.executable, "-m"],
        ["--tiny"] if tiny else [],
        ["--budget", str(budget - RESERVE)],
    )
    profile = ["--profile", "visit" if tiny else "tiny-imagenet"]
    archive = [] if tiny else ["--archive"]
    tests = [
        "tests/test_kernels.py",
        "tests/test_kernels_gpu.py",
        "tests/test_steps.py",
        "tests/test_ranks.py",
        "tests/test_learner.py",
    ]
    sanitizer = [found] if (found := shutil.which("compute-sanitizer")) else []
    checked = [
        *python,
        "benchmarks.operators",
        "--tiny",
        "--operators",
        "local_response_norm",
        "max_pool",
        "response_norm_pool",
    ]
    sizes = {
        "count": 40,
        "size": 72,
        "batch-size": 8,
        "rounds": 1,
        "out": script.TINY_FOLDER / "data.csv",
    }
    data = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    short = ["--seconds", "1", "--runs", "1"] if tiny else ["--seconds", "6"]
    reach = (
        ["--epochs", "1", "--out", str(script.TINY_FOLDER / "reach.csv")]
        if tiny
        else ["--mode", "graph", "--epochs", "20", "--error", "0.8", "0.7"]
    )
    check = [[*python, "pytest", "-q", "-x", "-m", "gpu", *(tests[:1] if tiny else tests)]]
    return {
        "check": check + [[*sanitizer, *checked]] * bool(sanitizer),
        "operators": [[*python, "benchmarks.operators", *small, *limit]],
        "steps": [[*python, "benchmarks.step", "steps", "pack", "parts", *small, *short, *limit]],
        "data": [[*python, "benchmarks.data", "gpu", *(data if tiny else [])]],
        "ranks": [
            [
                *python,
                "alexnet",
                "reproduce",
                "--profile",
                "visit" if tiny else "embedded",
                "--only",
                "devices",
            ]
        ],
        "images": [
            [*python, "alexnet", "reproduce", *profile, "--only", name, *archive]
            for name in ("figure3", "figure4", "ablations")
        ],
        "reach": [[*python, "benchmarks.reach", *profile, *reach]],
    }


# What --tiny reproduces in the place of Tiny ImageNet and the full net.
PROFILE = """
extends: embedded
title: a rehearsal
limit: 200
width: 0.0625
batch_size: 12
epochs: 1
ablations: {sample: 10, arms: [full, no-lrn]}
figure3: {shuffles: 10}
figure4: {test_images: 4, thumbnail: 16}
devices:
  pictographs: {classes: 2, train: 6, val: 0, test: 0, size: 72}
  batch_size: 4
  steps: 1
  width: 0.0625
  image_size: 64
"""


def run(command: list[str], seconds: float, environment: dict[str, str]) -> str:
    """One program, and what it started; "done", "failed", or "out of time": then all of it is asked to end, as by Ctrl-C, and keeps what it
    has. Nothing of it outlives this call, also where the visit itself is stopped."""
    print(f"\n$ {' '.join(command)}", flush=True)
    listen = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # a shell has what it starts with & ignore it
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, start_new_session=True, preexec_fn=listen
    )
    try:
        return (
            "done" if process.wait(seconds) in (0, 5) else "failed"
        )  # pytest's 5: no test for what is here
    except subprocess.TimeoutExpired:
        return "out of time: ask for it again"
    finally:
        try:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
                process.wait(RESERVE)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    form = Parser(
        "python -m benchmarks.visit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    form.add_argument(
        "parts", nargs="*", metavar="PART", help=f"default: {' '.join(parts(True, 60))}"
    )
    form.add_argument(
        "--budget",
        type=script.positive,
        default=470,
        metavar="S",
        help="seconds for each part (default: %(default)s)",
    )
    form.add_argument("--tiny", action="store_true", help="a rehearsal, on a CPU as well")
    args = form.parse_args(argv)

    def work() -> int:
        plan = parts(args.tiny, args.budget)
        if unknown := set(args.parts) - set(plan):
            raise InputError(
                f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(plan)}"
            )
        if not args.tiny and not torch.cuda.is_available():
            raise InputError("there is no CUDA device here; --tiny rehearses without one")
        environment = dict(os.environ)
        if args.tiny:
            script.TINY_FOLDER.mkdir(parents=True, exist_ok=True)
            profiles = script.TINY_FOLDER / "profiles"
            profiles.mkdir(exist_ok=True)
            (profiles / "visit.yml").write_text(PROFILE)
            environment |= {"ALEXNET_PROFILES": str(profiles)}
        lines = [["part ", "seconds", "outcome "]]
        for name in args.parts or plan:
            began, outcomes = time.monotonic(), list[str]()
            for command in plan[name]:
                left = args.budget - (time.monotonic() - began)
                outcomes.append(
                    run(command, left, environment)
                    if left > RESERVE
                    else "out of time: ask for it again"
                )
            worst = next((one for one in outcomes if one != "done"), "done")
            lines.append([name, f"{time.monotonic() - began:.0f}", worst])
        print("\n" + script.record.table(lines))
        return int(any(line[2] != "done" for line in lines[1:]))

    return script.guarded(work)


if __name__ == "__main__":
    sys.exit(main())
