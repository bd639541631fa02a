"""Counter-based random numbers: fixed for ever, uniform, independent of company."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck

import alexnet_kernels as kernels
from alexnet import rng
from alexnet_kernels import _native


def test_numbers_are_fixed_for_ever():
    """A change here changes every trained model: raise training.VERSION with it."""
    first = 0xE220A8397B1DCDAF - 2**64  # of splitmix64 from state 0
    assert int(rng._mix(torch.tensor(rng._GOLDEN))) == first
    assert rng.key(1, 2, 3).item() == rng.key(torch.tensor(1), 2, 3).item()
    assert (
        rng.uniform(rng.key(rng.CROP, 0, 0, torch.arange(2)), 3) * 1000
    ).long().tolist() == FIXED


FIXED = [[483, 92, 372], [292, 992, 825]]


def test_a_number_does_not_depend_on_its_neighbors():
    alone = rng.normal(rng.key(rng.COLOR, 5, 2, torch.tensor([17])), 3)
    among = rng.normal(rng.key(rng.COLOR, 5, 2, torch.arange(100)), 3)
    assert torch.equal(alone[0], among[17])


def test_distributions():
    keys = rng.key(9, torch.arange(20_000))
    u, z = rng.uniform(keys, 4), rng.normal(keys, 4)
    assert u.min() >= 0 and u.max() < 1
    assert abs(u.mean() - 0.5) < 0.005 and abs(u.var() - 1 / 12) < 0.002
    assert abs(z.mean()) < 0.02 and abs(z.var() - 1) < 0.02
    both = torch.corrcoef(torch.cat([u, z], 1).T) - torch.eye(8)
    assert both.abs().max() < 0.03
    for p in (0.0, 0.25, 0.5, 1.0):
        assert abs(rng.keep(keys, 4, p).double().mean() - p) < 0.01


@pytest.mark.skipif(_native.library() is None, reason="no C compiler")
def test_masks_are_the_same_compiled():
    keys = rng.key(rng.DROPOUT, torch.arange(-3, 300))
    for count in (1, 512, 1001):
        for p in (0.0, 2.0**-53, 0.25, 0.5, 1 - 2.0**-53, 1.0):
            with kernels.using("composite"):
                right = rng.keep(keys, count, p)
            with kernels.using("native"):
                assert torch.equal(rng.keep(keys, count, p), right), (count, p)
                assert torch.equal(rng.keep(keys[::2], count, p), right[::2]), (count, p)
                assert torch.equal(rng.keep(keys[0], count, p), right[0]), (
                    count,
                    p,
                )  # one key alone: in plain torch
    with kernels.using("native"):
        assert rng.keep(keys[:0], 7, 0.5).shape == (0, 7) and rng.keep(keys[:7], 0, 0.5).shape == (
            7,
            0,
        )


@pytest.mark.skipif(_native.library() is None, reason="no C compiler")
def test_compiled_masks_are_an_operator_like_any_other():
    keys = rng.key(rng.DROPOUT, torch.arange(6))
    opcheck(torch.ops.alexnet_kernels.keep_mask.default, (keys, [0, 6], 9, 0, torch.bfloat16))
    with FakeTensorMode() as fake:
        assert rng.keep(fake.from_tensor(keys), 5, 0.5).shape == (6, 5)
    assert torch.equal(rng.keep(keys, 5, 0.5, 6, 1), rng.keep(rng.key(keys, 6, 1), 5, 0.5))
    traced = make_fx(lambda keys: rng.keep(keys, 5, 0.5))(keys)
    assert torch.equal(traced(keys + 1), rng.keep(keys + 1, 5, 0.5))
    assert not rng.keep(keys, 5, -0.1).any() and rng.keep(keys, 5, 1.1).all()


def test_permutation_is_one():
    order = rng.permutation(rng.key(rng.ORDER, 1, 2), 1000)
    assert order.sort().values.tolist() == list(range(1000)) and order.tolist() != list(range(1000))
    assert not torch.equal(order, rng.permutation(rng.key(rng.ORDER, 1, 3), 1000))
