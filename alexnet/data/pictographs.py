"""The embedded data set, "pictographs": real photographs and drawn shapes, made from what the
dependencies ship. Nothing is downloaded.

A class is a pictograph of the DejaVu Sans font inside matplotlib. An image shows it at random size,
angle and place, filled with a patch of one photograph and laid over a patch of another; which of
the two is the brighter is a coin's choice. So the shape carries the class, and the colors carry
nothing. The photographs come inside scikit-image and scikit-learn; training, validation and test
cut their patches from disjoint bands of them.

It stands in for ImageNet (section 2 of the paper) where that is not at hand: JPEG files of varying
sizes, one folder per class.
"""

import functools
import importlib.util
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from alexnet.errors import InputError
from alexnet.files import new_folder
from alexnet.processes import Crashed, cores, process_pool

RECIPE = 1  # of what `write` draws: a change to the images is a new number

# Each a character and its name. The task are the first; the others are kin of these and further
# shapes, for pre-training. None is another's mirror image, for training mirrors images; none turns
# into another within the range of angles.
TASK = """
☂umbrella ☁cloud ☀sun ☃snowman ☎telephone ⚓anchor ✂scissors ✈airplane ✉envelope ⚖scales ☕cup
⚔swords ⚒hammers ⚙gear ⚗alembic ⌨keyboard ♿wheelchair ♻recycling ☢radioactive ☣biohazard
☠skull ☯yin_yang ☮peace ♞knight ♜rook ♛queen ♠spade ♥heart ♣club ★star ☽moon ❄snowflake
✿flower ♫notes ⚡lightning ⚛atom ⚜lily 🐱cat 🐮cow ☺smile
"""
FURTHER = """
🐭mouse 🐵monkey ⚄die ✎pencil ✒nib ☛hand ✌victory ✇reel ⌂house ⚑flag ⛃drum ☄comet ♨steam
✔check ⚱urn ⚠warning ⚷key ♟pawn ♝bishop ♚king ☘shamrock ☸wheel ☤caduceus ♪note ♯sharp ♭flat
♦diamond ❧ivy ☊headphones ⌘loops ⏏eject ⏣nut ⏎corner ♈aries ♉taurus ♊gemini ♋cancer ♌leo
♍virgo ♎libra ♏scorpio ♐sagittarius ♑capricorn ♒aquarius ♓pisces ☿mercury ♀venus ♂mars
♃jupiter ♄saturn ♅uranus ♆neptune ♇pluto ∞infinity ▲triangle ⬟pentagon ⧓bow_tie ✱asterisk
✦sparkle ◎target ➡arrow ➽dart 🂡ace &ampersand ?question $dollar %percent €euro @at §section
⚘seedling 😎sunglasses 😴sleeper 😈imp 😭weeper
"""
# code points and names
CLASSES = tuple((ord(word[0]), word[1:]) for word in (TASK + FURTHER).split())
# bands of each photograph, along its longer side
SPLITS = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
# by module: its package, and the photographs that it ships
PHOTOGRAPHS = {
    "skimage": ("scikit-image", "data", (
        "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg",
        "motorcycle_left.png", "ihc.png",
    )),
    "sklearn": ("scikit-learn", "datasets/images", ("china.jpg", "flower.jpg")),
}  # fmt: skip
ZOOM = (0.6, 2.0)  # pixels of a photograph to one of the image
ANGLE = 30.0  # degrees either way
SCALE = (0.5, 0.9)  # the turned glyph's longer side, as a part of the image's short side
CONTRAST = 90.0  # gray levels at least between the mean of the glyph and that of what it covers
QUALITY = 90  # of the JPEG files


class Photograph(NamedTuple):
    """A photograph that a package ships.

    Args:
        pixels: uint8 (H, W, 3), RGB.
        package: The distribution whose wheel it comes in.
    """

    pixels: np.ndarray
    package: str


def _shipped(module: str, file: str, what: str, package: str) -> Path:
    """The path of a file of a package, found without importing that, which takes seconds.

    Raises:
        InputError: It is missing.
    """
    spec = importlib.util.find_spec(module)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / file).is_file():
            return path
    extra = "pip install 'alexnet-reproduced[experiments]'"
    raise InputError(f"pictographs need {what} of {package}: {extra}")


