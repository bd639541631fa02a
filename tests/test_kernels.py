"""Every form of every operator against float64 references (tests/references.py): compiled C, plain torch, Triton under its interpreter and,
with `-m gpu`, on a device."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.library import opcheck

import alexnet_kernels as kernels
from alexnet_kernels import _native
from alexnet_kernels.max_pool import operator as _p, operator_backward as _pb
pool, pool_backward = _p.compute, _pb.compute
from tests import references as ref
from tests.references import FORMS, LAYOUTS, assert_close, form

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
RELU = [None, "before", "after"]


def rand(*shape, scale=10.0, dtype=torch.float64, layout="nchw", seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    x = (torch.randn(*shape, dtype=torch.float64, generator=generator) * scale).to(dtype)
    return x.contiguous(memory_format=LAYOUTS[layout]) if x.dim() == 4 else x


def is_dense(x, layout):
    return x.is_contiguous(memory_format=LAYOUTS[layout])


def with_gradient(operator, x, device="cpu", seed=7):
    """The operator's value at x, a random gradient of it, and the gradient of x that follows."""
    x = x.to(device).requires_grad_()
    y = operator(x)
    dy = rand(*y.shape, scale=1.0, dtype=y.dtype, seed=seed).to(device)
    (dx,) = torch.autograd.grad(y, x, dy)
    return y.detach(), dy.cpu(), dx


def check_local_response_norm(x, size, alpha, beta, k, columns, relu, name):
    with form(name) as device:
        y, dy, dx = with_gradient(
            lambda x: kernels.local_response_norm(x, size, alpha, beta, k, columns, relu), x, device
        )
    u = x.double().requires_grad_()
    want = ref.local_response_norm(
        u.relu() if relu == "before" else u, size, alpha, beta, k, columns
    )
    want = want.relu() if relu == "after" else want
    (gradient,) = torch.autograd.grad(want, u, dy.double())
    assert y.dtype == x.dtype and dx.dtype == x.dtype and y.shape == dx.shape == x.shape
    assert_close(y, want.detach())
    # torch's own operators and autograd round a half type's activations on the way
    assert_close(dx, gradient, roundings=2 if name == "torch" else 1)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_local_response_norm(name, layout, dtype):
    for (maps, columns, size), relu in zip(
        [(8, 2, 5), (12, 1, 5), (7, 1, 3), (6, 3, 9), (32, 2, 5), (1, 1, 1)], RELU * 2
    ):
        x = rand(2, maps, 3, 4, dtype=dtype, layout=layout)
        check_local_response_norm(x, size, 1e-3, 0.75, 2.0, columns, relu, name)
    check_local_response_norm(x, 5, 1e-2, 0.5, 1.0, 1, "before", name)


@pytest.mark.parametrize(("height", "width"), [(1, 31), (4, 8), (3, 11), (7, 9), (8, 8), (5, 13)])
def test_maps_that_are_no_multiple_of_what_c_takes_at_once(height, width):
    """In planes native.c normalizes 32 pixels at a time, the last ones of a map once more, and copies smaller maps."""
    for (maps, columns, size), relu in zip([(6, 2, 5), (9, 3, 3), (130, 1, 9)], RELU, strict=True):
        check_local_response_norm(
            rand(2, maps, height, width, dtype=torch.float32),
            size,
            1e-3,
            0.75,
            2.0,
            columns,
            relu,
            "native",
        )


