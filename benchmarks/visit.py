"""A visit to a GPU: all that only one can show, in the order in which it matters, each part in less
than eight minutes.

    python -m benchmarks.visit                        # all parts; what is done is not repeated
    python -m benchmarks.visit images --budget 420    # some, with another limit, in seconds

    check       the tests that need a GPU; the kernels under compute-sanitizer, where installed
    operators   every operator beside its peers, and the targets
    steps       whole training steps of both presets; from a pack; what a step is made of
    data        augmentation and streaming, without a net
    ranks       two columns as two ranks on one device, beside one process
    images      Tiny ImageNet (a folder that ALEXNET_DATA names): one net of full width, its kernels
                and neighbors; then the ablations
    reach       the time to errors on Tiny ImageNet's validation images

A part that runs out of time goes on where it was when it is asked for again; check and data, which
are short, begin again. --tiny tries all of it at sizes that mean nothing; rows go to runs/.
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

from benchmarks import ROOT
from kernel_benchmarks import report, script
from kernel_benchmarks.record import InputError

RESERVE = 20  # seconds of a limit that a program has to end by itself
OUT_OF_TIME = "out of time: ask for it again"


def parts(tiny: bool, budget: int) -> dict[str, list[list[str]]]:
    """Commands of each part."""
    limit = ["--budget", str(budget - RESERVE), *["--tiny"] * tiny]
    profile = "visit" if tiny else "tiny-imagenet"
    archive = [] if tiny else ["--archive"]

    def module(name: str, *words: str) -> list[str]:
        return [sys.executable, "-m", name, *words]

    def reproduce(name: str, what: str, *words: str) -> list[str]:
        return module("alexnet", "reproduce", "--profile", name, "--only", what, *words)

    def out(name: str) -> list[str]:
        return ["--out", str(script.TINY_FOLDER / name)] if tiny else []

    tests = ["kernels/tests"] if tiny else ["kernels/tests", "tests"]
    check = [module("pytest", "-q", "-x", "-m", "gpu", *tests)]
    if sanitizer := shutil.which("compute-sanitizer"):
        some = ("local_response_norm", "max_pool", "response_norm_pool", "--tiny", "--fresh")
        check.append([sanitizer, *module("kernel_benchmarks.operators", *some)])
    short = "--seconds 1 --runs 1" if tiny else "--seconds 6"
    sizes = "--count 40 --size 72 --batch-size 8 --runs 1" if tiny else ""
    goal = "--epochs 1" if tiny else "--mode graph --epochs 20 --error 0.8 0.7"
    reach = ["--profile", profile, *goal.split(), *out("reach.csv")]
    images = ("figure3", "figure4", "ablations")
    return {
        "check": check,
        "operators": [module("kernel_benchmarks.operators", *limit)],
        "steps": [module("benchmarks.step", "steps", "pack", "parts", *short.split(), *limit)],
        "data": [module("benchmarks.data", "gpu", *sizes.split(), *out("data.csv"))],
        "ranks": [reproduce("visit" if tiny else "embedded", "devices")],
        "images": [reproduce(profile, what, *archive) for what in images],
        "reach": [module("benchmarks.reach", *reach)],
    }


# What --tiny reproduces in the place of Tiny ImageNet and the full net.
PROFILE = """
extends: embedded
title: a rehearsal
limit: 20
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
    """Run one program, and what it starts, for at most so long.

    When its time is over all of it is asked to end, as by Ctrl-C, and keeps what it has. Nothing of
    it outlives this call, also where the visit itself is stopped.

    Returns:
        "done", "failed" or OUT_OF_TIME.
    """
    print(f"\n$ {' '.join(command)}", flush=True)
    # a shell has what it starts with & ignore Ctrl-C
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, start_new_session=True, preexec_fn=listen
    )
    try:
        # pytest's 5: no test for this machine
        return "done" if process.wait(seconds) in (0, 5) else "failed"
    except subprocess.TimeoutExpired:
        return OUT_OF_TIME
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


def environment(tiny: bool) -> dict[str, str]:
    """The programs' environment, in which they find both packages of benchmarks."""
    paths = [str(ROOT), str(ROOT / "kernels"), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    if tiny:
        profiles = script.TINY_FOLDER / "profiles"
        profiles.mkdir(parents=True, exist_ok=True)
        (profiles / "visit.yml").write_text(PROFILE)
        variables["ALEXNET_PROFILES"] = str(profiles)
    return variables


def main(argv: Sequence[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    form = script.Parser("python -m benchmarks.visit", description=__doc__, formatter_class=raw)
    add, names = form.add_argument, " ".join(parts(True, 60))
    add("parts", nargs="*", metavar="PART", help=f"default: {names}")
    limit = "seconds for each part (default: %(default)s)"
    add("--budget", type=script.positive, default=470, metavar="S", help=limit)
    add("--tiny", action="store_true", help="a rehearsal, on a CPU as well")
    args = form.parse_args(argv)

    def work() -> int:
        plan = parts(args.tiny, args.budget)
        chosen = script.chosen(args.parts, plan, list(plan))
        if not args.tiny and not torch.cuda.is_available():
            raise InputError("there is no CUDA device; --tiny rehearses without one")
        variables = environment(args.tiny)
        lines = [["part ", "seconds", "outcome "]]
        for name in chosen:
            began, worst = time.monotonic(), "done"
            for command in plan[name]:
                left = args.budget - (time.monotonic() - began)
                outcome = run(command, left, variables) if left > RESERVE else OUT_OF_TIME
                worst = outcome if worst == "done" else worst
            lines.append([name, f"{time.monotonic() - began:.0f}", worst])
        print("\n" + report.table(lines))
        return int(any(line[2] != "done" for line in lines[1:]))

    return script.guarded(work)


if __name__ == "__main__":
    sys.exit(main())
