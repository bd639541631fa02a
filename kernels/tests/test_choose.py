"""Which form of the operators runs: the switch, and machines that lack something."""

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
    last = run("import alexnet_kernels", ALEXNET_KERNELS="fast").stderr.splitlines()[-1]
    assert last.startswith("ValueError: ") and "ALEXNET_KERNELS" in last and "'fast'" in last
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
