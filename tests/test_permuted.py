"""Permuted pixels: a permutation that moves pixels and nothing else, and two arms that train."""

import matplotlib
import numpy as np
import pytest

from alexnet.data.pack import open_splits
from alexnet.experiments import permuted
from tests.experiments import configs, drawn, own, run

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_permutation_moves_pixels_and_nothing_else(packs32):
    images = open_splits(packs32)["test"].gather(range(8))
    moved = permuted.permute(images)
    assert moved.dtype == np.uint8 and not np.array_equal(moved, images)
    for image, other in zip(images, moved, strict=True):
        assert sorted(map(tuple, image.reshape(-1, 3))) == sorted(map(tuple, other.reshape(-1, 3)))
    back = np.argsort(permuted.order(32))
    assert np.array_equal(moved.reshape(8, -1, 3)[:, back].reshape(images.shape), images)
    assert sorted(permuted.order(5)) == list(range(25)) and permuted.order(3).tolist() == [
        5,
        2,
        1,
        8,
        7,
        4,
        0,
        6,
        3,
    ]
    assert permuted.neighbors(images) > 0.8 and abs(permuted.neighbors(moved)) < 0.05
    ramp = np.arange(8, dtype=np.uint8)[None, :, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    assert permuted.neighbors(ramp) == pytest.approx(1.0)


def test_permuted_trains_both_arms_on_the_same_pixels(packs72, serial, runs):
    settings = {
        "preset": "paper/sigma-0.03/constant-rate/no-crops",
        "width": 1 / 16,
        "batch_size": 12,
        "rate": 0.004,
        "epochs": 1,
    }
    profile = own(packs72, permuted=settings, image_size=64)
    metrics = run(permuted, profile, [0, 1])
    assert (metrics["classes"], metrics["images"], metrics["test_images"]) == (
        3,
        36,
        6,
    ) and metrics["arms"].keys() == permuted.ARMS.keys()
    plain, moved = (
        open_splits(packs72),
        open_splits(next((profile.runs / "data").glob("permuted-*"))),
    )
    assert np.array_equal(
        moved["train"].gather(range(36)), permuted.permute(plain["train"].gather(range(36)))
    )
    assert moved["test"].labels.tolist() == plain["test"].labels.tolist()
    assert sorted(config["data"]["train"] for config in configs(profile)) == sorted(
        [plain["train"].digest, moved["train"].digest] * 2
    )
    assert all(found["test_top1"].keys() == {"0", "1"} for found in metrics["arms"].values())
    assert (
        metrics["arms"]["as they are"]["neighbors"] > metrics["arms"]["permuted"]["neighbors"] + 0.7
    )


def test_permuted_is_drawn():
    arms = {arm: {"loss": {"0": [2.3, 2.0, 1.0], "1": [2.3]}} for arm in permuted.ARMS}
    drawn(permuted.plot, {"metrics": {"classes": 10, "window": 50, "arms": arms}})
