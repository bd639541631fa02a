"""A visit to a GPU: all that only one can show, in the order in which it matters, part by part.

    python -m benchmarks.visit first --limit 300 --save DIR    # right? how fast is a step, and why?
    python -m benchmarks.visit second --limit 400 --save DIR   # operators, forms of a step, data
    python -m benchmarks.visit later                           # the rest, in hours
    python -m benchmarks.visit ranks reach                     # some parts

Each part is a program with a time limit of its own. Whatever becomes of it, its rows and what it
printed are saved, and the next part begins. A part that is done is not repeated (--fresh repeats
it); one that was stopped goes on with the cases that it has not measured. --tiny tries all of it at
sizes that mean nothing. benchmarks/README.md says more.
"""

import argparse
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from alexnet_kernels.files import write_whole
from benchmarks import ARCHIVE, ROOT, SOURCES, environment
from kernel_benchmarks import record, report, runner
from kernel_benchmarks.record import InputError

RESERVE = 20  # seconds of a limit that a program has to end by itself
SUMMARY = 10_000  # characters that are printed at the end
OUT_OF_TIME, DONE = "out of time: ask for it again", "done"
IMAGES = ("figure3", "figure4", "ablations")
NET = ["--only", "paper, batch 128, bf16,"]
LARGE = ["--only", "paper, batch 1024, bf16,"]
PEERS = ["--implementations", "ours, graph", "torchvision, compiled"]
FORMS = ["--implementations", "ours", "ours, compiled graph"]
ONE_EACH = {"ALEXNET_TUNING": "off"}  # of the configurations of a kernel


@dataclass(frozen=True)
class Part:
    """A program, or several: words after "python -m", the most seconds, variables."""

    seconds: int
    commands: list[list[str]]
    variables: dict[str, str] = field(default_factory=dict)
    needs: int = 0  # GPUs


def parts(tiny: bool) -> dict[str, dict[str, Part]]:
    """What each visit consists of, what matters most first."""
    step, short = ["benchmarks.step"], ["--seconds", "4"]
    operators = ["kernel_benchmarks.operators"]
    main = ["local_response_norm", "max_pool", "response_norm_pool"]
    large = ["--batch", "1024", "--dtype", "bf16", "--layouts", "nhwc"]
    net, whole, peers, forms = NET, LARGE, PEERS, FORMS
    small, profile, goal = "embedded", "tiny-imagenet", ["--mode", "graph", "--epochs", "20"]
    goal += ["--error", "0.8", "0.7"]
    archive, some = ["--archive"], []
    if tiny:
        short, large = ["--tiny", "--seconds", "1", "--runs", "1"], ["--tiny"]
        net, whole, peers, forms = [], [], ["--implementations", "ours"], FORMS[:2]
        small, profile, goal = "visit", "visit", ["--tiny", "--epochs", "1"]
        archive, some = [], large
    tests = ["pytest", "-q", "-m", "gpu", "--durations", "10", "--maxfail", "20"]
    tests += ["-n", "8"] * bool(importlib.util.find_spec("xdist")) * (not tiny)
    reproduce = ["alexnet", "reproduce", "--profile"]

    first = {
        "correct": Part(90, [["benchmarks.correct", *some]], ONE_EACH),
        "step": Part(75, [[*step, "steps", *net, *peers, *short]]),
        "kernels": Part(40, [[*step, "kernels", *net, *short]]),
        "large-step": Part(75, [[*step, "steps", *whole, *peers, *short]]),
    }
    second = {
        "blocks": Part(140, [[*operators, *main, *large]]),
        "convolutions": Part(45, [[*step, "convolutions", *net, *short]]),
        "forms": Part(75, [[*step, "steps", *net, *forms, *short]]),
        "pack": Part(45, [[*step, "pack", *net, *short]]),
        "parts": Part(40, [[*step, "parts", *net, *short]]),
        "device": Part(35, [[*tests, "kernels/tests/test_gpu.py"]], ONE_EACH),
    }
    later = {
        "check": Part(470, [[*tests, "kernels/tests", *["tests"] * (not tiny)]], ONE_EACH),
        "sanitizer": Part(470, [[*operators, *main, "--tiny", "--fresh"]], ONE_EACH),
        "operators": Part(470, [[*operators, *some]]),
        "steps": Part(470, [[*step, "steps", "kernels", "pack", "parts", *short]]),
        "ranks": Part(470, [[*reproduce, small, "--only", "devices"]], needs=2),
        "images": Part(470, [[*reproduce, profile, *archive, "--only", what] for what in IMAGES]),
        "reach": Part(470, [["benchmarks.reach", "--profile", profile, *goal]]),
    }
    return {"first": first, "second": second, "later": later}


