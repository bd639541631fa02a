"""The update rule of the paper."""

import pytest
import torch
from references import OWN_FORMS, assert_close, form, rand

import alexnet_kernels as kernels
from alexnet_kernels import _native

SHAPES = [(4, 3), (3000,), (2, 3, 5, 5), (0,), (7,), (1,)]
RATES, DECAYS = [0.01, 0.02, 0.0, 0.1, 0.03, 0.5], [5e-4, 0.0, 0.1, 0.1, 0.1, 0.0]


@pytest.mark.parametrize("in_form", OWN_FORMS)
@pytest.mark.parametrize("grad_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_copies", [False, True])
@pytest.mark.parametrize("as_tensors", [False, True])
def test_it_is_the_papers_rule(in_form, grad_dtype, has_copies, as_tensors):
    first = [[rand(*s, scale=1.0, dtype=torch.float32, seed=i) for s in SHAPES] for i in range(3)]
    first[0][2] = first[0][2].contiguous(memory_format=torch.channels_last)
    if not has_copies:  # else walks through memory do not agree, and the composite runs
        first[1][2], first[2][2] = (torch.empty_like(first[0][2]).copy_(t[2]) for t in first[1:])
    with form(in_form) as device:
        w, g, v = ([t.clone().to(device) for t in part] for part in first)
        g = [t.to(grad_dtype) for t in g]
        copies = [torch.zeros_like(t, dtype=torch.bfloat16) for t in w] if has_copies else []
        lr = [torch.tensor(r, device=device) for r in RATES] if as_tensors else RATES
        kernels.momentum_step_(w, g, v, lr, 0.9, DECAYS, copies)
    for i, rate in enumerate(RATES):
        w0, g0, v0 = (part[i].double() for part in first)
        g0 = g0.to(grad_dtype).double()
        v1 = 0.9 * v0 - DECAYS[i] * rate * w0 - rate * g0 if rate else v0
        assert_close(v[i], v1)
        assert_close(w[i], w0 + v1 if rate else w0)
        if has_copies and rate:
            assert torch.equal(copies[i], w[i].bfloat16())


def test_one_rate_for_all_and_no_parameters():
    w, v = [torch.ones(3), torch.ones(2)], [torch.zeros(3), torch.zeros(2)]
    kernels.momentum_step_(w, [torch.ones(3), torch.ones(2)], v, torch.tensor(0.5), 0.9, 0.5)
    assert all(t.tolist() == [0.25] * len(t) for t in w)
    kernels.momentum_step_([], [], [], 0.1)


@pytest.mark.parametrize("mode", ["native", "composite"])
def test_who_kept_a_weight_for_a_gradient_notices(mode):
    if mode == "native" and _native.library() is None:
        pytest.skip("no C compiler")
    with kernels.using(mode):
        w = torch.ones(3, requires_grad=True)
        y = (w * w).sum()
        kernels.momentum_step_([w], [torch.ones(3)], [torch.zeros(3)], 0.1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()


X = torch.zeros(1, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([X], [X, X], [X], 0.1), "one length"),
        (([X], [X[0]], [X], 0.1), "one shape"),
        (([X], [None], [X], 0.1), "a gradient is None"),
        (([X, X], [X, X], [X, X], [0.1]), "one for each of the 2"),
        (([X, X], [X, X], [X, X], 0.1, 0.9, 0.0, [X]), "copies must be"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        kernels.momentum_step_(*arguments)
