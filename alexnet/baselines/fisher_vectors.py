"""Table 1's row "SIFT + FVs": dense SIFT at fixed keypoints, PCA, a Gaussian mixture, Fisher
vectors, a linear classifier.

SIFT is OpenCV's, upright, on a grid of keypoints at several scales, half an octave apart, each on
its own level of OpenCV's Gaussian pyramid. The mixture and the Fisher vectors (Perronnin and Dance,
2007) are scikit-image's; power and L2 normalization are those of Perronnin, Sanchez and Mensink
(2010). Descriptors enter as the roots of their shares (Arandjelovic and Zisserman, 2012).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from skimage.feature import fisher_vector, learn_gmm
from sklearn.mixture import GaussianMixture

from alexnet.baselines import pipeline
from alexnet.baselines.pipeline import Encoder, Sample
from alexnet.data.pack import Pack
from alexnet.errors import InputError

ROW = "SIFT + FVs"
BLUR = 1.0  # standard deviation, in pixels of the pyramid's level, at which gradients are taken
BINS = 4  # a side of a descriptor: 4 x 4 histograms of 8 directions


@dataclass(frozen=True)
class Settings:
    """Settings of the row.

    Args:
        bin: Side of a descriptor's histograms at the finest scale, pixels: it covers 4 of them.
        step: Of the grid, pixels.
        scales: At most, half an octave apart.
        components: Of the PCA.
        gaussians: Of the mixture.
        images: That PCA and mixture are learned from, at most.
        descriptors: The same.
    """

    bin: float = 4.0
    step: int = 4
    scales: int = 4
    components: int = 48
    gaussians: int = 32
    images: int = 1000
    descriptors: int = 50_000

    def grid(self, size: int) -> list[tuple[float, float, float, int]]:
        """The keypoints of an image of `size` pixels: x, y, OpenCV's size and OpenCV's octave. A
        scale at which no descriptor lies wholly within the image is left out.

        Raises:
            InputError: Even the finest one does not fit.
        """
        out = []
        for scale in range(self.scales):
            octave, layer = divmod(scale, 2)
            side = self.bin * 2 ** (scale / 2)
            count = int((size - 1 - BINS * side) // self.step) + 1  # keypoints a side
            first = (size - 1 - (count - 1) * self.step) / 2
            places = [first + self.step * i for i in range(count)]
            # OpenCV's bins are 1.5 of its sizes wide; its octave is a byte each for the octave and
            # the layer of the pyramid.
            out += [(x, y, side / 1.5, octave | layer << 8) for y in places for x in places]
        if not out:
            what = f"images of {size} pixels are too small for a grid of keypoints"
            raise InputError(f"{ROW}: {what}: {int(BINS * self.bin) + 1} at least")
        return out


@dataclass(frozen=True)
class FisherVectors(Encoder):
    """An encoder by Fisher vectors.

    Args:
        mean: Of descriptors, (128,).
        basis: Of the PCA, (128, components).
        weights: Of the mixture, (K,).
        means: The same, (K, components).
        variances: The same, (K, components).
    """

    mean: np.ndarray
    basis: np.ndarray
    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    @cached_property
    def mixture(self) -> GaussianMixture:
        mixture = GaussianMixture(len(self.weights), covariance_type="diag")
        mixture.weights_, mixture.means_ = self.weights, self.means
        mixture.covariances_ = self.variances
        mixture.precisions_cholesky_ = 1 / np.sqrt(self.variances)
        return mixture

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 (n, S, S, 3) to float32 (n, K + 2 K components); see `Encoder`."""
        out = [
            fisher_vector((each - self.mean) @ self.basis, self.mixture, improved=True)
            for each in sift(images, self.settings)
        ]
        return pipeline.unit(np.array(out))


def opencv() -> Any:
    """The module cv2, single-threaded: images are what is worked on in parallel.

    Raises:
        InputError: It is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise InputError(f"{ROW} need OpenCV: pip install opencv-python-headless") from None
    cv2.setNumThreads(1)
    return cv2


def sift(images: np.ndarray, settings: Settings) -> np.ndarray:
    """Root SIFT of uint8 (n, S, S, 3): float32 (n, keypoints, 128), rows of length 1; a descriptor
    without gradients is zeros.

    Args:
        images: uint8 (n, S, S, 3).
        settings: Where the keypoints lie, and of what sizes.
    """
    cv2 = opencv()
    extractor = cv2.SIFT_create(nOctaveLayers=2, sigma=BLUR)
    grid = settings.grid(images.shape[1])
    keypoints = [cv2.KeyPoint(x, y, size, 0.0, 0.0, octave) for x, y, size, octave in grid]
    out = np.empty((len(images), len(keypoints), 128), np.float32)
    for row, image in zip(out, images, strict=True):
        kept, row[:] = extractor.compute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), keypoints)
        assert len(kept) == len(keypoints)
    total = out.sum(axis=2, keepdims=True)
    return np.sqrt(np.divide(out, total, out=np.zeros_like(out), where=total > 0))


def learn(train: Sample, settings: Settings, seed: int) -> FisherVectors:
    """PCA and mixture from descriptors at random keypoints of random images of the sample.

    Args:
        train: Training images.
        settings: How many descriptors, components and Gaussians.
        seed: Of the draws and the mixture.
    """
    generator = np.random.default_rng(seed)
    images = np.sort(generator.permutation(train.indices)[: settings.images])
    points = len(settings.grid(train.pack.size))
    each = min(points, -(-settings.descriptors // len(images)))
    rows = []
    for index in pipeline.bar(images, desc=f"{ROW}: descriptors", unit=" images", leave=False):
        descriptors = sift(train.pack.gather([index]), settings)[0]
        rows.append(descriptors[generator.choice(points, each, replace=False)])
    descriptors = np.concatenate(rows).astype(np.float64)
    mean = descriptors.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(descriptors - mean, rowvar=False))
    basis = vectors[:, ::-1][:, : settings.components]
    options = {"random_state": seed, "max_iter": 100, "tol": 1e-2, "reg_covar": 1e-5}
    mixture = learn_gmm(
        (descriptors - mean) @ basis,
        n_modes=settings.gaussians,
        gm_args={"covariance_type": "diag", **options},
    )
    arrays = mean, basis, mixture.weights_, mixture.means_, mixture.covariances_
    return FisherVectors(settings, *(array.astype(np.float32) for array in arrays))


def fisher_vector_errors(splits: dict[str, Pack], **options: Any) -> dict[str, Any]:
    """The row's errors; for the options see `pipeline.row_errors`.

    Args:
        splits: Packs by split.
        options: See `pipeline.row_errors`.

    Raises:
        InputError: The images are too small, or OpenCV is not installed.
    """
    opencv()
    return pipeline.row_errors(ROW, splits, Settings, learn, FisherVectors, **options)
