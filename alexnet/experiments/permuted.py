"""Why may the pixels of an image not be put in another order? A convolutional net is built on which pixels are neighbors (section 1 of the
paper), and so are the crops and reflections of section 4.1.

Two arms see the same pixels and differ in nothing else: in one, every image, in training and in testing, has its pixels rearranged by one
and the same permutation. Nothing is lost by that: it can be undone, and whatever treats all pixels alike, a histogram of colors or a fully
connected layer, cannot even notice. Both arms train on whole images, without crops and reflections.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from alexnet import evaluation, rng
from alexnet.data.pack import Pack, open_splits
from alexnet.data.pack_writer import PackWriter
from alexnet.experiments import models
from alexnet.files import new_folder
from alexnet.profiles import Profile
from alexnet.training import load_run, log

ARMS = {
    "as they are": "pixels where they are",
    "permuted": "pixels rearranged by one fixed permutation",
}
WINDOW = 50  # steps that a loss is averaged over


def order(size: int) -> np.ndarray:
    """The permutation of the pixels of a `size` x `size` image: pixel i of the permuted image, row by row, is pixel order[i]."""
    return rng.permutation(rng.key(rng.ORDER, 2012), size * size).numpy()


def permute(images: np.ndarray) -> np.ndarray:
    """uint8 (N, S, S, 3), each image's pixels in the new order; colors stay together."""
    n, size = images.shape[:2]
    return images.reshape(n, size * size, 3)[:, order(size)].reshape(images.shape)


def neighbors(images: np.ndarray) -> float:
    """The correlation of a pixel with its right neighbor, within an image and a channel, over all of `images` (N, S, S, 3)."""
    around = images - images.mean((1, 2), keepdims=True)
    return float(np.corrcoef(around[:, :, :-1].ravel(), around[:, :, 1:].ravel())[0, 1])


def shuffled(packs: dict[str, Pack], out: Path) -> dict[str, Pack]:
    """Packs of the permuted images, in `out`, made on first use."""
    if not out.exists():
        with new_folder(out) as folder:
            for split, pack in packs.items():
                (folder / split).mkdir()
                writer = PackWriter(folder / split, pack.size, len(pack))
                for begin in range(0, len(pack), 256):
                    ids = np.arange(begin, min(begin + 256, len(pack)))
                    writer.append(permute(pack.gather(ids)), pack.labels[ids].tolist())
                writer.finish(pack.classes, pack.names, source={"permuted": pack.digest})
    return open_splits(out)


def config(profile: Profile) -> dict[str, Any]:
    return {"permuted": profile["permuted"], "arms": list(ARMS), "window": WINDOW}


def nets(profile: Profile, seeds: list[int]) -> list[models.Planned]:
    return list(_jobs(profile, seeds).values())


def _jobs(profile: Profile, seeds: list[int]) -> dict[tuple[str, int], models.Planned]:
    settings, packs = profile["permuted"], profile.splits("permuted")
    fields = {name: settings[name] for name in ("width", "batch_size", "rate", "epochs")}
    by_arm = {
        "as they are": packs,
        "permuted": shuffled(
            packs, profile.runs / "data" / f"permuted-{packs['test'].digest[:16]}"
        ),
    }
    return {
        (arm, seed): (
            models.configure(
                profile, settings["preset"], splits={"train": own["train"]}, seed=seed, **fields
            ),
            own,
        )
        for arm, own in by_arm.items()
        for seed in seeds
    }


def run(profile: Profile, seeds: list[int]) -> dict[str, Any]:
    jobs = _jobs(profile, seeds)
    trained = dict(
        zip(jobs, models.train_planned(profile, list(jobs.values()), title="permuted"), strict=True)
    )
    arms: dict[str, dict[str, Any]] = {}
    for arm in ARMS:
        own = jobs[arm, seeds[0]][1]
        found: dict[str, Any] = {"test_top1": {}, "train_error": {}, "loss": {}}
        for seed in seeds:
            path = trained[arm, seed]
            net, augment, _ = load_run(path)
            losses = [row["loss"] for row in log.read(path, "step")]
            found["test_top1"][str(seed)] = round(
                evaluation.evaluate(net, own["test"], augment).top1, 4
            )
            found["train_error"][str(seed)] = round(
                [row["error"] for row in log.read(path, "epoch")][-1], 4
            )
            found["loss"][str(seed)] = [
                round(sum(losses[i : i + WINDOW]) / WINDOW, 4)
                for i in range(0, len(losses) - WINDOW + 1, WINDOW)
            ]
        arms[arm] = found | {
            "neighbors": round(neighbors(own["test"].gather(np.arange(len(own["test"])))), 4)
        }
    packs = profile.splits("permuted")
    sizes = {
        "classes": len(packs["test"].classes),
        "images": len(packs["train"]),
        "test_images": len(packs["test"]),
    }
    return {**sizes, "window": WINDOW, "arms": arms}


def plot(result: dict[str, Any]) -> Figure:
    """Training loss by step; thin lines are further seeds."""
    metrics = result["metrics"]
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    for color, (arm, what) in zip(("C0", "C3"), ARMS.items(), strict=True):
        for i, losses in enumerate(metrics["arms"][arm]["loss"].values()):
            at = [metrics["window"] * (k + 1) for k in range(len(losses))]
            axes.plot(
                at,
                losses,
                color=color,
                lw=1.4,
                alpha=0.9 if i == 0 else 0.4,
                label=what if i == 0 else None,
            )
    axes.axhline(np.log(metrics["classes"]), color="gray", ls=":", lw=1)
    axes.text(
        0,
        np.log(metrics["classes"]),
        f"ln {metrics['classes']}",
        fontsize=8,
        color="gray",
        va="bottom",
    )
    axes.set(xlabel="step", ylabel="training loss, nats", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    return figure
