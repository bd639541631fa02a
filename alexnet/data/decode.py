"""From a file to 8-bit RGB pixels of one size (section 2 of the paper).

Geometry: an image of w x h becomes W x H, round(w s) x round(h s) with s = size / min(w, h),
halves rounded up; of that the crop begins at ((W - size) // 2, (H - size) // 2). The filter is
Pillow's bicubic (a = -1/2), widened where it shrinks (antialiased), along one direction and then
the other (Pillow 13 begins with the cheaper, older ones with the rows), each time rounded to 8
bits. Smaller images are enlarged; one whose short side is `size` already is only cropped.

Color: everything becomes 8-bit RGB. Gray is repeated, palettes are looked up, CMYK becomes
(255 - C)(255 - K) / 255, rounded, and so on; transparency lies over black, 16-bit gray keeps its
upper eight bits, an animation gives its first frame. Color profiles are ignored.

Orientation: photographs are turned as their tags say, and as viewers show them. Images of the data
sets that others have published stay as their rows are stored, as they were for the readers of 2012.
`Listing.upright` says which are which.

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
_TURN = {  # what each orientation asks for
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_INVERSE = _TURN | {6: _TURN[8], 8: _TURN[6]}  # what undoes each


def read(
    reference: Reference,
    size: int | None = None,
    megapixels: int = MEGAPIXELS,
    upright: bool = False,
) -> Image.Image | str:
    """Read an image as RGB.

    Args:
        reference: The image.
        size: What it is fit to, in pixels of a side; None: it stays as it is.
        megapixels: The most that an image may have.
        upright: Turn it as its orientation tag says.

    Returns:
        The image, or why it cannot be read, in words.

    Raises:
        EnvironmentFault: It is not the image that is at fault, see `listing.fault`.
    """
    with warnings.catch_warnings(), limited(megapixels):
        warnings.simplefilter("ignore")  # about odd metadata, which is ignored
        try:
            with reference.open() as image:
                check_pixels(image, megapixels)
                rgb = to_rgb(turned(image) if upright else _as_stored(image))
                return rgb if size is None else fit(rgb, size)
        except PIL.UnidentifiedImageError:  # its message names the file, as ours does already
            return unreadable(reference.head())
        except Image.DecompressionBombError as error:
            most = megapixels_of(error)
            return f"{too_large(most, megapixels)}, or else --max-megapixels {most} takes it"
        except Exception as error:  # decoders fail in many ways on damaged bytes
            return fault(error, reference.path)


@contextmanager
def limited(megapixels: int) -> Iterator[None]:
    """Pillow's own limit: it refuses images of twice as many, and speaks of an attack."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, megapixels * 10**6
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def check_pixels(image: Image.Image, megapixels: int) -> None:
    """Refuse an image that is too large, as Pillow does.

    Args:
        image: Opened; its pixels need not be loaded.
        megapixels: At most.

    Raises:
        Image.DecompressionBombError: It has more.
    """
    if (pixels := image.width * image.height) > megapixels * 1e6:
        raise Image.DecompressionBombError(f"{pixels} pixels")


def megapixels_of(error: Image.DecompressionBombError) -> int:
    """How many the image has that was refused, rounded up."""
    return ceil(int(re.findall(r"\d+", str(error))[0]) / 1e6)


def too_large(most: int, megapixels: int) -> str:
    """What is said of images that are too large.

    Args:
        most: Megapixels of the largest of them.
        megapixels: At most.
    """
    return f"{most:,} megapixels, more than {megapixels}: a decompression bomb"


def turned(image: Image.Image) -> Image.Image:
    """Load an image, and turn it as its orientation tag says, if it has one that can be read."""
    image.load()  # of a TIFF, this applies the tag and takes it away
    if (turn := _TURN.get(_orientation(image))) is None:
        return image
    image = image.transpose(turn)
    for name in [name for name in image.info if re.search("exif|xmp", str(name), re.IGNORECASE)]:
        del image.info[name]  # it is not to be turned again
    return image


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # odd metadata, which is ignored
        return 1
    return orientation if isinstance(orientation, int) else 1


def _as_stored(image: Image.Image) -> Image.Image:
    """Load an image with its rows as stored: Pillow turns TIFFs, and only those, by their tag."""
    orientation = _orientation(image) if image.format == "TIFF" else 1
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


def jpeg_file(reference: Reference, image: Image.Image, upright: bool = False) -> bytes:
    """A JPEG file of `image`: the one it was read from, if that holds just its pixels as they are
    stored, or a new one.

    Args:
        reference: Where the image was read from.
        image: RGB, as the pack is to have it.
        upright: `image` was turned by its EXIF orientation.
    """
    if (data := reference.file()) is not None:
        with Image.open(BytesIO(data), formats=FORMATS) as original:
            is_jpeg = original.format == "JPEG" and original.mode in ("RGB", "L")
            is_turned = upright and _orientation(original) != 1
            if is_jpeg and not is_turned and original.size == image.size:
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
