"""The commands `alexnet predict` and `alexnet features`: their options, and what they do."""

import argparse
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet.errors import InputError

if TYPE_CHECKING:
    from alexnet.classifier import Classifier
    from alexnet.predictions import Prediction


def add_predict_arguments(p: Any) -> None:
    """Add the options of `alexnet predict` to a parser of `alexnet.cli`."""
    p.option(
        "net",
        "folder of a finished run; a .onnx or .safetensors file of `alexnet export`; or the name "
        "of weights that come along, such as tiny-imagenet",
        metavar="RUN",
    )
    p.option("photos", "photographs, or folders of them", type=Path, nargs="+", metavar="PHOTO")
    p.option(
        "--views",
        "1: the center; 10: also corners and reflections, averaged",
        type=int,
        choices=(1, 10),
    )
    form = p.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the five classes of each, for programs")
    form.add_argument("--csv", action="store_true", help="a line for each class of each photograph")
    p.option(
        "--picture",
        "also draw the photographs with bars, as in Figure 4: .png, .svg or .pdf",
        type=Path,
        metavar="FILE",
    )


def predict(args: argparse.Namespace, device: str) -> int:
    """Print the most probable classes of photographs; 2 where one of them is no image.

    Args:
        args: Of the command line.
        device: Where the net computes.
    """
    from alexnet import predictions
    from alexnet.classifier import Classifier
    from alexnet.data import photographs
    from alexnet.export import check_place

    files = photographs.files(args.photos)
    classifier = Classifier.open(args.net)
    classifier.to(device if classifier.net is not None else "cpu")
    if args.picture:
        check_place(args.picture)
    results, problems = _predict_each(classifier, files, args.views)
    if not results:
        raise problems[0]
    if args.picture:
        predictions.draw(results, args.picture)
    for problem in problems:
        print(f"alexnet: {problem}", file=sys.stderr)
    if args.json or args.csv:
        text = predictions.as_json(results) if args.json else predictions.as_csv(results)
        print(text.rstrip("\n"))
    else:
        print(predictions.table(results))
    return 2 if problems else 0


def _predict_each(
    classifier: "Classifier", files: list[Path], views: int
) -> tuple[list["Prediction"], list[InputError]]:
    """The predictions of those that are images, and what is wrong with the others."""
    from tqdm import tqdm

    from alexnet.classifier import BATCH

    results: list[Prediction] = []
    problems: list[InputError] = []
    with tqdm(total=len(files), desc="predicting", delay=3, leave=False, disable=None) as bar:
        for part in (files[i : i + BATCH] for i in range(0, len(files), BATCH)):
            try:
                results += classifier(part, views)
            except InputError:  # of one: the others are predicted one by one
                for file in part:
                    try:
                        results.append(classifier(file, views))
                    except InputError as problem:
                        problems.append(problem)
            bar.update(len(part))
    return results, problems


def add_features_arguments(p: Any) -> None:
    """Add the options of `alexnet features` to a parser of `alexnet.cli`."""
    p.epilog = (
        "The file holds one row an image, in the order of the pack, whose labels are in its "
        "labels.npy: units (N, C), or maps (N, C, H, W)."
    )
    p.option("run", "folder of a finished run", type=Path)
    p.option("out", "the file to write", type=Path, metavar="OUT.npy")
    p.option("--data", "a pack, or a folder of packs", type=Path, required=True, metavar="PACK")
    p.option("--split", "which of them", choices=("train", "val", "test"))
    p.option("--layer", "whose outputs, for the center of each image", default="fc7")


def features(args: argparse.Namespace, device: str) -> None:
    """Write a layer's outputs for the images of a pack.

    Args:
        args: Of the command line.
        device: Where the net computes.
    """
    import numpy as np

    from alexnet import evaluation
    from alexnet.data.pack import open_splits
    from alexnet.errors import require
    from alexnet.export import check_place
    from alexnet.files import write_whole
    from alexnet.training import check_usable, load_run

    require(args.out.suffix == ".npy", f"{args.out} should end in .npy")
    splits = open_splits(args.data)
    known = ", ".join(splits)
    require(args.split in splits, f"{args.data} has no {args.split} split; it has {known}")
    check_usable(args.run)
    net, augment, _ = load_run(args.run)
    pack = splits[args.split]
    require(
        pack.size == augment.mean_size,
        f"{pack.path} has images of {pack.size} pixels; the run in {args.run} was trained on "
        f"{augment.mean_size}: prepare them with --size {augment.mean_size}",
    )
    check_place(args.out)
    batches = evaluation.features(net.to(device), pack, augment, args.layer, progress=True)
    first = next(batches)
    shape = (len(pack), *first.shape[1:])

    def write(part: Path) -> None:
        rows = np.lib.format.open_memmap(part, "w+", np.float32, shape)
        row = 0
        for batch in chain([first], batches):
            rows[row : row + len(batch)] = batch
            row += len(batch)
        rows.flush()

    write_whole(args.out, write)
    size = " x ".join(map(str, shape))
    what = f"{args.layer} of {pack.path}, {size} numbers"
    print(f"{args.out}: {what}; labels in {pack.path / 'labels.npy'}")
