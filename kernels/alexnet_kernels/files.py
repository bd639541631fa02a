"""Files that appear whole or not at all, digests, and the folder for what can be made anew."""

import errno
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, and flush it to the disk before it gets its name.

    Args:
        path: The file.
        content: Text as UTF-8, or bytes.

    Raises:
        OSError: It cannot be written. Nothing is left behind, and `path` is unchanged.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def digest(content: str | bytes) -> str:
    """16 hexadecimal digits of the SHA-256."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:16]


def tree_digest(root: Path, paths: Iterable[Path]) -> str:
    """SHA-256 (hex) of the names, relative to `root`, and the contents of those paths that are
    files.

    Args:
        root: A folder.
        paths: Files below it, and whatever else.
    """
    total = hashlib.sha256()
    for path in sorted({path for path in paths if path.is_file()}):
        total.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def cache_folders() -> Iterator[Path]:
    """The folders for compiled code and measured choices, the next one where one is of no use.

    First ALEXNET_CACHE, or else the user's cache, which may be read-only, full, or closed to
    programs; then a temporary folder of this user, one for all processes.

    Raises:
        OSError: There is no such temporary folder, or others may write to it, whose code must not
            be run.
    """
    last = Path(tempfile.gettempdir(), f"alexnet-kernels-{os.getuid()}")
    named, caches = os.environ.get("ALEXNET_CACHE"), os.environ.get("XDG_CACHE_HOME")
    usual = Path(named) if named else Path(caches or "~/.cache", "alexnet-kernels")
    try:
        usual = usual.expanduser()
    except RuntimeError:  # neither HOME nor an account
        elsewhere = f"there is no home folder, so compiled code is kept in {last}"
        warnings.warn(f"{elsewhere}. ALEXNET_CACHE may name a folder", stacklevel=3)
    else:
        yield usual
    with suppress(FileExistsError):
        last.mkdir(mode=0o700)
    status = last.lstat()
    if status.st_uid != os.getuid() or status.st_mode != 0o040700:
        raise PermissionError(errno.EPERM, f"{last} is not this user's alone; remove it")
    yield last


def read_choices(name: str) -> dict[str, Any]:
    """What `keep_choices` has kept under a name; nothing where that is damaged."""
    with suppress(OSError):
        for folder in cache_folders():
            with suppress(OSError, ValueError):
                choices = json.loads((folder / name).read_text())
                return choices if isinstance(choices, dict) else {}
    return {}


def keep_choices(name: str, choices: dict[str, Any]) -> None:
    """Keep what was measured, where it can be kept; else it is measured again next time.

    Args:
        name: Of what was measured.
        choices: What JSON can hold, by name.
    """
    with suppress(OSError):
        for folder in cache_folders():
            with suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                return write_whole(folder / name, json.dumps(choices, indent=1, sort_keys=True))
