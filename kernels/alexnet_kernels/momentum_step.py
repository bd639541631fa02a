"""The paper's update rule (section 5), with the rate inside the velocity.

v = momentum v - weight_decay lr w - lr g; w = w + v.
"""

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from alexnet_kernels import _check, _native
from alexnet_kernels._native import SUFFIXES
from alexnet_kernels._operator import define

Rate = float | Tensor


@define("momentum_step_", mutates=("params", "velocities", "copies"))
def operator(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    velocities: Sequence[Tensor],
    copies: Sequence[Tensor],
    lr: Tensor,
    weight_decay: Tensor,
    momentum: float,
) -> None:
    """lr and weight_decay: (number of parameters,); copies: empty, or one a parameter."""
    return None


def _groups(*lists: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """A parameter, its gradient and velocity, and its copy, if it has one."""
    return zip(*(each for each in lists if each), strict=True)


def _moving(params, grads, velocities, copies, lr, weight_decay) -> list[Any]:
    """Each group that is not frozen, its rate and its decay."""
    groups = _groups(params, grads, velocities, copies)
    rows = zip(groups, lr.tolist(), weight_decay.tolist(), strict=True)
    return [(group, rate, decay) for group, rate, decay in rows if rate]


def _one_walk(params, grads, velocities, copies, *_) -> bool:
    """Whether one walk through memory meets the same entry of each tensor, weights in float32."""
    return all(
        (w.is_contiguous() or (w.dim() == 4 and w.is_contiguous(memory_format=torch.channels_last)))
        and all(t.stride() == w.stride() for t in group)
        and w.dtype == v.dtype == torch.float32
        for group in _groups(params, grads, velocities, copies)
        for w, _, v, *_ in [group]
    )


def _native_fits(params, grads, velocities, copies, *rest) -> bool:
    kinds = {torch.bfloat16} if copies else {torch.float32}
    return {t.dtype for t in (*grads, *copies)} == kinds and _one_walk(
        params, grads, velocities, copies
    )


@operator.form("composite")
def _(*given):
    *inputs, momentum = given
    for (w, g, v, *copy), rate, decay in _moving(*inputs):
        v.mul_(momentum).sub_(g, alpha=rate)
        if decay != 0.0:
            v.sub_(w, alpha=rate * decay)
        w.add_(v)
        for c in copy:
            c.copy_(w)


@operator.form("triton", _one_walk)
def _(params, grads, velocities, copies, lr, weight_decay, momentum):
    from alexnet_kernels.gpu import momentum_step as gpu

    rates, decays = (t.to(params[0].device, torch.float32) for t in (lr, weight_decay))
    gpu.momentum_step_(params, grads, velocities, copies, rates, decays, momentum)


@operator.form("native", _native_fits)
def _(*given):
    """All parameters in one call, which takes arrays of their addresses and numbers."""
    *inputs, momentum = given
    moving = _moving(*inputs)
    name = "momentum_step" + (SUFFIXES[torch.bfloat16] if inputs[3] else "")
    counts = [group[0].numel() for group, _, _ in moving]
    arrays = [
        *(
            (ctypes.c_void_p * len(moving))(*(group[i].data_ptr() for group, *_ in moving))
            for i in range(4 if inputs[3] else 3)
        ),
        (ctypes.c_long * len(moving))(*counts),
        (ctypes.c_float * len(moving))(*(rate for _, rate, _ in moving)),
        (ctypes.c_float * len(moving))(*(rate * decay for _, rate, decay in moving)),
    ]
    _native.run(name, tuple(arrays), sum(counts), momentum)


def _each(value: Rate | Sequence[Rate], params: Sequence[Tensor], name: str) -> Tensor:
    """One number a parameter.

    float64 on the CPU where all are numbers or lie there, else float32 on the parameters' device.
    """
    is_one = isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.dim() == 0)
    values: list[Any] = [value] * len(params) if is_one else list(value)  # type: ignore[arg-type]
    if len(values) != len(params):
        raise ValueError(
            f"{name} must be one number or one for each of the {len(params)} parameters; "
            f"there are {len(values)}"
        )
    if any(isinstance(v, Tensor) and v.device.type != "cpu" for v in values):
        device = params[0].device
        return torch.stack([torch.as_tensor(v, dtype=torch.float32, device=device) for v in values])
    return torch.tensor([float(v) for v in values], dtype=torch.float64)


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
    """Update `params` and `velocities` in place; on a GPU all of them in one launch.

    A parameter whose lr is 0 is frozen: neither it nor its velocity changes. torch's SGD keeps the
    rate outside the velocity, so the two differ whenever the rate changes.

    Args:
        params: the weights, any shapes.
        grads: of the same shapes, in float32 or a half type.
        velocities: of the same shapes, at first zero.
        lr: a number, a 0-d tensor, or one of these per parameter. In a CUDA graph a tensor on the
            device.
        momentum: a number.
        weight_decay: as lr.
        copies: one tensor of a half type per parameter, which takes the new weights rounded; or
            none.

    Raises:
        ValueError: where lengths or shapes do not agree.

    Source: weights.cu:148 of the released source, for frozen parameters.
    """
    lists = {"params": params, "grads": grads, "velocities": velocities, "copies": copies}
    for name, given in lists.items():
        if isinstance(given, Tensor) or not hasattr(given, "__len__"):
            kind = type(given).__name__
            raise ValueError(f"{name} must be a list of tensors; it is of type {kind}")
    if any(g is None for g in grads):
        raise ValueError("a gradient is None: leave out parameters that have none")
    for name, given in lists.items():
        _check.tensors(**{f"{name}[{i}]": tensor for i, tensor in enumerate(given)})
    if not len(params) == len(grads) == len(velocities):
        raise ValueError(
            "params, grads and velocities must be of one length; "
            f"they are {len(params)}, {len(grads)}, {len(velocities)}"
        )
    if copies and len(copies) != len(params):
        raise ValueError(
            f"copies must be none or one for each of the {len(params)} parameters; "
            f"there are {len(copies)}"
        )
    _check.numbers(momentum=momentum)
    for group in _groups(params, grads, velocities, copies):
        if len({t.shape for t in group}) > 1:
            raise ValueError(
                "a parameter, its gradient, velocity and copy must be of one shape; "
                f"they are {', '.join(str(tuple(t.shape)) for t in group)}"
            )
    rates, decays = _each(lr, params, "lr"), _each(weight_decay, params, "weight_decay")
    operator(list(params), list(grads), list(velocities), list(copies), rates, decays, momentum)