@pytest.mark.parametrize(("side", "maps"), [(3, 260), (5, 150), (7, 65), (15, 20), (40, 3)])
def test_pooling_takes_as_many_maps_at_once_as_stay_in_the_cache(side, maps):
    for size, stride in ((3, 2), (2, 2), (3, 1)):
        x = rand(2, maps, side, side, dtype=torch.float32)
        x[0, maps // 2] = torch.nan  # whose neighbors keep their own
        want, tap = ref.max_pool(x.double(), size, stride)
        with form("native"):
            y, code = pool(x, size, stride)
        assert torch.equal(y.double().nan_to_num(123.0), want.nan_to_num(123.0)) and torch.equal(
            code.long(), tap
        )


def check_same_map_norm(x, size, alpha, beta, k, name):
    with form(name) as device:
        y, dy, dx = with_gradient(
            lambda x: kernels.same_map_norm(x, size, alpha, beta, k), x, device
        )
    u = x.double().requires_grad_()
    want = ref.same_map_norm(u, size, alpha, beta, k)
    assert y.dtype == dx.dtype == x.dtype and y.shape == dx.shape == x.shape
    assert_close(y, want.detach())
    assert_close(dx, torch.autograd.grad(want, u, dy.double())[0])


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_map_norm(name, layout, dtype):
    for maps, size, beta in ((8, 5, 0.75), (3, 3, 0.75), (1, 7, 0.5), (2, 13, 0.75)):
        check_same_map_norm(
            rand(2, maps, 6, 5, dtype=dtype, layout=layout), size, 1e-3, beta, 1.0, name
        )


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_max_pool_and_its_taps(name, layout, dtype):
    for size, stride, maps in ((3, 2, 8), (2, 2, 5), (3, 1, 4), (5, 3, 1), (1, 2, 3)):
        x = rand(2, maps, 9, 8, dtype=dtype, layout=layout, scale=1.0)
        with form(name) as device:
            y, dy, dx = with_gradient(
                lambda x, size=size, stride=stride: kernels.max_pool(x, size, stride), x, device
            )
            code = (
                torch.ops.alexnet_kernels.max_pool(x.to(device), size, stride)[1]
                if name != "torch"
                else None
            )
        want, tap = ref.max_pool(x.double(), size, stride)
        assert torch.equal(y.double().cpu(), want)
        assert code is None or torch.equal(code.cpu().long(), tap)
        if name != "torch" or dtype not in (
            torch.bfloat16,
            torch.float16,
        ):  # torch adds up in the type itself
            assert_close(dx, ref.max_pool_backward(dy, tap, x.shape, size, stride))


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("relu", RELU)
def test_response_norm_pool(name, layout, dtype, relu):
    x, bias = rand(2, 8, 7, 6, dtype=dtype, layout=layout), rand(8, dtype=dtype)
    with form(name) as device:
        b = bias.to(device).requires_grad_()
        x_there = x.to(device).requires_grad_()
        y = kernels.response_norm_pool(x_there, b, alpha=1e-3, columns=2, relu=relu)
        dy = rand(*y.shape, scale=1.0, dtype=dtype)
        dx, db = torch.autograd.grad(y, (x_there, b), dy.to(device))
    u, c = x.double().requires_grad_(), bias.double().requires_grad_()
    z = u + c.view(1, -1, 1, 1)
    z = ref.local_response_norm(z.relu() if relu == "before" else z, 5, 1e-3, 0.75, 2.0, 2)
    want = torch.nn.functional.max_pool2d(z, 3, 2)  # the ReLU after: maximum and ReLU change places
    want = want.relu() if relu == "after" else want
    gradients = torch.autograd.grad(want, (u, c), dy.double())
    assert_close(y, want.detach())
    assert_close(dx, gradients[0])
    assert_close(db, gradients[1], roundings=4)  # a sum over the batch


@pytest.mark.parametrize(
    "name", ["native", "composite", "interpreter", pytest.param("cuda", marks=pytest.mark.gpu)]
)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_block_in_half_types_is_its_parts(name, layout, dtype):
    """Rounding makes ties, so the float64 net's maxima may lie elsewhere: the parts, each held to a reference above, are the measure."""
    x, bias, setting = (
        rand(2, 8, 7, 7, dtype=dtype, layout=layout),
        rand(8, dtype=dtype),
        (5, 1e-3, 0.75, 2.0, 2, "before"),
    )
    with form(name) as device:
        x, bias = x.to(device), bias.to(device)
        y, code = torch.ops.alexnet_kernels.response_norm_pool(x, bias, *setting, 3, 2)
        spread = torch.ops.alexnet_kernels.max_pool_backward(y, code, 7, 7, 3, 2)
        dx = torch.ops.alexnet_kernels.response_norm_pool_backward(x, bias, code, y, *setting, 3, 2)
    u = (x.double() + bias.double().view(1, -1, 1, 1)).cpu().requires_grad_()
    want = ref.local_response_norm(u.relu(), *setting[:5])
    assert_close(y, torch.nn.functional.max_pool2d(want, 3, 2).detach(), dtype)
    assert_close(dx, torch.autograd.grad(want, u, spread.double().cpu())[0], dtype, roundings=2)


@pytest.mark.parametrize(
    "config", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2, 3))]
)
def test_the_fused_block_under_the_interpreter(config, monkeypatch):
    """On a device a measurement chooses between two kernels and one, in some configuration; here the one is called by name."""
    with form("interpreter"):
        from alexnet_kernels.gpu import response_norm_pool as gpu
    constants, warps = gpu.CONFIGS[config]
    monkeypatch.setattr(
        gpu.kernel, "configs", [type(gpu.kernel.configs[0])(constants, num_warps=warps)]
    )
    for dtype in (torch.float32, torch.bfloat16):
        for maps, columns, high, wide, relu in (
            (8, 2, 3, 3, "none"),
            (6, 2, 7, 6, "before"),
            (12, 1, 23, 5, "after"),
            (32, 2, 8, 4, "before"),
        ):
            x, bias = rand(2, maps, high, wide, dtype=dtype, layout="nhwc"), rand(maps)
            shape = (2, maps, (high - 3) // 2 + 1, (wide - 3) // 2 + 1)
            y, code = (
                torch.empty(shape, dtype=t, memory_format=torch.channels_last)
                for t in (dtype, torch.uint8)
            )
            gpu.forward(x, bias, y, code, 5, 1e-3, 0.75, 2.0, columns, relu)
            u = x.double() + bias.view(1, -1, 1, 1)
            want = ref.local_response_norm(
                u.relu() if relu == "before" else u, 5, 1e-3, 0.75, 2.0, columns
            )
            maximum, tap = ref.max_pool(want, 3, 2)
            assert_close(y, maximum.relu() if relu == "after" else maximum)
            positive = maximum > 0  # after the ReLU the zeros tie, and no gradient passes them
            assert torch.equal(code.long()[positive], tap[positive]) or relu == "before"


def test_every_configuration_and_width_of_index_under_the_interpreter(monkeypatch):
    """What a device's measurement may choose from, and the 64-bit offsets of tensors that are too large for a test."""
    with form("interpreter"):
        from alexnet_kernels.gpu import local_response_norm, max_pool, same_map_norm
    for module in (local_response_norm, max_pool, same_map_norm):
        monkeypatch.setattr(module, "is_wide", lambda *tensors: True)
    tuners = [
        (local_response_norm.forward_kernel, local_response_norm.CONFIGS),
        (local_response_norm.backward_kernel, local_response_norm.CONFIGS),
        (max_pool.forward_kernel, max_pool.FORWARD),
        (max_pool.backward_kernel, max_pool.BACKWARD),
        (same_map_norm.kernel, same_map_norm.CONFIGS),
    ]
    x = rand(1, 32, 5, 5, dtype=torch.bfloat16, layout="nhwc")
    results = []
    for i in range(4):
        for tuner, configs in tuners:
            constants, warps = configs[i % len(configs)]
            monkeypatch.setattr(
                tuner, "configs", [type(tuner.configs[0])(constants, num_warps=warps)]
            )
        with form("interpreter"):
            results.append(
                [with_gradient(f, x) for f in (kernels.response_norm_pool, kernels.same_map_norm)]
            )
    for other in results[1:]:
        assert all(
            torch.equal(a, b)
            for first, second in zip(results[0], other)
            for a, b in zip(first, second)
        )
    check_local_response_norm(x, 5, 1e-3, 0.75, 2.0, 2, "before", "interpreter")


# --- any shape, any value -----------------------------------------------------------------------------------------------------------------


@st.composite
def cases(draw, side=6):
    columns = draw(st.integers(1, 4))
    maps = columns * draw(st.integers(1, 9))
    shape = draw(st.integers(0, 3)), maps, draw(st.integers(1, side)), draw(st.integers(1, side))
    return {
        "shape": shape,
        "columns": columns,
        "size": draw(st.sampled_from([1, 3, 5, 7, 9])),
        "relu": draw(st.sampled_from(RELU)),
        "dtype": draw(
            st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])
        ),
        "memory": draw(
            st.sampled_from(["nchw", "nhwc", "sliced", "transposed", "every other map"])
        ),
        "seed": draw(st.integers(0, 2**20)),
        "scale": draw(st.sampled_from([1e-3, 1.0, 100.0])),
        "pool": (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
    }


