"""What Figure 1's factor depends on: arrivals, bounds, and the order of pooling and
nonlinearity."""

import matplotlib
import pytest

from alexnet.experiments import figure1_factors
from tests.experiments import drawn, own, run

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_arrival_to_a_step_is_of_the_last_epochs_mean():
    assert figure1_factors.arrival([0.9, 0.7, 0.5, 0.3, 0.1], 0.4, window=2) == 2.0
    assert figure1_factors.arrival([0.9, 0.7, 0.5, 0.3, 0.1], 0.3, window=2) == 2.5
    assert figure1_factors.arrival([0.1] * 4, 0.4, window=4) == 1.0  # not before an epoch is over
    assert (
        figure1_factors.arrival([0.9] * 9, 0.4, window=2) is None
        and figure1_factors.arrival([], 0.4, window=2) is None
    )


def test_the_best_rate_is_the_one_that_arrives_first_and_bounds_are_said():
    by_rate = {
        "0.01": {"0": None, "1": 8.0},
        "0.001": {"0": 4.0, "1": 5.0},
        "0.0001": {"0": None, "1": None},
    }
    assert figure1_factors.best(by_rate, 8) == "0.001" and figure1_factors.mean(
        by_rate["0.001"], 8
    ) == (4.5, False)
    assert figure1_factors.best({rate: {"0": None} for rate in ("0.01", "0.001")}, 8) == "0.001"
    assert (
        figure1_factors.best({"0.001": {"0": None}, "0.01": {"0": 8.0}}, 8) == "0.01"
    )  # at the very end, but there
    assert figure1_factors.mean(by_rate["0.01"], 8) == (8.0, True)
    pairs = (
        ((4, 0), (6, 0)),
        ((4.1, 0), (7.7, 1)),
        ((7.7, 1), (4.1, 0)),
        ((7.5, 3), (7, 1)),
        ((8, 5), (8, 5)),
    )
    said = [
        "1.5",
        "more than 1.8",
        "less than 0.6",
        "of 5 seeds 2 with ReLU, 4 with tanh",
        "neither arrives",
    ]
    assert [figure1_factors.factor(*pair, seeds=5) for pair in pairs] == said


def test_the_factors_are_of_every_net_at_every_rate_and_the_order_is_the_same_function(
    packs32, serial, shared_runs
):
    settings = {
        "width": 0.25,
        "rates": {"ReLU": [0.001, 0.003], "tanh": [0.003]},
        "epochs": 2,
        "threshold": 0.7,
    }
    metrics = run(figure1_factors, own(packs32, figure1_factors=settings), [0])
    assert (
        metrics["epochs"].keys() == figure1_factors.NETS.keys() and metrics["order"]["ReLU"] == 0.0
    )
    assert 0 <= metrics["order"]["tanh"] < 1e-4  # tanh rounds, and ties where it saturates
    for kinds in metrics["epochs"].values():
        assert {kind: list(by_rate) for kind, by_rate in kinds.items()} == {
            "ReLU": ["0.001", "0.003"],
            "tanh": ["0.003"],
        }
        assert all(
            found["0"] is None or 0 < found["0"] <= 2
            for by_rate in kinds.values()
            for found in by_rate.values()
        )
    said = figure1_factors.table({"metrics": metrics})
    assert (
        all(name in said for name in figure1_factors.NETS)
        and said.count("rate: the same for both") == 1
    )
    arrived = any(
        by_rate["0.003"]["0"] is not None
        for by_rate in (kinds["tanh"] for kinds in metrics["epochs"].values())
    )
    assert ("0.003* " in said) == arrived  # the only rate of tanh; "any" where it did not do
    drawn(figure1_factors.plot, {"metrics": metrics})
