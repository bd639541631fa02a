"""The masks of dropout, compiled: what `alexnet.rng.keep` says in plain torch, a dozen passes over 64-bit integers, in one."""

import torch
from torch import Tensor

from alexnet_kernels import _choose, _native
from alexnet_kernels._operator import define


@define("keep_mask")
def operator(keys: Tensor, count: int, threshold: int) -> Tensor:
    keys, mask = keys.contiguous(), torch.empty(len(keys), count, dtype=torch.bool)
    tensors = _native.pointer(keys), _native.pointer(mask)
    _native.share(
        lambda *part: _native.call("keep_mask", *tensors, *part, count, threshold),
        len(keys),
        mask.numel(),
    )
    return mask


@operator.register_fake
def _(keys, count, threshold):
    return keys.new_empty((len(keys), count), dtype=torch.bool)


def fits(keys: Tensor) -> bool:
    """Whether the compiled form is there for these keys, and is to run."""
    here = keys.device.type == "cpu" and keys.dim() == 1 and keys.dtype == torch.int64
    wanted = (
        here
        and _choose.mode() in ("auto", "native")
        and not torch.compiler.is_compiling()
        and not _choose.torchs_own(keys)
    )
    return wanted and _native.library() is not None


def keep_mask(keys: Tensor, count: int, threshold: int) -> Tensor:
    """bool (N, count): whether the key's i-th number, a signed 64-bit integer, is less than `threshold`. keys: int64 (N,) that `fits`."""
    return operator(keys, count, threshold)