# --- a program ---


def run(command: Sequence[str], seconds: float, variables: dict[str, str], log: Path) -> str:
    """Run one program, and what it starts, for at most so long.

    When its time is over all of it is asked to end, as by Ctrl-C, and keeps what it has. Nothing of
    it outlives this call, also where the visit itself is stopped.

    Args:
        log: Where what it prints is added.

    Returns:
        DONE, "failed" with its status, or OUT_OF_TIME.
    """
    # a shell has what it starts with & ignore Ctrl-C
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    options: dict[str, Any] = {"start_new_session": True, "preexec_fn": listen}
    with log.open("a") as file:
        print(f"$ {' '.join(command)}", file=file, flush=True)
        options |= {"stdout": file, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, cwd=ROOT, env=variables, **options)
        try:
            # pytest's 5: no test for this machine
            status = process.wait(seconds)
            return DONE if status in (0, 5) else f"failed: status {status}"
        except subprocess.TimeoutExpired:
            return OUT_OF_TIME
        finally:
            for number in (signal.SIGINT, signal.SIGKILL):
                with suppress(ProcessLookupError, subprocess.TimeoutExpired, KeyboardInterrupt):
                    os.killpg(process.pid, number)
                    process.wait(RESERVE / 2)


# --- a visit ---


class Visit:
    """What is known of the parts, in a folder, and how they are run."""

    def __init__(self, args: argparse.Namespace, seconds: int):
        """seconds: what the parts' own limits add up to; a longer visit gives each more."""
        self.args, self.began = args, time.monotonic()
        self.scale = max(1.0, (args.limit - RESERVE) / seconds)
        self.folder = ROOT / "runs" / ("visit-tiny" if args.tiny else "visit")
        self.cache = (args.cache or self.folder / "triton").resolve()
        self.file, self.source = self.folder / "outcomes.json", record.source_digest(SOURCES)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.outcomes: dict[str, dict[str, Any]] = {}
        with suppress(FileNotFoundError, ValueError):
            self.outcomes = {} if args.fresh else json.loads(self.file.read_text())
        self.variables = environment() | {
            "TRITON_CACHE_DIR": str(self.cache),
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "inductor"),
            "ALEXNET_CACHE": str(self.folder / "choices"),
            "PYTHONUNBUFFERED": "1",
        }
        if args.tiny:
            self.variables["ALEXNET_PROFILES"] = str(ROOT / "benchmarks" / "profiles")

    def left(self) -> float:
        return self.args.limit - (time.monotonic() - self.began)

    def do(self, name: str, part: Part) -> None:
        """Run a part, unless it is done, and save what is known then."""
        known = self.outcomes.get(name, {})
        if known.get("outcome") == DONE and known.get("source") == self.source:
            runner.log(f"{name}: done before")
            return
        log, began, before = self.folder / f"{name}.log", time.monotonic(), self.kernels()
        log.write_text("")
        outcome = self.reason(name, part) or DONE
        for words in part.commands if outcome == DONE else ():
            seconds = part.seconds * self.scale - (time.monotonic() - began)
            seconds = min(seconds, self.left() - RESERVE)
            result = OUT_OF_TIME
            if seconds >= RESERVE / 2:
                command = self.command(name, words, seconds)
                result = run(command, seconds, self.variables | part.variables, log)
            outcome = result if outcome == DONE else outcome
        new = self.kernels() - before
        took = {"seconds": round(time.monotonic() - began), "compiled": len(new)}
        self.outcomes[name] = {"outcome": outcome, "source": self.source, **took}
        write_whole(self.file, json.dumps(self.outcomes, indent=1))
        runner.log(f"{name}: {outcome}, {took['seconds']} s, {len(new)} kernels compiled")
        self.save()

    def reason(self, name: str, part: Part) -> str:
        """Why a part cannot be done here; "" where it can."""
        gpus = torch.cuda.device_count()
        if not self.args.tiny and gpus < part.needs:
            return f"skipped: needs {part.needs} GPUs, one for each rank; there are {gpus}"
        if name == "sanitizer" and not sanitizer():
            return "skipped: compute-sanitizer is not installed"
        return ""

    def command(self, name: str, words: Sequence[str], seconds: float) -> list[str]:
        """The whole command line of a program, which learns of its limit if it can."""
        command = [sys.executable, "-m", *words]
        if words[0].split(".")[0] in ("benchmarks", "kernel_benchmarks"):
            command += ["--limit", str(max(1, round(seconds - RESERVE)))]
            command += ["--commit", self.args.commit] if self.args.commit else []
        return [str(sanitizer()), *command] if name == "sanitizer" else command

    def kernels(self) -> set[str]:
        """Our kernels that the cache holds."""
        return {p.parent.name for p in self.cache.glob("*/__grp__*") if "triton_" not in p.name}

    def save(self) -> None:
        """Put what there is into the folder of --save: a summary, and an archive to be unpacked in
        a checkout's root."""
        if self.args.save is None:
            return
        rows = (runner.TINY_FOLDER,) if self.args.tiny else (ARCHIVE, record.ARCHIVE)
        paths = [path for folder in rows for path in folder.glob("*.csv")]
        paths += [self.file, *self.folder.glob("*.log"), *(self.folder / "choices").glob("*.json")]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in paths:
                inside = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
                archive.write(path, inside)
        write_whole(self.args.save / "visit.zip", packed.getvalue())
        write_whole(self.args.save / "summary.txt", self.summary(self.outcomes) + "\n")

    def summary(self, names: Iterable[str]) -> str:
        """The end of what each part printed, as much as there is room for; the outcomes last."""
        lines = [["part ", "seconds", "compiled", "outcome "]]
        logs: dict[str, str] = {}
        for name in names:
            known = self.outcomes.get(name, {"outcome": "not begun"})
            facts = (known.get(key, "") for key in ("seconds", "compiled", "outcome"))
            lines.append([name, *map(str, facts)])
            with suppress(OSError):
                logs[name] = (self.folder / f"{name}.log").read_text(errors="replace").strip()
        ends = [f"--- {name}\n{end}" for name, end in shares(logs, SUMMARY).items() if end]
        return "\n".join([*ends, "", report.table(lines)])


