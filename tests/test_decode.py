"""From a file to pixels: geometry and color, against formulas of our own."""

import functools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from alexnet.data import photographs
from alexnet.data.decode import fit, read, to_rgb
from alexnet.data.listing import File
from alexnet.data.pack import Pack
from alexnet.data.prepare import prepare
from tests.images import photograph, saved

# --- geometry -------------------------------------------------------------------------------------


def weights(length, new_length, begin, count):
    """Antialiased bicubic (a = -1/2) weights (count, length) of pixels begin..begin+count of a line
    of `length` scaled to `new_length`."""
    scale = length / new_length
    centers = (begin + np.arange(count)[:, None] + 0.5) * scale
    x = np.abs(np.arange(length) + 0.5 - centers) / max(scale, 1.0)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    w = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return w / w.sum(axis=1, keepdims=True)


def check(image, size, new_width, new_height, left, top):
    """Against float64: one direction after the other, each rounded to 8 bits. Which is first is
    Pillow's choice: 13 takes what costs less, older ones the rows."""
    pixels = np.asarray(image, np.float64)
    height, width, _ = pixels.shape
    result = np.asarray(fit(image, size), np.float64)
    assert result.shape == (size, size, 3)
    if min(width, height) == size:
        assert np.array_equal(result, pixels[top : top + size, left : left + size])
        return
    rows = functools.partial(np.einsum, "xj,ijc->ixc", weights(width, new_width, left, size))
    columns = functools.partial(np.einsum, "yi,ixc->yxc", weights(height, new_height, top, size))
    differences = []
    for first, second in ((rows, columns), (columns, rows)):
        expected = np.floor(second(np.floor(first(pixels) + 0.5).clip(0, 255)) + 0.5).clip(0, 255)
        differences.append(np.abs(result - expected))
    best = min(differences, key=np.sum)
    # Its weights have 22 bits. Where the first rounding is a tie, the second may differ by two.
    assert best.max() <= 2 and (best > 0).mean() < 0.01 + 1.5 / best.size


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
        (45, 32, 45, 32, 6, 0),  # cropped and not touched
        (32, 32, 32, 32, 0, 0),
    ],
)
def test_short_side_is_scaled_and_the_center_cropped(
    width, height, new_width, new_height, left, top
):
    check(photograph(width, height), 32, new_width, new_height, left, top)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 70), st.integers(0, 99))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_size(width, height, size, seed):
    """The same for noise, of which every pixel counts, at sizes from enlarging one pixel to
    shrinking ninety."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    scale, half = Fraction(size, min(width, height)), Fraction(1, 2)
    new_width, new_height = math.floor(width * scale + half), math.floor(height * scale + half)
    left, top = (new_width - size) // 2, (new_height - size) // 2
    check(Image.fromarray(noise), size, new_width, new_height, left, top)


def test_extreme_proportions_cost_no_memory():
    assert fit(Image.new("RGB", (900, 1), (9, 9, 9)), 256).getpixel((0, 0)) == (9, 9, 9)
    with pytest.raises(ValueError, match="60000x1 is too narrow"):
        fit(Image.new("RGB", (60_000, 1)), 256)


# --- color ----------------------------------------------------------------------------------------


def rgb(image):
    return np.asarray(to_rgb(image)).tolist()


def test_every_mode_becomes_rgb(tmp_path):
    gray = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    repeated = np.repeat(np.asarray(gray)[:, :, None], 3, axis=2)
    assert rgb(gray) == repeated.tolist()
    deep = Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 256 + 77)
    assert rgb(deep) == repeated.tolist()
    deep.save(tmp_path / "clear.png", transparency=200 * 256 + 77)
    clear = Image.open(tmp_path / "clear.png")
    assert rgb(clear) == np.where(repeated == 200, 0, repeated).tolist()
    clear = Image.new("RGBA", (2, 1), (200, 100, 50, 255))
    clear.putpixel((1, 0), (200, 100, 50, 51))
    assert rgb(clear) == [[[200, 100, 50], [40, 20, 10]]]
    assert rgb(Image.new("LA", (1, 1), (200, 51))) == [[[40, 40, 40]]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert rgb(palette) == [[[1, 2, 3], [40, 50, 60]]]
    palette.info["transparency"] = 1
    assert rgb(palette) == [[[1, 2, 3], [0, 0, 0]]]
    assert rgb(Image.new("CMYK", (1, 1), (0, 255, 255, 0))) == [[[255, 0, 0]]]
    assert rgb(Image.new("1", (1, 1), 1)) == [[[255, 255, 255]]]
    with pytest.raises(ValueError, match="floating-point"):
        to_rgb(Image.new("F", (1, 1)))


def test_cmyk_is_the_product_of_what_ink_leaves():
    inks = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    white = 255.0 - inks
    expected = (white[:, :, :3] * white[:, :, 3:] / 255).round()
    assert np.abs(np.array(rgb(Image.fromarray(inks, "CMYK"))) - expected).max() <= 1
    assert rgb(Image.fromarray(inks[:, :, :3], "RGB")) == inks[:, :, :3].tolist()


def test_files_of_every_mode_through_the_whole_way(tmp_path):
    """What decoders make of them is what the pack holds: gray JPEG, CMYK JPEG of Adobe's kind, PNG
    of 16 bits, palettes, alpha."""
    (tmp_path / "source" / "a").mkdir(parents=True)
    image = photograph(32, 32)
    pixels, gray = np.asarray(image), image.convert("L")
    grays = np.repeat(np.asarray(gray)[:, :, None], 3, axis=2).astype(int)
    deep = Image.fromarray((np.asarray(gray).astype(np.uint16) << 8) + 200)
    inks = Image.fromarray(np.dstack([255 - pixels, np.zeros((32, 32), np.uint8)]), "CMYK")
    opaque = Image.fromarray(np.dstack([pixels, np.full((32, 32), 255, np.uint8)]), "RGBA")
    palette = gray.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    bilevel = Image.fromarray(np.asarray(gray) > 127)
    expected = {  # and by how many gray levels they may differ
        "0 rgb.png": (saved(image, "PNG"), pixels, 0),
        "1 gray.jpg": (saved(gray, quality=100), grays, 3),
        "2 cmyk.jpg": (saved(inks, quality=100), pixels, 24),
        "3 deep.png": (saved(deep, "PNG"), grays, 0),
        "4 palette.gif": (saved(palette, "GIF"), grays, 0),
        "5 alpha.png": (saved(opaque, "PNG"), pixels, 0),
        "6 bilevel.png": (saved(bilevel, "PNG"), np.where(grays > 127, 255, 0), 0),
        "7 tiff.tif": (saved(image, "TIFF", compression="tiff_lzw"), pixels, 0),
        "8 webp.webp": (saved(image, "WEBP", lossless=True), pixels, 0),
    }
    for name, (data, _, _) in expected.items():
        (tmp_path / "source" / "a" / name).write_bytes(data)
    images = Pack.open(prepare(tmp_path / "source", tmp_path / "out", size=32)).gather(range(9))
    for result, (name, (_, pixels, most)) in zip(images, expected.items(), strict=True):
        assert np.abs(result.astype(int) - pixels).max() <= most, name


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {"quality": 100}), ("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})],
)
def test_an_image_lies_as_its_rows_are_stored(tmp_path, kind, options):
    """Orientation tags are ignored; or else applied, as viewers do."""
    image, results = photograph(40, 32), []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}"
        path.write_bytes(saved(image, kind, exif=exif, **options))
        assert Image.open(path).getexif()[0x0112] == orientation
        results.append(np.asarray(read(File(str(path)), 32)).astype(int))
        with Image.open(path) as opened:
            turned = np.asarray(ImageOps.exif_transpose(opened))
        upright = read(File(str(path)), upright=True)
        assert np.array_equal(np.asarray(upright), turned)
        assert upright.getexif().get(0x0112, 1) == 1  # nobody turns it twice
    difference = np.abs(results[0] - np.asarray(image)[:, 4:36]).max()
    assert difference <= (24 if kind == "JPEG" else 0)
    assert all(np.array_equal(result, results[0]) for result in results)


@pytest.mark.parametrize("exif", [b"Exif\0\0no TIFF at all", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_a_tag_that_cannot_be_read_turns_nothing(tmp_path, exif):
    (tmp_path / "x.jpg").write_bytes(saved(photograph(40, 32), exif=exif))
    stored = read(File(str(tmp_path / "x.jpg")))
    assert stored.size == (40, 32)
    for image in (
        read(File(str(tmp_path / "x.jpg")), upright=True),
        photographs.read(tmp_path / "x.jpg"),
    ):
        assert np.array_equal(np.asarray(image), np.asarray(stored))


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PCX", "TGA", "ICO", "JPEG2000"])
def test_only_listed_formats_are_opened(tmp_path, monkeypatch, kind):
    """An EPS file is a program, for which Pillow would start an interpreter."""
    started = "a program was started"
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail(started))
    photograph(16, 16).save(tmp_path / "image.jpg", kind)
    reason = "no image that Pillow can read"
    if kind == "JPEG2000":
        reason = "a JPEG 2000 image, which is not read here: convert it to JPEG or PNG"
    assert read(File(str(tmp_path / "image.jpg"))) == reason
