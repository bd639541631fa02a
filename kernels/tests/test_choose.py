"""Which form of the operators runs: the switch, and machines that lack something."""

import threading
import warnings

import pytest
import torch
from references import run

import alexnet_kernels as kernels

SMALL = """
import sys
import torch
import alexnet_kernels as kernels
from alexnet_kernels import _native
x = torch.ones(1, 8, 5, 5, requires_grad=True)
kernels.response_norm_pool(x).sum().backward()
print(kernels.mode(), _native.library() is not None, float(x.grad.sum()))
"""


def test_the_switch():
    assert kernels.mode() == "auto"
    with kernels.using("torch"):
        assert kernels.mode() == "torch"
    assert kernels.mode() == "auto"
    with pytest.raises(ValueError, match="one of auto, triton"), kernels.using("cuda"):
        pass
    assert run(SMALL, ALEXNET_KERNELS="torch").stdout.startswith("torch ")
    wrong = run(SMALL, ALEXNET_KERNELS="fast").stderr.splitlines()[-1]
    assert "ModeError: " in wrong and "ALEXNET_KERNELS" in wrong and "'fast'" in wrong
    assert run("import alexnet_kernels", ALEXNET_KERNELS="fast").returncode == 0
    assert "TRITON_INTERPRET=1" in run(SMALL, ALEXNET_KERNELS="triton").stderr


def test_without_triton_and_without_a_compiler(tmp_path):
    no_triton = "import sys; sys.modules['triton'] = None; "
    none = {"PATH": str(tmp_path), "CC": "", "ALEXNET_CACHE": str(tmp_path)}
    alone = run(no_triton + SMALL, **none)
    x = torch.ones(1, 8, 5, 5, requires_grad=True)
    kernels.response_norm_pool(x).sum().backward()
    assert alone.stdout.startswith("auto False "), alone.stderr
    assert float(alone.stdout.split()[2]) == pytest.approx(float(x.grad.sum()), abs=1e-5)
    assert "C compiler" in run(SMALL, ALEXNET_KERNELS="native", **none).stderr
    assert "package triton" in run(no_triton + SMALL, ALEXNET_KERNELS="triton").stderr


def test_blocks_of_two_threads_leave_the_switch_as_it_was():
    entered, left, outer = threading.Event(), threading.Event(), kernels.using("torch")

    def block():
        with kernels.using("composite"):
            entered.set()
            left.wait(10)

    outer.__enter__()
    thread = threading.Thread(target=block)
    thread.start()
    entered.wait(10)
    assert kernels.mode() == "composite"
    outer.__exit__(None, None, None)  # while the other block goes on
    assert kernels.mode() == "composite"
    left.set()
    thread.join()
    assert kernels.mode() == "auto"


def test_a_mode_that_a_device_does_not_have_is_known_beforehand():
    kernels.check_mode("cpu")
    with kernels.using("triton"):
        kernels.check_mode("cuda")
    check = "import alexnet_kernels as k; k.check_mode('cpu')"
    refused = run(check, ALEXNET_KERNELS="triton", TRITON_INTERPRET="0")
    assert "ModeError: mode triton needs a CUDA device" in refused.stderr


RELOAD = """
import importlib, sys, torch, alexnet_kernels as kernels
x = torch.randn(1, 8, 9, 9, requires_grad=True)
names = [name for name in sys.modules if name.startswith("alexnet_kernels")]
def check():
    import alexnet_kernels
    for package in (kernels, alexnet_kernels):  # who imported it before, and who does now
        package.response_norm_pool(package.max_pool(x)).sum().backward()
for name in names:
    importlib.reload(sys.modules[name])
    check()
for name in names:
    del sys.modules[name]
check()
print(len(names))
"""


def test_modules_can_be_loaded_anew():
    done = run(RELOAD)
    assert done.returncode == 0 and int(done.stdout) > 10, done.stderr


def test_tracers_see_torchs_own_operators():
    net, x = kernels.ResponseNormPool(), torch.randn(2, 8, 9, 9)
    with warnings.catch_warnings(action="ignore"):  # it is deprecated, and has not gone
        traced = torch.jit.trace(net, x, check_trace=False)
    torch.testing.assert_close(traced(2 * x), net(2 * x), atol=1e-6, rtol=1e-5)
    assert "alexnet_kernels::" not in str(traced.inlined_graph)
