"""Figure 1: rates that are chosen, arrivals at a threshold."""

import math

import matplotlib
import pytest

from alexnet.experiments import figure1
from alexnet.experiments.jobs import Run, late_loss
from alexnet.training import log
from tests.experiments import drawn, own, run

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_arrival_is_the_first_epoch_at_or_below():
    assert figure1.arrival([0.9, 0.5, 0.25, 0.1], 0.25) == 3
    assert figure1.arrival([0.2], 0.25) == 1
    assert figure1.arrival([0.9, 0.26], 0.25) is None and figure1.arrival([], 0.25) is None


def test_the_late_loss_is_of_the_last_quarter(tmp_path):
    writer = log.Log(tmp_path)
    for step, loss in enumerate([9, 9, 9, 9, 9, 9, 1, 2], 1):
        writer.add("step", step, loss=float(loss))
    writer.close()
    (tmp_path / "summary.json").write_text('{"ended": "budget"}')
    assert late_loss(Run(tmp_path)) == 1.5
    (tmp_path / "summary.json").write_text('{"ended": "diverged"}')
    assert late_loss(Run(tmp_path)) == math.inf


def test_figure1_takes_the_rate_with_the_lowest_loss(packs32, serial, shared_runs):
    rates = {"ReLU": [0.0001, 0.001, 1e12], "tanh": [0.001, 0.003], "logistic": [0.01]}
    settings = {"rates": rates, "sweep_epochs": 4, "epochs": 5, "threshold": 0.3}
    metrics = run(figure1, own(packs32, figure1=settings), [0, 1])
    assert metrics["images"] == 40 and metrics["threshold"] == 0.3
    assert {
        kind: [float(rate) for rate in net["sweep"]] for kind, net in metrics["nets"].items()
    } == rates
    for net in metrics["nets"].values():
        finite = {float(rate): loss for rate, loss in net["sweep"].items() if loss is not None}
        assert net["rate"] == min(finite, key=finite.get)
        assert net["error_by_epoch"].keys() == net["epochs_to_threshold"].keys() == {"0", "1"}
        for seed, curve in net["error_by_epoch"].items():
            assert 1 <= len(curve) <= 5 and net["epochs_to_threshold"][seed] == figure1.arrival(
                curve, 0.3
            )
    assert (
        metrics["nets"]["ReLU"]["sweep"]["1000000000000.0"] is None
    )  # diverged; JSON has no infinity
    drawn(figure1.plot, {"metrics": metrics})
    said = figure1.table({"metrics": metrics}).splitlines()
    assert said[0].startswith("epochs to 30% training error") and said[1].startswith("ReLU ")
    del rates["logistic"]  # what has no rates is left out
    assert run(figure1, own(packs32, figure1=settings), [0])["nets"].keys() == {"ReLU", "tanh"}


def test_figure1_is_drawn():
    net = {"rate": 0.003, "error_by_epoch": {"0": [0.7, 0.4, 0.2], "1": [0.72, 0.41, 0.22]}}
    drawn(
        figure1.plot,
        {
            "metrics": {
                "threshold": 0.25,
                "nets": {"ReLU": net, "tanh": net | {"error_by_epoch": {"0": [0.8]}}},
            }
        },
    )
