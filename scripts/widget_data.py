"""Write the numbers and pictures that the book's figures to play with show.

They come out of the package and the archive: one classic script each, which calls
`Widgets.provide(NAME, VALUE)`. `scripts/build_book.py` makes them at each build; none is committed.

    python scripts/widget_data.py FOLDER             network.js, photo.js, kernels.js, net.js,
                                                     plateau.js, seeds.js, statements.js
    python scripts/widget_data.py FOLDER --run RUN   net.js out of a run of yours, of preset paper
"""

import argparse
import base64
import io
import json
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet import claims, experiments, labnotebook, presets, profiles
from alexnet.claims import plans
from alexnet.data import pictographs
from alexnet.data.decode import fit
from alexnet.data.moments import Moments
from alexnet.diagnosis import findings
from alexnet.errors import InputError
from alexnet.experiments import ablations, pilot, recipe
from alexnet.presets import Preset, SameMapNorm
from alexnet.presets.sizes import initial_sigmas

PRESETS = {
    "paper": "the text",
    "source": "the released source",
    "paper/no-overlap": "without overlap",
    "paper/no-lrn": "without normalization",
    "paper/one-column": "one column",
}
# of a layer, or of its arithmetic
FIELDS = """name reads kernel stride columns in_maps in_size pad maps size out_size fan_in
neurons weights biases parameters macs""".split()
PHOTOGRAPH, SIDE, TEST_PICTURES = "flower", 256, 20
WIDE, ACROSS = 224, 3  # a picture as large as the paper's, of so many test pictures a side
# The plateau explorer's net: small enough to be run anew at each move of a slider. Its rate is that
# of the recipe's runs, in batches of 64; rms is that of photographs minus their mean.
PLATEAU: dict[str, Any] = {
    "classes": 200,
    "width": 0.125,
    "size": 96,
    "images": 6,
    "rate": 0.005,
    "rms": 58,
}
REACHED = {  # arms of experiment recipe that its sliders reach
    "text": "the text",
    "sigma-0.03": "the source's σ",
    "zero-biases": "the source's σ, biases 0",
    "biases-0.1": "the source's σ, biases 0.1",
    "unit-variance": "the source's σ, pixels of unit variance",
    "unit-input": "the source's σ, pixels from 0 to 1",
}
# The colors of ImageNet as cuda-convnet2 ships them (make-data/input_meta): standard deviations,
# and axes as columns, here largest first.
IMAGENET_DEVIATIONS = (121.7801, 37.0939, 19.7208)
IMAGENET_AXES = (
    (-0.56351, -0.71258, 0.41796),
    (-0.57618, -0.02354, -0.81698),
    (-0.59200, 0.70120, 0.39731),
)
IMAGENET_MEAN = (127.30, 119.72, 104.91)


def network() -> dict[str, Any]:
    """The tables of some presets, layer by layer."""
    titled = {n: {"title": title} | described(presets.get(n)) for n, title in PRESETS.items()}
    return {"presets": titled}


def described(
    preset: Preset, num_classes: int = 1000, width: float = 1.0, image_size: int = 224
) -> dict[str, Any]:
    """A preset's table and its sums."""
    table = presets.shapes(preset, num_classes, width, image_size)
    crossing = presets.crossings(table)
    layers = [
        {name: getattr(row if hasattr(row, name) else row.layer, name) for name in FIELDS}
        | {"full": not row.layer.kernel, "last": row.is_last}
        | {"then": [{"kind": op.name} | asdict(op) for op in row.layer.then]}
        | {"crossing": crossing.get(row.layer.name, 0)}
        for row in table
    ]
    sums = {name: presets.total(table, name) for name in ("neurons", "parameters", "macs")}
    return {"columns": preset.columns, "image_size": image_size, "layers": layers, **sums}


def photo() -> dict[str, Any]:
    """A photograph, and the principal axes of two sets of colors."""
    photographs = {name: Image.fromarray(p.pixels) for name, p in pictographs.photographs().items()}
    fitted = np.stack([np.asarray(fit(image, SIDE)) for image in photographs.values()])
    color = Moments.of(fitted).color()
    color["eigenvectors"] = brightening(color["eigenvectors"])
    names = ("mean", "eigenvalues", "eigenvectors")
    ours = {name: np.round(color[name], 5).tolist() for name in names}
    variances = [deviation**2 for deviation in IMAGENET_DEVIATIONS]
    imagenet = (IMAGENET_MEAN, variances, brightening(np.array(IMAGENET_AXES)).tolist())
    return {
        "photo": data_uri(center_square(photographs[PHOTOGRAPH], SIDE)),
        "name": PHOTOGRAPH,
        "axes": {
            "imagenet": {"title": "ImageNet", **dict(zip(names, imagenet))},
            "photographs": {"title": f"{len(photographs)} photographs", **ours},
        },
    }


