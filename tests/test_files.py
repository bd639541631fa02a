"""Files and folders: whole or not at all, their digests, and locks between processes."""

import errno
import fcntl
import hashlib
import math
import os
import shutil
import socket
import subprocess
import sys
import warnings

import pytest

from alexnet import files
from alexnet.errors import InputError
from alexnet.files import (
    Locked,
    file_digest,
    flush,
    free_bytes,
    lines,
    lock,
    new_folder,
    temporary_folder,
    write_whole,
)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def fails(code):
    """A system call that fails with an error's code."""

    def call(*arguments, **options):
        raise OSError(code, os.strerror(code))

    return call


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("content", ["größe\n", b"\x00\xff", lambda path: path.write_text("made")])
def test_a_file_is_written_whole(tmp_path, content, durable):
    path = tmp_path / "file"
    path.write_text("old")
    write_whole(path, content, durable=durable)
    expected = content.encode() if isinstance(content, str) else content
    assert path.read_bytes() == (b"made" if callable(content) else expected)
    assert names(tmp_path) == ["file"]


def test_a_writer_that_fails_leaves_what_was_there_and_no_part(tmp_path):
    path = tmp_path / "file"

    def half(part):
        part.write_text("half")
        raise RuntimeError("on the way")

    for before in ([], ["file"]):
        with pytest.raises(RuntimeError, match="on the way"):
            write_whole(path, half)
        assert names(tmp_path) == before
        path.write_text("old")
    assert path.read_text() == "old"
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "nowhere" / "file", "text")


def test_what_readers_see_is_the_old_file_or_the_new(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def writer(part):
        part.write_text("new")
        assert path.read_text() == "old" and part.parent == path.parent

    write_whole(path, writer)
    assert path.read_text() == "new"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "file", "text")
        # whatever mode its writer gives it
        write_whole(tmp_path / "other", lambda part: (part.touch(mode=0o600), part.chmod(0o600)))
    finally:
        assert os.umask(before) == umask
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}


def test_a_full_disk_is_told_and_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(files.os, "fsync", fails(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new", durable=True)
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_flush_folders_is_left_alone(tmp_path, monkeypatch, code):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(files.os, "fsync", fails(code))
    flush(tmp_path)
    with pytest.raises(OSError):  # of a file it would be a loss
        flush(tmp_path / "file")
    monkeypatch.setattr(files.os, "fsync", fails(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        flush(tmp_path)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EINVAL, errno.ENOSYS])
def test_a_folder_that_cannot_be_opened_to_be_flushed_is_left_alone(tmp_path, monkeypatch, code):
    monkeypatch.setattr(files.os, "open", fails(code))
    flush(tmp_path)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_permissions(tmp_path, monkeypatch, code):
    monkeypatch.setattr(files.Path, "chmod", fails(code))
    write_whole(tmp_path / "file", lambda part: (part.write_text("text"), os.chmod(part, 0o600)))
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_no_locks_are_no_other_process(tmp_path, monkeypatch, code):
    monkeypatch.setattr(files.fcntl, "flock", fails(code))
    with pytest.warns(UserWarning, match="without locks"), lock(tmp_path / "lock", wait=False):
        pass


@pytest.mark.parametrize("code", [errno.EWOULDBLOCK, errno.EACCES])
def test_these_are_another_process(tmp_path, monkeypatch, code):
    monkeypatch.setattr(files.fcntl, "flock", fails(code))
    with pytest.raises(Locked), lock(tmp_path / "lock", wait=False):
        pass


@pytest.mark.parametrize(
    "data",
    [
        "größe\n\n  n02 \n".encode(),
        "\ufeffgröße\r\nn02\r\n".encode(),
        "größe\rn02".encode("utf-16"),
        "\ufeffgröße\nn02\n".encode("utf-16-be"),
    ],
)
def test_lines_of_text_files_as_editors_write_them(tmp_path, data):
    (tmp_path / "file").write_bytes(data)
    assert lines(tmp_path / "file") == ["größe", "n02"]


def test_a_disk_that_does_not_say_how_full_it_is(tmp_path, monkeypatch):
    assert 0 < free_bytes(tmp_path) < math.inf
    monkeypatch.setattr(files.shutil, "disk_usage", fails(errno.ENOSYS))
    assert free_bytes(tmp_path) == math.inf
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))
    assert free_bytes(tmp_path) == math.inf


def test_the_digest_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(bytes(10**6))
    assert file_digest(tmp_path / "file") == hashlib.sha256(bytes(10**6)).hexdigest()


# --- folders --------------------------------------------------------------------------------------


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), new_folder(out) as folder:
        (folder / "half").write_text("")
        raise RuntimeError
    assert names(tmp_path) == []
    out.mkdir()  # an empty one may be there
    with new_folder(out) as folder:
        (folder / "all").write_text("")
        assert not any(out.iterdir())
    assert names(tmp_path) == ["out", "out/all"]
    for taken in (out, tmp_path / "link"):
        if taken != out:
            taken.symlink_to("nowhere")
        with (
            pytest.raises(InputError, match="exists already: choose"),
            new_folder(taken),
        ):
            pass
    with pytest.raises(InputError, match="cannot write"), new_folder(out / "all" / "below"):
        pass
    other = tmp_path / "other"
    with pytest.raises(InputError, match=r"cannot make .*other: .*; choose"), new_folder(other):
        other.write_text("made in the meantime")
    assert names(tmp_path) == ["link", "other", "out", "out/all"]


def test_temporary_folders_go_and_take_those_of_killed_processes_along(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    host = socket.gethostname()
    left = {
        f".out.images-{host}-{process.pid}": False,  # its process has ended
        f".out.images-{host}-{os.getppid()}": True,  # its process runs
        f".out.images-elsewhere-{process.pid}": True,  # of another machine
        f".other.images-{host}-{process.pid}": True,  # of another folder
    }
    for name in left:
        (tmp_path / name).mkdir()
    with temporary_folder(tmp_path / "out", "images") as folder:
        assert folder.is_dir() and folder.parent == tmp_path
    assert names(tmp_path) == sorted(name for name, stays in left.items() if stays)


# --- locks ----------------------------------------------------------------------------------------


def test_a_lock_that_another_process_holds(tmp_path):
    path = tmp_path / "lock"
    script = (
        "import fcntl, sys\nfile = open(sys.argv[1], 'a+')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(Locked), lock(path, wait=False):
            pytest.fail("it was given out twice")
    with lock(path) as file:  # it has ended
        file.write("mine")
        with path.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert path.read_text() == "mine"
    with lock(path, wait=False):
        pass


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(files.fcntl, "flock", fails(errno.ENOLCK))
    with pytest.warns(UserWarning, match="file system without locks"), lock(tmp_path / "lock"):
        pass
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with lock(tmp_path / "lock"):
            pass
