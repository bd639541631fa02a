"""Which form of the operators runs: the switch, compilation on the spot and ahead of time, and machines that lack something."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import alexnet_kernels as kernels
from alexnet_kernels import _native

ROOT = Path(__file__).parent.parent


def run(code, **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "0", **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120
    )


SMALL = "import torch, alexnet_kernels as kernels; x = torch.ones(1, 8, 5, 5, requires_grad=True); kernels.response_norm_pool(x).sum().backward(); "


def test_the_switch():
    assert kernels.mode() == "auto"
    with kernels.using("torch"):
        assert kernels.mode() == "torch"
    assert kernels.mode() == "auto"
    with pytest.raises(ValueError, match="one of auto, triton"), kernels.using("cuda"):
        pass
    assert run(
        SMALL + "print(kernels.mode(), float(x.grad.sum()))", ALEXNET_KERNELS="torch"
    ).stdout.startswith("torch ")
    assert "ALEXNET_KERNELS" in run(SMALL, ALEXNET_KERNELS="fast").stderr
    assert "TRITON_INTERPRET=1" in run(SMALL, ALEXNET_KERNELS="triton").stderr


def test_without_triton_and_without_a_compiler(tmp_path):
    no_triton = "import sys; sys.modules['triton'] = None; "
    none = {"PATH": str(tmp_path), "CC": "", "ALEXNET_CACHE": str(tmp_path)}
    alone = run(
        no_triton
        + SMALL
        + "from alexnet_kernels import _native; print(_native.library(), float(x.grad.sum()))",
        **none,
    )
    both = run(SMALL + "print(0, float(x.grad.sum()))")
    assert (
        alone.stdout.startswith("None ")
        and abs(float(alone.stdout.split()[1]) - float(both.stdout.split()[1])) < 1e-5
    ), alone.stderr
    assert "C compiler" in run(SMALL, ALEXNET_KERNELS="native", **none).stderr
    assert "package triton" in run(no_triton + SMALL, ALEXNET_KERNELS="triton").stderr


@pytest.mark.slow
def test_many_processes_compile_at_once_and_one_library_is_left(tmp_path):
    runs = []
    threads = [
        threading.Thread(target=lambda: runs.append(run(SMALL, ALEXNET_CACHE=str(tmp_path))))
        for _ in range(3)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [r.returncode for r in runs] == [0] * 3, runs
    assert len(list(tmp_path.glob("native-*.so"))) == 1 and not list(tmp_path.glob("*.part"))


@pytest.mark.slow
def test_a_broken_compiler_or_cache_is_survived(tmp_path):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    found = "from alexnet_kernels import _native; print(_native.library())"
    assert run(SMALL + found, CC=str(broken), ALEXNET_CACHE=str(tmp_path / "a")).stdout == "None\n"
    (tmp_path / "file").touch()
    assert "CDLL" in run(SMALL + found, ALEXNET_CACHE=str(tmp_path / "file")).stdout


def test_threads_are_torchs_own_or_ours_and_the_bits_are_the_same(tmp_path):
    code = "import hashlib, torch, alexnet_kernels as kernels; from alexnet_kernels import _native; torch.set_num_threads(2); PLACE"
    code += "x = (50 * torch.randn(8, 32, 31, 31, generator=torch.Generator().manual_seed(0))).requires_grad_(); "
    code += "kernels.response_norm_pool(x, torch.ones(32)).square().sum().backward(); "
    code += "mapped = {line.split()[-1] for line in open('/proc/self/maps') if 'libgomp' in line}; "
    code += (
        "print(_native.shares(), len(mapped), hashlib.sha256(x.grad.numpy().tobytes()).hexdigest())"
    )
    theirs = run(code.replace("PLACE", ""), ALEXNET_CACHE=str(tmp_path)).stdout.split()
    own = run(
        code.replace("PLACE", "_native._has_libgomp = lambda: False; "), ALEXNET_CACHE=str(tmp_path)
    ).stdout.split()
    assert own[0] == "False" and own[2] == theirs[2]
    if _native._has_libgomp():  # torch's by another name, or none: then ours
        assert theirs[:2] == ["True", "1"]


@pytest.mark.slow
def test_threads_survive_a_fork():
    code = "import os, torch, alexnet_kernels as kernels; torch.set_num_threads(2); x = torch.ones(8, 32, 31, 31); kernels.max_pool(x); pid = os.fork(); "
    code += "torch.set_num_threads(1) if pid == 0 else None; kernels.max_pool(x); os._exit(0) if pid == 0 else print(os.waitpid(pid, 0)[1])"
    assert run(code).stdout == "0\n"


@pytest.mark.parametrize("openmp", [[], ["-fopenmp"]])
def test_the_source_compiles_without_warnings(openmp, tmp_path):
    flags = [*_native.FLAGS, *openmp, "-Wall", "-Wextra", "-Werror", "-std=c99"]
    subprocess.run(
        ["cc", *flags, "-o", str(tmp_path / "a.so"), str(_native.SOURCE), "-lm"], check=True
    )


def compiled(*options):
    """What kernel_benchmarks.instructions prints: (kernel, bytes spilled, bits of the widest access to memory) of each."""
    command = [sys.executable, "-m", "kernel_benchmarks.instructions", *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "kernels"), "TRITON_INTERPRET": "0"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    rows = [line[32:].split() for line in done.stdout.splitlines()[1:]]
    return [(row[0], int(row[-3]), int(row[-2])) for row in rows]


def test_what_the_triton_kernels_compile_to():
    """Ahead of time for two generations of devices: no spills, wide loads in channels-last memory."""
    rows = compiled("--arch", "80", "90", "--dtype", "bf16", "--only", "conv1")
    assert {name.split(".")[0] for name, *_ in rows} == {
        "local_response_norm",
        "max_pool",
        "response_norm_pool",
    } and len(rows) == 14
    for name, spilled, widest in rows:
        assert spilled == 0 and widest == (128 if "max_pool" in name else 64), name


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
    assert len({name for name, *_ in rows}) == (
        7 if "nchw" in options else 8
    )  # the block in one kernel is for channels-last maps
    assert [row for row in rows if row[1]] == []
