"""Which implementation of an operator runs: one switch, and what fits where it is left alone.

`ALEXNET_KERNELS` in the environment, or `kernels.using(mode)` in a program, is one of

    auto       what is fastest: Triton on a CUDA device, compiled C on the CPU, the composite for the rest (float64, half types on a CPU)
    triton     the Triton kernels; on the CPU only under Triton's interpreter (TRITON_INTERPRET=1, set before `kernels` is imported)
    native     the compiled C, float32 on the CPU
    composite  our formulas in plain torch
    torch      torch's own operators: F.local_response_norm, F.max_pool2d, F.avg_pool2d, and autograd through them
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.autograd import forward_ad

from alexnet_kernels import _native

MODES = ("auto", "triton", "native", "composite", "torch")
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
HAS_TRITON = find_spec("triton") is not None


def _checked(mode: str) -> str:
    if mode not in MODES:
        raise ValueError(
            f"the kernels' mode (ALEXNET_KERNELS) must be one of {', '.join(MODES)}; it is {mode!r}"
        )
    if mode == "triton" and not HAS_TRITON:
        raise RuntimeError(
            "mode triton needs the package triton, which is not installed here; choose auto"
        )
    if mode == "native" and _native.library() is None:
        raise RuntimeError(
            "mode native needs a C compiler (cc, gcc or clang) on the PATH; choose auto"
        )
    return mode


_mode = _checked(os.environ.get("ALEXNET_KERNELS") or "auto")


@contextmanager
def using(mode: str) -> Iterator[None]:
    """Within the block operators run in `mode` (see the module's text). Raises ValueError for another word, RuntimeError for a mode that
    cannot be had here."""
    global _mode
    before, _mode = _mode, _checked(mode)
    try:
        yield
    finally:
        _mode = before


def mode() -> str:
    """The switch's position."""
    return _mode


def torchs_own(*tensors: Tensor | None) -> bool:
    """Whether torch's own operators run: where the switch says so, and under torch.func's transforms and forward-mode differentiation, of
    which ours know nothing."""
    if _mode == "torch":
        return True
    if torch.compiler.is_compiling():
        return False
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    return any(
        t is not None and (wrapped(t) or forward_ad.unpack_dual(t).tangent is not None)
        for t in tensors
    )


def implementation(
    x: Tensor, *others: Tensor | None, native: bool = True, triton: bool = True
) -> str:
    """ "triton", "native" or "composite" for these tensors; `native`, `triton`: whether the operator has such a form for its arguments."""
    if x.dtype != torch.float64 and triton and HAS_TRITON and _mode in ("auto", "triton"):
        if x.is_cuda:
            return "triton"
        if _mode == "triton":
            if not INTERPRETED:
                raise RuntimeError(
                    "mode triton needs a CUDA device, or TRITON_INTERPRET=1 in the environment before `kernels` is imported"
                )
            return "triton"
    if (
        native
        and _mode in ("auto", "native")
        and _native.fits(x, *others)
        and _native.library() is not None
    ):
        return "native"
    return "composite"
