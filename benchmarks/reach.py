"""Time to a stated validation error, from a pack: the trainer, beside a loop over the same net in
torch's own layers with torch's SGD.

    python -m benchmarks.reach              # the default profile's net, on pictographs
    python -m benchmarks.reach --profile tiny-imagenet --mode graph --error 0.7     # on a GPU

Both begin with the same weights, see the same images in the same order, cropped and mirrored alike,
and follow the same schedule. Counted are the seconds of the steps, with what feeds them and without
validation. Rows go to results/reach.csv; README.md says more.
"""

import argparse
import math
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from alexnet import evaluation
from alexnet.data.augment import Augment
from alexnet.data.loader import Loader
from alexnet.data.pack import Pack
from alexnet.errors import InputError
from alexnet.experiments import jobs
from alexnet.keys import key
from alexnet.profiles import Profile, load
from alexnet.training import Config, log, train
from alexnet.training.config import MODES
from alexnet.training.precision import using_precision
from alexnet.training.ranks import Ranks
from alexnet.training.schedule import Schedule
from benchmarks import ARCHIVE
from benchmarks.contestants import PEER
from benchmarks.plain import Plain, sgd
from benchmarks.step import SOURCES
from kernel_benchmarks import record, report, runner, script
from kernel_benchmarks.record import Row

RUN = ("profile", "data", "preset", "width", "image_size", "batch", "precision", "budget")
COLUMNS = (
    *(*record.ORIGIN, *RUN, "implementation", "seed", "error"),
    *("reached", "epochs", "seconds", "images_per_s", "note"),
)
FILE = ARCHIVE / "reach.csv"
SHARE = script.between(0, 1, "share of images; give a number from 0 to 1")

# after each epoch: epochs, seconds of steps so far, error on the validation images
Point = tuple[float, float, float]
Curve = list[Point]


def ours(config: Config, splits: dict[str, Pack], device: str, folder: Path) -> Curve:
    """What a run's log says of a training that goes on where it was stopped."""
    train(config, splits, folder, resume=True, ranks=Ranks(device))
    curve, seconds = Curve(), 0.0
    for row in log.read(folder):
        if row["kind"] == "step":
            seconds += row["seconds_data"] + row["seconds_compute"] + row["seconds_exchange"]
        else:
            curve.append((row["epoch"], seconds, row["val_top1"]))
    return curve


def theirs(config: Config, splits: dict[str, Pack], device: str) -> Curve:
    """A loop as one writes it; bf16 by autocast. It reads losses after each epoch only."""
    pack, recipe = splits["train"], config.recipe
    judge = config.network().to(device)
    net = Plain(config.preset, config.num_classes, config.width, config.image_size)
    net.load_state_dict(judge.export_merged())
    form = torch.channels_last if device == "cuda" else torch.contiguous_format
    net = net.to(device).to(memory_format=form).train()
    optimizer = sgd(net, recipe.rate, recipe.momentum, recipe.weight_decay)
    schedule = Schedule.of(recipe, config.epochs)
    augment = Augment(recipe, pack.mean, config.image_size, pack.color, config.seed)
    loader = Loader(pack, config.batch_size, config.seed, device)
    half, curve, seconds = config.precision == "bf16", Curve(), 0.0
    for epoch in tqdm(range(int(config.epochs)), desc=PEER, unit="epoch", disable=None):
        for group, kind in zip(optimizer.param_groups, ("weight", "bias"), strict=True):
            group["lr"] = schedule.rate(epoch, "conv2", kind)
        began, losses = time.perf_counter(), []
        for images, labels, ids, positions in loader.epoch(epoch):
            x = augment.train(images, ids, positions, epoch, schedule.color(epoch))
            with torch.autocast(device, torch.bfloat16) if half else nullcontext():
                loss = F.cross_entropy(net(x), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach() * len(labels))
        mean = float(torch.stack(losses).sum()) / len(pack)  # waits for the device
        seconds += time.perf_counter() - began
        judge.load_merged({name: value.float() for name, value in net.state_dict().items()})
        error = evaluation.evaluate(judge, splits["val"], augment).top1
        curve.append((epoch + 1.0, seconds, error))
        schedule.observe(error, started=mean < 0.9 * math.log(config.num_classes))
        if schedule.finished or not math.isfinite(mean):
            break
    return curve


def points(curve: Curve, errors: Sequence[float], images: int) -> Iterator[Row]:
    """What a row says of each stated error: the first point of the curve at which the error is at
    most that."""
    epochs, seconds, _ = curve[-1]
    for error in errors:
        row: Row = {"error": error, "images_per_s": epochs * images / seconds}
        if point := next((point for point in curve if point[2] <= error), None):
            row["epochs"], row["seconds"], row["reached"] = point
        else:
            best = min(error for _, _, error in curve)
            row["note"] = f"not within {epochs:g} epochs; {best:.3f} at best"
        yield row


