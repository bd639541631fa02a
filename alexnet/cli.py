"""The command line: `alexnet prepare | train | evaluate | export | reproduce | claims`.

Exit status: 0 done; 1 something failed on our side; 2 bad input, one line says what; 128 + n
stopped by signal n (130 for Ctrl-C), with nothing lost. `alexnet.commands` holds what they do.
"""

import argparse
import errno
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError

from alexnet import __version__, commands, profiles
from alexnet import reproduce as reproduction
from alexnet.errors import InputError, SharedError
from alexnet.presets import VARIANTS
from alexnet.signals import terminable

BAD_PATH = (
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)


class Parser(argparse.ArgumentParser):
    """One that complains in one line, as the rest of the program does, and shows defaults."""

    def option(self, *names: str, help: str, **settings: Any) -> None:
        """Add an argument; where it has a default, its help says so."""
        if settings.get("default") is not None:
            help += " (default: %(default)s)"
        self.add_argument(*names, help=help, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> Parser:
    about = (
        "AlexNet, reproduced: prepare images, train and evaluate the network, "
        "regenerate the paper's figures and tables."
    )
    top = Parser("alexnet", description=about)
    top.add_argument("--version", action="version", version=f"alexnet {__version__}")
    added = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for function, add_options, text in COMMANDS:
        about = text[0].upper() + text[1:] + "."
        command = added.add_parser(function.__name__, help=text, description=about)
        command.set_defaults(function=function)
        add_options(command)
    return top


def _prepare(p: Parser) -> None:
    p.epilog = (
        "A command that was stopped, by whatever, goes on where it was when it is given again. "
        "SOURCE may also be the folder that holds the archives of ILSVRC-2012 or ILSVRC-2010, "
        "which are read where they lie; a .tar of one .tar per class; or torchvision:NAME:FOLDER, "
        "a data set of torchvision's."
    )
    sources = (
        "a folder of class folders, or of train/, val/, test/; Tiny ImageNet; CIFAR-10 as "
        "torchvision has it; or the word pictographs"
    )
    p.option("source", help=sources)
    new = "the pack's folder, which must not be there yet"
    p.option("out", type=Path, nargs="?", help=new)
    size = "side of the prepared images in pixels, or native: as they are"
    p.option("--size", default="256", help=size)
    skip = "leave unreadable images out and list them in rejected.csv, rather than stop"
    p.option("--skip-bad", action="store_true", help=skip)
    p.option("--workers", type=_count, help="processes (default: one a core)")
    encoding = "raw: pixels; jpeg: JPEG files, a tenth of the room, slower to read"
    p.option("--encoding", choices=("raw", "jpeg"), default="raw", help=encoding)
    classes = "only the first so many classes, or these: a,b,c, or @FILE with one a line"
    p.option("--classes", type=_classes, help=classes)
    limit = "at most N images of each class in each split"
    p.option("--limit", type=_count, metavar="N", help=limit)
    verify = (
        "read everything again and compare checksums; with one argument, of a pack that is there: "
        "alexnet prepare --verify PACK"
    )
    p.option("--verify", action="store_true", help=verify)


def _train(p: Parser) -> None:
    variants = (
        f"Variants of a preset: {', '.join(VARIANTS)}. "
        "What each changes is said in alexnet/presets/variants.py."
    )
    p.epilog = textwrap.fill(variants, 78, break_on_hyphens=False)
    p.formatter_class = argparse.RawDescriptionHelpFormatter
    data = "a folder of packs, train/ and val/, or one pack"
    p.option("--data", type=Path, required=True, metavar="PACK", help=data)
    run = "folder of the run: log, checkpoints, weights"
    p.option("--out", type=Path, required=True, metavar="RUN", help=run)
    preset = "paper, source or four-layer, with variants, as in paper/no-lrn/tanh"
    p.option("--preset", default="paper", help=preset)
    width = "scales every layer's maps and units"
    p.option("--width", type=_positive, default=1.0, help=width)
    size = "side of the crops that the net sees (default: 7/8 of the pack's, 224 of 256)"
    p.option("--image-size", type=_count, help=size)
    budget = p.add_mutually_exclusive_group()
    epochs = "passes over the training set, at most (default: %(default)s)"
    budget.add_argument("--epochs", type=_positive, default=90.0, help=epochs)
    budget.add_argument("--steps", type=_count, help="steps, instead of epochs")
    p.option("--batch-size", type=_count, help="images a step (default: the preset's, 128)")
    rate = "first learning rate (default: the preset's, 0.01)"
    p.option("--lr", type=_positive, help=rate)
    seed = "of initial weights, order, crops and dropout masks"
    p.option("--seed", type=_seed, default=0, help=seed)
    columns = "2: Figure 2's network; 1: the one-column net of the paper's comparison"
    p.option("--columns", type=int, choices=(1, 2), default=2, help=columns)
    precision = "fp32; tf32 (CUDA only); bf16, with weights updated in fp32; fp64, to compare with"
    precisions = ("fp32", "tf32", "bf16", "fp64")
    p.option("--precision", choices=precisions, default="fp32", help=precision)
    init = (
        "begin with the weights of this finished run, all layers but the last: the same preset "
        "and width, but other classes if need be"
    )
    p.option("--init", type=Path, metavar="RUN0", help=init)
    mode = (
        "plain; graph: each step as one CUDA graph; compiled: by torch.compile; both in one process"
    )
    p.option("--mode", choices=("plain", "graph", "compiled"), default="plain", help=mode)
    _device(p)
    resume = "go on with the run in RUN, if there is one"
    p.option("--resume", action="store_true", help=resume)
    p.option("--keep", type=_count, default=2, metavar="K", help="checkpoints that stay")
    every = "seconds from one checkpoint to the next, beside the one after each epoch"
    p.option("--checkpoint-every", type=_positive, default=300.0, metavar="S", help=every)
    ranks = (
        "under torchrun: ranks that share the columns of one net, all others copy it "
        "(default: one a column if that comes out even)"
    )
    p.option("--column-ranks", type=_count, metavar="N", help=ranks)
    timeout = (
        "under torchrun: stop when no rank makes progress for S seconds, "
        "and name the one that hangs"
    )
    p.option("--timeout", type=_positive, default=600.0, metavar="S", help=timeout)


def _evaluate(p: Parser) -> None:
    run = "folder of a finished run; of several, probabilities are averaged"
    p.option("run", type=Path, nargs="+", help=run)
    data = "a pack, or a folder of packs"
    p.option("--data", type=Path, required=True, metavar="PACK", help=data)
    split = "which of them (default: test, or val where there is none, or train)"
    p.option("--split", choices=("train", "val", "test"), help=split)
    views = "1: the center; 10: corners, center and their reflections, outputs averaged"
    p.option("--views", type=int, choices=(1, 10), default=1, help=views)
    submission = (
        "also write what ILSVRC's evaluation server takes: a line an image, five classes by their "
        "numbers, the most probable first"
    )
    p.option("--submission", type=Path, metavar="FILE", help=submission)
    _device(p)


def _device(p: Parser) -> None:
    p.option("--device", default="auto", help="cpu, cuda, or auto: cuda where there is one")


def _export(p: Parser) -> None:
    p.option("run", type=Path, help="folder of a finished run")
    file = ".safetensors: the weights in the layout of one device; .onnx: the whole network"
    p.option("file", type=Path, help=file)


def _claims(p: Parser) -> None:
    profile = (
        f"judge by the results on one profile: {', '.join(profiles.names())} "
        "(default: each claim on the largest that has run it)"
    )
    p.option("--profile", metavar="P", help=profile)
    own = "judge by your own results, in runs/, instead of the archive"
    p.option("--runs", action="store_true", help=own)
    p.option("--section", metavar="S", help="claims of one section of the paper, as 3 or 3.2")
    verdict = (
        "claims with one verdict: reproduced, same-direction, not-reproduced, not-yet-run, slip"
    )
    p.option("--verdict", metavar="V", help=verdict)
    everything = "everything that is known of each claim, for programs"
    p.option("--json", action="store_true", help=everything)


COMMANDS: list[tuple[Callable[..., int | None], Callable[[Parser], None], str]] = [
    (
        commands.prepare,
        _prepare,
        "make a pack (equal-sized images, their mean and colors) from images",
    ),
    (commands.train, _train, "train a network on a pack"),
    (
        commands.evaluate,
        _evaluate,
        "measure a trained network's errors, or those of several whose outputs are averaged",
    ),
    (
        commands.export,
        _export,
        "write a trained network for other programs, and check the file by running it",
    ),
    (
        commands.reproduce,
        reproduction.add_arguments,
        "regenerate the figures and tables: run the experiments and the book's notebooks "
        "on a profile",
    ),
    (
        commands.claims,
        _claims,
        "list the paper's claims, each with its verdict on the archived results",
    ),
]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    args = parser().parse_args(arguments)
    rank = os.environ.get("RANK", "0")
    name = "alexnet" if rank == "0" else f"alexnet, rank {rank}"

    def fail(message: object, status: int) -> int:
        print(f"{name}: {message}", file=sys.stderr)
        return status

    try:
        with terminable():
            return args.function(args) or 0
    except InputError as error:
        if isinstance(error, SharedError) and rank != "0":
            return 2
        line = " ".join(str(error).splitlines())
        return fail(
            re.sub(r"[\x00-\x1f\x7f-\x9f]", "?", line), 2
        )  # a file's name may hold anything
    except KeyboardInterrupt as stop:
        status = 128 + getattr(stop, "signal", signal.SIGINT)
        return fail(str(stop) or "stopped", status) if rank == "0" else status  # ranks stop alike
    except BAD_PATH as error:
        return fail(f"{error.filename}: {error.strerror}; choose another path", 2)
    except (RuntimeError, OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            return fail(f"{error.strerror}: {str(error.filename)[:80]}...; choose another name", 2)
        return fail(error, 1)


def _seed(text: str) -> int:
    return _integer(text, 0, 2**62)


def _count(text: str) -> int:
    return _integer(text, 1, 2**31 - 1)


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


def _classes(text: str) -> int | list[str]:
    if text.isdecimal():
        return _count(text)
    if not text.startswith("@"):
        return [name for name in text.split(",") if name]
    try:
        lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", error)
        raise argparse.ArgumentTypeError(f"cannot read {text[1:]}: {reason}") from None
    return [line for line in lines if line.strip()]
