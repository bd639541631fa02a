"""A control for Table 1: how far do colors alone go? A joint RGB histogram of each image, and the
linear classifier of the other rows.

On pictographs it should stay at chance, for there the shape carries the class. On photographs of
things it does not.
"""

import sys

import numpy as np

from alexnet.baselines import pipeline
from alexnet.data.pack import Pack

ROW = "colors alone"


def color_histogram_errors(
    splits: dict[str, Pack], *, bins: int = 8, limit: int = 20_000
) -> dict[str, float | int | str]:
    """Errors of a linear classifier over colors, 0..1, on test (else val), with sample sizes and
    chance's errors.

    Args:
        splits: As `open_splits` gives.
        bins: Per channel.
        limit: Training images at most, evenly spread.

    Raises:
        InputError: There is no second split.
    """
    reported, samples = pipeline.samples(ROW, splits, limit, sys.maxsize)
    features = {
        name: pipeline.unit(histograms(one.pack, one.indices, bins))
        for name, one in samples.items()
    }
    result, _ = pipeline.classify(ROW, reported, samples, features)
    classes = len(splits["train"].classes)
    return {
        "top1_error": result.top1,
        "top5_error": result.top5,
        "chance_top1_error": 1 - 1 / classes,
        "chance_top5_error": max(0.0, 1 - 5 / classes),
        "split": reported,
        "test_images": len(samples[reported]),
        "train_images": len(samples["train"]),
        "bins": bins**3,
    }


def histograms(pack: Pack, indices: np.ndarray, bins: int) -> np.ndarray:
    """Square roots of the joint RGB frequencies of the images at `indices` (n,): float32
    (n, bins^3), rows of length 1.

    Args:
        pack: The images.
        indices: Their numbers in the pack, int64 (n,).
        bins: Of each channel.
    """
    out = np.empty((len(indices), bins**3), np.float32)
    for begin in range(0, len(indices), 256):
        images = pack.gather(indices[begin : begin + 256])
        levels = images.astype(np.int32) * bins // 256  # (n, S, S, 3), 0..bins-1
        cells = (levels @ np.array([bins * bins, bins, 1], np.int32)).reshape(len(levels), -1)
        for row, image in enumerate(cells, begin):
            out[row] = np.bincount(image, minlength=bins**3)
    return np.sqrt(out / (pack.size * pack.size))