def check() -> None:
    """Raise InputError where a package that pictographs are made of is missing."""
    photographs()
    glyph(ord("A"))


@functools.cache
def photographs() -> dict[str, Photograph]:
    """The color photographs, by name.

    Raises:
        InputError: scikit-image or scikit-learn is missing.
    """
    result = {}
    for module, (package, folder, files) in PHOTOGRAPHS.items():
        for file in files:
            path = _shipped(module, f"{folder}/{file}", file, package)
            with Image.open(path) as image:
                result[path.stem] = Photograph(np.asarray(image.convert("RGB")), package)
    return result


def band(pixels: np.ndarray, split: str) -> np.ndarray:
    """The part of a photograph (H, W, 3) that `split` cuts its patches from: a view.

    Args:
        pixels: uint8 (H, W, 3).
        split: "train", "val" or "test".
    """
    begin, end = SPLITS[split]
    length = max(pixels.shape[:2])
    part = slice(round(begin * length), round(end * length))
    return pixels[part] if pixels.shape[0] == length else pixels[:, part]


@functools.cache
def _bands(split: str) -> list[Image.Image]:
    return [Image.fromarray(band(photo.pixels, split)) for photo in photographs().values()]


@functools.cache
def glyph(code: int, length: int = 108) -> Image.Image:
    """Draw a pictograph, cut to its ink.

    Its edges are moved outward by a hundredth of its length, for the sake of thin outlines.

    Args:
        code: Code point.
        length: Pixels of the longer side, about.

    Returns:
        An image of mode "L".

    Raises:
        InputError: matplotlib, whose font this is, is missing.
    """
    file = "mpl-data/fonts/ttf/DejaVuSans.ttf"
    path = _shipped("matplotlib", file, "the font", "matplotlib")
    left, top, right, bottom = ImageFont.truetype(path, 1000).getbbox(chr(code))
    font = ImageFont.truetype(path, 1000 * length / max(right - left, bottom - top))
    left, top, right, bottom = font.getbbox(chr(code))
    edge, stroke = 4 + length // 50, max(1, length // 100)
    mask = Image.new("L", (math.ceil(right - left) + 2 * edge, math.ceil(bottom - top) + 2 * edge))
    ImageDraw.Draw(mask).text(
        (edge - left, edge - top), chr(code), fill=255, font=font, stroke_width=stroke
    )
    return mask.crop(mask.getbbox())


