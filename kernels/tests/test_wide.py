"""Tensors of more elements than 32 bits count, in planes and channels-last: files with holes stand
in for the memory, and only the first and the last program of each kernel is interpreted."""

import math
from itertools import count

import numpy as np
import pytest
import torch
from references import LAYOUTS, assert_close, form, max_pool_and_taps, rand, run, same_map_norm
from references import local_response_norm as definition

from alexnet_kernels._choose import INTERPRETED

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="Triton's interpreter is off")
MANY = 8192  # images: 96 x 55 x 55 x 8192 is 2.4e9
MORE = 32768  # for kernels with fewer lanes than elements


@pytest.fixture
def holes(tmp_path):
    """Makes maps (N, C, H, W) that take no memory where nothing is written."""
    numbers = count()

    def make(shape, dtype, layout):
        path = str(tmp_path / str(next(numbers)))
        flat = torch.from_file(path, shared=True, size=math.prod(shape), dtype=dtype)
        n, c, h, w = shape
        return flat.view(n, h, w, c).permute(0, 3, 1, 2) if layout == "nhwc" else flat.view(shape)

    return make


@pytest.fixture
def ends(monkeypatch):
    """Interpret the first and the last program alone."""
    from triton.runtime import interpreter
    from triton.runtime.interpreter import GridExecutor, TensorHandle, tl

    builder, make, last = interpreter.interpreter_builder, GridExecutor.__init__, [0]

    def limited(self, fn, names, grid, *rest, **more):
        def two(args):
            last[0] = (grid(args) if callable(grid) else grid)[0] - 1
            return (2,)

        make(self, fn, names, two, *rest, **more)

    def program(axis):
        number = last[0] if axis == 0 and builder.grid_idx[0] else 0
        return TensorHandle(np.array([number], dtype=np.int32), tl.int32)

    monkeypatch.setattr(GridExecutor, "__init__", limited)
    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda *args: None)
    monkeypatch.setattr(builder, "create_get_program_id", program)


def written(results, expected, at_least):
    """The first program's and the last's elements are right; how many there are of each."""
    for result, whole in ((results[0], expected[0]), (results[-1], expected[1])):
        own = result != 0
        assert int(own.sum()) >= at_least
        assert_close(result[own], whole[own].detach())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("configuration", [0, 3])
def test_every_element_of_normalization(ends, holes, monkeypatch, layout, configuration):
    with form("interpreter"):
        from alexnet_kernels.gpu import local_response_norm as lrn
    for kernel in (lrn.forward_kernel, lrn.backward_kernel):
        constants, warps = lrn.CONFIGS[configuration]
        only = type(kernel.configs[0])(constants, num_warps=warps)
        monkeypatch.setattr(kernel, "configs", [only])
    shape = (MANY, 96, 55, 55)
    x, dy, y, dx = (holes(shape, torch.bfloat16, layout) for _ in range(4))
    ends_of = []
    for image, seed in ((0, 1), (-1, 2)):
        for tensor in (x, dy):
            tensor[image] = rand(*shape[1:], dtype=torch.bfloat16, seed=seed)
        u = x[[image]].double().requires_grad_()
        value = definition(u, columns=2)
        ends_of.append((value[0], torch.autograd.grad(value, u, dy[[image]].double())[0][0]))
    settings = (5, 1e-4, 0.75, 2.0, 2, "none")
    lrn.forward(x, None, y, *settings)
    lrn.backward(x, None, dy, dx, *settings)
    written(y, [each[0] for each in ends_of], 100)
    written(dx, [each[1] for each in ends_of], 100)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_element_of_pooling(ends, holes, layout):
    with form("interpreter"):
        from alexnet_kernels.gpu import max_pool as gpu
    shape, out = (MORE, 96, 55, 55), (MORE, 96, 27, 27)
    x, dx = (holes(shape, torch.bfloat16, layout) for _ in range(2))
    y, dy = (holes(out, torch.bfloat16, layout) for _ in range(2))
    code, taps = holes(out, torch.uint8, layout), []
    ends_of = []
    for image, seed in ((0, 1), (-1, 2)):
        x[image] = rand(*shape[1:], dtype=torch.bfloat16, seed=seed)
        dy[image] = rand(*out[1:], dtype=torch.bfloat16, seed=seed)
        u = x[[image]].double().requires_grad_()
        value, tap = max_pool_and_taps(u)
        taps.append(tap[0])
        ends_of.append((value[0], torch.autograd.grad(value, u, dy[[image]].double())[0][0]))
    gpu.forward(x, y, code, 3, 2)
    written(y, [each[0] for each in ends_of], 100)
    for image, tap in zip((0, -1), taps, strict=True):
        assert torch.equal(code[image][y[image] != 0].long(), tap[y[image] != 0])
        code[image] = tap.to(torch.uint8)
    gpu.backward(dy, code, dx, 3, 2)
    written(dx, [each[1] for each in ends_of], 30)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_element_of_normalization_within_a_map(ends, holes, layout):
    with form("interpreter"):
        from alexnet_kernels.gpu import same_map_norm as gpu
    shape = (MORE, 512, 23, 23)
    x, y = (holes(shape, torch.bfloat16, layout) for _ in range(2))
    ends_of = []
    for image, seed in ((0, 1), (-1, 2)):
        x[image] = rand(*shape[1:], dtype=torch.bfloat16, seed=seed)
        ends_of.append(same_map_norm(x[[image]].double())[0])
    gpu.forward(x, y, 5, 4e-5, 0.75, 1.0)
    written(y, ends_of, 100)


PRODUCTS = """
import re, torch
from functools import partial
from kernel_benchmarks import instructions
from alexnet_kernels.gpu import local_response_norm, max_pool, same_map_norm
from alexnet_kernels.gpu import response_norm_pool as block
form = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}["LAYOUT"]
maps = partial(torch.empty, dtype=torch.bfloat16, device="meta", memory_format=form)
x, y = maps((32768, 96, 55, 55)), maps((32768, 96, 27, 27))
code = maps((32768, 96, 27, 27), dtype=torch.uint8)
norm = (5, 1e-4, 0.75, 2.0, 2, "before")
with instructions.compiling(90) as launches:
    for tuner in instructions.tuners():
        tuner.configs = tuner.configs[:1]
    local_response_norm.forward(x, None, x, *norm)
    local_response_norm.backward(x, None, x, x, *norm)
    max_pool.forward(x, y, code, 3, 2)
    max_pool.backward(y, code, x, 3, 2)
    same_map_norm.forward(x, x, 3, 4e-5, 0.75, 1.0)
    if form == torch.channels_last:
        block.forward(x, None, y, code, *norm)
for function, _, _, compiled in launches:
    text = compiled.asm["ttir"]
    narrow = set(re.findall(r"(%\\S+) = arith.muli .*: i32", text))
    widened = set(re.findall(r"arith.extsi (%\\S+) : i32 to i64", text))
    assert "i64" in text and not narrow & widened, (function.__name__, narrow & widened)
print(len(launches))
"""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_product_is_widened_when_it_is_too_late(layout):
    """In what the kernels compile to: a product of two sizes in 32 bits may have lost its top."""
    done = run(PRODUCTS.replace("LAYOUT", layout))
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == (6 if layout == "nhwc" else 5)
