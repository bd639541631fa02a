"""What the commands do, each with its help as docstring, and imports where they are needed."""

import argparse
import re
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet.errors import InputError, say

if TYPE_CHECKING:
    from alexnet.data.pack import Pack
    from alexnet.presets import Preset


def prepare(args: argparse.Namespace) -> None:
    """Make a pack (equal-sized images, their mean and colors) from images."""
    from alexnet.data.hold_out import shares
    from alexnet.data.pack import open_splits
    from alexnet.data.prepare import prepare

    out = args.out or Path(args.source)
    if args.out:
        names = ("skip_bad", "workers", "encoding", "classes", "limit", "seed", "max_megapixels")
        options = {name: getattr(args, name) for name in names}
        options["hold_out"] = shares(args.split) if args.split else None
        out = prepare(args.source, out, size=_size(args.size), **options)
    elif not args.verify:
        raise InputError("name the pack's folder as well: alexnet prepare SOURCE OUT")
    if not args.verify:
        print(out)
        return
    for split, pack in open_splits(out).items():
        pack.verify(progress=True)
        digest = f"{split} has digest {pack.digest[:16]}"
        print(f"{pack.path}: {len(pack)} images, as its manifest says; {digest}")


def _size(text: str) -> int | str:
    try:
        return text if text == "native" else int(text)
    except ValueError:
        raise InputError(f"--size {text}: give a whole number of pixels, or native") from None


def train(args: argparse.Namespace) -> int:
    """Train a network on a pack."""
    from alexnet import presets, training
    from alexnet.data.loader import steps_per_epoch
    from alexnet.data.pack import open_splits
    from alexnet.diagnosis.command import chance_line
    from alexnet.training.ranks import join

    splits = open_splits(args.data)
    pack = _split(args.data, splits, "train")
    preset, width, size = _net(args, pack)
    batch_size, device = args.batch_size or preset.recipe.batch_size, _device(args.device)
    per_epoch = steps_per_epoch(pack, batch_size)
    if args.precision == "auto":
        net = preset.name, len(pack.classes), width, size
        args.precision = _precision(args.out, *net, batch_size, device)
    config = training.Config(
        preset=preset.name,
        num_classes=len(pack.classes),
        width=width,
        image_size=size,
        epochs=args.steps / per_epoch if args.steps else args.epochs,
        data={name: splits[name].digest for name in ("train", "val") if name in splits},
        batch_size=batch_size,
        rate=args.lr,
        start=training.starting_point(args.init) if args.init else None,
        frozen=args.freeze,
        **{name: getattr(args, name) for name in ("seed", "precision", "mode")},
    )
    group = join(preset.columns, device, args.column_ranks, args.timeout)
    often = {"keep": args.keep, "every": args.checkpoint_every}
    try:
        summary = training.train(
            config, splits, args.out, start=args.init, resume=args.resume, ranks=group, **often
        )
    except presets.TooSmall:
        problem = _too_small(pack, preset, config.image_size)
        raise InputError(problem) from None
    group.leave()
    diverged = summary["ended"] == "diverged"
    if group.is_first and diverged:
        raise RuntimeError(_divergence(args.out, summary["diverged_at"], per_epoch))
    if group.is_first:
        steps = f"{summary['steps']} steps, {summary['epochs']:.1f} epochs"
        weights = f"weights in {args.out / 'weights.safetensors'}"
        print(f"{args.out}: {steps}, {summary['seconds']:.0f} s; {weights}")
        if line := chance_line(args.out, args.data, config, pack):
            print(line)
    return int(diverged)


def _precision(run: Path, *net: Any) -> str:
    """What `--precision auto` is for a net: in a folder that holds a run, what that run has."""
    from alexnet.training import auto_precision
    from alexnet.training.folder import CONFIG, read_config

    if (run / CONFIG).exists():
        return read_config(run).precision
    choice = auto_precision.choose(*net)
    say(f"precision auto: {choice.precision}: {choice.why}")
    return choice.precision


