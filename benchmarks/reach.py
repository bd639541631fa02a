"""Time to a stated validation error, from a pack: the trainer, beside a loop over the same net in torch's own layers with torch's SGD.

    python -m benchmarks.reach                                                      # the default profile's net, on pictographs
    python -m benchmarks.reach --profile tiny-imagenet --mode graph --error 0.7     # on a GPU, with Tiny ImageNet in ALEXNET_DATA

Both begin with the same weights, see the same images in the same order, cropped and mirrored alike, and follow the same schedule; masks of
dropout are drawn apart. Both train to the profile's last epoch. Counted are the seconds of the steps, with what feeds them and without
validation, to the end of the first epoch after which the error on the validation images, from one view, is at most the stated one.
Rows go to benchmarks/results/reach.csv, each contestant's as soon as it is trained. The same command, given again with the same code on the
same machine, goes on: what is there is not repeated, and the trainer resumes from its last checkpoint; the loop, which has none, does not.
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
from hashlib import sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from alexnet import evaluation
from alexnet.cli import Parser
from alexnet.data.augment import Augment
from alexnet.data.loader import Loader
from alexnet.data.pack import Pack
from alexnet.errors import InputError
from alexnet.experiments import jobs
from alexnet.profiles import Profile, load
from alexnet.training import log
from alexnet.training.learner import arithmetic
from alexnet.training.ranks import Ranks
from alexnet.training.schedule import Schedule
from alexnet.training.trainer import MODES, Config, train
from benchmarks import record, script
from benchmarks.plain import Plain, sgd
from benchmarks.record import Row
from benchmarks.step import PEER, SOURCES

COLUMNS = (
    *("time", "commit", "dirty", "source", *record.MACHINE, "busy_percent"),
    *(
        "profile",
        "data",
        "preset",
        "width",
        "image_size",
        "batch",
        "precision",
        "budget",
        "implementation",
        "seed",
        "error",
    ),
    *("reached", "epochs", "seconds", "images_per_s", "note"),
)
FILE = record.ARCHIVE / "reach.csv"

Curve = list[
    tuple[float, float, float]
]  # after each epoch: epochs, seconds of steps so far, error on the validation images


def ours(config: Config, splits: dict[str, Pack], device: str, folder: Path) -> Curve:
    """What a run's log says of a training from begin to end, which goes on where it was stopped."""
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
    net = (
        net.to(device)
        .to(memory_format=torch.channels_last if device == "cuda" else torch.contiguous_format)
        .train()
    )
    optimizer, schedule = (
        sgd(net, recipe.rate, recipe.momentum, recipe.weight_decay),
        Schedule.of(config.epochs),
    )
    augment, loader = (
        Augment(recipe, pack.mean, config.image_size, pack.color, config.seed),
        Loader(pack, config.batch_size, config.seed, device),
    )
    half, curve, seconds = config.precision == "bf16", Curve(), 0.0
    for epoch in tqdm(range(int(config.epochs)), desc=PEER, unit="epoch", disable=None):
        for group, bias in zip(optimizer.param_groups, (False, True), strict=True):
            group["lr"] = schedule.rate(recipe, epoch, "conv2", bias)
        began, losses = time.perf_counter(), []
        for images, labels, ids, positions in loader.epoch(epoch):
            x = augment.train(images, ids, positions, epoch, schedule.color(recipe, epoch))
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
        schedule.observe(recipe, error, started=mean < 0.9 * math.log(config.num_classes))
        if schedule.finished or not math.isfinite(mean):
            break
    return curve


def reached(curve: Curve, error: float) -> tuple[float, float, float] | None:
    """The first point of a curve at which its error is at most `error`."""
    return next((point for point in curve if point[2] <= error), None)


def measure(profile: Profile, config: Config, args: argparse.Namespace, origin: Row) -> list[Row]:
    """Trains each contestant from each seed and appends its rows, unless the file holds them. Returns all rows of this run: of this
    code, machine, net and budget; they share one time."""
    splits = profile.splits()
    name = "ours" if config.mode == "plain" else f"ours, {config.mode}"
    facts: Row = {
        "profile": profile.name,
        "data": profile.title(),
        "preset": config.preset,
        "width": config.width,
        "budget": config.epochs,
    }
    facts |= {
        "image_size": config.image_size,
        "batch": config.batch_size,
        "precision": config.precision,
    }
    run = {each: origin[each] for each in ("source", *record.MACHINE)} | facts
    what = sorted(run.items())
    if args.fresh:
        shutil.rmtree(args.folder, ignore_errors=True)
    held = [] if args.fresh else record.held(args.out, run, COLUMNS)
    run["time"] = held[-1]["time"] if held else record.now()
    for seed in range(args.seeds):
        for each in sorted((name, PEER), reverse=seed % 2 == 1):  # who begins
            own: Row = run | {"implementation": each, "seed": seed}
            wanted = [
                error
                for error in args.error
                if not record.held(args.out, own | {"error": error}, COLUMNS)
            ]
            if not wanted:
                continue
            here = replace(config, seed=seed)
            folder = args.folder / sha256(repr((here.identity, what)).encode()).hexdigest()[:16]
            contestant = theirs if each == PEER else partial(ours, folder=folder)
            with arithmetic(config.precision, torch.device(args.device)):
                curve = contestant(here, splits, args.device)
            base = dict.fromkeys(COLUMNS) | origin | own
            record.append(
                args.out,
                [base | row for row in points(curve, wanted, len(splits["train"]))],
                COLUMNS,
            )
            shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(args.folder, ignore_errors=True)  # also what other code began and did not end
    return record.held(args.out, run, COLUMNS)


