"""The command line: `alexnet prepare | train | evaluate | export | reproduce | claims`.

Exit status: 0 done; 1 something failed on our side; 2 bad input, one line says what; 128 + n
stopped by signal n (130 for Ctrl-C), with nothing lost. `alexnet.commands` holds what they do.
"""

import argparse
import errno
import math
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError

from alexnet import __version__, commands, profiles, reproduce
from alexnet.errors import InputError, SharedError, say
from alexnet.files import lines
from alexnet.presets import VARIANTS
from alexnet.signals import terminable

# A path that is at fault, rather than this program or the machine.
BAD_PATH = {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM}
BAD_PATH.add(errno.ENAMETOOLONG)


class Parser(argparse.ArgumentParser):
    """One that complains in one line, as the rest of the program does, and shows defaults."""

    def option(self, name: str, help: str, **settings: Any) -> None:
        """Add an argument. The first choice is the default, unless another is given."""
        if "choices" in settings:
            settings.setdefault("default", settings["choices"][0])
        if settings.get("default") is not None:
            help += " (default: %(default)s)"
        self.add_argument(name, help=help, **settings)

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
    for name, (function, add_options) in COMMANDS.items():
        about = " ".join((function.__doc__ or "").split())
        short = about[0].lower() + about[1:].removesuffix(".")
        command = added.add_parser(name, help=short, description=about)
        command.set_defaults(function=function)
        add_options(command)
    return top


