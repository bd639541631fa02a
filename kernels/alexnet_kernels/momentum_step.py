"""The paper's update rule (section 5): v = momentum v - weight_decay lr w - lr g; w = w + v, with the rate inside the velocity."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alexnet_kernels import _choose, _native
from alexnet_kernels._operator import define

Rate = float | Tensor


def _each(value: Rate | Sequence[Rate], params: Sequence[Tensor], name: str) -> Tensor:
    """One number a parameter: float64 on the CPU where all are numbers or lie there, else float32 on the parameters' device."""
    values = (
        [value] * len(params)
        if isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.dim() == 0)
        else list(value)
    )
    if len(values) != len(params):
        raise ValueError(
            f"{name} must be one number or one for each of the {len(params)} parameters; there are {len(values)}"
        )
    if any(isinstance(v, Tensor) and v.device.type != "cpu" for v in values):
        return torch.stack(
            [torch.as_tensor(v, dtype=torch.float32, device=params[0].device) for v in values]
        )
    return torch.tensor([float(v) for v in values], dtype=torch.float64)


def _alike(*tensors: Tensor) -> bool:
    """Whether one walk through memory meets the same entry in each."""
    first = tensors[0]
    dense = first.is_contiguous() or (
        first.dim() == 4 and first.is_contiguous(memory_format=torch.channels_last)
    )
    return dense and all(t.stride() == first.stride() for t in tensors)


@define("momentum_step_", mutates_args=("params", "velocities", "copies"))
def operator(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    velocities: Sequence[Tensor],
    copies: Sequence[Tensor],
    lr: Tensor,
    weight_decay: Tensor,
    momentum: float,
) -> None:
    if not params:
        return
    torch.autograd.graph.increment_version(
        (*params, *velocities, *copies)
    )  # who kept one for a gradient is told
    groups = list(zip(params, grads, velocities, *([copies] if copies else [])))
    alike = all(_alike(*group) for group in groups)
    floats = all(w.dtype == v.dtype == torch.float32 for w, _, v, *_ in groups)
    native = alike and floats and not copies and all(g.dtype == torch.float32 for g in grads)
    which = _choose.implementation(params[0], native=native, triton=alike and floats)
    if which == "triton":
        from alexnet_kernels.gpu import momentum_step as gpu

        device = params[0].device
        rates, decays = (t.to(device, torch.float32) for t in (lr, weight_decay))
        gpu.momentum_step_(params, grads, velocities, copies, rates, decays, momentum)
        return
    moving = [
        (group, rate, decay)
        for group, rate, decay in zip(groups, lr.tolist(), weight_decay.tolist(), strict=True)
        if rate
    ]
    if which == "native":
        _run_native(moving, momentum)
        return
    for (w, g, v, *copy), rate, decay in moving:
        v.mul_(momentum).sub_(g, alpha=rate)
        if decay != 0.0:
            v.sub_(w, alpha=rate * decay)
        w.add_(v)
        for c in copy:
            c.copy_(w)


def _run_native(moving: list[Any], momentum: float) -> None:
    """All parameters in one call, which takes arrays of their addresses and numbers."""
    many, counts = len(moving), [group[0].numel() for group, _, _ in moving]
    addresses = [
        (ctypes.c_void_p * many)(*(group[i].data_ptr() for group, _, _ in moving)) for i in range(3)
    ]
    rates, decays = (
        (ctypes.c_float * many)(*(r for _, r, _ in moving)),
        (ctypes.c_float * many)(*(r * d for _, r, d in moving)),
    )
    arrays = (*addresses, (ctypes.c_long * many)(*counts), rates, decays)
    _native.share(
        lambda *part: _native.call("momentum_step", *arrays, *part, momentum),
        sum(counts),
        sum(counts),
    )


@operator.register_fake
def _(params, grads, velocities, copies, lr, weight_decay, momentum):
    return None


@torch.no_grad()
def momentum_step_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    velocities: Sequence[Tensor],
    lr: Rate | Sequence[Rate],
    momentum: float = 0.9,
    weight_decay: Rate | Sequence[Rate] = 0.0,
    copies: Sequence[Tensor] = (),
) -> None:
    """Updates `params` and `velocities` in place; on a GPU all of them in one launch. lr and weight_decay: a number, a 0-d tensor, or one
    of these per parameter. copies: one tensor of a half type per parameter, which takes the new weights rounded; or none.

    A parameter whose lr is 0 is frozen: neither it nor its velocity changes (weights.cu:148). torch's SGD keeps the rate outside the
    velocity, so the two differ whenever the rate changes. In a CUDA graph give lr and weight_decay as tensors on the device. Raises
    ValueError where lengths or shapes do not agree.
    """
    if not len(params) == len(grads) == len(velocities):
        raise ValueError(
            f"params, grads and velocities must be of one length; they are {len(params)}, {len(grads)}, {len(velocities)}"
        )
    if copies and len(copies) != len(params):
        raise ValueError(
            f"copies must be none or one for each of the {len(params)} parameters; there are {len(copies)}"
        )
    if any(g is None for g in grads):
        raise ValueError("a gradient is None: leave out parameters that have none")
    for w, g, v, *c in zip(params, grads, velocities, *([copies] if copies else []), strict=True):
        if not w.shape == g.shape == v.shape or any(other.shape != w.shape for other in c):
            raise ValueError(
                f"a parameter, its gradient and velocity must be of one shape; they are {w.shape}, {g.shape}, {v.shape}"
            )
    rates, decays = _each(lr, params, "lr"), _each(weight_decay, params, "weight_decay")
    operator(list(params), list(grads), list(velocities), list(copies), rates, decays, momentum)
