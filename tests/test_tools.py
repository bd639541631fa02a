"""What a mode of training needs is known before a folder is made."""

import shlex
import subprocess
import sys

import pytest

from alexnet import cli
from alexnet.errors import InputError
from alexnet.training import tools

FOUR = "--preset four-layer --width 0.25 --batch-size 8 --steps 1 --device cpu"
KERNELS = "import sys; from alexnet import cli; sys.exit(cli.main(sys.argv[1:]))"


def compiler(folder, error):
    """A compiler that fails with an error, or has nothing to say."""
    file = folder / "a compiler"
    lines = f"echo '{error}' >&2; exit 1" if error else "exit 0"
    file.write_text(f"#!/bin/sh\ncat >/dev/null\n{lines}\n")
    file.chmod(0o700)
    return shlex.quote(str(file))


def test_this_machine_or_its_lack_is_known(tmp_path, monkeypatch):
    tools.check("plain", "cpu")
    monkeypatch.setenv("CXX", compiler(tmp_path, ""))
    for mode in ("compiled", "compiled-graph"):
        tools.check(mode, "cpu")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("<stdin>:1:10: fatal error: Python.h: No such file", r"needs Python's headers.*-dev\)"),
        ("<stdin>:2:10: fatal error: vector: No such file", r"fails \(.*vector.*\); install g\+\+"),
        ("cc1plus is missing", r"fails; install g\+\+"),
    ],
)
def test_a_compiler_without_headers_is_named_and_leaves_no_folder(
    packs32, tmp_path, monkeypatch, capsys, error, said
):
    monkeypatch.setenv("CXX", compiler(tmp_path, error))
    train = ["train", "--data", str(packs32), "--out", str(tmp_path / "run"), *FOUR.split()]
    assert cli.main([*train, "--mode", "compiled"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "use the mode plain" in message
    with pytest.raises(InputError, match=said):
        tools.check("compiled", "cpu")
    assert not (tmp_path / "run").exists()
    assert cli.main([*train, "--mode", "plain"]) == 0


@pytest.mark.parametrize("cxx", ["no-such-compiler", "'open quotation"])
def test_no_compiler_is_named(monkeypatch, cxx):
    monkeypatch.setenv("CXX", cxx)
    for mode in ("compiled", "compiled-graph"):
        with pytest.raises(InputError, match=f"mode {mode} needs .* there is no {cxx}; install"):
            tools.check(mode, "cpu")


@pytest.mark.parametrize(
    ("mode", "said"), [("triton", "needs a CUDA device"), ("typo", "must be one of auto, triton")]
)
def test_operators_that_cannot_run_leave_no_folder(packs32, tmp_path, mode, said):
    train = ["train", "--data", packs32, "--out", tmp_path / "run", *FOUR.split()]
    environment = {"ALEXNET_KERNELS": mode, "PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-c", KERNELS, *train], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2 and not (tmp_path / "run").exists(), done.stderr
    (line,) = done.stderr.splitlines()
    assert said in line
