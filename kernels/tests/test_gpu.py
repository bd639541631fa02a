"""The Triton kernels without a GPU: every configuration interpreted, and compiled ahead of time."""

import pytest
import torch
from references import ROOT, check, form, rand, run, with_gradient

import alexnet_kernels as kernels


def test_every_configuration_and_width_of_index_under_the_interpreter(monkeypatch):
    """What a device's measurement may choose from, and the 64-bit offsets of large tensors."""
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
    x, results = rand(1, 32, 5, 5, dtype=torch.bfloat16, layout="nhwc"), []
    for i in range(4):
        for tuner, configs in tuners:
            constants, warps = configs[i % len(configs)]
            only = type(tuner.configs[0])(constants, num_warps=warps)
            monkeypatch.setattr(tuner, "configs", [only])
        with form("interpreter"):
            functions = (kernels.response_norm_pool, kernels.same_map_norm)
            results.append([t for f in functions for t in with_gradient(f, x)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    settings = {"alpha": 1e-3, "columns": 2, "relu": "before"}
    check("local_response_norm", x, "interpreter", **settings)


def compiled(*options):
    """What kernel_benchmarks.instructions prints of each kernel.

    Its name, the bytes that it spills, and the bits of its widest access to memory.
    """
    if not (ROOT / "kernel_benchmarks").exists():
        pytest.skip("the benchmarks, which compile for a device that is not there, are missing")
    done = run("kernel_benchmarks.instructions", *options)
    assert done.returncode == 0, done.stderr
    rows = [line[32:].split() for line in done.stdout.splitlines()[1:]]
    return [(row[0], int(row[-3]), int(row[-2])) for row in rows]


def test_what_the_kernels_compile_to():
    """For two generations of devices: no spills, wide loads in channels-last memory."""
    rows = compiled("--arch", "80", "90", "--dtype", "bf16", "--only", "conv1")
    modules = {name.split(".")[0] for name, *_ in rows}
    assert modules == {"local_response_norm", "max_pool", "response_norm_pool"} and len(rows) == 16
    for name, spilled, widest in rows:
        assert (spilled, widest) == (0, 128), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--arch", "90", "--dtype", "bf16", "--all-configs"),
        ("--arch", "90", "--dtype", "fp32", "--all-configs"),
        ("--arch", "90", "--dtype", "bf16", "--layout", "nchw"),
        ("--arch", "80", "--dtype", "fp16", "fp32"),
        ("--arch", "80", "--dtype", "fp32", "--layout", "nchw"),
    ],
    ids=" ".join,
)
def test_everything_that_a_device_may_choose_compiles_without_spills(options):
    rows = compiled(*options)
    # the block in one kernel is for channels-last maps
    assert len({name for name, *_ in rows}) == (8 if "nchw" in options else 9)
    assert [row for row in rows if row[1]] == []
