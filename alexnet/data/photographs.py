"""Photographs as people have them: from a path, a Pillow image or an array to 8-bit RGB.

A photograph is turned as its orientation tag says, as in preparation. Colors become RGB as
`alexnet.data.decode` says.
"""

import os
import warnings
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

from alexnet.data import decode
from alexnet.data.formats import HEAD, is_image, unreadable
from alexnet.data.listing import File
from alexnet.errors import InputError, require

Photograph = Any  # a path, a Pillow image, or an array or tensor of pixels

PROGRAMS = {"EPS"}  # formats for which Pillow would start a program


def files(paths: Iterable[str | Path]) -> list[Path]:
    """Files as they are, and of folders the images below them, sorted.

    Raises:
        InputError: A path does not exist, or a folder holds no image.
    """
    chosen: list[Path] = []
    for path in map(Path, paths):
        require(path.exists(), f"{path} does not exist: name a photograph, or a folder of them")
        if not path.is_dir():
            chosen.append(path)
            continue
        below = (Path(place, name) for place, _, names in os.walk(path) for name in names)
        images = sorted(
            file
            for file in below
            if not file.name.startswith(".") and is_image(file.name, File(str(file)).head)
        )
        require(images, f"{path} holds no image: name a folder that does, or the files themselves")
        chosen += images
    return chosen


def several(photos: Any) -> bool:
    """Whether `photos` are many: a list or other collection of photographs, or an array of them."""
    if isinstance(photos, str | os.PathLike | Image.Image):
        return False
    shape = getattr(photos, "shape", None)
    return shape is None or len(shape) == 4


def read(photo: Photograph) -> Image.Image:
    """One photograph in 8-bit RGB, of its own size, turned as its orientation tag says.

    Args:
        photo: A path; a Pillow image; or an array or tensor (H, W, 3), (3, H, W) or, of gray
            levels, (H, W), of uint8 or of floating-point numbers in 0..255.

    Raises:
        InputError: It is no image; the message names the file.
    """
    if isinstance(photo, str | os.PathLike):
        return _decoded(Path(photo))
    if isinstance(photo, Image.Image):
        try:
            return decode.to_rgb(decode.turned(photo))
        except (OSError, ValueError) as error:
            raise InputError(f"{name_of(photo) or 'an image'} cannot be read: {error}") from None
    return Image.fromarray(_pixels(photo)).convert("RGB")


def name_of(photo: Photograph) -> str:
    """The path of a photograph; "" where it has none."""
    name = photo if isinstance(photo, str | os.PathLike) else getattr(photo, "filename", "")
    return str(name)


def _decoded(path: Path) -> Image.Image:
    Image.init()
    formats = [name for name in Image.ID if name not in PROGRAMS]
    with warnings.catch_warnings(), decode.limited(decode.MEGAPIXELS):
        warnings.simplefilter("ignore")  # about odd metadata
        try:
            content = File(str(path)).file()
            with Image.open(BytesIO(content), formats=formats) as image:
                decode.check_pixels(image, decode.MEGAPIXELS)
                return decode.to_rgb(decode.turned(image))
        except PIL.UnidentifiedImageError:  # its message names a buffer
            reason = unreadable(content[:HEAD])
        except Image.DecompressionBombError as error:
            most = decode.megapixels_of(error)
            reason = f"{decode.too_large(most, decode.MEGAPIXELS)}, or else scale it down first"
        except Exception as error:  # decoders fail in many ways on damaged bytes
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    raise InputError(f"{path}: {' '.join(reason.split())}")


def _pixels(array: Any) -> np.ndarray:
    """An array of pixels as uint8 (H, W, 3) or (H, W)."""
    values = array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)
    if values.ndim == 3 and values.shape[0] == 3 and values.shape[2] != 3:
        values = values.transpose(1, 2, 0)
    fits = values.ndim == 2 or (values.ndim == 3 and values.shape[2] == 3)
    kinds = "(H, W, 3), (3, H, W) or (H, W)"
    require(fits and values.size, f"an image has the shape {kinds}; this one {values.shape}")
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    least, most = float(values.min()), float(values.max())
    require(
        values.dtype.kind in "fiu" and least >= 0 and most <= 255,
        f"pixels are numbers in 0..255; these are {values.dtype} from {least:g} to {most:g}",
    )
    in_0_1 = values.dtype.kind == "f" and 0 < most <= 1
    require(not in_0_1, "pixels are in 0..255; these are in 0..1: multiply them by 255")
    return np.rint(values).astype(np.uint8)
