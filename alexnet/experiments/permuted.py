"""Why may the pixels of an image not be put in another order? A convolutional net is built on which
pixels are neighbors (section 1 of the paper), and so are the crops and reflections of section 4.1.

    alexnet reproduce --only permuted --seeds 5

Two arms see the same pixels and differ in nothing else: in one, every image, in training and in
testing, has its pixels rearranged by one and the same permutation. Nothing is lost by that: it can
be undone, and whatever treats all pixels alike, a histogram of colors or a fully connected layer,
cannot even notice. Both arms train on whole images, without crops and reflections.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from alexnet import evaluation, rng
from alexnet.data.pack import Pack, open_splits
from alexnet.data.pack_writer import PackWriter
from alexnet.experiments.jobs import Run, Training, configure, train_only
from alexnet.experiments.protocol import Entry, by_arm, by_kind, common
from alexnet.files import new_folder
from alexnet.profiles import Profile
from alexnet.results import Record
from alexnet.tables import Table
from alexnet.training import log

NAME = "permuted"
VERSION = 1
ARMS = {
    "as they are": "pixels where they are",
    "permuted": "pixels rearranged by one fixed permutation",
}
WINDOW = 50  # steps that a loss is averaged over


def order(size: int) -> np.ndarray:
    """The permutation of the pixels of a `size` x `size` image: pixel i of the permuted image, row
    by row, is pixel order[i]."""
    return rng.permutation(rng.key(rng.ORDER, 2012), size * size).numpy()


def permute(images: np.ndarray) -> np.ndarray:
    """uint8 (N, S, S, 3), each image's pixels in the new order; colors stay together."""
    n, size = images.shape[:2]
    return images.reshape(n, size * size, 3)[:, order(size)].reshape(images.shape)


def neighbors(images: np.ndarray) -> float:
    """The correlation of a pixel with its right neighbor, within an image and a channel, over all
    of `images` (N, S, S, 3)."""
    around = images - images.mean((1, 2), keepdims=True)
    return float(np.corrcoef(around[:, :, :-1].ravel(), around[:, :, 1:].ravel())[0, 1])


def shuffled(packs: dict[str, Pack], out: Path) -> dict[str, Pack]:
    """Packs of the permuted images, in `out`, made on first use."""
    if not out.exists():
        with new_folder(out) as folder:
            for split, pack in packs.items():
                (folder / split).mkdir()
                writer = PackWriter(folder / split, pack.size)
                for begin in range(0, len(pack), 256):
                    ids = np.arange(begin, min(begin + 256, len(pack)))
                    writer.append(permute(pack.gather(ids)), pack.labels[ids].tolist())
                writer.finish(pack.classes, pack.names, source={"permuted": pack.digest})
    return open_splits(out)


def settings(profile: Profile) -> dict[str, Any]:
    profile[NAME]  # says so where there are none
    return {"window": WINDOW}


def entries(profile: Profile, seeds: Sequence[int]) -> list[Entry]:
    own, given, packs = settings(profile), profile[NAME], profile.splits(NAME)
    moved = shuffled(packs, profile.runs / "data" / f"permuted-{packs['test'].digest[:16]}")
    fields = {name: given[name] for name in ("width", "batch_size", "rate", "epochs")}
    made = []
    for arm, images in zip(ARMS, (packs, moved), strict=True):
        train = train_only(images)
        for seed in seeds:
            config = configure(profile, given["preset"], packs=train, seed=seed, **fields)
            job = Training(config, train)
            made.append(Entry(arm, seed, images, (job,), own, tuple(seeds)))
    return made


def measure(entry: Entry, runs: Sequence[Run]) -> dict[str, Any]:
    (run,), test = runs, entry.packs["test"]
    net, augment = run.net()
    return {
        "classes": len(test.classes),
        "images": len(entry.packs["train"]),
        "test_images": len(test),
        "test_top1": round(evaluation.evaluate(net, test, augment).top1, 4),
        "train_error": round(run.rows("epoch", "error")[-1], 4),
        "loss": [round(mean, 4) for mean in log.means(run.losses, WINDOW)],
        "neighbors": round(neighbors(test.gather(np.arange(len(test)))), 4),
    }


def collect(records: Sequence[Record]) -> dict[str, Any]:
    sizes = common([r["metrics"] for r in records], "classes", "images", "test_images")
    arms = {
        arm: by_kind(by_seed, ("test_top1", "train_error", "loss"))
        | common(by_seed.values(), "neighbors")
        for arm, by_seed in by_arm(records, ARMS).items()
    }
    return {**sizes, "window": WINDOW, "arms": arms}


def table(result: dict[str, Any]) -> Table:
    """Errors of both arms, seed by seed."""
    metrics, rows = result["metrics"], []
    for arm, what in ARMS.items():
        test, train = (
            "  ".join(f"{error:.1%}" for error in metrics["arms"][arm][kind].values())
            for kind in ("test_top1", "train_error")
        )
        rows.append([what, test, train])
    note = f"chance: {1 - 1 / metrics['classes']:.0%}"
    return Table(["seed by seed", "test error", "training error"], rows, [note])


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
