"""Table 1's row of sparse coding: patches, a learned dictionary, sparse codes of dense patches,
spatial max pooling, a linear classifier.

Patches have their mean taken off and their contrast evened, and are whitened (ZCA). The dictionary
is learned by scikit-learn's mini-batch dictionary learning. Dense patches are coded by a soft
threshold, u = sign(d.x) max(|d.x| - t, 0): the lasso's first step, and its solution where the
dictionary is orthonormal. Orthogonal matching pursuit took tens of times as long where it was
tried, and erred more; that the dictionary matters more than the solver, for classification, is the
finding of Coates and Ng (2011). Of all codes in a cell of a spatial pyramid the greatest magnitudes
are kept (Yang et al., 2009).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning

from alexnet.baselines import pipeline
from alexnet.baselines.pipeline import Encoder, Sample
from alexnet.data.pack import Pack
from alexnet.errors import InputError

ROW = "sparse coding"
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
CONTRAST = 10.0  # gray levels squared, added to a patch's variance: flat patches are not blown up
WHITENING = 0.1  # added to the eigenvalues of the patches' covariance
SPARSITY = 1.0  # the dictionary's penalty on the sum of a code's magnitudes


@dataclass(frozen=True)
class Settings:
    """Settings of the row.

    Args:
        patch: Side of a patch, pixels.
        stride: From one patch to the next, pixels.
        levels: The image as it is, halved, quartered ...
        colors: Patches of RGB, not of gray.
        atoms: Of the dictionary.
        patches: That it is learned from.
        threshold: Of the codes.
        cells: A side of each grid that codes are pooled over; each divides the finest.
    """

    patch: int = 8
    stride: int = 2
    levels: int = 2
    colors: bool = False
    atoms: int = 128
    patches: int = 20_000
    threshold: float = 2.0
    cells: Sequence[int] = (1, 2, 4)

    def grids(self, size: int) -> list[int]:
        """How many patches a side there are on each level of an image of `size` pixels; levels too
        small for the finest cells are left out.

        Raises:
            InputError: The image itself is too small.
        """
        sides = [((size >> level) - self.patch) // self.stride + 1 for level in range(self.levels)]
        finest = max(self.cells)
        if sides[0] < finest:
            what = f"images of {size} pixels are too small for {finest} x {finest} cells of patches"
            least = self.patch + self.stride * (finest - 1)
            raise InputError(f"{ROW}: {what}: {least} at least")
        return [side for side in sides if side >= finest]


@dataclass(frozen=True)
class Codes(Encoder):
    """An encoder by sparse codes; P values make a patch.

    Args:
        mean: Of patches, (P,).
        whitening: (P, P).
        dictionary: (atoms, P), rows of length 1.
    """

    mean: np.ndarray
    whitening: np.ndarray
    dictionary: np.ndarray

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 (n, S, S, 3) to float32 (n, levels x cells x atoms); see `Encoder`."""
        settings = self.settings
        sides = settings.grids(images.shape[1])
        # (P, atoms): whitening and correlation in one product
        projection = self.whitening @ self.dictionary.T
        offset = self.mean @ projection
        out = []
        for image in images:
            pooled = []
            levels = pyramid(image, settings.colors, len(sides))
            for level, side in zip(levels, sides, strict=True):
                patches = normalized(patches_of(level, settings.patch, settings.stride))
                codes = patches @ projection - offset
                magnitudes = np.abs(codes, out=codes).reshape(side, side, -1)
                pooled.append(pool(magnitudes, settings.cells))
            out.append(np.concatenate(pooled))
        # The greatest of soft thresholds is the soft threshold of the greatest.
        return pipeline.unit(np.maximum(np.stack(out) - settings.threshold, 0))


def pyramid(image: np.ndarray, colors: bool, levels: int) -> list[np.ndarray]:
    """uint8 (S, S, 3) to float32 (S', S', 3 or 1), each half the one before: means of 2x2 pixels,
    an odd last row or column left out.

    Args:
        image: uint8 (S, S, 3).
        colors: Keep three channels, or make them one.
        levels: How many sizes.
    """
    out = [image.astype(np.float32) if colors else (image @ LUMA)[:, :, None]]
    while len(out) < levels:
        half = len(out[-1]) // 2
        out.append(out[-1][: 2 * half, : 2 * half].reshape(half, 2, half, 2, -1).mean(axis=(1, 3)))
    return out


