"""Checkpoints: a folder with one safetensors file per column (weights and velocities), `state.json`, and `manifest.json` with every file's
SHA-256.

Written under a temporary name and renamed when whole, so that a kill at any moment leaves the last good one. Nothing is pickled, nothing
read is executed.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from alexnet.errors import InputError

PREFIX = "step-"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(folder: Path, step: int, columns: dict[str, dict[str, Tensor]], state: dict, keep: int = 2) -> Path:
    """Writes `folder/step-<step>` and removes all but the last `keep`. columns: {"0": {"conv1.weight": ..., "velocity.conv1.weight":
    ...}}."""
    final = folder / f"{PREFIX}{step:09d}"
    if final.exists():
        return final
    part = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for number, tensors in columns.items():
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part / f"column-{number}.safetensors")
    (part / "state.json").write_text(json.dumps(state, indent=1))
    files = {path.name: sha256(path) for path in sorted(part.iterdir())}
    (part / "manifest.json").write_text(json.dumps({"step": step, "sha256": files}, indent=1))
    for path in part.iterdir():  # the bytes, before the name that vouches for them
        with path.open("rb") as file:
            os.fsync(file.fileno())
    part.rename(final)
    for old in steps(folder)[:-keep]:
        shutil.rmtree(old)
    for stale in folder.glob(f".{PREFIX}*"):
        shutil.rmtree(stale, ignore_errors=True)
    return final


def steps(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(folder.glob(f"{PREFIX}*"))


def load(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict]:
    """The columns' tensors and the state. Raises InputError that names a missing or changed file."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        manifest = None
    if not isinstance(manifest, dict) or "state.json" not in manifest:
        raise InputError(f"{path / 'manifest.json'} is missing or damaged; remove {path} to go on from the checkpoint before it")
    for name, digest in manifest.items():
        if not (path / name).is_file() or sha256(path / name) != digest:
            raise InputError(f"{path / name} is missing or damaged; remove {path} to go on from the checkpoint before it")
    columns = {name[len("column-") : -len(".safetensors")]: load_file(path / name) for name in manifest if name.startswith("column-")}
    return columns, json.loads((path / "state.json").read_text())
