"""The way of somebody with photographs of his own, command by command as in a shell: folders of
photographs, a pack with splits, a net, its predictions, an ONNX file, its predictions."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

ORIENTATION = 0x0112
CLASSES = {"beach": (210, 180, 120), "forest": (40, 110, 50), "sea": (40, 80, 180)}


def photographs(root):
    """Photographs as phones and scanners leave them: of all sizes, turned, of several kinds."""
    rng = np.random.default_rng(0)
    for name, color in CLASSES.items():
        (root / name).mkdir(parents=True)
        for i in range(20):
            width, height = rng.integers(90, 200, 2)
            coarse = rng.normal(color, 25, (6, 6, 3)).clip(0, 255).astype(np.uint8)
            image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            if i % 5 == 0:
                exif = Image.Exif()
                exif[ORIENTATION] = 6
                image.rotate(90, expand=True).save(root / name / f"{i}.jpg", exif=exif)
            elif i % 5 == 1:
                ImageOps.invert(image.convert("L")).save(root / name / f"{i}.png")
            else:
                image.save(root / name / f"{i}.jpg", quality=90)
    (root / "beach" / "notes.txt").write_text("from the holidays")


def shell(folder, *words):
    """Run `alexnet` in a process of its own; returns what it printed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "alexnet", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_from_photographs_to_predictions_elsewhere(tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    photographs(tmp_path / "mine")
    shell(tmp_path, "prepare", "mine", "data", "--size", "64", "--split", "70/15/15")
    preset = "paper/he-init/inverted-dropout/unit-variance"
    train = ("train", "--data", "data", "--out", "run", "--preset", preset, "--width", "0.125")
    shell(tmp_path, *train, "--epochs", "6", "--batch-size", "8")
    measured = shell(tmp_path, "evaluate", "run", "--data", "data")
    assert measured.startswith("test, 9 images, one view: top-1 error ")
    assert "top-5" not in measured

    table = shell(tmp_path, "predict", "run", "mine/sea", "mine/forest")
    assert table.count("mine/") == 40 and table.count("sea") >= 40
    shell(tmp_path, "export", "run", "net.onnx", "--license", "mine alone")
    own, elsewhere = (
        json.loads(shell(tmp_path, "predict", net, "mine", "--json")) for net in ("run", "net.onnx")
    )
    assert len(own) == len(elsewhere) == 60
    correct = 0
    for one, other in zip(own, elsewhere, strict=True):
        assert one["image"] == other["image"]
        shares = [{row["name"]: row["probability"] for row in p["top"]} for p in (one, other)]
        assert shares[0] == pytest.approx(shares[1], abs=1e-4) and len(shares[0]) == 3
        correct += one["top"][0]["name"] == one["image"].split("/")[1]
    assert correct >= 30  # of 60, of which 20 would be chance's
