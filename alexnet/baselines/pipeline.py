"""What the rows of Table 1 that are not CNNs share: features of many images, in parallel and resumable, then a linear classifier.

The classifier is a multinomial logistic regression: one setting, and probabilities, so that top-5 is as well defined as top-1. Its
regularization is chosen by the top-1 error on val, or on every fifth training image where a pack has no val to spare; never on test.
"""

import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from alexnet.data.pack import Pack, held_out
from alexnet.evaluation import Errors, errors
from alexnet.processes import Crashed, cores, crew

CHUNK = 64  # images of a task
SPREAD = 512  # images a process at least: starting one takes as long as some hundred
COST = (
    1e-2  # where the search for scikit-learn's C begins, for features whose root mean square is 1
)
STEPS = 5  # of ten, that the search goes from there at most, either way
ITERATIONS = 100  # of L-BFGS at most
TOLERANCE = 4e-3  # of the gradient's largest entry, times the number of classes: a gradient shrinks as they grow

_line: int | None = None  # of the terminal, for the bars of a process among others


def use_line(line: int | None) -> None:
    """Let this process's bars take a line of the terminal."""
    global _line
    _line = line


def bar(*what: Any, **options: Any) -> tqdm:
    """A progress bar on this process's line of the terminal, where there is one."""
    return tqdm(*what, position=_line, **{"disable": None} | options)


class Encoder(Protocol):
    """What turns images into features, once it has been learned."""

    def arrays(self) -> dict[str, np.ndarray]:
        """What was learned, by name."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 (n, S, S, 3), RGB, to float32 (n, D): rows whose root mean square is 1."""


@dataclass(frozen=True)
class Sample:
    """Which images of a pack are looked at, in the pack's order."""

    pack: Pack
    indices: np.ndarray  # (n,)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> np.ndarray:
        return self.pack.labels[self.indices]


def sample(pack: Pack, limit: int) -> Sample:
    """At most `limit` images, evenly spread."""
    return Sample(pack, np.linspace(0, len(pack) - 1, min(limit, len(pack))).astype(np.int64))


def row_errors(
    row: str,
    splits: dict[str, Pack],
    learn: Callable[[Sample], Encoder],
    restore: Callable[[dict[str, np.ndarray]], Encoder],
    *,
    train_images: int,
    test_images: int,
    folder: Path | None = None,
) -> dict[str, Any]:
    """A row's errors, shares of 1, on test (else val), with sample sizes and what was chosen.

    learn: the encoder from training images; restore: the same from its arrays. train_images, test_images: of each split at most, evenly
    spread over it. folder: where work is kept until the row is done, so that after an interruption it goes on; None: nowhere.
    """
    reported = held_out(splits, row)
    samples = {"train": sample(splits["train"], train_images)}
    if reported == "test" and "val" in splits:
        samples["val"] = sample(splits["val"], test_images)
    samples[reported] = sample(splits[reported], test_images)
    with _kept(folder) as work:
        encoder = _learned(work / "encoder.npz", row, samples["train"], learn, restore)
        found = features(row, samples, encoder, work)
        spare = (
            (found["val"], samples["val"].labels)
            if reported == "test" and "val" in samples
            else None
        )
        chosen_on, chosen = fit((found["train"], samples["train"].labels), spare, row)
        measured = measure(
            chosen.classifier,
            found[reported],
            samples[reported].labels,
            len(splits["train"].classes),
        )
    return {
        "top1": round(measured.top1, 5),
        "top5": round(measured.top5, 5),
        "nll": round(measured.nll, 5),
        "split": reported,
        "test_images": len(samples[reported]),
        "train_images": len(samples["train"]),
        "features": int(found["train"].shape[1]),
        "chosen_on": chosen_on,
        "cost": chosen.cost,
        "top1_by_cost": {str(cost): round(error, 5) for cost, error in chosen.top1.items()},
    }


