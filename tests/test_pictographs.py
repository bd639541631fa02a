import io
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageFont

from alexnet.data import pictographs
from alexnet.data.decode import fit
from alexnet.errors import InputError
from tests.images import files


def test_every_class_is_a_glyph_of_its_own():
    assert len(pictographs.CLASSES) >= 80
    codes, names = zip(*pictographs.CLASSES, strict=True)
    assert len(set(codes)) == len(set(names)) == len(codes)
    assert all(name.replace("_", "").isalpha() and name.islower() for name in names)
    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 64)
    missing = bytes(font.getmask("\U000e1234"))  # .notdef
    assert all(bytes(font.getmask(chr(code))) != missing for code in codes)


def test_no_two_of_the_task_look_alike_even_mirrored_and_turned():
    size = 48

    def shape(image):
        image = image.crop(image.getbbox())
        square = Image.new("L", (max(image.size),) * 2)
        square.paste(
            image, ((square.width - image.width) // 2, (square.height - image.height) // 2)
        )
        return np.asarray(square.resize((size, size)), float) / 255

    shapes = {name: shape(pictographs.glyph(code)) for code, name in pictographs.CLASSES[:40]}
    for code, name in pictographs.CLASSES[:40]:
        for angle in (-30, -15, 0, 15, 30):
            turned = pictographs.glyph(code).rotate(angle, Image.Resampling.BILINEAR, expand=True)
            for mine in (shape(turned), shape(turned)[:, ::-1]):
                for other, theirs in shapes.items():
                    overlap = np.minimum(mine, theirs).sum() / np.maximum(mine, theirs).sum()
                    assert other == name or overlap < 0.8, (name, other, angle, overlap)


def test_bands_of_the_photographs_are_disjoint_and_cover_them():
    assert {photograph.package for photograph in pictographs.photographs().values()} == {
        "scikit-image",
        "scikit-learn",
    }
    for name, (pixels, _) in pictographs.photographs().items():
        assert (
            pixels.dtype == np.uint8
            and pixels.shape[2] == 3
            and np.ptp(pixels.astype(int).mean(axis=(0, 1))) > 1
        ), name  # in color
        seen = np.zeros(pixels.shape[:2], int)
        marks = np.arange(seen.size).reshape(*seen.shape, 1)
        for split in pictographs.SPLITS:
            seen.ravel()[pictographs.band(marks, split).ravel()] += 1
        assert (seen == 1).all(), name


def test_the_object_stays_in_the_center_square(monkeypatch):
    """Over plain gray the object is all that differs, and all of it must survive the crop."""
    monkeypatch.setattr(
        pictographs, "_bands", lambda split: [Image.new("RGB", (400, 400), (128, 128, 128))] * 2
    )
    sizes, brighter = [], 0
    for index in range(200):
        image = pictographs.draw(
            pictographs.CLASSES[index % 40][0], "train", np.random.default_rng([1, index])
        )
        short, long = sorted(image.size)
        assert 72 <= short <= 108 and long <= 1.5 * short + 1
        if long - short < 2:
            continue  # no margin in which the background shows for sure
        pixels = np.asarray(image).astype(int)[:, :, 0]
        ink = np.abs(pixels - pixels[0, 0]) > 30
        kept = np.abs(np.asarray(fit(image, short)).astype(int)[:, :, 0] - pixels[0, 0]) > 30
        assert ink.sum() == kept.sum() > 0
        extent = max(np.ptp(np.flatnonzero(ink.any(axis=axis))) + 1 for axis in (0, 1)) / short
        assert 0.45 <= extent <= 0.91
        sizes.append(extent)
        brighter += pixels[ink].mean() > pixels[0, 0]
    assert min(sizes) < 0.55 and max(sizes) > 0.85
    assert 0.35 < brighter / len(sizes) < 0.65


def test_images_depend_on_seed_split_class_and_index_alone(tmp_path):
    sizes = {"size": 32, "val": 1, "test": 1}
    pictographs.write(tmp_path / "one", classes=3, train=70, workers=1, **sizes)
    pictographs.write(tmp_path / "two", classes=4, train=72, workers=2, **sizes)
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert len(one) == 3 * 72 and len(two) == 4 * 74
    assert "train/umbrella/00069.jpg" in one and "test/sun/00000.jpg" in one
    assert all(two[name] == data for name, data in one.items())
    assert len(set(one.values())) == len(one)
    pictographs.write(tmp_path / "three", classes=1, train=1, val=0, test=0, seed=1, size=32)
    assert list(files(tmp_path / "three")) == ["train/umbrella/00000.jpg"]
    assert files(tmp_path / "three")["train/umbrella/00000.jpg"] != one["train/umbrella/00000.jpg"]
    shapes = {Image.open(io.BytesIO(data)).size for data in one.values()}
    assert any(w > h for w, h in shapes) and any(w < h for w, h in shapes) and len(shapes) > 50
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "one",
        "three",
        "two",
    ]  # no temporary folder is left


def test_bad_arguments(tmp_path):
    for bad in (
        {"classes": 0},
        {"classes": 1000},
        {"train": 0},
        {"val": -1},
        {"size": 8},
        {"seed": -1},
    ):
        with pytest.raises(InputError):
            pictographs.write(tmp_path / "out", **bad)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(InputError, match="exists already"):
        pictographs.write(tmp_path / "out", classes=1, train=1, val=0, test=0)
    assert (tmp_path / "out" / "mine").exists()


@pytest.mark.parametrize(
    ("module", "package"), [("skimage", "scikit-image"), ("sklearn", "scikit-learn")]
)
def test_a_missing_package_is_named(monkeypatch, module, package):
    pictographs.photographs.cache_clear()
    find = pictographs.importlib.util.find_spec
    monkeypatch.setattr(
        pictographs.importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )
    with pytest.raises(InputError, match=package):
        pictographs.photographs()


def test_nothing_depends_on_the_hash_seed():
    code = (
        "import hashlib, numpy; from alexnet.data import pictographs\n"
        "image = pictographs.draw(0x2693, 'val', numpy.random.default_rng(5))\n"
        "print(hashlib.sha256(image.tobytes()).hexdigest())"
    )
    outs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outs) == 1
