"""Compile the Triton kernels of a GPU that is not there, into a cache to take along.

    python -m benchmarks.prebuild --cache DIR              # for an H100 or H200; --arch 80: an A100
    python -m benchmarks.visit first --cache DIR           # on the GPU: loads what it finds there

Run both with the same Python, torch and Triton, on which a key of the cache depends; a kernel whose
key differs is compiled on the GPU. The trainer's steps, and the operators' benchmarks, run on
tensors that have shapes and no memory. What they would launch is compiled in each configuration
that a GPU measures, and only the machine code is kept, with what Triton launches it by.
"""

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch.utils._python_dispatch import TorchDispatchMode
from triton import knobs
from triton.backends.nvidia import driver as nvidia
from triton.runtime import build

from alexnet import rng
from alexnet.training.steps import GraphStep
from alexnet_kernels import _choose, _operator
from alexnet_kernels.files import write_whole
from alexnet_kernels.gpu import choice, maps
from benchmarks import contestants
from kernel_benchmarks import instructions, operators, report, runner
from kernel_benchmarks.measure import DTYPES, LAYOUTS
from kernel_benchmarks.measure import Case as OperatorCase
from kernel_benchmarks.record import InputError

GROUP = "__grp__"  # the files of Triton's cache that say where a kernel's files are


# --- a GPU that is not there ---


class Launching(TorchDispatchMode):
    """Have operators run on tensors without memory the forms that they would on a GPU."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        if func.namespace == "alexnet_kernels":
            _operator.OPERATORS[func.overloadpacket.__name__].fill(results, *args)
        elif func is torch.ops.aten.convolution.default:
            results = as_cudnn(results, *args[:2])
        elif func is torch.ops.aten.convolution_backward.default and results[0] is not None:
            results = (as_cudnn(results[0], args[0], args[2]), *results[1:])
        return results


def as_cudnn(maps: Tensor, *inputs: Tensor) -> Tensor:
    """Maps in the memory format that cuDNN gives them, where torch's stand-in has them in planes:
    channels-last if one of the convolution's inputs is."""
    last = any(suggest_memory_format(x) == torch.channels_last for x in inputs)
    return maps.contiguous(memory_format=torch.channels_last) if last else maps


def every_form(key: tuple, *forms: Callable[[], object]) -> Callable[[], object]:
    """In the place of `choice.fastest`: runs all but the first, which it returns."""
    for form in forms[1:]:
        form()
    return forms[0]


@contextmanager
def pretending(arch: int) -> Iterator[list[Any]]:
    """Compile for `arch` what is launched within the block, and collect it: no GPU is asked."""
    with ExitStack() as stack:
        enter, kernels = stack.enter_context, list[Any]()
        launched = enter(instructions.compiling(arch))
        enter(patch.object(torch.Tensor, "is_cuda", property(lambda t: t.is_meta), create=True))
        enter(patch.object(_operator, "_on_device_of", lambda x: nullcontext()))
        enter(patch.object(_choose, "runs", lambda kind, device, dtype: kind == "triton"))
        enter(patch.object(choice, "fastest", every_form))
        enter(Launching())
        yield kernels
        kernels += [compiled for *_, compiled in launched]


def launchers(kernels: Sequence[Any]) -> None:
    """Compile the C code by which Triton launches kernels, where this version has some for each."""
    if not hasattr(nvidia, "make_launcher"):
        return
    with tempfile.TemporaryDirectory() as folder, stand_in(Path(folder)):
        nvidia.CudaUtils()
        for kernel in kernels:
            nvidia.CudaLauncher(kernel.src, kernel.metadata)


@contextmanager
def stand_in(folder: Path) -> Iterator[None]:
    """A library like the driver's, to link with; what is linked is loaded nowhere."""
    sources = [p.read_text() for p in Path(nvidia.__file__).parent.glob("driver.*")]
    names = {name for text in sources for name in re.findall(r"\bcu[A-Z]\w+", text)}
    (folder / "cuda.c").write_text("".join(f"void {name}(void) {{}}\n" for name in sorted(names)))
    library = folder / "libcuda.so.1"
    words = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library)]
    subprocess.run(["gcc", *words, str(folder / "cuda.c")], check=True)
    folders = [*map(str, (folder, Path(nvidia.__file__).parent / "lib"))]
    with (
        patch.object(build, "_load_module_from_path", lambda *path: Mock()),
        patch.object(nvidia, "library_dirs", lambda: folders),
    ):
        yield


# --- what is launched ---


