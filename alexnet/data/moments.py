"""Exact sums over images, from which the mean image (section 2 of the paper) and the covariance of
the colors (section 4.1) follow."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Moments:
    """Sums over images; int64 holds those of two billion images of 256x256.

    Args:
        count: Images.
        total: Sum of the images, int64 (S, S, 3).
        products: Sums over all pixels of channel i times channel j, int64 (3, 3).
    """

    count: int
    total: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray) -> "Moments":
        """The sums of `images`, uint8 (n, S, S, 3)."""
        kind = np.uint16 if len(images) <= 256 else np.int64  # 16 bits hold 256 bytes' sum
        total = images.sum(axis=0, dtype=kind).astype(np.int64)
        products = np.zeros((3, 3), np.int64)
        # Red, green, blue, red, ..., as they lie in memory: the values of one pixel are at most two
        # apart. Sums down columns of 128 rows are exact: 128 products of bytes are less than 2^24.
        # Not a matrix product: that would wake BLAS's threads in every worker.
        values, width, rows = images.reshape(-1), 3 * 256, np.zeros((128, 3 * 256), np.float32)
        for begin in range(0, values.size, rows.size):
            part = values[begin : begin + rows.size]
            rows.reshape(-1)[: part.size], rows.reshape(-1)[part.size :] = part, 0
            for distance in range(3):
                sums = np.einsum("mk,mk->k", rows[:, : width - distance], rows[:, distance:])
                for i in range(3 - distance):
                    products[i, i + distance] += int(sums[i::3].sum(dtype=np.float64))
        return cls(len(images), total, np.triu(products) + np.triu(products, 1).T)

    def add(self, other: "Moments") -> None:
        """Add the sums of other images."""
        self.count += other.count
        self.total += other.total
        self.products += other.products

    def mean(self) -> np.ndarray:
        """The mean image, float32 (S, S, 3)."""
        return (self.total / self.count).astype(np.float32)

    def color(self) -> dict[str, np.ndarray]:
        """RGB mean (3,), population covariance (3, 3), eigenvalues (3,) in descending order and
        eigenvectors (3, 3) as columns; in gray levels."""
        n = self.count * self.total.shape[0] * self.total.shape[1]
        sums = [int(s) for s in self.total.sum(axis=(0, 1))]
        # Python's integers: one rounding at the division, no cancellation.
        covariance = np.array([
            [(n * int(self.products[i, j]) - sums[i] * sums[j]) / n**2 for j in range(3)]
            for i in range(3)
        ])  # fmt: skip
        values, vectors = np.linalg.eigh(covariance)
        values, vectors = values[::-1], vectors[:, ::-1]
        # An eigenvector's sign is arbitrary: here its largest entry is positive.
        signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), range(3)])
        return {
            "mean": np.array([s / n for s in sums]),
            "covariance": covariance,
            "eigenvalues": np.maximum(values, 0.0),
            "eigenvectors": vectors * signs,
        }
