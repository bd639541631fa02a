"""What works with the base installation alone, and what a command says that needs an extra."""

import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from alexnet.errors import InputError, needs

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Runs commands, one a line of the standard input, in a process that has no optional package.
BLOCKED = """
import shlex, sys
OPTIONAL = set(sys.argv[1].split(","))

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *more):
        if name.partition(".")[0] not in OPTIONAL:
            return self.finder.find_spec(name, *more)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import alexnet
from alexnet import AlexNet, cli

assert not OPTIONAL & {name.partition(".")[0] for name in sys.modules}
for line in sys.stdin:
    try:
        status = cli.main(shlex.split(line))
    except SystemExit as end:
        status = end.code
    print("status", status, flush=True)
"""
OPTIONAL = (
    "matplotlib,scipy,sklearn,skimage,cv2,torchvision,tensorboard,onnx,onnxscript,onnxruntime,"
    "psutil,papermill,nbformat,jupyter_book,jupyter_cache,ipykernel,IPython,pytest,hypothesis,google"
)


def run(*lines: str) -> list[tuple[int, str]]:
    """The exit status of each command, and all that was printed up to it."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, OPTIONAL],
        input="\n".join(lines),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    parts = done.stdout.split("status ")
    assert done.returncode == 0 and len(parts) == len(lines) + 1, done.stdout
    return [(int(after.split("\n")[0]), said) for said, after in pairwise(parts)]


def test_the_base_installation_prepares_trains_and_evaluates(packs32, tmp_path):
    images, four = packs32.parent / "images", "--preset four-layer --width 0.25 --steps 2"
    done = run(
        "--help",
        "--version",
        f"prepare {images} {tmp_path}/pack --size 32 --workers 1",
        f"train --data {tmp_path}/pack --out {tmp_path}/run {four} --batch-size 8 --device cpu",
        f"evaluate {tmp_path}/run --data {tmp_path}/pack --views 10 --device cpu",
        f"export {tmp_path}/run {tmp_path}/net.safetensors",
        "claims",
        f"predict {tmp_path}/run {images}/test --device cpu",
    )
    assert [status for status, _ in done] == [0] * len(done), done
    assert f"alexnet {PROJECT['version']}" in done[1][1] and "top-1 error" in done[4][1]
    assert "arithmetic and records: " in done[6][1] and "probability" in done[7][1]
    assert (tmp_path / "run" / "log.jsonl").is_file()
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_what_needs_an_extra_names_it(packs32, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "runs"))
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"")
    for kind in ("caffemodel", "onnx"):
        (tmp_path / f"net.{kind}").write_bytes(b"weights")
    said = run(
        f"import {tmp_path}/net.caffemodel {tmp_path}/out",
        f"import {tmp_path}/net.onnx {tmp_path}/out",
        f"prepare {tmp_path} {tmp_path}/out",
        f"prepare torchvision:CIFAR100:{tmp_path} {tmp_path}/out",
        f"prepare pictographs {tmp_path}/out --workers 1",
        "reproduce --only recipe",
        "reproduce --only what-they-really-did",
        f"predict {tmp_path}/net.onnx {packs32.parent}/images/test --device cpu",
    )
    assert [status for status, _ in said] == [2] * len(said), said
    extras = (
        "[export]",
        "[export]",
        "[datasets]",
        "[datasets]",
        "[experiments]",
        "[experiments]",
        "[book]",
    )
    for (_, text), extra in zip(said, (*extras, "[export]"), strict=True):
        assert extra in text.splitlines()[-1] and "Traceback" not in text, text
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("runs/**/.*"))


def test_a_module_that_draws_names_its_extra():
    code = BLOCKED.partition("for line in")[0] + "import alexnet.experiments.figure2"
    command = [sys.executable, "-c", code, OPTIONAL]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (
        "drawing Figure 2 needs matplotlib: pip install 'alexnet-reproduced[figures]'"
        in (done.stderr.splitlines()[-1])
    )


def test_an_extra_is_named_for_what_is_missing_only():
    assert needs("json", extra="figures", what="drawing").loads("1") == 1
    with pytest.raises(InputError, match=r"drawing needs nowhere: .*alexnet-reproduced\[figures\]"):
        needs("nowhere.at_all", extra="figures", what="drawing")
    with pytest.raises(ModuleNotFoundError, match=r"alexnet\.nowhere"):  # a mistake of ours
        needs("alexnet.nowhere", extra="figures", what="drawing")


def test_every_extra_that_is_named_exists():
    extras, named = PROJECT["optional-dependencies"], set()
    for path in (ROOT / "alexnet").rglob("*.py"):
        text = path.read_text()
        named |= {name for name in extras if f'extra="{name}"' in text}
        assert text.count('extra="') == sum(text.count(f'extra="{name}"') for name in extras), path
    assert {"figures", "datasets", "experiments"} <= named
