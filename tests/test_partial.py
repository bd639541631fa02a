"""Preparing that was stopped, by whatever, goes on where it was: the pack is that of an undisturbed
run, byte for byte, and nothing else is left."""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from alexnet.data import decode, pack_writer
from alexnet.data import prepare as module
from alexnet.data.pack import Pack, open_splits
from alexnet.data.pack_writer import PackWriter
from alexnet.data.prepare import prepare
from alexnet.errors import EnvironmentFault, InputError
from tests.images import files, image_folder, jpeg, rejections

ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def source(tmp_path):
    return image_folder(tmp_path / "source")


@pytest.fixture(autouse=True)
def shards_of(monkeypatch):
    """Sets how many images of 8x8 are a shard, one unless a test says otherwise; each is worked on
    alone."""

    def set_to(count):
        monkeypatch.setattr(pack_writer, "SHARD_BYTES", count * 8 * 8 * 3)

    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    set_to(1)
    return set_to


def left(folder):
    return sorted(path.name for path in folder.iterdir())


# --- killed ---------------------------------------------------------------------------------------

LARGE = jpeg(600, 500)
CHUNK = 3 * 64 * 64 * 10  # of ten
SHARDS = {"raw": 3 * CHUNK, "jpeg": 60_000}
SCRIPT = f"""
import sys
from alexnet.data import pack_writer, prepare

if __name__ == "__main__":
    _, source, out, workers, encoding = sys.argv
    prepare.CHUNK_BYTES, pack_writer.SHARD_BYTES = {CHUNK}, {SHARDS}[encoding]
    options = dict(size=64, workers=int(workers), skip_bad=True, encoding=encoding)
    prepare.prepare(source, out, **options)
"""


