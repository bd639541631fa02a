"""From a source to a pack: what it holds, and what is said of bad input and too little room."""

import errno
import json
import os
import pickle
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from alexnet import inputs
from alexnet.data import chunks, pack_writer, pictographs
from alexnet.data import prepare as module
from alexnet.data.chunks import Shelf, Target, prepared
from alexnet.data.decode import fit
from alexnet.data.listing import Listing
from alexnet.data.pack import Pack, open_splits
from alexnet.data.prepare import prepare
from alexnet.data.sources import list_source
from alexnet.errors import InputError
from tests.hostile import bomb
from tests.images import files, image_folder, jpeg, photograph, rejections, saved


@pytest.fixture
def source(tmp_path):
    return image_folder(tmp_path / "source")


def left(folder):
    return sorted(path.name for path in folder.iterdir())


# --- packs ----------------------------------------------------------------------------------------


def test_the_pack_holds_the_images_their_mean_and_their_colors(tmp_path, source):
    pack = Pack.open(prepare(source, tmp_path / "out", size=24))
    paths = [source / c / f"{i}.png" for c in "ab" for i in range(4)]
    images = pack.gather(range(8))
    assert np.array_equal(images, [np.asarray(fit(Image.open(path), 24)) for path in paths])
    assert pack.labels.tolist() == [0] * 4 + [1] * 4 and pack.classes == ["a", "b"]
    assert np.array_equal(pack.mean, images.astype(np.float64).mean(axis=0).astype(np.float32))
    covariance = np.cov(images.reshape(-1, 3).T.astype(np.float64), bias=True)
    np.testing.assert_allclose(pack.color["covariance"], covariance, rtol=1e-12)
    assert set(pack.manifest["decoders"]) >= {"pillow", "jpg", "numpy"}
    assert str(tmp_path) not in (pack.path / "manifest.json").read_text()
    pack.verify()


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_people_s_own_photographs_are_prepared_as_they_are_predicted(tmp_path, encoding):
    """Turned as their tags say; a square JPEG file of the pack's size is not taken as it is."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("cat", "n01440764"):
        for i, (width, height) in enumerate([(40, 30), (24, 24)]):
            file = tmp_path / name / "cat" / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(saved(photograph(width, height), exif=exif))
    options = {"size": 24, "encoding": encoding}
    own = Pack.open(prepare(tmp_path / "cat", tmp_path / "own", **options))
    (tmp_path / "n01440764" / "cat").rename(tmp_path / "n01440764" / "n01440764")
    synset = Pack.open(prepare(tmp_path / "n01440764", tmp_path / "synset", **options))
    predicted = inputs.pixels([tmp_path / "cat" / "cat" / f"{i}.jpg" for i in range(2)], 24).numpy()
    stored = np.rot90(predicted, axes=(1, 2))
    for pack, expected in ((own, predicted), (synset, stored)):
        difference = pack.gather(range(2)).astype(int) - expected
        assert np.abs(difference).mean() < (8 if encoding == "jpeg" else 0.1)
    assert np.abs(own.gather(range(2)).astype(int) - stored).mean() > 20
    assert own.manifest["options"]["orientation"] == "applied"
    assert "orientation" not in synset.manifest["options"]


def test_a_pack_of_unturned_photographs_is_not_that_of_turned_ones(tmp_path, source, monkeypatch):
    monkeypatch.setattr(Listing, "upright", False)
    prepare(source, tmp_path / "out", size=24)
    monkeypatch.undo()
    with pytest.raises(InputError, match="is not this source's pack with these options: remove it"):
        prepare(source, tmp_path / "out", size=24)


def test_workers_change_nothing(tmp_path, monkeypatch):
    image_folder(tmp_path / "source" / "train", sizes=[(20 + i, 30) for i in range(30)])
    image_folder(tmp_path / "source" / "val")
    monkeypatch.setattr(module, "CHUNK_BYTES", 3 * 16 * 16 * 7)  # chunks of seven
    for workers in (1, 2):
        prepare(tmp_path / "source", tmp_path / str(workers), size=16, workers=workers)
    assert files(tmp_path / "1") == files(tmp_path / "2")
    counts = {name: len(pack) for name, pack in open_splits(tmp_path / "2").items()}
    assert counts == {"train": 60, "val": 8}


def test_without_memory_to_share_pixels_come_through_the_pipe(tmp_path, source, monkeypatch):
    whole = Pack.open(prepare(source, tmp_path / "whole", size=8))
    monkeypatch.delattr(os, "memfd_create")
    pack = Pack.open(prepare(source, tmp_path / "out", size=8, skip_bad=True))
    assert pack.digest == whole.digest and np.array_equal(pack.mean, whole.mean)


@pytest.mark.parametrize("where", ["here", "there"])
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM, errno.ENOMEM, errno.EMFILE])
def test_memory_that_cannot_be_shared_is_done_without(tmp_path, source, monkeypatch, where, code):
    def failing(*_):
        raise OSError(code, os.strerror(code))

    whole = Pack.open(prepare(source, tmp_path / "whole", size=8))
    if where == "here":
        monkeypatch.setattr(os, "memfd_create", failing)
        out = prepare(source, tmp_path / "out", size=8, skip_bad=True)
    else:  # a worker that may not open what this process shares
        target, shelf = Target(8, False, "raw", 3, 9), Shelf(Target(8, False, "raw", 3, 9), 3)
        monkeypatch.setattr(chunks, "_in_worker", lambda _: None)
        images = list_source(source).splits["train"]
        made = [chunk.images.copy() for chunk in prepared(images, target, map, shelf)]
        assert np.array_equal(np.concatenate(made), whole.gather(range(8)))
        return
    assert Pack.open(out).digest == whole.digest


def test_native_takes_the_bytes_as_they_are(tmp_path):
    source = image_folder(tmp_path / "source", sizes=[(12, 12)] * 3)
    pack = Pack.open(prepare(source, tmp_path / "out", size="native"))
    assert pack.size == 12
    assert np.array_equal(pack.gather([4])[0], np.asarray(Image.open(source / "b" / "1.png")))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([(12, 12), (13, 13)], "1.png is 13x13, not 12x12"),
        ([(12, 13)], "0.png is 12x13, no square"),
    ],
)
def test_native_demands_one_size(tmp_path, sizes, message):
    image_folder(tmp_path / "source", sizes=sizes)
    with pytest.raises(InputError, match=message):
        prepare(tmp_path / "source", tmp_path / "out", size="native", skip_bad=True)
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_kept_or_refused(tmp_path, source, capsys):
    out = prepare(source, tmp_path / "out", size=8)
    stamp = (out / "manifest.json").stat().st_mtime_ns
    assert prepare(source, out, size=8) == out
    assert "prepared already" in capsys.readouterr().err
    assert (out / "manifest.json").stat().st_mtime_ns == stamp
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    for place, options in (
        (out, {"size": 9}),
        (out, {"size": 8, "skip_bad": True}),
        (tmp_path / "mine", {"size": 8}),
    ):
        with pytest.raises(InputError, match="exists already"):
            prepare(source, place, **options)
    assert (tmp_path / "mine" / "thesis.tex").exists()
    with pytest.raises(InputError, match="among the images"):
        prepare(source, source / "pack", size=8)
    photograph(9, 9).save(source / "a" / "new.png")
    with pytest.raises(InputError, match="exists already"):
        prepare(source, out, size=8)


@pytest.mark.parametrize("name", ["images-00000.npy", "mean.npy", "rejected.csv"])
@pytest.mark.parametrize("split", ["", "val"])
def test_a_damaged_pack_is_not_taken_for_prepared(tmp_path, name, split):
    """Gone, or cut short; what the message advises works."""
    for part in ("train", "val") if split else ("",):
        image_folder(tmp_path / "source" / part)
    path = prepare(tmp_path / "source", tmp_path / "out", size=8) / split / name
    whole = path.read_bytes()
    for damaged in [None] + [whole[:-9]] * (name != "rejected.csv"):
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        remedy = r"out is there, and of no use: .*: remove it, and prepare it again"
        with pytest.raises(InputError, match=remedy):
            prepare(tmp_path / "source", tmp_path / "out", size=8)
        shutil.rmtree(tmp_path / "out")
        prepare(tmp_path / "source", tmp_path / "out", size=8)
        assert path.read_bytes() == whole


def test_the_word_pictographs(tmp_path, monkeypatch, capsys):
    write, few = pictographs.write, {"classes": 2, "train": 3, "val": 1, "test": 1}
    monkeypatch.setattr(pictographs, "write", lambda out, **options: write(out, **few, **options))
    out = prepare("pictographs", tmp_path / "out", size=24)
    counts = {name: len(pack) for name, pack in open_splits(out).items()}
    assert counts == {"train": 6, "val": 2, "test": 2}
    assert left(tmp_path) == ["out"]
    prepare("pictographs", out, size=24)
    assert "prepared already" in capsys.readouterr().err
    with pytest.raises(InputError, match="native"):
        prepare("pictographs", tmp_path / "other", size="native")


# --- bad input ------------------------------------------------------------------------------------

BAD = {
    "empty.jpg": (b"", "no image that Pillow can read"),
    "text.jpg": (b"not an image", "no image that Pillow can read"),
    "truncated.jpg": (jpeg()[:-200], "truncated"),
    "bomb.png": (bomb(), "decompression bomb"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_stops_and_is_named(tmp_path, source, name):
    (source / "b" / name).write_bytes(BAD[name][0])
    message = rf"b/{name}: .*{BAD[name][1]}.*mend or remove it.*--skip-bad"
    with pytest.raises(InputError, match=message) as error:
        prepare(source, tmp_path / "out", size=8)
    assert "\n" not in str(error.value) and left(tmp_path) == ["source"]


def test_bad_images_can_be_left_out(tmp_path, source, capsys):
    good = Pack.open(prepare(source, tmp_path / "good", size=8))
    for name, (data, _) in BAD.items():
        (source / "a" / name).write_bytes(data)
    (source / "a" / "gone.jpg").symlink_to("nowhere")
    pack = Pack.open(prepare(source, tmp_path / "out", size=8, skip_bad=True))
    assert pack.digest == good.digest and np.array_equal(pack.mean, good.mean)
    rows = rejections(pack.path)
    assert list(rows) == sorted(f"a/{name}" for name in [*BAD, "gone.jpg"])
    assert all(reason in rows[f"a/{name}"] for name, (_, reason) in BAD.items())
    assert rows["a/gone.jpg"] == "No such file or directory"
    assert "left out 5 of 13" in capsys.readouterr().err


def test_a_class_of_which_nothing_is_left_is_named(tmp_path, source, capsys):
    for path in (source / "b").iterdir():
        path.write_bytes(b"")
    pack = Pack.open(prepare(source, tmp_path / "out", size=8, skip_bad=True))
    assert pack.classes == ["a", "b"]
    message = "train: no image is left of b, still a class of the pack"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("size", [8, "native"])
def test_only_bad_images(tmp_path, size):
    (tmp_path / "source" / "a").mkdir(parents=True)
    (tmp_path / "source" / "a" / "0.jpg").write_text("no")
    with pytest.raises(InputError, match="no readable image"):
        prepare(tmp_path / "source", tmp_path / "out", size=size, skip_bad=True)
    assert left(tmp_path) == ["source"]


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"size": -3},
        {"size": "big"},
        {"size": 10**6},
        {"workers": 0},
        {"limit": 0},
        {"encoding": "webp"},
        {"classes": []},
    ],
)
def test_bad_options(tmp_path, source, options):
    with pytest.raises(InputError, match=next(iter(options))):
        prepare(source, tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("workers", "deadly"), [(1, ["a/05-deadly.png"]), (2, ["a/05-deadly.png", "b/00-deadly.png"])]
)
def test_an_image_that_kills_its_process_is_left_out(tmp_path, monkeypatch, workers, deadly):
    """A crash of a decoder, or the system's killing of what takes too much memory, costs the image
    and not the work."""
    source = image_folder(tmp_path / "source", sizes=[(20, 20)] * 8)
    good = prepare(source, tmp_path / "good", size=8)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os\nopen_ = os.open\ndef opened(path, *args, **options):\n"
        "    if 'deadly' in str(path): os.abort()\n    return open_(path, *args, **options)\n"
        "os.open = opened\n"
    )
    for name in deadly:
        photograph(9, 9).save(source / name)
    paths = os.pathsep.join([str(tmp_path / "site"), *sys.path])
    monkeypatch.setenv("PYTHONPATH", paths)  # for the spawned
    monkeypatch.setattr(module, "CHUNK_BYTES", 3 * 8 * 8 * 5)
    pack = Pack.open(prepare(source, tmp_path / "out", size=8, skip_bad=True, workers=workers))
    assert pack.digest == Pack.open(good).digest
    assert rejections(pack.path) == dict.fromkeys(deadly, "the process that read it died")


def test_images_that_come_or_go_meanwhile(tmp_path, source, monkeypatch):
    prepared = module.prepared

    def removing(*arguments):
        (source / "b" / "3.png").unlink()
        yield from prepared(*arguments)

    monkeypatch.setattr(module, "prepared", removing)
    with pytest.raises(InputError, match="changed meanwhile, 8 images in train, then 7"):
        prepare(source, tmp_path / "out", size=8)
    assert left(tmp_path) == ["source"]


# --- the forecast ---------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_refused_beforehand(tmp_path, source, monkeypatch):
    usage = shutil._ntuple_diskusage(10**12, 0, 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    what = "out needs 26.2 MB more, and the disk has 1.0 MB left"
    remedy = "make room, choose another place, or take less by --limit or --classes"
    with pytest.raises(InputError, match=f"{what}: {remedy}, or --encoding jpeg"):
        prepare(source, tmp_path / "out", size=1024)
    assert left(tmp_path) == ["source"]


def test_what_it_will_take_is_said_beforehand(tmp_path, capsys):
    image_folder(tmp_path / "source", sizes=[(9, 9)] * 500)
    prepare(tmp_path / "source", tmp_path / "out", size=8)
    time = r"about \d+ seconds? with 1 worker\n"
    message = rf"{tmp_path}/out: 1,000 images, 1.2 MB of [\d,.]+ GB free, {time}"
    assert re.search(message, capsys.readouterr().err)


# --- JPEG -----------------------------------------------------------------------------------------


def test_jpeg_packs_hold_files_and_give_pixels(tmp_path):
    source = image_folder(tmp_path / "source", sizes=[(100, 80)] * 5)
    (source / "b" / "4.png").unlink()
    own, gray = jpeg(64, 64), saved(photograph(64, 64).convert("L"))
    (source / "b" / "5.jpg").write_bytes(own)  # of this size already: kept as it is
    (source / "b" / "6.jpg").write_bytes(gray)
    raw = Pack.open(prepare(source, tmp_path / "raw", size=64))
    pack = Pack.open(prepare(source, tmp_path / "jpeg", size=64, encoding="jpeg"))
    assert (raw.encoding, pack.encoding, len(pack)) == ("raw", "jpeg", 11)
    assert pack.digest != raw.digest and pack.manifest["version"] == 2
    assert pack.manifest["options"]["quality"] == 90
    before, after = raw.gather(range(11)), pack.gather(range(11))
    errors = ((before.astype(float) - after) ** 2).mean((1, 2, 3)).clip(1e-9)
    assert (10 * np.log10(255**2 / errors)).min() > 35 and np.array_equal(before[9:], after[9:])
    assert (pack.path / "images-00000.jpegs").read_bytes().endswith(own + gray)
    # Of what it gives, not of the source.
    assert np.array_equal(pack.mean, after.astype(np.float64).mean(axis=0).astype(np.float32))
    assert sum(path.stat().st_size for path in pack.path.glob("images-*")) < before.nbytes / 4
    order = np.array([7, 0, 10, 7])
    buffer = np.empty((4, 64, 64, 3), np.uint8)
    assert pack.gather(order, buffer) is buffer and np.array_equal(buffer, after[order])
    pack.verify()
    assert np.array_equal(pickle.loads(pickle.dumps(pack)).gather([3]), after[[3]])


def test_jpeg_packs_in_shards_and_damaged(tmp_path, monkeypatch):
    source = image_folder(tmp_path / "source", sizes=[(30, 30)] * 9)
    whole = Pack.open(prepare(source, tmp_path / "whole", size=24, encoding="jpeg"))
    monkeypatch.setattr(pack_writer, "SHARD_BYTES", 2500)
    pack = Pack.open(prepare(source, tmp_path / "shards", size=24, encoding="jpeg"))
    assert len(pack.manifest["shards"]) > 3
    assert json.loads((pack.path / "manifest.json").read_text())["count"] == 18
    assert np.array_equal(pack.gather(range(18)), whole.gather(range(18)))
    offsets = np.load(pack.path / "offsets.npy")
    np.save(pack.path / "offsets.npy", offsets[:-1])
    with pytest.raises(InputError, match="contradicts its own manifest"):
        Pack.open(pack.path)
    np.save(pack.path / "offsets.npy", np.r_[offsets[:3], offsets[3] + 1, offsets[4:]])
    with pytest.raises(InputError, match=r"offsets.npy is not what"):
        Pack.open(pack.path).verify()
