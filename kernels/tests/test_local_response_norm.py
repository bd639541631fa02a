"""Response normalization across maps, and within one: what is special to them."""

import pytest
import torch
from references import FORMS, LAYOUTS, RELU, assert_close, check, form, rand
from references import local_response_norm as definition
from references import max_pool as pool_definition

import alexnet_kernels as kernels

X = torch.zeros(1, 4, 5, 5)


@pytest.mark.parametrize(("height", "width"), [(1, 31), (4, 8), (3, 11), (7, 9), (8, 8), (5, 13)])
def test_maps_that_are_no_multiple_of_what_c_takes_at_once(height, width):
    """In planes native.c normalizes 32 pixels at a time, and copies smaller maps.

    The last pixels of a map are normalized once more, with some before them.
    """
    for (maps, columns, size), relu in zip([(6, 2, 5), (9, 3, 3), (130, 1, 9)], RELU, strict=True):
        x = rand(2, maps, height, width, dtype=torch.float32)
        settings = {"size": size, "alpha": 1e-3, "columns": columns, "relu": relu}
        check("local_response_norm", x, "native", **settings)


@pytest.mark.parametrize("in_form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, the interpreter's, on overflow
def test_extreme_values(in_form, layout, dtype):
    """Infinities, NaN, squares that overflow, denormals: as in float64, rounded."""
    big, tiny = float(torch.finfo(dtype).max), float(torch.finfo(dtype).smallest_normal) / 8
    for value in (torch.inf, -torch.inf, torch.nan, big / 4, tiny, 0.0):
        x = rand(1, 8, 3, 3, dtype=dtype, layout=layout)
        x[0, 3, 1, 1] = value
        with form(in_form) as device:
            y = kernels.local_response_norm(x.to(device), 5, 1e-3, 0.75, 2.0).cpu()
            pooled = kernels.max_pool(x.to(device)).cpu()
        expected = definition(x.double(), 5, 1e-3)
        if abs(value) == big / 4:  # its square has no float32: the denominator is infinite
            expected[0, 1:6, 1, 1] = 0
        assert_close(y, expected)
        maxima = pool_definition(x.double()).to(dtype)
        assert torch.equal(pooled.nan_to_num(-7), maxima.nan_to_num(-7))


@pytest.mark.parametrize("in_form", ["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "columns", "relu", "rounds"),
    [
        ((2, 8, 7, 6), 2, "before", 8),
        ((3, 6, 5, 3), 2, "after", 8),  # a word is one channel
        ((2, 48, 5, 7), 1, "before", 32),  # three lanes a pixel, and more rounds than are full
        ((1, 24, 3, 7), 2, "none", 3),  # the second lane of a column has half its words
        ((1, 32, 1, 1), 1, "before", 8),
    ],
)
def test_the_biass_gradient_in_the_backward_pass(
    monkeypatch, in_form, dtype, shape, columns, relu, rounds
):
    """A lane sums over several pixels; what it writes beside the sums has the bits of the kernel
    that has none."""
    settings = (5, 1e-3, 0.75, 2.0, columns, relu)
    with form(in_form) as device:
        from alexnet_kernels.gpu import local_response_norm as gpu

        x, dy = (rand(*shape, dtype=dtype, layout="nhwc", seed=i).to(device) for i in (0, 5))
        bias = rand(shape[1], dtype=dtype).to(device)
    monkeypatch.setattr(gpu, "_rounds", lambda x: rounds)
    u = (x.double() + bias.double().view(1, -1, 1, 1)).cpu().requires_grad_()
    value = definition(u, 5, 1e-3, columns=columns, relu=None if relu == "none" else relu)
    (expected,) = torch.autograd.grad(value, u, dy.double().cpu())
    kernel, kind = gpu.backward_kernel, type(gpu.backward_kernel.configs[0])
    for constants, warps in gpu.CONFIGS:
        monkeypatch.setattr(kernel, "configs", [kind(constants, num_warps=warps)])
        kernel.cache.clear()
        sums, (dx, alone) = gpu.empty_sums(x).fill_(torch.nan), (torch.empty_like(x) for _ in "12")
        assert sums.shape == (-(-x.numel() // shape[1] // rounds), shape[1])
        gpu.backward(x, bias, dy, dx, *settings, sums=sums)
        gpu.backward(x, bias, dy, alone, *settings)
        assert torch.equal(dx, alone)
        assert_close(dx, expected)
        within = 1e-6 * float(expected.abs().sum((0, 2, 3)).max())
        total = sums.double().sum(0).cpu()
        torch.testing.assert_close(total, expected.sum((0, 2, 3)), rtol=0, atol=within)


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
        (lambda: kernels.same_map_norm(X[0]), r"shape \(N, C, H, W\)"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_alpha_of_other_programs_computes_the_same():
    x = 50 * torch.randn(2, 9, 4, 4)
    settings = {"size": 5, "beta": 0.75, "k": 2.0}
    expected = torch.nn.functional.local_response_norm(x, alpha=5e-4, **settings)
    alpha = kernels.convert_alpha(5e-4, 5, "torch")
    torch.testing.assert_close(kernels.local_response_norm(x, alpha=alpha, **settings), expected)
    assert alpha == pytest.approx(1e-4)
    for name in ("caffe", "onnx", "cudnn", "cuda-convnet", "torch"):
        assert kernels.convert_alpha(1e-4, 5, "paper", name) == pytest.approx(5e-4)
        assert kernels.convert_alpha(5e-4, 5, name, "tensorflow") == pytest.approx(1e-4)
    assert kernels.convert_alpha(3e-4, 7, "torch", "caffe") == pytest.approx(3e-4)
    with pytest.raises(ValueError, match=r"no convention 'keras' of alpha; there are paper, "):
        kernels.convert_alpha(1e-4, 5, "keras")
