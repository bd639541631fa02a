"""The C sources, compiled by the system's compiler when first needed, and called with tensors.

The library lies in a cache folder under a name that depends on the source, the compiler, the
processor and its own bytes, so it is compiled once (a second or two), and again when it is damaged.
Where there is no compiler, `library` returns None and the operators compute with torch alone.
"""

import ctypes
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet_kernels import machine
from alexnet_kernels.files import cache_folders, digest, write_whole

SOURCES = [Path(__file__).with_name(name) for name in ("native.c", "bfloat16.h")]
# Neither reorders sums nor forgets NaN; square roots need not set errno, which would keep them out
# of vectors.
FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"]
# the types that the C is written for, and how the names of their functions end
SUFFIXES = {torch.float32: "", torch.bfloat16: "_bf16"}
PIECE = 1 << 15  # elements that are worth a thread


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


def library() -> ctypes.CDLL | None:
    """The compiled operators, or None where they cannot be had."""
    return _loaded()[0]


def why_not() -> str:
    """Why there is no library; "" where there is one."""
    return _loaded()[1]


@cache
def _loaded() -> tuple[ctypes.CDLL | None, str]:
    candidates = shlex.split(os.environ.get("CC", "")) or ["cc"], ["gcc"], ["clang"]
    compiler = next((words for words in candidates if shutil.which(words[0])), None)
    if compiler is None:
        return None, "there is no C compiler (cc, gcc or clang) on the PATH"
    try:
        return _load(compiler), ""
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: an open quotation
        slower = f"the operators in C are missing, and torch alone is slower: {error}"
        warnings.warn(slower, RuntimeWarning, stacklevel=2)
        return None, str(error)


def _load(compiler: list[str]) -> ctypes.CDLL:
    """The library from a cache folder, or compiled and kept in one."""
    source = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    version = _output(compiler, "--version")
    usual = FLAGS + shlex.split(os.environ.get("ALEXNET_CFLAGS", ""))
    processor = machine.cpuinfo("flags") or machine.cpuinfo("Features") or platform.processor()
    choices = {}
    for flags in ([*usual, "-fopenmp"], usual) if _has_libgomp() else (usual,):
        facts = source, flags, compiler, version, platform.machine(), processor
        choices[f"native-{digest(repr(facts))}"] = flags
    compiled, problems = None, []
    for folder in cache_folders():
        try:
            if (path := _kept(folder, choices)) is None:
                compiled = compiled or _compile(compiler, choices)
                path = folder / f"{compiled[0]}-{digest(compiled[1])}.so"
                folder.mkdir(parents=True, exist_ok=True)
                write_whole(path, compiled[1])
            opened = _open(path, source)
        except OSError as error:
            problems.append(f"{folder}: {error.strerror or error}")
            continue
        if problems:
            elsewhere = f"no compiled code can be kept in {problems[0]}; it is kept in {folder}"
            warnings.warn(f"{elsewhere}. ALEXNET_CACHE may name a folder", stacklevel=4)
        return opened
    raise OSError("; ".join(problems))


def _kept(folder: Path, stems: Iterable[str]) -> Path | None:
    """A library that was compiled before, and is what its name says; damaged ones are removed."""
    for path in (path for stem in stems for path in folder.glob(f"{stem}-*.so")):
        if path.stem.endswith(digest(path.read_bytes())):
            return path
        with suppress(OSError):
            path.unlink()
    return None


def _compile(compiler: list[str], choices: dict[str, list[str]]) -> tuple[str, bytes]:
    """The first that the compiler can make of several choices of flags: its name, and the code."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "native.so")
        for stem, flags in choices.items():
            try:
                _output(compiler, *flags, "-o", str(target), str(SOURCES[0]), "-lm")
                return stem, target.read_bytes()
            except (RuntimeError, FileNotFoundError) as error:
                problem = error
    raise RuntimeError(problem)


def _output(compiler: list[str], *arguments: str) -> str:
    """What the compiler prints. Raises RuntimeError with its first error where it fails."""
    command = [*compiler, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        reason = next(iter(lines), f"exit status {done.returncode}")
        raise RuntimeError(f"the compiler {shlex.join(compiler)} fails: {reason}")
    return done.stdout


def _open(path: Path, source: str) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    try:
        ctypes.c_int.in_dll(library, "shares")
        for name, types in prototypes(source).items():
            getattr(library, name).argtypes = types
    except (AttributeError, ValueError) as error:
        raise RuntimeError(f"{error}; see ALEXNET_CFLAGS") from None
    return library


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

    Args:
        given: Arguments of an operator; what is no tensor is passed over.
        types: Those that the C code reads.
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
