"""The update of all parameters in one launch.

Each program looks up which tensor its block belongs to.
"""

from collections.abc import Sequence
from itertools import accumulate

import triton
import triton.language as tl
from torch import Tensor

from alexnet_kernels.gpu.maps import DTYPES, LAUNCH, narrow

BLOCK = 2048


@triton.jit
def kernel(  # no argument may be called params: Triton's own launcher has one of that name
    weights,  # tuple of pointers, float32
    grads,  # likewise, float32 or a half type
    velocities,  # likewise, float32
    copies,  # likewise, of a half type; not written without HAS_COPIES
    sizes,  # tuple: elements of each
    starts,  # tuple: the first program of each, and their number
    rates, decays,  # pointers to float32 (COUNT,)
    momentum,
    COUNT: tl.constexpr,  # parameters
    HAS_COPIES: tl.constexpr,
    COPY: tl.constexpr,  # type of the copies
    EMULATE: tl.constexpr,  # whether bfloat16 is rounded by hand
    BLOCK: tl.constexpr,  # elements a program
):  # fmt: skip
    program = tl.program_id(0)
    for i in tl.static_range(COUNT):
        if (program >= starts[i]) & (program < starts[i + 1]):
            rate = tl.load(rates + i)
            if rate != 0:  # frozen otherwise
                at = (program - starts[i]) * BLOCK + tl.arange(0, BLOCK)
                inside = at < sizes[i]
                w = tl.load(weights[i] + at, mask=inside)
                g = tl.load(grads[i] + at, mask=inside).to(tl.float32)
                v = tl.load(velocities[i] + at, mask=inside)
                v = momentum * v - rate * tl.load(decays + i) * w - rate * g
                w += v
                tl.store(velocities[i] + at, v, mask=inside)
                tl.store(weights[i] + at, w, mask=inside)
                if HAS_COPIES:
                    tl.store(copies[i] + at, narrow(w, COPY, EMULATE), mask=inside)


def momentum_step_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    velocities: Sequence[Tensor],
    copies: Sequence[Tensor],
    rates: Tensor,
    decays: Tensor,
    momentum: float,
) -> None:
    """Update params, velocities and copies in place.

    Args:
        params: float32; a parameter's tensors lie alike in memory.
        grads: float32 or a half type.
        velocities: float32.
        copies: of one half type, or none.
        rates: float32 (number of parameters,), on the device.
        decays: likewise.
        momentum: a number.
    """
    sizes = tuple(p.numel() for p in params)
    starts = tuple(accumulate((triton.cdiv(size, BLOCK) for size in sizes), initial=0))
    if starts[-1]:
        kernel[(starts[-1],)](
            tuple(params), tuple(grads), tuple(velocities), tuple(copies or params),
            sizes, starts, rates, decays, momentum,
            COUNT=len(params), HAS_COPIES=bool(copies), COPY=DTYPES[(copies or params)[0].dtype],
            BLOCK=BLOCK, **LAUNCH,
        )  # fmt: skip
