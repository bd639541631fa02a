"""The net that runs inside the book's pages: narrow, trained on ten pictographs, its weights
rounded to eight bits.

    alexnet reproduce --only page --seeds 3

The archive holds the weights themselves, in the layout of one device, and conv1's kernels of every
seed. `scripts/widget_data.py` writes them for the pages; tests/test_widgets.py holds the pages'
arithmetic to `network` here.
"""

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from alexnet import evaluation
from alexnet.data.augment import Augment
from alexnet.experiments.jobs import Run, Training, configure
from alexnet.experiments.protocol import Entry, by_seed, common, only
from alexnet.network import AlexNet
from alexnet.presets import Recipe
from alexnet.profiles import Profile
from alexnet.results import Record
from alexnet.tables import Table

NAME = "page"
VERSION = 1
NET, ROUNDED = "net", "eight bits"  # arms: each seed's net; the first one's, as the pages have it
SIZES = ("images", "train_images", "classes", "preset")
Packed = dict[str, Any]


def settings(profile: Profile) -> dict[str, Any]:
    profile[NAME]  # says so where there are none
    return {}


def entries(profile: Profile, seeds: Sequence[int]) -> list[Entry]:
    own, given, packs = settings(profile), profile[NAME], profile.splits(NAME)
    fields = {name: given[name] for name in ("width", "epochs")}
    jobs = [
        Training(configure(profile, given["preset"], packs=packs, seed=seed, **fields), packs)
        for seed in seeds
    ]
    made = [
        Entry(NET, seed, packs, (job,), own, tuple(seeds))
        for seed, job in zip(seeds, jobs, strict=True)
    ]
    return [*made, Entry(ROUNDED, None, packs, (jobs[0],), own, tuple(seeds))]


def measure(entry: Entry, runs: Sequence[Run]) -> dict[str, Any]:
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


def collect(records: Sequence[Record]) -> dict[str, Any]:
    seeds, rounded = by_seed(records, NET), only(records, ROUNDED)
    names = ("one_view", "epochs", "falls")
    errors = {s: {name: metrics[name] for name in names} for s, metrics in seeds.items()}
    if (first := str(rounded["seed"])) in errors:
        errors[first]["one_view_8_bit"] = rounded["one_view_8_bit"]
    sizes = common(seeds.values(), *SIZES)
    kernels = {seed: metrics["kernels"] for seed, metrics in seeds.items()}
    conv1 = {"preset": sizes.pop("preset"), "kernels": kernels}
    return {**sizes, "errors": errors, "net": rounded["net"], "conv1": conv1}


def pack(net: AlexNet, augment: Augment, names: list[str]) -> Packed:
    """A net for a page: weights as signed bytes with one scale for each output unit, biases as they
    are, the mean image's center in whole gray levels."""
    size = augment.size
    mean = augment.mean.numpy()
    edge = (mean.shape[0] - size) // 2
    center = mean[edge : edge + size, edge : edge + size].round().astype(np.uint8)
    merged = net.export_merged()
    return {
        "preset": net.preset.name,
        "width": net.table[0].maps / net.preset.layers[0].maps,
        "image_size": size,
        "names": names,
        "mean": base64.b64encode(center.tobytes()).decode(),
        "weights": {
            name: eight_bits(value) for name, value in merged.items() if name.endswith("weight")
        },
        "biases": {
            name: [float(f"{b:.6g}") for b in value.tolist()]
            for name, value in merged.items()
            if name.endswith("bias")
        },
    }


def network(packed: Packed) -> tuple[AlexNet, Augment]:
    """The net that a page computes with, and what its input goes through: the center crop minus the
    mean image."""
    size = packed["image_size"]
    net = AlexNet(packed["preset"], len(packed["names"]), packed["width"], size)
    weights = {name: unpack(value) for name, value in packed["weights"].items()}
    net.load_merged(
        weights | {name: torch.tensor(value) for name, value in packed["biases"].items()}
    )
    mean = (
        np.frombuffer(base64.b64decode(packed["mean"]), np.uint8)
        .reshape(size, size, 3)
        .astype(np.float32)
    )
    return net.eval(), CenterMean(mean, size)


class CenterMean(Augment):
    """Center crops of images of any size, minus a mean image of the crop's size."""

    def __init__(self, mean: np.ndarray, size: int):
        super().__init__(Recipe(mean="center"), mean, size)

    def views(self, images: torch.Tensor, count: int = 1) -> Iterator[torch.Tensor]:
        edge = (images.shape[1] - self.size) // 2
        yield self.view(images, edge, edge, False)


def unpack(packed: Packed) -> torch.Tensor:
    """The weights, float32, that bytes and scales stand for."""
    values = (
        np.frombuffer(base64.b64decode(packed["bytes"]), np.int8)
        .reshape(packed["shape"])
        .astype(np.float32)
    )
    scales = np.array(packed["scales"], np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return torch.from_numpy(values * scales)


def eight_bits(weight: torch.Tensor) -> Packed:
    """weight (out, ...): bytes in -127..127 and, for each output unit, what one step is worth."""
    weight = weight.detach().float().cpu()
    largest = weight.flatten(1).abs().amax(1).clamp_min(1e-12)
    scales = [float(f"{value:.6g}") for value in (largest / 127).tolist()]
    steps = (
        (weight / torch.tensor(scales).reshape(-1, *[1] * (weight.dim() - 1)))
        .round()
        .clamp(-127, 127)
        .to(torch.int8)
    )
    return {
        "shape": list(weight.shape),
        "scales": scales,
        "bytes": base64.b64encode(steps.numpy().tobytes()).decode(),
    }


def table(result: dict[str, Any]) -> Table:
    """Test errors from one view, of the nets and of the one that the pages have."""
    rows = [
        [seed, f"{one['one_view']:.1%}", f"{one['one_view_8_bit']:.1%}" if len(one) > 3 else ""]
        for seed, one in result["metrics"]["errors"].items()
    ]
    return Table(["seed", "test error, one view", "in eight bits"], rows)


def plot(result: dict[str, Any]) -> Figure:
    """conv1's kernels, a row for each seed, each kernel on its own scale around gray."""
    found = {
        seed: unpack(packed).permute(0, 2, 3, 1).numpy()
        for seed, packed in result["metrics"]["conv1"]["kernels"].items()
    }
    across = len(next(iter(found.values())))
    figure, panels = plt.subplots(
        len(found),
        across,
        figsize=(0.6 * across, 0.8 * len(found)),
        layout="constrained",
        squeeze=False,
    )
    for row, (seed, kernels) in zip(panels, found.items()):
        row[0].set_title(f"seed {seed}", fontsize=8, loc="left")
        for panel, kernel in zip(row, kernels):
            panel.imshow(
                0.5 + 0.5 * kernel / (np.abs(kernel).max() or 1.0), interpolation="nearest"
            )
            panel.axis("off")
    return figure
