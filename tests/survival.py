"""What a run survives: ranks are killed at random moments and resumed.

The run must end as the one that nothing disturbed, to the bit.

    python -m tests.survival               25 moments: what was tried and what was lost
    python -m tests.survival --archive     the same, kept in results/
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from alexnet import results
from alexnet.data import pictographs
from alexnet.data.pack import open_splits
from alexnet.data.prepare import prepare
from alexnet.keys import key
from alexnet.tables import align
from alexnet.training import Config, checkpoint, log

ROOT = Path(__file__).resolve().parents[1]
WORLDS = {1: "one process", 2: "two columns", 4: "two columns, two rows"}


def run(*jobs: dict) -> list[dict]:
    """The outcomes of jobs of tests/rank_jobs.py."""
    command = [sys.executable, "-m", "tests.rank_jobs", *map(json.dumps, jobs)]
    options = {"env": environment(), "capture_output": True, "text": True, "timeout": 900}
    done = subprocess.run(command, cwd=ROOT, check=False, **options)
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == len(jobs), done.stderr
    return outcomes


def environment() -> dict[str, str]:
    """That of a rank: one thread, compiled operators, this repository's packages."""
    path = f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return os.environ | threads | {"PYTHONPATH": path, "TRITON_INTERPRET": "0"}


def configure(packs: Path, preset: str = "paper/constant-rate", **fields) -> Config:
    """20 steps of a narrow net; the last batch of each epoch is half as long."""
    splits = open_splits(packs)
    settings = {"width": 1 / 8, "image_size": 64, "epochs": 4.0, "batch_size": 8} | fields
    data = {name: splits[name].digest for name in ("train", "val")}
    return Config(preset=preset, num_classes=len(splits["train"].classes), data=data, **settings)


def job(packs: Path, out: Path, world: int, config: Config, **options) -> dict:
    places = {"data": str(packs), "out": str(out)}
    return {"job": "train", "world": world, "config": asdict(config), **places, **options}


def rows(folder: Path) -> list[dict]:
    """A run's log without what depends on the clock."""
    return [
        {k: v for k, v in row.items() if not k.startswith("seconds") and k != "images_per_second"}
        for row in log.read(folder)
    ]


def lost(run: Path, undisturbed: Path) -> str:
    """What differs between two finished runs; "nothing" is what survival means."""
    weights = [(folder / "weights.safetensors").read_bytes() for folder in (run, undisturbed)]
    differs = {"weights": weights[0] != weights[1], "log": rows(run) != rows(undisturbed)}
    return " and ".join(name for name, different in differs.items() if different) or "nothing"


def moments(packs: Path, folder: Path, count: int, seed: int, progress: bool = False) -> list[dict]:
    """Kill `count` runs of one, two and four ranks in turn, and resume them.

    One rank of each is killed at a random moment between its start and its end. Returns a row for
    each run.
    """
    config, draw = configure(packs, "paper", width=1 / 16), random.Random(seed)
    undisturbed = {world: folder / f"undisturbed-{world}" for world in WORLDS}
    straight = run(*(job(packs, out, world, config) for world, out in undisturbed.items()))
    took = {world: min(outcome["seconds"]) for world, outcome in zip(WORLDS, straight, strict=True)}
    table = []
    bar = {"desc": "kill -9", "unit": "run", "disable": None if progress else True}
    for number in tqdm(range(count), **bar):
        world, out = list(WORLDS)[number % len(WORLDS)], folder / f"killed-{number}"
        victim, moment = draw.randrange(world), draw.uniform(0.1, 0.9) * took[world]
        (killed,) = run(job(packs, out, world, config, kill=[victim, moment]))
        done = checkpoint.steps(out / "checkpoints")
        logged = (out / "log.jsonl").exists()
        reached = [row["step"] for row in log.read(out, "step")] if logged else []
        halves = list((out / "checkpoints").glob(".step-*"))
        (resumed,) = run(job(packs, out, world, config, resume=True))
        assert set(resumed["statuses"]) == {0}, resumed["outputs"]
        was_killed = killed["statuses"][victim] == -9  # if not, the run had ended before
        table.append(
            {
                "ranks": WORLDS[world],
                "killed": victim if was_killed else None,
                "others_ended_within": round(max(killed["seconds"]) - killed["seconds"][victim], 1),
                "log_reached": max(reached, default=0),
                "checkpoint": int(done[-1].name.removeprefix("step-")) if done else 0,
                "half_written": bool(halves),
                "lost": lost(out, undisturbed[world]),
            }
        )
    return table


def text(table: list[dict]) -> str:
    names = ("ranks", "killed", "others_ended_within", "checkpoint", "half_written", "lost")
    heads = {"others_ended_within": "others, s", "half_written": "half-written"}
    lines = [[heads.get(name, name) for name in names]]
    for row in table:
        killed = "ended" if row["killed"] is None else f"rank {row['killed']}"
        cells = row | {"killed": killed, "half_written": "yes" if row["half_written"] else ""}
        lines.append([str(cells[name]) for name in names])
    return "\n".join(align(lines))


def packs(folder: Path) -> Path:
    """36 pictographs of three classes, and six to validate with."""
    pictographs.write(folder / "images", classes=3, train=12, val=2, test=2, size=72, workers=1)
    return prepare(folder / "images", folder / "packs", size=72, workers=1)


def main() -> int:
    look = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m tests.survival", description=__doc__, formatter_class=look
    )
    count = "runs to kill (default: %(default)s)"
    parser.add_argument("--moments", type=int, default=25, help=count)
    seed = "of ranks and moments (default: %(default)s)"
    parser.add_argument("--seed", type=int, default=0, help=seed)
    parser.add_argument("--archive", action="store_true", help="keep the table in results/")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        table = moments(packs(Path(place)), Path(place), args.moments, args.seed, progress=True)
    print(text(table))
    losses = sum(row["lost"] != "nothing" for row in table)
    print(f"\n{len(table)} runs killed and resumed; {losses or 'none'} lost anything")
    if args.archive:
        settings = {"moments": args.moments, "preset": "paper", "width": 1 / 16}
        settings |= {"steps": 20, "checkpoint": "after every step"}
        record = {
            "experiment": "survival",
            "profile": "embedded",
            "arm": "killed",
            "seed": args.seed,
            "key": key(settings),
            "settings": settings,
            "metrics": {"runs": len(table), "lost": losses, "table": table},
            "data": {"title": "pictographs"},
            "provenance": results.provenance(None, time.monotonic() - began),
        }
        print(results.save(record, results.ARCHIVE / "embedded"))
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
