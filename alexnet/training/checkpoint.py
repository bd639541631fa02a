"""Checkpoints: a folder with one safetensors file per column (weights and velocities), `state.json`, and `manifest.json` with every file's
SHA-256.

Written under a temporary name and renamed when whole, so that a kill at any moment leaves the last good one; and by a thread, while
training goes on. Columns that live on several ranks are written side by side into one folder, which all ranks must see, and rank 0 gives it
its name. Nothing is pickled, nothing read is executed.
"""

import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from alexnet.errors import InputError
from alexnet.files import flush

PREFIX = "step-"
Columns = dict[str, dict[str, Tensor]]  # {"0": {"conv1.weight": ..., "velocity.conv1.weight": ...}}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises what keeps the block from writing `path` as an OSError that names it and the remedy."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"cannot write {path}: {reason}; make room, and the same command with --resume goes on"
        ) from error


class Writer:
    """Writes a run's checkpoints, one at a time. `save` copies the tensors and returns; a thread does the rest.

    names: the columns of the whole net; those of them that this process does not save, other ranks do. attempt: one word that all ranks
    agree on and no earlier process used. keep: how many checkpoints stay.
    """

    def __init__(
        self, folder: Path, names: Collection[str], attempt: str, first: bool = True, keep: int = 2
    ):
        self.folder, self.names, self.attempt, self.first, self.keep = (
            folder,
            names,
            attempt,
            first,
            keep,
        )
        self._thread: threading.Thread | None = None
        self._failure: OSError | SafetensorError | None = None
        self._written, self._given_up = threading.Event(), threading.Event()

    def save(self, step: int, columns: Columns, state: dict) -> None:
        """columns: those of this process; state: as JSON has it, the same on all ranks. Waits for the checkpoint before this one."""
        self.wait()
        final = self.folder / f"{PREFIX}{step:09d}"
        if final.exists():
            return
        copies = {
            number: {
                name: tensor.detach().to("cpu", copy=True).contiguous()
                for name, tensor in own.items()
            }
            for number, own in columns.items()
        }
        self._written.clear()
        self._thread = threading.Thread(
            target=self._write, args=(final, copies, state), name="checkpoint", daemon=True
        )
        self._thread.start()

    def failed(self, wait: bool = False) -> bool:
        """Whether this process could not write its part; with `wait`, once it has written it or could not."""
        if wait and self._thread is not None:
            self._written.wait()
        return self._failure is not None

    def wait(self) -> None:
        """Until the checkpoint is on disk, other ranks' parts included. Raises OSError, with the remedy, where it could not be written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            last = steps(self.folder)
            kept = (
                f"{last[-1].name} is kept: make room, and --resume goes on from there"
                if last
                else "make room, and --resume begins anew"
            )
            reason = getattr(self._failure, "strerror", None) or self._failure
            raise OSError(
                f"cannot write a checkpoint to {self.folder}: {reason}; {kept}"
            ) from self._failure

    def give_up(self) -> None:
        """Ends the wait for other ranks' parts: they could not write them."""
        self._given_up.set()

    def _write(self, final: Path, columns: Columns, state: dict) -> None:
        part = self.folder / f".{final.name}.{self.attempt}"
        try:
            part.mkdir(parents=True, exist_ok=True)
            for number, tensors in columns.items():
                unnamed = part / f"column-{number}.part"
                save_file(tensors, unnamed)
                flush(unnamed)
                unnamed.rename(part / f"column-{number}.safetensors")
            self._written.set()
            if self.first:
                self._finish(part, final, state)
        except (OSError, SafetensorError) as failure:
            self._failure = failure
            for path in part.glob("column-*"):  # make room, but leave to other ranks what is theirs
                if path.name.split(".")[0].removeprefix("column-") in columns:
                    path.unlink(missing_ok=True)
        finally:
            self._written.set()

    def _finish(self, part: Path, final: Path, state: dict) -> None:
        """Waits for all columns, adds the state and the manifest, and gives the folder its name."""
        columns = [part / f"column-{number}.safetensors" for number in self.names]
        while not all(path.exists() for path in columns):
            if self._given_up.wait(0.02):
                return
        (part / "state.json").write_text(json.dumps(state, indent=1))
        files = {path.name: sha256(path) for path in sorted([*columns, part / "state.json"])}
        (part / "manifest.json").write_text(
            json.dumps({"step": state["step"], "sha256": files}, indent=1)
        )
        for name in ("state.json", "manifest.json"):
            flush(part / name)
        part.rename(final)
        flush(self.folder)
        for old in steps(self.folder)[: -self.keep]:
            shutil.rmtree(old)
        for stale in self.folder.glob(f".{PREFIX}*"):
            if (
                stale.name[1 : len(final.name) + 1] <= final.name
            ):  # a later one may be under way on another rank
                shutil.rmtree(stale, ignore_errors=True)


def save(folder: Path, step: int, columns: Columns, state: dict, keep: int = 2) -> Path:
    """Writes `folder/step-<step>` at once, and removes all but the last `keep`."""
    writer = Writer(folder, columns.keys(), f"{os.getpid()}-{time.monotonic_ns()}", keep=keep)
    writer.save(step, columns, state)
    writer.wait()
    return folder / f"{PREFIX}{step:09d}"


def steps(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(folder.glob(f"{PREFIX}*"))


def load(path: Path, numbers: Collection[str] | None = None) -> tuple[Columns, dict]:
    """The tensors of the columns `numbers` (None: of all) and the state. Raises InputError that names a missing, changed or strange
    file."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        manifest = None
    instead = f"remove {path} to go on from the checkpoint before it"
    if not isinstance(manifest, dict) or "state.json" not in manifest:
        raise InputError(f"{path / 'manifest.json'} is missing or damaged; {instead}")
    for name in manifest:
        if not re.fullmatch(
            r"state\.json|column-\d+\.safetensors", name
        ):  # nothing outside the folder is so much as read
            raise InputError(
                f"{path / 'manifest.json'} names {name!r}, which no checkpoint holds; {instead}"
            )
    wanted = (
        list(manifest)
        if numbers is None
        else ["state.json", *(f"column-{number}.safetensors" for number in numbers)]
    )
    for name in wanted:
        if not (path / name).is_file() or sha256(path / name) != manifest.get(name):
            raise InputError(f"{path / name} is missing or damaged; {instead}")
    columns: Columns = {}
    for name in wanted:
        try:
            if name == "state.json":
                state = json.loads((path / name).read_text())
            else:
                columns[name[len("column-") : -len(".safetensors")]] = load_file(path / name)
        except (ValueError, SafetensorError) as error:
            raise InputError(
                f"{path / name} is not what a checkpoint holds ({error}); {instead}"
            ) from None
    if not isinstance(state, dict):
        raise InputError(f"{path / 'state.json'} is not what a checkpoint holds; {instead}")
    return columns, state