@pytest.mark.parametrize(("encoding", "workers"), [("raw", 2), ("jpeg", 1)])
def test_killed_again_and_again_and_continued(tmp_path, monkeypatch, encoding, workers):
    """Killed at any moment, with no warning, once in each split."""
    for split, count in (("train", 100), ("val", 60)):
        folder = tmp_path / "source" / split / "a"
        folder.mkdir(parents=True)
        for i in range(count):
            data = LARGE[:-200] if i % 37 == 5 else jpeg(70 + i % 30, 90) if i % 2 else LARGE
            (folder / f"{i:03d}.jpg").write_bytes(data)
        (folder / "notes.txt").write_text("")
    monkeypatch.setattr(module, "CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(pack_writer, "SHARD_BYTES", SHARDS[encoding])
    options = {"size": 64, "skip_bad": True, "encoding": encoding}
    whole = prepare(tmp_path / "source", tmp_path / "whole", workers=1, **options)

    (tmp_path / "script.py").write_text(SCRIPT)
    out, work = tmp_path / "out", tmp_path / ".out.partial"
    command = [sys.executable, tmp_path / "script.py", tmp_path / "source", out]
    command += [str(workers), encoding]
    messages = []
    for images in (12, 105, None):
        process = subprocess.Popen(
            command, env=os.environ | ENVIRONMENT, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 60
        while process.poll() is None and (images is None or _progress(work) < images):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        list_children = ["ps", "-o", "pid=", "--ppid", str(process.pid)]
        children = subprocess.run(list_children, capture_output=True, text=True).stdout.split()
        process.send_signal(signal.SIGKILL)
        messages.append(process.communicate()[1])
        assert process.returncode == (0 if images is None else -signal.SIGKILL)
        while any(os.path.exists(f"/proc/{child}") for child in children):  # the workers follow
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert all("going on with" in text for text in messages[1:])
    assert files(out) == files(whole) and not work.exists()
    packs = open_splits(out)
    assert len(packs["train"]) == 97 and len(rejections(out / "train")) == 3 + 1
    for pack in packs.values():
        pack.verify()


def _progress(work):
    """How many images have been written down."""
    done = 0
    for checkpoint in work.glob("pack/*/checkpoint.npz"):
        with contextlib.suppress(FileNotFoundError):  # it is done meanwhile
            done += len(np.load(checkpoint)["labels"])
    for labels in work.glob("pack/*/labels.npy"):
        done += labels.stat().st_size // 4
    return done


# --- stopped --------------------------------------------------------------------------------------


def interrupted(source, out, at=7, **options):
    """Prepare until image `at`; returns what is said then."""
    append, count = PackWriter.append, 0

    def appending(*arguments):
        nonlocal count
        count += 1
        if count == at:
            raise KeyboardInterrupt
        return append(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackWriter, "append", appending)
        with pytest.raises(KeyboardInterrupt) as stopped:
            prepare(source, out, **{"size": 8, "workers": 1} | options)
    return str(stopped.value)


GOES_ON = "are kept, and the same command goes on from there"


def test_partial_work_is_continued_only_by_the_same_work(tmp_path, source, capsys):
    out, work = tmp_path / "out", tmp_path / ".out.partial"
    assert interrupted(source, out) == f"stopped; 6 of 8 images of {out} {GOES_ON}"
    assert work.exists() and not out.exists()
    kept = files(work)
    what = r"made of other images, with other options, .*: give those"
    refused = rf"\.out\.partial holds a part of .*out that was {what}"
    with pytest.raises(InputError, match=refused):
        prepare(source, out, size=9)
    assert files(work) == kept
    prepare(source, out, size=8)
    assert "going on" in capsys.readouterr().err and not work.exists() and out.exists()


def test_a_split_whose_images_were_changed_is_begun_anew_and_the_others_are_kept(tmp_path, capsys):
    """A bad image in val/ is removed: train, which is done, stays."""
    source, out, work = tmp_path / "source", tmp_path / "out", tmp_path / ".out.partial"
    for split in ("train", "val"):
        image_folder(source / split)
    (source / "val" / "b" / "2.png").write_bytes(b"no image any more")
    with pytest.raises(InputError, match=r"val/b/2.png: no image .*; mend or remove it"):
        prepare(source, out, size=8)
    stamp = (work / "pack" / "train" / "manifest.json").stat().st_mtime_ns
    (source / "val" / "b" / "2.png").unlink()
    capsys.readouterr()
    prepare(source, out, size=8)
    assert (out / "train" / "manifest.json").stat().st_mtime_ns == stamp
    text = capsys.readouterr().err
    assert "images of val were changed meanwhile: it is begun anew" in text
    assert "8 of 15 images are done" in text
    assert files(out) == files(prepare(source, tmp_path / "whole", size=8))
    pack = open_splits(out)["val"]
    assert len(pack) == 7


@pytest.mark.parametrize("same_size", [False, True])
def test_what_was_made_of_images_that_were_changed_is_begun_anew(
    tmp_path, source, capsys, same_size
):
    out = tmp_path / "out"
    interrupted(source, out)
    if same_size:
        image = (source / "a" / "0.png").read_bytes()
        (source / "a" / "0.png").write_bytes((source / "a" / "1.png").read_bytes())
        (source / "a" / "1.png").write_bytes(image)
    else:
        (source / "b" / "4.png").write_bytes((source / "b" / "3.png").read_bytes())
    prepare(source, out, size=8)
    assert "images of train were changed meanwhile" in capsys.readouterr().err
    assert files(out) == files(prepare(source, tmp_path / "whole", size=8))


def test_what_was_skipped_until_now_would_have_stopped_it_but_not_the_other_way_round(
    tmp_path, source, capsys
):
    interrupted(source, tmp_path / "two", skip_bad=True)
    with pytest.raises(InputError, match=r"two\.partial holds a part"):
        prepare(source, tmp_path / "two", size=8)
    shutil.rmtree(tmp_path / ".two.partial")
    (source / "b" / "3.png").write_bytes(b"no image any more")
    out = tmp_path / "three"
    interrupted(source, out)
    with pytest.raises(InputError, match=r"3.png: no image .*--skip-bad"):
        prepare(source, out, size=8)
    assert (tmp_path / ".three.partial").exists()
    prepare(source, out, size=8, skip_bad=True)
    text = capsys.readouterr().err
    for done in (6, 7):  # the last one before the bad image is kept too
        assert f"going on with {out}, of which {done} of 8 images are done" in text
    assert len(Pack.open(out)) == 7


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("images-00000.npy", lambda data: data[:200], "images-00000.npy has 200 bytes instead of"),
        ("images-00005.npy", None, "No such file"),
        ("rejected.csv", lambda data: b"", "rejected.csv has 0 bytes instead of 12"),
        ("rejected.csv", None, "No such file"),
        ("checkpoint.npz", lambda data: b"", "No data left in file"),
        ("checkpoint.npz", lambda data: data[:-100], "zip file"),
        (
            "checkpoint.npz",
            lambda data: data[:900] + bytes([data[900] ^ 1]) + data[901:],
            "Bad CRC-32",
        ),
    ],
)
def test_a_damaged_checkpoint_is_none(tmp_path, source, capsys, name, damage, reason):
    interrupted(source, tmp_path / "out")
    path = tmp_path / ".out.partial" / "pack" / name
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    prepare(source, tmp_path / "out", size=8)
    text = capsys.readouterr().err
    message = rf"\.out\.partial/pack was left damaged \(.*{reason}.*\): it is begun anew"
    assert re.search(message, text) and "going on" not in text
    assert files(tmp_path / "out") == files(prepare(source, tmp_path / "whole", size=8))
    assert not (tmp_path / ".out.partial").exists()


