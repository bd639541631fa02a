"""The paper's update rule (section 5): v = momentum v - weight_decay lr w - lr g; w = w + v, with the rate inside the velocity."""

from collections.abc import Sequence

import torch
from torch import Tensor

Rate = float | Tensor


def _each(value: Rate | Sequence[Rate], count: int, name: str) -> list[Rate]:
    if isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.dim() == 0):
        return [value] * count
    values = list(value)
    if len(values) != count:
        raise ValueError(f"{name} must be one number or one for each of the {count} parameters; there are {len(values)}")
    return values


@torch.no_grad()
def momentum_step_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    velocities: Sequence[Tensor],
    lr: Rate | Sequence[Rate],
    momentum: float = 0.9,
    weight_decay: Rate | Sequence[Rate] = 0.0,
) -> None:
    """Updates `params` and `velocities` in place. lr and weight_decay: a number, a 0-d tensor, or one of these per parameter.

    A parameter whose lr is 0 is frozen: neither it nor its velocity changes (weights.cu:148). torch's SGD keeps the rate outside the
    velocity, so the two differ whenever the rate changes. Raises ValueError where lengths or shapes do not agree.
    """
    if not len(params) == len(grads) == len(velocities):
        raise ValueError(f"params, grads and velocities must be of one length; they are {len(params)}, {len(grads)}, {len(velocities)}")
    rates, decays = _each(lr, len(params), "lr"), _each(weight_decay, len(params), "weight_decay")
    for w, g, v, rate, decay in zip(params, grads, velocities, rates, decays, strict=True):
        if not w.shape == g.shape == v.shape:
            raise ValueError(f"a parameter, its gradient and velocity must be of one shape; they are {w.shape}, {g.shape}, {v.shape}")
        if float(rate) == 0.0:
            continue
        v.mul_(momentum).sub_(g, alpha=float(rate))
        if float(decay) != 0.0:
            v.sub_(w, alpha=float(rate) * float(decay))
        w.add_(v)