def brightening(axes: np.ndarray) -> np.ndarray:
    """The axes, columns, turned so that a slider to the right is brighter, whichever the colors."""
    return axes * np.where(axes.sum(0) < 0, -1, 1)


def kernels() -> dict[str, Any]:
    """conv1's learned kernels wherever the archive has some; titles of the profiles elsewhere."""
    sets, missing = [], []
    order = [name for name in claims.contents()["profiles"] if name in profiles.names()]
    order.append("embedded")
    for name in dict.fromkeys([*order, *profiles.names()]):
        profile = profiles.load(name)
        if result := experiments.archived("figure3", name):
            seeds = {seed: one["kernels"] for seed, one in result["metrics"]["seeds"].items()}
            maps, _, side, _ = next(iter(seeds.values()))["shape"]
            about = {"title": profile["title"], "columns": result["metrics"]["columns"]}
            pixels = {seed: one["bytes"] for seed, one in seeds.items()}
            sets.append(about | {"maps": maps, "side": side, "seeds": pixels})
        elif name in order and "ablations" in profile.settings:
            missing.append(profile["title"])
    return {"sets": sets, "missing": missing}


def statements() -> dict[str, Any]:
    """The paper's statements beside the released source, and the words that sort them."""
    return {
        "topics": labnotebook.TOPICS,
        "findings": labnotebook.FINDINGS,
        "statements": labnotebook.statements(),
    }


def net(metrics: dict[str, Any] | None = None) -> dict[str, Any]:
    """The net that runs in the page, and pictures of the test split to run it on.

    Args:
        metrics: Of experiment `page`; None: the archive's on profile embedded.
    """
    if metrics is None:
        if not (result := experiments.archived("page", "embedded")):
            remedy = "`alexnet reproduce --only page --archive`"
            raise InputError(f"results/embedded/page is missing: make it, {remedy}")
        metrics = result["metrics"]
    packed = metrics["net"]
    names = packed["names"]
    preset = presets.get(packed["preset"])
    table = described(preset, len(names), packed["width"], packed["image_size"])
    wide = described(preset, len(names), packed["width"], WIDE)["layers"]
    prepared = profiles.load("embedded")["page"]["pictographs"]["size"]
    codes = {name: code for code, name in pictographs.CLASSES}
    known, samples = [name for name in names if name in codes], []
    for i in range(TEST_PICTURES if known else 0):
        name = known[i % len(known)]
        picture = pictographs.draw(codes[name], "test", np.random.default_rng([2012, i]), prepared)
        samples.append({"src": data_uri(center_square(picture, prepared)), "label": name})
    return {
        "net": packed | {"layers": table["layers"]},
        "wide": {
            "image_size": WIDE,
            "across": ACROSS,
            "layers": [layer for layer in wide if not layer["full"]],
        },
        "samples": samples,
        "prepared": prepared,
        "note": note(metrics, table["parameters"]),
    }


def note(metrics: dict[str, Any], parameters: int) -> str:
    """What the page says of its net."""
    if "errors" not in metrics:
        return f"{parameters:,} parameters of eight bits, of a run of yours."
    seed, errors = next(iter(metrics["errors"].items()))
    return (
        f"The text's net with the source's initial weights in conv3 to conv5, {parameters:,} "
        f"parameters of eight bits, trained by this package on {metrics['train_images']:,} "
        f"pictures. Seed {seed} errs on {errors['one_view_8_bit']:.1%} of {metrics['images']:,} "
        f"test pictures ({errors['one_view']:.1%} before rounding to eight bits). It has seen "
        "nothing else, and sees pictographs in whatever you show it."
    )


def center_square(picture: Image.Image, side: int) -> Image.Image:
    short = min(picture.size)
    left, top = (picture.width - short) // 2, (picture.height - short) // 2
    box = (left, top, left + short, top + short)
    return picture.resize((side, side), Image.Resampling.BILINEAR, box)


