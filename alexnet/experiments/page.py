"""The net that runs inside the book's pages: narrow, trained on ten pictographs, its weights rounded to eight bits.

The archive holds the weights themselves, in the layout of one device, and conv1's kernels of every seed. `scripts/widget_data.py` writes
them for the pages; tests/test_widgets.py holds the pages' arithmetic to `network` here.
"""

import base64
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from alexnet import evaluation
from alexnet.data.augment import Augment
from alexnet.experiments import models
from alexnet.network import AlexNet
from alexnet.presets import Recipe
from alexnet.profiles import Profile
from alexnet.training import load_run

Packed = dict[str, Any]


def config(profile: Profile) -> dict[str, Any]:
    return {"page": profile["page"], "net": profile.net}


def nets(profile: Profile, seeds: list[int]) -> list[models.Planned]:
    settings, splits = profile["page"], profile.splits("page")
    fields = {name: settings[name] for name in ("width", "epochs")}
    return [
        (models.configure(profile, settings["preset"], splits=splits, seed=seed, **fields), splits)
        for seed in seeds
    ]


def run(profile: Profile, seeds: list[int]) -> dict[str, Any]:
    settings, splits = profile["page"], profile.splits("page")
    errors: dict[str, Any] = {}
    kernels: dict[str, Packed] = {}
    rounded: Packed = {}
    for seed, path in zip(
        seeds, models.train_planned(profile, nets(profile, seeds), title="page"), strict=True
    ):
        net, augment, _ = load_run(path)
        full = evaluation.evaluate(net, splits["test"], augment)
        found = {
            "one_view": round(full.top1, 4),
            "epochs": models.summary(path)["epochs"],
            "falls": models.summary(path)["falls"],
        }
        if seed == seeds[0]:
            rounded = pack(net, augment, splits["test"].names)
            coarse, center = network(rounded)
            found["one_view_8_bit"] = round(
                evaluation.evaluate(coarse, splits["test"], center).top1, 4
            )
        errors[str(seed)] = found
        kernels[str(seed)] = eight_bits(net.export_merged()["conv1.weight"])
    sizes = {
        "images": len(splits["test"]),
        "train_images": len(splits["train"]),
        "classes": len(splits["test"].classes),
    }
    return {
        **sizes,
        "errors": errors,
        "net": rounded,
        "conv1": {"preset": settings["preset"], "kernels": kernels},
    }


def pack(net: AlexNet, augment: Augment, names: list[str]) -> Packed:
    """A net for a page: weights as signed bytes with one scale for each output unit, biases as they are, the mean image's center in whole
    gray levels."""
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
    """The net that a page computes with, and what its input goes through: the center crop minus the mean image."""
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
