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
import sys
import tempfile
import time
from collections.abc import Sequence
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
from alexnet.profiles import load
from alexnet.training import Config, log, train
from alexnet.training.config import MODES
from alexnet.training.precision import using_precision
from alexnet.training.ranks import Ranks
from alexnet.training.schedule import Schedule
from benchmarks import ARCHIVE
from benchmarks.contestants import PEER
from benchmarks.plain import Plain, sgd
from benchmarks.step import SOURCES
from kernel_benchmarks import record, report, runner
from kernel_benchmarks.record import Row

RUN = ("profile", "data", "preset", "width", "image_size", "batch", "precision", "budget")
ONE = ("implementation", "seed", "error")  # the columns that tell rows of a run apart
COLUMNS = (*(*record.ORIGIN, *RUN, *ONE, "reached", "epochs", "seconds", "images_per_s", "note"),)
FILE = ARCHIVE / "reach.csv"
SHARE = runner.checked(float, lambda x: 0 <= x <= 1, "no share of images, from 0 to 1")

# after each epoch: epochs, seconds of steps so far, error on the validation images
Curve = list[tuple[float, float, float]]


def ours(config: Config, splits: dict[str, Pack], device: str) -> Curve:
    """What a run's log says."""
    curve, seconds = Curve(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        train(config, splits, Path(folder) / "run", ranks=Ranks(device))
        for row in log.read(Path(folder) / "run"):
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


def trained(
    name: str, config: Config, splits: dict[str, Pack], args: argparse.Namespace
) -> list[Row]:
    """Train one contestant from one seed: for each stated error a row of the first point of its
    curve at which the error is at most that."""
    with using_precision(config.precision, torch.device(args.device)):
        curve = (theirs if name == PEER else ours)(config, splits, args.device)
    epochs, seconds, _ = curve[-1]
    rate, best = epochs * len(splits["train"]) / seconds, min(error for _, _, error in curve)
    rows: list[Row] = []
    for error in args.error:
        row: Row = {"error": error, "images_per_s": rate}
        if best <= error:
            row["epochs"], row["seconds"], row["reached"] = next(p for p in curve if p[2] <= error)
        else:
            row["note"] = f"not within {epochs:g} epochs; {best:.3f} at best"
        rows.append(row)
    return rows


def latest(cuda: bool, path: Path = FILE) -> list[Row]:
    """The rows of each profile's last run (of one code, machine, net and budget) on a device of
    that kind; none where nothing was measured."""
    rows = [row for row in record.read(path, COLUMNS) if bool(row["cuda"]) is cuda]
    last = {row["profile"]: row for row in rows}
    alike = ("source", *record.MACHINE, *RUN)
    own = [r for r in rows if all(r[name] == last[r["profile"]][name] for name in alike)]
    return report.latest(own, ("profile", *ONE))


def table(rows: Sequence[Row]) -> str:
    """A table for each profile."""
    pages = []
    for profile in dict.fromkeys(row["profile"] for row in rows):
        own = [row for row in rows if row["profile"] == profile]
        peers = {(r["seed"], r["error"]): r["seconds"] for r in own if r["implementation"] == PEER}
        for i, row in enumerate(own):
            peer = peers.get((row["seed"], row["error"])) if row["implementation"] != PEER else None
            own[i] = row | {"ratio": peer / row["seconds"] if peer and row["seconds"] else None}
        first, names = own[0], (*ONE, "epochs", "seconds", "ratio", "images_per_s", "note")
        net = f"width {first['width']:g}, batch {first['batch']:.0f}, {first['precision']}"
        what = f"{first['data']}: {first['preset']}, {net}"
        pages.append("\n".join([report.where(first), what, "", report.listing(own, names)]))
    return "\n\n".join(pages)


def work(args: argparse.Namespace) -> int:
    record.append(args.out, [], COLUMNS)  # before images are prepared
    profile = load(args.profile)
    splits, config = profile.splits(), jobs.base(profile)
    if "val" not in splits:
        raise InputError(f"profile {args.profile!r} has no validation images")
    config = replace(config, mode=args.mode, epochs=args.epochs or config.epochs)
    if config.epochs != int(config.epochs):
        budget = f"{config.epochs:g} epochs, and whole ones are compared; give --epochs N"
        raise InputError(f"profile {args.profile!r} has {budget}")
    net = (profile.name, profile.title(), config.preset, config.width, config.image_size)
    values = (*net, config.batch_size, config.precision, config.epochs)
    run, name = dict(zip(RUN, values, strict=True)), "ours"
    name += "" if config.mode == "plain" else f", {config.mode}"
    tasks, needed = [], [{"error": error} for error in args.error]
    for seed in range(args.seeds):
        for each in sorted((name, PEER), reverse=seed % 2 == 1):  # who begins
            what = run | {"implementation": each, "seed": seed}
            measure = partial(trained, each, replace(config, seed=seed), splits, args)
            tasks.append(runner.Task(f"{each}, seed {seed}", what, measure, args.out, needed))
    origin = record.machine(args.device, args.commit, SOURCES)
    rows, failed = runner.run(tasks, COLUMNS, origin, args)
    print(f"{table(report.latest(rows, ONE))}\n\nrows: {args.out}")
    return int(bool(failed))


def main(argv: Sequence[str] | None = None) -> int:
    form = runner.parser("benchmarks.reach", __doc__, FILE)
    add, shown = form.add_argument, "(default: %(default)s)"
    profiles = f"whose images, net, rate and epochs {shown}"
    add("--profile", default="embedded", metavar="P", help=profiles)
    errors = "stated, of the validation images, 0 to 1 (default: 0.7 0.6)"
    add("--error", type=SHARE, nargs="+", default=[0.7, 0.6], metavar="E", help=errors)
    add("--epochs", type=runner.positive, metavar="N", help="the budget (default: the profile's)")
    add("--mode", choices=MODES, default="plain", help=f"of our trainer {shown}")
    add("--seeds", type=runner.positive, default=1, metavar="N", help=f"from 0 on {shown}")
    return runner.main(form, argv, work, InputError)


if __name__ == "__main__":
    sys.exit(main())