def points(curve: Curve, errors: Sequence[float], images: int) -> Iterator[Row]:
    """What a row says of each stated error."""
    epochs, seconds, _ = curve[-1]
    for error in errors:
        row: Row = {"error": error, "images_per_s": epochs * images / seconds}
        if (point := reached(curve, error)) is None:
            row["note"] = (
                f"not within {epochs:g} epochs; {min(one[2] for one in curve):.3f} at best"
            )
        else:
            row["epochs"], row["seconds"], row["reached"] = point
        yield row


def latest(cuda: bool, path: Path = FILE) -> list[Row]:
    """The rows of each profile's last run on a device of that kind; none where nothing was measured."""
    rows = [row for row in record.read(path, COLUMNS) if bool(row["cuda"]) is cuda]
    last = {row["profile"]: row["time"] for row in rows}
    return [row for row in rows if row["time"] == last[row["profile"]]]


def table(rows: Sequence[Row]) -> str:
    """A table for each profile."""
    profiles = dict.fromkeys(row["profile"] for row in rows)
    return "\n\n".join(
        _one_table([row for row in rows if row["profile"] == profile]) for profile in profiles
    )


def _one_table(rows: Sequence[Row]) -> str:
    lines = [
        ["implementation ", "seed", "error", "epochs", "seconds", "times", "images/s", "note "]
    ]
    theirs = {
        (row["seed"], row["error"]): row["seconds"] for row in rows if row["implementation"] == PEER
    }
    for row in rows:
        peer = theirs.get((row["seed"], row["error"])) if row["implementation"] != PEER else None
        ratio = float(peer) / float(row["seconds"]) if peer and row["seconds"] else None
        shown = [row["error"], row["epochs"], row["seconds"], ratio]
        numbers = ["" if value in (None, "") else f"{float(value):,.3g}" for value in shown]
        rate, seed = f"{float(row['images_per_s']):,.0f}", f"{float(row['seed']):.0f}"
        lines.append([str(row["implementation"]), seed, *numbers, rate, str(row["note"] or "")])
    first = rows[0]
    what = f"{first['data']}: {first['preset']}, width {float(first['width']):g}, batch {float(first['batch']):.0f}, {first['precision']}"
    return "\n".join([record.where(first), what, "", record.table(lines)])


def main(argv: Sequence[str] | None = None) -> int:
    form = Parser(
        "python -m benchmarks.reach",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = form.add_argument
    add(
        "--profile",
        default="embedded",
        metavar="P",
        help="whose images, net, rate and epochs (default: %(default)s)",
    )
    add(
        "--error",
        type=share,
        nargs="+",
        default=[0.7, 0.6],
        metavar="E",
        help="stated, of the validation images, 0 to 1 (default: 0.7 0.6)",
    )
    add("--epochs", type=script.positive, metavar="N", help="the budget (default: the profile's)")
    add(
        "--mode",
        choices=tuple(MODES),
        default="plain",
        help="of our trainer (default: %(default)s)",
    )
    add(
        "--seeds",
        type=script.positive,
        default=1,
        metavar="N",
        help="from 0 on (default: %(default)s)",
    )
    add(
        "--device",
        choices=("cpu", "cuda"),
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="default: cuda where there is one",
    )
    add(
        "--threads",
        type=script.positive,
        metavar="N",
        help="of the CPU (default: torch's own choice)",
    )
    add("--fresh", action="store_true", help="begin anew, whatever the file holds")
    add(
        "--commit", metavar="ID", help="what to write as commit where the folder is no git checkout"
    )
    add(
        "--out",
        type=Path,
        default=FILE,
        metavar="CSV",
        help=f"append the rows here; default: {FILE.relative_to(record.HERE.parent)}",
    )
    args = form.parse_args(argv)

    def work() -> int:
        record.check(args.out, COLUMNS)
        profile = load(args.profile)
        if "val" not in profile.splits():
            raise InputError(
                f"profile {args.profile!r} has no validation images, whose error is to be reached"
            )
        if args.device == "cuda" and not torch.cuda.is_available():
            raise InputError("there is no CUDA device here; use --device cpu")
        if args.threads:
            torch.set_num_threads(args.threads)
        config = jobs.base(profile)
        config = replace(config, mode=args.mode, epochs=args.epochs or config.epochs)
        if config.epochs != int(config.epochs):
            raise InputError(
                f"profile {args.profile!r} has {config.epochs:g} epochs, and whole ones are compared; give --epochs N"
            )
        args.folder = profile.runs / "benchmarks" / "reach"
        rows = measure(profile, config, args, record.machine(args.device, args.commit, SOURCES))
        print(f"{table(rows)}\n\nrows: {args.out}")
        return 0

    return script.guarded(work)


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share of images; give a number from 0 to 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