def _split(data: Path, splits: "dict[str, Pack]", name: str) -> "Pack":
    if name not in splits:
        raise InputError(f"{data} has no {name} split; it has {', '.join(splits)}")
    return splits[name]


def _net(args: argparse.Namespace, pack: "Pack") -> "tuple[Preset, float, int]":
    """The preset, the width and the side of the crops: as the options say, else those of the run
    that training begins with, else the usual ones."""
    from alexnet import presets
    from alexnet.errors import require
    from alexnet.training import check_usable
    from alexnet.training.folder import read_config

    if args.init:
        check_usable(args.init)
    start = read_config(args.init) if args.init else None
    name = args.preset or (start.preset if start else "paper")
    preset = presets.get(name)
    if args.columns == 1 and preset.columns > 1:
        preset = presets.get(f"{name}/one-column")
    if start is None:
        return preset, args.width or 1.0, args.image_size or _usual_crop(pack.size, preset)
    own, is_of = presets.get(start.preset), f"the run in {args.init} is of"
    require(
        (preset.columns, preset.layers) == (own.columns, own.layers),
        f"{is_of} preset {own.name!r}, not {preset.name!r}: leave out --preset and --columns",
    )
    require(
        args.width in (None, start.width),
        f"{is_of} width {start.width:g}, not {args.width}: leave out --width",
    )
    size = args.image_size or start.image_size
    require(
        size <= pack.size,
        f"{pack.path} has images of {pack.size} pixels, and {is_of} crops of {size}: prepare them "
        f"with --size {size} or more",
    )
    return preset, start.width, size


def _usual_crop(size: int, preset: "Preset") -> int:
    """The side of crops from images of a size: 7/8 of it, 224 of 256, in eights; or the least that
    the preset takes, where that is more."""
    from alexnet.presets import least_image_size

    usual = size if preset.recipe.crops == "center" else round(size * 7 / 64) * 8
    return min(size, max(usual, least_image_size(preset)))


def _too_small(pack: "Pack", preset: "Preset", crop: int) -> str:
    """What is said of crops that are too small for a preset."""
    from alexnet.presets import least_image_size

    least = least_image_size(preset)
    takes = f"preset {preset.name!r}, which takes crops of {least} or more"
    if least <= pack.size:
        what = f"{pack.path} has images of {pack.size} x {pack.size}; --image-size {crop} is"
        return f"{what} too small for {takes}: give --image-size {least}, or up to {pack.size}"
    what = f"{pack.path}: images of {pack.size} x {pack.size} are too small for {takes}"
    return f"{what}: prepare them with --size {least} or more, or take --preset four-layer"


def _divergence(run: Path, step: int, per_epoch: int) -> str:
    """What is said of a run that diverged."""
    from alexnet.training import checkpoint

    epoch, batch = divmod(step - 1, per_epoch)
    where = f"step {step} (batch {batch + 1} of {per_epoch} in epoch {epoch + 1})"
    good = checkpoint.steps(run / "checkpoints")
    kept = f"{good[-1]}, the last good checkpoint, is kept" if good else "there is no checkpoint"
    return (
        f"at {where} the loss, or a weight before it, was no longer finite; {kept}; "
        "try a lower --lr in another folder"
    )


