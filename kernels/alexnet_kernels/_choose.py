"""Which form of an operator runs: one switch, and what fits where it is left alone.

`ALEXNET_KERNELS` in the environment, or `using(mode)` in a program, is one of

    auto       the fastest: Triton on a CUDA device, compiled C on a CPU, the composite for the rest
               (float64, float16 on a CPU)
    triton     Triton's kernels; on a CPU only under Triton's interpreter (TRITON_INTERPRET=1, set
               before `alexnet_kernels` is imported)
    native     the compiled C, float32 and bfloat16 on a CPU
    composite  our formulas in plain torch
    torch      torch's own operators (F.local_response_norm, F.max_pool2d, F.avg_pool2d) and
               autograd through them

The switch is the process's, not a thread's: torch.compile watches globals but no thread's
variables, and would go on with the mode that it compiled under. Where blocks of several threads
overlap, the one that was entered last counts. torch's own operators also serve torch.func's
transforms, forward mode, and the tracers of torch.jit and torch.onnx, which know no others.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from subprocess import CalledProcessError
from threading import Lock

import torch
from torch import Tensor
from torch.autograd import forward_ad

from alexnet_kernels import _native

MODES = ("auto", "triton", "native", "composite", "torch")
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
HAS_TRITON = find_spec("triton") is not None


class ModeError(ValueError, RuntimeError):
    """There is no such mode, or not on this machine. The message says why, and what to choose."""


def _problem(mode: str) -> str:
    """Why a mode is impossible on this machine; "" where it is possible."""
    if mode not in MODES:
        return (
            f"the kernels' mode (ALEXNET_KERNELS) must be one of {', '.join(MODES)}; it is {mode!r}"
        )
    if mode == "triton" and not HAS_TRITON:
        return "mode triton needs the package triton; install it, or choose auto"
    if mode == "native" and _native.library() is None:
        return f"mode native is not possible: {_native.why_not()}; choose auto"
    return ""


# The environment's mode and what is wrong with it, then those of the blocks that have not ended.
_stack = [[_word := os.environ.get("ALEXNET_KERNELS") or "auto", _problem(_word)]]
_mode, _fault = _stack[-1]
_lock = Lock()


@contextmanager
def using(mode: str) -> Iterator[None]:
    """Run the operators in `mode` within the block.

    Args:
        mode: "auto", "triton", "native", "composite" or "torch" (see the text of the module).

    Raises:
        ModeError: for another word, or a mode that this machine does not have; it is a ValueError
            and a RuntimeError.
    """
    global _mode, _fault
    if problem := _problem(mode):
        raise ModeError(problem)
    own = [mode, ""]
    with _lock:
        _stack.append(own)
        _mode, _fault = own
    try:
        yield
    finally:
        with _lock:  # blocks of several threads end in any order
            _stack[:] = [each for each in _stack if each is not own]
            _mode, _fault = _stack[-1]


def mode() -> str:
    """The switch's position.

    Raises:
        ModeError: ALEXNET_KERNELS names none, or one that this machine does not have.
    """
    if _fault:
        raise ModeError(_fault)
    return _mode


def check_mode(device: str) -> None:
    """Raise ModeError where the operators cannot run on a kind of device ("cpu", "cuda")."""
    if mode() == "triton" and not (device == "cuda" or INTERPRETED):
        raise ModeError(
            "mode triton needs a CUDA device, or TRITON_INTERPRET=1 in the environment "
            "before alexnet_kernels is imported"
        )


def torchs_own(*tensors: Tensor | None) -> bool:
    """Whether torch's own operators run.

    They do where the switch says so; in what torch.export, torch.onnx.export and torch.jit.trace
    record, so that it can be loaded where our operators are not; and under torch.func's transforms
    and forward-mode differentiation, of which our operators know nothing.
    """
    if mode() == "torch" or torch.compiler.is_exporting() or torch.jit.is_tracing():
        return True
    if torch.compiler.is_compiling():
        return False
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    return any(
        t is not None and (wrapped(t) or forward_ad.unpack_dual(t).tangent is not None)
        for t in tensors
    )


def runs(kind: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether an operator's Triton or native form runs on such tensors, if it fits them.

    Args:
        kind: "triton" or "native".
        device: Of the tensors.
        dtype: Of the maps.
    """
    if mode() not in ("auto", kind):
        return False
    if kind == "native":
        return device.type == "cpu" and _native.library() is not None
    if not HAS_TRITON or dtype == torch.float64 or (_mode == "auto" and _cannot_launch):
        return False
    check_mode(device.type)
    return device.type == "cuda" or _mode == "triton"


def form_of(device: torch.device, dtype: torch.dtype) -> str:
    """Which form the operators have for maps of a type on a device: "triton", "native",
    "composite", or "torch".

    Args:
        device: Of the tensors.
        dtype: Of the maps.
    """
    if mode() == "torch" or runs("triton", device, dtype):
        return "torch" if _mode == "torch" else "triton"
    has_native = dtype in _native.SUFFIXES and runs("native", device, dtype)
    return "native" if has_native else "composite"


# What Triton says where a machine lacks something, and what helps.
_LACKS = {
    "C compiler": "install gcc, or name a compiler in CC",
    "active drivers": "see whether nvidia-smi finds the GPU",
    "libcuda.so": "see whether nvidia-smi finds the GPU",
    "ptxas": "install a Triton that knows this GPU",
}
_cannot_launch = False  # whether this machine has shown that it lacks something


def gives_up(kind: str, error: Exception) -> bool:
    """Whether the composite takes over from a form that failed: where Triton cannot compile or
    launch anything for a reason of the machine, and the mode is auto. Warns, once in a process.

    Args:
        kind: The form that failed.
        error: What it raised.
    """
    global _cannot_launch
    text = str(error)
    remedy = next((help for words, help in _LACKS.items() if words in text), None)
    if isinstance(error, CalledProcessError | ImportError):
        remedy = "install gcc and Python's headers"
    elif isinstance(error, OSError):
        remedy = remedy or "name a folder that can be written in TRITON_CACHE_DIR"
    if remedy is None or kind != "triton" or _mode != "auto":
        return False
    if not _cannot_launch:
        first, *_ = text.splitlines() or [type(error).__name__]
        warnings.warn(
            f"Triton cannot launch kernels here ({first}): {remedy}; until then the operators "
            "compute with plain torch, which is slower",
            stacklevel=2,
        )
    _cannot_launch = True
    return True
