import numpy as np
import pytest

from alexnet.baselines.color_histogram import color_histogram_errors, histograms
from alexnet.data.pack import Pack
from alexnet.data.pack_writer import PackWriter
from alexnet.errors import InputError


def make(folder, classes, per_class, seed, colored):
    """Noise whose mean color is the class's own, or is not."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    own = np.random.default_rng(0).integers(40, 216, (classes, 1, 1, 3))
    center = own[labels] if colored else rng.integers(40, 216, (len(labels), 1, 1, 3))
    images = (center + rng.integers(-30, 31, (len(labels), 12, 12, 3))).astype(np.uint8)
    folder.mkdir(parents=True)
    writer = PackWriter(folder, 12)
    writer.append(images, labels.tolist())
    names = [f"class {i}" for i in range(classes)]
    writer.finish(names, names)
    return Pack.open(folder)


def test_histograms_count_each_color(tmp_path):
    pack = make(tmp_path / "pack", 2, 3, 1, True)
    got = histograms(pack, np.array([4, 0]), 4)
    for row, index in zip(got, (4, 0), strict=True):
        counted, _ = np.histogramdd(
            pack.gather([index])[0].reshape(-1, 3), bins=4, range=[(0, 256)] * 3
        )
        np.testing.assert_allclose(row**2, counted.ravel() / 144, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 12])
def test_colors_that_tell_are_learned(tmp_path, classes):
    errors = color_histogram_errors(
        {s: make(tmp_path / s, classes, 30, i, True) for i, s in enumerate(("train", "test"))}
    )
    assert errors["top1_error"] < 0.1 and errors["top5_error"] <= errors["top1_error"]
    assert (errors["split"], errors["test_images"], errors["train_images"]) == (
        "test",
        30 * classes,
        30 * classes,
    )
    assert errors["chance_top1_error"] == 1 - 1 / classes


def test_colors_that_do_not_tell_leave_chance(tmp_path):
    errors = color_histogram_errors(
        {s: make(tmp_path / s, 12, 30, i, False) for i, s in enumerate(("train", "val"))}, limit=100
    )
    assert abs(errors["top1_error"] - 11 / 12) < 0.07 and abs(errors["top5_error"] - 7 / 12) < 0.12
    assert (errors["split"], errors["train_images"]) == ("val", 100)


def test_one_split_is_not_enough(tmp_path):
    with pytest.raises(InputError, match="prepare a source with splits"):
        color_histogram_errors({"train": make(tmp_path / "train", 2, 2, 0, True)})
