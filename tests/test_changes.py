"""A pack is prepared already where it was made of the images that are there now."""

import os
import shutil

import numpy as np
import pytest

from alexnet.data.pack import Pack
from alexnet.data.prepare import prepare
from alexnet.errors import InputError
from tests.images import image_folder


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_images_replaced_by_others_of_the_same_number_of_bytes(
    tmp_path, capsys, encoding, skip_bad
):
    source, out = image_folder(tmp_path / "source", [(30, 30)] * 3), tmp_path / "out"
    options = {"size": 24, "encoding": encoding, "skip_bad": skip_bad}
    size = max(path.stat().st_size for path in source.rglob("*.png"))
    for path in source.rglob("*.png"):  # bytes after the end are ignored
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    if skip_bad:
        (source / "a" / "1.png").write_bytes(b"x" * size)
    pixels = Pack.open(prepare(source, out, **options)).gather(range(5))
    _, second, third = (source / "b" / f"{i}.png" for i in range(3))
    later = (out / "manifest.json").stat().st_mtime + 10
    data = second.read_bytes(), third.read_bytes()
    for path in source.rglob("*.png"):
        os.utime(path, (later, later))  # a copy of the source, as it was
    assert prepare(source, out, **options) == out
    assert "prepared already" in capsys.readouterr().err
    for path, other in zip((second, third), data[::-1]):
        path.write_bytes(other)
        os.utime(path, (later, later))
    with pytest.raises(InputError, match=r"other images: b/1.png, b/2.png were changed; remove it"):
        prepare(source, out, **options)
    assert np.array_equal(Pack.open(out).gather(range(5)), pixels)
    shutil.rmtree(out)
    assert not np.array_equal(Pack.open(prepare(source, out, **options)).gather(range(5)), pixels)


def test_what_was_left_out_and_is_an_image_now(tmp_path):
    source, out = image_folder(tmp_path / "source", [(30, 30)] * 3), tmp_path / "out"
    good = (source / "a" / "1.png").read_bytes()
    (source / "a" / "1.png").write_bytes(bytes(len(good)))
    prepare(source, out, size=24, skip_bad=True)
    (source / "a" / "1.png").write_bytes(good)
    later = (out / "manifest.json").stat().st_mtime + 10
    os.utime(source / "a" / "1.png", (later, later))
    with pytest.raises(InputError, match=r"a pack of other images: a/1.png were changed"):
        prepare(source, out, size=24, skip_bad=True)
