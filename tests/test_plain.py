"""The paper's net twice: ours and the one written with torch's layers give the same numbers from
the same weights."""

import pytest
import torch
import torch.nn.functional as F

from alexnet import AlexNet
from benchmarks.plain import Plain, sgd

PAPER = [
    "paper",
    "paper/one-column",
    "paper/no-lrn",
    "paper/no-overlap",
    "paper/no-conv4",
    "paper/tanh",
]
NETS = [*PAPER, "source", "source/conv6", "four-layer"]


@pytest.mark.parametrize("preset", NETS)
def test_outputs_and_gradients_agree(preset):
    torch.manual_seed(0)
    sizes = {"num_classes": 7, "width": 1 / 8, "image_size": 32 if preset == "four-layer" else 71}
    ours, plain = AlexNet(preset, **sizes).double().eval(), Plain(preset, **sizes).double().eval()
    plain.load_state_dict(ours.export_merged())
    x = 50 * torch.randn(3, 3, sizes["image_size"], sizes["image_size"], dtype=torch.float64)
    labels = torch.tensor([0, 6, 3])
    outputs = [net(x) for net in (ours, plain)]
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
    for output in outputs:
        F.cross_entropy(output, labels).backward()
    first = torch.cat([stage.weight.grad for stage in ours.stages("conv1")])
    torch.testing.assert_close(
        first, plain.get_submodule("conv1").weight.grad, rtol=1e-8, atol=1e-12
    )


def test_decay_is_for_weights_alone():
    net = Plain("paper", 5, 1 / 16, 64)
    weights, biases = sgd(net).param_groups
    assert weights["weight_decay"] == 5e-4 and biases["weight_decay"] == 0.0
    assert {p.dim() for p in biases["params"]} == {1} and len(weights["params"]) == len(
        biases["params"]
    ) == 8


def test_dropout_is_the_papers():
    net = Plain("paper", 5, 1 / 16, 64)
    drop = next(module for module in net if type(module).__name__ == "Drop")
    x = torch.ones(4000)
    assert set(drop.train()(x).tolist()) == {0.0, 1.0} and set(drop.eval()(x).tolist()) == {0.5}
