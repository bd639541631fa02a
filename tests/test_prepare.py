import csv
import io
import os
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from alexnet.data import prepare as module
from alexnet.data.pack import Pack, open_splits
from alexnet.data.prepare import fit, prepare, to_rgb
from alexnet.errors import InputError


def photograph(width, height, seed=0):
    """Smooth noise in color, RGB."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def make(root, sizes=((40, 30), (30, 40), (33, 33), (20, 61)), classes=("a", "b")):
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i, (width, height) in enumerate(sizes):
            photograph(width, height, seed=10 * c + i).save(root / name / f"{i}.png")
    return root


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- geometry and color -------------------------------------------------------------------------------------------------------------------


def weights(length, new_length, begin, count):
    """Antialiased bicubic (a = -1/2) weights (count, length) of pixels begin..begin+count of a line of `length` scaled to `new_length`."""
    scale = length / new_length
    support = max(scale, 1.0)
    distance = np.abs((np.arange(length) + 0.5) - (begin + np.arange(count)[:, None] + 0.5) * scale) / support
    near, far = 1.5 * distance**3 - 2.5 * distance**2 + 1, -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    w = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return w / w.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("width", "height", "new_width", "new_height", "left", "top"),
    [
        (100, 60, 53, 32, 10, 0),  # 53.33 down
        (60, 101, 32, 54, 0, 11),  # 53.87 up
        (40, 65, 32, 52, 0, 10),
        (64, 33, 62, 32, 15, 0),
        (20, 25, 32, 40, 0, 4),  # enlarged
        (64, 67, 32, 34, 0, 1),  # 33.5: halves up; an odd rest goes below
        (10, 10, 32, 32, 0, 0),
    ],
)
def test_short_side_is_scaled_and_the_center_cropped(width, height, new_width, new_height, left, top):
    image = photograph(width, height)
    pixels = np.asarray(image, np.float64)
    # Pillow goes along the rows, rounds to 8 bits, and goes along the columns.
    across = np.einsum("xj,ijc->ixc", weights(width, new_width, left, 32), pixels).round().clip(0, 255)
    expected = np.einsum("yi,ixc->yxc", weights(height, new_height, top, 32), across).round().clip(0, 255)
    got = np.asarray(fit(image, 32), np.float64)
    assert got.shape == (32, 32, 3)
    assert np.abs(got - expected).max() <= 1 and (got == expected).mean() > 0.99  # its weights have 22 bits


def test_a_fitting_side_is_cropped_and_not_touched():
    image = photograph(45, 32)
    assert np.array_equal(np.asarray(fit(image, 32)), np.asarray(image)[:, 6:38])
    image = photograph(32, 32)
    assert np.array_equal(np.asarray(fit(image, 32)), np.asarray(image))


def test_extreme_proportions_cost_no_memory():
    assert fit(Image.new("RGB", (900, 1), (9, 9, 9)), 256).getpixel((0, 0)) == (9, 9, 9)
    with pytest.raises(ValueError, match="60000x1 is too narrow"):
        fit(Image.new("RGB", (60_000, 1)), 256)


def test_every_mode_becomes_rgb():
    gray = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    repeated = np.repeat(np.asarray(gray)[:, :, None], 3, axis=2)
    assert np.array_equal(np.asarray(to_rgb(gray)), repeated)
    deep = Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 256 + 77)
    assert np.array_equal(np.asarray(to_rgb(deep)), repeated)
    clear = Image.new("RGBA", (2, 1), (200, 100, 50, 255))
    clear.putpixel((1, 0), (200, 100, 50, 51))
    assert np.asarray(to_rgb(clear)).tolist() == [[[200, 100, 50], [40, 20, 10]]]
    assert np.asarray(to_rgb(Image.new("LA", (1, 1), (200, 51)))).tolist() == [[[40, 40, 40]]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert np.asarray(to_rgb(palette)).tolist() == [[[1, 2, 3], [40, 50, 60]]]
    palette.info["transparency"] = 1
    assert np.asarray(to_rgb(palette)).tolist() == [[[1, 2, 3], [0, 0, 0]]]
    assert np.asarray(to_rgb(Image.new("CMYK", (1, 1), (0, 255, 255, 0)))).tolist() == [[[255, 0, 0]]]
    assert np.asarray(to_rgb(Image.new("1", (1, 1), 1))).tolist() == [[[255, 255, 255]]]
    with pytest.raises(ValueError, match="floating-point"):
        to_rgb(Image.new("F", (1, 1)))


# --- packs --------------------------------------------------------------------------------------------------------------------------------


def test_the_pack_holds_the_images_their_mean_and_their_colors(tmp_path):
    make(tmp_path / "source")
    pack = Pack.open(prepare(tmp_path / "source", tmp_path / "out", size=24))
    expected = [np.asarray(fit(Image.open(tmp_path / "source" / c / f"{i}.png"), 24)) for c in "ab" for i in range(4)]
    images = pack.gather(range(8))
    assert np.array_equal(images, expected)
    assert pack.labels.tolist() == [0] * 4 + [1] * 4 and pack.classes == ["a", "b"]
    assert np.array_equal(pack.mean, images.astype(np.float64).mean(axis=0).astype(np.float32))
    np.testing.assert_allclose(pack.color["covariance"], np.cov(images.reshape(-1, 3).T.astype(np.float64), bias=True), rtol=1e-12)
    assert set(pack.manifest["decoders"]) >= {"pillow", "jpg", "numpy"}
    assert str(tmp_path) not in (pack.path / "manifest.json").read_text()
    pack.verify()


def test_workers_change_nothing(tmp_path, monkeypatch):
    make(tmp_path / "source" / "train", sizes=[(20 + i, 30) for i in range(30)])
    make(tmp_path / "source" / "val")
    monkeypatch.setattr(module, "CHUNK_BYTES", 3 * 16 * 16 * 7)  # chunks of seven
    for workers in (1, 2):
        prepare(tmp_path / "source", tmp_path / str(workers), size=16, workers=workers)
    assert files(tmp_path / "1") == files(tmp_path / "2")
    assert {name: len(pack) for name, pack in open_splits(tmp_path / "2").items()} == {"train": 60, "val": 8}


def test_native_takes_the_bytes_as_they_are(tmp_path):
    make(tmp_path / "source", sizes=[(12, 12)] * 3)
    pack = Pack.open(prepare(tmp_path / "source", tmp_path / "out", size="native"))
    assert pack.size == 12
    assert np.array_equal(pack.gather([4])[0], np.asarray(Image.open(tmp_path / "source" / "b" / "1.png")))


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([(12, 12), (13, 13)], "1.png is 13x13, not 12x12"),
        ([(12, 13)], "0.png is 12x13, no square"),
    ],
)
def test_native_demands_one_size(tmp_path, sizes, said):
    make(tmp_path / "source", sizes=sizes)
    with pytest.raises(InputError, match=said):
        prepare(tmp_path / "source", tmp_path / "out", size="native", skip_bad=True)
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_kept_or_refused(tmp_path, capsys):
    make(tmp_path / "source")
    out = prepare(tmp_path / "source", tmp_path / "out", size=8)
    stamp = (out / "manifest.json").stat().st_mtime_ns
    assert prepare(tmp_path / "source", out, size=8) == out
    assert "prepared already" in capsys.readouterr().err and (out / "manifest.json").stat().st_mtime_ns == stamp
    for change in ({"size": 9}, {"size": 8, "skip_bad": True}):
        with pytest.raises(InputError, match="exists already"):
            prepare(tmp_path / "source", out, **change)
    photograph(9, 9).save(tmp_path / "source" / "a" / "new.png")
    with pytest.raises(InputError, match="exists already"):
        prepare(tmp_path / "source", out, size=8)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="exists already"):
        prepare(tmp_path / "source", tmp_path / "mine", size=8)
    assert (tmp_path / "mine" / "thesis.tex").exists()
    with pytest.raises(InputError, match="among the images"):
        prepare(tmp_path / "source", tmp_path / "source" / "pack", size=8)


def test_the_word_pictographs(tmp_path, monkeypatch, capsys):
    from alexnet.data import pictographs

    write = pictographs.write
    monkeypatch.setattr(pictographs, "write", lambda out, **options: write(out, classes=2, train=3, val=1, test=1, **options))
    out = prepare("pictographs", tmp_path / "out", size=24)
    assert {name: len(pack) for name, pack in open_splits(out).items()} == {"train": 6, "val": 2, "test": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    prepare("pictographs", out, size=24)
    assert "prepared already" in capsys.readouterr().err
    with pytest.raises(InputError, match="native"):
        prepare("pictographs", tmp_path / "other", size="native")


# --- bad input ----------------------------------------------------------------------------------------------------------------------------


def bomb():
    """A PNG of 30000 x 30000 black pixels in about a megabyte."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (30_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def jpeg(width=40, height=40):
    buffer = io.BytesIO()
    photograph(width, height).save(buffer, "JPEG")
    return buffer.getvalue()