@pytest.mark.parametrize("name", ["images-00000.npy", "manifest.json", "mean.npy"])
def test_a_split_that_was_done_and_is_damaged_is_begun_anew(tmp_path, capsys, name):
    source = tmp_path / "source"
    for split in ("train", "val"):
        image_folder(source / split)
    interrupted(source, tmp_path / "out", at=11)
    (tmp_path / ".out.partial" / "pack" / "train" / name).write_bytes(b"")
    prepare(source, tmp_path / "out", size=8)
    text = capsys.readouterr().err
    assert "pack/train was left damaged" in text and "2 of 16 images are done" in text
    assert files(tmp_path / "out") == files(prepare(source, tmp_path / "whole", size=8))


def test_what_is_promised_when_it_stops_is_kept(tmp_path, source, capsys, shards_of):
    """Shards end after images 3 and 6; stopped at 8, and before the first."""
    shards_of(3)
    out = tmp_path / "out"
    nothing = f"stopped; nothing of {out} is kept, and the same command begins anew"
    assert interrupted(source, out, at=2) == nothing
    assert left(tmp_path) == ["source"]
    kept = f"stopped; 6 of 8 images of {out} {GOES_ON}"
    assert interrupted(source, out, at=8) == kept
    prepare(source, out, size=8)
    assert "of which 6 of 8 images are done" in capsys.readouterr().err
    assert files(out) == files(prepare(source, tmp_path / "whole", size=8))