def measure(profile: Profile, config: Config, args: argparse.Namespace) -> tuple[list[Row], int]:
    """Train each contestant from each seed, unless the file holds its rows.

    Returns:
        All rows of this run (of this code, machine, net and budget; they share one time), and how
        many trainings failed.
    """
    splits, folder = profile.splits(), profile.runs / "benchmarks" / "reach"
    net = (profile.name, profile.title(), config.preset, config.width, config.image_size)
    values = (*net, config.batch_size, config.precision, config.epochs)
    origin = record.machine(args.device, args.commit, SOURCES)
    run = dict(zip(RUN, values, strict=True))
    run |= {name: origin[name] for name in ("source", *record.MACHINE)}
    key_of_run = key(sorted(run.items()))
    if args.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    held = [] if args.fresh else record.held(args.out, run, COLUMNS)
    run["time"] = held[-1]["time"] if held else record.now()

    def trained(name: str, seed: int) -> list[Row]:
        own = run | {"implementation": name, "seed": seed}
        missing = [
            error
            for error in args.error
            if not record.held(args.out, own | {"error": error}, COLUMNS)
        ]
        seeded = replace(config, seed=seed)
        place = folder / key([seeded.identity, key_of_run])
        contestant = theirs if name == PEER else partial(ours, folder=place)
        with using_precision(config.precision, torch.device(args.device)):
            curve = contestant(seeded, splits, args.device)
        shutil.rmtree(place, ignore_errors=True)
        return list(points(curve, missing, len(splits["train"])))

    name = "ours" if config.mode == "plain" else f"ours, {config.mode}"
    needed: list[Row] = [{"error": error} for error in args.error]
    tasks = []
    for seed in range(args.seeds):
        for each in sorted((name, PEER), reverse=seed % 2 == 1):  # who begins
            what = run | {"implementation": each, "seed": seed}
            work = partial(trained, each, seed)
            title = f"{each}, seed {seed}"
            tasks.append(runner.Task(title, what, work, args.out, needed=needed))
    args.fresh = False  # the new time tells new rows from old ones
    _, left = runner.run(tasks, COLUMNS, origin, args)
    shutil.rmtree(folder, ignore_errors=True)  # also what other code began and did not end
    return record.held(args.out, run, COLUMNS), len(left)


def latest(cuda: bool, path: Path = FILE) -> list[Row]:
    """The rows of each profile's last run on a device of that kind; none where nothing was
    measured."""
    rows = [row for row in record.read(path, COLUMNS) if bool(row["cuda"]) is cuda]
    last = {row["profile"]: row["time"] for row in rows}
    return [row for row in rows if row["time"] == last[row["profile"]]]


def table(rows: Sequence[Row]) -> str:
    """A table for each profile."""
    profiles: dict[str, list[Row]] = {}
    for row in rows:
        profiles.setdefault(row["profile"], []).append(row)
    return "\n\n".join(map(_one_table, profiles.values()))


def _one_table(rows: Sequence[Row]) -> str:
    peers = {(r["seed"], r["error"]): r["seconds"] for r in rows if r["implementation"] == PEER}
    shown, first = [], rows[0]
    for row in rows:
        peer = peers.get((row["seed"], row["error"])) if row["implementation"] != PEER else None
        ratio = peer / row["seconds"] if peer and row["seconds"] else None
        shown.append(row | {"ratio": ratio})
    names = (
        "implementation",
        "seed",
        "error",
        "epochs",
        "seconds",
        "ratio",
        "images_per_s",
        "note",
    )
    net = f"width {first['width']:g}, batch {first['batch']:.0f}, {first['precision']}"
    what = f"{first['data']}: {first['preset']}, {net}"
    return "\n".join([report.where(first), what, "", report.listing(shown, names)])


def main(argv: Sequence[str] | None = None) -> int:
    form = script.parser("benchmarks.reach", __doc__, FILE)
    add, shown = form.add_argument, "(default: %(default)s)"
    profiles = f"whose images, net, rate and epochs {shown}"
    add("--profile", default="embedded", metavar="P", help=profiles)
    errors = "stated, of the validation images, 0 to 1 (default: 0.7 0.6)"
    add("--error", type=SHARE, nargs="+", default=[0.7, 0.6], metavar="E", help=errors)
    add("--epochs", type=script.positive, metavar="N", help="the budget (default: the profile's)")
    add("--mode", choices=MODES, default="plain", help=f"of our trainer {shown}")
    add("--seeds", type=script.positive, default=1, metavar="N", help=f"from 0 on {shown}")
    add("--fresh", action="store_true", help="begin anew, whatever the file holds")
    args = form.parse_args(argv)

    def work() -> int:
        script.settle(args)
        record.check(args.out, COLUMNS)
        profile = load(args.profile)
        named = f"profile {args.profile!r}"
        if "val" not in profile.splits():
            raise InputError(f"{named} has no validation images, whose error is to be reached")
        config = jobs.base(profile)
        config = replace(config, mode=args.mode, epochs=args.epochs or config.epochs)
        if config.epochs != int(config.epochs):
            budget = f"{config.epochs:g} epochs, and whole ones are compared; give --epochs N"
            raise InputError(f"{named} has {budget}")
        rows, failed = measure(profile, config, args)
        print(f"{table(rows)}\n\nrows: {args.out}")
        return 1 if failed else 0

    return script.guarded(work, InputError)


if __name__ == "__main__":
    sys.exit(main())
