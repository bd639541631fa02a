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
RANGE = [LONG, LONG]
FUNCTIONS = {  # arguments and result, as in native.c
    "local_response_norm": ([*[POINTER] * 4, *RANGE, *[LONG] * 4, *[FLOAT] * 3, INT, INT], INT),
    "same_map_norm": ([*[POINTER] * 3, *RANGE, *[LONG] * 3, *[FLOAT] * 3], INT),
    "max_pool": ([*[POINTER] * 3, *RANGE, *[LONG] * 5, INT], INT),
    "max_pool_backward": ([*[POINTER] * 3, *RANGE, *[LONG] * 5, INT], None),
    "momentum_step": ([*[POINTER] * 3, *RANGE, *[FLOAT] * 3], None),
    "crop_flip_color": ([*[POINTER] * 6, *RANGE, *[LONG] * 3, FLOAT, INT, INT], None),
}
PIECE = 1 << 15  # elements that are worth a thread


def cache_folder() -> Path:
    """Where compiled code and measured choices are kept: ALEXNET_CACHE, else the user's cache folder."""
    named = os.environ.get("ALEXNET_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alexnet-kernels"


def _processor() -> str:
    try:
        return next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


@cache
def library() -> ctypes.CDLL | None:
    """The compiled operators, or None where they cannot be had."""
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
        key = sha256(repr((SOURCE.read_text(), FLAGS, compiler, version, platform.machine(), _processor())).encode()).hexdigest()[:16]
        try:
            folder = cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            folder = Path(tempfile.mkdtemp(prefix="alexnet-kernels-"))
        target = folder / f"native-{key}.so"
        if not target.exists():
            part = folder / f"native-{key}.{os.getpid()}.part"
            subprocess.run([compiler, *FLAGS, "-o", part, SOURCE, "-lm"], capture_output=True, check=True)
            part.rename(target)  # whole or not at all, however many processes compile at once
        found = ctypes.CDLL(str(target))
        for name, (arguments, result) in FUNCTIONS.items():
            function = getattr(found, name)
            function.argtypes, function.restype = arguments, result
        return found
    except (OSError, subprocess.CalledProcessError):
        return None


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="alexnet-kernels")


os.register_at_fork(after_in_child=_threads.cache_clear)  # threads do not survive a fork


def share(call: Callable[[int, int], int | None], count: int, elements: int) -> None:
    """call(from, to) over 0..count in as many pieces as torch has threads; calls into C release the interpreter's lock. Raises MemoryError
    where one returns 0."""
    pieces = max(1, min(torch.get_num_threads(), count, elements // PIECE))
    ends = [count * i // pieces for i in range(pieces + 1)]
    if pieces == 1:
        results = [call(0, count)]
    else:
        results = list(_threads(pieces).map(call, ends[:-1], ends[1:]))
    if 0 in results:
        raise MemoryError("no memory for the operator's scratch")


def call(name: str, *arguments) -> int | None:
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