def shares(texts: dict[str, str], room: int) -> dict[str, str]:
    """The last lines of each text, so many characters in all; short ones leave theirs to others."""
    ends: dict[str, str] = {}
    for i, name in enumerate(sorted(texts, key=lambda name: len(texts[name]))):
        share = room // (len(texts) - i)
        text = texts[name]
        ends[name] = text if len(text) <= share else text[-share:].partition("\n")[2]
        room -= len(ends[name])
    return {name: ends[name] for name in texts}


def sanitizer() -> str | None:
    name = "compute-sanitizer"
    return shutil.which(name) or shutil.which(f"/usr/local/cuda/bin/{name}")


def work(args: argparse.Namespace) -> int:
    if not args.tiny and not torch.cuda.is_available():
        raise InputError("there is no CUDA device; --tiny rehearses without one")
    every = parts(args.tiny)
    groups = [every[name] if name in every else {name: named(every)[name]} for name in args.what]
    chosen = {name: part for group in groups for name, part in group.items()}
    seconds = sum(part.seconds for part in chosen.values())
    args.limit = args.limit or RESERVE + seconds
    if args.save:
        args.save.mkdir(parents=True, exist_ok=True)
    visit = Visit(args, seconds)
    if args.cache:
        from benchmarks.prebuild import adopt

        runner.log(f"{adopt(visit.cache)} kernels in {args.cache}")
    try:
        for name, part in chosen.items():
            visit.do(name, part)
    finally:
        print(visit.summary(chosen))
    outcomes = [visit.outcomes[name]["outcome"] for name in chosen]
    return int(any(not outcome.startswith((DONE, "skipped")) for outcome in outcomes))


def named(every: dict[str, dict[str, Part]]) -> dict[str, Part]:
    return {name: part for group in every.values() for name, part in group.items()}


def main(argv: Sequence[str] | None = None) -> int:
    form = runner.Parser("benchmarks.visit", __doc__)
    every = parts(True)
    add, names = form.add_argument, [*every, *named(every)]
    what = f"visits or parts: {', '.join(names)} (default: first)"
    add("what", nargs="*", type=runner.one_of(names), default=["first"], metavar="PART", help=what)
    limit = "seconds in all (default: what the parts' own limits add up to; more: each has more)"
    add("--limit", type=runner.positive, metavar="S", help=limit)
    add("--save", type=Path, metavar="DIR", help="where a summary and all rows go after each part")
    add("--commit", metavar="ID", help="what to write as commit where there is no git checkout")
    cache = "of kernels that benchmarks.prebuild compiled (default: a new one in runs/visit/)"
    add("--cache", type=Path, metavar="DIR", help=cache)
    add("--fresh", action="store_true", help="repeat parts that are done")
    add("--tiny", action="store_true", help="a rehearsal, on a CPU as well")
    args = form.parse_args(argv)
    return runner.guarded(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
