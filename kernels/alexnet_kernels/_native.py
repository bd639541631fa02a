"""native.c, compiled by the system's C compiler when first needed, and called with tensors.

The library lies in a cache folder under a name that depends on the source, the compiler and the processor, so it is compiled once (a
second or two). Where there is no compiler, `library` returns None and the operators compute with torch alone.
"""

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("native.c")
# Neither reorders sums nor forgets NaN; square roots need not set errno, which would keep them out of vectors.
FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"]
POINTER, LONG, FLOAT, INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
RANGE = [LONG, LONG, INT]  # from, to, threads
FUNCTIONS = {  # arguments and result, as in native.c
    "local_response_norm": ([*[POINTER] * 4, *RANGE, *[LONG] * 4, *[FLOAT] * 3, INT, INT], INT),
    "same_map_norm": ([*[POINTER] * 3, *RANGE, *[LONG] * 3, *[FLOAT] * 3], INT),
    "max_pool": ([*[POINTER] * 3, *RANGE, *[LONG] * 5, INT], INT),
    "max_pool_backward": ([*[POINTER] * 3, *RANGE, *[LONG] * 5, INT], INT),
    "momentum_step": ([*[POINTER] * 6, *RANGE, FLOAT], INT),
    "keep_mask": ([*[POINTER] * 2, *RANGE, LONG, ctypes.c_int64], INT),
    "crop_flip_color": ([*[POINTER] * 6, *RANGE, *[LONG] * 3, FLOAT, INT, INT], INT),
}
PIECE = 1 << 15  # elements that are worth a thread


def cache_folder() -> Path:
    """Where compiled code and measured choices are kept: ALEXNET_CACHE, else the user's cache folder."""
    named = os.environ.get("ALEXNET_CACHE")
    return (
        Path(named)
        if named
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alexnet-kernels"
    )


def _processor() -> str:
    try:
        return next(
            line
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith(("flags", "Features"))
        )
    except (OSError, StopIteration):
        return platform.processor()


@cache
def library() -> ctypes.CDLL | None:
    """The compiled operators, or None where they cannot be had."""
    compiler = (
        shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    )
    if compiler is None:
        return None
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
        try:
            folder = cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            folder = Path(tempfile.mkdtemp(prefix="alexnet-kernels-"))
        for flags in ([*FLAGS, "-fopenmp"], FLAGS) if _has_libgomp() else (FLAGS,):
            key = sha256(
                repr(
                    (SOURCE.read_text(), flags, compiler, version, platform.machine(), _processor())
                ).encode()
            ).hexdigest()[:16]
            target = folder / f"native-{key}.so"
            part = folder / f"native-{key}.{os.getpid()}.part"
            if (
                target.exists()
                or not subprocess.run(
                    [compiler, *flags, "-o", part, SOURCE, "-lm"], capture_output=True
                ).returncode
            ):
                break
        if part.exists():
            part.replace(target)  # whole or not at all, however many processes compile at once
        found = ctypes.CDLL(str(target))
        for name, (arguments, result) in FUNCTIONS.items():
            function = getattr(found, name)
            function.argtypes, function.restype = arguments, result
        return found
    except (OSError, subprocess.CalledProcessError):
        return None


def _has_libgomp() -> bool:
    """Whether torch's threads are those of a libgomp that goes by this name, so that code which asks for it gets the same ones: threads of
    its own would find every core taken by torch's, which go on spinning for a while when they have nothing to do."""
    try:
        return any(
            line.rstrip().endswith("/libgomp.so.1")
            for line in Path("/proc/self/maps").read_text().splitlines()
        )
    except OSError:
        return False


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="alexnet-kernels")


os.register_at_fork(after_in_child=_threads.cache_clear)  # threads do not survive a fork


def share(call: Callable[[int, int, int], int], count: int, elements: int) -> None:
    """call(from, to, threads) over 0..count by as many threads as torch has: in one call where they are OpenMP's, else in pieces, from
    threads of our own (calls into C release the interpreter's lock). Raises MemoryError where one returns 0."""
    threads = max(1, min(torch.get_num_threads(), count, elements // PIECE))
    if threads == 1 or shares():
        results = [call(0, count, threads)]
    else:
        ends = [count * i // threads for i in range(threads + 1)]
        results = list(_threads(threads).map(call, ends[:-1], ends[1:], [1] * threads))
    if 0 in results:
        raise MemoryError("no memory for the operator's scratch")


@cache
def shares() -> bool:
    """Whether the library has OpenMP's threads. Only where there is a library."""
    return bool(INT.in_dll(library(), "shares").value)  # type: ignore[arg-type]


def call(name: str, *arguments) -> int:
    """A function of native.c. Only for operators that `library` exists for."""
    return getattr(library(), name)(*arguments)


def pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def is_last(x: Tensor) -> bool:
    """Channels-last in memory, and not planes at the same time."""
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def fits(*tensors: Tensor | None) -> bool:
    """All float32 on the CPU, and the maps among them dense in one layout: what native.c reads."""
    given = [x for x in tensors if x is not None]
    if any(x.device.type != "cpu" or x.dtype != torch.float32 for x in given):
        return False
    maps = [x for x in given if x.dim() == 4]
    planes = all(x.is_contiguous() for x in maps)
    return planes or all(x.is_contiguous(memory_format=torch.channels_last) for x in maps)
