"""Figure 3: what is measured of kernels whose colors and directions are known, and what becomes of
a trained net's."""

import os
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from alexnet import results, training
from alexnet.errors import InputError
from alexnet.experiments import figure3, jobs
from tests.experiments import TINY, drawn, own, run

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("one_thread", "shared_runs", "serial")
RANDOM = np.random.default_rng(0)


def grating(degrees: float, side: int = 11) -> np.ndarray:
    """(side, side, 1): three waves across, in one direction."""
    y, x = np.mgrid[:side, :side] / side
    return np.cos(6 * np.pi * (x * np.cos(np.deg2rad(degrees)) + y * np.sin(np.deg2rad(degrees))))[
        ..., None
    ]


def blob(side: int = 11) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - side // 2
    return np.exp(-(x**2 + y**2) / 8.0)[..., None]


GRAY, OPPONENT = np.ones(3), np.array([1.0, -1.0, 0.0])


def test_colorfulness_is_0_for_gray_and_1_for_pure_color():
    pattern = RANDOM.normal(size=(11, 11, 1))
    some = np.stack(
        [pattern * GRAY, pattern * OPPONENT, pattern * (GRAY + OPPONENT), np.zeros((11, 11, 3))]
    )
    energy = [3, 2]  # of the two, in units of the pattern's
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = figure3.colorfulness(some)
    np.testing.assert_allclose(found, [0, 1, energy[1] / sum(energy), 0], atol=1e-12)
    assert figure3.colorfulness(RANDOM.normal(size=(500, 11, 11, 3))).mean() == pytest.approx(
        2 / 3, abs=0.01
    )


def test_orientation_is_1_for_a_grating_and_0_for_what_has_no_direction():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert figure3.orientation(grating(0) * GRAY) == pytest.approx(1.0)
        assert figure3.orientation(grating(90) * GRAY) == pytest.approx(1.0)
        assert figure3.orientation(grating(30) * GRAY) > 0.7
        assert figure3.orientation(blob() * GRAY) < 1e-9
        # what has no gray has no direction, and neither has an empty or an even kernel
        assert figure3.orientation(grating(30) * OPPONENT) == 0.0
        assert (
            figure3.orientation(np.zeros((11, 11, 3)))
            == figure3.orientation(np.ones((11, 11, 3)))
            == 0.0
        )
    turned = grating(20) * GRAY
    assert figure3.orientation(np.swapaxes(turned, 0, 1)) == pytest.approx(
        figure3.orientation(turned)
    )
    assert figure3.orientation(turned + 5.0) == pytest.approx(
        figure3.orientation(turned)
    )  # the mean has no direction
    assert 0.05 < np.median(figure3.orientation(RANDOM.normal(size=(500, 11, 11, 3)))) < 0.15


def test_a_column_that_takes_the_colors_is_found():
    gray = np.stack([grating(angle) * GRAY for angle in range(0, 180, 15)])
    color = np.stack([blob() * OPPONENT * (1 + i) for i in range(12)])
    for number, both in enumerate((np.stack([color, gray]), np.stack([gray, color]))):
        found = figure3.measure_columns(both, 2000)
        assert found["specialized_column"] == number and found["luck"] == pytest.approx(
            1 / 2001, abs=1e-5
        )
        assert (
            found["color"][number] == 1.0
            and found["color"][1 - number] == 0.0
            and found["difference"] == 1.0
        )
        assert (
            0.8 < found["color_gap"] < 0.9
        )  # of two twelves by lot, means differ by 0.16 on average
        assert found["orientation"][1 - number] > 0.7 and found["orientation"][number] == 0.0
    mixed = np.concatenate([gray[::2], color[::2], gray[1::2], color[1::2]]).reshape(
        2, 12, 11, 11, 3
    )
    found = figure3.measure_columns(mixed, 500)
    assert found["specialized_column"] is None and found["luck"] == 1.0 and found["color_gap"] < 0


def test_a_difference_that_is_sure_but_small_is_no_specialization():
    gray = np.stack([grating(angle) * GRAY for angle in range(0, 180, 15)])
    tinged = gray + 0.3 * np.stack([grating(angle) * OPPONENT for angle in range(0, 180, 15)])
    found = figure3.measure_columns(np.stack([gray, tinged]), 1000)
    assert (
        found["luck"] < figure3.LUCK
        and 0 < found["difference"] < figure3.LEAST
        and found["specialized_column"] is None
    )


def test_luck_alone_is_rarely_taken_for_more():
    found = [
        figure3.measure_columns(RANDOM.normal(size=(2, 12, 11, 11, 3)), 200) for _ in range(60)
    ]
    assert abs(np.mean([one["color_gap"] for one in found])) < 0.003
    assert np.mean([one["luck"] <= 0.1 for one in found]) < 0.25 and not any(
        one["specialized_column"] is not None for one in found
    )


