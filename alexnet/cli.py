"""The command line: `alexnet prepare | train | evaluate | export | reproduce | claims`.

Exit status: 0 done; 1 something failed on our side; 2 bad input, one line says what; 128 + n stopped by signal n (130 for Ctrl-C), with
nothing lost.
"""

import argparse
import errno
import os
import re
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import reduce
from pathlib import Path
from types import FrameType
from typing import NoReturn

from safetensors import SafetensorError

from alexnet import profiles
from alexnet import reproduce as reproduction
from alexnet.errors import InputError, SharedError
from alexnet.presets import VARIANTS


def prepare(args: argparse.Namespace) -> None:
    from alexnet.data.pack import open_splits
    from alexnet.data.prepare import prepare

    if args.out is None:
        if not args.verify:
            raise InputError("name the pack's folder as well: alexnet prepare SOURCE OUT")
        out = Path(args.source)
    else:
        size = args.size if args.size == "native" else _whole(args.size, "--size")
        out = prepare(
            args.source, args.out, size=size, skip_bad=args.skip_bad, workers=args.workers, encoding=args.encoding, classes=args.classes,
            limit=args.limit,
        )  # fmt: skip
    if args.verify:
        for split, pack in open_splits(out).items():
            pack.verify(progress=True)
            print(
                f"{pack.path}: {len(pack)} images, as its manifest says; {split} has digest {pack.digest[:16]}"
            )
    else:
        print(out)


def train(args: argparse.Namespace) -> int:
    from alexnet import presets, training
    from alexnet.data.loader import steps_per_epoch
    from alexnet.data.pack import open_splits
    from alexnet.training import checkpoint
    from alexnet.training.ranks import join

    splits = open_splits(args.data)
    if "train" not in splits:
        raise InputError(f"{args.data} has no train split; it has {', '.join(splits)}")
    pack = splits["train"]
    preset = presets.get(args.preset)
    if args.columns == 1 and preset.columns > 1:
        preset = presets.get(f"{args.preset}/one-column")
    whole = preset.recipe.crops == "center"
    default_size = pack.size if whole else round(pack.size * 7 / 64) * 8  # 224 of 256
    batch_size = args.batch_size or preset.recipe.batch_size
    per_epoch = steps_per_epoch(pack, batch_size)
    config = training.Config(
        preset=preset.name,
        num_classes=len(pack.classes),
        width=args.width,
        image_size=args.image_size or default_size,
        epochs=args.steps / per_epoch if args.steps else args.epochs,
        data={name: splits[name].digest for name in ("train", "val") if name in splits},
        batch_size=batch_size,
        rate=args.lr,
        seed=args.seed,
        precision=args.precision,
        mode=args.mode,
        start=training.starting_point(args.init) if args.init else None,
    )
    ranks = join(preset.columns, _device(args.device), args.column_ranks, args.timeout)
    summary = training.train(
        config,
        splits,
        args.out,
        start=args.init,
        resume=args.resume,
        ranks=ranks,
        keep=args.keep,
        every=args.checkpoint_every,
    )
    ranks.leave()
    step, seconds = summary["diverged_at"], summary["seconds"]
    if not ranks.is_first:
        return 0 if step is None else 1
    if step is not None:
        epoch, batch = divmod(step - 1, per_epoch)
        kept = "no checkpoint had been made"
        if good := checkpoint.steps(args.out / "checkpoints"):
            kept = f"{good[-1]}, the last good checkpoint, is kept"
        raise RuntimeError(
            f"at step {step} (batch {batch + 1} of {per_epoch} in epoch {epoch + 1}) the loss, or "
            f"a weight before it, was no longer finite; {kept}; try a lower --lr in another folder"
        )
    taken = f"{summary['steps']} steps, {summary['epochs']:.1f} epochs, {seconds:.0f} s"
    print(f"{args.out}: {taken}; weights in {args.out / 'weights.safetensors'}")
    return 0


