"""What bfloat16 has of its own in C: odd shapes, in channels-last memory and in planes."""

import pytest
import torch
from references import LAYOUTS, check, rand

import alexnet_kernels as kernels
from alexnet_kernels import _native

BF16 = torch.bfloat16
pytestmark = pytest.mark.skipif(_native.library() is None, reason="there is no C compiler")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("maps", [1, 3, 17, 48, 130])
@pytest.mark.parametrize("side", [1, 5, 9, 19])
def test_any_number_of_maps_and_pixels(layout, maps, side):
    """Strips of 8 pixels, vectors of 16 numbers: neither need divide what there is."""
    x = rand(2, maps, side, side + 1, dtype=BF16, layout=layout)
    check("local_response_norm", x, "native", alpha=1e-3)
    check("same_map_norm", x, "native", alpha=1e-3)
    if side >= 3:
        check("max_pool", x, "native")


def test_blocks_of_other_windows():
    """Rows of a block come round in a ring, of as many as a window is high."""
    x = rand(2, 6, 11, 10, dtype=BF16, layout="nhwc")
    for size, stride in ((2, 2), (3, 1), (5, 3), (3, 4)):
        settings = {"alpha": 1e-3, "size": 3, "pool_size": size, "pool_stride": stride}
        norm = {"alpha": 1e-3, "size": 3, "relu": "before"}
        with kernels.using("native"):
            block = kernels.response_norm_pool(x, **settings)
            normalized = kernels.local_response_norm(x, **norm)
            assert torch.equal(block, kernels.max_pool(normalized, size, stride))


def test_the_update_rounds_what_float32_gives():
    w, v, g = (rand(1000, scale=1.0, seed=i).float() for i in range(3))
    g = g.to(BF16)
    wide, copy = [w.clone(), v.clone()], torch.empty(1000, dtype=BF16)
    kernels.momentum_step_([wide[0]], [g.float()], [wide[1]], 0.1, 0.9, 0.01)
    with kernels.using("native"):
        kernels.momentum_step_([w], [g], [v], 0.1, 0.9, 0.01, copies=[copy])
    assert torch.equal(w, wide[0]) and torch.equal(v, wide[1]) and torch.equal(copy, w.to(BF16))


def test_sums_do_not_depend_on_threads():
    x = rand(5, 16, 13, 13, dtype=BF16, layout="nhwc").requires_grad_()
    bias = rand(16, dtype=BF16).requires_grad_()
    results, threads = [], torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        y = kernels.response_norm_pool(x, bias, columns=2)
        results.append(torch.autograd.grad(y.square().sum(), (x, bias)))
    torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
