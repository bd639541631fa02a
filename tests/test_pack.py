import errno
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.data import pack_writer
from alexnet.data.pack import Pack, open_splits
from alexnet.data.pack_writer import PackWriter
from alexnet.data.prepare import prepare
from alexnet.errors import EnvironmentFault, InputError

FILES = ("images-00000.npy", "labels.npy", "mean.npy", "color.json")


def make(folder, count=23, size=6, shard_bytes=5 * 6 * 6 * 3, seed=0):
    """A pack of random images, in shards of five, appended in uneven pieces."""
    images = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)
    labels = [i % 3 for i in range(count)]
    folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_writer, "SHARD_BYTES", shard_bytes)
        writer = PackWriter(folder, size)
        for begin, end in ((0, 3), (3, 16), (16, count)):
            writer.append(images[begin:end], labels[begin:end])
        writer.reject("x,y.jpg", 'says "no"')
        writer.finish(["a", "b", "c"], ["an a", "a b", "a c"])
    return images, labels


def test_a_pack_gives_back_what_was_written(tmp_path):
    images, labels = make(tmp_path / "pack")
    pack = Pack.open(tmp_path / "pack")
    assert (
        len(pack) == 23
        and pack.size == 6
        and pack.classes == ["a", "b", "c"]
        and pack.names == ["an a", "a b", "a c"]
    )
    assert pack.labels.dtype == np.int32 and pack.labels.tolist() == labels
    assert sorted(path.name for path in pack.path.glob("images-*")) == [
        f"images-{i:05d}.npy" for i in range(5)
    ]
    assert [len(np.load(path)) for path in sorted(pack.path.glob("images-*"))] == [5, 5, 5, 5, 3]
    order = np.random.default_rng(1).integers(0, 23, 100)  # repeated, and across shards
    gathered = pack.gather(order)
    assert gathered.dtype == np.uint8 and np.array_equal(gathered, images[order])
    assert pack.gather([]).shape == (0, 6, 6, 3)
    pack.verify()
    assert (pack.path / "rejected.csv").read_bytes() == b'path,reason\n"x,y.jpg","says ""no"""\n'


@pytest.mark.parametrize("bad", [[-1], [23], [0, 10**9]])
def test_gather_refuses_what_is_not_there(tmp_path, bad):
    make(tmp_path / "pack")
    with pytest.raises(IndexError, match=r"0\.\.22"):
        Pack.open(tmp_path / "pack").gather(bad)


def test_larger_shards_are_another_pack_of_the_same_images(tmp_path):
    make(tmp_path / "five")
    make(tmp_path / "all", shard_bytes=2**20)
    five, one = (Pack.open(tmp_path / name) for name in ("five", "all"))
    assert five.digest != one.digest and len(one.manifest["shards"]) == 1
    for pack in (five, one):
        pack.verify()
    assert np.array_equal(five.gather(range(23)), one.gather(range(23)))


def test_digest_identifies_images_and_labels(tmp_path):
    make(tmp_path / "one")
    make(tmp_path / "same")
    make(tmp_path / "other", seed=1)
    digests = [Pack.open(tmp_path / name).digest for name in ("one", "same", "other")]
    assert digests[0] == digests[1] != digests[2] and len(digests[0]) == 64


def test_another_process_gets_the_path_and_not_the_pixels(tmp_path):
    images, _ = make(tmp_path / "pack")
    sent = pickle.dumps(Pack.open(tmp_path / "pack"))
    assert len(sent) < 500
    assert np.array_equal(pickle.loads(sent).gather([7]), images[[7]])


