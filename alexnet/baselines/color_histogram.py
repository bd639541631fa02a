"""A control for Table 1: how far do colors alone go? A joint RGB histogram of each image, and the linear classifier of the other rows.

On pictographs it should stay at chance, for there the shape carries the class. On photographs of things it does not.
"""

import numpy as np

from alexnet.baselines import pipeline
from alexnet.data.pack import Pack, held_out

ROW = "colors alone"


def color_histogram_errors(
    splits: dict[str, Pack], *, bins: int = 8, limit: int = 20_000
) -> dict[str, float | int | str]:
    """Top-1 and top-5 error, 0..1, of a linear classifier over colors, on test (else val), with sample sizes and chance's errors.

    splits: as `open_splits` gives; bins: per channel; limit: training images at most, evenly spread.
    Raises InputError without a second split.
    """
    reported = held_out(splits, ROW)
    samples = {
        "train": pipeline.sample(splits["train"], limit),
        reported: pipeline.sample(splits[reported], len(splits[reported])),
    }
    if reported == "test" and "val" in splits:
        samples["val"] = pipeline.sample(splits["val"], len(splits["val"]))
    found = {
        name: (pipeline.unit(histograms(one.pack, one.indices, bins)), one.labels)
        for name, one in samples.items()
    }
    _, chosen = pipeline.fit(found["train"], None if reported == "val" else found.get("val"), ROW)
    classes = len(splits["train"].classes)
    measured = pipeline.measure(chosen.classifier, *found[reported], classes)
    return {
        "top1_error": measured.top1,
        "top5_error": measured.top5,
        "chance_top1_error": 1 - 1 / classes,
        "chance_top5_error": max(0.0, 1 - 5 / classes),
        "split": reported,
        "test_images": len(samples[reported]),
        "train_images": len(samples["train"]),
        "bins": bins**3,
    }


def histograms(pack: Pack, indices: np.ndarray, bins: int) -> np.ndarray:
    """Square roots of the joint RGB frequencies of the images at `indices` (n,): float32 (n, bins^3), rows of length 1."""
    out = np.empty((len(indices), bins**3), np.float32)
    for begin in range(0, len(indices), 256):
        levels = (
            pack.gather(indices[begin : begin + 256]).astype(np.int32) * bins // 256
        )  # (n, S, S, 3), 0..bins-1
        cells = (levels @ np.array([bins * bins, bins, 1], np.int32)).reshape(len(levels), -1)
        for row, image in enumerate(cells, begin):
            out[row] = np.bincount(image, minlength=bins**3)
    return np.sqrt(out / (pack.size * pack.size))
