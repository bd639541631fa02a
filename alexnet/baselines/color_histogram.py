"""A control for the embedded data set: how far do colors alone go? A joint RGB histogram per image, and logistic regression over it.

On pictographs it should stay at chance, for there the shape carries the class. On photographs of things it does not.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression

from alexnet.data.pack import Pack
from alexnet.errors import InputError


def color_histogram_errors(splits: dict[str, Pack], *, bins: int = 8, limit: int = 20_000) -> dict[str, float | int | str]:
    """Top-1 and top-5 error, 0..1, of a linear classifier over colors, on test (else val), with sample sizes and chance's errors.

    splits: as `open_splits` gives; bins: per channel; limit: training images at most, evenly spread.
    Raises InputError without a second split.
    """
    held_out = next((name for name in ("test", "val") if name in splits), None)
    if held_out is None or "train" not in splits:
        raise InputError(f"color histograms need train and test or val; there is {', '.join(splits)}: prepare a source with splits")
    train, test = splits["train"], splits[held_out]
    chosen = np.linspace(0, len(train) - 1, min(limit, len(train))).astype(np.int64)
    model = LogisticRegression(C=10.0, max_iter=100, tol=1e-3).fit(histograms(train, chosen, bins), train.labels[chosen])
    scores = model.decision_function(histograms(test, np.arange(len(test)), bins))
    if scores.ndim == 1:  # scikit-learn gives two classes one column
        scores = np.stack([-scores, scores], axis=1)
    best = model.classes_[np.argsort(-scores, axis=1, kind="stable")[:, :5]]
    hits = best == test.labels[:, None]
    return {
        "top1_error": float(1 - hits[:, 0].mean()),
        "top5_error": float(1 - hits.any(axis=1).mean()),
        "chance_top1_error": 1 - 1 / len(train.classes),
        "chance_top5_error": max(0.0, 1 - 5 / len(train.classes)),
        "split": held_out,
        "test_images": len(test),
        "train_images": len(chosen),
        "bins": bins**3,
    }


def histograms(pack: Pack, indices: np.ndarray, bins: int) -> np.ndarray:
    """Square roots of the joint RGB frequencies of the images at `indices` (n,): float32 (n, bins^3), rows of length 1."""
    out = np.empty((len(indices), bins**3), np.float32)
    for begin in range(0, len(indices), 256):
        levels = pack.gather(indices[begin:begin + 256]).astype(np.int32) * bins // 256  # (n, S, S, 3), 0..bins-1
        cells = (levels @ np.array([bins * bins, bins, 1], np.int32)).reshape(len(levels), -1)
        for row, image in enumerate(cells, begin):
            out[row] = np.bincount(image, minlength=bins**3)
    return np.sqrt(out / (pack.size * pack.size))