@contextmanager
def _kept(folder: Path | None) -> Iterator[Path]:
    """`folder`, which stays where the block is left by an exception, or a temporary one."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder)


def _learned(path: Path, row: str, train: Sample, learn: Callable, restore: Callable) -> Encoder:
    if not path.exists():
        with threadpool_limits(1):  # one thread, so that the bits do not hang on how many there are
            arrays = learn(train).arrays()
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, **arrays)
        part.rename(path)
    with np.load(path) as arrays:
        return restore(dict(arrays))


# --- features -----------------------------------------------------------------------------------------------------------------------------


def features(
    row: str, samples: dict[str, Sample], encoder: Encoder, folder: Path
) -> dict[str, np.ndarray]:
    """The features of each sample, float32 (n, D), mapped from files in `folder`: memory does not grow with their number.

    A file grows by whole chunks of images, and goes on from there after an interruption. Says on stderr how long it will take.
    """
    with threadpool_limits(1):
        began = time.monotonic()
        few = samples["train"].indices[:: max(1, len(samples["train"]) // 16)][:16]
        width = encoder(samples["train"].pack.gather(few)).shape[1]
        each = (time.monotonic() - began) / len(few)
    chunk_bytes = CHUNK * width * 4
    paths = {name: folder / f"{name}.f32" for name in samples}
    done = {
        name: paths[name].stat().st_size // chunk_bytes * CHUNK if paths[name].exists() else 0
        for name in samples
    }
    done = {
        name: len(one)
        if paths[name].exists() and paths[name].stat().st_size == len(one) * width * 4
        else done[name]
        for name, one in samples.items()
    }
    left = sum(map(len, samples.values())) - sum(done.values())
    workers = min(cores(), left // SPREAD + 1)
    if left >= 1000:
        tqdm.write(
            f"{row}: {left:,} images, about {_duration(each * left / workers)} for their features",
            file=sys.stderr,
        )
    with (
        crew(workers) as ordered_map,
        bar(total=left, desc=row, unit=" images", disable=None if left else True) as done_so_far,
    ):
        for name, one in samples.items():
            rest = one.indices[done[name] :]
            tasks = [rest[i : i + CHUNK] for i in range(0, len(rest), CHUNK)]
            with paths[name].open("ab") as file:
                file.truncate(done[name] * width * 4)
                for rows in ordered_map(partial(_encode, encoder, one.pack), tasks):
                    if isinstance(rows, Crashed):
                        raise RuntimeError(
                            f"{row}: a process died of images {rows.item[0]} to {rows.item[-1]} of {one.pack.path}"
                        )
                    file.write(rows.data)
                    done_so_far.update(len(rows))
    return {
        name: np.memmap(paths[name], np.float32, "r", shape=(len(one), width))
        for name, one in samples.items()
    }


def _encode(encoder: Encoder, pack: Pack, indices: np.ndarray) -> np.ndarray:
    with threadpool_limits(1):
        rows = encoder(pack.gather(indices))
    assert rows.dtype == np.float32 and len(rows) == len(indices)
    return np.ascontiguousarray(rows)


def unit(features: np.ndarray) -> np.ndarray:
    """Rows of `features` (n, D) scaled to a root mean square of 1; a row of zeros stays. float32."""
    length = np.sqrt((features.astype(np.float64) ** 2).mean(axis=1, keepdims=True))
    return np.divide(features, length, out=np.zeros(features.shape), where=length > 0).astype(
        np.float32
    )


def _duration(seconds: float) -> str:
    if seconds >= 90:
        return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.0f} minutes"
    return f"{max(seconds, 1):.0f} seconds"


# --- classifier ---------------------------------------------------------------------------------------------------------------------------


Labeled = tuple[np.ndarray, np.ndarray]  # features (n, D), labels (n,)


@dataclass(frozen=True)
class Choice:
    cost: float
    classifier: LogisticRegression
    top1: dict[float, float]  # the error of each cost tried


def fit(train: Labeled, spare: Labeled | None, row: str = "") -> tuple[str, Choice]:
    """A classifier of `train`, its cost chosen on `spare`; where there is none, on every fifth training image, which it then learns too.
    Gives also which of the two it was, in words."""
    with (
        warnings.catch_warnings(),
        threadpool_limits(1),
    ):  # one thread, so that the bits do not hang on how many there are
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # a bound on the iterations regularizes too
        if spare:
            return "val", choose(*train, *spare, row)
        x, y = train
        fifth = np.arange(len(y)) % 5 == 4
        chosen = choose(x[~fifth], y[~fifth], x[fifth], y[fifth], row)
        return "every fifth training image", replace(chosen, classifier=_fit(x, y, chosen.cost))


def choose(
    x: np.ndarray, y: np.ndarray, other_x: np.ndarray, other_y: np.ndarray, row: str = ""
) -> Choice:
    """The cost whose classifier, fitted to x (n, D) and y (n,), has the lowest top-1 error on the other images; the smallest of equals.

    The search begins around `COST` and goes on by tens until both neighbors of the best have been tried, so that the best is not
    whatever lies at the end of a list.
    """
    found: dict[int, tuple[LogisticRegression, float]] = {}  # by power of ten
    classes = int(max(y.max(), other_y.max())) + 1
    wanted = [-1, 0, 1]
    with (  # side by side: two threads make one fit no faster than one does
        ThreadPoolExecutor(min(cores(), len(wanted))) as pool,
        bar(total=len(wanted), desc=f"{row}: classifiers", unit=" fit", leave=False) as fits,
    ):
        while wanted:
            for step, classifier in zip(
                wanted, pool.map(lambda step: _fit(x, y, _cost(step)), wanted), strict=True
            ):
                found[step] = classifier, measure(classifier, other_x, other_y, classes).top1
                fits.update()
            best = min(sorted(found), key=lambda step: found[step][1])
            wanted = [
                step for step in (best - 1, best + 1) if step not in found and abs(step) <= STEPS
            ]
            fits.total += len(wanted)
    return Choice(
        _cost(best), found[best][0], {_cost(step): found[step][1] for step in sorted(found)}
    )


def _cost(step: int) -> float:
    return float(f"{COST * 10.0**step:.1e}")  # a decimal, whatever the product's last bit


def _fit(x: np.ndarray, y: np.ndarray, cost: float) -> LogisticRegression:
    return LogisticRegression(C=cost, max_iter=ITERATIONS, tol=TOLERANCE / len(np.unique(y))).fit(
        x, y
    )


def measure(classifier: LogisticRegression, x: np.ndarray, y: np.ndarray, classes: int) -> Errors:
    """Errors on x (n, D), y (n,) among `classes`; those that the classifier has never seen have no probability."""
    probabilities = np.zeros((len(y), classes), np.float32)
    for begin in range(0, len(y), 1024):
        probabilities[begin : begin + 1024, classifier.classes_] = classifier.predict_proba(
            x[begin : begin + 1024]
        )
    return errors(torch.from_numpy(probabilities), torch.from_numpy(np.asarray(y, np.int64)))
