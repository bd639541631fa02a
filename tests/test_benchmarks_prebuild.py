"""Kernels compiled for a GPU that is not there: what a second run needs is found, also where the
cache was moved to."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from benchmarks import ROOT, environment

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


def test_a_cache_that_was_moved_names_its_files_where_they_are(tmp_path):
    from benchmarks.prebuild import adopt

    folder = tmp_path / "KEY"
    folder.mkdir()
    old = {"kernel.json": "/gone/KEY/kernel.json", "kernel.cubin": "/gone/KEY/kernel.cubin"}
    group = folder / "__grp__kernel.json"
    group.write_text(json.dumps({"child_paths": old}))
    assert adopt(tmp_path) == 1
    own = {name: str(folder / name) for name in old}
    assert json.loads(group.read_text()) == {"child_paths": own}


def test_maps_are_as_cudnn_leaves_them():
    from benchmarks.prebuild import as_cudnn

    planes = torch.empty(2, 4, 3, 3, device="meta")
    last = planes.contiguous(memory_format=torch.channels_last)
    assert as_cudnn(planes, planes, planes).is_contiguous()
    assert as_cudnn(planes, planes, last).stride() == last.stride()


def prebuild(cache, *words):
    variables = environment()
    variables.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "benchmarks.prebuild", "--cache", str(cache), *words]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [int(n) for n in re.findall(r"(\d+) kernels compiled, (\d+) found", done.stdout)[0]]


@pytest.mark.slow
def test_what_was_compiled_is_found(tmp_path):
    """Of a whole step of training, and of an operator; also elsewhere."""
    from benchmarks.prebuild import adopt

    cache = tmp_path / "cache"
    compiled, found = prebuild(cache, "--tiny", "--dtype", "bf16", "--only", "step")
    assert compiled > 4 and found == 0
    moved = cache.rename(tmp_path / "moved")
    assert adopt(moved) == compiled
    assert prebuild(moved, "--tiny", "--dtype", "bf16", "--only", "step") == [0, compiled]
    kept = {path.suffix for path in moved.glob("*/*")}
    assert {".cubin", ".json"} <= kept and not kept & {".ptx", ".ttir", ".llir"}


def test_the_interpreter_compiles_nothing(tmp_path):
    variables = environment() | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "benchmarks.prebuild", "--cache", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 2 and "unset TRITON_INTERPRET" in done.stderr
    assert not os.listdir(tmp_path)
