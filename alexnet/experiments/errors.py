"""Test errors from one view and from ten, of both presets and of two ablations (sections 3.3, 3.4, 4.1 and 6 of the paper); conv1's kernels
(Figure 3)."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from alexnet import evaluation
from alexnet.baselines.color_histogram import color_histogram_errors
from alexnet.claims import interval as interval  # for the chapters
from alexnet.experiments import models
from alexnet.profiles import Profile
from alexnet.training.trainer import load_run

NETS = {
    "paper/sigma-0.03": "the text's net with the source's sigma in conv3-5",
    "source/plateau-rate": "the source's net, by the text's rule for the rate",
    "paper/sigma-0.03/no-lrn": "without response normalization",
    "paper/sigma-0.03/no-overlap": "with pooling that does not overlap",
}
BASE = "paper/sigma-0.03"  # what the ablations are compared with, and whose kernels are drawn
ABLATIONS = {f"{BASE}/no-lrn": "response normalization", f"{BASE}/no-overlap": "overlapping pooling"}


def config(profile: Profile) -> dict[str, Any]:
    digests = {name: pack.digest for name, pack in profile.splits().items()}
    return {"errors": profile["errors"], "net": profile.net, "nets": list(NETS), "data": digests}


def run(profile: Profile, seeds: list[int]) -> dict[str, Any]:
    splits = profile.splits()
    jobs = {(net, seed): models.configure(profile, net, seed=seed, epochs=profile["errors"]["epochs"]) for seed in seeds for net in NETS}
    trained = dict(zip(jobs, models.train_all(profile, list(jobs.values()), title="errors"), strict=True))
    found: dict[str, dict[str, Any]] = {net: {} for net in NETS}
    for (name, seed), path in trained.items():
        net, augment, _ = load_run(path)
        by_view = {}
        for views in (1, 10):
            errors = evaluation.evaluate(net, splits["test"], augment, views)
            by_view[str(views)] = {"top1": round(errors.top1, 5), "top5": round(errors.top5, 5), "nll": round(errors.nll, 5)}
        summary = models.summary(path)
        found[name][str(seed)] = {"views": by_view, "epochs": summary["epochs"], "ended": summary["ended"], "falls": summary["falls"]}
    first = load_run(trained[BASE, seeds[0]])[0].export_merged()["conv1.weight"].numpy()  # (maps, 3, 11, 11)
    largest = float(np.abs(first).max())
    return {
        "images": len(splits["test"]),
        "train_images": len(splits["train"]),
        "classes": len(splits["test"].classes),
        "nets": found,
        "color_histogram": color_histogram_errors(splits),
        # in 1/127 of the largest weight: enough to draw and to measure
        "conv1": {"net": BASE, "seed": seeds[0], "largest": largest, "kernels": np.round(first / largest * 127).astype(int).tolist()},
    }


def differences(result: dict[str, Any], ablation: str, views: int = 1, what: str = "top1") -> list[float]:
    """The ablation's error minus the full net's, seed by seed, in percentage points."""
    nets = result["metrics"]["nets"]
    return [100 * (nets[ablation][seed]["views"][str(views)][what] - full["views"][str(views)][what]) for seed, full in nets[BASE].items()]


def kernels(result: dict[str, Any]) -> np.ndarray:
    """conv1's learned kernels, float (columns, maps per column, 11, 11, 3)."""
    stored = result["metrics"]["conv1"]
    weights = np.array(stored["kernels"], float) * stored["largest"] / 127
    return weights.reshape(2, -1, *weights.shape[1:]).transpose(0, 1, 3, 4, 2)


def colorfulness(weights: np.ndarray) -> np.ndarray:
    """Of kernels (..., 11, 11, 3): the share of their energy that lies off the gray axis, 0 (gray, or empty) to 1 (pure color)."""
    energy = (weights**2).sum((-1, -2, -3))
    off = ((weights - weights.mean(-1, keepdims=True)) ** 2).sum((-1, -2, -3))
    return np.divide(off, energy, out=np.zeros_like(energy), where=energy > 0)


def plot(result: dict[str, Any]) -> Figure:
    """Figure 3: conv1's kernels, one block a column, each kernel on its own scale around gray."""
    both = kernels(result)
    across = 6
    down = -(-both.shape[1] // across)
    figure, panels = plt.subplots(2 * down, across, figsize=(5.2, 0.95 * 2 * down), layout="constrained")
    for column, block in enumerate(both):
        for i, kernel in enumerate(block):
            panel = panels[column * down + i // across, i % across]
            panel.imshow(0.5 + 0.5 * kernel / (np.abs(kernel).max() or 1.0), interpolation="nearest")
            panel.set_title(f"column {column}" if i == 0 else "", fontsize=8, loc="left")
    for panel in panels.flat:
        panel.axis("off")
    return figure
