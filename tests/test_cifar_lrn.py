"""The four-layer net with normalization and without it."""

import matplotlib
import pytest

from alexnet import presets
from alexnet.experiments import cifar_lrn
from tests.experiments import drawn, own, run

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_small_nets_differ_in_normalization_alone_and_each_has_its_best_rate(
    packs32, serial, shared_runs
):
    plain, normalized = (presets.get(name) for name in cifar_lrn.ARMS.values())
    assert (
        plain.recipe == normalized.recipe
        and plain.recipe.crops == "random"
        and plain.recipe.weight_decay == 5e-4
    )
    assert [row.then for row in normalized.layers[:2]] == [
        (presets.RELU, presets.LRN(), presets.POOL)
    ] * 2
    assert (
        presets.get("four-layer/regularized/lrn/no-lrn").layers
        == plain.layers
        == presets.get("four-layer").layers
    )

    settings = {"image_size": 28, "rates": [0.0001, 0.001], "sweep_epochs": 4, "epochs": 2}
    metrics = run(cifar_lrn, own(packs32, cifar_lrn=settings), [0, 1])
    assert metrics["split"] == "test" and metrics["train_images"] == 40
    for arm, by_rate in metrics["sweep"].items():
        assert metrics["rates"][arm] == float(min(by_rate, key=by_rate.get)) and set(by_rate) == {
            "0.0001",
            "0.001",
        }
        assert metrics["nets"][arm].keys() == {"0", "1"} and metrics["nets"][arm]["0"][
            "views"
        ].keys() == {"1", "10"}
    made = {"metrics": metrics}
    own_errors, others = (cifar_lrn.errors(made, arm) for arm in ("with", "without"))
    apart = "  ".join(f"{100 * (own_errors[seed] - others[seed]):+.1f}" for seed in ("0", "1"))
    assert f"one view, seed by seed, percentage points (the paper: -2): {apart}" in cifar_lrn.table(
        made
    )
    drawn(cifar_lrn.plot, made)
