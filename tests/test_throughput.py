"""What augmentation costs: the same steps with it and without it."""

import matplotlib
import pytest

from alexnet.experiments import throughput
from tests.experiments import drawn, own, run

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_throughput_times_the_same_steps_with_augmentation_and_without(
    packs72, serial, monkeypatch
):
    profile = own(
        packs72,
        throughput={"steps": 2, "rounds": 3},
        base="paper",
        epochs=1,
        image_size=64,
        width=1 / 16,
        batch_size=12,
    )
    done, take = [], throughput.Learner.backward
    monkeypatch.setattr(
        throughput.Learner,
        "backward",
        lambda self, x, *rest: done.append(x.clone()) or take(self, x, *rest),
    )
    metrics = run(throughput, profile, [0, 1])
    counted = metrics["rounds"], metrics["steps"], metrics["batch_size"], len(done)
    assert counted == (3, 2, 12, 4 * 2 * 2)
    assert (
        len({tuple(x.flatten()[:50].tolist()) for x in done}) == 1 + 4 * 2
    )  # one batch that stays, all others new
    for kind, (least, most) in metrics["spread"].items():
        assert 0 < least <= metrics["images_per_second"][kind] <= most
    rate = metrics["images_per_second"]
    said = throughput.table({"metrics": metrics})
    assert said.endswith(f"{rate['augmented'] / rate['same batch']:.2f}")
    drawn(throughput.plot, {"metrics": metrics})
