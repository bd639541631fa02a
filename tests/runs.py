"""What the tests of training share: small runs on tiny packs."""

import json

import pytest
import torch

from alexnet.training import Config
from tests.survival import rows


def configure(splits, preset="paper", **fields):
    data = {name: splits[name].digest for name in ("train", "val") if name in splits}
    size = {32: 32, 72: 64}[splits["train"].size]
    settings = {"width": 1 / 16, "image_size": size, "epochs": 3.0, "batch_size": 8} | fields
    return Config(preset=preset, num_classes=len(splits["train"].classes), data=data, **settings)


def small(splits, **fields):
    """The four-layer net: milliseconds a step."""
    return configure(splits, "four-layer", **({"width": 1 / 4} | fields))


def weights(folder):
    return (folder / "weights.safetensors").read_bytes()


def same(run, straight):
    assert weights(run) == weights(straight)
    assert rows(run) == rows(straight)
    took = [json.loads((folder / "summary.json").read_text()) for folder in (run, straight)]
    times = {"seconds": 0, "origins": 0}
    assert took[0] | times == took[1] | times
    for summary in took:
        parts = summary["origins"]
        assert sum(part["steps"] for part in parts) == summary["steps"]
        assert sum(part["seconds"] for part in parts) == pytest.approx(summary["seconds"], abs=0.3)


def with_running_mean(net):
    """The net with a buffer, which follows its input in training: "conv1.running_mean"."""

    def follow(stage, arguments):
        if stage.training:
            mean = arguments[0].detach().mean((0, 2, 3))
            mean = mean.reshape(-1, 3).mean(0)  # where the input lies in blocks of pixels
            stage.running_mean.lerp_(mean.to(stage.running_mean.dtype), 0.5)

    for stage in net.stages("conv1"):
        stage.register_buffer("running_mean", torch.zeros(3))
        stage.register_forward_pre_hook(follow)
    return net
