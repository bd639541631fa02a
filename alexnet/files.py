"""Files and folders that appear whole or not at all, their digests, and locks between processes.

Every part of the program that writes something another process may read goes through here.
"""

import codecs
import errno
import fcntl
import glob
import hashlib
import math
import os
import re
import shutil
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from alexnet.errors import InputError

# what file systems answer that cannot flush a folder (CIFS, FUSE) or lock a file
_NO_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES}
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


def write_whole(
    path: Path, content: str | bytes | Callable[[Path], object], *, durable: bool = False
) -> None:
    """Write a file whole or not at all, with the permissions that the umask gives.

    Args:
        path: The file; what it held before stays until the new content is complete.
        content: Text (UTF-8), bytes, or a function that writes the file at the path it is given.
        durable: Flush the content to the disk first, and the name after: it survives a power cut.

    Raises:
        OSError: The file cannot be written. Nothing is left behind, and `path` is unchanged.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.touch()
        mode = part.stat().st_mode  # which the umask gave, whatever the writer makes of it
        if callable(content):
            content(part)
        else:
            part.write_bytes(content.encode() if isinstance(content, str) else content)
        if part.stat().st_mode != mode:
            with suppress(OSError):  # file systems without permissions
                part.chmod(mode)
        if durable:
            flush(part)
        os.replace(part, path)
        if durable:
            flush(path.parent)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Flush a file's bytes, or the names in a folder, to the disk; a file system that cannot do the
    latter is left alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in _NO_FLUSH):
            raise


def lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without the blanks around them. UTF-8, or what
    its first bytes say: editors put a mark there."""
    data = path.read_bytes()
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if wide else "utf-8-sig", errors="replace")
    return [line.strip() for line in re.split("\r\n|\r|\n", text) if line.strip()]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(folder: Path) -> float:
    """The bytes that a disk has left, as far as its file system says."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return math.inf
    return usage.free if usage.total else math.inf


@contextmanager
def explained(what: str, remedy: str) -> Iterator[None]:
    """Turn an OSError of the block into an InputError: what failed, the reason, the remedy.

    Args:
        what: That failed, as "cannot write x".
        remedy: What to do, without a period.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{what}: {error.strerror}; {remedy}") from None


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `out` when the block ends without an exception.

    Raises:
        InputError: `out` is there and is more than an empty folder, or cannot be made.
    """
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise InputError(f"{out} exists already: choose another name")
    with temporary_folder(out, "partial") as folder:
        yield folder
        # the working folder itself, or something made in the meantime
        with explained(f"cannot make {out}", "choose another name"):
            os.replace(folder, out)


@contextmanager
def temporary_folder(out: Path, purpose: str) -> Iterator[Path]:
    """Give a folder beside `out` that lives as long as the block.

    What a killed process left behind is removed by the next one on this machine with the same
    `out` and purpose.

    Args:
        out: What is being made.
        purpose: A word that becomes part of the name.

    Raises:
        InputError: The folder cannot be made.
    """
    stem = f".{out.name}.{purpose}-{socket.gethostname()}-"
    folder = out.parent / f"{stem}{os.getpid()}"
    with explained(f"cannot write {out}", "choose another place"):
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in out.parent.glob(f"{glob.escape(stem)}*"):
            if not _is_running(left.name.removeprefix(stem)):
                shutil.rmtree(left, ignore_errors=True)
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, PermissionError):
        pass
    return True


class Locked(Exception):
    """Another process holds the lock."""


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[IO[str]]:
    """Hold a lock on a file while the block runs; the file is made if need be and stays.

    Args:
        path: The lock file, whose folder exists. The block gets it open for reading and appending.
        wait: Wait for another process that holds the lock.

    Raises:
        Locked: Another process holds the lock, and `wait` is false.
        OSError: The file cannot be opened.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in _HELD:
                raise Locked(str(path)) from None
            # ENOSYS, ENOLCK, EOPNOTSUPP: the file system has no locks
            warnings.warn(
                f"{path.parent} is on a file system without locks ({error.strerror}): "
                "make sure that no other process works there",
                stacklevel=3,
            )
        yield file
