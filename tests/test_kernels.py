"""The operators against float64 references written from the equations, loop by loop."""

import pytest
import torch

import kernels

GENERATOR = torch.Generator().manual_seed(0)


def rand(*shape, scale=10.0):
    return torch.randn(*shape, dtype=torch.float64, generator=GENERATOR) * scale


def lrn_by_hand(x, size, alpha, beta, k, columns):
    y, width = torch.empty_like(x), x.shape[1] // columns
    for i in range(x.shape[1]):
        first = i // width * width  # of this map's column
        low, high = max(first, i - size // 2), min(first + width, i + size // 2 + 1)
        y[:, i] = x[:, i] / (k + alpha * (x[:, low:high] ** 2).sum(1)) ** beta
    return y


@pytest.mark.parametrize(("maps", "columns"), [(1, 1), (2, 1), (6, 2), (7, 1), (12, 3), (5, 5)])
@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_local_response_norm(maps, columns, size):
    x = rand(2, maps, 3, 4)
    for relu in (None, "before", "after"):
        expected = lrn_by_hand(x.relu() if relu == "before" else x, size, 1e-3, 0.75, 2.0, columns)
        got = kernels.local_response_norm(x, size, 1e-3, 0.75, 2.0, columns, relu)
        torch.testing.assert_close(got, expected.relu() if relu == "after" else expected, rtol=1e-12, atol=1e-12)


def test_local_response_norm_in_torchs_convention():
    x = rand(2, 8, 5, 5)
    other = torch.nn.functional.local_response_norm(x, 5, 5e-4, 0.75, 2.0)
    torch.testing.assert_close(kernels.local_response_norm(x), other, rtol=1e-12, atol=0)


@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_gradients(beta):
    x = rand(2, 6, 5, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: kernels.local_response_norm(x, 5, 1e-2, beta, 2.0, 2), x)
    assert torch.autograd.gradcheck(lambda x: kernels.same_map_norm(x, 5, 1e-2, beta), x)
    assert torch.autograd.gradcheck(lambda x: kernels.response_norm_pool(x, torch.ones(6, dtype=torch.float64), alpha=1e-2, columns=2), x)


def test_same_map_norm():
    x = rand(2, 3, 6, 4)
    expected = torch.empty_like(x)
    for h in range(6):
        for w in range(4):
            near = x[:, :, max(0, h - 2) : h + 3, max(0, w - 2) : w + 3]
            expected[:, :, h, w] = x[:, :, h, w] * (1 + 4e-5 * (near**2).sum((2, 3))) ** -0.75
    torch.testing.assert_close(kernels.same_map_norm(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("size", "stride"), [(3, 2), (2, 2), (3, 1), (5, 3)])
def test_max_pool(size, stride):
    x = rand(2, 3, 9, 8)
    y = kernels.max_pool(x, size, stride)
    assert y.shape == (2, 3, (9 - size) // stride + 1, (8 - size) // stride + 1)
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            assert torch.equal(y[:, :, i, j], x[:, :, i * stride : i * stride + size, j * stride : j * stride + size].amax((2, 3)))


def test_the_first_maximum_of_a_tie_gets_the_gradient():
    x = torch.ones(1, 1, 3, 3, requires_grad=True)
    kernels.max_pool(x).sum().backward()
    assert x.grad.flatten().tolist() == [1.0] + [0.0] * 8


@pytest.mark.parametrize("relu", ["before", "after", None])
def test_response_norm_pool_is_its_parts(relu):
    x, bias = rand(2, 6, 7, 7), rand(6)
    got = kernels.response_norm_pool(x, bias, columns=2, relu=relu)
    y = x + bias.view(1, -1, 1, 1)
    expected = lrn_by_hand(y.relu() if relu == "before" else y, 5, 1e-4, 0.75, 2.0, 2)
    expected = torch.nn.functional.max_pool2d(expected, 3, 2)  # the ReLU after: max and ReLU change places
    torch.testing.assert_close(got, expected.relu() if relu == "after" else expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_types_are_computed_in_float32(dtype):
    x = rand(2, 6, 5, 5).to(dtype)
    for operator in (kernels.local_response_norm, kernels.same_map_norm):
        y = operator(x)
        assert y.dtype == dtype
        torch.testing.assert_close(y, operator(x.double()).to(dtype), rtol=torch.finfo(dtype).eps * 2, atol=0)


def test_channels_last_stays_channels_last():
    x = rand(2, 6, 5, 5).contiguous(memory_format=torch.channels_last)
    for y in (kernels.local_response_norm(x), kernels.same_map_norm(x), kernels.max_pool(x)):
        assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("mean_size", [10, 6])
def test_crop_flip_color(mean_size):
    images = torch.randint(0, 256, (5, 10, 10, 3), dtype=torch.uint8, generator=GENERATOR)
    offsets = torch.tensor([[0, 0], [4, 4], [1, 3], [4, 0], [2, 2]])
    flips = torch.tensor([False, True, True, False, False])
    shift, mean = rand(5, 3), rand(mean_size, mean_size, 3)
    got = kernels.crop_flip_color(images, offsets, flips, shift, mean, 6, 0.5, torch.float64)
    for n in range(5):
        top, left = offsets[n].tolist()
        centered = mean if mean_size == 6 else mean[top : top + 6, left : left + 6]
        crop = images[n, top : top + 6, left : left + 6].double() - centered
        crop = crop.flip(1) if flips[n] else crop
        torch.testing.assert_close(got[n], 0.5 * (crop + shift[n]).permute(2, 0, 1), rtol=1e-5, atol=1e-4)
    last = kernels.crop_flip_color(images, offsets, flips, shift, mean, 6, 0.5, channels_last=True)
    assert last.is_contiguous(memory_format=torch.channels_last) and torch.equal(last.double(), got)


def test_momentum_step_is_the_papers_rule():
    w, g, v = rand(4, 3), rand(4, 3), rand(4, 3)
    expected_v = 0.9 * v - 5e-4 * 0.01 * w - 0.01 * g
    expected_w = w + expected_v
    bias, bias_v = rand(4), rand(4)
    frozen, frozen_v = rand(2), rand(2)
    before = frozen.clone(), frozen_v.clone(), bias.clone(), bias_v.clone()
    grads, rates = [g, torch.ones(4), torch.ones(2)], [0.01, torch.tensor(0.02), 0.0]
    kernels.momentum_step_([w, bias, frozen], grads, [v, bias_v, frozen_v], rates, 0.9, [5e-4, 0.0, 5e-4])
    torch.testing.assert_close(v, expected_v)
    torch.testing.assert_close(w, expected_w)
    torch.testing.assert_close(bias, before[2] + 0.9 * before[3] - 0.02)
    assert torch.equal(frozen, before[0]) and torch.equal(frozen_v, before[1])


X = torch.zeros(1, 4, 5, 5)
U8 = torch.zeros(2, 5, 5, 3, dtype=torch.uint8)
ZERO = torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, dtype=torch.bool), torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernels.local_response_norm(X, size=4), "odd"),
        (lambda: kernels.local_response_norm(X, columns=3), "columns must divide the 4 maps"),
        (lambda: kernels.local_response_norm(X, relu="between"), "relu must be"),
        (lambda: kernels.local_response_norm(X[0]), r"shape \(N, C, H, W\)"),
        (lambda: kernels.same_map_norm(X, size=2), "odd"),
        (lambda: kernels.max_pool(X, size=16), "1..15"),
        (lambda: kernels.max_pool(X, size=7), "at least the window"),
        (lambda: kernels.response_norm_pool(X, torch.zeros(3)), "4 maps"),
        (lambda: kernels.crop_flip_color(U8.float(), *ZERO, torch.zeros(5, 5, 3), 4), "uint8"),
        (lambda: kernels.crop_flip_color(U8, ZERO[0] + 2, *ZERO[1:], torch.zeros(5, 5, 3), 4), "leaves the 5 x 5"),
        (lambda: kernels.crop_flip_color(U8, *ZERO, torch.zeros(3, 3, 3), 4), "mean must be"),
        (lambda: kernels.crop_flip_color(U8, *ZERO, torch.zeros(5, 5, 3), -1), "size must be positive"),
        (lambda: kernels.momentum_step_([X], [X, X], [X], 0.1), "one length"),
        (lambda: kernels.momentum_step_([X], [X[0]], [X], 0.1), "one shape"),
        (lambda: kernels.momentum_step_([X, X], [X, X], [X, X], [0.1]), "one for each of the 2"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
