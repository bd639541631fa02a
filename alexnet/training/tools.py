"""Whether what a mode of training needs beside torch is there, before anything is made."""

import os
import shlex
import subprocess
import sys
import sysconfig

import alexnet_kernels as kernels
from alexnet.errors import InputError, require

# what torch.compile's code for CPUs begins with
CODE = "#include <Python.h>\n#include <vector>\n#include <omp.h>\n"


def check(mode: str, device: str) -> None:
    """Raise InputError where the operators, or a step of a mode, cannot run.

    Args:
        mode: As in `Config`.
        device: "cpu" or "cuda".
    """
    try:
        kernels.check_mode(device)
    except kernels.ModeError as error:
        raise InputError(str(error)) from None
    if mode.startswith("compiled") and device == "cpu":
        usual = "clang++" if sys.platform == "darwin" else "g++"
        cxx = os.environ.get("CXX", usual)  # as torch, for which an empty one is none
        problem = _compiler_problem(cxx)
        require(not problem, f"mode {mode} {problem}, or use the mode plain")


def _compiler_problem(cxx: str) -> str:
    """What a C++ compiler lacks, and the remedy; "" where it lacks nothing."""
    options = ["-fopenmp", "-fsyntax-only", "-x", "c++", "-I", sysconfig.get_path("include"), "-"]
    try:
        command = [*shlex.split(cxx), *options]
        done = subprocess.run(command, input=CODE, capture_output=True, text=True, errors="replace")
    except (OSError, ValueError):
        return f"needs a C++ compiler, and there is no {cxx or 'name of one in CXX'}; install g++"
    if not done.returncode:
        return ""
    if "Python.h" in done.stderr:
        python = "python{}.{}-dev".format(*sys.version_info)
        return f"needs Python's headers, and there is no Python.h; install them ({python})"
    first = next((f" ({line})" for line in done.stderr.splitlines() if "error" in line), "")
    return f"needs a C++ compiler with its headers, and {cxx} fails{first}; install g++"