def in_memory(x, how):
    """The same values lying differently."""
    n, c, h, w = x.shape
    if how == "sliced":  # neighbors of other values on every side
        big = torch.full((n + 1, c + 2, h + 2, w + 3), torch.nan, dtype=x.dtype)
        big[:n, 1 : c + 1, 1 : h + 1, 2 : w + 2] = x
        return big[:n, 1 : c + 1, 1 : h + 1, 2 : w + 2]
    if how == "transposed":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    if how == "every other map":
        return x.repeat_interleave(2, 1)[:, ::2]
    return x.contiguous(memory_format=LAYOUTS[how])


def check_case(case, name):
    x = in_memory(
        rand(*case["shape"], scale=case["scale"], dtype=case["dtype"], seed=case["seed"]),
        case["memory"],
    )
    if x.numel():
        check_local_response_norm(
            x, case["size"], 1e-2, 0.75, 1.0, case["columns"], case["relu"], name
        )
        check_same_map_norm(x, case["size"], 1e-2, 0.75, 1.0, name)
    size, stride = case["pool"]
    with form(name) as device:
        x = x.to(device)
        if not x.numel():
            for y in (
                kernels.local_response_norm(x, columns=case["columns"]),
                kernels.same_map_norm(x),
            ):
                assert y.shape == x.shape
        if min(x.shape[2:]) < size:
            return
        leaf = x.detach().requires_grad_()
        y = kernels.max_pool(leaf, size, stride)
        dy = rand(*y.shape, scale=1.0, dtype=y.dtype)
        (dx,) = torch.autograd.grad(y, leaf, dy.to(device))
    want, tap = ref.max_pool(x.double().cpu(), size, stride)
    assert torch.equal(y.double().cpu(), want)
    assert_close(dx, ref.max_pool_backward(dy, tap, x.shape, size, stride), roundings=2)


QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "derandomize": True}


@settings(max_examples=60, **QUIET)
@given(cases())
def test_any_shape_and_layout_on_the_cpu(case):
    check_case(case, "native")
    check_case(case, "composite")


@settings(max_examples=25, **QUIET)
@given(cases(side=4))
def test_any_shape_and_layout_under_the_interpreter(case):
    check_case(case, "interpreter")


@pytest.mark.slow
@settings(max_examples=1000, **QUIET)
@given(cases())
def test_many_shapes_on_the_cpu(case):
    check_case(case, "native")
    check_case(case, "composite")


@pytest.mark.slow
@settings(max_examples=400, **QUIET)
@given(cases(side=5))
def test_many_shapes_under_the_interpreter(case):
    check_case(case, "interpreter")


@pytest.mark.gpu
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases(side=9))
def test_any_shape_and_layout_on_a_device(case):
    check_case(case, "cuda")


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings(
    "ignore::RuntimeWarning"
)  # NumPy, which the interpreter computes with, remarks on overflow
def test_extreme_values(name, layout, dtype):
    """Infinities, NaN, squares that overflow, denormals: what the equation gives in float64, rounded."""
    big, tiny = float(torch.finfo(dtype).max), float(torch.finfo(dtype).smallest_normal) / 8
    for value in (torch.inf, -torch.inf, torch.nan, big / 4, tiny, 0.0):
        x = rand(1, 8, 3, 3, dtype=dtype, layout=layout)
        x[0, 3, 1, 1] = value
        with form(name) as device:
            y = kernels.local_response_norm(x.to(device), 5, 1e-3, 0.75, 2.0).cpu()
            pooled = kernels.max_pool(x.to(device)).cpu()
        want = ref.local_response_norm(x.double(), 5, 1e-3, 0.75, 2.0, 1)
        if abs(value) == big / 4:  # its square has no float32: the denominator is infinite
            want[0, 1:6, 1, 1] = 0
        assert_close(y, want)
        assert torch.equal(
            pooled.nan_to_num(-7), ref.max_pool(x.double(), 3, 2)[0].to(dtype).nan_to_num(-7)
        )


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_not_finite_goes_no_further_than_its_windows(name, layout, value):
    x = rand(2, 12, 9, 7, dtype=torch.float32, layout=layout)
    x[0, 2, 4, 6] = x[1, 11, 0, 0] = value  # at the ends of a row, a map, a column of maps
    check_local_response_norm(x, 3, 1e-3, 0.75, 2.0, 2, None, name)
    check_same_map_norm(x, 3, 1e-3, 0.75, 1.0, name)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_first_maximum_of_a_tie_gets_the_gradient(name, layout):
    for value in (1.0, 0.0, -torch.inf):
        x = torch.full((1, 4, 3, 3), value).contiguous(memory_format=LAYOUTS[layout])
        with form(name) as device:
            _, dy, dx = with_gradient(kernels.max_pool, x, device)
        assert (
            torch.equal(dx.cpu()[0, :, 0, 0], dy.flatten())
            and dx.cpu().flatten(2)[..., 1:].abs().sum() == 0
        )