def evaluate(args: argparse.Namespace) -> None:
    import torch

    from alexnet import evaluation
    from alexnet.data.pack import open_splits
    from alexnet.export import whole
    from alexnet.training import check_usable, load_run
    from alexnet.training.folder import check_like_trained

    splits = open_splits(args.data)
    usable = [
        name
        for name in ("test", "val", "train")
        if name in splits and (args.submission or splits[name].labeled)
    ]
    split = args.split or next(iter(usable or splits))
    if split not in splits:
        raise InputError(f"{args.data} has no split {split!r}; it has {', '.join(splits)}")
    pack, device = splits[split], _device(args.device)
    if args.submission:
        evaluation.check_submission(pack)
    elif not pack.labeled:
        raise InputError(
            f"the images in {pack.path} have no labels; --submission FILE writes what an "
            "evaluation server takes"
        )
    for run in args.run:
        check_usable(run)
    nets = [load_run(run) for run in args.run]
    for run, (_, augment, config) in zip(args.run, nets):
        check_like_trained(pack, run, config, augment)
    with whole(args.submission) if args.submission else nullcontext() as part:
        outputs = (
            evaluation.predict(net.to(device), pack, augment, args.views, progress=True)[0]
            for net, augment, _ in nets
        )
        probabilities = reduce(torch.add, outputs) / len(nets)
        if part is not None:
            lines = evaluation.submission(probabilities, pack)
            part.write_text("".join(f"{line}\n" for line in lines))
    views = "one view" if args.views == 1 else f"{args.views} views"
    how = f"{views}, {len(nets)} nets averaged" if len(nets) > 1 else views
    what = split if len(splits) > 1 else pack.path  # a single pack counts as train, whatever it is
    if pack.labeled:
        errors = evaluation.errors(probabilities, torch.from_numpy(pack.labels).long())
        print(
            f"{what}, {errors.count} images, {how}: top-1 error {errors.top1:.2%}, "
            f"top-5 error {errors.top5:.2%}, {errors.nll:.4f} nats"
        )
    if args.submission:
        print(
            f"{args.submission}: {what}, {len(pack)} images, {how}: "
            "five classes a line, by ILSVRC's numbers"
        )


def export(args: argparse.Namespace) -> None:
    from alexnet.export import write
    from alexnet.training import check_usable, load_run

    check_usable(args.run)
    net, _, config = load_run(args.run)
    names = ("preset", "num_classes", "width", "image_size")
    write(net, args.file, {name: str(getattr(config, name)) for name in names})
    print(args.file)


def reproduce(args: argparse.Namespace) -> int:
    return reproduction.run(args)


def claims(args: argparse.Namespace) -> None:
    from alexnet import scoreboard
    from alexnet.claims import judge_all

    shown = scoreboard.select(judge_all(args.profile, own=args.runs), args.section, args.verdict)
    print(scoreboard.as_json(shown) if args.json else scoreboard.table(shown))


