"""What the rows of Table 1 that are not CNNs share: features of many images, in parallel and
resumable, then a linear classifier.

The classifier is a multinomial logistic regression: one setting, and probabilities, so that top-5
is as well defined as top-1. Its regularization is chosen by the top-1 error on val, or on every
fifth training image where a pack has no val to spare; never on test.
"""

import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from alexnet.data.pack import Pack, held_out
from alexnet.evaluation import Errors, errors
from alexnet.files import write_whole
from alexnet.processes import Crashed, cores, process_pool
from alexnet.tables import duration

CHUNK = 64  # images of a task
SPREAD = 512  # images a process at least: starting one takes as long as some hundred
COST = 1e-2  # where the search for C begins, for features whose root mean square is 1
FIFTH = "every fifth training image"  # chooses where there is no val to spare
STEPS = 5  # of ten, that the search goes from COST at most, either way
ITERATIONS = 100  # of L-BFGS at most
TOLERANCE = 4e-3  # of the gradient's largest entry, times the number of classes: it shrinks with it

_line: int | None = None  # of the terminal, for the bars of a process among others


def use_line(line: int | None) -> None:
    """Let this process's bars take a line of the terminal."""
    global _line
    _line = line


def bar(*what: Any, **options: Any) -> tqdm:
    """A progress bar on this process's line of the terminal, where there is one.

    Args:
        what: Arguments of tqdm.
        options: The same.
    """
    return tqdm(*what, position=_line, **{"disable": None} | options)


@dataclass(frozen=True)
class Encoder:
    """Turns images into features, by its settings and the arrays that were learned."""

    settings: Any

    def arrays(self) -> dict[str, np.ndarray]:
        """What was learned, by name."""
        names = [field.name for field in fields(self) if field.name != "settings"]
        return {name: getattr(self, name) for name in names}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 (n, S, S, 3), RGB, to float32 (n, D): rows whose root mean square is 1."""
        raise NotImplementedError


@dataclass(frozen=True)
class Sample:
    """Some images of a pack, in its order.

    Args:
        pack: The pack.
        indices: Of the images, int64 (n,).
    """

    pack: Pack
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> np.ndarray:
        return self.pack.labels[self.indices]


def sample(pack: Pack, limit: int) -> Sample:
    """At most `limit` images, evenly spread.

    Args:
        pack: The images.
        limit: 1 or more.
    """
    return Sample(pack, np.linspace(0, len(pack) - 1, min(limit, len(pack))).astype(np.int64))


def samples(
    row: str, splits: dict[str, Pack], train_images: int, test_images: int
) -> tuple[str, dict[str, Sample]]:
    """The split whose errors are reported, and the images of train, of it, and of val if that is
    there to choose by.

    Args:
        row: Named in messages.
        splits: Packs by split.
        train_images: The most that are taken of train.
        test_images: The most that are taken of the others.
    """
    reported = held_out(splits, row)
    limits = {"train": train_images, "val": test_images, reported: test_images}
    return reported, {
        name: sample(splits[name], limit) for name, limit in limits.items() if name in splits
    }


def row_errors(
    row: str,
    splits: dict[str, Pack],
    settings: Callable[..., Any],
    learn: Callable[[Sample, Any, int], Encoder],
    restore: Callable[..., Encoder],
    *,
    seed: int = 0,
    train_images: int = 20_000,
    test_images: int = 10_000,
    folder: Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The errors of a row, shares of 1, with sample sizes and what was chosen.

    Args:
        row: Its name.
        splits: As `open_splits` gives; errors are reported on test, else val.
        settings: Makes the row's settings of `options`.
        learn: Makes the encoder from training images, settings and seed.
        restore: Makes it again from settings and arrays.
        seed: Of what is learned.
        train_images: Images of train at most, evenly spread over it.
        test_images: The same of each other split.
        folder: Where work is kept until the row is done, so that after an interruption it goes on;
            None: nowhere.
        options: Fields of the row's settings.
    """
    chosen = settings(**options)
    reported, chosen_images = samples(row, splits, train_images, test_images)
    with _work_folder(folder) as work:
        path = work / "encoder.npz"
        if not path.exists():
            with threadpool_limits(1):  # the bits do not depend on how many threads there are
                arrays = learn(chosen_images["train"], chosen, seed).arrays()
            write_whole(path, lambda part: _save(part, arrays))
        with np.load(path) as kept:
            encoder = restore(chosen, **kept)
        rows = features(row, chosen_images, encoder, work)
        result, choice = classify(row, reported, chosen_images, rows)
    return result.rounded() | {
        "split": reported,
        "test_images": len(chosen_images[reported]),
        "train_images": len(chosen_images["train"]),
        "features": int(rows["train"].shape[1]),
        "chosen_on": choice.chosen_on,
        "cost": choice.cost,
        "top1_by_cost": {str(cost): round(error, 5) for cost, error in choice.top1.items()},
    }


