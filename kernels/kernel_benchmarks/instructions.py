"""What the Triton kernels compile to, without a GPU: registers, spills, widest access, instructions
for each element.

Triton compiles for a device that is not there as for one that is: a stand-in driver names the
target, the operators are called with tensors that have shapes but no memory, and nothing is
launched. The counts say whether a kernel can be bound by memory at all: at 4.3 TB/s a device of 132
multiprocessors has about 28 instructions to spend on an element for every 4 bytes that it moves.

    python -m kernel_benchmarks.instructions [--arch 80 90] [--dtype bf16 fp32] [--all-configs]
"""

import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction

from alexnet_kernels.gpu import (
    crop_flip_color,
    keep_mask,
    local_response_norm,
    max_pool,
    momentum_step,
    same_map_norm,
)
from alexnet_kernels.gpu import response_norm_pool as block
from kernel_benchmarks.measure import DTYPES, LAYOUTS
from kernel_benchmarks.momentum_step import shapes
from kernel_benchmarks.runner import Parser

SHAPES = {"conv1": (128, 96, 55, 55), "conv2": (128, 256, 27, 27), "conv5": (128, 256, 13, 13)}


# kernel; configuration; registers; bytes of a lane's registers that live in memory; bits of the
# widest access to global memory; instructions of a lane for each element that the program covers:
# each branch once, a loop over a strip each round
Compiled = tuple[str, str, int, int, int, float]


@contextmanager
def compiling(arch: int) -> Iterator[list[tuple]]:
    """Make launches inside the block compile for `arch`, and collect them instead: function,
    constants, number of programs, compiled code."""
    launches: list[tuple] = []
    run, active = JITFunction.run, driver._active

    def compile_only(self, *args, grid, warmup, **constants):
        compiled = run(self, *args, grid=grid, warmup=True, **constants)
        whole = {name: value for name, value in constants.items() if isinstance(value, int)}
        programs = math.prod(grid(whole) if callable(grid) else grid)
        launches.append((self, constants, programs, compiled))
        return compiled

    JITFunction.run = compile_only
    device = SimpleNamespace(  # as much of a driver as compilation asks for
        get_current_target=lambda: GPUTarget("cuda", arch, 32),
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
        get_device_capability=lambda device=0: divmod(arch, 10),
    )
    driver.set_active(device)
    try:
        yield launches
    finally:
        JITFunction.run = run
        driver._active = active


def _executed(sass: str, rounds: int) -> int:
    """Instructions of the program text, those within a loop `rounds` times."""
    lines = [(int(at, 16), what) for at, what in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.+?);", sass)]
    loops = [
        (first, last)
        for last, what in lines
        if (target := re.search(r"\bBRA\b.*?\b0x([0-9a-f]+)", what))
        and (first := int(target[1], 16)) < last  # the program ends in a jump to itself
    ]
    return sum(
        rounds if any(first <= at <= last for first, last in loops) else 1
        for at, what in lines
        if "NOP" not in what
    )


def _inspect(
    elements: int, function: JITFunction, constants: dict, programs: int, compiled
) -> Compiled:
    tool = str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        usage, text = (
            subprocess.run([tool, option, cubin.name], capture_output=True, text=True, check=True)
            for option in ("-res-usage", "-sass")
        )
    used = dict(re.findall(r"(REG|LOCAL):(\d+)", usage.stdout))
    accesses = re.findall(r"(?:ld|st)\.global[\w.]*?(?:\.v(\d))?\.b(\d+)", compiled.asm["ptx"])
    widest = max((int(n or 1) * int(bits) for n, bits in accesses), default=0)
    warps = compiled.metadata.num_warps
    config = [f"{n}={constants[n]}" for n in ("M", "ROWS", "STRIP", "BLOCK") if n in constants]
    rounds = constants.get("STRIP", constants.get("ROUNDS", 1))
    instructions = _executed(text.stdout, rounds) * warps * 32 * programs
    module, name = function.__module__.rsplit(".", 1)[1], function.__name__
    return (
        f"{module}.{name.removesuffix('_kernel')}",
        " ".join([*config, f"warps={warps}"]),
        *(int(used["REG"]), int(used["LOCAL"]), widest, instructions / elements),
    )


def tuners() -> list[Autotuner]:
    """The kernels that have several configurations."""
    ours = [m for name, m in list(sys.modules.items()) if name.startswith("alexnet_kernels.gpu")]
    return [v for module in ours for v in vars(module).values() if isinstance(v, Autotuner)]


def each_configuration(every: bool = True) -> Iterator[None]:
    """Give all kernels their first configuration, then, where `every` is true, their next ones."""
    ours = tuners()
    before = [tuner.configs for tuner in ours]
    try:
        for i in range(max(map(len, before)) if every else 1):
            for tuner, configs in zip(ours, before):
                tuner.configs = [configs[min(i, len(configs) - 1)]]
                tuner.cache.clear()
            yield
    finally:
        for tuner, configs in zip(ours, before):
            tuner.configs = configs
            tuner.cache.clear()


