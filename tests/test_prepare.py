import contextlib
import csv
import errno
import fcntl
import functools
import io
import json
import math
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet import processes
from alexnet.data import prepare as module
from alexnet.data.decode import fit, to_rgb
from alexnet.data.pack import Pack, open_splits
from alexnet.data.pack_writer import PackWriter
from alexnet.data.prepare import prepare
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
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- geometry and color -------------------------------------------------------------------------------------------------------------------


def weights(length, new_length, begin, count):
    """Antialiased bicubic (a = -1/2) weights (count, length) of pixels begin..begin+count of a line of `length` scaled to `new_length`."""
    scale = length / new_length
    support = max(scale, 1.0)
    distance = (
        np.abs((np.arange(length) + 0.5) - (begin + np.arange(count)[:, None] + 0.5) * scale)
        / support
    )
    near, far = (
        1.5 * distance**3 - 2.5 * distance**2 + 1,
        -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2,
    )
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
def test_short_side_is_scaled_and_the_center_cropped(
    width, height, new_width, new_height, left, top
):
    check(photograph(width, height), 32, new_width, new_height, left, top)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 70), st.integers(0, 99))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_size(width, height, size, seed):
    """The same for noise, of which every pixel counts, at sizes from enlarging one pixel to shrinking ninety."""
    image = Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    )
    scale = Fraction(size, min(width, height))
    new_width, new_height = (
        math.floor(width * scale + Fraction(1, 2)),
        math.floor(height * scale + Fraction(1, 2)),
    )
    check(image, size, new_width, new_height, (new_width - size) // 2, (new_height - size) // 2)


def check(image, size, new_width, new_height, left, top):
    """Against float64, on our own: one direction after the other, each rounded to 8 bits. Which is first is Pillow's choice: 13 takes what
    costs less, older ones the rows."""
    pixels = np.asarray(image, np.float64)
    height, width, _ = pixels.shape
    got = np.asarray(fit(image, size), np.float64)
    assert got.shape == (size, size, 3)
    if min(width, height) == size:
        assert np.array_equal(got, pixels[top : top + size, left : left + size])
        return
    rows = functools.partial(np.einsum, "xj,ijc->ixc", weights(width, new_width, left, size))
    columns = functools.partial(np.einsum, "yi,ixc->yxc", weights(height, new_height, top, size))
    differences = []
    for first, second in ((rows, columns), (columns, rows)):
        expected = np.floor(second(np.floor(first(pixels) + 0.5).clip(0, 255)) + 0.5).clip(0, 255)
        differences.append(np.abs(got - expected))
    best = min(differences, key=np.sum)
    # Its weights have 22 bits. Where the first rounding is a tie, the second may differ by two.
    assert best.max() <= 2 and (best > 0).mean() < 0.01 + 1.5 / best.size


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
    clear = Image.open(saved(deep, "PNG", transparency=200 * 256 + 77))
    assert np.array_equal(np.asarray(to_rgb(clear)), np.where(repeated == 200, 0, repeated))
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
    assert np.asarray(to_rgb(Image.new("CMYK", (1, 1), (0, 255, 255, 0)))).tolist() == [
        [[255, 0, 0]]
    ]
    assert np.asarray(to_rgb(Image.new("1", (1, 1), 1))).tolist() == [[[255, 255, 255]]]
    with pytest.raises(ValueError, match="floating-point"):
        to_rgb(Image.new("F", (1, 1)))


def test_cmyk_is_the_product_of_what_ink_leaves():
    inks = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    white = 255.0 - inks
    expected = (white[:, :, :3] * white[:, :, 3:] / 255).round()
    assert np.abs(np.asarray(to_rgb(Image.fromarray(inks, "CMYK")), float) - expected).max() <= 1
    assert np.array_equal(
        np.asarray(to_rgb(Image.fromarray(inks[:, :, :3] // 255 * 255, "RGB"))),
        inks[:, :, :3] // 255 * 255,
    )


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer


def test_files_of_every_mode_through_the_whole_way(tmp_path):
    """What decoders make of them is what the pack holds: gray JPEG, CMYK JPEG of Adobe's kind, PNG of 16 bits, palettes, alpha."""
    (tmp_path / "source" / "a").mkdir(parents=True)
    rgb = photograph(32, 32)
    pixels, gray = np.asarray(rgb), rgb.convert("L")
    deep = (np.asarray(gray).astype(np.uint16) << 8) + 200
    files = {
        "0 rgb.png": saved(rgb, "PNG"),
        "1 gray.jpg": saved(gray, "JPEG", quality=100),
        "2 cmyk.jpg": saved(
            Image.fromarray(np.dstack([255 - pixels, np.zeros((32, 32), np.uint8)]), "CMYK"),
            "JPEG",
            quality=100,
        ),
        "3 deep.png": saved(Image.fromarray(deep), "PNG"),
        "4 palette.gif": saved(
            gray.convert("P", palette=Image.Palette.ADAPTIVE, colors=256), "GIF"
        ),
        "5 alpha.png": saved(
            Image.fromarray(np.dstack([pixels, np.full((32, 32), 255, np.uint8)]), "RGBA"), "PNG"
        ),
        "6 bilevel.png": saved(Image.fromarray(np.asarray(gray) > 127), "PNG"),
        "7 tiff.tif": saved(rgb, "TIFF", compression="tiff_lzw"),
        "8 webp.webp": saved(rgb, "WEBP", lossless=True),
    }
    for name, buffer in files.items():
        (tmp_path / "source" / "a" / name).write_bytes(buffer.getvalue())
    images = (
        Pack.open(prepare(tmp_path / "source", tmp_path / "out", size=32))
        .gather(range(9))
        .astype(int)
    )
    grays = np.repeat(np.asarray(gray)[:, :, None], 3, axis=2).astype(int)
    bilevel = np.where(grays > 127, 255, 0)
    for index, (expected, most) in enumerate(
        [
            (pixels, 0),
            (grays, 3),
            (pixels, 24),
            (grays, 0),
            (grays, 0),
            (pixels, 0),
            (bilevel, 0),
            (pixels, 0),
            (pixels, 0),
        ]
    ):
        assert np.abs(images[index] - expected).max() <= most, index


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
def test_an_image_lies_as_its_rows_are_stored(tmp_path, kind):
    """Orientation tags are not looked at."""
    image, options = (
        photograph(40, 32),
        {"quality": 100} if kind == "jpg" else {"lossless": True} if kind == "webp" else {},
    )
    (tmp_path / "source" / "a").mkdir(parents=True)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / "source" / "a" / f"{orientation}.{kind}"
        image.save(path, exif=exif, **options)
        assert Image.open(path).getexif()[0x0112] == orientation
    images = Pack.open(prepare(tmp_path / "source", tmp_path / "out", size=32)).gather(range(8))
    assert np.abs(images[0].astype(int) - np.asarray(image)[:, 4:36]).max() <= (
        24 if kind == "jpg" else 0
    )
    assert (images == images[0]).all()


# --- packs --------------------------------------------------------------------------------------------------------------------------------


def test_the_pack_holds_the_images_their_mean_and_their_colors(tmp_path):
    make(tmp_path / "source")
    pack = Pack.open(prepare(tmp_path / "source", tmp_path / "out", size=24))
    expected = [
        np.asarray(fit(Image.open(tmp_path / "source" / c / f"{i}.png"), 24))
        for c in "ab"
        for i in range(4)
    ]
    images = pack.gather(range(8))
    assert np.array_equal(images, expected)
    assert pack.labels.tolist() == [0] * 4 + [1] * 4 and pack.classes == ["a", "b"]
    assert np.array_equal(pack.mean, images.astype(np.float64).mean(axis=0).astype(np.float32))
    np.testing.assert_allclose(
        pack.color["covariance"],
        np.cov(images.reshape(-1, 3).T.astype(np.float64), bias=True),
        rtol=1e-12,
    )
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
    assert {name: len(pack) for name, pack in open_splits(tmp_path / "2").items()} == {
        "train": 60,
        "val": 8,
    }


def _environment(name: str) -> tuple[int, str | None]:
    time.sleep(0.2)  # so that each process gets one to do
    return os.getpid(), os.environ.get(name)


def test_every_worker_is_sparing(monkeypatch):
    """And the environment of this process is what it was."""
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with processes.process_pool(3) as ordered_map:
        found = [dict(ordered_map(_environment, [name] * 9)) for name in processes.SPARING]
    assert [set(each.values()) for each in found] == [
        {value} for value in processes.SPARING.values()
    ]
    assert max(len(each) for each in found) == 3
    assert os.environ["MKL_NUM_THREADS"] == "7" and "OPENBLAS_NUM_THREADS" not in os.environ


def test_native_takes_the_bytes_as_they_are(tmp_path):
    make(tmp_path / "source", sizes=[(12, 12)] * 3)
    pack = Pack.open(prepare(tmp_path / "source", tmp_path / "out", size="native"))
    assert pack.size == 12
    assert np.array_equal(
        pack.gather([4])[0], np.asarray(Image.open(tmp_path / "source" / "b" / "1.png"))
    )


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
    assert (
        "prepared already" in capsys.readouterr().err
        and (out / "manifest.json").stat().st_mtime_ns == stamp
    )
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


@pytest.mark.parametrize("name", ["images-00000.npy", "mean.npy", "rejected.csv"])
@pytest.mark.parametrize("split", ["", "val"])
def test_a_damaged_pack_is_not_taken_for_prepared(tmp_path, name, split):
    """Gone, or cut short; what the message advises works."""
    for part in ("train", "val") if split else ("",):
        make(tmp_path / "source" / part)
    path = prepare(tmp_path / "source", tmp_path / "out", size=8) / split / name
    whole = path.read_bytes()
    for left in [None] + [whole[:-9]] * (name != "rejected.csv"):
        path.unlink()
        if left is not None:
            path.write_bytes(left)
        with pytest.raises(
            InputError, match=r"out is there, and of no use: .*: remove it, and prepare it again"
        ):
            prepare(tmp_path / "source", tmp_path / "out", size=8)
        shutil.rmtree(tmp_path / "out")
        assert (
            prepare(tmp_path / "source", tmp_path / "out", size=8) / split / name
        ).read_bytes() == whole


def test_the_word_pictographs(tmp_path, monkeypatch, capsys):
    from alexnet.data import pictographs

    write = pictographs.write
    monkeypatch.setattr(
        pictographs,
        "write",
        lambda out, **options: write(out, classes=2, train=3, val=1, test=1, **options),
    )
    out = prepare("pictographs", tmp_path / "out", size=24)
    assert {name: len(pack) for name, pack in open_splits(out).items()} == {
        "train": 6,
        "val": 2,
        "test": 2,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    prepare("pictographs", out, size=24)
    assert "prepared already" in capsys.readouterr().err
    with pytest.raises(InputError, match="native"):
        prepare("pictographs", tmp_path / "other", size="native")


# --- bad input ----------------------------------------------------------------------------------------------------------------------------


def bomb():
    """A PNG of 30000 x 30000 black pixels in about a megabyte."""

    def chunk(kind, data):
        return (
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        )

    header = (30_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


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
    with pytest.raises(
        InputError, match=f"b/{name}: .*{BAD[name][1]}.*mend or remove it.*--skip-bad"
    ) as error:
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
    assert rows[0] == ["path", "reason"] and [row[0] for row in rows[1:]] == sorted(
        f"a/{name}" for name in [*BAD, "gone.jpg"]
    )
    reasons = {row[0][2:]: row[1] for row in rows[1:]}
    assert (
        all(said in reasons[name] for name, (_, said) in BAD.items())
        and reasons["gone.jpg"] == "No such file or directory"
    )
    assert "left out 5 of 13" in capsys.readouterr().err


def test_a_class_of_which_nothing_is_left_is_named(tmp_path, capsys):
    make(tmp_path / "source")
    for path in (tmp_path / "source" / "b").iterdir():
        path.write_bytes(b"")
    pack = Pack.open(prepare(tmp_path / "source", tmp_path / "out", size=8, skip_bad=True))
    assert (
        pack.classes == ["a", "b"]
        and "train: no image is left of b, still a class of the pack" in capsys.readouterr().err
    )


@pytest.mark.parametrize("size", [8, "native"])
def test_only_bad_images(tmp_path, size):
    (tmp_path / "source" / "a").mkdir(parents=True)
    (tmp_path / "source" / "a" / "0.jpg").write_text("no")
    with pytest.raises(InputError, match="no readable image"):
        prepare(tmp_path / "source", tmp_path / "out", size=size, skip_bad=True)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    "options",
    [{"size": 0}, {"size": -3}, {"size": "big"}, {"size": 10**6}, {"workers": 0}, {"classes": []}],
)
def test_bad_options(tmp_path, options):
    with pytest.raises(InputError, match=next(iter(options))):
        prepare(make(tmp_path / "source"), tmp_path / "out", **options)


# --- stopped and continued ----------------------------------------------------------------------------------------------------------------

LARGE = jpeg(600, 500)
SCRIPT = """
from alexnet.data import pack_writer, prepare

if __name__ == "__main__":
    prepare.CHUNK_BYTES, prepare.CHECKPOINT_SECONDS = 3 * 64 * 64 * 6, 0.0
    pack_writer.PackWriter.__init__.__defaults__ = (3 * 64 * 64 * 50, "raw")  # shards of fifty
    prepare.prepare({source!r}, {out!r}, size=64, workers={workers}, skip_bad=True, encoding={encoding!r})
"""


@pytest.mark.parametrize(("encoding", "workers"), [("raw", 2), ("jpeg", 1)])
def test_killed_again_and_again_and_continued(tmp_path, encoding, workers):
    """Killed at any moment, with no warning: the finished pack is that of an undisturbed run, byte for byte, and nothing else is left."""
    for split, count in (("train", 160), ("val", 80)):
        (tmp_path / "source" / split / "a").mkdir(parents=True)
        for i in range(count):
            data = LARGE[:-200] if i % 37 == 5 else jpeg(70 + i % 30, 90) if i % 2 else LARGE
            (tmp_path / "source" / split / "a" / f"{i:03d}.jpg").write_bytes(data)
        (tmp_path / "source" / split / "a" / "notes.txt").write_text("")
    out = {name: tmp_path / name / "out" for name in ("whole", "pieces")}
    runs = {}
    for name, path in out.items():
        path.parent.mkdir()
        runs[name] = tmp_path / f"{name}.py"
        runs[name].write_text(
            SCRIPT.format(
                source=str(tmp_path / "source"), out=str(path), workers=workers, encoding=encoding
            )
        )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, runs["whole"]], env=environment, check=True, capture_output=True
    )
    work, kills, said = out["pieces"].parent / ".out.partial", 0, []
    while not out["pieces"].exists():
        process = subprocess.Popen(
            [sys.executable, runs["pieces"]], env=environment, stderr=subprocess.PIPE, text=True
        )
        before, wait, deadline = _progress(work), 5 + 90 * kills, time.monotonic() + 60
        while process.poll() is None and (kills == 2 or _progress(work) < before + wait):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
        ).stdout.split()
        process.send_signal(signal.SIGKILL)
        said.append(process.communicate()[1])
        kills += process.returncode == -signal.SIGKILL
        assert kills < 3
        while any(os.path.exists(f"/proc/{child}") for child in children):  # the workers follow
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert kills == 2 and all("going on with" in text for text in said[1:])
    assert files(out["pieces"]) == files(out["whole"]) and not work.exists()
    packs = open_splits(out["pieces"])
    assert (
        len(packs["train"]) == 155
        and len((out["pieces"] / "train" / "rejected.csv").read_text().splitlines()) == 1 + 5 + 1
    )
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


def interrupted(source, out, at=7, error=KeyboardInterrupt, every=1, **options):
    """Prepares chunk by chunk, every so many with a checkpoint, until image `at`."""
    append, count = PackWriter.append, 0

    def appending(*arguments):
        nonlocal count
        count += 1
        module.CHECKPOINT_SECONDS = 1e9 if count % every else 0.0
        if count == at:
            raise error
        append(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackWriter, "append", appending)
        patch.setattr(module, "CHUNK_BYTES", 1)
        patch.setattr(module, "CHECKPOINT_SECONDS", 0.0)
        with pytest.raises(error) as stopped:
            prepare(source, out, **{"size": 8, "workers": 1} | options)
    return stopped.value


def test_partial_work_is_continued_only_by_the_same_work(tmp_path, capsys):
    source = make(tmp_path / "source")
    stopped = interrupted(source, tmp_path / "out")
    assert (
        str(stopped)
        == f"stopped; 6 of 8 images of {tmp_path / 'out'} are kept, and the same command goes on from there"
    )
    work = tmp_path / ".out.partial"
    assert work.exists() and not (tmp_path / "out").exists()
    kept, refused = (
        files(work),
        r"\.out\.partial holds a part of .*out that was made of other images, with other options, .*: give those",
    )
    with pytest.raises(InputError, match=refused):
        prepare(source, tmp_path / "out", size=9)
    (source / "b" / "4.png").write_bytes((source / "b" / "3.png").read_bytes())
    with pytest.raises(InputError, match=refused):
        prepare(source, tmp_path / "out", size=8)
    assert files(work) == kept
    (source / "b" / "4.png").unlink()
    prepare(source, tmp_path / "out", size=8)
    assert (
        "going on" in capsys.readouterr().err and not work.exists() and (tmp_path / "out").exists()
    )
    interrupted(source, tmp_path / "two", skip_bad=True)
    with pytest.raises(InputError, match=r"two\.partial holds a part"):
        prepare(
            source, tmp_path / "two", size=8
        )  # what was skipped until now would have stopped it
    shutil.rmtree(tmp_path / ".two.partial")
    (source / "b" / "3.png").write_bytes(b"no image any more")
    interrupted(source, tmp_path / "three")
    with pytest.raises(InputError, match=r"3.png: no image .*--skip-bad"):
        prepare(source, tmp_path / "three", size=8)
    assert (tmp_path / ".three.partial").exists()
    prepare(source, tmp_path / "three", size=8, skip_bad=True)
    assert (
        capsys.readouterr().err.count(
            f"going on with {tmp_path / 'three'}, of which 6 of 8 images are done"
        )
        == 2
    )
    assert len(Pack.open(tmp_path / "three")) == 7


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("images-00000.npy", lambda data: data[:200], "images-00000.npy has 200 bytes instead of"),
        (
            "images-00000.npy",
            lambda data: data[:150] + bytes([data[150] ^ 1]) + data[151:],
            "images-00000.npy is not as it was left",
        ),
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
def test_a_damaged_checkpoint_is_none(tmp_path, capsys, name, damage, said):
    source = make(tmp_path / "source")
    interrupted(source, tmp_path / "out")
    (path,) = (tmp_path / ".out.partial" / "pack").glob(name)
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    prepare(source, tmp_path / "out", size=8)
    told = capsys.readouterr().err
    assert (
        re.search(rf"\.out\.partial/pack was left damaged \(.*{said}.*\): it is begun anew", told)
        and "going on" not in told
    )
    assert files(tmp_path / "out") == files(prepare(source, tmp_path / "whole", size=8))
    assert not (tmp_path / ".out.partial").exists()


@pytest.mark.parametrize("name", ["images-00000.npy", "manifest.json", "mean.npy"])
def test_a_split_that_was_done_and_is_damaged_is_begun_anew(tmp_path, capsys, name):
    make(tmp_path / "source" / "train")
    make(tmp_path / "source" / "val")
    interrupted(tmp_path / "source", tmp_path / "out", at=11)
    (tmp_path / ".out.partial" / "pack" / "train" / name).write_bytes(b"")
    prepare(tmp_path / "source", tmp_path / "out", size=8)
    assert (
        "pack/train was left damaged" in (told := capsys.readouterr().err)
        and "2 of 16 images are done" in told
    )
    assert files(tmp_path / "out") == files(
        prepare(tmp_path / "source", tmp_path / "whole", size=8)
    )


def test_what_is_promised_when_it_stops_is_kept(tmp_path, capsys):
    """Checkpoints after images 3 and 6; stopped at 8, and before the first."""
    source = make(tmp_path / "source")
    stopped = interrupted(source, tmp_path / "early", at=2, every=3)
    assert (
        str(stopped)
        == f"stopped; nothing of {tmp_path / 'early'} is kept, and the same command begins anew"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    stopped = interrupted(source, tmp_path / "out", at=8, every=3)
    assert (
        str(stopped)
        == f"stopped; 6 of 8 images of {tmp_path / 'out'} are kept, and the same command goes on from there"
    )
    prepare(source, tmp_path / "out", size=8)
    assert "of which 6 of 8 images are done" in capsys.readouterr().err


def test_stopped_when_a_pack_is_all_but_done(tmp_path, monkeypatch, capsys):
    """Its shard is shorter than planned, and has its last header; only the manifest lacks."""
    source = make(tmp_path / "source")
    (source / "b" / "0.png").write_bytes(b"")
    whole, replace = prepare(source, tmp_path / "whole", size=8, skip_bad=True), os.replace

    def stop(source, target):
        if target.name == "manifest.json":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.0)
    with (
        monkeypatch.context() as patch,
        pytest.raises(KeyboardInterrupt, match=r"8 of 8 images of .* are kept"),
    ):
        patch.setattr(os, "replace", stop)
        prepare(source, tmp_path / "out", size=8, skip_bad=True)
    capsys.readouterr()
    assert files(prepare(source, tmp_path / "out", size=8, skip_bad=True)) == files(whole)
    assert "8 of 8 images are done" in capsys.readouterr().err


def test_one_process_at_a_time(tmp_path):
    source, work = make(tmp_path / "source"), tmp_path / ".out.partial"
    work.mkdir()
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is preparing"):
            prepare(source, tmp_path / "out", size=8)
    prepare(source, tmp_path / "out", size=8)
    assert not work.exists()


def test_images_that_come_or_go_meanwhile(tmp_path, monkeypatch):
    source, chunks = make(tmp_path / "source"), module.prepared

    def chunked(*arguments):
        (source / "b" / "3.png").unlink()
        yield from chunks(*arguments)

    monkeypatch.setattr(module, "prepared", chunked)
    with pytest.raises(InputError, match="changed meanwhile, 8 images in train, then 7"):
        prepare(source, tmp_path / "out", size=8)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# --- the disk -----------------------------------------------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_refused_beforehand(tmp_path, monkeypatch):
    source = make(tmp_path / "source")
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, 10**6)
    )
    remedy = (
        "make room, choose another place, or take less by --limit or --classes, or --encoding jpeg"
    )
    with pytest.raises(
        InputError, match=rf"out needs 26.2 MB more, and the disk has 1.0 MB left: {remedy}"
    ):
        prepare(source, tmp_path / "out", size=1024)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_it_will_take_is_said_beforehand(tmp_path, capsys):
    make(tmp_path / "source", sizes=[(9, 9)] * 500)
    prepare(tmp_path / "source", tmp_path / "out", size=8)
    said = rf"{tmp_path}/out: 1,000 images, 1.2 MB of [\d,.]+ GB free, about \d+ seconds? with 1 worker\n"
    assert re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up(tmp_path, monkeypatch, code):
    """The work so far stays, and is gone on with when there is room."""
    source, write, written = make(tmp_path / "source"), PackWriter._write, 0

    def full(self, data, count):
        nonlocal written
        written += memoryview(data).nbytes
        if written > 5 * 8 * 8 * 3 + 128:
            self._file.write(bytes(data)[:100])  # part of it gets there
            raise OSError(code, os.strerror(code))
        write(self, data, count)

    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(PackWriter, "_write", full)
    kept = (
        r"5 of 8 images of .*out are kept, and the same command goes on from there: make room first"
    )
    with pytest.raises(InputError, match=rf"the disk is full \(.*\) after 5 of 8 images; {kept}"):
        prepare(source, tmp_path / "out", size=8)
    monkeypatch.undo()
    assert files(prepare(source, tmp_path / "out", size=8)) == files(
        prepare(source, tmp_path / "other", size=8)
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out", "source"]


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (10**6, "the disk is full (File too large) after 0 of 16 images; nothing of "),
        (10, "out: File too large; make room, or choose another place"),  # from the start
    ],
)
def test_a_real_limit_on_files(tmp_path, limit, said):
    """The same with the system's own error, at a limit on the size of files."""
    make(tmp_path / "source", sizes=[(200, 200)] * 8)
    (tmp_path / "script.py").write_text(
        "import resource, sys\nfrom alexnet import cli\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\nsys.exit(cli.main(sys.argv[1:]))\n"
    )
    command = [
        sys.executable,
        tmp_path / "script.py",
        "prepare",
        tmp_path / "source",
        tmp_path / "out",
        "--size",
        "200",
    ]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("alexnet: ") and said in done.stderr, (
        done.stderr
    )
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.partial").exists()


