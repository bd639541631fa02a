"""Layers whose kernels differ from place to place, and the CIFAR-10 nets that have them."""

import pytest
import torch
import torch.nn.functional as F

from alexnet import AlexNet, presets
from alexnet.convolutions import locally_connected
from alexnet.errors import InputError
from alexnet.presets import Layer, total
from alexnet.training.learner import Learner
from alexnet.training.ranks import Ranks


def test_each_place_is_a_sum_of_its_own():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=generator)
    weight = torch.randn(4, 3, 3, 3, 4, 4, dtype=torch.float64, generator=generator)
    y = locally_connected(x, weight)
    for row in range(4):
        for column in range(4):
            window = x[:, :, row : row + 3, column : column + 3]
            expected = torch.einsum("nckl,ockl->no", window, weight[..., row, column])
            torch.testing.assert_close(y[:, :, row, column], expected)
    inputs = (x.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(locally_connected, inputs)


@pytest.mark.parametrize(("size", "stride", "side"), [(7, 1, 5), (7, 2, 3), (8, 2, 3)])
def test_with_the_same_kernels_everywhere_it_is_a_convolution(size, stride, side):
    x, kernel = torch.randn(2, 3, size, size), torch.randn(4, 3, 3, 3)
    weight = kernel[..., None, None].expand(-1, -1, -1, -1, side, side)
    expected = F.conv2d(x, kernel, stride=stride)
    torch.testing.assert_close(locally_connected(x, weight, stride), expected)


# By hand: conv1 3 x 25 x 64 + 64; conv2 64 x 25 x 64 + 64; local3, at each of 36 places,
# 64 x 9 x maps + maps; local4 36 x (maps x 9 x 32 + 32); fc10 32 x 36 x 10 + 10.
# Multiply-accumulates: without the biases, 24 x 24 and 12 x 12 places in conv1 and conv2.
@pytest.mark.parametrize(
    ("name", "maps", "parameters", "macs"),
    [
        ("cifar-13pct", 32, 1_116_490, 18_517_248),
        ("cifar-11pct", 64, 2_112_970, 19_512_576),
        ("cifar-13pct/local3-64", 64, 2_112_970, 19_512_576),
        ("cifar-13pct/cifar-lrn", 32, 1_116_490, 18_517_248),
    ],
)
def test_the_cifar_nets_numbers(name, maps, parameters, macs):
    table = presets.shapes(presets.get(name), 10, 1.0, 24)
    assert [row.size for row in table] == [24, 12, 6, 6, 1]
    expected = 4_864 + 102_464 + 36 * (576 + 1) * maps + 36 * (maps * 9 + 1) * 32 + 11_530
    assert total(table, "parameters") == expected == parameters
    places = 576 * 4_800 + 144 * 102_400 + 36 * 576 * maps + 36 * 9 * maps * 32 + 11_520
    assert total(table, "macs") == places == macs
    net = AlexNet(name, 10, 1.0, 24)
    assert sum(p.numel() for p in net.parameters()) == parameters
    net.load_merged(net.export_merged())
    assert net(torch.randn(2, 3, 24, 24)).shape == (2, 10)


def test_layers_may_have_a_decay_of_their_own():
    net = AlexNet("cifar-11pct", 10, 1 / 8, 24)
    learner = Learner(net, net.preset.recipe, Ranks())
    decays = {
        n.partition(".")[2].partition(".")[2]: d for n, d in zip(learner.kinds, learner.decays)
    }
    assert decays["conv2.weight"] == 0 and decays["local4.weight"] == 0.004
    assert decays["fc10.weight"] == 0.01 and decays["fc10.bias"] == 0


def test_a_fully_connected_layer_cannot_be_local():
    with pytest.raises(InputError, match="only a convolution can be local"):
        Layer("fc", 10, "own", local=True)
