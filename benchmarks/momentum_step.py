"""The paper's update rule over all of AlexNet's parameters: kernels.momentum_step_ against the rule written with torch's operators, one
parameter at a time and by torch.compile, and torch.optim.SGD, foreach and fused.

torch's SGD keeps the rate outside the velocity, so it is another rule where the rate changes; at one rate it is the same. Everything is
float32."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor

import alexnet_kernels as kernels
from alexnet import AlexNet
from benchmarks import measure, script

NAME = "momentum_step"
SHAPES = {"alexnet": (1,)}  # one over the width of every layer
TINY = {"alexnet": (32,)}
FIXED = {"batch": [0], "dtype": ["fp32"], "layouts": [""]}
RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4  # decay for the weights only


@cache
def shapes(dims: tuple[int, ...]) -> list[torch.Size]:
    return [p.shape for p in AlexNet("paper", width=1 / dims[0]).parameters()]


def label(dims: tuple[int, ...]) -> str:
    return f"{sum(shape.numel() for shape in shapes(dims))}"


def floor(dims: tuple[int, ...], batch: int, itemsize: int) -> dict[str, int]:
    """Reads w, g and v, writes w and v."""
    return {"forward": 5 * itemsize * sum(shape.numel() for shape in shapes(dims))}


def eager(
    params: list[Tensor], grads: list[Tensor], velocities: list[Tensor], decays: list[float]
) -> None:
    for w, g, v, decay in zip(params, grads, velocities, decays):
        v.mul_(MOMENTUM).sub_(g, alpha=RATE)
        if decay:
            v.sub_(w, alpha=RATE * decay)
        w.add_(v)


def entries(case: measure.Case) -> list[measure.Entry]:
    start, grads, speed = ([case.normal(*shape) for shape in shapes(case.dims)] for _ in range(3))
    speed = [RATE * v for v in speed]
    decays = [DECAY if w.dim() > 1 else 0.0 for w in start]

    def checked(
        name: str,
        step: Callable[[], None],
        params: list[Tensor],
        velocities: list[Tensor],
        scale: float = 1.0,
    ) -> measure.Entry:
        """scale: what turns `velocities` into the paper's."""

        def check() -> float:
            step()
            errors = []
            for w0, g, v0, decay, w, v in zip(start, grads, speed, decays, params, velocities):
                right = MOMENTUM * v0.double() - RATE * decay * w0.double() - RATE * g.double()
                errors.append(measure.error(v.flatten() * scale, right.flatten()))
                errors.append(measure.error(w.flatten(), (w0.double() + right).flatten()))
            return measure.worst(errors)

        return measure.Entry(name, "", step, None, check)

    def rule(
        name: str, call: Callable[..., None], mode: str | None = None, capture: bool = True
    ) -> measure.Entry:
        params, velocities = [w.clone() for w in start], [v.clone() for v in speed]

        def step() -> None:
            with measure.using(mode), torch.no_grad():
                call(params, grads, velocities)

        return replace(checked(name, step, params, velocities), capture=capture)

    def sgd(name: str, **kind: bool) -> measure.Entry:
        params = [w.clone().requires_grad_() for w in start]
        groups = [
            {"params": [w for w, d in zip(params, decays) if d == decay], "weight_decay": decay}
            for decay in (DECAY, 0.0)
        ]
        optimizer = torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM, **kind)
        for w, g, v in zip(params, grads, speed):
            w.grad = g
            optimizer.state[w]["momentum_buffer"] = -v / RATE
        velocities = [optimizer.state[w]["momentum_buffer"] for w in params]
        return checked(name, optimizer.step, params, velocities, -RATE)

    on_device = partial(torch.tensor, device=case.device)  # which a CUDA graph needs
    ours = partial(
        kernels.momentum_step_,
        lr=on_device(RATE),
        momentum=MOMENTUM,
        weight_decay=[on_device(decay) for decay in decays],
    )
    plain = partial(eager, decays=decays)
    return [
        rule("ours", ours, "auto"),
        rule("ours, again", ours, "auto"),
        rule("ours, composite", ours, "composite", capture=False),
        rule("torch", plain),
        rule("torch.compile", torch.compile(plain, dynamic=False, fullgraph=True)),
        sgd("SGD, foreach", foreach=True),
        sgd("SGD, fused", fused=True),
    ]


if __name__ == "__main__":
    sys.exit(script.main(sys.modules[__name__]))
