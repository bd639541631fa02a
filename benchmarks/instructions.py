"""What the Triton kernels compile to, without a GPU: registers, spills, widest access, instructions for each element.

Triton compiles for a device that is not there as for one that is: a stand-in driver names the target, the operators are called with tensors
that have shapes but no memory, and nothing is launched. The counts say whether a kernel can be bound by memory at all: at 4.3 TB/s a device
of 132 multiprocessors has about 28 instructions to spend on an element for every 4 bytes that the element moves.

    python -m benchmarks.instructions [--arch 80 90] [--dtype bf16 fp32] [--all-configs]
"""

import argparse
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction

from alexnet_kernels.gpu import (
    crop_flip_color,
    local_response_norm,
    max_pool,
    momentum_step,
    same_map_norm,
)
from alexnet_kernels.gpu import response_norm_pool as block

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SHAPES = {"conv1": (128, 96, 55, 55), "conv2": (128, 256, 27, 27), "conv5": (128, 256, 13, 13)}


class _Device:
    """As much of a driver as compilation asks for."""

    def __init__(self, arch: int):
        self.target = GPUTarget("cuda", arch, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_device_capability(self, device: int = 0) -> tuple[int, int]:
        return divmod(self.target.arch, 10)


@dataclass
class Compiled:
    kernel: str
    config: str
    arch: int
    registers: int
    spilled: int  # bytes of a lane's registers that live in memory
    widest: int  # bits of the widest access to global memory
    instructions: float  # of a lane, for each element that the program covers: each branch once, a loop over a strip each round


@contextmanager
def _compiling(arch: int) -> Iterator[list]:
    """Launches inside the block compile for `arch`, and are collected instead."""
    found: list = []
    run, active = JITFunction.run, driver._active

    def compile_only(self, *args, grid, warmup, **kwargs):
        compiled = run(self, *args, grid=grid, warmup=True, **kwargs)
        programs = math.prod(
            grid({name: value for name, value in kwargs.items() if isinstance(value, int)})
            if callable(grid)
            else grid
        )
        found.append((self, kwargs, programs, compiled))
        return compiled

    JITFunction.run = compile_only
    driver.set_active(_Device(arch))
    try:
        yield found
    finally:
        JITFunction.run = run
        driver._active = active


def _tool(name: str, *arguments: str) -> str:
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run(
        [str(path), *arguments], capture_output=True, text=True, check=True
    ).stdout


def _executed(sass: str, rounds: int) -> int:
    """Instructions of the program text, those within a loop `rounds` times."""
    lines = [(int(at, 16), what) for at, what in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.+?);", sass)]
    jumps = [
        (int(target[1], 16), at)
        for at, what in lines
        if (target := re.search(r"\bBRA\b.*?\b0x([0-9a-f]+)", what))
    ]
    loops = [
        (first, last) for first, last in jumps if first < last
    ]  # the program ends in a jump to itself
    return sum(
        rounds if any(first <= at <= last for first, last in loops) else 1
        for at, what in lines
        if "NOP" not in what
    )


def _inspect(
    fn: JITFunction, constants: dict, programs: int, compiled, arch: int, elements: int
) -> Compiled:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        usage, text = (
            _tool("cuobjdump", "-res-usage", cubin.name),
            _tool("cuobjdump", "-sass", cubin.name),
        )
    count = _executed(text, constants.get("STRIP", 1))
    widths = [
        int(n or 1) * int(bits)
        for n, bits in re.findall(
            r"(?:ld|st)\.global[\w.]*?(?:\.v(\d))?\.b(\d+)", compiled.asm["ptx"]
        )
    ]
    warps = compiled.metadata.num_warps
    settings = " ".join(
        f"{name}={constants[name]}" for name in ("M", "ROWS", "STRIP", "BLOCK") if name in constants
    )
    return Compiled(
        f"{fn.__module__.rsplit('.', 1)[1]}.{fn.__name__.removesuffix('_kernel')}",
        f"{settings} warps={warps}",
        arch,
        int(re.search(r"REG:(\d+)", usage)[1]),  # type: ignore[index]
        int(re.search(r"LOCAL:(\d+)", usage)[1]),  # type: ignore[index]
        max(widths, default=0),
        count * warps * 32 * programs / elements,
    )


def measure(
    call: Callable[[], None], elements: int, arch: int, all_configs: bool = False
) -> list[Compiled]:
    """Compiles what `call` launches. elements: of the input, which the counts are divided by."""
    rows, tuners = [], [v for module in list(sys.modules.values()) if (getattr(module, "__name__", "") or "").startswith("alexnet_kernels.gpu")
                        for v in vars(module).values() if isinstance(v, Autotuner)]  # fmt: skip
    before = [tuner.configs for tuner in tuners]
    most = max((len(configs) for configs in before), default=1) if all_configs else 1
    try:
        for i in range(most):
            for tuner, configs in zip(tuners, before):
                tuner.configs = [configs[min(i, len(configs) - 1)]]
                tuner.cache.clear()
            with _compiling(arch) as found:
                call()
            rows += [_inspect(*launch, arch, elements) for launch in found]
    finally:
        for tuner, configs in zip(tuners, before):
            tuner.configs = configs
    return list({(row.kernel, row.config): row for row in rows}.values())


def cases(
    dtype: torch.dtype, layout: str = "nhwc"
) -> Iterator[tuple[str, int, Callable[[], None]]]:
    """What is compiled: a name, its elements, a call."""
    form = torch.channels_last if layout == "nhwc" else torch.contiguous_format

    def maps(shape: tuple[int, ...], dtype: torch.dtype = dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta", memory_format=form)

    lrn = (5, 1e-4, 0.75, 2.0, 2, "before")
    for name, shape in SHAPES.items():
        x, y = maps(shape), maps((*shape[:2], (shape[2] - 3) // 2 + 1, (shape[3] - 3) // 2 + 1))
        code, bias = (
            maps(tuple(y.shape), torch.uint8),
            torch.empty(shape[1], dtype=dtype, device="meta"),
        )
        if name != "conv5":
            yield (
                f"{name} LRN",
                x.numel(),
                lambda x=x: local_response_norm.forward(x, None, x, *lrn),
            )
            yield (
                f"{name} LRN backward",
                x.numel(),
                lambda x=x: local_response_norm.backward(x, None, x, x, *lrn),
            )
            yield (
                f"{name} bias, LRN",
                x.numel(),
                lambda x=x, b=bias: local_response_norm.forward(x, b, x, *lrn),
            )
            yield (
                f"{name} bias, LRN backward",
                x.numel(),
                lambda x=x, b=bias: local_response_norm.backward(x, b, x, x, *lrn),
            )
            if layout == "nhwc":
                yield (
                    f"{name} fused block",
                    x.numel(),
                    lambda x=x, y=y, c=code, b=bias: block.forward(x, b, y, c, *lrn),
                )
        if name == "conv2":
            yield (
                f"{name} same-map norm",
                x.numel(),
                lambda x=x: same_map_norm.forward(x, x, 5, 4e-5, 0.75, 1.0),
            )
            yield (
                f"{name} same-map norm backward",
                x.numel(),
                lambda x=x: same_map_norm.backward(x, x, x, 5, 4e-5, 0.75, 1.0),
            )
        yield f"{name} pool", x.numel(), lambda x=x, y=y, c=code: max_pool.forward(x, y, c, 3, 2)
        yield (
            f"{name} pool backward",
            x.numel(),
            lambda x=x, y=y, c=code: max_pool.backward(y, c, x, 3, 2),
        )
    images, out = (
        torch.empty(128, 256, 256, 3, dtype=torch.uint8, device="meta"),
        maps((128, 3, 224, 224)),
    )
    offsets, flips = (
        torch.empty(128, 2, dtype=torch.int64, device="meta"),
        torch.empty(128, dtype=torch.bool, device="meta"),
    )
    shift, mean = torch.empty(128, 3, device="meta"), torch.empty(256, 256, 3, device="meta")
    yield (
        "crop",
        out.numel(),
        lambda: crop_flip_color.crop_flip_color(
            images, offsets, flips, shift, mean, out, 224, 1.0, True
        ),
    )
    sizes = (
        [48 * 363, 48] * 2 + [128 * 1200, 128] * 2 + [192 * 2304, 192] * 2 + [2048 * 9216, 2048] * 2
    )
    w, g = (
        [torch.empty(n, device="meta") for n in sizes],
        [torch.empty(n, dtype=dtype, device="meta") for n in sizes],
    )
    rates = torch.empty(len(sizes), device="meta")
    copies = [] if dtype == torch.float32 else g
    yield (
        "momentum step",
        sum(sizes),
        lambda: momentum_step.momentum_step_(w, g, w, copies, rates, rates, 0.9),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "--arch",
        type=int,
        nargs="+",
        default=[90],
        help="compute capabilities times ten: 80 (A100), 90 (H100, H200)",
    )
    parser.add_argument("--dtype", choices=DTYPES, nargs="+", default=["bf16", "fp32"])
    parser.add_argument(
        "--layout", choices=("nhwc", "nchw"), default="nhwc", help="memory layout of the maps"
    )
    parser.add_argument(
        "--all-configs",
        action="store_true",
        help="every configuration that is tried on a device, not the first alone",
    )
    parser.add_argument("--only", default="", help="cases whose name holds this")
    args = parser.parse_args()
    print(
        f"{'case':32} {'kernel':32} {'configuration':32} {'type':5} {'sm':>3} {'regs':>5} {'spill':>5} {'widest':>6} {'instr/elem':>10}"
    )
    for arch in args.arch:
        for dtype in args.dtype:
            for name, elements, call in cases(DTYPES[dtype], args.layout):
                if args.only in name:
                    for row in measure(call, elements, arch, args.all_configs):
                        print(f"{name:32} {row.kernel:32} {row.config:32} {dtype:5} {arch:3} {row.registers:5} {row.spilled:5} "
                              f"{row.widest:6} {row.instructions:10.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
