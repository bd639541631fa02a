"""What the operators are held to: float64, from the equations, loop by loop; and how closely.

An operator from maps to maps is added by its definition, decorated with the cases that it is tested
on: the tests that all operators share take it from REFERENCES.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import alexnet_kernels as kernels
from alexnet_kernels._choose import INTERPRETED

ROOT = Path(__file__).parents[1]  # of the distribution

# The largest error, as a share of the value, and of the largest value around it: half a unit in the
# last place of the type in which results are stored, and the roundings of a float32 computation.
TOLERANCES = {
    torch.float64: (1e-12, 1e-13),
    torch.float32: (2e-6, 1e-6),
    torch.float16: (2**-11 + 1e-5, 2e-6),
    torch.bfloat16: (2**-8 + 1e-5, 2e-6),
}
DTYPES = list(TOLERANCES)
HALVES = [torch.bfloat16, torch.float16]
OWN_FORMS = ["native", "composite", "interpreter", pytest.param("cuda", marks=pytest.mark.gpu)]
FORMS = ["torch", *OWN_FORMS]
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
RELU = [None, "before", "after"]


def rand(*shape, scale=10.0, dtype=torch.float64, layout="nchw", seed=0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    x = (torch.randn(*shape, dtype=torch.float64, generator=generator) * scale).to(dtype)
    return x.contiguous(memory_format=LAYOUTS[layout]) if x.dim() == 4 else x


def is_dense(x: Tensor, layout: str) -> bool:
    return x.is_contiguous(memory_format=LAYOUTS[layout])


def assert_close(
    result: Tensor, expected: Tensor, dtype: torch.dtype | None = None, roundings: float = 1
) -> None:
    """`expected` is float64; roundings: how often results were rounded to the type on the way."""
    relative, around = TOLERANCES[dtype or result.dtype]
    finite = expected[expected.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    smallest = torch.finfo(dtype or result.dtype).smallest_normal
    torch.testing.assert_close(
        result.double().cpu(),
        expected.cpu(),
        rtol=relative * roundings,
        atol=around * scale + smallest,
        equal_nan=True,
        check_stride=False,
    )


# Forks a process for each line of JSON that it reads. Importing torch takes most of a short test.
SERVER = """
import json, os, signal, sys, torch
for line in sys.stdin:
    job = json.loads(line)
    if not (child := os.fork()):
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
signal.alarm(900)
os.environ.clear()
os.environ.update(job["environment"])
for number, path in enumerate(job["files"]):
    os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
exec(compile(job["code"], "<string>", "exec"), {"__name__": "__main__"})
"""


@cache
def server() -> subprocess.Popen:
    """A process that has imported torch, and nothing of this package."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "0"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", SERVER], env=env, **pipes)
    atexit.register(process.communicate)  # the end of its input ends it
    return process


def run(code: str, *options: str, **environment: str) -> subprocess.CompletedProcess:
    """A Python process of its own, without Triton's interpreter, that runs `code`.

    With options it runs the module that `code` names.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "0", **environment}
    if options:
        command = [sys.executable, "-m", code, *options]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        files = [os.devnull, *map(str, outputs)]
        print(
            json.dumps({"code": code, "environment": env, "files": files}),
            file=server().stdin,
            flush=True,
        )
        status = int(server().stdout.readline())
        return subprocess.CompletedProcess(code, status, *(path.read_text() for path in outputs))


@contextmanager
def form(name: str) -> Iterator[str]:
    """Run the operators in one form; yields the device for their tensors."""
    if name == "interpreter" and not INTERPRETED:
        pytest.skip("Triton's interpreter is off where there is a CUDA device")
    with kernels.using("triton" if name in ("interpreter", "cuda") else name):
        yield "cuda" if name == "cuda" else "cpu"


@dataclass(frozen=True)
class Reference:
    definition: Callable[..., Tensor]  # of x and the operator's settings, differentiable
    cases: tuple[tuple[tuple[int, ...], dict[str, Any]], ...]  # shapes and settings
    dtypes: tuple[torch.dtype, ...]
    torch_adds_in_type: bool  # so that gradients in half types are rounded many times


REFERENCES: dict[str, Reference] = {}


def reference(*cases, dtypes=tuple(DTYPES), torch_adds_in_type=False):
    """Decorate the definition of the operator of the same name. cases: (shape, settings)."""

    def register(definition):
        REFERENCES[definition.__name__] = Reference(definition, cases, dtypes, torch_adds_in_type)
        return definition

    return register


def with_gradient(operator, x: Tensor, device="cpu", seed=7) -> tuple[Tensor, Tensor, Tensor]:
    """The operator's value at x, a random gradient of it, and the gradient of x that follows."""
    x = x.to(device).requires_grad_()
    y = operator(x)
    dy = rand(*y.shape, scale=1.0, dtype=y.dtype, seed=seed).to(device)
    (dx,) = torch.autograd.grad(y, x, dy)
    return y.detach(), dy.cpu(), dx


