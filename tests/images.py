"""Images and folders of them, for whatever prepares some; and what became of them."""

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((40, 30), (30, 40), (33, 33), (20, 61))


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth noise in color, RGB."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    """The bytes of an image's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(width: int = 40, height: int = 40) -> bytes:
    return saved(photograph(width, height))


def image_folder(root: Path, sizes=SIZES, classes=("a", "b")) -> Path:
    """Class folders of PNG files 0.png, 1.png ..., one of each size."""
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i, (width, height) in enumerate(sizes):
            photograph(width, height, seed=10 * c + i).save(root / name / f"{i}.png")
    return root


def files(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, by path."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def rejections(folder: Path) -> dict[str, str]:
    """What a pack left out, in order, with the reasons."""
    text = (folder / "rejected.csv").read_bytes().decode("utf-8", "surrogateescape")
    head, *rows = csv.reader(io.StringIO(text, newline=""))
    assert head == ["path", "reason"] and len({row[0] for row in rows}) == len(rows)
    return dict(rows)