@pytest.mark.parametrize(
    "name", ["native", "composite", "interpreter", pytest.param("cuda", marks=pytest.mark.gpu)]
)
def test_results_lie_in_memory_as_what_they_come_from(name):
    for layout in LAYOUTS:
        x = rand(2, 8, 7, 6, dtype=torch.float32, layout=layout)
        for operator in (
            kernels.local_response_norm,
            kernels.same_map_norm,
            kernels.max_pool,
            kernels.response_norm_pool,
        ):
            with form(name) as device:
                y, _, dx = with_gradient(operator, x, device)
            assert is_dense(y, layout) and is_dense(dx, layout)


def test_the_bits_do_not_depend_on_threads(one_thread):
    x = rand(5, 64, 31, 29, dtype=torch.float32)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        with form("native"):
            results.append(
                [with_gradient(f, x) for f in (kernels.response_norm_pool, kernels.same_map_norm)]
            )
    for other in results[1:]:
        assert all(
            torch.equal(a, b)
            for first, second in zip(results[0], other)
            for a, b in zip(first, second)
        )


def test_a_gradient_that_is_a_part_of_another_is_pooled_back_in_c_too(monkeypatch):
    x = rand(3, 8, 7, 7, dtype=torch.float32)
    code = pool(x, 3, 2)[1]
    whole = rand(3, 16, 3, 3, dtype=torch.float32)
    with form("native"):
        called, take = [], _native.call
        monkeypatch.setattr(
            _native, "call", lambda name, *rest: called.append(name) or take(name, *rest)
        )
        part = pool_backward(whole[:, 8:], code, 7, 7, 3, 2)
        assert called == ["max_pool_backward"] and torch.equal(
            part, pool_backward(whole[:, 8:].contiguous(), code, 7, 7, 3, 2)
        )


