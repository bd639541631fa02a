"""Write the numbers and pictures that the book's figures to play with show, out of the package and the archive: one classic script each,
which calls `Widgets.provide(NAME, VALUE)`. `scripts/build_book.py` does it at each build; nothing of it is committed.

    python scripts/widget_data.py FOLDER             network.js, photo.js, kernels.js, net.js
    python scripts/widget_data.py FOLDER --run RUN   net.js out of a run of yours: `alexnet train --preset paper ...`
"""

import argparse
import base64
import io
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet import claims, experiments, presets, profiles
from alexnet.data import pictographs
from alexnet.data.pack import Moments
from alexnet.data.prepare import fit
from alexnet.errors import InputError
from alexnet.presets import LRN, Activation, Dropout, Operation, Pool, Preset, SameMapNorm

PRESETS = {
    "paper": "the text",
    "source": "the released source",
    "paper/no-overlap": "without overlap",
    "paper/no-lrn": "without normalization",
    "paper/one-column": "one column",
}
KINDS = {LRN: "lrn", SameMapNorm: "same_map", Pool: "pool", Dropout: "dropout"}
PHOTOGRAPH, SIDE, TEST_PICTURES = "flower", 256, 20
# The colors of ImageNet as cuda-convnet2 ships them (make-data/input_meta): standard deviations, and axes as columns, here largest first.
IMAGENET_SPREAD = (121.7801, 37.0939, 19.7208)
IMAGENET_AXES = (
    (-0.56351, -0.71258, 0.41796),
    (-0.57618, -0.02354, -0.81698),
    (-0.59200, 0.70120, 0.39731),
)
IMAGENET_MEAN = (127.30, 119.72, 104.91)


def network() -> dict[str, Any]:
    """The tables of some presets, layer by layer."""
    return {
        "presets": {
            name: {"title": title} | described(presets.get(name)) for name, title in PRESETS.items()
        }
    }


def described(
    preset: Preset, num_classes: int = 1000, width: float = 1.0, image_size: int = 224
) -> dict[str, Any]:
    """A preset's table and its sums."""
    table = presets.shapes(preset, num_classes, width, image_size)
    crossing = presets.crossings(table)
    layers = [
        {
            "name": row.layer.name,
            "reads": row.layer.reads,
            "kernel": row.layer.kernel,
            "stride": row.layer.stride,
            "full": not row.layer.kernel,
            "last": row.is_last,
            "columns": row.columns,
            "then": [operation(op) for op in row.layer.then],
            "crossing": crossing.get(row.layer.name, 0),
            **{
                name: getattr(row, name)
                for name in ("in_maps", "in_size", "pad", "maps", "size", "out_size", "fan_in")
            },
            **{
                name: getattr(row, name)
                for name in ("neurons", "weights", "biases", "parameters", "macs")
            },
        }
        for row in table
    ]
    sums = {name: presets.total(table, name) for name in ("neurons", "parameters", "macs")}
    return {"columns": preset.columns, "image_size": image_size, "layers": layers, **sums}


def operation(op: Operation) -> dict[str, Any]:
    return asdict(op) if isinstance(op, Activation) else {"kind": KINDS[type(op)], **asdict(op)}


def photo() -> dict[str, Any]:
    """A photograph, and the principal axes of two sets of colors."""
    everything = [each.pixels for each in pictographs.photographs().values()]
    color = Moments.of(
        np.stack([np.asarray(fit(Image.fromarray(pixels), SIDE)) for pixels in everything])
    ).color()
    color["eigenvectors"] *= np.where(
        color["eigenvectors"].sum(0) < 0, -1, 1
    )  # a slider to the right is brighter, whichever the colors
    axes = (np.array(IMAGENET_AXES) * np.where(np.sum(IMAGENET_AXES, 0) < 0, -1, 1)).tolist()
    imagenet = {
        "title": "ImageNet",
        "mean": IMAGENET_MEAN,
        "eigenvalues": [s**2 for s in IMAGENET_SPREAD],
        "eigenvectors": axes,
    }
    rounded = {
        name: np.round(color[name], 5).tolist() for name in ("mean", "eigenvalues", "eigenvectors")
    }
    ours = {"title": f"{len(everything)} photographs", **rounded}
    picture = center_square(Image.fromarray(pictographs.photographs()[PHOTOGRAPH].pixels), SIDE)
    return {
        "photo": data_uri(picture),
        "name": PHOTOGRAPH,
        "axes": {"imagenet": imagenet, "photographs": ours},
    }