def _between(kind: Callable[[str], float], least: float, most: float, what: str) -> Any:
    """The type of an option that takes numbers of a range."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not {what}")
        return value

    return read


SEED = _between(int, 0, 2**62, f"a whole number from 0 to {2**62}")
COUNT = _between(int, 1, 2**31 - 1, f"a whole number from 1 to {2**31 - 1}")
POSITIVE = _between(float, math.ulp(0), 1e12, "a positive number of at most 1e12")


def _classes(text: str) -> int | list[str]:
    if text.isdecimal():
        return COUNT(text)
    if not text.startswith("@"):
        return [name for name in text.split(",") if name]
    try:
        return lines(Path(text[1:]))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {text[1:]}: {error.strerror}") from None


def _prepare(p: Parser) -> None:
    p.epilog = (
        "A command that was stopped, by whatever, goes on where it was when it is given again. "
        "SOURCE may also be the folder that holds the archives of ILSVRC-2012 or ILSVRC-2010, "
        "which are read where they lie; a .tar of one .tar per class; or torchvision:NAME:FOLDER, "
        "a data set of torchvision's."
    )
    p.option(
        "source",
        "a folder of class folders, or of train/, val/, test/; Tiny ImageNet; CIFAR-10 as "
        "torchvision has it; or the word pictographs",
    )
    p.option("out", "the pack's folder, which must not be there yet", type=Path, nargs="?")
    p.option(
        "--size", "side of the prepared images in pixels, or native: as they are", default="256"
    )
    p.option(
        "--skip-bad",
        "list unreadable images in rejected.csv and go on, rather than stop",
        action="store_true",
    )
    p.option("--workers", "processes (default: one a core)", type=COUNT)
    p.option(
        "--encoding",
        "raw: pixels; jpeg: a tenth of the room, slower to read",
        choices=("raw", "jpeg"),
    )
    p.option(
        "--classes",
        "the first so many classes, or these: a,b,c, or @FILE with one a line",
        type=_classes,
    )
    p.option("--limit", "at most N images of each class in each split", type=COUNT, metavar="N")
    p.option(
        "--max-megapixels",
        "the most pixels that an image may have, in millions (default: 250); a worker takes three "
        "bytes and more for each",
        type=COUNT,
        metavar="N",
    )
    p.option(
        "--verify",
        "read all again, compare checksums; of a pack that is there: alexnet prepare --verify PACK",
        action="store_true",
    )


def _train(p: Parser) -> None:
    variants = (
        f"Variants of a preset: {', '.join(VARIANTS)}. "
        "What each changes is said in alexnet/presets/variants.py."
    )
    p.epilog = textwrap.fill(variants, 78, break_on_hyphens=False)
    p.formatter_class = argparse.RawDescriptionHelpFormatter
    p.option(
        "--data",
        "a folder of packs, train/ and val/, or one pack",
        type=Path,
        required=True,
        metavar="PACK",
    )
    p.option(
        "--out",
        "folder of the run: log, checkpoints, weights",
        type=Path,
        required=True,
        metavar="RUN",
    )
    p.option(
        "--preset",
        "paper, source, caffe or four-layer, with variants, as in paper/no-lrn/tanh",
        default="paper",
    )
    p.option("--width", "scales every layer's maps and units", type=POSITIVE, default=1.0)
    p.option(
        "--image-size",
        "side of the net's crops (default: 7/8 of the pack's, 224 of 256)",
        type=COUNT,
    )
    budget = p.add_mutually_exclusive_group()
    epochs = "passes over the training set, at most (default: %(default)s)"
    budget.add_argument("--epochs", type=POSITIVE, default=90.0, help=epochs)
    budget.add_argument("--steps", type=COUNT, help="steps, instead of epochs")
    p.option("--batch-size", "images a step (default: the preset's, 128)", type=COUNT)
    p.option("--lr", "first learning rate (default: the preset's, 0.01)", type=POSITIVE)
    p.option("--seed", "of initial weights, order, crops and dropout masks", type=SEED, default=0)
    p.option(
        "--columns",
        "2: Figure 2's network; 1: the one-column net it is compared with",
        type=int,
        choices=(2, 1),
    )
    precisions = ("fp32", "tf32", "bf16", "fp64", "auto")
    p.option(
        "--precision",
        "tf32: CUDA only; bf16: weights updated in fp32; fp64: to compare with; auto: bf16 where "
        "this machine trains the net faster in it",
        choices=precisions,
    )
    p.option(
        "--init",
        "begin with this finished run's weights in all layers but the last",
        type=Path,
        metavar="RUN0",
    )
    _how(p)


def _how(p: Parser) -> None:
    """Options of training that leave the trained weights as they are, but for rounding."""
    modes = ("plain", "graph", "compiled")
    p.option(
        "--mode",
        "graph: a step as one CUDA graph; compiled: by torch.compile; both in one process",
        choices=modes,
    )
    _device(p)
    p.option("--resume", "go on with the run in RUN, if there is one", action="store_true")
    p.option("--keep", "checkpoints that stay", type=COUNT, default=2, metavar="K")
    p.option(
        "--checkpoint-every",
        "seconds between checkpoints, beside those after each epoch",
        type=POSITIVE,
        default=300.0,
        metavar="S",
    )
    ranks = (
        "ranks that share one net's columns, others copy it (default: one a column if that is even)"
    )
    p.option("--column-ranks", f"under torchrun: {ranks}", type=COUNT, metavar="N")
    p.option(
        "--timeout",
        "under torchrun: seconds without progress, then it stops and names the rank",
        type=POSITIVE,
        default=600.0,
        metavar="S",
    )


def _evaluate(p: Parser) -> None:
    p.option(
        "run",
        "folder of a finished run; of several, probabilities are averaged",
        type=Path,
        nargs="+",
    )
    p.option("--data", "a pack, or a folder of packs", type=Path, required=True, metavar="PACK")
    p.option(
        "--split",
        "which of them (default: the first there is)",
        choices=("test", "val", "train"),
        default=None,
    )
    p.option(
        "--views",
        "1: the center; 10: also corners and reflections, averaged",
        type=int,
        choices=(1, 10),
    )
    p.option(
        "--submission",
        "also write each image's five classes for ILSVRC's server",
        type=Path,
        metavar="FILE",
    )
    _device(p)


def _device(p: Parser) -> None:
    p.option("--device", "cpu, cuda, or auto: cuda where there is one", default="auto")


def _export(p: Parser) -> None:
    p.option("run", "folder of a finished run", type=Path)
    p.option(
        "file",
        ".safetensors: the weights in the layout of one device; .onnx: the whole network",
        type=Path,
    )


def _import(p: Parser) -> None:
    p.epilog = (
        "Caffe's bvlc_alexnet.caffemodel and bvlc_reference_caffenet.caffemodel, the ONNX zoo's "
        "bvlcalexnet files and bvlc_alexnet.npy say what they are; tensors in the merged layout "
        "(.safetensors, .pth) need --preset and --mean, unless `alexnet export` wrote them."
    )
    p.option("file", "the weights: .caffemodel, .onnx, .npy, .safetensors, .pth", type=Path)
    p.option("run", "the run's folder, which must not be there yet", type=Path)
    p.option("--preset", "the net, as caffe or paper (default: what the file says)")
    p.option(
        "--mean",
        "subtracted from the input: R,G,B, a .binaryproto of Caffe's or a .npy file (default: the "
        "file's own; 123,117,104 for what came from Caffe)",
        metavar="MEAN",
    )
    p.option(
        "--classes",
        "a line for each output, such as Caffe's synset_words.txt",
        type=Path,
        metavar="FILE",
    )
    p.option("--image-size", "side of the net's input (default: the file's)", type=COUNT)
    p.option(
        "--bgr", "conv1 of a state dict reads blue, green, red, as Caffe's", action="store_true"
    )


def _claims(p: Parser) -> None:
    names = ", ".join(profiles.names())
    p.option(
        "--profile",
        f"judge by one: {names} (default: the largest that has run the claim)",
        metavar="P",
    )
    p.option(
        "--runs", "judge by your own results, in runs/, instead of the archive", action="store_true"
    )
    p.option("--section", "claims of one section of the paper, as 3 or 3.2", metavar="S")
    p.option(
        "--verdict", "reproduced, same-direction, not-reproduced, not-yet-run or slip", metavar="V"
    )
    p.option("--json", "everything that is known of each claim, for programs", action="store_true")


# What a command does, whose docstring is its help, and what adds its options.
COMMANDS: dict[str, tuple[Callable[..., int | None], Callable[[Parser], None]]] = {
    "prepare": (commands.prepare, _prepare),
    "train": (commands.train, _train),
    "evaluate": (commands.evaluate, _evaluate),
    "export": (commands.export, _export),
    "import": (commands.import_, _import),
    "reproduce": (commands.reproduce, reproduce.add_arguments),
    "claims": (commands.claims, _claims),
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    try:
        try:
            return _run(arguments)
        finally:
            if sys.stdout is not None:  # what cannot be written is to be known here
                sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # `alexnet ... | head` has seen enough
            return 128 + signal.SIGPIPE
        say(f"alexnet: cannot write the output: {error.strerror}")
        return 1


def _run(arguments: list[str] | None) -> int:
    args = parser().parse_args(arguments)
    own, other = Path(__file__).resolve().parent, Path.cwd() / "alexnet"
    if (other / "cli.py").is_file() and other.resolve() != own:  # as of a clone that was copied
        say(f"alexnet: this is the program in {own.parent}, not that in this folder")
    rank = os.environ.get("RANK", "0")
    name = "alexnet" if rank == "0" else f"alexnet, rank {rank}"

    def fail(message: object, status: int) -> int:
        say(f"{name}: {message}")
        return status

    try:
        with terminable():
            return args.function(args) or 0
    except InputError as error:
        if isinstance(error, SharedError) and rank != "0":
            return 2
        return fail(error, 2)
    except KeyboardInterrupt as stop:
        status = 128 + getattr(stop, "signal", signal.SIGINT)
        return fail(str(stop) or "stopped", status) if rank == "0" else status  # ranks stop alike
    except BrokenPipeError:
        raise
    except (RuntimeError, OSError, SafetensorError) as error:
        if isinstance(error, ValueError):  # the operators' ModeError
            return fail(error, 2)
        if not isinstance(error, OSError) or error.errno not in BAD_PATH:
            return fail(error, 1)
        path = str(error.filename)
        path = path if len(path) < 256 else f"{path[:80]}..."
        return fail(f"{path}: {error.strerror}; choose another path", 2)