# --- JPEG ---------------------------------------------------------------------------------------------------------------------------------


def test_jpeg_packs_hold_files_and_give_pixels(tmp_path):
    source = make(tmp_path / "source", sizes=[(100, 80)] * 5)
    (source / "b" / "4.png").unlink()
    own, gray = jpeg(64, 64), io.BytesIO()
    (source / "b" / "5.jpg").write_bytes(own)  # of this size already: kept as it is
    photograph(64, 64).convert("L").save(gray, "JPEG")
    (source / "b" / "6.jpg").write_bytes(gray.getvalue())
    raw = Pack.open(prepare(source, tmp_path / "raw", size=64))
    pack = Pack.open(prepare(source, tmp_path / "jpeg", size=64, encoding="jpeg"))
    assert (raw.encoding, pack.encoding, len(pack)) == (
        "raw",
        "jpeg",
        11,
    ) and pack.digest != raw.digest
    assert pack.manifest["options"]["quality"] == 90 and pack.manifest["version"] == 2
    before, after = raw.gather(range(11)), pack.gather(range(11))
    psnr = 10 * np.log10(255**2 / ((before.astype(float) - after) ** 2).mean((1, 2, 3)).clip(1e-9))
    assert psnr.min() > 35 and np.array_equal(before[9:], after[9:])
    assert (pack.path / "images-00000.jpegs").read_bytes().endswith(own + gray.getvalue())
    assert np.array_equal(
        pack.mean, after.astype(np.float64).mean(axis=0).astype(np.float32)
    )  # of what it gives, not of the source
    assert sum(path.stat().st_size for path in pack.path.glob("images-*")) < before.nbytes / 4
    order = np.array([7, 0, 10, 7])
    buffer = np.empty((4, 64, 64, 3), np.uint8)
    assert pack.gather(order, buffer) is buffer and np.array_equal(buffer, after[order])
    pack.verify()
    assert np.array_equal(pickle.loads(pickle.dumps(pack)).gather([3]), after[[3]])