@contextmanager
def _work_folder(folder: Path | None) -> Iterator[Path]:
    """Give `folder`, which stays where the block is left by an exception, or a temporary one."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder)


def _save(path: Path, arrays: dict[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


# --- features -------------------------------------------------------------------------------------


def features(
    row: str,
    samples: dict[str, Sample],
    encoder: Callable[[np.ndarray], np.ndarray],
    folder: Path,
) -> dict[str, np.ndarray]:
    """The features of each sample, mapped from files: memory does not grow with their number.

    A file grows by whole chunks of images, and goes on from there after an interruption. How long
    it will take is said on stderr.

    Args:
        row: The name of the row.
        samples: By split, with one of train.
        encoder: See `Encoder`.
        folder: Where the files are.

    Returns:
        float32 (n, D), by split.
    """
    with threadpool_limits(1):
        began = time.monotonic()
        few = samples["train"].indices[:: max(1, len(samples["train"]) // 16)][:16]
        width = encoder(samples["train"].pack.gather(few)).shape[1]
        each = (time.monotonic() - began) / len(few)
    paths = {name: folder / f"{name}.f32" for name in samples}
    done = {name: _done(paths[name], len(one), width) for name, one in samples.items()}
    left = sum(map(len, samples.values())) - sum(done.values())
    workers = min(cores(), left // SPREAD + 1)
    if left >= 1000:
        estimate = f"about {duration(each * left / workers)} for their features"
        tqdm.write(f"{row}: {left:,} images, {estimate}", file=sys.stderr)
    with (
        process_pool(workers) as ordered_map,
        bar(total=left, desc=row, unit=" images", disable=None if left else True) as progress,
    ):
        for name, one in samples.items():
            rest = one.indices[done[name] :]
            tasks = [rest[i : i + CHUNK] for i in range(0, len(rest), CHUNK)]
            with paths[name].open("ab") as file:
                file.truncate(done[name] * width * 4)
                for rows in ordered_map(partial(_encode, encoder, one.pack), tasks):
                    if isinstance(rows, Crashed):
                        which = f"images {rows.item[0]} to {rows.item[-1]} of {one.pack.path}"
                        raise RuntimeError(f"{row}: a process died of {which}")
                    file.write(rows.data)
                    progress.update(len(rows))
    return {
        name: np.memmap(paths[name], np.float32, "r", shape=(len(one), width))
        for name, one in samples.items()
    }


def _done(path: Path, count: int, width: int) -> int:
    """How many of `count` images' features a file holds: all, or whole chunks."""
    size = path.stat().st_size if path.exists() else 0
    return count if size == count * width * 4 else size // (CHUNK * width * 4) * CHUNK


def _encode(
    encoder: Callable[[np.ndarray], np.ndarray], pack: Pack, indices: np.ndarray
) -> np.ndarray:
    with threadpool_limits(1):
        rows = encoder(pack.gather(indices))
    assert rows.dtype == np.float32 and len(rows) == len(indices)
    return np.ascontiguousarray(rows)


def unit(features: np.ndarray) -> np.ndarray:
    """Rows of `features` (n, D) scaled to a root mean square of 1; zeros stay. float32."""
    length = np.sqrt((features.astype(np.float64) ** 2).mean(axis=1, keepdims=True))
    scaled = np.divide(features, length, out=np.zeros(features.shape), where=length > 0)
    return scaled.astype(np.float32)


