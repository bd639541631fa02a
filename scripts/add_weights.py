"""Add a finished run's net to the weights that come along, as results/weights/NAME.safetensors.

    python scripts/add_weights.py RUN NAME --data PACK --license TEXT --about trained_on=TEXT

The file holds the weights in bfloat16, and in its metadata what `alexnet predict` needs, the
recipe, the license and the errors of these rounded weights on the pack's test split (or val). It
is to be committed: clones, wheels and torch.hub find it by its name.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from alexnet import pretrained
from alexnet.errors import InputError, require


def pair(text: str) -> tuple[str, str]:
    """KEY=VALUE as (key, value)."""
    name, sign, value = text.partition("=")
    if not (sign and name.isidentifier() and value):
        raise argparse.ArgumentTypeError(f"{text!r} should be KEY=VALUE")
    return name, value


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the finished run")
    parser.add_argument("name", help="by which the weights are asked for, as tiny-imagenet")
    parser.add_argument("--data", type=Path, required=True, help="a pack of splits like the run's")
    parser.add_argument("--license", required=True, help="the terms of the weights")
    about: dict[str, Any] = {
        "type": pair,
        "action": "append",
        "default": [],
        "metavar": "KEY=VALUE",
    }
    parser.add_argument("--about", help="more for the metadata, as trained_on=...", **about)
    parser.add_argument("--replace", action="store_true", help="the weights of that name, if any")
    options = parser.parse_args(arguments)
    try:
        file = pretrained.FOLDER / f"{options.name}.safetensors"
        simple = re.fullmatch(r"[a-z0-9][a-z0-9-]*", options.name)
        require(simple, f"{options.name} should be small letters, digits and hyphens")
        taken = file.exists() and not options.replace
        require(not taken, f"{file} is there already: choose another name, or give --replace")
        metadata = pretrained.save_pretrained(
            options.run, file, options.data, options.license, **dict(options.about)
        )
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, preset {metadata['preset']}")
    for name, value in json.loads(metadata["errors"]).items():
        print(f"  {name}: {value}")
    print(f"Try it: alexnet predict {options.name} PHOTO; then commit the file.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