def test_what_of_a_chunk_belongs_to_the_next_shard_is_kept_too(
    tmp_path, source, monkeypatch, shards_of
):
    """Chunks of four, shards of three: the first shard ends within a chunk."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * 8 * 8 * 3)
    shards_of(3)
    assert interrupted(source, tmp_path / "out", at=2).startswith("stopped; 4 of 8 images")
    out, whole = (prepare(source, tmp_path / name, size=8) for name in ("out", "whole"))
    assert files(out) == files(whole)


def test_stopped_when_a_pack_is_all_but_done(tmp_path, source, monkeypatch, capsys, shards_of):
    """Its last shard is shorter than the others, and done; only the manifest lacks, of which a kill
    may leave a part."""
    shards_of(5)
    (source / "b" / "0.png").write_bytes(b"")
    whole, replace = prepare(source, tmp_path / "whole", size=8, skip_bad=True), os.replace

    def stop(source, target):
        if target.name == "manifest.json":
            shutil.copy(source, source.with_name(".manifest.json.1.part"))
            raise KeyboardInterrupt
        replace(source, target)

    with (
        monkeypatch.context() as patch,
        pytest.raises(KeyboardInterrupt, match=r"6 of 8 images of .* are kept"),
    ):
        patch.setattr(os, "replace", stop)
        prepare(source, tmp_path / "out", size=8, skip_bad=True)
    capsys.readouterr()
    assert files(prepare(source, tmp_path / "out", size=8, skip_bad=True)) == files(whole)
    assert "6 of 8 images are done" in capsys.readouterr().err


def test_one_process_at_a_time(tmp_path, source):
    work = tmp_path / ".out.partial"
    work.mkdir()
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is preparing"):
            prepare(source, tmp_path / "out", size=8)
    prepare(source, tmp_path / "out", size=8)
    assert not work.exists()


# --- faults of the surroundings -------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "name", ["ENOENT", "ESTALE", "EIO", "EMFILE", "ENOMEM", "ETIMEDOUT", "ENXIO", "EINVAL"]
)
def test_a_source_that_cannot_be_reached_for_a_while_costs_no_image(
    tmp_path, source, monkeypatch, capsys, name, workers
):
    """The call stops, what is done is kept, and the same call goes on."""
    if workers > 1 and name != "EIO":
        pytest.skip("one is enough for other processes")
    whole = prepare(source, tmp_path / "whole", size=8, skip_bad=True)
    (tmp_path / "site").mkdir()
    code = "import alexnet.data.listing as listing, os, errno\n" + (
        "open_ = os.open\ndef opened(path, *args, **options):\n"
        f"    if str(path).endswith('b/1.png') and os.path.exists({str(tmp_path / 'away')!r}):\n"
        f"        raise OSError(errno.{name}, os.strerror(errno.{name}), path)\n"
        "    return open_(path, *args, **options)\nos.open = opened\n"
    )
    (tmp_path / "site" / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), *sys.path]))
    (tmp_path / "away").write_text("")
    monkeypatch.setattr(module, "CHUNK_BYTES", 3 * 8 * 8 * 2)
    options = {"size": 8, "skip_bad": True, "workers": workers}
    message = rf"b/1.png: {os.strerror(getattr(errno, name))}; 4 of 8 images .* are kept"
    with pytest.raises(EnvironmentFault, match=message):
        prepare(source, tmp_path / "out", **options)
    (tmp_path / "away").unlink()
    prepare(source, tmp_path / "out", **options)
    assert "4 of 8 images are done" in capsys.readouterr().err
    assert files(tmp_path / "out") == files(whole)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO, errno.ESTALE])
def test_a_read_that_fails_costs_no_image(tmp_path, source, monkeypatch, code):
    """Network drives and FUSE open a file, and then cannot read it."""

    def failing(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", failing)
        with pytest.raises(EnvironmentFault, match=rf"a/0.png: {os.strerror(code)}; nothing of"):
            prepare(source, tmp_path / "out", size=8)
    prepare(source, tmp_path / "out", size=8)


def test_memory_that_runs_out_costs_no_image(tmp_path, source, monkeypatch):
    def full(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(decode, "to_rgb", full)
        with pytest.raises(EnvironmentFault, match=r"a/0.png: Cannot allocate memory; nothing of"):
            prepare(source, tmp_path / "out", size=8)
    prepare(source, tmp_path / "out", size=8)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES])
def test_a_checkpoint_that_cannot_be_read_is_kept(tmp_path, source, monkeypatch, code):
    interrupted(source, tmp_path / "out")
    kept = files(tmp_path / ".out.partial")

    def fails(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(PackWriter, "_restore", fails)
        with pytest.raises(EnvironmentFault, match=os.strerror(code)):
            prepare(source, tmp_path / "out", size=8)
    assert files(tmp_path / ".out.partial") == kept


GUARDLESS = """
import sys
from alexnet.data.prepare import prepare
from alexnet.data import pictographs
prepare(sys.argv[1], sys.argv[2], size=8, workers=2, skip_bad=True)
pictographs.write(sys.argv[3], classes=2, train=3, val=0, test=0, size=16, workers=2)
"""


@pytest.mark.parametrize("way", ["script", "stdin", "module"])
def test_a_program_needs_no_main_guard(tmp_path, source, way):
    """Its processes do not import it again: they would do all it does once more."""
    (tmp_path / "script.py").write_text(GUARDLESS)
    command = {"script": [tmp_path / "script.py"], "stdin": ["-"], "module": ["-m", "script"]}[way]
    done = subprocess.run(
        [sys.executable, *command, source, tmp_path / "out", tmp_path / "drawn"],
        input=GUARDLESS, cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(Pack.open(tmp_path / "out")) == 8 and "left out" not in done.stderr
    assert len(list((tmp_path / "drawn").rglob("*.jpg"))) == 6


def test_workers_that_die_at_once_cost_no_image(tmp_path, source, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import os, sys\nos._exit(9)\n")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), *sys.path]))
        message = r"worker processes end as soon as they start \(exit status 9\); nothing of"
        with pytest.raises(EnvironmentFault, match=message):
            prepare(source, tmp_path / "out", size=8, skip_bad=True)
    assert not (tmp_path / ".out.partial").exists()
    assert len(Pack.open(prepare(source, tmp_path / "out", size=8, skip_bad=True))) == 8


# --- a full disk ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up(tmp_path, source, monkeypatch, code):
    """The work so far stays, and is gone on with when there is room."""
    write, written = PackWriter._write, 0

    def full(self, data, count):
        nonlocal written
        written += count
        if written > 5:
            self._shard().write_bytes(bytes(data)[:100])  # part of it gets there
            raise OSError(code, os.strerror(code))
        write(self, data, count)

    monkeypatch.setattr(PackWriter, "_write", full)
    kept = rf"5 of 8 images of .*out {GOES_ON}: make room first"
    with pytest.raises(InputError, match=rf"the disk is full \(.*\) after 5 of 8 images; {kept}"):
        prepare(source, tmp_path / "out", size=8)
    monkeypatch.setattr(PackWriter, "_write", write)
    whole = prepare(source, tmp_path / "whole", size=8)
    assert files(prepare(source, tmp_path / "out", size=8)) == files(whole)
    assert left(tmp_path) == ["out", "source", "whole"]


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (10**6, "the disk is full (File too large) after 0 of 16 images; nothing of "),
        (10, "out: File too large; make room, or choose another place"),  # from the start
    ],
)
def test_a_real_limit_on_files(tmp_path, limit, message):
    """The same with the system's own error, at a limit on the size of files."""
    image_folder(tmp_path / "source", sizes=[(200, 200)] * 8)
    (tmp_path / "script.py").write_text(
        "import resource, sys\nfrom alexnet import cli\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, tmp_path / "script.py", "prepare", tmp_path / "source"]
    command += [tmp_path / "out", "--size", "200"]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("alexnet: "), done.stderr
    assert message in done.stderr, done.stderr
    assert left(tmp_path) == ["script.py", "source"]