def patches_of(image: np.ndarray, size: int, stride: int) -> np.ndarray:
    """(S, S, C) to (side x side, C size size), row by row.

    Args:
        image: (S, S, C).
        size: The side of a patch, in pixels.
        stride: Pixels between neighbors.
    """
    windows = sliding_window_view(image, (size, size), axis=(0, 1))[::stride, ::stride]
    # of (side, side, C, size, size)
    return windows.reshape(windows.shape[0] * windows.shape[1], -1)


def normalized(patches: np.ndarray) -> np.ndarray:
    """Patches (n, P) without their mean, over the root of their variance plus CONTRAST."""
    centered = patches - patches.mean(axis=1, keepdims=True)
    variance = np.einsum("np,np->n", centered, centered)[:, None] / patches.shape[1]
    return centered / np.sqrt(variance + CONTRAST)


def pool(codes: np.ndarray, cells: Sequence[int]) -> np.ndarray:
    """Maxima of codes (side, side, atoms) over each cell of each grid: (sum of cells^2 x atoms,).
    Cells differ by a patch where side is no multiple.

    Args:
        codes: (side, side, atoms).
        cells: Of each grid, how many lie side by side.
    """
    finest = max(cells)
    edges = np.linspace(0, len(codes), finest + 1).round().astype(int)[:-1]
    rows = np.maximum.reduceat(codes, edges, axis=0)
    fine = np.maximum.reduceat(rows, edges, axis=1)  # (finest, finest, atoms)
    grids = [
        fine.reshape(each, finest // each, each, finest // each, -1).max(axis=(1, 3))
        for each in cells
    ]
    return np.concatenate([grid.ravel() for grid in grids])


def learn(train: Sample, settings: Settings, seed: int) -> Codes:
    """Mean, whitening and dictionary from `settings.patches` patches of the sample, at random
    places of all levels.

    Args:
        train: Training images.
        settings: Sizes of patches and dictionary, and how many patches.
        seed: Of the draws and the dictionary.
    """
    generator = np.random.default_rng(seed)
    size, levels = settings.patch, len(settings.grids(train.pack.size))
    images = np.sort(generator.permutation(train.indices)[: max(1, settings.patches // 20)])
    each = -(-settings.patches // (len(images) * levels))
    rows = []
    for index in pipeline.bar(images, desc=f"{ROW}: patches", unit=" images", leave=False):
        for level in pyramid(train.pack.gather([index])[0], settings.colors, levels):
            for top, left in generator.integers(0, len(level) - size + 1, (each, 2)):
                patch = level[top : top + size, left : left + size]
                rows.append(patch.transpose(2, 0, 1).ravel())
    patches = normalized(np.array(rows, np.float64))
    mean = patches.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(patches - mean, rowvar=False))
    whitening = (vectors / np.sqrt(np.maximum(values, 0) + WHITENING)) @ vectors.T
    white = (patches - mean) @ whitening
    learner = MiniBatchDictionaryLearning(
        settings.atoms, alpha=SPARSITY, batch_size=256, fit_algorithm="cd", random_state=seed
    )
    batches = [white[i : i + 256] for i in range(0, len(white), 256)]
    order = generator.permutation(np.repeat(np.arange(len(batches)), 2))
    with warnings.catch_warnings():
        # Of a code: it only steers a step of the dictionary's.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for i in pipeline.bar(order, desc=f"{ROW}: dictionary", unit=" batches", leave=False):
            learner.partial_fit(batches[i])
    dictionary = learner.components_ / np.linalg.norm(learner.components_, axis=1, keepdims=True)
    return Codes(settings, *(array.astype(np.float32) for array in (mean, whitening, dictionary)))


def sparse_coding_errors(splits: dict[str, Pack], **options: Any) -> dict[str, Any]:
    """The row's errors; for the options see `pipeline.row_errors`.

    Args:
        splits: Packs by split.
        options: See `pipeline.row_errors`.

    Raises:
        InputError: The images are too small.
    """
    return pipeline.row_errors(ROW, splits, Settings, learn, Codes, **options)
