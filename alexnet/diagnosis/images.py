"""Images to diagnose a net with: a batch of a pack, or stand-ins where there is none."""

from pathlib import Path

import torch
from torch import Tensor

from alexnet.data.augment import Augment
from alexnet.data.loader import batches
from alexnet.data.pack import Pack, open_splits
from alexnet.errors import InputError, require
from alexnet.presets import Recipe

BRIGHTNESS = 58.0  # standard deviation of a photograph's pixels about the mean image, gray levels


def training_pack(data: Path) -> Pack:
    """The pack that a net learns from.

    Raises:
        InputError: There is none, or its images have no labels.
    """
    splits = open_splits(data)
    if "train" not in splits:
        raise InputError(f"{data} has no train split; it has {', '.join(splits)}")
    pack = splits["train"]
    require(pack.labeled, f"the images in {pack.path} have no labels: a net cannot learn from them")
    return pack


def from_pack(
    pack: Pack, recipe: Recipe, size: int, count: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The first batch of training: images (N, 3, size, size) as the net reads them, and labels.

    Args:
        pack: The training images.
        recipe: What is drawn.
        size: The side of the net's input, in pixels.
        count: Images of the batch.
        seed: Of the draws.
    """
    augment = Augment(recipe, pack.mean, size, pack.color, seed)
    pixels, labels, ids, positions = next(iter(batches(pack, count, seed, 0)))
    return augment.train(pixels, ids, positions, 0), labels


def stand_ins(
    recipe: Recipe, size: int, count: int, classes: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Noise with the spectrum of photographs, whose amplitude falls with the frequency, and labels
    drawn at random: enough for sizes of signals and gradients, which know nothing of classes.

    Args:
        recipe: Its scale of the input counts.
        size: The side of the net's input, in pixels.
        count: Images of the batch.
        classes: Of which labels are drawn.
        seed: Of the noise and the labels.

    Source: D. J. Field, "Relations between the statistics of natural images and the response
    properties of cortical cells", 1987, for the spectrum.
    """
    generator = torch.Generator().manual_seed(seed)
    wide = 2 * size  # the window lets the lowest frequencies differ between images
    rows, columns = torch.fft.fftfreq(wide)[:, None], torch.fft.rfftfreq(wide)[None]
    frequency = (rows**2 + columns**2).sqrt()
    amplitude = 1 / frequency.clamp(min=1 / wide)
    gray = torch.randn(count, 1, wide, wide, generator=generator)
    color = torch.randn(count, 3, wide, wide, generator=generator)
    noise = gray + 0.3 * color  # channels of photographs are alike
    waves = torch.fft.irfft2(torch.fft.rfft2(noise) * amplitude, s=(wide, wide))[..., :size, :size]
    pixels = waves * (BRIGHTNESS / waves.square().mean().sqrt())
    scale = recipe.input_scale / (1.1 if recipe.color == "source" else 1)
    labels = torch.randint(classes, (count,), generator=generator)
    return pixels.clamp(-128, 127).contiguous() * scale, labels