def measure(
    call: Callable[[], object], elements: int, arch: int, all_configs: bool = False
) -> list[Compiled]:
    """Compile what `call` launches.

    Args:
        elements: Of the input, which the counts are divided by.
        arch: The compute capability times ten.
        all_configs: Take every configuration that is tried on a device, not the first alone.
    """
    rows: dict[tuple, Compiled] = {}
    for _ in each_configuration(all_configs):
        with compiling(arch) as launches:
            call()
        compiled = [_inspect(elements, *launch) for launch in launches]
        rows |= {row[:2]: row for row in compiled}
    return list(rows.values())


Compilation = tuple[str, int, Callable[[], object]]  # a name, how many elements, a call


def cases(dtype: torch.dtype, layout: str = "nhwc") -> Iterator[Compilation]:
    """What is compiled."""
    empty = partial(torch.empty, device="meta")
    for name, shape in SHAPES.items():
        calls = _layer(name, shape, dtype, LAYOUTS[layout])
        yield from ((f"{name} {what}", math.prod(shape), call) for what, call in calls.items())
    masked = (empty(128, dtype=torch.int64), (0, 6, 1), empty(128, 2048, dtype=dtype), 2048, 0)
    yield "dropout's mask", 128 * 2048, partial(keep_mask.keep_mask, *masked)
    images, mean = empty(128, 256, 256, 3, dtype=torch.uint8), empty(256, 256, 3)
    out = empty(128, 3, 224, 224, dtype=dtype, memory_format=LAYOUTS[layout])
    offsets, flips = empty(128, 2, dtype=torch.int64), empty(128, dtype=torch.bool)
    inputs = (offsets, flips, empty(128, 3), mean)
    cut = partial(crop_flip_color.crop_flip_color, images)
    yield "crop", out.numel(), partial(cut, None, *inputs, out, 224, 1.0, True)
    blocks = empty(128, 48, 57, 57, dtype=dtype, memory_format=LAYOUTS["nhwc"])
    index = empty(128, dtype=torch.int64)
    gathered = partial(cut, index, *inputs, blocks, 224, 1.0, True, 4, 228)
    yield "crop, gathered, in blocks", out.numel(), gathered
    sizes = [math.prod(shape) for shape in shapes((1,))]
    weights, grads = [empty(n) for n in sizes], [empty(n, dtype=dtype) for n in sizes]
    copies, rates = [] if dtype == torch.float32 else grads, empty(len(sizes))
    step = (weights, grads, weights, copies, rates, rates, 0.9)
    yield "momentum step", sum(sizes), partial(momentum_step.momentum_step_, *step)


def _layer(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, form: torch.memory_format
) -> dict[str, Callable[[], object]]:
    """What follows one convolution."""
    maps = partial(torch.empty, dtype=dtype, device="meta", memory_format=form)
    pooled = (*shape[:2], *((side - 3) // 2 + 1 for side in shape[2:]))
    x, y, code = maps(shape), maps(pooled), maps(pooled, dtype=torch.uint8)
    bias = torch.empty(shape[1], dtype=dtype, device="meta")
    norm, within = (5, 1e-4, 0.75, 2.0, 2, "before"), (5, 4e-5, 0.75, 1.0)
    lrn, same = local_response_norm, same_map_norm
    calls: dict[str, Callable[[], object]] = {}
    if name != "conv5":
        for what, b in (("LRN", None), ("bias, LRN", bias)):
            calls[what] = partial(lrn.forward, x, b, x, *norm)
            calls[f"{what} backward"] = partial(lrn.backward, x, b, x, x, *norm)
            if b is not None and form == torch.channels_last:
                summed = partial(lrn.backward, x, b, x, x, *norm, lrn.empty_sums(x))
                calls[f"{what} backward, summed"] = summed
        if form == torch.channels_last:
            calls["fused block"] = partial(block.forward, x, bias, y, code, *norm)
    if name == "conv2":
        calls["same-map norm"] = partial(same.forward, x, x, *within)
        calls["same-map norm backward"] = partial(same.backward, x, x, x, *within)
    calls["pool"] = partial(max_pool.forward, x, y, code, 3, 2)
    calls["pool backward"] = partial(max_pool.backward, y, code, x, 3, 2)
    return calls


def main() -> None:
    form = Parser("kernel_benchmarks.instructions", __doc__)
    add = form.add_argument
    add("--arch", type=int, nargs="+", default=[90], help="80 (A100), 90 (H100, H200)")
    add("--dtype", choices=DTYPES, nargs="+", default=["bf16", "fp32"])
    add("--layout", choices=LAYOUTS, default="nhwc", help="memory layout of the maps")
    add("--all-configs", action="store_true", help="all that are tried on a device, not the first")
    add("--only", default="", help="cases whose name holds this")
    args = form.parse_args()
    line = "{:32} {:32} {:32} {:5} {:>3} {:>5} {:>5} {:>6} {:>10}"
    heads = "case kernel configuration type sm regs spill widest instr/elem"
    print(line.format(*heads.split()))
    for arch, dtype in product(args.arch, args.dtype):
        for name, elements, call in cases(DTYPES[dtype], args.layout):
            if args.only in name:
                for kernel, config, *counts, each in measure(
                    call, elements, arch, args.all_configs
                ):
                    facts = (kernel, config, dtype, arch, *counts, f"{each:.1f}")
                    print(line.format(name, *facts), flush=True)


if __name__ == "__main__":
    main()
