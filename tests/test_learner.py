"""What moves the weights: what each precision costs, and what a checkpoint of another net is told."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from alexnet import AlexNet, presets, rng
from alexnet.errors import InputError
from alexnet.training.learner import PRECISIONS, Learner, arithmetic, rescale_
from alexnet.training.ranks import Ranks
from alexnet_kernels import momentum_step_

pytestmark = pytest.mark.usefixtures("one_thread")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
# The largest difference from fp64 in the loss of any of 40 steps, as a share of ln(classes), and in the weights after them, as a share of
# the way that they have come. tf32 is fp32 where there is no GPU, and refused there.
COST = {"fp32": (1e-5, 2e-3), "tf32": (5e-3, 0.1), "bf16": (4e-2, 0.6)}


def learn(precision, device, steps=40):
    """Two classes, told apart by their color: losses, and the weights before and after."""
    torch.manual_seed(1)
    net = AlexNet("paper/sigma-0.03", num_classes=4, width=1 / 8, image_size=64)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    with arithmetic(precision, torch.device(device)) as dtype:
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


def test_weights_are_updated_in_float32_whatever_the_net_computes_in():
    """A rate so small that bfloat16 would not notice it."""
    net = AlexNet("paper", num_classes=3, width=1 / 16, image_size=64)
    learner = Learner(net, presets.get("paper").recipe, Ranks(), torch.bfloat16)
    assert {p.dtype for p in net.parameters()} == {torch.bfloat16} and {
        w.dtype for w in learner.weights.values()
    } == {torch.float32}
    before = {name: value.clone() for name, value in learner.weights.items()}
    for _ in range(3):
        for parameter in learner.parameters.values():
            parameter.grad = torch.ones_like(parameter)
        learner.update([1e-6] * len(before))
    for name, value in learner.weights.items():
        moved = value - before[name]
        assert float(moved.max()) < 0 and torch.equal(
            learner.parameters[name], value.to(torch.bfloat16)
        )


def test_a_gpu_multiplies_as_it_did_afterwards():
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [switch.fp32_precision for switch in switches]
    with arithmetic("fp32", torch.device("cpu")):
        assert [switch.fp32_precision for switch in switches] == ["ieee", "ieee"]
    with arithmetic("tf32", torch.device("cuda")):
        assert [switch.fp32_precision for switch in switches] == ["tf32", "tf32"]
    assert [switch.fp32_precision for switch in switches] == before
    with (
        pytest.raises(InputError, match=f"no precision 'fp8'; there are {', '.join(PRECISIONS)}"),
        arithmetic("fp8", torch.device("cpu")),
    ):
        pass


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"preset": "paper/conv6"}, "holds a surplus .*conv6"),
        ({"preset": "paper/no-conv4"}, "lacks .*conv4"),
        ({"width": 1 / 8}, "is torch.float32 of shape .*, this net's torch.float32 of shape"),
        ({"preset": "paper/one-column"}, "it belongs to another net"),
    ],
)
def test_another_nets_columns_are_refused_and_nothing_is_changed(other, said):
    def made(preset="paper", width=1 / 16):
        net = AlexNet(preset, num_classes=3, width=width, image_size=64)
        return Learner(net, presets.get(preset).recipe, Ranks())

    learner, columns = made(), made(**other).columns()
    before = {name: value.clone() for name, value in learner.weights.items()}
    with pytest.raises(InputError, match=said):
        learner.restore(columns)
    assert all(torch.equal(value, before[name]) for name, value in learner.weights.items())


def test_a_velocity_that_is_rescaled_is_torchs_sgd():
    w, v = [torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5])], [torch.zeros(3), torch.zeros(1)]
    theirs = [torch.nn.Parameter(one.clone()) for one in w]
    groups = [
        {"params": [theirs[0]], "weight_decay": 0.01},
        {"params": [theirs[1]], "weight_decay": 0.0},
    ]
    sgd = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    before = [0.1, 0.1]
    for step in range(30):
        rate = 0.1 if step < 15 else 0.01
        grads = [torch.sin(one + step) for one in w]
        for group, parameter, grad in zip(sgd.param_groups, theirs, grads, strict=True):
            group["lr"], parameter.grad = rate, grad.clone()
        sgd.step()
        before = rescale_(v, before, [rate, rate])
        momentum_step_(w, grads, v, rate, 0.9, [0.01, 0.0])
        torch.testing.assert_close(w, [one.detach() for one in theirs])
    held = [one.clone() for one in v]
    assert rescale_(v, [0.01, 0.01], [0.0, 0.01]) == [0.01, 0.01] and all(
        torch.equal(a, b) for a, b in zip(v, held, strict=True)
    )


def test_the_two_ways_to_write_momentum_part_only_where_the_rate_falls():
    def after(preset, rates):
        torch.manual_seed(2)
        learner = Learner(AlexNet(preset, 3, 1 / 16, 64), presets.get(preset).recipe, Ranks())
        x, labels = (
            50 * rng.normal(rng.key(5, torch.arange(6)), 3 * 64 * 64).view(6, 3, 64, 64).float(),
            torch.arange(6) % 3,
        )
        for rate in rates:
            learner.backward(x, labels, torch.arange(6), 6)
            learner.update([rate] * len(learner.parameters))
        return torch.cat([value.detach().flatten() for value in learner.weights.values()])

    plain, outside = "paper/sigma-0.03", "paper/sigma-0.03/rate-outside"
    assert torch.equal(after(outside, [1e-3] * 6), after(plain, [1e-3] * 6))
    falls = [1e-3] * 6 + [1e-4]
    assert (after(outside, falls) - after(plain, falls)).norm() > 0.3 * (
        after(plain, falls) - after(plain, [1e-3] * 6)
    ).norm()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_memory_that_a_step_frees_stays_with_the_process():
    """In a process of its own: what it sets holds for good."""
    code = """
import resource, torch
from alexnet.training.learner import keep_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        pieces = [torch.ones(750_000) for _ in range(10)]  # 3 MB each, and all of it freed
        del pieces
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(); first = faults(); keep_memory(); faults(); print(first, faults())
"""
    env = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "131072"
    }  # glibc would adapt it, or not, as small allocations happen to lie
    first, then = map(
        int,
        subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        ).stdout.split(),
    )
    assert then < 100 < 10_000 < first
