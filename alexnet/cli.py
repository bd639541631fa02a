"""The command line: `alexnet prepare | train | evaluate | predict | features | export | ...`.

Exit status: 0 done; 1 something failed on our side; 2 bad input, one line says what; 128 + n
stopped by signal n (130 for Ctrl-C), with nothing lost. `alexnet.commands` holds what they do.
"""

import argparse
import errno
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from alexnet import __version__, commands, predicting, profiles, reproduce
from alexnet.errors import InputError, SharedError, say
from alexnet.options import COUNT, POSITIVE, SEED, Parser, between, classes
from alexnet.presets import VARIANTS
from alexnet.signals import terminable

# A path that is at fault, rather than this program or the machine.
BAD_PATH = {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM}
BAD_PATH.add(errno.ENAMETOOLONG)


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


def _prepare(p: Parser) -> None:
    p.epilog = (
        "A command that was interrupted continues where it stopped when it is given again. "
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
        type=classes,
    )
    p.option("--limit", "at most N images of each class in each split", type=COUNT, metavar="N")
    p.option(
        "--split",
        "of a folder without splits: percent of each class's images for train, val and test, drawn "
        "at random; 90/10: for train and val",
        metavar="80/10/10",
    )
    p.option("--seed", "of that draw", type=SEED, default=0)
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
        "paper, source, caffe or four-layer, with variants, as in paper/no-lrn/tanh (default: that "
        "of --init, or paper)",
    )
    p.option(
        "--width",
        "scales every layer's maps and units (default: that of --init, or 1)",
        type=POSITIVE,
    )
    p.option(
        "--image-size",
        "side of the net's crops (default: that of --init, or 7/8 of the pack's, 224 of 256)",
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
    _beginning(p)
    _how(p)


def _beginning(p: Parser) -> None:
    """Options of what a net begins with, and keeps."""
    p.option(
        "--init",
        "begin with this finished run's weights in all layers but the last",
        type=Path,
        metavar="RUN0",
    )
    p.option(
        "--freeze",
        "layers that keep the weights they begin with, as conv1,conv2: few images teach the others",
        metavar="LAYERS",
    )


def _how(p: Parser) -> None:
    """Options of training that leave the trained weights as they are, except for rounding."""
    p.option(
        "--mode",
        "one process: graph, a step as a CUDA graph; compiled, torch.compile; compiled-graph, both",
        choices=("plain", "graph", "compiled", "compiled-graph"),
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


def _diagnose(p: Parser) -> None:
    p.epilog = (
        "Without RUN: of a net before its first step. Exit status 0, with findings or without; 2: "
        "bad input. Nets of your own: alexnet.diagnose(model, images, labels) in Python."
    )
    p.option("run", "folder of a run, finished or not", type=Path, nargs="?")
    p.option("--preset", "of a new net, with variants, as in paper/unit-input (default: paper)")
    p.option(
        "--data",
        "the training images (default: noise with the spectrum of photographs)",
        type=Path,
        metavar="PACK",
    )
    p.option("--width", "of a new net (default: 1)", type=POSITIVE)
    p.option("--image-size", "side of a new net's crops (default: fits the pack)", type=COUNT)
    p.option("--classes", "of a new net, without a pack (default: 1000)", type=COUNT)
    p.option("--lr", "a new net's learning rate (default: the preset's, 0.01)", type=POSITIVE)
    p.option("--seed", "of a new net (default: 0)", type=SEED)
    batch = between(int, 2, 4096, "a whole number from 2 to 4096")
    p.option("--images", "of the batch", type=batch, default=64, metavar="N")
    p.option("--json", "everything that was measured, for programs", action="store_true")
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
    p.option(
        "--license",
        "the terms of the weights, for the file's metadata (default: those of the run, or none)",
        metavar="TEXT",
    )


def _predict(p: Parser) -> None:
    predicting.add_predict_arguments(p)
    _device(p)


def _features(p: Parser) -> None:
    predicting.add_features_arguments(p)
    _device(p)


def _import(p: Parser) -> None:
    p.epilog = (
        "Caffe's bvlc_alexnet.caffemodel and bvlc_reference_caffenet.caffemodel, the ONNX zoo's "
        "bvlcalexnet files and bvlc_alexnet.npy say what they are; tensors in the merged layout "
        "(.safetensors, .pth) need --preset and --mean, unless `alexnet export` wrote them."
    )
    p.option("file", ".caffemodel, .onnx, .npy, .safetensors, .pth; or a known name", type=Path)
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
        f"judge by one: {names} (default: those that decide each claim)",
        metavar="P",
    )
    p.option(
        "--runs", "judge by your own results, in runs/, instead of the archive", action="store_true"
    )
    p.option("--section", "claims of one section of the paper, as 3 or 3.2", metavar="S")
    p.option(
        "--verdict",
        "exact or slip; supported, contradicted, inconclusive, not-testable-here or not-yet-run",
        metavar="V",
    )
    p.option("--json", "everything that is known of each claim, for programs", action="store_true")
    p.option("--schema", "what the fields of --json are: its JSON Schema", action="store_true")


# What a command does, whose docstring is its help, and what adds its options.
COMMANDS: dict[str, tuple[Callable[..., int | None], Callable[[Parser], None]]] = {
    "prepare": (commands.prepare, _prepare),
    "train": (commands.train, _train),
    "evaluate": (commands.evaluate, _evaluate),
    "predict": (commands.predict, _predict),
    "features": (commands.features, _features),
    "diagnose": (commands.diagnose, _diagnose),
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