def kernels() -> dict[str, Any]:
    """conv1's learned kernels wherever the archive has some; titles of the profiles where it has none."""
    sets, missing = [], []
    for name in dict.fromkeys([*claims.contents()["profiles"], *profiles.names()]):
        profile = profiles.load(name)
        if found := experiments.archived("figure3", name):
            kernels = {seed: each["kernels"] for seed, each in found["metrics"]["seeds"].items()}
            maps, _, side, _ = next(iter(kernels.values()))["shape"]
            seeds = {seed: each["bytes"] for seed, each in kernels.items()}
            sets.append(
                {
                    "title": profile["title"],
                    "columns": found["metrics"]["columns"],
                    "maps": maps,
                    "side": side,
                    "seeds": seeds,
                }
            )
        elif name in claims.contents()["profiles"] and "ablations" in profile.settings:
            missing.append(profile["title"])
    return {"sets": sets, "missing": missing}


def net(metrics: dict[str, Any] | None = None) -> dict[str, Any]:
    """The net that runs in the page, and pictures of the test split to run it on."""
    if metrics is None:
        result = experiments.archived("page", "embedded")
        if result is None:
            raise InputError(
                "results/embedded/page is missing: make it, `alexnet reproduce --only page --archive`"
            )
        metrics = result["metrics"]
    packed = metrics["net"]
    names = packed["names"]
    preset = presets.get(packed["preset"])
    prepared = profiles.load("embedded")["page"]["pictographs"]["size"]
    table = described(preset, len(names), packed["width"], packed["image_size"])
    codes = {name: code for code, name in pictographs.CLASSES}
    known = [name for name in names if name in codes]
    samples = []
    for i in range(TEST_PICTURES if known else 0):
        name = known[i % len(known)]
        picture = pictographs.draw(codes[name], "test", np.random.default_rng([2012, i]), prepared)
        samples.append({"src": data_uri(center_square(picture, prepared)), "label": name})
    return {
        "net": packed | {"layers": table["layers"]},
        "samples": samples,
        "prepared": prepared,
        "note": said_of(metrics, table),
    }


def said_of(metrics: dict[str, Any], table: dict[str, Any]) -> str:
    size = f"The text's net with the source's first weights in conv3 to conv5, {table['parameters']:,} parameters of eight bits"
    if "errors" not in metrics:
        return f"{table['parameters']:,} parameters of eight bits, of a run of yours."
    seed, found = next(iter(metrics["errors"].items()))
    return (
        f"{size}, trained by this package on {metrics['train_images']:,} pictures. Seed {seed} errs on {found['one_view_8_bit']:.1%} of "
        f"{metrics['images']:,} test pictures ({found['one_view']:.1%} before rounding to eight bits). It has seen nothing else, and sees "
        "pictographs in whatever you show it."
    )


def center_square(picture: Image.Image, side: int) -> Image.Image:
    short = min(picture.size)
    left, top = (picture.width - short) // 2, (picture.height - short) // 2
    return picture.resize(
        (side, side), Image.Resampling.BILINEAR, (left, top, left + short, top + short)
    )


def data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def write(folder: Path, name: str, value: dict[str, Any]) -> None:
    """`folder/name.js`; a file that would not change is left alone."""
    text = f"Widgets.provide({json.dumps(name)}, {json.dumps(value, separators=(',', ':'))});\n"
    path = folder / f"{name}.js"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def write_all(folder: Path) -> None:
    for make in (network, photo, kernels, net):
        write(folder, make.__name__, make())


def of_run(run: Path) -> dict[str, Any]:
    """The metrics that a trained run stands for: its net alone."""
    from alexnet.experiments import page
    from alexnet.training.trainer import load_run

    trained, augment, _ = load_run(run)
    unknown = {
        type(op).__name__
        for row in trained.table
        for op in row.layer.then
        if isinstance(op, SameMapNorm)
    }
    if unknown or any(
        isinstance(op, Dropout) and op.inverted for row in trained.table for op in row.layer.then
    ):
        raise InputError(
            f"{run}: a page runs nets of preset paper; this one is {trained.preset.name}"
        )
    return {"net": page.pack(trained, augment, json.loads((run / "classes.json").read_text()))}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write what the book's figures to play with show.")
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--run", type=Path, metavar="RUN", help="a finished run of yours, for net.js alone"
    )
    given = parser.parse_args()
    try:
        if given.run:
            write(given.folder, "net", net(of_run(given.run)))
        else:
            write_all(given.folder)
    except InputError as error:
        print(f"widget_data: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
