"""C that is compiled on the spot: once, anywhere, with torch's threads or our own."""

import ctypes
import os
import platform
import pwd
import subprocess
import tempfile
import threading
import warnings
from pathlib import Path

import pytest
from references import run

import alexnet_kernels as kernels
from alexnet_kernels import _native

SMALL = "import torch, alexnet_kernels as k; k.max_pool(torch.ones(1, 8, 5, 5)); "


def test_prototypes_are_read_from_the_source():
    prototypes = _native.prototypes("".join(path.read_text() for path in _native.SOURCES))
    pointer, long = ctypes.c_void_p, ctypes.c_long
    shared = [long, long, ctypes.c_int]
    settings = [long, long, ctypes.c_int64, ctypes.c_int]
    assert prototypes["keep_mask"] == [pointer, pointer, pointer, *shared, *settings]
    assert prototypes["same_map_norm"][-3:] == [ctypes.c_float] * 3
    assert all(types[types.index(long) :][:3] == shared for types in prototypes.values())


@pytest.mark.slow
def test_many_processes_compile_at_once_and_one_library_is_left(tmp_path):
    runs = []

    def compile_in_a_process():
        runs.append(run(SMALL, ALEXNET_CACHE=str(tmp_path)))

    threads = [threading.Thread(target=compile_in_a_process) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [r.returncode for r in runs] == [0] * 3, runs
    assert len(list(tmp_path.glob("native-*.so"))) == 1 and not list(tmp_path.glob("*.part"))


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads the library anew, compiled quickly; gives its path, or why there is none.

    The cache is tmp_path/cache, and temporary files lie in tmp_path/tmp.
    """
    monkeypatch.setattr(_native, "FLAGS", ["-O0", "-shared", "-fPIC"])
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()

    def load() -> str:
        library, problem = _native._loaded.__wrapped__()
        return library._name if library else problem

    return load


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("CC", "sh -c 'echo cc: error: no room >&2; exit 1'", "fails: cc: error: no room"),
        ("CC", "false", "the compiler false fails: exit status 1"),
        ("CC", "true", "No such file"),  # it succeeds, and makes nothing
        ("ALEXNET_CFLAGS", "-no-such-flag", "-no-such-flag"),
        ("ALEXNET_CFLAGS", "-fvisibility=hidden", "undefined symbol"),
        ("ALEXNET_CFLAGS", "'-O2", "No closing quotation"),
    ],
)
def test_without_a_library_the_reason_is_said(name, value, reason, load, tmp_path, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.warns(RuntimeWarning, match="torch alone is slower") as warned:
        assert reason in load()
    assert len(warned) == 1 and reason in str(warned[0].message)
    assert not list(tmp_path.glob("*/*.part"))
    monkeypatch.setattr(_native, "_loaded", lambda: (None, reason))
    impossible = f"mode native is not possible: {reason}"
    with pytest.raises(kernels.ModeError, match=impossible), kernels.using("native"):
        pass


def test_a_compiler_may_have_options(load, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "cc -O0")
    assert load().startswith(str(tmp_path / "cache"))


def test_a_damaged_library_is_compiled_again(load, tmp_path):
    whole = Path(load())
    code = whole.read_bytes()
    for damaged in (b"", code[: len(code) // 2], code[:-1] + b"?"):
        whole.unlink()  # another file: this one is in use
        whole.write_bytes(damaged)
        assert load() == str(whole)
        assert [path.read_bytes() for path in (tmp_path / "cache").iterdir()] == [code]


def full(monkeypatch):
    def write(path, content, write=_native.write_whole):
        if path.parent.name == "cache":
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(_native, "write_whole", write)


def closed_to_programs(monkeypatch):
    def load(path, load=ctypes.CDLL):
        if "/cache/" in path:
            raise OSError(f"{path}: failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(ctypes, "CDLL", load)


def homeless(monkeypatch):
    def getpwuid(user):
        raise KeyError(user)

    for name in ("HOME", "ALEXNET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", getpwuid)


def a_file(monkeypatch):
    Path(os.environ["ALEXNET_CACHE"]).touch()


@pytest.mark.parametrize("spoil", [full, closed_to_programs, homeless, a_file])
def test_a_useless_cache_gives_way_to_one_folder_of_the_user(spoil, load, tmp_path, monkeypatch):
    spoil(monkeypatch)
    with pytest.warns(UserWarning, match=f"{tmp_path}.*ALEXNET_CACHE may name a folder"):
        first = Path(load())
    fallback = tmp_path / "tmp" / f"alexnet-kernels-{os.getuid()}"
    assert first.parent == fallback and fallback.stat().st_mode & 0o777 == 0o700
    made = first.stat().st_mtime_ns
    with pytest.warns(UserWarning):
        assert load() == str(first) and first.stat().st_mtime_ns == made  # not compiled again
    assert list((tmp_path / "tmp").iterdir()) == [fallback]
    fallback.chmod(0o755)  # others may have put something there
    with pytest.warns(Warning):
        assert "is not this user's alone" in load()


def test_a_cache_may_be_named_with_a_tilde_and_be_read_only(load, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_CACHE", "~/c d/cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    first = load()
    assert Path(first).parent == tmp_path / "c d" / "cache"
    full(monkeypatch)
    with warnings.catch_warnings(action="error"):
        assert load() == first


BITS = """
import hashlib, torch, alexnet_kernels as kernels
from alexnet_kernels import _native
torch.set_num_threads(2)
PLACE
generator = torch.Generator().manual_seed(0)
x = (50 * torch.randn(8, 32, 31, 31, generator=generator)).requires_grad_()
kernels.response_norm_pool(x, torch.ones(32)).square().sum().backward()
mapped = {line.split()[-1] for line in open('/proc/self/maps') if 'libgomp' in line}
print(_native.shares(), len(mapped), hashlib.sha256(x.grad.numpy().tobytes()).hexdigest())
"""


def test_threads_are_torchs_own_or_ours_and_the_bits_are_the_same(tmp_path):
    cache = {"ALEXNET_CACHE": str(tmp_path)}
    theirs = run(BITS.replace("PLACE", ""), **cache).stdout.split()
    without = BITS.replace("PLACE", "_native._has_libgomp = lambda: False")
    ours = run(without, **cache).stdout.split()
    assert ours[0] == "False" and ours[2] == theirs[2]
    if _native._has_libgomp():  # torch's by another name, or none: then ours
        assert theirs[:2] == ["True", "1"]


FORK = """
import os, torch, alexnet_kernels as kernels
torch.set_num_threads(2)
x = torch.ones(8, 32, 31, 31)
kernels.max_pool(x)
child = os.fork() == 0
if child:
    torch.set_num_threads(1)
kernels.max_pool(x)
if child:
    os._exit(0)
print(os.wait()[1])
"""


@pytest.mark.slow
def test_threads_survive_a_fork():
    assert run(FORK).stdout == "0\n"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names instruction sets of x86-64")
@pytest.mark.parametrize("march", ["x86-64-v3", "x86-64"], ids=["AVX2", "plain"])
def test_every_instruction_set_computes_the_same(march, tmp_path):
    """The tests that all operators share, without AVX-512, and without any vectors but SSE2."""
    tests = Path(__file__).parent
    files = [str(tests / f"test_{name}.py") for name in ("operators", "response_norm_pool")]
    options = ["-q", "-p", "no:cacheprovider", "-k", "native", *files]
    environment = {"ALEXNET_CFLAGS": f"-march={march}", "ALEXNET_CACHE": str(tmp_path)}
    done = run("pytest", *options, **environment)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("openmp", [[], ["-fopenmp"]], ids=["alone", "openmp"])
def test_the_source_compiles_without_warnings(openmp, tmp_path):
    flags = [*_native.FLAGS, *openmp, "-Wall", "-Wextra", "-Werror", "-std=c99"]
    command = ["cc", *flags, "-o", str(tmp_path / "a.so"), str(_native.SOURCES[0]), "-lm"]
    subprocess.run(command, check=True)
