"""Weights that come along: nets trained here, in bfloat16, with recipe, errors and license in each
file's metadata. They lie in results/weights/, of which an installed package has a copy;
scripts/add_weights.py puts them there."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from alexnet import evaluation, results
from alexnet.card import Card
from alexnet.classifier import Classifier
from alexnet.data.pack import held_out, open_splits
from alexnet.errors import require
from alexnet.export import INPUT, check_place
from alexnet.files import write_whole
from alexnet.training.folder import check_like_trained, check_usable, load_run

FOLDER = results.ARCHIVE / "weights"
LARGEST = 8_000_000  # bytes of a file: a clone and a wheel carry it
REST = 20_000  # bytes at most, of the file's head, the recipe and the errors
# of the run's settings, what is a recipe; the rest stands in the card
RECIPE = ("preset", "epochs", "batch_size", "seed", "precision", "data", "version")


def names() -> list[str]:
    """The weights that there are."""
    return sorted(file.stem for file in FOLDER.glob("*.safetensors"))


def path_of(name: str) -> Path:
    """The file of weights that come along.

    Raises:
        InputError: There are none of this name.
    """
    known = ", ".join(names()) or f"none in {FOLDER}"
    require(
        name in names(),
        f"{name} is no run and no file here, nor the name of weights that come along ({known})",
    )
    return FOLDER / f"{name}.safetensors"


def open_pretrained(name: str) -> Classifier:
    """A net with weights that come along. Raises InputError where there are none of this name."""
    return Classifier.open(path_of(name))


def save_pretrained(
    run: str | Path, file: str | Path, data: str | Path, license: str, **about: str
) -> dict[str, str]:
    """Write a finished run's net as weights that come along: in bfloat16, and measured so.

    Args:
        run: The run's folder.
        file: The .safetensors file.
        data: A folder of packs like those of the run. The errors are those on its test split, or,
            without one, on its val split.
        license: The terms of the weights.
        about: More for the metadata, such as `trained_on="Tiny ImageNet"`.

    Returns:
        The metadata.

    Raises:
        InputError: The run, the data or the place is of no use.
    """
    run, file = Path(run), Path(file)
    require(file.suffix == ".safetensors", f"{file} should end in .safetensors")
    check_place(file)
    check_usable(run)
    splits = open_splits(data)
    name = held_out(splits, "weights that come along")
    net, augment, config = load_run(run)
    check_like_trained(splits[name], run, config, augment)
    card, tensors = Card.of_run(run), net.export_merged()
    size = 2 * sum(map(torch.numel, tensors.values())) + len(json.dumps(card.metadata())) + REST
    too_large = f"the weights of {run} take {size / 1e6:.1f} MB, and at most {LARGEST / 1e6:g} come"
    require(size < LARGEST, f"{too_large} along: take a narrower net's")
    weights = {key: value.to(torch.bfloat16) for key, value in tensors.items()}
    net.load_merged(weights)
    errors = {"split": name, "images": len(splits[name])}
    for views in (1, 10):
        measured = evaluation.evaluate(net, splits[name], augment, views, progress=True)
        errors[f"views_{views}"] = measured.rounded()
    recipe = {field: getattr(config, field) for field in RECIPE} | {"rate": config.recipe.rate}
    metadata = card.metadata() | {"license": license, "input": INPUT} | about
    metadata |= {"recipe": json.dumps(recipe), "errors": json.dumps(errors)}
    write_whole(file, lambda part: save_file(weights, part, metadata=metadata))
    return metadata
