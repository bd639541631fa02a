"""Bias, ReLU, normalization and pooling in one call."""

import pytest
import torch
from references import (
    FORMS,
    HALVES,
    LAYOUTS,
    OWN_FORMS,
    RELU,
    assert_close,
    form,
    local_response_norm,
    max_pool,
    max_pool_and_taps,
    rand,
    response_norm_pool,
)

import alexnet_kernels as kernels

OPS = torch.ops.alexnet_kernels


@pytest.mark.parametrize("in_form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("relu", RELU)
def test_with_a_bias(in_form, layout, dtype, relu):
    x, bias = rand(2, 8, 7, 6, dtype=dtype, layout=layout), rand(8, dtype=dtype)
    settings = {"alpha": 1e-3, "columns": 2, "relu": relu}
    with form(in_form) as device:
        given = [t.to(device).requires_grad_() for t in (x, bias)]
        y = kernels.response_norm_pool(*given, **settings)
        dy = rand(*y.shape, scale=1.0, dtype=dtype)
        dx, db = torch.autograd.grad(y, given, dy.to(device))
    exact = [t.double().requires_grad_() for t in (x, bias)]
    expected = response_norm_pool(*exact, **settings)
    gradients = torch.autograd.grad(expected, exact, dy.double())
    assert_close(y, expected.detach())
    assert_close(dx, gradients[0])
    assert_close(db, gradients[1], roundings=4)  # a sum over the batch


def test_gradcheck_with_a_bias():
    x = rand(2, 4, 3, 3).requires_grad_()
    bias = torch.ones(4, dtype=torch.float64, requires_grad=True)
    block = kernels.ResponseNormPool(alpha=1e-2, columns=2)
    assert torch.autograd.gradcheck(block, (x, bias))
    norm = OPS.local_response_norm  # the operator has a bias too
    assert torch.autograd.gradcheck(lambda *t: norm(*t, 5, 1e-2, 0.75, 2.0, 2, "before"), (x, bias))


@pytest.mark.parametrize("in_form", OWN_FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", HALVES)
def test_in_half_types_it_is_its_parts(in_form, layout, dtype):
    """Rounding makes ties, so the float64 net's maxima may lie elsewhere.

    The parts, each held to a definition of its own, are the measure.
    """
    x, bias = rand(2, 8, 7, 7, dtype=dtype, layout=layout), rand(8, dtype=dtype)
    settings = (5, 1e-3, 0.75, 2.0, 2, "before")
    with form(in_form) as device:
        x, bias = x.to(device), bias.to(device)
        y, code = OPS.response_norm_pool(x, bias, *settings, 3, 2)
        spread = OPS.max_pool_backward(y, code, 7, 7, 3, 2)
        dx, _ = OPS.response_norm_pool_backward(x, bias, code, y, *settings, 3, 2)
    u = (x.double() + bias.double().view(1, -1, 1, 1)).cpu().requires_grad_()
    normalized = local_response_norm(u, *settings)
    assert_close(y, max_pool(normalized).detach(), dtype)
    (gradient,) = torch.autograd.grad(normalized, u, spread.double().cpu())
    assert_close(dx, gradient, dtype, roundings=2)


CONFIGS = [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2, 3))]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_fused_block_under_the_interpreter(config, monkeypatch):
    """On a device a measurement chooses between two kernels and one; this one is called by name."""
    with form("interpreter"):
        from alexnet_kernels.gpu import response_norm_pool as gpu
    constants, warps = gpu.CONFIGS[config]
    only = type(gpu.kernel.configs[0])(constants, num_warps=warps)
    monkeypatch.setattr(gpu.kernel, "configs", [only])
    cases = (
        (6, 2, 7, 6, "before"),
        (12, 1, 23, 5, "after"),
        (32, 2, 8, 4, "before"),
        (8, 2, 3, 3, "none"),
    )
    for dtype, some in ((torch.float32, cases[:3]), (torch.bfloat16, cases[2:])):
        for maps, columns, high, wide, relu in some:
            x, bias = rand(2, maps, high, wide, dtype=dtype, layout="nhwc"), rand(maps)
            shape = (2, maps, (high - 3) // 2 + 1, (wide - 3) // 2 + 1)
            y, code = (
                torch.empty(shape, dtype=t, memory_format=torch.channels_last)
                for t in (dtype, torch.uint8)
            )
            gpu.forward(x, bias, y, code, 5, 1e-3, 0.75, 2.0, columns, relu)
            u = x.double() + bias.view(1, -1, 1, 1)
            order = relu if relu == "before" else None
            maxima, tap = max_pool_and_taps(
                local_response_norm(u, 5, 1e-3, 0.75, 2.0, columns, order)
            )
            assert_close(y, maxima.relu() if relu == "after" else maxima)
            positive = maxima > 0  # after the ReLU the zeros tie, and no gradient passes them
            assert torch.equal(code.long()[positive], tap[positive]) or relu == "before"


def test_only_the_input_and_the_taps_are_kept():
    x = rand(2, 8, 15, 15, dtype=torch.float32).requires_grad_()
    kept = []
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.nbytes) or t, lambda t: t
    )
    with hooks:
        y = kernels.response_norm_pool(x)
    assert sum(kept) == x.nbytes + y.numel()


@pytest.mark.parametrize("in_form", OWN_FORMS)
def test_a_bias_may_have_steps_and_another_type(in_form):
    with form(in_form) as device:
        x = rand(2, 8, 7, 7, dtype=torch.float32).to(device)
        bias = torch.arange(16.0, device=device)[::2]
        expected = kernels.response_norm_pool(x, bias.contiguous())
        for other in (bias, bias.double(), bias.bfloat16(), bias.long()):
            torch.testing.assert_close(kernels.response_norm_pool(x, other), expected)
        leaf = bias.bfloat16().requires_grad_()  # which alone has a gradient
        (db,) = torch.autograd.grad(kernels.response_norm_pool(x, leaf).sum(), leaf)
        assert db.dtype == torch.bfloat16


def test_a_bias_of_another_length_is_named():
    with pytest.raises(ValueError, match="4 maps"):
        kernels.response_norm_pool(torch.zeros(1, 4, 5, 5), torch.zeros(3))