# --- from uint8 to a batch; the update ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["native", "composite", "interpreter", pytest.param("cuda", marks=pytest.mark.gpu)]
)
@pytest.mark.parametrize("mean_size", [10, 6])
def test_crop_flip_color_to_the_bit(name, mean_size):
    images = torch.randint(
        0, 256, (5, 10, 10, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    offsets = torch.tensor([[0, 0], [4, 4], [1, 3], [4, 0], [2, 2]])
    flips = torch.tensor([False, True, True, False, False])
    shift, mean = (
        rand(5, 3, dtype=torch.float32),
        rand(mean_size, mean_size, 3, dtype=torch.float32),
    )
    want = torch.empty(5, 3, 6, 6)
    for n in range(5):
        top, left = offsets[n].tolist()
        average = mean if mean_size == 6 else mean[top : top + 6, left : left + 6]
        crop = (images[n, top : top + 6, left : left + 6].float() - average + shift[n]) * 0.3
        want[n] = (crop.flip(1) if flips[n] else crop).permute(2, 0, 1)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for last in (False, True):
            with form(name) as device:
                given = [t.to(device) for t in (images, offsets, flips, shift, mean)]
                got = kernels.crop_flip_color(*given, 6, 0.3, dtype, last)
            assert torch.equal(got.cpu(), want.to(dtype)) and is_dense(
                got, "nhwc" if last else "nchw"
            )
    with form(name) as device:  # a step through memory, and integers of another width
        wide = torch.zeros(5, 10, 20, 3, dtype=torch.uint8)
        wide[:, :, ::2] = images
        given = [t.to(device) for t in (wide[:, :, ::2], offsets.int(), flips, shift, mean)]
        assert torch.equal(kernels.crop_flip_color(*given, 6, 0.3).cpu(), want)


@pytest.mark.parametrize(
    "name", ["native", "composite", "interpreter", pytest.param("cuda", marks=pytest.mark.gpu)]
)
@pytest.mark.parametrize("grad_dtype", [torch.float32, torch.bfloat16])
def test_momentum_step_is_the_papers_rule(name, grad_dtype):
    shapes, rates, decays = (
        [(4, 3), (3000,), (2, 3, 5, 5), (0,), (7,), (1,)],
        [0.01, 0.02, 0.0, 0.1, 0.03, 0.5],
        [5e-4, 0.0, 0.1, 0.1, 0.1, 0.0],
    )
    first = [[rand(*s, scale=1.0, dtype=torch.float32, seed=i) for s in shapes] for i in range(3)]
    first[0][2] = first[0][2].contiguous(memory_format=torch.channels_last)
    for as_tensors in (False, True):
        with form(name) as device:
            w, g, v = ([t.clone().to(device) for t in part] for part in first)
            g = [t.to(grad_dtype) for t in g]
            copies = [torch.zeros_like(t, dtype=torch.bfloat16) for t in w]
            lr = [torch.tensor(r, device=device) for r in rates] if as_tensors else rates
            kernels.momentum_step_(w, g, v, lr, 0.9, decays, copies)
        for i, rate in enumerate(rates):
            w0, g0, v0 = (part[i].double() for part in first)
            v1 = (
                0.9 * v0 - decays[i] * rate * w0 - rate * g0.to(grad_dtype).double() if rate else v0
            )
            assert_close(v[i], v1)
            assert_close(w[i], w0 + v1 if rate else w0)
            assert torch.equal(copies[i], w[i].bfloat16()) or rate == 0


def test_one_rate_for_all_and_no_parameters():
    w, v = [torch.ones(3), torch.ones(2)], [torch.zeros(3), torch.zeros(2)]
    kernels.momentum_step_(w, [torch.ones(3), torch.ones(2)], v, torch.tensor(0.5), 0.9, 0.5)
    assert all(t.tolist() == [0.25] * len(t) for t in w)
    kernels.momentum_step_([], [], [], 0.1)


@pytest.mark.parametrize("mode", ["native", "composite"])
def test_an_update_tells_who_kept_a_weight_for_a_gradient(mode):
    if mode == "native" and _native.library() is None:
        pytest.skip("no C compiler")
    with kernels.using(mode):
        w = torch.ones(3, requires_grad=True)
        y = (w * w).sum()
        kernels.momentum_step_([w], [torch.ones(3)], [torch.zeros(3)], 0.1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()


# --- as operators of torch ----------------------------------------------------------------------------------------------------------------

STEP = """
import sys, torch
import alexnet_kernels as kernels
x, bias = torch.randn(2, 8, 9, 9, requires_grad=True), torch.zeros(8, requires_grad=True)
kernels.max_pool(kernels.same_map_norm(kernels.local_response_norm(x))).sum().backward()
kernels.response_norm_pool(x, bias).sum().backward()
kernels.momentum_step_([x], [x.grad], [torch.zeros_like(x)], 0.1)
sys.exit("torch._dynamo" in sys.modules)
"""


def test_without_torch_compile_nobody_waits_for_its_import():
    subprocess.run(
        [sys.executable, "-c", STEP], check=True, cwd=Path(__file__).resolve().parents[1]
    )


LRN, POOL = (5, 1e-3, 0.75, 2.0, 2, "before"), (3, 2)


def operator_calls(dtype, layout, batch=2):
    x, bias = (
        rand(batch, 8, 7, 6, dtype=dtype, layout=layout).requires_grad_(),
        rand(8, dtype=dtype).requires_grad_(),
    )
    y, code = torch.ops.alexnet_kernels.max_pool(x.detach(), *POOL)
    ops = torch.ops.alexnet_kernels
    return [
        (ops.local_response_norm, (x, None, *LRN)),
        (ops.local_response_norm, (x, bias, *LRN)),
        (ops.local_response_norm_backward, (x.detach(), None, x.detach(), *LRN)),
        (ops.same_map_norm, (x, 5, 1e-3, 0.75, 1.0)),
        (ops.same_map_norm_backward, (x.detach(), x.detach(), 5, 1e-3, 0.75, 1.0)),
        (ops.max_pool, (x, *POOL)),
        (ops.max_pool_backward, (y, code, 7, 6, *POOL)),
        (ops.response_norm_pool, (x, bias, *LRN, *POOL)),
        (ops.response_norm_pool, (x, None, *LRN, *POOL)),
        (ops.response_norm_pool_backward, (x.detach(), bias.detach(), code, y, *LRN, *POOL)),
    ]


@pytest.mark.parametrize("mode", ["auto", "composite"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(mode, layout):
    with kernels.using(mode):
        for op, args in operator_calls(torch.float32, layout):
            opcheck(op.default, args)
        for op, args in operator_calls(torch.float32, layout, batch=0):
            opcheck(op.default, args, test_utils=("test_schema", "test_faketensor"))
        images = (
            torch.zeros(2, 6, 6, 3, dtype=torch.uint8),
            torch.zeros(2, 2, dtype=torch.int64),
            torch.zeros(2, dtype=torch.bool),
        )
        crop = (
            *images,
            torch.zeros(2, 3),
            torch.zeros(6, 6, 3),
            4,
            1.0,
            torch.float32,
            layout == "nhwc",
        )
        opcheck(torch.ops.alexnet_kernels.crop_flip_color.default, crop)
        parts = [[torch.ones(3), torch.ones(2, 2)] for _ in range(3)]
        rates = torch.tensor([0.1, 0.2], dtype=torch.float64)
        opcheck(
            torch.ops.alexnet_kernels.momentum_step_.default,
            (*parts, [t.bfloat16() for t in parts[0]], rates, rates, 0.9),
        )


@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_gradcheck(beta):
    x, bias = (
        rand(2, 6, 5, 5).requires_grad_(),
        torch.ones(6, dtype=torch.float64, requires_grad=True),
    )
    for relu in RELU:
        assert torch.autograd.gradcheck(
            lambda x, relu=relu: kernels.local_response_norm(x, 5, 1e-2, beta, 2.0, 2, relu), x
        )
    assert torch.autograd.gradcheck(lambda x: kernels.same_map_norm(x, 5, 1e-2, beta), x)
    assert torch.autograd.gradcheck(kernels.max_pool, x)
    assert torch.autograd.gradcheck(
        lambda x, b: kernels.response_norm_pool(x, b, alpha=1e-2, columns=2), (x, bias)
    )


def test_only_the_input_and_the_taps_are_kept():
    x = rand(2, 8, 15, 15, dtype=torch.float32).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.nbytes) or t, lambda t: t
    ):
        y = kernels.response_norm_pool(x)
    assert sum(kept) == x.nbytes + y.numel()


def net(x, bias):
    u = kernels.response_norm_pool(x, bias, columns=2)
    return kernels.max_pool(
        kernels.same_map_norm(kernels.local_response_norm(u, columns=2, relu="after"))
    ).sum()


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(backend):
    x, bias = (
        rand(2, 8, 15, 15, dtype=torch.float32).requires_grad_(),
        torch.ones(8, requires_grad=True),
    )
    want = torch.autograd.grad(net(x, bias), (x, bias))
    torch._dynamo.reset()
    got = torch.autograd.grad(
        torch.compile(net, fullgraph=True, backend=backend)(x, bias), (x, bias)
    )
    assert all(torch.equal(a, b) for a, b in zip(got, want))


@pytest.mark.parametrize(
    "name", ["native", "composite", "interpreter", pytest.param("cuda", marks=pytest.mark.gpu)]
)
def test_small_inputs_may_have_steps_and_other_types(name):
    x, bias, flips = (
        rand(2, 8, 7, 7, dtype=torch.float32),
        torch.arange(16.0),
        torch.tensor([True, False, False, False]),
    )
    images, rest = (
        torch.arange(2 * 48, dtype=torch.uint8).view(2, 4, 4, 3),
        (torch.zeros(2, 2), torch.zeros(2, 3), torch.zeros(4, 4, 3)),
    )
    with form(name) as device:
        x, bias, flips, images, offsets, shift, mean = (
            t.to(device) for t in (x, bias, flips, images, rest[0].long(), *rest[1:])
        )
        want = kernels.response_norm_pool(x, bias[::2].contiguous())
        for other in (bias[::2], bias[::2].double(), bias[::2].bfloat16(), bias[::2].long()):
            torch.testing.assert_close(kernels.response_norm_pool(x, other), want)
        leaf = bias[::2].bfloat16().requires_grad_()
        (db,) = torch.autograd.grad(
            kernels.response_norm_pool(x, leaf).sum(), leaf
        )  # the bias alone
        assert db.dtype == torch.bfloat16
        crops = [
            kernels.crop_flip_color(images, offsets, f, shift, mean, 3)
            for f in (flips[::2], flips[::2].contiguous())
        ]
        assert torch.equal(*crops)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # which torch uses itself
def test_transforms_go_by_torchs_operators():
    """torch.func and forward mode do not know our operators: a jvp would be zero without a word."""
    x = rand(2, 8, 7, 7).requires_grad_()
    for f in (
        kernels.local_response_norm,
        kernels.same_map_norm,
        kernels.max_pool,
        kernels.response_norm_pool,
    ):
        y = f(x)
        (dx,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(torch.func.grad(lambda x, f=f: f(x).sum())(x.detach()), dx)
        torch.testing.assert_close(torch.func.vmap(f)(x.detach()[:, None]), y.detach()[:, None])
        _, tangent = torch.func.jvp(f, (x.detach(),), (torch.ones_like(x),))
        torch.testing.assert_close(tangent.sum(), dx.sum())
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x.detach(), torch.ones_like(x))
            torch.testing.assert_close(
                torch.autograd.forward_ad.unpack_dual(f(dual)).tangent, tangent
            )


def test_second_derivatives_are_refused_except_by_torchs_operators():
    x = rand(1, 4, 5, 5).requires_grad_()
    for f in (
        kernels.local_response_norm,
        kernels.same_map_norm,
        lambda x: kernels.max_pool(x) ** 2,
        kernels.response_norm_pool,
    ):
        (dx,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="_backward has no gradient; with kernels"):
            dx.sum().backward()
    shift = torch.zeros(2, 3, requires_grad=True)
    batch = kernels.crop_flip_color(U8, *ZERO[:2], shift, torch.zeros(5, 5, 3), 4)
    with pytest.raises(RuntimeError, match="crop_flip_color has no gradient"):
        batch.sum().backward()
    with kernels.using("torch"):
        assert torch.autograd.gradgradcheck(lambda x: kernels.local_response_norm(x, alpha=1e-2), x)


# --- bad input ----------------------------------------------------------------------------------------------------------------------------

X = torch.zeros(1, 4, 5, 5)
U8 = torch.zeros(2, 5, 5, 3, dtype=torch.uint8)
ZERO = torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, dtype=torch.bool), torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernels.local_response_norm(X, size=4), "odd"),
        (lambda: kernels.local_response_norm(X, k=0.0), "k must be positive"),
        (lambda: kernels.local_response_norm(X, columns=3), "columns must divide the 4 maps"),
        (lambda: kernels.local_response_norm(X, relu="between"), "relu must be"),
        (lambda: kernels.local_response_norm(X[0]), r"shape \(N, C, H, W\)"),
        (lambda: kernels.local_response_norm(X.int()), "floating-point"),
        (lambda: kernels.same_map_norm(X, size=2), "odd"),
        (lambda: kernels.max_pool(X, size=16), "1..15"),
        (lambda: kernels.max_pool(X, size=7), "at least the window"),
        (lambda: kernels.response_norm_pool(X, torch.zeros(3)), "4 maps"),
        (lambda: kernels.crop_flip_color(U8.float(), *ZERO, torch.zeros(5, 5, 3), 4), "uint8"),
        (
            lambda: kernels.crop_flip_color(U8, ZERO[0] + 2, *ZERO[1:], torch.zeros(5, 5, 3), 4),
            "leaves the 5 x 5",
        ),
        (
            lambda: kernels.crop_flip_color(U8, *ZERO, torch.zeros(6, 6, 3), 6),
            "larger than the 5 x 5",
        ),
        (lambda: kernels.crop_flip_color(U8, *ZERO, torch.zeros(3, 3, 3), 4), "mean must be"),
        (
            lambda: kernels.crop_flip_color(
                U8, ZERO[0], ZERO[1].int(), ZERO[2], torch.zeros(5, 5, 3), 4
            ),
            "flips must be bool",
        ),
        (
            lambda: kernels.crop_flip_color(U8, *ZERO, torch.zeros(5, 5, 3), -1),
            "size must be positive",
        ),
        (lambda: kernels.momentum_step_([X], [X, X], [X], 0.1), "one length"),
        (lambda: kernels.momentum_step_([X], [X[0]], [X], 0.1), "one shape"),
        (lambda: kernels.momentum_step_([X], [None], [X], 0.1), "a gradient is None"),
        (lambda: kernels.momentum_step_([X, X], [X, X], [X, X], [0.1]), "one for each of the 2"),
        (lambda: kernels.momentum_step_([X, X], [X, X], [X, X], 0.1, copies=[X]), "copies must be"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
