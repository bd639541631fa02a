"""What a file is, by its first bytes; and which of these images are."""

import os
from collections.abc import Callable

from PIL import features

# What Pillow may open. Not EPS, say, for which it would start a program.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
if features.check("avif"):  # since Pillow 11.3
    FORMATS += ("AVIF",)
ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".png", ".apng", ".bmp", ".dib", ".gif",
    ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".avif",
    # not read, and named as what they are
    ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpx", ".jxl",
)  # fmt: skip
HEAD = 265  # bytes that tell what a file is
ARCHIVES = ("gzip", "zip", "bzip2", "xz", "Zstandard", "7z", "rar")  # not read where they lie
UNREAD = ("AVIF", "HEIC", "JPEG 2000", "JPEG XL")  # images that are not, or not always, read
_SIGNATURES = (  # kind, place, bytes
    ("JPEG", 0, b"\xff\xd8\xff"), ("PNG", 0, b"\x89PNG\r\n\x1a\n"), ("GIF", 0, b"GIF8"),
    ("BMP", 0, b"BM"), ("TIFF", 0, b"II*\0"), ("TIFF", 0, b"MM\0*"), ("WEBP", 8, b"WEBP"),
    *(("PPM", 0, b"P%d%c" % (i, blank)) for i in range(1, 7) for blank in b" \t\n\r"),
    ("JPEG 2000", 0, b"\0\0\0\x0cjP  \r\n"), ("JPEG 2000", 0, b"\xff\x4f\xff\x51"),
    ("JPEG XL", 0, b"\xff\x0a"), ("JPEG XL", 0, b"\0\0\0\x0cJXL "),
    ("gzip", 0, b"\x1f\x8b"), ("zip", 0, b"PK\3\4"), ("bzip2", 0, b"BZh"),
    ("xz", 0, b"\xfd7zXZ\0"), ("Zstandard", 0, b"\x28\xb5\x2f\xfd"),
    ("7z", 0, b"7z\xbc\xaf\x27\x1c"), ("rar", 0, b"Rar!"), ("tar", 257, b"ustar"),
)  # fmt: skip


def kind_of(head: bytes) -> str:
    """What a file is, from its first HEAD bytes: a name of FORMATS, UNREAD or ARCHIVES, or "tar";
    "" where it is none of these."""
    if head[4:8] == b"ftyp":  # the family of HEIC: the brands that it is compatible with follow
        brands = head[8 : max(16, int.from_bytes(head[:4], "big"))]
        return "AVIF" if b"avif" in brands or b"avis" in brands else "HEIC"
    fits = (kind for kind, place, signature in _SIGNATURES if head.startswith(signature, place))
    return next(fits, "")


def is_image(name: str, head: Callable[[], bytes]) -> bool:
    """Whether a file is taken for an image: by the ending of its name, or where that has none by
    its first bytes, which `head` gives.

    Args:
        name: The file's name.
        head: Gives its first bytes; called only where the name says nothing.
    """
    if (ending := os.path.splitext(name)[1].lower()) in ENDINGS:
        return True
    return not ending and kind_of(head()) in (*FORMATS, *UNREAD)


def unreadable(head: bytes) -> str:
    """Why Pillow, or this program, makes nothing of a file with these first bytes."""
    kind = kind_of(head)
    if kind == "AVIF" and "AVIF" not in FORMATS:
        return "an AVIF image, which Pillow reads from version 11.3 on: install that"
    if kind in UNREAD and kind not in FORMATS:
        return f"a {kind} image, which is not read here: convert it to JPEG or PNG"
    return "no image that Pillow can read"
