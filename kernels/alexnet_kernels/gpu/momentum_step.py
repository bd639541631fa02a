"""The update of all parameters in one launch: each program looks up which tensor its block belongs to."""

from collections.abc import Sequence
from itertools import accumulate

import triton
import triton.language as tl
from torch import Tensor

from alexnet_kernels.gpu.maps import DTYPES, LAUNCH, narrow

BLOCK = 2048


@triton.jit
def kernel(  # no argument may be called params: Triton's own launcher has one of that name
    weights, grads, velocities, copies, sizes, starts, rates, decays, momentum,
    COUNT: tl.constexpr, HAS_COPIES: tl.constexpr, COPY: tl.constexpr, EMULATE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    for i in tl.static_range(COUNT):
        if (program >= starts[i]) & (program < starts[i + 1]):
            rate = tl.load(rates + i)
            if rate != 0:  # frozen otherwise
                at = (program - starts[i]) * BLOCK + tl.arange(0, BLOCK)
                here = at < sizes[i]
                w = tl.load(weights[i] + at, mask=here)
                g = tl.load(grads[i] + at, mask=here).to(tl.float32)
                v = tl.load(velocities[i] + at, mask=here)
                v = momentum * v - rate * tl.load(decays + i) * w - rate * g
                w += v
                tl.store(velocities[i] + at, v, mask=here)
                tl.store(weights[i] + at, w, mask=here)
                if HAS_COPIES:
                    tl.store(copies[i] + at, narrow(w, COPY, EMULATE), mask=here)


def momentum_step_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    velocities: Sequence[Tensor],
    copies: Sequence[Tensor],
    rates: Tensor,
    decays: Tensor,
    momentum: float,
) -> None:
    """params, velocities: float32; grads: float32 or a half type; copies: of one half type, or none; a parameter's tensors alike in memory.
    rates, decays: float32 (number of parameters,) on the device."""
    sizes = tuple(p.numel() for p in params)
    starts = tuple(accumulate((triton.cdiv(size, BLOCK) for size in sizes), initial=0))
    if starts[-1]:
        kernel[(starts[-1],)](
            tuple(params), tuple(grads), tuple(velocities), tuple(copies or params), sizes, starts, rates, decays, momentum,
            COUNT=len(params), HAS_COPIES=bool(copies), COPY=DTYPES[(copies or params)[0].dtype], BLOCK=BLOCK, **LAUNCH,
        )  # fmt: skip
