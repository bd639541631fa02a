"""Why may the pixels of an image not be put in another order? A convolutional net is built on which
pixels are neighbors (section 1 of the paper), and so are the crops and reflections of section 4.1.

    alexnet reproduce --only permuted --seeds 5

Two arms see the same pixels and differ in nothing else: in one, every image, in training and in
testing, has its pixels rearranged by one and the same permutation. Nothing is lost by that: it can
be undone, and whatever treats all pixels alike, a histogram of colors or a fully connected layer,
cannot even notice. Both arms train on whole images, without crops and reflections.
"""

from pathlib import Path

import numpy as np

from alexnet import evaluation, rng
from alexnet.data.pack import Pack, open_splits
from alexnet.data.pack_writer import PackWriter
from alexnet.experiments.jobs import Run, train_only, training_job
from alexnet.experiments.protocol import (
    Entry,
    Metrics,
    Profile,
    Record,
    Result,
    Table,
    by_arm,
    by_kind,
    common,
    each,
)
from alexnet.experiments.showing import (
    Figure,
    chance_line,
    curves,
    name_chance,
    side_by_side,
    subplots,
)
from alexnet.files import new_folder
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
    """Packs of the permuted images, in `out`, made on first use.

    Args:
        packs: Packs by split.
        out: The folder for the permuted ones.
    """
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


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    given, packs, made = profile[NAME], profile.splits(NAME), []
    moved = shuffled(packs, profile.runs / "data" / f"permuted-{packs['test'].digest[:16]}")
    fields = {name: given[name] for name in ("preset", "width", "batch_size", "rate", "epochs")}
    for arm, images in zip(ARMS, (packs, moved), strict=True):
        for seed in seeds:
            job = training_job(profile, packs=train_only(images), seed=seed, **fields)
            made.append(Entry(arm, seed, images, (job,), {"window": WINDOW}))
    return made


def measure(entry: Entry, runs: list[Run]) -> Metrics:
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


def collect(records: list[Record]) -> Metrics:
    nested, kinds = by_arm(records, ARMS), ("test_top1", "train_error", "loss")
    arms = {
        arm: by_kind(by_seed, kinds) | common(by_seed.values(), "neighbors")
        for arm, by_seed in nested.items()
    }
    sizes = common(each(nested), "classes", "images", "test_images")
    return {**sizes, "window": WINDOW, "arms": arms}


def table(result: Result) -> Table:
    """Errors of both arms, seed by seed."""
    metrics, rows = result["metrics"], []
    for arm, what in ARMS.items():
        own = metrics["arms"][arm]
        errors = [side_by_side(own[kind].values(), ".1%") for kind in ("test_top1", "train_error")]
        rows.append([what, *errors])
    note = f"chance: {1 - 1 / metrics['classes']:.0%}"
    return Table(["seed by seed", "test error", "training error"], rows, [note])


def plot(result: Result) -> Figure:
    """Training loss by step; thin lines are further seeds."""
    metrics = result["metrics"]
    figure, axes = subplots(6, 3)
    for color, (arm, what) in zip(("C0", "C3"), ARMS.items(), strict=True):
        losses, style = metrics["arms"][arm]["loss"], {"color": color, "lw": 1.4, "alpha": 0.9}
        curves(axes, losses, metrics["window"], what, {"alpha": 0.4}, **style)
    chance_line(axes, metrics["classes"])
    name_chance(axes, metrics["classes"], 0)
    axes.set(xlabel="step", ylabel="training loss, nats", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    return figure
