"""What only a device can show; the other files run their definitions there too: `pytest -m gpu`."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from references import (
    LAYOUTS,
    RELU,
    ROOT,
    assert_close,
    local_response_norm,
    max_pool_and_taps,
    same_map_norm,
)

import alexnet_kernels as kernels

pytestmark = pytest.mark.gpu
SHAPES = [(4, 96, 55, 55), (4, 256, 27, 27), (3, 48, 13, 17)]


def fresh(*shape, dtype=torch.bfloat16, layout="nhwc"):
    """Other numbers in every run."""
    return (
        (torch.randn(shape, device="cuda") * 20).to(dtype).contiguous(memory_format=LAYOUTS[layout])
    )


@pytest.fixture
def poisoned():
    """torch.empty hands out NaN, so that an element nobody wrote is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_real_shapes_on_poisoned_memory(poisoned, shape, dtype, layout):
    x = fresh(*shape, dtype=dtype, layout=layout).requires_grad_()
    dy = fresh(*shape, dtype=dtype, layout=layout)
    for relu in RELU:
        y = kernels.local_response_norm(x, columns=2, relu=relu)
        (dx,) = torch.autograd.grad(y, x, dy)
        u = x.detach().double().requires_grad_()
        expected = local_response_norm(u, columns=2, relu=relu)
        assert_close(y.detach(), expected.detach())
        assert_close(dx, torch.autograd.grad(expected, u, dy.double())[0].cpu())
    pooled, code = torch.ops.alexnet_kernels.max_pool(x.detach(), 3, 2)
    u = x.detach().double().cpu().requires_grad_()
    expected, tap = max_pool_and_taps(u)
    assert torch.equal(pooled.double().cpu(), expected) and torch.equal(code.long().cpu(), tap)
    spread = torch.ops.alexnet_kernels.max_pool_backward(pooled, code, *shape[2:], 3, 2)
    assert_close(spread, torch.autograd.grad(expected, u, pooled.double().cpu())[0])
    assert_close(kernels.same_map_norm(x).detach(), same_map_norm(x.detach().double().cpu()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_fused_block_is_the_two_kernels(poisoned, dtype):
    from alexnet_kernels.gpu import response_norm_pool as gpu

    for shape in SHAPES:
        x, bias = fresh(*shape, dtype=dtype), torch.randn(shape[1], device="cuda")
        out = (*shape[:2], (shape[2] - 3) // 2 + 1, (shape[3] - 3) // 2 + 1)
        y, code = (
            torch.empty(out, dtype=t, device="cuda", memory_format=torch.channels_last)
            for t in (dtype, torch.uint8)
        )
        gpu.forward(x, bias, y, code, 5, 1e-4, 0.75, 2.0, 2, "before")
        u = (x.double() + bias.double().view(1, -1, 1, 1)).relu()
        normalized = local_response_norm(u, columns=2)
        assert_close(y, torch.nn.functional.max_pool2d(normalized, 3, 2).cpu())
        assert int(code.max()) < 9


def test_the_same_bits_every_time():
    x, dy = fresh(64, 96, 55, 55).requires_grad_(), fresh(64, 96, 27, 27)
    results = [
        torch.autograd.grad(kernels.response_norm_pool(x, columns=2), x, dy)[0] for _ in range(3)
    ]
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_a_training_step_as_a_cuda_graph():
    weight, velocity = (
        torch.randn(96, device="cuda").requires_grad_(),
        torch.zeros(96, device="cuda"),
    )
    weight.grad, x = torch.zeros_like(weight), fresh(8, 96, 27, 27, dtype=torch.float32)
    rate, decay = torch.tensor(0.1, device="cuda"), torch.tensor(1e-3, device="cuda")

    def step():
        weight.grad.zero_()
        kernels.response_norm_pool(x, weight, columns=2).square().mean().backward()
        kernels.momentum_step_([weight], [weight.grad], [velocity], rate, 0.9, decay)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # every shape runs once before the capture
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    start = weight.detach().clone(), velocity.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    inputs = [fresh(8, 96, 27, 27, dtype=torch.float32) for _ in range(3)]
    results = []
    for run in (graph.replay, step):
        with torch.no_grad():
            weight.copy_(start[0])
            velocity.copy_(start[1])
        for each in inputs:
            x.copy_(each)
            run()
        results.append((weight.detach().clone(), velocity.clone()))
    for a, b in zip(*results):
        torch.testing.assert_close(a, b)


def test_more_elements_than_32_bits_count():
    last = torch.channels_last
    x = torch.zeros(  # 2.4e9
        9, 64, 2048, 2048, dtype=torch.bfloat16, device="cuda", memory_format=last
    )
    x[-1, -1, -1, -1] = 3
    y = kernels.local_response_norm(x)
    assert float(y[-1, -1, -1, -1]) == pytest.approx(3 / (2 + 9e-4) ** 0.75, rel=5e-3)
    assert float(kernels.max_pool(x, 2, 2)[-1, -1, -1, -1]) == 3


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck"])
def test_compute_sanitizer(tool):
    sanitizer = shutil.which("compute-sanitizer") or shutil.which(
        "/usr/local/cuda/bin/compute-sanitizer"
    )
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    code = """
import torch, alexnet_kernels as kernels
for layout in (torch.contiguous_format, torch.channels_last):
    for maps in (6, 16):
        x = torch.randn(2, maps, 9, 7, device="cuda", dtype=torch.bfloat16)
        x = x.contiguous(memory_format=layout).requires_grad_()
        y = kernels.response_norm_pool(x, torch.zeros(maps, device="cuda"), columns=2)
        (y + kernels.max_pool(kernels.same_map_norm(x))).sum().backward()
        w = [torch.zeros(5000, device="cuda") for _ in range(3)]
        kernels.momentum_step_(w[:1], w[1:2], w[2:], 0.1)
torch.cuda.synchronize()
"""
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
