"""The paper's update rule over all of AlexNet's parameters: kernels.momentum_step_ against the rule
written with torch's operators, one parameter at a time and by torch.compile, and torch.optim.SGD,
foreach and fused.

torch's SGD keeps the rate outside the velocity, so it is another rule where the rate changes; at
one rate it is the same. Everything is float32.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import alexnet_kernels as kernels
from kernel_benchmarks import measure
from kernel_benchmarks.measure import Case, Dims, Entry

NAME = "momentum_step"
SHAPES = {"alexnet": (1,)}  # one over the width of every layer
TINY = {"alexnet": (32,)}
FIXED = {"batch": [0], "dtype": ["fp32"], "layouts": [""]}
RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4  # decay for the weights only


def shapes(dims: Dims) -> list[tuple[int, ...]]:
    """The parameters of AlexNet's two columns: weights and bias of each layer. The columns' fc8 is
    summed, so that only the first has a bias there."""
    c1, c2, c3, c5, fc = (maps // dims[0] for maps in (48, 128, 192, 128, 2048))
    weights = [
        *((c1, 3, 11, 11), (c2, c1, 5, 5), (c3, 2 * c2, 3, 3), (c3, c3, 3, 3), (c5, c3, 3, 3)),
        *((fc, 2 * c5 * 6 * 6), (fc, 2 * fc), (1000, fc)),
    ]
    column = [shape for weight in weights for shape in (weight, weight[:1])]
    return column + column[:-1]


def label(dims: Dims) -> str:
    return f"{sum(map(math.prod, shapes(dims)))}"


def floor(dims: Dims, batch: int, itemsize: int) -> dict[str, int]:
    """Reads w, g and v, writes w and v."""
    return {"forward": 5 * itemsize * sum(map(math.prod, shapes(dims)))}


def eager(
    params: list[Tensor], grads: list[Tensor], velocities: list[Tensor], decays: list[float]
) -> None:
    for w, g, v, decay in zip(params, grads, velocities, decays):
        v.mul_(MOMENTUM).sub_(g, alpha=RATE)
        if decay:
            v.sub_(w, alpha=RATE * decay)
        w.add_(v)


def entries(case: Case) -> list[Entry]:
    weights, grads, speeds = ([case.normal(*s) for s in shapes(case.dims)] for _ in range(3))
    speeds = [RATE * v for v in speeds]
    decays = [DECAY if w.dim() > 1 else 0.0 for w in weights]

    def entry(
        name: str,
        step: Callable,
        params: list[Tensor],
        velocities: list[Tensor],
        scale: float,
        capture: bool = True,
    ) -> Entry:
        """scale: what turns `velocities` into the paper's."""

        def check() -> float:
            step()
            errors = []
            for w0, g, v0, decay, w, v in zip(weights, grads, speeds, decays, params, velocities):
                right = MOMENTUM * v0.double() - RATE * decay * w0.double() - RATE * g.double()
                errors.append(measure.error(v.flatten() * scale, right.flatten()))
                errors.append(measure.error(w.flatten(), (w0.double() + right).flatten()))
            return measure.worst(errors)

        return Entry(name, "", step, None, check, capture)

    def rule(name: str, call: Callable, mode: str | None) -> Entry:
        params, velocities = [w.clone() for w in weights], [v.clone() for v in speeds]

        def step() -> None:
            with measure.using(mode), torch.no_grad():
                call(params, grads, velocities)

        return entry(name, step, params, velocities, 1.0, capture=mode != "composite")

    def sgd(kind: str) -> Entry:
        params = [w.clone().requires_grad_() for w in weights]
        groups = [
            {"params": [w for w, d in zip(params, decays) if d == decay], "weight_decay": decay}
            for decay in (DECAY, 0.0)
        ]
        optimizer = torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM, **{kind: True})
        for w, g, v in zip(params, grads, speeds):
            w.grad = g
            optimizer.state[w]["momentum_buffer"] = -v / RATE
        velocities = [optimizer.state[w]["momentum_buffer"] for w in params]
        return entry(f"SGD, {kind}", optimizer.step, params, velocities, -RATE)

    on_device = partial(torch.tensor, device=case.device)  # which a CUDA graph needs
    on_decays = [on_device(decay) for decay in decays]
    ours = partial(kernels.momentum_step_, lr=on_device(RATE), weight_decay=on_decays)
    peers = measure.ours(ours, eager) + measure.torchs(partial(eager, decays=decays), eager)
    rules = [rule(peer.name, peer.call, peer.mode) for peer in peers]
    return [*rules, sgd("foreach"), sgd("fused")]
