"""What bfloat16 costs: the experiment, and two nets that it trains alike."""

import pytest

from alexnet.experiments import bf16
from tests.experiments import drawn, own, run


def test_both_precisions_are_trained_alike_and_measured(packs72, serial, runs):
    settings = {
        "preset": "paper/sigma-0.03/constant-rate",
        "epochs": 18,  # 54 steps: one window of losses
        "image_size": 64,
        "rate": 0.001,
    }
    profile = own(packs72, bf16=settings, image_size=64, width=1 / 16, batch_size=12)
    metrics = run(bf16, profile, [0, 1])
    assert list(metrics["arms"]) == ["fp32", "bf16"] and metrics["images"] == 6
    for kinds in metrics["arms"].values():
        assert kinds["error"].keys() == {"0", "1"} and kinds["left_at_step"]["0"] is None
    losses = [metrics["arms"][arm]["loss"]["0"] for arm in bf16.ARMS]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)


def result(fp32, half):
    kinds = [
        {
            "error": dict(enumerate(errors)),
            "ten_views": dict(enumerate(errors)),
            "left_at_step": {0: 100, 1: None},
            "loss": {0: [2.3, 2.0]},
        }
        for errors in (fp32, half)
    ]
    arms = dict(zip(bf16.ARMS, kinds, strict=True))
    about = {"classes": 10, "epochs": 8.0, "preset": "four-layer", "arms": arms}
    return {"metrics": about}


def test_the_table_says_what_it_costs_with_its_interval():
    # Welch: means 21 and 20 %, variances 1 and 1, three each: 1 +- t(0.975, 4) sqrt(2 / 3)
    shown = str(bf16.table(result([0.19, 0.20, 0.21], [0.20, 0.21, 0.22])))
    assert "+1.00 points, 95 % interval -1.27 to +3.27" in shown and "float32" in shown
    drawn(bf16.plot, result([0.19, 0.20], [0.2, 0.2]))
