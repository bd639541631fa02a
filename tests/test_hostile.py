"""Hostile input: each piece is a row of rejected.csv with its reason, or a clear stop; never a
crash of the whole, never a silent loss."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from alexnet.data.decode import read
from alexnet.data.listing import File
from alexnet.data.pack import Pack
from alexnet.data.prepare import prepare
from alexnet.errors import InputError
from tests import hostile
from tests.images import photograph, rejections


def test_every_kind_of_file(tmp_path):
    (tmp_path / "source" / "a").mkdir(parents=True)
    for name, (data, _) in hostile.FILES.items():
        (tmp_path / "source" / "a" / name).write_bytes(data)
    os.mkfifo(tmp_path / "source" / "a" / "pipe.jpg")
    (tmp_path / "source" / "a" / "folder.jpg").mkdir()
    (tmp_path / "source" / "a" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "source" / "a" / "gone.jpg").symlink_to("nowhere.jpg")
    name = "name with spaces.jpg"
    (tmp_path / "source" / "a" / "same.jpg").hardlink_to(tmp_path / "source" / "a" / name)  # twice
    (tmp_path / "source" / "b").mkdir()
    (tmp_path / "source" / "b" / name).write_bytes(hostile.file())  # as another class's image
    message = r"a/bomb.png: .*; and 11 more .*: mend or remove them, or --skip-bad"
    with pytest.raises(InputError, match=message) as error:
        prepare(tmp_path / "source", tmp_path / "out", size=16)
    assert "\n" not in str(error.value)
    pack = Pack.open(prepare(tmp_path / "source", tmp_path / "out", size=16, skip_bad=True))
    rows = rejections(pack.path)
    expected = {f"a/{name}": reason for name, (_, reason) in hostile.FILES.items() if reason}
    expected |= {"a/pipe.jpg": "not a regular file", "a/folder.jpg": "not a regular file"}
    expected |= {
        "a/loop.jpg": "Too many levels of symbolic links",
        "a/gone.jpg": "No such file or directory",
    }
    assert rows.keys() == expected.keys()
    assert {name: reason for name, reason in expected.items() if reason not in rows[name]} == {}
    everything = list((tmp_path / "source").glob("*/*"))
    assert len(pack) + len(rows) == len(everything)  # all is accounted for


def test_what_may_not_be_read(tmp_path):
    command = [sys.executable, "-m", "alexnet", "prepare", tmp_path / "source"]
    if os.geteuid() == 0:  # who may read everything, unless told not to
        if not shutil.which("setpriv"):
            pytest.skip("root without setpriv may read everything")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]

    def alexnet(*arguments):
        return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)

    folder = tmp_path / "source" / "a"
    folder.mkdir(parents=True)
    for name in ("open.png", "closed.png"):
        photograph(9, 9).save(folder / name)
    (folder / "closed.png").chmod(0)
    done = alexnet(tmp_path / "out", "--size", 8)
    assert (
        done.returncode == 2 and "closed.png: Permission denied; mend or remove it" in done.stderr
    ), done.stderr
    done = alexnet(tmp_path / "out", "--size", 8, "--skip-bad")
    assert done.returncode == 0 and rejections(tmp_path / "out") == {
        "a/closed.png": "Permission denied"
    }, done.stderr
    folder.chmod(0)
    done = alexnet(tmp_path / "out2", "--size", 8, "--skip-bad")
    folder.chmod(0o755)
    assert (
        done.returncode == 2
        and done.stderr == f"alexnet: cannot read {folder}: permission denied\n"
    )


def test_empty_classes_stop(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "source" / name).mkdir(parents=True)
    photograph(9, 9).save(tmp_path / "source" / "a" / "0.png")
    (tmp_path / "source" / "b" / "readme.txt").write_text("soon")
    with pytest.raises(InputError, match=r"class folder .*b holds no images: fill it or remove it"):
        prepare(tmp_path / "source", tmp_path / "out", size=8, skip_bad=True)


def fuzzed(folder, count, seed, workers):
    made = hostile.fuzz(folder / "source", count, seed)
    pack = Pack.open(
        prepare(folder / "source", folder / "out", size=24, skip_bad=True, workers=workers)
    )
    rows = rejections(pack.path)
    assert rows.keys() <= made.keys() and all(rows.values()) and len(pack) + len(rows) == count
    # What was taken is what Pillow makes of it, in order.
    kept = [name for name in sorted(made) if name not in rows]
    for index in np.random.default_rng(seed).integers(len(kept), size=20).tolist():
        assert np.array_equal(
            pack.gather([index])[0],
            np.asarray(read(File(str(folder / "source" / kept[index])), 24)),
        )
    pack.verify()
    return hostile.table(made, rows)


def test_two_hundred_damaged_files(tmp_path):
    table = fuzzed(tmp_path, 200, 0, workers=1)
    assert sum(row["rejected"] for row in table) > 40 and sum(row["read"] for row in table) > 40


@pytest.mark.slow
def test_two_thousand_damaged_files(tmp_path):
    table = fuzzed(tmp_path, 2000, 1, workers=2)
    assert sum(row["files"] for row in table) == 2000 and len(table) == len(hostile.KINDS) * len(
        hostile.DAMAGES
    )
