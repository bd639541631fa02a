"""Sums over images, against numpy's in float64."""

import numpy as np

from alexnet.data.moments import Moments


def test_moments_are_exact():
    rng = np.random.default_rng(0)
    mixed = rng.normal(0, 40, (50, 9, 9, 3)) @ rng.normal(0, 1, (3, 3)) + rng.uniform(
        60, 190, (9, 9, 3)
    )
    images = mixed.clip(0, 255).astype(np.uint8)
    moments = Moments.of(images[:20])
    moments.add(Moments.of(images[20:]))
    pixels = images.reshape(-1, 3).astype(np.float64)
    assert np.array_equal(moments.mean(), images.astype(np.float64).mean(axis=0).astype(np.float32))
    color = moments.color()
    np.testing.assert_allclose(color["mean"], pixels.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(color["covariance"], np.cov(pixels.T, bias=True), rtol=1e-12)
    values, vectors = color["eigenvalues"], color["eigenvectors"]
    assert (np.diff(values) < 0).all()
    np.testing.assert_allclose(
        vectors @ np.diag(values) @ vectors.T, color["covariance"], atol=1e-9
    )
    np.testing.assert_allclose(
        color["covariance"] @ vectors[:, 0], values[0] * vectors[:, 0], atol=1e-9
    )  # columns, not rows
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)
    assert (vectors[np.abs(vectors).argmax(axis=0), range(3)] > 0).all()


def test_moments_of_extremes():
    """White only: the largest sums, no variance, and eigenvalues that are not below zero."""
    color = Moments.of(np.full((3, 64, 64, 3), 255, np.uint8)).color()
    assert (
        (color["mean"] == 255).all()
        and (color["covariance"] == 0).all()
        and (color["eigenvalues"] == 0).all()
    )