def test_jpeg_packs_in_shards_and_damaged(tmp_path):
    source = make(tmp_path / "source", sizes=[(30, 30)] * 9)
    whole = Pack.open(prepare(source, tmp_path / "whole", size=24, encoding="jpeg"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackWriter.__init__, "__defaults__", (2500, "raw"))
        pack = Pack.open(prepare(source, tmp_path / "shards", size=24, encoding="jpeg"))
    assert len(pack.manifest["shards"]) > 3
    assert np.array_equal(pack.gather(range(18)), whole.gather(range(18)))
    offsets = np.load(pack.path / "offsets.npy")
    np.save(pack.path / "offsets.npy", offsets[:-1])
    with pytest.raises(InputError, match="is a damaged pack"):
        Pack.open(pack.path)
    np.save(pack.path / "offsets.npy", np.r_[offsets[:3], offsets[3] + 1, offsets[4:]])
    with pytest.raises(InputError, match=r"offsets.npy is not what"):
        Pack.open(pack.path).verify()


# --- processes that die -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_kills_its_process_is_left_out(tmp_path, monkeypatch, workers):
    """A crash of a decoder, or the system's killing of what takes too much memory, costs the image and not the work."""
    source = make(tmp_path / "source", sizes=[(20, 20)] * 12)
    good = prepare(source, tmp_path / "good", size=8)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os\nopen_ = os.open\n"
        "os.open = lambda path, *a, **k: os.abort() if 'deadly' in str(path) else open_(path, *a, **k)\n"
    )
    for name in ("a/05-deadly.png", "b/00-deadly.png"):
        photograph(9, 9).save(source / name)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), *sys.path])
    )  # for the spawned
    monkeypatch.setattr(module, "CHUNK_BYTES", 3 * 8 * 8 * 5)
    pack = Pack.open(prepare(source, tmp_path / "out", size=8, skip_bad=True, workers=workers))
    assert pack.digest == Pack.open(good).digest
    rows = (pack.path / "rejected.csv").read_text().splitlines()[1:]
    assert rows == [
        f"{name},the process that read it died" for name in ("a/05-deadly.png", "b/00-deadly.png")
    ]
