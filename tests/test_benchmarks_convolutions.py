"""The forms of a convolution: each is what it says, forward and backward."""

import torch

from benchmarks import convolutions
from benchmarks.contestants import TINY


def test_forms():
    calls = {name: (floor, call) for name, floor, call in convolutions.forms(TINY, "cpu", 1e6)}
    layers = {"conv1": "merged", "conv3": "merged"}
    own = {f"conv{i}": "one, half of it zeros" for i in (2, 4, 5)}
    names = {f"{layer}, {form}" for layer, form in (layers | own).items()}
    names |= {f"conv{i}, two convolutions" for i in range(1, 6)}
    assert set(calls) == names | {f"{layer}, 2 groups" for layer in own}
    gradients = {name: call() for name, (_, call) in calls.items()}
    for layer in own:
        two, grouped = gradients[f"{layer}, two convolutions"], gradients[f"{layer}, 2 groups"]
        assert len(two) == 4 and len(grouped) == 2  # of weights and of maps
        assert torch.cat(two[:2]).shape == grouped[0].shape
        assert torch.cat(two[2:], 1).shape == grouped[1].shape
    assert len(gradients["conv1, two convolutions"]) == 2  # none of the image
    two, merged = gradients["conv3, two convolutions"], gradients["conv3, merged"]
    assert torch.cat(two[:2]).shape == merged[0].shape and two[2].shape == merged[1].shape
    assert all(floor > 0 for floor, _ in calls.values())
