"""What changes the weights: masters, kinds of parameters, momentum, and what is kept of it."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from alexnet import AlexNet, presets, rng
from alexnet.errors import InputError
from alexnet.training.learner import Learner, rescale_
from alexnet.training.ranks import Ranks
from alexnet_kernels import momentum_step_
from tests.runs import with_running_mean

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"preset": "paper/conv6"}, r"conv6.* is .*, this net's missing"),
        ({"preset": "paper/no-conv4"}, "conv4.* is missing, this net's"),
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


def test_buffers_are_kept_with_the_weights():
    """And not lost in silence: a checkpoint that lacks them is another net's."""
    nets = [AlexNet("paper", num_classes=3, width=1 / 16, image_size=64) for _ in range(3)]
    plain, first, second = (
        Learner(with_running_mean(net) if i else net, presets.get("paper").recipe, Ranks())
        for i, net in enumerate(nets)
    )
    first.backward(torch.full((2, 3, 64, 64), 6.0), torch.tensor([0, 1]), torch.arange(2), 2)
    columns = first.columns()
    mean = columns["1"]["conv1.running_mean"].clone()
    assert 2 < float(mean.min()) < 3  # of 6s within zeros, at half the way
    assert "velocity.conv1.running_mean" not in columns["1"]
    second.restore({number: dict(tensors) for number, tensors in columns.items()})
    assert torch.equal(second.net.stages("conv1")[1].running_mean, mean)
    assert "columns.0.conv1.running_mean" not in first.kinds
    with pytest.raises(InputError, match=r"conv1\.running_mean of column 0 is missing"):
        second.restore(plain.columns())
    with pytest.raises(InputError, match=r"running_mean of .*, this net's missing"):
        plain.restore(columns)


def test_decay_follows_the_kind_of_a_parameter():
    net = AlexNet("paper", num_classes=3, width=1 / 16, image_size=64)
    learner = Learner(net, presets.get("paper").recipe, Ranks())
    assert list(learner.kinds) == list(learner.parameters) == list(learner.weights)
    decays = dict(zip(learner.kinds, learner.decays, strict=True))
    assert {kind: decays[name] for name, kind in learner.kinds.items()} == {
        "weight": 5e-4,
        "bias": 0.0,
    }


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