def data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def plateau() -> dict[str, Any]:
    """A narrow net of preset paper, what is known of nets that its sliders reach, and the limits of
    `alexnet.diagnosis`."""
    preset = presets.get("paper")
    about = described(preset, PLATEAU["classes"], PLATEAU["width"], PLATEAU["size"])
    table = presets.shapes(preset, PLATEAU["classes"], PLATEAU["width"], PLATEAU["size"])
    for layer, row, sigma in zip(about["layers"], table, initial_sigmas(preset, table)):
        layer |= {"sigma": round(sigma, 6), "bias": row.layer.bias}
    limits = {"pace": findings.SLOW, "differs": findings.ALIKE, "excess": findings.EXCESS}
    known = [found for arm, title in REACHED.items() if (found := known_run(arm, title))]
    note = (
        f"A net of an eighth of the width on images of {PLATEAU['size']} pixels, with each layer's "
        "σ√(fan-in) as in the full net. The images are noise with the spectrum of photographs. "
        "The triangle is this net's pace. Numbers are the runs of the list: a dot where they "
        "trained, a cross where they did not. In the shaded part no net is known to train."
    )
    layers = about["layers"]
    return PLATEAU | {"layers": layers, "limits": limits, "known": known, "note": note}


def known_run(arm: str, title: str) -> dict[str, Any] | None:
    """An arm of experiment `recipe` as the sliders reach it, and what the archive says of it."""
    for profile in ("tiny-imagenet-cpu", "embedded"):
        result = experiments.archived("recipe", profile)
        if not result or arm not in result["metrics"]["arms"]:
            continue
        kinds = result["metrics"]["arms"][arm]
        steps = [step for step in kinds["left_at_step"].values() if step is not None]
        when = f"after {min(steps):,} to {max(steps):,}" if steps else "within"
        budget = "" if steps else f" {max(kinds['steps'].values()):,}"
        count, title_of_data = len(kinds["left_at_step"]), result["data"]["title"]
        said = f"{len(steps)} of {count} runs leave chance {when}{budget} steps ({title_of_data})"
        preset = presets.get(recipe.ARMS[arm].preset)
        row, scale = preset.layer("conv4"), preset.recipe.input_scale
        trains = 2 * len(steps) > count
        settings = {"sigma": row.sigma, "bias": row.bias, "scale": scale}
        return settings | {"title": title, "said": said, "trains": trains}
    return None


def seeds() -> dict[str, Any]:
    """Effects of the paper's size, and the spread of one run, in points, where there are several
    runs of one net: the authors' logs, the pilot, pictographs."""
    overlap, norm = (ablations.ARMS[arm].points for arm in ("no-overlap", "no-lrn"))
    logged = labnotebook.repeats("top1")
    examples = [("overlap, on ImageNet", logged, overlap, 2, 1)]
    plan = plans.of_profile("tiny-imagenet-cpu").get("ablations")
    if plan and (result := experiments.archived("pilot", "tiny-imagenet-cpu")):
        runs, count = pilot.last_errors(result, ablations.FULL), len(plan.margins)
        examples.append(("normalization, on Tiny ImageNet", runs, norm, plan.seeds, count))
    if result := experiments.archived("ablations", "embedded"):
        runs = [100 * error for error in ablations.errors(result, ablations.FULL).values()]
        count = len(ablations.ARMS) - 1
        examples.append(("normalization, on pictographs", runs, norm, len(runs), count))
    names = ("title", "spread", "effect", "seeds", "claims")
    return {
        "examples": [
            dict(zip(names, (title, round(statistics.stdev(runs), 3), *numbers)))
            for title, runs, *numbers in examples
        ]
    }


def write(folder: Path, name: str, value: dict[str, Any]) -> None:
    """Write `folder/name.js`; a file that would not change is left alone."""
    text = f"Widgets.provide({json.dumps(name)}, {json.dumps(value, separators=(',', ':'))});\n"
    path = folder / f"{name}.js"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def write_all(folder: Path) -> None:
    for make in (network, photo, kernels, net, statements, plateau, seeds):
        write(folder, make.__name__, make())


def of_run(run: Path) -> dict[str, Any]:
    """The metrics that a trained run stands for: its net alone."""
    from alexnet.experiments import page
    from alexnet.training import load_run

    trained, augment, _ = load_run(run)
    operations = [op for row in trained.table for op in row.layer.then]
    if any(isinstance(op, SameMapNorm) or getattr(op, "inverted", False) for op in operations):
        name = trained.preset.name
        raise InputError(f"{run}: a page runs nets of preset paper; this one is {name}")
    return {"net": page.pack(trained, augment, json.loads((run / "classes.json").read_text()))}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    only = "a finished run of yours, for net.js alone"
    parser.add_argument("--run", type=Path, metavar="RUN", help=only)
    args = parser.parse_args()
    try:
        if args.run:
            write(args.folder, "net", net(of_run(args.run)))
        else:
            write_all(args.folder)
    except InputError as error:
        print(f"widget_data: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
