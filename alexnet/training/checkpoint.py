"""Checkpoints: folders with one safetensors file per column, `state.json` and `manifest.json`.

A column's file holds its weights, velocities and buffers; the manifest holds every file's SHA-256.
A checkpoint is written under a temporary name and renamed when whole, so that a kill at any moment
leaves the last good one; a thread writes it while training goes on. Columns that live on several
ranks are written side by side into one folder, which all ranks must see, and rank 0 gives it its
name. Nothing is pickled, nothing read is executed.
"""

import json
import math
import re
import shutil
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from alexnet.errors import InputError, require
from alexnet.files import file_digest, flush, write_whole

PREFIX = "step-"
Columns = dict[str, dict[str, Tensor]]  # {"0": {"conv1.weight": ..., "velocity.conv1.weight": ...}}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise whatever keeps the block from writing `path` as an OSError with path and remedy."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"cannot write {path}: {_reason(error)}; make room, and the same command with "
            "--resume goes on"
        ) from error


def _reason(error: OSError | SafetensorError) -> object:
    return getattr(error, "strerror", None) or error


def write_tensors(path: Path, tensors: dict[str, Tensor], *, durable: bool = False) -> None:
    """Write a safetensors file, whole or not at all.

    Args:
        path: The file.
        tensors: By name, on any device.
        durable: Whether it is on the disk when this returns.
    """

    def write(part: Path) -> None:
        save_file(tensors, part)
        if durable:
            flush(part)

    write_whole(path, write)


class Writer:
    """Writes a run's checkpoints in a thread, one at a time.

    Args:
        folder: Where they go.
        numbers: The columns of the whole net, of which other ranks may save some.
        attempt: One word that all ranks agree on and no earlier process used.
        first: Whether this process gives checkpoints their names: rank 0 does.
        keep: How many checkpoints stay.
    """

    def __init__(
        self,
        folder: Path,
        numbers: Collection[object],
        attempt: str,
        first: bool = True,
        keep: int = 2,
    ):
        self.folder, self.numbers, self.attempt = folder, numbers, attempt
        self.first, self.keep = first, keep
        self._thread: threading.Thread | None = None
        self._failure: OSError | SafetensorError | None = None
        self._written, self._given_up = threading.Event(), threading.Event()

    def save(self, step: int, columns: Columns, state: dict) -> None:
        """Copy the tensors and return; the thread writes them. Waits for the checkpoint before.

        Args:
            columns: Those of this process.
            state: As JSON has it, the same on all ranks.
        """
        self.wait()
        final = self.folder / f"{PREFIX}{step:09d}"
        if final.exists():
            return
        copies = {
            number: {n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()}
            for number, tensors in columns.items()
        }
        self._written.clear()
        self._thread = threading.Thread(
            target=self._write, args=(final, copies, state), name="checkpoint", daemon=True
        )
        self._thread.start()

    def failed(self, wait: bool = False) -> bool:
        """Whether this process could not write its part; with `wait`, once that is known."""
        if wait and self._thread is not None:
            self._written.wait()
        return self._failure is not None

    def wait(self) -> None:
        """Wait until the checkpoint is on disk, other ranks' parts included.

        Raises:
            OSError: It could not be written; the message holds the remedy.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            remedy = "make room, and --resume begins anew"
            if kept := steps(self.folder):
                remedy = f"{kept[-1].name} is kept: make room, and --resume goes on from there"
            problem = f"cannot write a checkpoint to {self.folder}: {_reason(self._failure)}"
            raise OSError(f"{problem}; {remedy}") from self._failure

    def give_up(self) -> None:
        """End the wait for other ranks' parts: they could not write them."""
        self._given_up.set()

    def _write(self, final: Path, columns: Columns, state: dict) -> None:
        part = self.folder / f".{final.name}.{self.attempt}"
        try:
            part.mkdir(parents=True, exist_ok=True)
            for number, tensors in columns.items():
                write_tensors(part / f"column-{number}.safetensors", tensors, durable=True)
            self._written.set()
            if self.first:
                self._finish(part, final, state)
        except (OSError, SafetensorError) as failure:
            self._failure = failure
            for number in columns:  # make room, but leave to other ranks what is theirs
                (part / f"column-{number}.safetensors").unlink(missing_ok=True)
        finally:
            self._written.set()

    def _finish(self, part: Path, final: Path, state: dict) -> None:
        """Wait for all columns, add the state and the manifest, and give the folder its name."""
        columns = [part / f"column-{number}.safetensors" for number in self.numbers]
        while not all(path.exists() for path in columns):
            if self._given_up.wait(0.02):
                return
        (part / "state.json").write_text(json.dumps(state, indent=1))
        files = {path.name: file_digest(path) for path in sorted([*columns, part / "state.json"])}
        manifest = {"step": state["step"], "sha256": files}
        (part / "manifest.json").write_text(json.dumps(manifest, indent=1))
        flush(part / "state.json")
        flush(part / "manifest.json")
        part.rename(final)
        flush(self.folder)
        # a later one may be under way on another rank
        parts = self.folder.glob(f".{PREFIX}*")
        killed = [path for path in parts if path.stem <= f".{final.name}"]
        for old in steps(self.folder)[: -self.keep] + killed:
            shutil.rmtree(old, ignore_errors=True)


