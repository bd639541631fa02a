"""From a file to 8-bit RGB pixels of one size (section 2 of the paper).

Geometry: an image of w x h becomes W x H, round(w s) x round(h s) with s = size / min(w, h),
halves rounded up; of that the crop begins at ((W - size) // 2, (H - size) // 2). The filter is
Pillow's bicubic (a = -1/2), widened where it shrinks (antialiased), along one direction and then
the other (Pillow 13 begins with the cheaper, older ones with the rows), each time rounded to 8
bits. Smaller images are enlarged; one whose short side is `size` already is only cropped.

Color: everything becomes 8-bit RGB. Gray is repeated, palettes are looked up, CMYK becomes
(255 - C)(255 - K) / 255, rounded, and so on; transparency lies over black, 16-bit gray keeps its
upper eight bits, an animation gives its first frame. Orientation tags and color profiles are
ignored: an image is as its rows are stored, as it was for the readers of 2012.

Formats: `formats.FORMATS`, whatever a file's ending says; others that Pillow knows are rejected.

Encoding: "raw" keeps these pixels; "jpeg" keeps a JPEG file of them (quality 90, colors at half
resolution), a tenth of the room, or the source's own file where that is an RGB JPEG of this size.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from math import ceil
from typing import Any

import numpy as np
import PIL
from PIL import ExifTags, Image, features

from alexnet.data.formats import FORMATS, unreadable
from alexnet.data.listing import Reference, fault

MOST_PIXELS = 2**26  # of a scaled image before it is cropped
MEGAPIXELS = 250  # of an image: phones make 200; a worker takes three bytes a pixel and more
QUALITY = 90  # of JPEG files
_INVERSE = {  # what undoes each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip


def read(
    reference: Reference, size: int | None = None, megapixels: int = MEGAPIXELS
) -> Image.Image | str:
    """Read an image as RGB.

    Args:
        reference: The image.
        size: What it is fit to, in pixels of a side; None: it stays as it is.
        megapixels: The most that an image may have.

    Returns:
        The image, or why it cannot be read, in words.

    Raises:
        EnvironmentFault: It is not the image that is at fault, see `listing.fault`.
    """
    with warnings.catch_warnings(), _limit(megapixels):
        warnings.simplefilter("ignore")  # about odd metadata, which is ignored
        try:
            with reference.open() as image:
                if (pixels := image.width * image.height) > megapixels * 1e6:
                    return _too_large(pixels, megapixels)
                rgb = to_rgb(_as_stored(image))
                return rgb if size is None else fit(rgb, size)
        except PIL.UnidentifiedImageError:  # its message names the file, as ours does already
            return unreadable(reference.head())
        except Image.DecompressionBombError as error:
            return _too_large(int(re.findall(r"\d+", str(error))[0]), megapixels)
        except Exception as error:  # decoders fail in many ways on damaged bytes
            return fault(error, reference.path)


@contextmanager
def _limit(megapixels: int) -> Iterator[None]:
    """Pillow's own limit: it refuses images of twice as many, and speaks of an attack."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, megapixels * 10**6
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _too_large(pixels: int, megapixels: int) -> str:
    most = ceil(pixels / 1e6)
    what = f"{most:,} megapixels, more than {megapixels}: a decompression bomb"
    return f"{what}, or else --max-megapixels {most} takes it"


def _as_stored(image: Image.Image) -> Image.Image:
    """Load an image with its rows as stored: Pillow turns TIFFs, and only those, by their tag."""
    orientation = image.getexif().get(ExifTags.Base.Orientation) if image.format == "TIFF" else None
    image.load()
    return image.transpose(_INVERSE[orientation]) if orientation in _INVERSE else image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow image to 8-bit RGB, see the head of this module.

    Raises:
        ValueError: The pixels are floating-point numbers.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        values[values == image.info.get("transparency", -1)] = 0
        return Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image, black = image.convert("RGBA"), Image.new("RGB", image.size)
        return Image.composite(image.convert("RGB"), black, image.getchannel("A"))
    return image.convert("RGB")


def fit(image: Image.Image, size: int) -> Image.Image:
    """Scale the short side to `size` and crop the center square, see the head of this module.

    Args:
        image: RGB, of any size.
        size: The side of the square, in pixels.

    Raises:
        ValueError: The image is so narrow that it would become huge.
    """
    w, h = image.size
    short = min(w, h)
    width, height = (2 * w * size + short) // (2 * short), (2 * h * size + short) // (2 * short)
    left, top = (width - size) // 2, (height - size) // 2
    if width * height > MOST_PIXELS:
        raise ValueError(f"{w}x{h} is too narrow to be scaled to {width}x{height}")
    if short != size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + size, top + size))


def jpeg_file(reference: Reference, image: Image.Image) -> bytes:
    """A JPEG file of `image`: the one it was read from, if that holds just its pixels, or a new
    one.

    Args:
        reference: Where the image was read from.
        image: RGB, as the pack is to have it.
    """
    if (data := reference.file()) is not None:
        with Image.open(BytesIO(data), formats=FORMATS) as original:
            is_jpeg = original.format == "JPEG" and original.mode in ("RGB", "L")
            if is_jpeg and original.size == image.size:
                return data
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def jpeg_pixels(data: Any) -> np.ndarray:
    """The pixels of a JPEG file, anything that holds bytes: uint8 (H, W, 3)."""
    with Image.open(BytesIO(data), formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB"))


def decoders() -> dict[str, str | None]:
    """The versions of what decodes and scales: two of them may differ by a gray level."""
    libraries = {name: features.version(name) for name in ("libjpeg_turbo", "jpg", "zlib", "webp")}
    return {"pillow": PIL.__version__, **libraries, "numpy": np.__version__}