# --- classifier -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """A classifier, and how its regularization was chosen.

    Args:
        cost: scikit-learn's C.
        classifier: Fitted.
        top1: The error of each cost that was tried.
        chosen_on: The images that chose, in words.
    """

    cost: float
    classifier: LogisticRegression
    top1: dict[float, float]
    chosen_on: str = "val"


def classify(
    row: str, reported: str, samples: dict[str, Sample], features: dict[str, np.ndarray]
) -> tuple[Errors, Choice]:
    """Fit a classifier to train, and measure its errors on the split `reported`.

    Its cost is chosen on val; where that is none to spare, on every fifth training image, which the
    classifier then learns too.

    Args:
        row: Named on the progress bar.
        reported: One of the splits.
        samples: Images by split.
        features: Of the same images, float32 (n, D), by split.
    """
    labeled = {name: (features[name], one.labels) for name, one in samples.items()}
    x, y = labeled["train"]
    # One thread, so that the bits do not depend on how many there are.
    with warnings.catch_warnings(), threadpool_limits(1):
        # A bound on the iterations regularizes too.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if "val" in labeled and reported != "val":
            choice = choose(x, y, *labeled["val"], row)
        else:
            fifth = np.arange(len(y)) % 5 == 4
            choice = choose(x[~fifth], y[~fifth], x[fifth], y[fifth], row)
            choice = replace(choice, classifier=_fit(x, y, choice.cost), chosen_on=FIFTH)
    classes = len(samples["train"].pack.classes)
    return measure(choice.classifier, *labeled[reported], classes), choice


def choose(
    x: np.ndarray, y: np.ndarray, other_x: np.ndarray, other_y: np.ndarray, row: str = ""
) -> Choice:
    """The cost whose classifier, fitted to x (n, D) and y (n,), has the lowest top-1 error on the
    other images; the smallest of equals.

    The search begins around `COST` and goes on by tens until both neighbors of the best have been
    tried, so that the best is not whatever lies at the end of a list.

    Args:
        x: Features of the training images, (n, D).
        y: Their labels, (n,).
        other_x: Features of the other images, (m, D).
        other_y: Their labels, (m,).
        row: Named on the progress bar.
    """
    tried: dict[int, tuple[LogisticRegression, float]] = {}  # by power of ten
    classes = int(max(y.max(), other_y.max())) + 1
    steps = [-1, 0, 1]
    with (  # side by side: two threads make one fit no faster than one does
        ThreadPoolExecutor(min(cores(), len(steps))) as pool,
        bar(total=len(steps), desc=f"{row}: classifiers", unit=" fit", leave=False) as fits,
    ):
        while steps:
            classifiers = pool.map(lambda step: _fit(x, y, _cost(step)), steps)
            for step, classifier in zip(steps, classifiers, strict=True):
                tried[step] = classifier, measure(classifier, other_x, other_y, classes).top1
                fits.update()
            best = min(sorted(tried), key=lambda step: tried[step][1])
            neighbors = (best - 1, best + 1)
            steps = [step for step in neighbors if step not in tried and abs(step) <= STEPS]
            fits.total += len(steps)
    top1 = {_cost(step): tried[step][1] for step in sorted(tried)}
    return Choice(_cost(best), tried[best][0], top1)


def _cost(step: int) -> float:
    return float(f"{COST * 10.0**step:.1e}")  # a decimal, whatever the product's last bit


def _fit(x: np.ndarray, y: np.ndarray, cost: float) -> LogisticRegression:
    tolerance = TOLERANCE / len(np.unique(y))
    return LogisticRegression(C=cost, max_iter=ITERATIONS, tol=tolerance).fit(x, y)


def measure(classifier: LogisticRegression, x: np.ndarray, y: np.ndarray, classes: int) -> Errors:
    """Errors on x (n, D), y (n,) among `classes`; those that the classifier has never seen have no
    probability.

    Args:
        classifier: A fitted one.
        x: Features, (n, D).
        y: Labels, (n,).
        classes: How many there are.
    """
    probabilities = np.zeros((len(y), classes), np.float32)
    for begin in range(0, len(y), 1024):
        part = slice(begin, begin + 1024)
        probabilities[part, classifier.classes_] = classifier.predict_proba(x[part])
    return errors(torch.from_numpy(probabilities), torch.from_numpy(np.asarray(y, np.int64)))
