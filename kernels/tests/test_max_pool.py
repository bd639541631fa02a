"""Overlapping max pooling: its taps, ties, and the C form."""

import pytest
import torch
from references import (
    DTYPES,
    FORMS,
    LAYOUTS,
    OWN_FORMS,
    form,
    max_pool_and_taps,
    rand,
    with_gradient,
)

import alexnet_kernels as kernels
from alexnet_kernels import _native
from alexnet_kernels.max_pool import operator, operator_backward

X = torch.zeros(1, 4, 5, 5)


@pytest.mark.parametrize("in_form", OWN_FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_maxima_and_taps_to_the_bit(in_form, layout, dtype):
    for size, stride, maps in ((3, 2, 8), (2, 2, 5), (3, 1, 4), (5, 3, 1), (1, 2, 3)):
        x = rand(2, maps, 9, 8, dtype=dtype, layout=layout, scale=1.0)
        with form(in_form) as device:
            y, code = operator(x.to(device), size, stride)
        expected, tap = max_pool_and_taps(x.double(), size, stride)
        assert torch.equal(y.double().cpu(), expected) and torch.equal(code.cpu().long(), tap)


@pytest.mark.parametrize(("side", "maps"), [(3, 260), (5, 150), (7, 65), (15, 20), (40, 3)])
def test_as_many_maps_at_once_as_stay_in_the_cache(side, maps):
    for size, stride in ((3, 2), (2, 2), (3, 1)):
        x = rand(2, maps, side, side, dtype=torch.float32)
        x[0, maps // 2] = torch.nan  # whose neighbors keep their own
        expected, tap = max_pool_and_taps(x.double(), size, stride)
        with form("native"):
            y, code = operator(x, size, stride)
        assert torch.equal(y.double().nan_to_num(123.0), expected.nan_to_num(123.0))
        assert torch.equal(code.long(), tap)


@pytest.mark.parametrize("in_form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_first_maximum_of_a_tie_gets_the_gradient(in_form, layout):
    for value in (1.0, 0.0, -torch.inf):
        x = torch.full((1, 4, 3, 3), value).contiguous(memory_format=LAYOUTS[layout])
        with form(in_form) as device:
            _, dy, dx = with_gradient(kernels.max_pool, x, device)
        assert torch.equal(dx.cpu()[0, :, 0, 0], dy.flatten())
        assert dx.cpu().flatten(2)[..., 1:].abs().sum() == 0


def test_a_gradient_that_is_a_part_of_another_is_pooled_back_in_c_too(monkeypatch):
    _, code = operator(rand(3, 8, 7, 7, dtype=torch.float32), 3, 2)
    whole = rand(3, 16, 3, 3, dtype=torch.float32)
    called, run = [], _native.run
    monkeypatch.setattr(_native, "run", lambda name, *rest: called.append(name) or run(name, *rest))
    with form("native"):
        part = operator_backward(whole[:, 8:], code, 7, 7, 3, 2)
        assert called == ["max_pool_backward"]
        assert torch.equal(part, operator_backward(whole[:, 8:].contiguous(), code, 7, 7, 3, 2))


@pytest.mark.parametrize(("size", "message"), [(16, "1..15"), (7, "at least the window")])
def test_bad_arguments_are_named(size, message):
    with pytest.raises(ValueError, match=message):
        kernels.max_pool(X, size=size)
