"""The net on more than one device: what is counted in messages is what the table of layers says."""

import matplotlib.pyplot as plt
import pytest

from alexnet import results
from alexnet.experiments import devices
from alexnet.presets import get, shapes, total
from tests.survival import packs


def sent(found, batch):
    images = batch / found["ranks"][0]
    return {
        way: images * sum(n for name, n in found["sent_per_image"].items() if name.endswith(way)) for way in ("forward", "backward")
    } | {"gradients": found["gradients_per_step"]}


@pytest.mark.parametrize("name", devices.LAYOUTS)
def test_the_archive_counted_what_is_reckoned(name):
    archived = results.archived("devices", "embedded")
    assert archived is not None
    layout, batch = devices.LAYOUTS[name], archived["metrics"]["batch_size"]
    wanted = devices.reckon(layout.rows, layout.columns, batch, layout.preset)
    assert sent(archived["metrics"]["layouts"][name], batch) == {way: wanted[way] for way in ("forward", "backward", "gradients")}


@pytest.mark.parametrize("name", ["two columns", pytest.param("two rows of two columns", marks=pytest.mark.slow)])
def test_a_narrow_net_sends_what_is_reckoned(tmp_path, name):
    layout, sizes = devices.LAYOUTS[name], {"width": 1 / 8, "image_size": 64}
    found = devices.launch(layout, packs(tmp_path) / "train", batch_size=8, steps=2, classes=10, **sizes)
    wanted = devices.reckon(layout.rows, layout.columns, 8, num_classes=10, **sizes)
    assert sent(found, 8) == {way: wanted[way] for way in ("forward", "backward", "gradients")}
    assert len(found["step_times"]) == 2 and all(0 < a < b for a, b in zip(found["exchange_times"], found["step_times"], strict=True))


def test_what_is_reckoned_of_the_full_net():
    two = devices.reckon(1, 2, 1)
    assert (two["forward"], two["backward"], two["gradients"]) == (29_288, 28_288, 0)
    table = shapes(get("paper"))
    assert devices.reckon(4, 1, 128)["gradients"] == total(table, "parameters") == 60_965_224
    assert devices.reckon(2, 2, 128)["gradients"] == 30_483_112  # column 0's half, with fc8's bias
    assert devices.reckon(1, 2, 128)["macs"] * 2 == devices.reckon(1, 1, 128)["macs"] == 3 * 128 * 724_406_816
    assert devices.copies(1, 128) == devices.hybrid(1, 128) == 0
    assert devices.copies(2, 128) == 60_965_224
    convs = 2_334_080
    assert devices.hybrid(2, 128) == convs + 2 * (9_216 + 4_096 + 4_096) * 64


def test_the_figure_is_drawn():
    figure = devices.plot()
    assert [axes.get_title() for axes in figure.axes] == ["128 images in all", "128 images a rank"]
    plt.close(figure)