def evaluate(args: argparse.Namespace) -> None:
    """Measure a trained network's errors, or those of several whose outputs are averaged."""
    import torch

    from alexnet import evaluation
    from alexnet.data.pack import open_splits
    from alexnet.export import check_place
    from alexnet.files import write_whole
    from alexnet.training import check_usable, load_run
    from alexnet.training.folder import check_like_trained

    splits = open_splits(args.data)
    order = [name for name in ("test", "val", "train") if name in splits]
    fit = [name for name in order if args.submission or splits[name].labeled]
    split = args.split or (fit or order)[0]
    pack, device = _split(args.data, splits, split), _device(args.device)
    if args.submission:
        evaluation.check_submission(pack)
    elif not pack.labeled:
        raise InputError(
            f"the images in {pack.path} have no labels; "
            "--submission FILE writes what an evaluation server takes"
        )
    for run in args.run:
        check_usable(run)
    nets = [load_run(run) for run in args.run]
    for run, (_, augment, config) in zip(args.run, nets):
        check_like_trained(pack, run, config, augment)
    if args.submission:
        check_place(args.submission)
    outputs = (
        evaluation.predict(net.to(device), pack, augment, args.views, progress=True)[0]
        for net, augment, _ in nets
    )
    probabilities = reduce(torch.add, outputs) / len(nets)
    if args.submission:
        lines = evaluation.submission(probabilities, pack)
        write_whole(args.submission, "".join(f"{line}\n" for line in lines))
    # a single pack counts as train, whatever it is
    trained = any(config.data.get("train") == pack.digest for _, _, config in nets)
    what = f"{split if len(splits) > 1 else pack.path}"
    what += " (the images of training)" * trained + f", {len(pack)} images, "
    what += "one view" if args.views == 1 else f"{args.views} views"
    what += f", {len(nets)} nets averaged" * (len(nets) > 1)
    if pack.labeled:
        errors = evaluation.errors(probabilities, torch.from_numpy(pack.labels).long())
        top5 = f", top-5 error {errors.top5:.2%}" * (len(pack.classes) > 5)
        print(f"{what}: top-1 error {errors.top1:.2%}{top5}, {errors.nll:.4f} nats")
    if args.submission:
        print(f"{args.submission}: {what}: five classes a line, by ILSVRC's numbers")


def diagnose(args: argparse.Namespace) -> None:
    """Say why a network does not train: signals, gradients and first steps, and what fails."""
    from alexnet.diagnosis import command

    args.device = _device(args.device)
    command.run(args)


def export(args: argparse.Namespace) -> None:
    """Write a trained network for other programs, and check the file by running it."""
    from alexnet.card import Card
    from alexnet.export import write
    from alexnet.training import check_usable, load_run

    check_usable(args.run)
    net, _, _ = load_run(args.run)
    about = Card.of_run(args.run).metadata()
    write(net, args.file, about | ({"license": args.license} if args.license else {}))
    print(args.file)


def predict(args: argparse.Namespace) -> int:
    """Name what photographs show: the five most probable classes of each."""
    from alexnet.predicting import predict

    return predict(args, _device(args.device))


def features(args: argparse.Namespace) -> None:
    """Write what a layer makes of a pack's images, for a classifier of your own."""
    from alexnet.predicting import features

    features(args, _device(args.device))


def import_(args: argparse.Namespace) -> None:
    """Make a run's folder of weights that others have published."""
    from alexnet.imports import import_weights

    names = ("preset", "mean", "classes", "image_size", "bgr")
    summary = import_weights(args.file, args.run, **{name: getattr(args, name) for name in names})
    config, origin = summary["config"], summary["imported"]
    what = f"{origin['known_as'] or origin['file']} (others' weights), preset {config['preset']}"
    size = f"{config['image_size']} of {origin['prepared_size']} pixels"
    print(
        f"{args.run}: {what}, {config['num_classes']} classes, {size}; RGB in 0..255 minus a mean"
    )


def reproduce(args: argparse.Namespace) -> int:
    """Regenerate figures and tables: run the experiments and the book's notebooks on a profile."""
    from alexnet.reproduce import run

    return run(args)


def claims(args: argparse.Namespace) -> None:
    """List the paper's claims, each with its verdict on the archived results."""
    from alexnet import results
    from alexnet.claims import judge_all, reports

    if args.schema:
        print(reports.schema(), end="")
        return
    if not args.runs and not results.ARCHIVE.is_dir():
        lacks = f"there is no archive of results in {results.ARCHIVE}, so only arithmetic is judged"
        say(f"alexnet: {lacks}; run from a clone of the repository, or judge your own with --runs")
    shown = reports.select(judge_all(args.profile, own=args.runs), args.section, args.verdict)
    print(reports.as_json(shown) if args.json else reports.table(shown))


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
            raise RuntimeError  # torch has more kinds, which the net cannot be trained on
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError):
        raise InputError(f"there is no device {name!r} here; use --device cpu") from None
    return name