def test_figure3_stores_the_kernels_of_every_seeds_base_net(packs72):
    settings = {
        "image_size": 64,
        "width": 1 / 8,
        "batch_size": 12,
        "base": "paper/sigma-0.03",
        "epochs": 1,
    }
    profile = own(packs72, figure3={"shuffles": 50}, **settings)
    metrics = run(figure3, profile, [0, 3])
    assert (metrics["columns"], metrics["kernels_a_column"], metrics["train_images"]) == (2, 6, 36)
    assert list(metrics["seeds"]) == ["0", "3"]
    for seed, found in metrics["seeds"].items():
        net, _, _ = training.load_run(jobs.base_job(profile, int(seed)).folder(profile))
        for column, kernels in enumerate(figure3.columns(found["kernels"])):
            learned = (
                net.columns[str(column)]["conv1"].weight.detach().numpy().transpose(0, 2, 3, 1)
            )
            np.testing.assert_allclose(kernels, learned, atol=np.abs(learned).max() / 254 * 1.001)
        assert found["color_gap"] <= found["difference"] <= 1 and found["specialized_column"] in (
            None,
            0,
            1,
        )
    drawn(figure3.plot, {"metrics": metrics, "seeds": [0, 3]})
    drawn(lambda result: figure3.plot(result, seed=3), {"metrics": metrics, "seeds": [0, 3]})
    metrics["seeds"]["0"]["kernels"]["scales"][2] = 0.0  # a kernel that died
    drawn(figure3.plot, {"metrics": metrics, "seeds": [0]})


def test_figure3_trains_the_net_that_its_settings_name(packs72):
    settings = {"shuffles": 10, "preset": "paper/sigma-0.03/wide-conv1", "epochs": 0.5}
    profile = own(packs72, **TINY, figure3=settings, epochs=1)
    (entry,) = figure3.entries(profile, [3])
    (job,) = entry.jobs
    config = job.config
    assert (config.preset, config.epochs, config.seed) == (settings["preset"], 0.5, 3)
    assert config.width == TINY["width"] and config.image_size == TINY["image_size"]
    metrics = run(figure3, profile, [3])
    assert metrics["net"] == settings["preset"]
    assert metrics["kernels_a_column"] == 12  # 4 * 48 / 16


def test_a_sheet_holds_every_kernel_on_its_own_scale():
    kernels = (
        RANDOM.normal(size=(5, 3, 3, 3)) * np.array([1, 10, 100, 1000, 0])[:, None, None, None]
    )
    picture = figure3.sheet(kernels, 2)
    assert picture.shape == (11, 7, 3) and picture.min() >= 0 and picture.max() <= 1
    np.testing.assert_allclose(picture[4:7, 4:7], 0.5 + 0.5 * kernels[3] / np.abs(kernels[3]).max())
    assert (
        (picture[8:11, :3] == 0.5).all()
        and (picture[8:11, 4:] == 1).all()
        and (picture[3] == 1).all()
    )


def test_kernels_trained_elsewhere_are_measured_alike():
    """Whatever the order of their colors, and where they are drawn around a gray."""
    pattern = RANDOM.normal(size=(8, 11, 11, 1))
    kernels = np.concatenate([pattern * GRAY, pattern * OPPONENT])
    result = figure3.measure_others(kernels, "made up", shuffles=200)
    assert (result["source"], result["columns"], result["kernels_a_column"]) == ("made up", 2, 8)
    assert result["color"] == [0, 1] and result["specialized_column"] == 1
    around_gray = kernels[..., ::-1] + 122
    again = figure3.measure_others(around_gray, "made up", zero=122, shuffles=200)
    assert again == result
    for wrong, source in ((kernels[1:], "made up"), (kernels[..., :2], "made up"), (kernels, " ")):
        with pytest.raises(InputError, match="kernels"):
            figure3.measure_others(wrong, source)


def test_caffenets_columns_are_specialized():
    """The kernels of Caffe's reference net, from a picture in its example notebook."""
    file = Path(os.environ.get("ALEXNET_DATA", "nowhere")) / "caffenet-conv1-8bit.npy"
    if not file.exists():
        pytest.skip("ALEXNET_DATA names no folder with caffenet-conv1-8bit.npy")
    source = "BVLC CaffeNet, from a picture in Caffe's example notebook"
    result = figure3.measure_others(np.load(file), source, zero=122)
    assert result["difference"] == pytest.approx(0.685, abs=5e-4)
    assert result["color"] == pytest.approx([0.030, 0.908], abs=5e-4)
    assert result["luck"] <= 2e-4 and result["specialized_column"] == 1


def test_the_cover_says_what_the_kernels_of_others_are_like():
    """Its sentence has the numbers of the archive's outside evidence."""
    (record,) = results.load("figure3", results.ROOT / "results" / "published")
    gray, colored = (f"{share:.0%}".replace("%", " %") for share in record["metrics"]["color"])
    cover = (results.ROOT / "book" / "intro.ipynb").read_text(encoding="utf-8")
    assert f"the share of color is {gray} in one group and {colored} in the other" in cover
