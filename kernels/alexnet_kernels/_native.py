"""The C sources, compiled by the system's compiler when first needed, and called with tensors.

The library lies in a cache folder under a name that depends on the source, the compiler and the
processor, so it is compiled once (a second or two). Where there is no compiler, `library` returns
None and the operators compute with torch alone.
"""

import ctypes
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCES = [Path(__file__).with_name(name) for name in ("native.c", "bfloat16.h")]
# Neither reorders sums nor forgets NaN; square roots need not set errno, which would keep them out
# of vectors.
FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"]
# the types that the C is written for, and how the names of their functions end
SUFFIXES = {torch.float32: "", torch.bfloat16: "_bf16"}
PIECE = 1 << 15  # elements that are worth a thread


def cache_folder() -> Path:
    """Where compiled code and measured choices are kept: ALEXNET_CACHE, else the user's cache."""
    if named := os.environ.get("ALEXNET_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alexnet-kernels"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


def prototypes(source: str) -> dict[str, list[Any]]:
    """The types of the arguments of each function that the source offers: those not static."""
    types = {
        "long": ctypes.c_long,
        "int": ctypes.c_int,
        "float": ctypes.c_float,
        "int64_t": ctypes.c_int64,
    }
    return {
        name: [
            ctypes.c_void_p if "*" in argument else types[argument.split()[-2]]
            for argument in arguments.split(",")
        ]
        for name, arguments in re.findall(r"^int (\w+)\(([^)]*)\) \{", source, re.MULTILINE)
    }


@cache
def library() -> ctypes.CDLL | None:
    """The compiled operators, or None where they cannot be had."""
    preferred = os.environ.get("CC") or "cc"
    compiler = shutil.which(preferred) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    try:
        source = "".join(path.read_text() for path in SOURCES)
        compiled = ctypes.CDLL(str(_compile(compiler, source)))
        for name, types in prototypes(source).items():
            getattr(compiled, name).argtypes = types
        return compiled
    except (OSError, subprocess.CalledProcessError):
        return None


def _compile(compiler: str, source: str) -> Path:
    """Compile the source, if that was not done before. Returns the library's path."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="alexnet-kernels-"))
    usual = FLAGS + shlex.split(os.environ.get("ALEXNET_CFLAGS", ""))
    for flags in ([*usual, "-fopenmp"], usual) if _has_libgomp() else (usual,):
        facts = source, flags, compiler, version, platform.machine(), _processor()
        key = sha256(repr(facts).encode()).hexdigest()[:16]
        target = folder / f"native-{key}.so"
        part = folder / f"native-{key}.{os.getpid()}.part"
        if target.exists():
            break
        command = [compiler, *flags, "-o", str(part), str(SOURCES[0]), "-lm"]
        if subprocess.run(command, capture_output=True).returncode == 0:
            break
    if part.exists():
        part.replace(target)  # whole or not at all, however many processes compile at once
    return target


def _has_libgomp() -> bool:
    """Whether torch's threads are those of a libgomp that goes by this name.

    Code that asks for it then gets the same ones. Threads of its own would find every core taken by
    torch's, which go on spinning for a while when they have nothing to do.
    """
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
        return any(line.rstrip().endswith("/libgomp.so.1") for line in lines)
    except OSError:
        return False


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="alexnet-kernels")


os.register_at_fork(after_in_child=_threads.cache_clear)  # threads do not survive a fork


@cache
def shares() -> bool:
    """Whether the library has OpenMP's threads. Only where there is a library."""
    return bool(ctypes.c_int.in_dll(library(), "shares").value)  # type: ignore[arg-type]


def run(name: str, tensors: tuple[Any, ...], count: int, *settings: float) -> None:
    """Call a function of native.c, by as many threads as torch has.

    With OpenMP one call has all threads; else pieces of the range go to threads of our
    own, for calls into C release the interpreter's lock.

    Args:
        name: of the function, whose arguments are `tensors`, (begin, end, threads), `settings`.
        tensors: dense ones, None for a null pointer, or ctypes arrays.
        count: how many there are of what the function shares out, its outermost index.
        settings: the rest.

    Raises:
        MemoryError: where the function has no memory for its scratch.
    """
    function = getattr(library(), name)
    pointers = [t.data_ptr() if isinstance(t, Tensor) else t for t in tensors]
    elements = max([count, *(t.numel() for t in tensors if isinstance(t, Tensor))])
    threads = max(1, min(torch.get_num_threads(), count, elements // PIECE))

    def call(begin: int, end: int, threads: int) -> int:
        return function(*pointers, begin, end, threads, *settings)

    if threads == 1 or shares():
        results = [call(0, count, threads)]
    else:
        ends = [count * i // threads for i in range(threads + 1)]
        results = list(_threads(threads).map(call, ends[:-1], ends[1:], [1] * threads))
    if 0 in results:
        raise MemoryError("no memory for the operator's scratch")


def fits(*given: Any, types: Collection[torch.dtype] = (torch.float32,)) -> bool:
    """Whether C reads the floating-point tensors among `given`.

    They must be of one of the types, on the CPU, and the maps dense in one layout.
    """
    tensors = [x for x in given if isinstance(x, Tensor) and x.is_floating_point()]
    if any(x.device.type != "cpu" for x in tensors):
        return False
    if len({x.dtype for x in tensors}) > 1 or any(x.dtype not in types for x in tensors):
        return False
    maps = [x for x in tensors if x.dim() == 4]
    planes = all(x.is_contiguous() for x in maps)
    return planes or all(x.is_contiguous(memory_format=torch.channels_last) for x in maps)


def fits_either(*given: Any) -> bool:
    """The same for operators whose C is written for float32 and for bfloat16."""
    return fits(*given, types=SUFFIXES)