def draw(code: int, split: str, generator: np.random.Generator, size: int = 72) -> Image.Image:
    """Draw one image of class `code`, RGB, the pictograph whole within the center square.

    Args:
        code: Code point.
        split: Whose band of the photographs is used.
        generator: What is random is drawn from this.
        size: The short side has between this and 1.5 times as many pixels.
    """
    short = int(generator.integers(size, size + size // 2 + 1))
    long = round(short * math.exp(generator.uniform(0.0, math.log(1.5))))
    width, height = (long, short) if generator.random() < 0.5 else (short, long)

    mask = glyph(code, size + size // 2).rotate(
        generator.uniform(-ANGLE, ANGLE), Image.Resampling.BILINEAR, expand=True
    )
    mask = mask.crop(mask.getbbox())
    scale = generator.uniform(*SCALE) * short / max(mask.size)
    sides = (max(1, round(mask.width * scale)), max(1, round(mask.height * scale)))
    mask = mask.resize(sides, Image.Resampling.BICUBIC)
    left = (width - short) // 2 + int(generator.integers(short - mask.width + 1))
    top = (height - short) // 2 + int(generator.integers(short - mask.height + 1))
    alpha = np.asarray(mask, np.float32)[:, :, None] / 255.0

    bands = _bands(split)
    behind, other = int(generator.integers(len(bands))), int(generator.integers(1, len(bands)))
    picture = _patch(bands[behind], (width, height), generator)
    inside = _patch(bands[(behind + other) % len(bands)], mask.size, generator)
    place = (slice(top, top + mask.height), slice(left, left + mask.width))
    contrast = np.tensordot(alpha[:, :, 0], inside - picture[place], 2).mean() / alpha.sum()
    # The pair is moved apart to a contrast of its own, up or down by a coin: no class is the
    # brighter one.
    target = generator.uniform(CONTRAST, 1.5 * CONTRAST) * (1 if generator.random() < 0.5 else -1)
    picture -= (target - float(contrast)) / 2
    inside += (target - float(contrast)) / 2
    picture[place] += alpha * (inside - picture[place])
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def _patch(image: Image.Image, size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """A random rectangle of `image` with the proportions of `size`, mirrored by a coin, scaled to
    `size` (W, H): float32 (H, W, 3)."""
    largest = min(image.width / size[0], image.height / size[1], ZOOM[1])
    zoom = generator.uniform(min(ZOOM[0], largest / 2), largest)
    width, height = size[0] * zoom, size[1] * zoom
    left = generator.uniform(0, image.width - width)
    top = generator.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    patch = np.asarray(image.resize(size, Image.Resampling.BILINEAR, box), np.float32)
    return patch[:, ::-1].copy() if generator.random() < 0.5 else patch.copy()


def write(
    out: str | Path,
    *,
    classes: int = 40,
    train: int = 250,
    val: int = 50,
    test: int = 50,
    seed: int = 0,
    size: int = 72,
    workers: int | None = None,
) -> None:
    """Write the data set as a tree of JPEG files, `out/train/<name>/00000.jpg` ..., `out/val/`,
    `out/test/`.

    Each image follows from (seed, split, class, index) alone: more images, more classes or other
    `workers` change none. The folder appears under its name when it is whole.

    Args:
        out: The folder.
        classes: The first so many of CLASSES.
        train: Images per class.
        val: The same; 0 leaves the split out.
        test: The same.
        seed: Another one gives other images.
        size: Pixels, see `draw`.
        workers: Processes; by default as many as there are cores, one for few images.

    Raises:
        InputError: A number is out of range, a package is missing, or `out` exists.
    """
    counts = {"train": train, "val": val, "test": test}
    if not 1 <= classes <= len(CLASSES):
        raise InputError(f"classes {classes}: there are {len(CLASSES)} pictographs")
    if train < 1 or min(counts.values()) < 0 or max(counts.values()) > 100_000:
        valid = "give 1 to 100000 for training, 0 to 100000 for the others"
        raise InputError(f"images per class {train}, {val}, {test}: {valid}")
    if not 16 <= size <= 1024 or seed < 0:
        valid = "give 16 to 1024 pixels and a seed of 0 or more"
        raise InputError(f"size {size}, seed {seed}: {valid}")
    photographs()  # a missing package is named here, not by a worker
    total = classes * sum(counts.values())
    # Starting a process takes as long as some hundred images.
    workers = workers or min(cores(), total // 512 + 1)
    with new_folder(Path(out)) as folder:
        tasks: list[Task] = []
        for split, count in counts.items():
            for code, name in CLASSES[:classes] if count else ():
                place, pieces = folder / split / name, range(0, count, 64)
                place.mkdir(parents=True)
                tasks += [(place, split, code, seed, size, i, min(i + 64, count)) for i in pieces]
        with (
            process_pool(workers) as ordered_map,
            tqdm(total=total, unit=" images", desc="drawing pictographs", disable=None) as bar,
        ):
            for written in ordered_map(_write_some, tasks):
                if isinstance(written, Crashed):
                    place = written.item[0]
                    raise RuntimeError(f"a process died while it was drawing into {place}")
                bar.update(written)


Task = tuple[Path, str, int, int, int, int, int]  # folder, split, code, seed, size, begin, end


def _write_some(task: Task) -> int:
    folder, split, code, seed, size, begin, end = task
    for index in range(begin, end):
        generator = np.random.default_rng([seed, list(SPLITS).index(split), code, index])
        image = draw(code, split, generator, size)
        image.save(folder / f"{index:05d}.jpg", quality=QUALITY)
    return end - begin
