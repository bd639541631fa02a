"""The precisions that a net can be trained in.

fp32   everything in float32; on a GPU without TF32, which torch would use for convolutions
tf32   float32 whose products a GPU rounds to 10 bits of mantissa first
bf16   weights, activations and gradients in bfloat16; the weights that are updated, and the
       velocities, in float32
fp64   everything in float64, to compare with
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from alexnet.errors import require

Precision = Literal["fp32", "tf32", "bf16", "fp64"]
PRECISIONS: dict[str, torch.dtype] = {"fp32": torch.float32, "tf32": torch.float32}
PRECISIONS |= {"bf16": torch.bfloat16, "fp64": torch.float64}


@contextmanager
def using_precision(precision: str, device: torch.device) -> Iterator[torch.dtype]:
    """Set how a GPU multiplies float32 within the block.

    Args:
        precision: A word of `Precision`: "fp32", "tf32", "bf16" or "fp64".
        device: Where the net computes.

    Returns:
        The type of a net's weights and input.

    Raises:
        InputError: The precision does not exist, or not on this device.
    """
    none = f"there is no precision {precision!r}; there are {', '.join(PRECISIONS)}"
    require(precision in PRECISIONS, none)
    possible = precision != "tf32" or device.type == "cuda"
    require(possible, "precision tf32 needs a CUDA device; use fp32")
    switches = (torch.backends.cuda.matmul, getattr(torch.backends.cudnn, "conv"))  # noqa: B009 (unknown to the type checker)
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield PRECISIONS[precision]
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