BAD = {
    "empty.jpg": (b"", "no image that Pillow can read"),
    "text.jpg": (b"not an image", "no image that Pillow can read"),
    "truncated.jpg": (jpeg()[:-200], "truncated"),
    "bomb.png": (bomb(), "decompression bomb"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_stops_and_is_named(tmp_path, name):
    make(tmp_path / "source")
    (tmp_path / "source" / "b" / name).write_bytes(BAD[name][0])
    with pytest.raises(InputError, match=f"b/{name}: .*{BAD[name][1]}.*mend or remove it.*--skip-bad") as error:
        prepare(tmp_path / "source", tmp_path / "out", size=8)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_bad_images_can_be_left_out(tmp_path, capsys):
    make(tmp_path / "source")
    good = Pack.open(prepare(tmp_path / "source", tmp_path / "good", size=8))
    for name, (data, _) in BAD.items():
        (tmp_path / "source" / "a" / name).write_bytes(data)
    (tmp_path / "source" / "a" / "gone.jpg").symlink_to("nowhere")
    pack = Pack.open(prepare(tmp_path / "source", tmp_path / "out", size=8, skip_bad=True))
    assert pack.digest == good.digest and np.array_equal(pack.mean, good.mean)
    with open(pack.path / "rejected.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "reason"] and [row[0] for row in rows[1:]] == sorted(f"a/{name}" for name in [*BAD, "gone.jpg"])
    reasons = {row[0][2:]: row[1] for row in rows[1:]}
    assert all(said in reasons[name] for name, (_, said) in BAD.items()) and reasons["gone.jpg"] == "No such file or directory"
    assert "left out 5 of 13" in capsys.readouterr().err


@pytest.mark.parametrize("size", [8, "native"])
def test_only_bad_images(tmp_path, size):
    (tmp_path / "source" / "a").mkdir(parents=True)
    (tmp_path / "source" / "a" / "0.jpg").write_text("no")
    with pytest.raises(InputError, match="no readable image"):
        prepare(tmp_path / "source", tmp_path / "out", size=size, skip_bad=True)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("options", [{"size": 0}, {"size": -3}, {"size": "big"}, {"size": 10**6}, {"workers": 0}])
def test_bad_options(tmp_path, options):
    with pytest.raises(InputError, match=next(iter(options))):
        prepare(make(tmp_path / "source"), tmp_path / "out", **options)


LARGE = jpeg(600, 500)


def test_a_kill_leaves_no_pack_and_no_processes_and_the_next_run_sweeps(tmp_path):
    (tmp_path / "source" / "a").mkdir(parents=True)
    for i in range(400):
        (tmp_path / "source" / "a" / f"{i:03d}.jpg").write_bytes(LARGE)
    script = tmp_path / "script.py"
    script.write_text(
        "from alexnet.data import prepare\n"
        f"if __name__ == '__main__':\n    prepare.CHUNK_BYTES = 3 * 256 * 256\n"
        f"    prepare.prepare({str(tmp_path / 'source')!r}, {str(tmp_path / 'out')!r}, workers=2)\n"
    )
    process = subprocess.Popen([sys.executable, script], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    deadline = time.monotonic() + 60
    while not (shards := [*tmp_path.glob(".out.partial-*/images-*")]) or shards[0].stat().st_size < 10 * 3 * 256 * 256:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()
    assert len(children) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists() and len([*tmp_path.glob(".out.partial-*")]) == 1
    while any(os.path.exists(f"/proc/{child}") for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    make(tmp_path / "small")
    prepare(tmp_path / "small", tmp_path / "out", size=8)
    assert not [*tmp_path.glob(".out.partial-*")] and len(Pack.open(tmp_path / "out")) == 8
