"""The layers beside torch's, and through everything that is done with layers."""

import copy
import pickle

import pytest
import torch
from references import rand
from torch import nn

import alexnet_kernels as kernels

LAYERS = [
    kernels.LocalResponseNorm(3, 1e-3, 0.5, 1.0, 2, "after"),
    kernels.SameMapNorm(3, 1e-3),
    kernels.MaxPool2d(2, 1),
    kernels.ResponseNormPool(alpha=1e-3, columns=2, pool_size=2),
]
EACH = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)


@pytest.fixture
def x():
    return rand(2, 8, 9, 9, dtype=torch.float32)


@EACH
def test_it_is_its_function(layer, x):
    function = {
        kernels.LocalResponseNorm: kernels.local_response_norm,
        kernels.SameMapNorm: kernels.same_map_norm,
        kernels.MaxPool2d: kernels.max_pool,
        kernels.ResponseNormPool: kernels.response_norm_pool,
    }[type(layer)]
    assert torch.equal(layer(x), function(x, **layer.settings()))
    assert torch.equal(type(layer)()(x), function(x))  # the same defaults


@EACH
def test_it_is_copied_pickled_saved_compiled_and_exported(layer, x):
    y = layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), y)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), y)
    assert not layer.state_dict() and not list(layer.parameters())
    torch._dynamo.reset()
    assert torch.equal(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), y)
    exported = torch.export.export(layer, (x,)).module()(x)
    with kernels.using("torch"):  # which is what loads where these operators are not
        assert torch.equal(exported, layer(x))


def test_what_is_printed():
    assert str(nn.Sequential(kernels.LocalResponseNorm(), kernels.MaxPool2d())) == (
        "Sequential(\n"
        "  (0): LocalResponseNorm(size=5, alpha=0.0001, beta=0.75, k=2.0, columns=1, relu=None)\n"
        "  (1): MaxPool2d(size=3, stride=2)\n"
        ")"
    )


def test_a_setting_may_be_changed(x):
    layer = kernels.LocalResponseNorm()
    layer.columns = 2
    assert torch.equal(layer(x), kernels.local_response_norm(x, columns=2))


@pytest.mark.parametrize(
    "theirs", [nn.LocalResponseNorm(5), nn.LocalResponseNorm(3, 2e-3, 0.5, 2.0)], ids=str
)
def test_torchs_response_normalization(theirs, x):
    ours = kernels.LocalResponseNorm.from_torch(theirs)
    assert ours.alpha == theirs.alpha / theirs.size and ours.k == theirs.k
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(
    "theirs", [nn.MaxPool2d(3, 2), nn.MaxPool2d((2, 2)), nn.MaxPool2d(3, (1, 1), 0, 1)], ids=str
)
def test_torchs_pooling(theirs, x):
    assert torch.equal(kernels.MaxPool2d.from_torch(theirs)(x), theirs(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kernels.LocalResponseNorm(4), "odd"),
        (lambda: kernels.LocalResponseNorm(relu="between"), "relu must be"),
        (lambda: kernels.LocalResponseNorm.from_torch(nn.LocalResponseNorm(2)), "odd"),
        (lambda: kernels.SameMapNorm(k=0.0), "k must be positive"),
        (lambda: kernels.MaxPool2d(16), "1..15"),
        (lambda: kernels.MaxPool2d.from_torch(nn.MaxPool2d(3, 2, 1)), "no padding"),
        (lambda: kernels.MaxPool2d.from_torch(nn.MaxPool2d(3, ceil_mode=True)), "ceil mode"),
        (lambda: kernels.MaxPool2d.from_torch(nn.MaxPool2d((3, 2))), "same along both sides"),
        (lambda: kernels.ResponseNormPool(pool_stride=0), "stride positive"),
        (lambda: kernels.LocalResponseNorm(columns=0), "columns must be positive; it is 0"),
        (lambda: kernels.ResponseNormPool(columns=-1), "columns must be positive"),
        (lambda: kernels.LocalResponseNorm("5"), "size must be a whole number; it is '5'"),
        (lambda: kernels.LocalResponseNorm(5.0), "size must be a whole number; it is 5.0"),
        (lambda: kernels.LocalResponseNorm(alpha=None), "alpha must be a number; it is None"),
        (lambda: kernels.SameMapNorm(k=float("nan")), "k must be positive"),
        (lambda: kernels.MaxPool2d(stride="2"), "stride must be a whole number"),
        (lambda: kernels.LocalResponseNorm.from_torch(nn.ReLU()), "LocalResponseNorm; it is ReLU"),
        (lambda: kernels.MaxPool2d.from_torch(nn.AvgPool2d(3)), "MaxPool2d; it is AvgPool2d"),
    ],
)
def test_bad_settings_are_named_when_the_layer_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_block_takes_the_bias_of_the_convolution(x):
    bias = torch.randn(8)
    layer = kernels.ResponseNormPool(columns=2)
    torch.testing.assert_close(layer(x, bias), layer(x + bias.view(1, -1, 1, 1)))
