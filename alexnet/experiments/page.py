"""The net that runs inside the book's pages: narrow, trained on ten pictographs, its weights
rounded to eight bits.

    alexnet reproduce --only page --seeds 3

The archive holds the weights themselves, in the layout of one device, and conv1's kernels of every
seed. `scripts/widget_data.py` writes them for the pages; tests/test_widgets.py holds the pages'
arithmetic to `network` here.
"""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from alexnet import evaluation
from alexnet.data.augment import Augment
from alexnet.experiments.jobs import Run, training_job
from alexnet.experiments.protocol import (
    Entry,
    Metrics,
    Profile,
    Record,
    Result,
    Table,
    by_kind,
    by_seed,
    common,
    only,
    pick,
)
from alexnet.experiments.showing import Figure, subplots
from alexnet.network import AlexNet
from alexnet.presets import Recipe

NAME = "page"
VERSION = 1
NET, ROUNDED = "net", "eight bits"  # arms: each seed's net; the first one's, as the pages have it
SIZES = ("images", "train_images", "classes", "preset")
Packed = dict[str, Any]


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    fields = {name: profile[NAME][name] for name in ("preset", "width", "epochs")}
    packs = profile.splits(NAME)
    jobs = {seed: training_job(profile, packs=packs, seed=seed, **fields) for seed in seeds}
    made = [Entry(NET, seed, packs, (job,)) for seed, job in jobs.items()]
    return [*made, Entry(ROUNDED, None, packs, (jobs[seeds[0]],))]


def measure(entry: Entry, runs: list[Run]) -> Metrics:
    (run,), test = runs, entry.packs["test"]
    net, augment = run.net()
    if entry.arm == ROUNDED:
        rounded = pack(net, augment, test.names)
        coarse, center = network(rounded)
        error = evaluation.evaluate(coarse, test, center).top1
        return {"seed": run.config.seed, "one_view_8_bit": round(error, 4), "net": rounded}
    return {
        "images": len(test),
        "train_images": len(entry.packs["train"]),
        "classes": len(test.classes),
        "preset": run.config.preset,
        "one_view": round(evaluation.evaluate(net, test, augment).top1, 4),
        "epochs": run.summary["epochs"],
        "falls": run.summary["falls"],
        "kernels": eight_bits(net.export_merged()["conv1.weight"]),
    }


def collect(records: list[Record]) -> Metrics:
    seeds, rounded = by_seed(records, NET), only(records, ROUNDED)
    errors, first = pick(seeds, ("one_view", "epochs", "falls")), str(rounded["seed"])
    if first in errors:
        errors[first]["one_view_8_bit"] = rounded["one_view_8_bit"]
    sizes = common(seeds.values(), *SIZES)
    conv1 = {"preset": sizes.pop("preset"), **by_kind(seeds, ["kernels"])}
    return {**sizes, "errors": errors, "net": rounded["net"], "conv1": conv1}


def pack(net: AlexNet, augment: Augment, names: list[str]) -> Packed:
    """A net for a page: weights as signed bytes with one scale for each output unit, biases as they
    are, the mean image's center in whole gray levels.

    Args:
        net: A trained net.
        augment: Made with the training set's mean image.
        names: What people call the classes.
    """
    size, mean, merged = augment.size, augment.mean.numpy(), net.export_merged()
    edge = (mean.shape[0] - size) // 2
    center = mean[edge : edge + size, edge : edge + size].round().astype(np.uint8)
    weights = {name: eight_bits(w) for name, w in merged.items() if name.endswith("weight")}
    biases = {name: b.tolist() for name, b in merged.items() if name.endswith("bias")}
    return {
        "preset": net.preset.name,
        "width": net.table[0].maps / net.preset.layers[0].maps,
        "image_size": size,
        "names": names,
        "mean": base64.b64encode(center.tobytes()).decode(),
        "weights": weights,
        "biases": {name: [float(f"{b:.6g}") for b in values] for name, values in biases.items()},
    }


def network(packed: Packed) -> tuple[AlexNet, Augment]:
    """The net that a page computes with, and what its input goes through: the center crop minus the
    mean image."""
    size = packed["image_size"]
    net = AlexNet(packed["preset"], len(packed["names"]), packed["width"], size)
    weights = {name: unpack(value) for name, value in packed["weights"].items()}
    biases = {name: torch.tensor(value) for name, value in packed["biases"].items()}
    net.load_merged(weights | biases)
    mean = np.frombuffer(base64.b64decode(packed["mean"]), np.uint8).reshape(size, size, 3)
    return net.eval(), CenterMean(mean.astype(np.float32), size)


class CenterMean(Augment):
    """Center crops of images of any size, minus a mean image of the crop's size."""

    def __init__(self, mean: np.ndarray, size: int):
        super().__init__(Recipe(mean="center"), mean, size)

    def views(self, images: torch.Tensor, count: int = 1) -> Iterator[torch.Tensor]:
        edge = (images.shape[1] - self.size) // 2
        yield self.view(images, edge, edge, False)


def unpack(packed: Packed) -> torch.Tensor:
    """The weights, float32, that bytes and scales stand for."""
    values = np.frombuffer(base64.b64decode(packed["bytes"]), np.int8).reshape(packed["shape"])
    scales = np.array(packed["scales"], np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return torch.from_numpy(values.astype(np.float32) * scales)


def eight_bits(weight: torch.Tensor) -> Packed:
    """weight (out, ...): bytes in -127..127 and, for each output unit, what one step is worth."""
    weight = weight.detach().float().cpu()
    largest = weight.flatten(1).abs().amax(1).clamp_min(1e-12)
    scales = [float(f"{value:.6g}") for value in (largest / 127).tolist()]
    steps = weight / torch.tensor(scales).reshape(-1, *[1] * (weight.dim() - 1))
    values = steps.round().clamp(-127, 127).to(torch.int8).numpy()
    return {
        "shape": list(weight.shape),
        "scales": scales,
        "bytes": base64.b64encode(values.tobytes()).decode(),
    }


def table(result: Result) -> Table:
    """Test errors from one view, of the nets and of the one that the pages have."""
    rows = [
        [seed, f"{one['one_view']:.1%}", f"{one['one_view_8_bit']:.1%}" if len(one) > 3 else ""]
        for seed, one in result["metrics"]["errors"].items()
    ]
    return Table(["seed", "test error, one view", "in eight bits"], rows)


def plot(result: Result) -> Figure:
    """conv1's kernels, a row for each seed, each kernel on its own scale around gray."""
    packed = result["metrics"]["conv1"]["kernels"]
    across = len(next(iter(packed.values()))["scales"])
    figure, panels = subplots(0.6 * across, 0.8 * len(packed), len(packed), across, squeeze=False)
    for row, (seed, kernels) in zip(panels, packed.items(), strict=True):
        row[0].set_title(f"seed {seed}", fontsize=8, loc="left")
        for panel, kernel in zip(row, unpack(kernels).permute(0, 2, 3, 1).numpy(), strict=True):
            panel.imshow(around_gray(kernel), interpolation="nearest")
            panel.axis("off")
    return figure


def around_gray(kernel: np.ndarray) -> np.ndarray:
    """A kernel on its own scale around gray, as a picture: values 0..1."""
    return 0.5 + 0.5 * kernel / (np.abs(kernel).max() or 1.0)
