"""The masks of dropout, compiled: what `alexnet.rng.keep` says in plain torch, a dozen passes over 64-bit integers, in one."""

import torch
from torch import Tensor

from kernels import _choose, _native


def keep_mask(keys: Tensor, count: int, threshold: int) -> Tensor | None:
    """bool (N, count), whether the key's i-th number is less than `threshold`, -2^63..2^63-1, by compiled C; None where there is none, or
    it is not to run. keys: int64 (N,) on the CPU."""
    here = keys.device.type == "cpu" and keys.dim() == 1 and keys.dtype == torch.int64
    if not here or torch.compiler.is_compiling() or _choose.torchs_own(keys) or _choose.mode() not in ("auto", "native"):
        return None
    if _native.library() is None:
        return None
    keys, mask = keys.contiguous(), torch.empty(len(keys), count, dtype=torch.bool)
    tensors = _native.pointer(keys), _native.pointer(mask)
    _native.share(lambda *part: _native.call("keep_mask", *tensors, *part, count, threshold), len(keys), mask.numel())
    return mask