def check(name: str, x: Tensor, in_form: str, **settings) -> None:
    """Hold an operator's value and gradient at x, in one form, to its definition."""
    reference = REFERENCES[name]
    with form(in_form) as device:
        y, dy, dx = with_gradient(partial(getattr(kernels, name), **settings), x, device)
    u = x.double().requires_grad_()
    expected = reference.definition(u, **settings)
    (gradient,) = torch.autograd.grad(expected, u, dy.double())
    assert y.dtype == dx.dtype == x.dtype and dx.shape == x.shape
    assert_close(y, expected.detach())
    if in_form != "torch" or x.dtype not in HALVES:
        assert_close(dx, gradient)
    elif not reference.torch_adds_in_type:  # it rounds a half type's activations on the way
        assert_close(dx, gradient, roundings=2)


# --- the definitions ------------------------------------------------------------------------------


@reference(
    ((2, 8, 3, 4), {"alpha": 1e-3, "columns": 2}),
    ((2, 12, 3, 4), {"alpha": 1e-3, "relu": "before"}),
    ((2, 7, 3, 4), {"size": 3, "alpha": 1e-3, "relu": "after"}),
    ((2, 6, 3, 4), {"size": 9, "alpha": 1e-3, "columns": 3}),
    ((2, 32, 3, 4), {"alpha": 1e-3, "columns": 2, "relu": "before"}),
    ((2, 1, 3, 4), {"size": 1, "alpha": 1e-3, "relu": "after"}),
    ((2, 12, 3, 4), {"alpha": 1e-2, "beta": 0.5, "k": 1.0, "relu": "before"}),
)
def local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=2.0, columns=1, relu=None):
    x = x.relu() if relu == "before" else x
    width, maps = x.shape[1] // columns, []
    for i in range(x.shape[1]):
        first = i // width * width  # of this map's column
        low, high = max(first, i - size // 2), min(first + width, i + size // 2 + 1)
        maps.append(x[:, i] / (k + alpha * (x[:, low:high] ** 2).sum(1)) ** beta)
    y = torch.stack(maps, 1)
    return y.relu() if relu == "after" else y


@reference(
    ((2, 8, 6, 5), {"alpha": 1e-3}),
    ((2, 1, 6, 5), {"size": 3, "alpha": 1e-3, "beta": 0.5}),
    ((2, 2, 2, 2), {"size": 7, "alpha": 1e-3}),  # windows that reach beyond both borders
)
def same_map_norm(x, size=5, alpha=4e-5, beta=0.75, k=1.0):
    near, pixels = size // 2, []
    for h in range(x.shape[2]):
        for w in range(x.shape[3]):
            squares = x[:, :, max(0, h - near) : h + near + 1, max(0, w - near) : w + near + 1] ** 2
            pixels.append(x[:, :, h, w] / (k + alpha * squares.sum((2, 3))) ** beta)
    return torch.stack(pixels, 2).view(x.shape)


def max_pool_and_taps(x, size=3, stride=2):
    """The maxima and their taps: the first of a tie, the last NaN."""
    high, wide = ((side - size) // stride + 1 for side in x.shape[2:])
    y = torch.full((*x.shape[:2], high, wide), -torch.inf, dtype=x.dtype)
    tap = torch.zeros(y.shape, dtype=torch.int64)
    for i in range(size):
        for j in range(size):
            v = x[:, :, i::stride, j::stride][:, :, :high, :wide]
            better = (v > y) | v.isnan()
            y, tap = torch.where(better, v, y), torch.where(better, i * size + j, tap)
    return y, tap


@reference(
    ((2, 8, 9, 8), {}),
    ((2, 5, 9, 8), {"size": 2}),
    ((2, 4, 9, 8), {"stride": 1}),
    ((2, 1, 9, 8), {"size": 5, "stride": 3}),
    ((2, 3, 9, 8), {"size": 1}),
    torch_adds_in_type=True,
)
def max_pool(x, size=3, stride=2):
    return max_pool_and_taps(x, size, stride)[0]


@reference(  # in half types roundings make ties; test_response_norm_pool.py has those
    ((2, 8, 7, 6), {"alpha": 1e-3, "columns": 2}),
    ((2, 6, 7, 6), {"alpha": 1e-3, "relu": None, "pool_size": 2}),
    dtypes=(torch.float32, torch.float64),
)
def response_norm_pool(
    x,
    bias=None,
    size=5,
    alpha=1e-4,
    beta=0.75,
    k=2.0,
    columns=1,
    relu="before",
    pool_size=3,
    pool_stride=2,
):
    x = x if bias is None else x + bias.view(1, -1, 1, 1)
    order = relu if relu == "before" else None  # the maximum and a ReLU after change places
    y = F.max_pool2d(
        local_response_norm(x, size, alpha, beta, k, columns, order), pool_size, pool_stride
    )
    return y.relu() if relu == "after" else y
