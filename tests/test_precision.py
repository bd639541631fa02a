"""What each precision costs, and what it sets."""

import pytest
import torch

from alexnet import AlexNet, presets, rng
from alexnet.errors import InputError
from alexnet.training.learner import Learner
from alexnet.training.precision import PRECISIONS, using_precision
from alexnet.training.ranks import Ranks

pytestmark = pytest.mark.usefixtures("one_thread")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
# The largest difference from fp64 in the loss of any of 40 steps, as a share of ln(classes), and in
# the weights after them, as a share of the way that they have come. tf32 is fp32 where there is no
# GPU, and refused there.
COST = {"fp32": (1e-5, 2e-3), "tf32": (5e-3, 0.1), "bf16": (4e-2, 0.6)}


def learn(precision, device, steps=40):
    """Two classes, told apart by their color: losses, and the weights before and after."""
    torch.manual_seed(1)
    net = AlexNet("paper/sigma-0.03", num_classes=4, width=1 / 8, image_size=64)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    with using_precision(precision, torch.device(device)) as dtype:
        learner = Learner(net, presets.get("paper").recipe, Ranks(device), dtype)
        losses = []
        for step in range(steps):
            labels = torch.arange(32) % 4
            noise = rng.normal(rng.key(7, step, torch.arange(32)), 3 * 64 * 64).view(32, 3, 64, 64)
            images = (20 * noise + 60 * torch.eye(4)[labels][:, :3, None, None]).float()
            loss, _ = learner.backward(
                images, labels, rng.key(rng.DROPOUT, 0, step, torch.arange(32)), 32
            )
            learner.update([0.003] * len(learner.parameters))
            losses.append(loss / 32)
    return losses, before, {name: value.detach().cpu() for name, value in learner.weights.items()}


@pytest.fixture(scope="module")
def exact():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield learn("fp64", "cpu")
    torch.set_num_threads(before)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", COST)
def test_what_a_precision_costs(exact, precision, device):
    if precision == "tf32" and device == "cpu":
        with pytest.raises(InputError, match="tf32 needs a CUDA device; use fp32"):
            learn(precision, device)
        return
    losses, _, after = learn(precision, device)
    expected, before, wanted = exact
    of_loss, of_way = COST[precision]
    assert max(abs(a - b) for a, b in zip(losses, expected, strict=True)) < of_loss * 1.386
    for name, value in wanted.items():
        assert after[name].dtype == torch.float32
        way = (value - before[name]).norm()
        assert (after[name] - value).norm() <= of_way * way, name
    assert expected[-1] < 0.9 * expected[0]  # it had learned something by then


def test_a_gpu_multiplies_as_it_did_afterwards():
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [switch.fp32_precision for switch in switches]
    with using_precision("fp32", torch.device("cpu")):
        assert [switch.fp32_precision for switch in switches] == ["ieee", "ieee"]
    with using_precision("tf32", torch.device("cuda")):
        assert [switch.fp32_precision for switch in switches] == ["tf32", "tf32"]
    assert [switch.fp32_precision for switch in switches] == before
    with (
        pytest.raises(InputError, match=f"no precision 'fp8'; there are {', '.join(PRECISIONS)}"),
        using_precision("fp8", torch.device("cpu")),
    ):
        pass
