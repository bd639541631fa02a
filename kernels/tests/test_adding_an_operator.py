"""A new operator touches at most six files: this test adds one to a copy, and runs it.

`average_pool` (2 x 2, stride 2) in plain torch and in C, with a gradient, in eager mode and under
torch.compile; its definition, for all tests that operators share; its benchmark; its line in the
README. A form in Triton would be one file more, gpu/average_pool.py.
"""

import os
import shutil
import subprocess
import sys

from references import ROOT

OPERATOR = '''
"""Average pooling over 2 x 2 pixels."""

import torch.nn.functional as F
from torch import Tensor

from alexnet_kernels import _choose, _composite, _native
from alexnet_kernels._memory import empty_maps, is_channels_last, memory_format
from alexnet_kernels._operator import define


@define("average_pool")
def operator(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return empty_maps(x, (n, c, h // 2, w // 2))


@define("average_pool_backward")
def operator_backward(dy: Tensor, height: int, width: int) -> Tensor:
    return empty_maps(dy, (*dy.shape[:2], height, width))


@operator.form("composite")
def _(y, x):
    _composite.in_parts(lambda x: F.avg_pool2d(_composite.widen(x), 2), (y,), x)


@operator_backward.form("composite")
def _(dx, dy, height, width):
    dx.zero_()
    for i in range(2):
        for j in range(2):
            dx[:, :, i : dy.shape[2] * 2 : 2, j : dy.shape[3] * 2 : 2] = dy / 4


@operator.form("native", lambda y, x: _native.fits(x) and not is_channels_last(x))
def _(y, x):
    n, c, h, w = x.shape
    _native.run("average_pool", (x, y), n * c, h, w)


operator.gradient(
    lambda ctx, dy: operator_backward(
        dy.contiguous(memory_format=ctx.settings[2]), *ctx.settings[:2]
    ),
    keep=lambda inputs, results: ((), (*inputs[0].shape[2:], memory_format(inputs[0]))),
)


def average_pool(x: Tensor) -> Tensor:
    """The mean of each 2 x 2 window. x: (N, C, H, W)."""
    if _choose.torchs_own(x):
        return F.avg_pool2d(x, 2)
    return operator(x)
'''

C = """
static int averages(const float *x, float *y, long from, long to, long height, long width) {
    const long rows = height / 2, columns = width / 2;
    for (long map = from; map < to; map++)
        for (long h = 0; h < rows; h++)
            for (long w = 0; w < columns; w++) {
                const float *v = x + (map * height + 2 * h) * width + 2 * w;
                y[(map * rows + h) * columns + w] = (v[0] + v[1] + v[width] + v[width + 1]) / 4;
            }
    return 1;
}

int average_pool(const float *x, float *y, long begin, long end, int threads, long height,
                 long width) {
    SHARED(averages(x, y, from, to, height, width))
}
"""

DEFINITION = """

@reference(((1, 4, 5, 4), {}), ((2, 3, 4, 6), {}), torch_adds_in_type=True)
def average_pool(x):
    high, wide = (side // 2 * 2 for side in x.shape[2:])
    return sum(x[:, :, i:high:2, j:wide:2] for i in range(2) for j in range(2)) / 4
"""

BENCHMARK = '''
"""Average pooling: kernels.average_pool against torch.nn.AvgPool2d."""

from torch import nn

import alexnet_kernels as kernels
from kernel_benchmarks.measure import Case, Dims, Entry, differentiable, label, ours, torchs

__all__ = ["NAME", "SHAPES", "TINY", "entries", "floor", "label"]
NAME = "average_pool"
SHAPES = {"conv1": (96, 55, 55)}
TINY = {"conv1": (6, 7, 9)}


def floor(dims: Dims, batch: int, itemsize: int) -> dict[str, int]:
    maps, height, width = dims
    numbers = batch * maps * (height * width + height // 2 * (width // 2))
    return dict.fromkeys(("forward", "backward"), numbers * itemsize)


def entries(case: Case) -> list[Entry]:
    maps, height, width = case.dims
    peers = ours(kernels.average_pool, nn.AvgPool2d(2)) + torchs(nn.AvgPool2d(2), nn.AvgPool2d(2))
    dy = case.normal(case.batch, maps, height // 2, width // 2)
    return differentiable(case, peers, case.normal(case.batch, *case.dims), dy)
'''

RUN = """
import sys, pytest, torch, alexnet_kernels as kernels
from alexnet_kernels import _native
from alexnet_kernels._operator import OPERATORS
assert OPERATORS["average_pool"].kinds() == {"composite", "native"}
called, run = [], _native.run
_native.run = lambda name, *rest: called.append(name) or run(name, *rest)
x = torch.randn(2, 8, 7, 6, requires_grad=True)
torch.testing.assert_close(kernels.average_pool(x), torch.nn.functional.avg_pool2d(x, 2))
assert "average_pool" in called, called
_native.run = run
sys.exit(pytest.main(sys.argv[1:]))
"""


class Change:
    """Files of a copy that are written to."""

    def __init__(self, folder):
        self.folder, self.touched = folder, set()

    def new(self, name, text):
        self.touched.add(name)
        (self.folder / name).write_text(text.lstrip())

    def after(self, name, *edits):
        """Put the second of each pair behind the first, or at the end where that is empty."""
        self.touched.add(name)
        text = (self.folder / name).read_text()
        for place, addition in edits:
            assert place in text, place
            text = text.replace(place, place + addition, 1) if place else text + addition
        (self.folder / name).write_text(text)


def add_average_pool(folder):
    change = Change(folder)
    change.new("alexnet_kernels/average_pool.py", OPERATOR)
    change.after("alexnet_kernels/native.c", ("", C))
    change.after(
        "alexnet_kernels/__init__.py",
        ("using\n", "from alexnet_kernels.average_pool import average_pool\n"),
        ('    "SameMapNorm",\n', '    "average_pool",\n'),
    )
    change.after("tests/references.py", ("", DEFINITION))
    change.new("kernel_benchmarks/average_pool.py", BENCHMARK)
    row = "| `average_pool(x)` | the mean of each 2 x 2 window | | |\n"
    change.after("README.md", ("|---|---|---|---|\n", row))
    return change.touched


def test_a_new_operator_touches_at_most_six_files(tmp_path):
    folder = tmp_path / "kernels"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / "kernel_benchmarks").mkdir(exist_ok=True)
    assert len(add_average_pool(folder)) <= 6

    env = {**os.environ, "PYTHONPATH": str(folder), "ALEXNET_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", RUN, "tests/test_operators.py"]
    command += ["-q", "-x", "-p", "no:cacheprovider", "-k", "average_pool or every_operator"]
    options = {"cwd": folder, "capture_output": True, "text": True, "timeout": 500}
    done = subprocess.run(command, env=env, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "passed" in done.stdout
