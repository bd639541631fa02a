"""Photographs: whatever Pillow reads becomes upright 8-bit RGB; what is no image is named."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.data import decode
from alexnet.data.photographs import files, name_of, read, several
from alexnet.errors import InputError
from tests.images import photograph

RGB = photograph(40, 30)
ORIENTATION = 0x0112


def pixels(photo):
    image = read(photo)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["png", "tiff", "bmp", "webp", "tga", "ico"])
def test_any_format_of_pillows_is_read(tmp_path, kind):
    """Also those that preparation leaves out."""
    options = {"lossless": True} if kind == "webp" else {}
    options |= {"sizes": [(40, 40)]} if kind == "ico" else {}
    photograph(40, 40).save(tmp_path / f"x.{kind}", **options)
    assert np.array_equal(pixels(tmp_path / f"x.{kind}"), np.asarray(photograph(40, 40)))


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_orientation_is_applied(tmp_path, kind):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned by 90 degrees clockwise
    RGB.save(tmp_path / f"x.{kind}", exif=exif)
    upright = np.rot90(np.asarray(RGB), -1)
    assert np.array_equal(pixels(str(tmp_path / f"x.{kind}")), upright)
    with Image.open(tmp_path / f"x.{kind}") as opened:
        assert np.array_equal(pixels(opened), upright)


def test_a_photograph_of_a_phone_is_read_and_a_bomb_is_not(tmp_path, monkeypatch):
    """Pillow's own limit is 89 megapixels, and phones make 108 and more."""
    monkeypatch.setattr(decode, "MEGAPIXELS", 2)
    for name, width in (("phone", 2000), ("bomb", 2001), ("larger", 9000)):
        Image.new("L", (width, 1000)).save(tmp_path / f"{name}.png")
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10**5)
        assert pixels(tmp_path / "phone.png").shape == (1000, 2000, 3)
        assert Image.MAX_IMAGE_PIXELS == 10**5
    for name, most in (("bomb", 3), ("larger", 9)):
        with pytest.raises(
            InputError, match=rf"{name}.png: {most} megapixels, more than 2: .*scale"
        ):
            read(tmp_path / f"{name}.png")


def test_cmyk_alpha_palettes_and_sixteen_bits_become_rgb(tmp_path):
    Image.new("CMYK", (4, 4), (255, 0, 0, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    assert abs(pixels(tmp_path / "cmyk.jpg").astype(int) - [0, 255, 255]).max() <= 3
    Image.new("RGBA", (4, 4), (200, 100, 50, 0)).save(tmp_path / "alpha.png")
    assert not pixels(tmp_path / "alpha.png").any()  # black, as in preparation
    RGB.quantize(16).save(tmp_path / "palette.png")
    assert np.array_equal(pixels(tmp_path / "palette.png"), RGB.quantize(16).convert("RGB"))
    Image.fromarray(np.full((4, 4), 200 * 256 + 9, np.uint16)).save(tmp_path / "deep.png")
    assert (pixels(tmp_path / "deep.png") == 200).all()


def test_arrays_and_tensors_are_pixels():
    array = np.asarray(RGB)
    for same in (
        array, array.astype(np.float32), array.astype(np.int64), torch.from_numpy(array.copy()),
        array.transpose(2, 0, 1), torch.from_numpy(array.copy()).permute(2, 0, 1).float(), RGB,
    ):  # fmt: skip
        assert np.array_equal(pixels(same), array)
    gray = array[..., 0]
    assert np.array_equal(pixels(gray), gray[..., None].repeat(3, 2))
    assert (pixels(np.full((2, 2, 3), 99.6)) == 100).all()


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.full((4, 4, 3), 0.5), r"in 0..1: multiply them by 255"),
        (np.full((4, 4, 3), -1.0), r"in 0..255; these are float64 from -1 to -1"),
        (np.full((4, 4, 3), 256), r"in 0..255; these are int64 from 256"),
        (np.full((4, 4, 3), np.nan), r"in 0..255; these are float64 from nan"),
        (np.zeros((4, 4, 2), np.uint8), r"the shape \(H, W, 3\).*this one \(4, 4, 2\)"),
        (np.zeros(4, np.uint8), r"this one \(4,\)"),
        (np.zeros((0, 4), np.uint8), r"this one \(0, 4\)"),
    ],
)
def test_arrays_that_are_no_pixels_are_refused(array, reason):
    with pytest.raises(InputError, match=reason):
        read(array)


def test_what_is_no_image_is_named_with_the_reason(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").touch()
    RGB.save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    (tmp_path / "program.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "floats.tiff")
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in {
        "text.jpg": "no image that Pillow can read", "empty.png": "no image that Pillow",
        "cut.png": ".+", "program.eps": "no image that Pillow can read", "pipe.png": "not a regu",
        "floats.tiff": "no known range", "missing.png": "No such file",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=f"{name}: .*{reason}"):
            read(tmp_path / name)
    with (
        Image.open(tmp_path / "cut.png") as opened,
        pytest.raises(InputError, match=r"cut.png cannot be read"),
    ):
        read(opened)


def test_folders_stand_for_the_images_below_them(tmp_path):
    for name in ("b/2.png", "b/1.JPG", "a.png", "b/words.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    relative = [file.relative_to(tmp_path).as_posix() for file in files([str(tmp_path)])]
    assert relative == ["a.png", "b/1.JPG", "b/2.png"]
    assert files([tmp_path / "b" / "words.txt"]) == [tmp_path / "b" / "words.txt"]
    (tmp_path / "none").mkdir()
    for path, reason in (("none", "holds no image"), ("gone", "does not exist")):
        with pytest.raises(InputError, match=reason):
            files([tmp_path / path])


def test_one_photograph_and_several_are_told_apart(tmp_path):
    array = np.asarray(RGB)
    assert not any(map(several, ("a.png", tmp_path, RGB, array, array[..., 0])))
    assert all(map(several, (["a.png"], (RGB,), array[None], [array], iter(()))))
    assert name_of("a.png") == "a.png" and name_of(array) == name_of(RGB) == ""