def test_what_is_no_pack(tmp_path):
    with pytest.raises(
        InputError, match="nowhere does not exist: make one with `alexnet prepare SOURCE"
    ):
        Pack.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is not a pack: make one"):
        open_splits(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="is not a pack"):
        Pack.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(version=99), "version 99"),
        (lambda m: m.update(count=22), "contradicts"),
        (lambda m: m.update(classes=["a"]), "contradicts"),
        (lambda m: m.pop("shards"), "damaged"),
        (lambda m: m.update(classes="abc"), "contradicts"),
        (lambda m: m.update(classes=["a", "b", "b"]), "contradicts"),
        (lambda m: m.update(names=["a"]), "contradicts"),
        (lambda m: m["shards"][0].update(file="../pack/images-00000.npy"), "contradicts"),
        (lambda m: m.update(encoding=[1]), "this program reads"),
        (lambda m: m.update(size=7), "contradicts"),
        (lambda m: m.update(size="6"), "contradicts"),
        (lambda m: m.update(shards=m["shards"][:-1]), "contradicts"),
    ],
)
def test_a_manifest_that_lies(tmp_path, change, said):
    make(tmp_path / "pack")
    path = tmp_path / "pack" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=said):
        Pack.open(tmp_path / "pack")


def test_damage_is_found(tmp_path):
    make(tmp_path / "pack")
    shard = tmp_path / "pack" / "images-00002.npy"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    pack = Pack.open(tmp_path / "pack")  # the size is right
    with pytest.raises(InputError, match="images-00002"):
        pack.verify()
    shard.write_bytes(data[:-1])
    with pytest.raises(InputError, match=r"images-00002.* bytes instead of"):
        Pack.open(tmp_path / "pack")
    shard.unlink()
    with pytest.raises(InputError, match="damaged"):
        Pack.open(tmp_path / "pack")


@pytest.mark.filterwarnings("ignore")  # numpy takes some of it for old headers
@pytest.mark.parametrize("name", [*FILES, "images-00000.jpegs", "offsets.npy"])
def test_any_damaged_bit_is_told_in_one_line(tmp_path, name):
    """Of numpy's headers, which are read as Python, above all."""
    (tmp_path / "source" / "a").mkdir(parents=True)
    Image.new("RGB", (6, 6), (9, 99, 199)).save(tmp_path / "source" / "a" / "0.jpg")
    encoding = "jpeg" if name in ("images-00000.jpegs", "offsets.npy") else "raw"
    path = prepare(tmp_path / "source", tmp_path / "pack", size=6, encoding=encoding) / name
    data = path.read_bytes()
    for at in range(min(128, len(data))):
        for bit in range(8):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            with pytest.raises(InputError, match=r"pack.*remove it, and prepare it again") as error:
                Pack.open(tmp_path / "pack").verify()
            assert "\n" not in str(error.value)


def test_a_damaged_jpeg_file_is_named(tmp_path):
    (tmp_path / "source" / "a").mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (6, 6), (9, 99, 60 * i)).save(tmp_path / "source" / "a" / f"{i}.jpg")
    pack = Pack.open(prepare(tmp_path / "source", tmp_path / "pack", size=6, encoding="jpeg"))
    data, offsets = (
        (pack.path / "images-00000.jpegs").read_bytes(),
        np.load(pack.path / "offsets.npy"),
    )
    (pack.path / "images-00000.jpegs").write_bytes(
        data[: offsets[1]] + bytes(100) + data[offsets[1] + 100 :]
    )
    with pytest.raises(InputError, match="pack is damaged, its image 1 cannot be read"):
        Pack.open(pack.path).gather([0, 1])


def test_splits(tmp_path):
    make(tmp_path / "one")
    assert list(open_splits(tmp_path / "one")) == ["train"]
    for split in ("test", "train"):
        make(tmp_path / "both" / split)
    assert list(open_splits(tmp_path / "both")) == ["train", "test"]
    with pytest.raises(InputError, match="folder of packs"):
        Pack.open(tmp_path / "both")
    make(tmp_path / "both" / "val", size=4)
    with pytest.raises(InputError, match="differ in classes or size"):
        open_splits(tmp_path / "both")


@pytest.mark.parametrize(
    "code", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM, errno.EACCES]
)
def test_a_pack_that_cannot_be_read_for_a_while_is_not_to_be_removed(packs32, monkeypatch, code):
    def failing(*_, **__):
        raise OSError(code, os.strerror(code))

    for what, name in ((np, "load"), (Path, "read_text")):
        with monkeypatch.context() as patch:
            patch.setattr(what, name, failing)
            with pytest.raises(EnvironmentFault, match=r"cannot read the pack .*train \(") as error:
                open_splits(packs32)
        assert "remove" not in str(error.value)