class Parser(argparse.ArgumentParser):
    """One that complains in one line, as the rest of the program does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    about = "AlexNet, reproduced: prepare images, train and evaluate the network, regenerate the paper's figures and tables."
    top = Parser("alexnet", description=about)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            function.__name__, help=text, description=text[0].upper() + text[1:] + "."
        )
        made.set_defaults(function=function)
        return made

    p = command(prepare, "make a pack (equal-sized images, their mean and colors) from images")
    p.epilog = (
        "A command that was stopped, by whatever, goes on where it was when it is given again. SOURCE may also be the folder that holds "
        "the archives of ILSVRC-2012 or ILSVRC-2010, which are read where they lie; a .tar of one .tar per class; or "
        "torchvision:NAME:FOLDER, a data set of torchvision's."
    )
    sources = "a folder of class folders, or of train/, val/, test/; Tiny ImageNet; CIFAR-10 as torchvision has it; or the word pictographs"
    p.add_argument("source", help=sources)
    p.add_argument(
        "out", type=Path, nargs="?", help="the pack's folder, which must not be there yet"
    )
    p.add_argument(
        "--size",
        default="256",
        help="side of the prepared images in pixels, or native: as they are (default: %(default)s)",
    )
    p.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave unreadable images out and list them in rejected.csv, rather than stop",
    )
    p.add_argument("--workers", type=_count, help="processes (default: one a core)")
    encodings = (
        "raw: pixels; jpeg: JPEG files, a tenth of the room, slower to read (default: %(default)s)"
    )
    p.add_argument("--encoding", choices=("raw", "jpeg"), default="raw", help=encodings)
    p.add_argument(
        "--classes",
        type=_classes,
        help="only the first so many classes, or these: a,b,c, or @FILE with one a line",
    )
    p.add_argument(
        "--limit", type=_count, metavar="N", help="at most N images of each class in each split"
    )
    verify = "read everything again and compare checksums; with one argument, of a pack that is there: alexnet prepare --verify PACK"
    p.add_argument("--verify", action="store_true", help=verify)

    p = command(train, "train a network on a pack")
    variants = f"Variants of a preset: {', '.join(VARIANTS)}. What each changes is said in alexnet/presets.py."
    p.epilog, p.formatter_class = (
        textwrap.fill(variants, 78, break_on_hyphens=False),
        argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PACK",
        help="a folder of packs, train/ and val/, or one pack",
    )
    p.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="RUN",
        help="folder of the run: log, checkpoints, weights",
    )
    presets = (
        "paper, source or four-layer, with variants, as in paper/no-lrn/tanh (default: %(default)s)"
    )
    p.add_argument("--preset", default="paper", help=presets)
    p.add_argument(
        "--width",
        type=_positive,
        default=1.0,
        help="scales every layer's maps and units (default: %(default)s)",
    )
    p.add_argument(
        "--image-size",
        type=_count,
        help="side of the crops that the net sees (default: 7/8 of the pack's, 224 of 256)",
    )
    budget = p.add_mutually_exclusive_group()
    budget.add_argument(
        "--epochs",
        type=_positive,
        default=90.0,
        help="passes over the training set, at most (default: %(default)s)",
    )
    budget.add_argument("--steps", type=_count, help="steps, instead of epochs")
    p.add_argument(
        "--batch-size", type=_count, default=128, help="images a step (default: %(default)s)"
    )
    p.add_argument("--lr", type=_positive, help="first learning rate (default: the preset's, 0.01)")
    p.add_argument(
        "--seed",
        type=_seed,
        default=0,
        help="of initial weights, order, crops and dropout masks (default: %(default)s)",
    )
    columns = "2: Figure 2's network; 1: the one-column net of the paper's comparison (default: %(default)s)"
    p.add_argument("--columns", type=int, choices=(1, 2), default=2, help=columns)
    precision = "fp32; tf32 (CUDA only); bf16, with weights updated in fp32; fp64, to compare with (default: %(default)s)"
    p.add_argument(
        "--precision", choices=("fp32", "tf32", "bf16", "fp64"), default="fp32", help=precision
    )
    init = "begin with the weights of this finished run, all layers but the last: the same preset and width, but other classes if need be"
    p.add_argument("--init", type=Path, metavar="RUN0", help=init)
    mode = "plain; graph: each step as one CUDA graph; compiled: by torch.compile; both in one process (default: %(default)s)"
    p.add_argument("--mode", choices=("plain", "graph", "compiled"), default="plain", help=mode)
    p.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, or auto: cuda where there is one (default: %(default)s)",
    )
    p.add_argument(
        "--resume", action="store_true", help="go on with the run in RUN, if there is one"
    )
    p.add_argument(
        "--keep",
        type=_count,
        default=2,
        metavar="K",
        help="checkpoints that stay (default: %(default)s)",
    )
    often = "seconds from one checkpoint to the next, beside the one after each epoch (default: %(default)s)"
    p.add_argument("--checkpoint-every", type=_positive, default=300.0, metavar="S", help=often)
    spread = "under torchrun: ranks that share the columns of one net, all others copy it (default: one a column if that comes out even)"
    p.add_argument("--column-ranks", type=_count, metavar="N", help=spread)
    hang = "under torchrun: stop when no rank makes progress for S seconds, and name the one that hangs (default: %(default)s)"
    p.add_argument("--timeout", type=_positive, default=600.0, metavar="S", help=hang)

    p = command(
        evaluate,
        "measure a trained network's errors, or those of several whose outputs are averaged",
    )
    p.add_argument(
        "run",
        type=Path,
        nargs="+",
        help="folder of a finished run; of several, probabilities are averaged",
    )
    p.add_argument(
        "--data", type=Path, required=True, metavar="PACK", help="a pack, or a folder of packs"
    )
    p.add_argument(
        "--split",
        choices=("train", "val", "test"),
        help="which of them (default: test, or val where there is none, or train)",
    )
    views = "1: the center; 10: corners, center and their reflections, outputs averaged (default: %(default)s)"
    p.add_argument("--views", type=int, choices=(1, 10), default=1, help=views)
    send = "also write what ILSVRC's evaluation server takes: a line an image, five classes by their numbers, the most probable first"
    p.add_argument("--submission", type=Path, metavar="FILE", help=send)
    p.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, or auto: cuda where there is one (default: %(default)s)",
    )

    p = command(
        export, "write a trained network for other programs, and check the file by running it"
    )
    p.add_argument("run", type=Path, help="folder of a finished run")
    p.add_argument(
        "file",
        type=Path,
        help=".safetensors: the weights in the layout of one device; .onnx: the whole network",
    )

    p = command(
        reproduce,
        "regenerate the figures and tables: run the experiments and the book's notebooks on a profile",
    )
    reproduction.add_arguments(p)

    p = command(claims, "list the paper's claims, each with its verdict on the archived results")
    which = f"judge by the results on one profile: {', '.join(profiles.names())} (default: each claim on the largest that has run it)"
    p.add_argument("--profile", metavar="P", help=which)
    p.add_argument(
        "--runs",
        action="store_true",
        help="judge by your own results, in runs/, instead of the archive",
    )
    p.add_argument("--section", metavar="S", help="claims of one section of the paper, as 3 or 3.2")
    p.add_argument(
        "--verdict",
        metavar="V",
        help="claims with one verdict: reproduced, same-direction, not-reproduced, not-yet-run, slip",
    )
    p.add_argument(
        "--json", action="store_true", help="everything that is known of each claim, for programs"
    )
    return top


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    rank = os.environ.get("RANK", "0")
    name = "alexnet" if rank == "0" else f"alexnet, rank {rank}"

    def tell(what: object, status: int) -> int:
        print(f"{name}: {what}", file=sys.stderr)
        return status

    try:
        with _terminable():
            return args.function(args) or 0
    except InputError as error:
        if isinstance(error, SharedError) and rank != "0":
            return 2
        return tell(
            re.sub(r"[\x00-\x1f\x7f-\x9f]", "?", " ".join(str(error).splitlines())), 2
        )  # a file's name may hold anything
    except KeyboardInterrupt as stop:
        status = 128 + getattr(stop, "signal", signal.SIGINT)
        return (
            tell(str(stop) or "stopped", status) if rank == "0" else status
        )  # all ranks stop alike
    except (
        FileNotFoundError,
        FileExistsError,
        NotADirectoryError,
        IsADirectoryError,
        PermissionError,
    ) as error:
        return tell(f"{error.filename}: {error.strerror}; choose another path", 2)
    except (RuntimeError, OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            return tell(f"{error.strerror}: {str(error.filename)[:80]}...; choose another name", 2)
        return tell(error, 1)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM and Ctrl-C end the block by KeyboardInterrupt, so that nothing half-made stays behind.

    Not while anything is being imported: Python swallows what is raised in some places there, and keeps a lock; libraries abort. So the
    signal then comes again, by a timer.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code is not main.__code__:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                signal.signal(signal.SIGALRM, lambda _, frame: stop(number, frame))
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                return
            frame = frame.f_back
        stopped = KeyboardInterrupt()
        setattr(stopped, "signal", number)  # noqa: B010 (no such attribute, says the type checker)
        raise stopped

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (
        signal.SIGALRM,
        signal.SIGTERM,
        *([signal.SIGINT] if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN else []),
    )
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers[1:]:
        signal.signal(number, stop)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _whole(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{name} {text}: give a whole number of pixels, or native") from None


def _count(text: str) -> int:
    return _integer(text, 1, 2**31 - 1)


def _classes(text: str) -> int | list[str]:
    if text.isdecimal():
        return _count(text)
    if not text.startswith("@"):
        return [name for name in text.split(",") if name]
    try:
        return [
            line for line in Path(text[1:]).read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(
            f"cannot read {text[1:]}: {getattr(error, 'strerror', error)}"
        ) from None


def _seed(text: str) -> int:
    return _integer(text, 0, 2**62)


def _integer(text: str, least: int, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} to {most}")
    return value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1e12:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of at most 1e12")
    return value


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
