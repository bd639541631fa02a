"""The net that runs in the pages: eight bits, to half a step."""

import json

import matplotlib
import numpy as np
import pytest
import torch

from alexnet import training
from alexnet.data.pack import open_splits
from alexnet.experiments import page
from tests.experiments import own, run

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_net_of_eight_bits_is_the_net_to_half_a_step(packs72, serial, runs):
    profile = own(
        packs72,
        page={"preset": "paper/sigma-0.03/constant-rate", "width": 1 / 16, "epochs": 1},
        image_size=64,
        batch_size=6,
    )
    metrics = run(page, profile, [3, 4])
    assert list(metrics["errors"]) == list(metrics["conv1"]["kernels"]) == ["3", "4"]
    (folder,) = [
        each
        for each in (profile.runs / "models").iterdir()
        if json.loads((each / "config.json").read_text())["seed"] == 3
    ]
    full, augment, _ = training.load_run(folder)
    coarse, center = page.network(metrics["net"])
    for name, weight in full.export_merged().items():
        step = (
            weight.abs().flatten(1).amax(1) / 127
            if name.endswith("weight")
            else weight.abs() * 1e-5
        )
        apart = (coarse.export_merged()[name] - weight).abs().reshape(len(weight), -1).amax(1)
        assert bool((apart <= 0.501 * step).all()), name
    images = torch.from_numpy(open_splits(packs72)["test"].gather(np.arange(2)))
    inputs = [next(iter(each.views(images))) for each in (augment, center)]
    assert float((inputs[0] - inputs[1]).abs().max()) <= 0.5  # the mean image in whole gray levels
    assert len(page.plot({"metrics": metrics}).axes) == 2 * 6
