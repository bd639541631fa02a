"""The experiment of live cells: bands, and what is held to them."""

import matplotlib
import pytest

from alexnet import experiments, results
from alexnet.experiments import live
from tests.experiments import drawn

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_band_is_the_seeds_range_widened_by_its_own_width():
    assert live.band([1.0, 1.5, 1.2]) == [0.5, 2.0]
    assert live.band([0.1, 0.4]) == [0.0, 0.7]  # no error is below 0
    assert live.band([0.3]) == [0.3, 0.3]


def test_a_live_value_is_held_to_the_archived_band(runs, tmp_path):
    for seed, (last, error) in enumerate(((0.7, 0.5), (1.0, 0.7))):
        # bands 0.4 to 1.3 and 0.3 to 0.9; chance: ln 5 = 1.609 nats, an error of 0.8
        metrics = {"first": 2.0, "last": last, "one_view": error, "ten_views": error, "classes": 5}
        record = {"experiment": "live", "profile": "embedded", "arm": "net", "seed": seed}
        about = {"data": {}, "provenance": {"seconds": {"training": 1.5, "measuring": None}}}
        results.save(record | about | {"metrics": metrics}, tmp_path / "archive" / "embedded")
    archived = experiments.archived("live", "embedded")
    assert archived["provenance"]["seconds"] == {"training": 3.0, "measuring": None}
    assert "0.4 to 1.3" in live.table(archived)
    drawn(live.plot, archived)
    assert [live.inside(value, "last") for value in (0.39, 0.4, 1.0, 1.3, 1.31)] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert [live.inside(value, "one_view") for value in (0.29, 0.3, 0.76, 0.77, 0.8)] == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_a_live_loss_is_drawn():
    drawn(live.plot_loss, {"loss": [1.6, 1.2, 0.7], "classes": 5})
