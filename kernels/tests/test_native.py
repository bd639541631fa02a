"""C that is compiled on the spot: once, anywhere, with torch's threads or our own."""

import ctypes
import platform
import subprocess
import threading
from pathlib import Path

import pytest
from references import run

from alexnet_kernels import _native

SMALL = "import torch, alexnet_kernels as k; k.max_pool(torch.ones(1, 8, 5, 5)); "
LIBRARY = "from alexnet_kernels import _native; print(_native.library())"


def test_prototypes_are_read_from_the_source():
    prototypes = _native.prototypes("".join(path.read_text() for path in _native.SOURCES))
    pointer, long = ctypes.c_void_p, ctypes.c_long
    shared = [long, long, ctypes.c_int]
    assert prototypes["keep_mask"] == [pointer, pointer, *shared, long, ctypes.c_int64]
    assert prototypes["same_map_norm"][-3:] == [ctypes.c_float] * 3
    assert all(types[types.index(long) :][:3] == shared for types in prototypes.values())


@pytest.mark.slow
def test_many_processes_compile_at_once_and_one_library_is_left(tmp_path):
    runs = []

    def compile_in_a_process():
        runs.append(run(SMALL, ALEXNET_CACHE=str(tmp_path)))

    threads = [threading.Thread(target=compile_in_a_process) for _ in range(3)]
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
    without = run(SMALL + LIBRARY, CC=str(broken), ALEXNET_CACHE=str(tmp_path / "a"))
    assert without.stdout == "None\n"
    (tmp_path / "file").touch()
    assert "CDLL" in run(SMALL + LIBRARY, ALEXNET_CACHE=str(tmp_path / "file")).stdout


BITS = """
import hashlib, torch, alexnet_kernels as kernels
from alexnet_kernels import _native
torch.set_num_threads(2)
PLACE
generator = torch.Generator().manual_seed(0)
x = (50 * torch.randn(8, 32, 31, 31, generator=generator)).requires_grad_()
kernels.response_norm_pool(x, torch.ones(32)).square().sum().backward()
mapped = {line.split()[-1] for line in open('/proc/self/maps') if 'libgomp' in line}
print(_native.shares(), len(mapped), hashlib.sha256(x.grad.numpy().tobytes()).hexdigest())
"""


def test_threads_are_torchs_own_or_ours_and_the_bits_are_the_same(tmp_path):
    cache = {"ALEXNET_CACHE": str(tmp_path)}
    theirs = run(BITS.replace("PLACE", ""), **cache).stdout.split()
    without = BITS.replace("PLACE", "_native._has_libgomp = lambda: False")
    ours = run(without, **cache).stdout.split()
    assert ours[0] == "False" and ours[2] == theirs[2]
    if _native._has_libgomp():  # torch's by another name, or none: then ours
        assert theirs[:2] == ["True", "1"]


FORK = """
import os, torch, alexnet_kernels as kernels
torch.set_num_threads(2)
x = torch.ones(8, 32, 31, 31)
kernels.max_pool(x)
child = os.fork() == 0
if child:
    torch.set_num_threads(1)
kernels.max_pool(x)
if child:
    os._exit(0)
print(os.wait()[1])
"""


@pytest.mark.slow
def test_threads_survive_a_fork():
    assert run(FORK).stdout == "0\n"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names instruction sets of x86-64")
@pytest.mark.parametrize("march", ["x86-64-v3", "x86-64"], ids=["AVX2", "plain"])
def test_every_instruction_set_computes_the_same(march, tmp_path):
    """The tests that all operators share, without AVX-512, and without any vectors but SSE2."""
    tests = Path(__file__).parent
    files = [str(tests / f"test_{name}.py") for name in ("operators", "response_norm_pool")]
    options = ["-q", "-p", "no:cacheprovider", "-k", "native", *files]
    environment = {"ALEXNET_CFLAGS": f"-march={march}", "ALEXNET_CACHE": str(tmp_path)}
    done = run("pytest", *options, **environment)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("openmp", [[], ["-fopenmp"]], ids=["alone", "openmp"])
def test_the_source_compiles_without_warnings(openmp, tmp_path):
    flags = [*_native.FLAGS, *openmp, "-Wall", "-Wextra", "-Werror", "-std=c99"]
    command = ["cc", *flags, "-o", str(tmp_path / "a.so"), str(_native.SOURCES[0]), "-lm"]
    subprocess.run(command, check=True)
