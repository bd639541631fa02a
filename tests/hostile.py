"""Files as they are found in the wild, and damaged ones by the hundred: what preparing images must
survive, and account for.

python -m tests.hostile        # 2000 damaged files; the table goes to results/hostile.json
"""

import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from tests.images import photograph, rejections, saved

KINDS = {
    "JPEG": {"quality": 85},
    "JPEG, progressive": {"quality": 85, "progressive": True},
    "PNG": {},
    "GIF": {},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {},
    "PPM": {},
}
DAMAGES = ("one byte", "many bytes", "cut", "a piece lost", "a piece twice", "zeros", "header")


def file(kind: str = "JPEG", width: int = 40, height: int = 40, seed: int = 0) -> bytes:
    return saved(photograph(width, height, seed), kind.partition(",")[0], **KINDS[kind])


def damaged(data: bytes, how: str, rng: np.random.Generator) -> bytes:
    """`data` with one kind of damage, at a random place."""
    n = len(data)
    at, length = int(rng.integers(n)), int(rng.integers(1, max(2, n // 4)))
    match how:
        case "one byte":
            return data[:at] + bytes([data[at] ^ int(rng.integers(1, 256))]) + data[at + 1 :]
        case "many bytes":
            changed = bytearray(data)
            for place in rng.integers(n, size=max(2, n // 50)):
                changed[place] = int(rng.integers(256))
            return bytes(changed)
        case "cut":
            return data[:at]
        case "a piece lost":
            return data[:at] + data[at + length :]
        case "a piece twice":
            return data[: at + length] + data[at:]
        case "zeros":
            return data[:at] + bytes(min(length, n - at)) + data[at + length :]
        case "header":
            changed = bytearray(data)
            changed[int(rng.integers(min(n, 32)))] = int(rng.integers(256))
            return bytes(changed)
    raise ValueError(how)


def fuzz(folder: Path, count: int, seed: int) -> dict[str, tuple[str, str]]:
    """Write `count` damaged images into two class folders; returns the kind and the damage of each,
    by its path below `folder`."""
    rng = np.random.default_rng(seed)
    made = {}
    for i in range(count):
        kind, how = list(KINDS)[i % len(KINDS)], DAMAGES[int(rng.integers(len(DAMAGES)))]
        size = rng.integers(8, 120, 2).tolist()
        name = f"{'ab'[i % 2]}/{i:05d}.{kind.partition(',')[0].lower()}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(damaged(file(kind, *size, seed=i), how, rng))
        made[name] = (kind, how)
    return made


def table(made: dict[str, tuple[str, str]], rejected: dict[str, str]) -> list[dict]:
    """Of each kind and damage: how many files, how many of them were still readable, how many were
    rejected, and the commonest reason."""
    rows = []
    for pair in sorted(set(made.values())):
        names = [name for name, which in made.items() if which == pair]
        reasons = Counter(rejected[name] for name in names if name in rejected)
        row = {"kind": pair[0], "damage": pair[1], "files": len(names)}
        row |= {"read": len(names) - reasons.total(), "rejected": reasons.total()}
        commonest = reasons.most_common(1)[0][0] if reasons else ""
        rows.append(row | {"commonest_reason": commonest})
    return rows


def bomb() -> bytes:
    """A PNG of 30000 x 30000 black pixels in about a megabyte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
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


# name: (bytes, what rejected.csv says, or None where the image is taken). In class folder a.
FILES: dict[str, tuple[bytes, str | None]] = {
    "truncated.jpg": (file()[:-200], "image file is truncated"),
    "empty.jpg": (b"", "no image that Pillow can read"),
    "page.jpg": (
        b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n",
        "no image that Pillow can read",
    ),
    "text.png": (b"not an image", "no image that Pillow can read"),
    "bomb.png": (bomb(), "decompression bomb"),
    "png in jpeg's clothes.jpg": (file("PNG"), None),
    "jpeg in png's clothes.png": (file("JPEG"), None),
    "program.jpg": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n",
        "no image that Pillow can read",
    ),
    "notes.txt": (b"by hand", "no image by its ending"),
    "image.jpg.part": (file(), "no image by its ending"),
    "no ending": (file(), None),
    "readme": (b"by hand", "no image by its ending"),
    ".hidden.jpg": (file(), "hidden: its name begins with a dot"),
    "name with spaces.jpg": (file(), None),
    "größe 鯉 рыба 🐟.jpg": (file(), None),
    'quote"comma,.jpg': (file(), None),
    "line\nbreak.jpg": (file()[:-200], "image file is truncated"),
    "carriage\rreturn.jpg": (file()[:-200], "image file is truncated"),
}


def main(count: int = 2000, seed: int = 1) -> None:
    from alexnet import results
    from alexnet.data.decode import decoders
    from alexnet.data.pack import Pack
    from alexnet.data.prepare import prepare
    from alexnet.keys import key

    began, config = (
        time.monotonic(),
        {"files": count, "seed": seed, "size": 64, "decoders": decoders()},
    )
    with tempfile.TemporaryDirectory() as folder:
        made = fuzz(Path(folder) / "source", count, seed)
        pack = Pack.open(
            prepare(
                Path(folder) / "source", Path(folder) / "out", size=64, skip_bad=True, workers=2
            )
        )
        rejected = rejections(pack.path)
    metrics = {
        "files": count, "read": len(pack), "rejected": len(rejected),
        "unaccounted": count - len(pack) - len(rejected), "table": table(made, rejected),
    }  # fmt: skip
    record = {
        "experiment": "hostile", "profile": None, "arm": "damaged", "seed": seed,
        "key": key(config), "settings": config, "metrics": metrics,
        "data": {"title": "smooth noise, damaged at random"},
        "provenance": results.provenance(None, time.monotonic() - began),
    }  # fmt: skip
    print(results.save(record, results.ARCHIVE))


if __name__ == "__main__":
    main()