@dataclass(frozen=True)
class Bare(OperatorCase):
    """An operator's case of tensors without memory."""

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.empty(shape, device="meta", dtype=DTYPES[self.dtype])

    def integers(self, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.empty(shape, device="meta", dtype=dtype)


Launch = tuple[str, Callable[[], object]]  # a name, and what launches


def launches(args: argparse.Namespace) -> Iterator[Launch]:
    """The steps of the first cases that a GPU is timed in, and all operators."""
    steps = [contestants.TINY] if args.tiny else contestants.GPU[:2]
    for case, dtype in itertools.product(steps, args.dtype):
        yield f"step, batch {case.batch}, {dtype}", partial(step, replace(case, precision=dtype))
    for module, dtype, layout in itertools.product(
        operators.OPERATORS.values(), args.dtype, args.layouts
    ):
        shapes = (module.TINY if args.tiny else module.SHAPES).items()
        fixed = getattr(module, "FIXED", {})
        batch = *fixed.get("batch", [32]), *fixed.get("layouts", [layout])
        for name, dims in shapes:
            case = Bare(module, name, dims, batch[0], dtype, batch[1:], "meta", torch.Generator())
            yield f"{case} {layout}", partial(operator, case)


def step(case: contestants.Case) -> None:
    """A whole step of the trainer."""
    learner, augment, ids = case.learner("meta"), case.augment(), torch.arange(case.batch)
    whole = GraphStep(learner, augment, case.batch)
    draw = augment.draw(ids, ids, 0)
    inputs = (case.noise("meta"), *draw[:3], ids, rng.key(rng.DROPOUT, 0, 0, ids))
    whole.inputs = [value.to("meta") for value in inputs]
    whole.compute(draw[3])


def operator(case: Bare) -> None:
    """Forward and backward of ours."""
    for entry in case.operator.entries(case):
        if entry.implementation == "ours":
            entry.once()


def prebuild(call: Callable[[], object], arch: int) -> list[Any]:
    """Compile what a call launches, in every configuration; the kernels."""
    kernels: list[Any] = []
    for _ in instructions.each_configuration():
        with pretending(arch) as some:
            call()
        kernels += some
    return kernels


# --- the cache ---


def work(args: argparse.Namespace) -> int:
    if maps.INTERPRETED:
        raise InputError("Triton's interpreter compiles nothing; unset TRITON_INTERPRET")
    knobs.cache.dir, knobs.compilation.store_binary_only = str(args.cache.resolve()), True
    found = Counter[bool]()
    knobs.compilation.listener = lambda *, cache_hit, **rest: found.update([cache_hit])
    began, total, kernels = time.perf_counter(), Counter[bool](), dict[str, Any]()
    lines = [["launched by ", "compiled", "found", "seconds"]]
    for name, call in launches(args):
        if args.only in name:
            kernels |= {kernel.hash: kernel for kernel in prebuild(call, args.arch)}
            counts = (found[False], found[True], round(time.perf_counter() - began))
            lines.append([name, *map(str, counts)])
            runner.log("  ".join(lines[-1]))
            total.update(found)
            found.clear()
    launchers(list(kernels.values()))
    print(report.table(lines))
    size = sum(path.stat().st_size for path in args.cache.rglob("*") if path.is_file())
    print(f"{total[False]} kernels compiled, {total[True]} found; {size / 2**20:.1f} MiB")
    return 0


def adopt(cache: Path) -> int:
    """Make a cache that came from elsewhere good here: it names its files by where they were.

    Returns:
        How many kernels it has.
    """
    groups = list(cache.glob(f"*/{GROUP}*"))
    for path in groups:
        names = json.loads(path.read_text())["child_paths"]
        own = {name: str(path.resolve().with_name(name)) for name in names}
        write_whole(path, json.dumps({"child_paths": own}))
    return len(groups)


def main(argv: Sequence[str] | None = None) -> int:
    form = runner.Parser("benchmarks.prebuild", __doc__)
    add = form.add_argument
    add(
        "--cache", type=Path, required=True, metavar="DIR", help="what it has is not compiled again"
    )
    add("--arch", type=int, default=90, help="compute capability times ten (default: %(default)s)")
    add("--dtype", choices=DTYPES, nargs="+", default=["bf16", "fp32"])
    add("--layouts", choices=LAYOUTS, nargs="+", default=["nhwc"], help="of the operators' maps")
    add("--only", default="", metavar="TEXT", help="what is launched by what has this in its name")
    add("--tiny", action="store_true", help="a rehearsal, of shapes that mean nothing")
    args = form.parse_args(argv)
    return runner.guarded(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