def steps(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(folder.glob(f"{PREFIX}*"))


def load(path: Path, numbers: Collection[object] | None = None) -> tuple[Columns, dict]:
    """The tensors of the columns `numbers` (None: of all) and the state of a checkpoint.

    Args:
        path: The checkpoint's folder.
        numbers: Of the columns wanted; None: of all.

    Raises:
        InputError: A file is missing, changed or strange; the message names it.
    """
    manifest, state = path / "manifest.json", path / "state.json"
    remedy = f"remove {path} to go on from the checkpoint before it"
    try:
        digests = json.loads(manifest.read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        digests = None
    is_manifest = isinstance(digests, dict) and state.name in digests
    require(is_manifest, f"{manifest} is missing or damaged; {remedy}")
    for name in digests:  # nothing outside the folder is so much as read
        known = re.fullmatch(r"state\.json|column-\d+\.safetensors", name)
        require(known, f"{manifest} names {name!r}, which no checkpoint holds; {remedy}")
    names = [f"column-{number}.safetensors" for number in numbers or ()]
    loaded: dict[str, Any] = {}
    for file in [path / name for name in (digests if numbers is None else [state.name, *names])]:
        whole = file.is_file() and file_digest(file) == digests.get(file.name)
        require(whole, f"{file} is missing or damaged; {remedy}")
        try:
            read = json.loads(file.read_text()) if file == state else load_file(file)
        except (ValueError, SafetensorError) as error:
            raise InputError(f"{file} is not what a checkpoint holds ({error}); {remedy}") from None
        loaded[re.sub(r"column-|\.safetensors", "", file.name)] = read
    columns, contents = loaded, loaded.pop(state.name)
    require(isinstance(contents, dict), f"{state} is not what a checkpoint holds; {remedy}")
    return columns, contents


def check_state(state: dict, name: str, last_step: int, parameters: Collection[str]) -> None:
    """Check the entries of a state, except for its schedule's.

    Args:
        name: The checkpoint's.
        last_step: Of the run.
        parameters: Names such as "conv1.weight", each of which may have a rate.

    Raises:
        InputError: An entry is not what such a run puts into this checkpoint.
    """

    def is_number(value: Any) -> bool:
        return type(value) in (int, float) and 0 <= value < math.inf

    step, rates = state.get("step"), state.get("rates")
    fits = {
        "step": type(step) is int and 0 <= step <= last_step and name == f"{PREFIX}{step:09d}",
        **{entry: is_number(state.get(entry)) for entry in ("seconds", "loss_sum", "error_sum")},
        "rates": rates in ({}, [])
        or (type(rates) is dict and all(is_number(rates.get(name)) for name in parameters)),
        "ended": state.get("ended") in (None, "reached", "plateau"),
        "recent": type(recent := state.get("recent")) is list and all(map(is_number, recent)),
    }
    for entry, fit in fits.items():
        require(fit, f"its {entry} is {state.get(entry)!r}")
