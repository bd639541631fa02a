"""Splits of a source that has none: shares of the images of each class, drawn by a seed."""

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate, pairwise

import numpy as np

from alexnet.data.listing import Entries, Images, Listing, Stray
from alexnet.data.pack import SPLITS
from alexnet.errors import InputError, require


def shares(text: str) -> dict[str, int]:
    """The percents of each split in a text such as "80/10/10": train, val, test; or "80/20": train
    and val.

    Raises:
        InputError: They are no percents that make a whole.
    """
    words = text.split("/")
    percents = [int(word) for word in words if word.isdecimal()]
    fits = 2 <= len(percents) == len(words) <= 3 and sum(percents) == 100 and percents[0] > 0
    fits = fits and any(percents[1:])
    require(fits, f"split {text}: give percents for train, val and test that add up: 80/10/10")
    return {name: percent for name, percent in zip(SPLITS, percents) if percent}


def split(listing: Listing, text: str, seed: int = 0) -> Listing:
    """The listing with the images of each class divided among train, val and test.

    Each split has at least one image of each class, and train what rounding leaves.

    Args:
        listing: A source whose images are one labeled split, train.
        text: As `shares` reads it.
        seed: Of the draw, which depends on the number of a class's images and their order.

    Raises:
        InputError: The source has splits, or a class has too few images.
    """
    percents = shares(text)
    root, known = listing.root, ", ".join(listing.splits)
    if [*listing.splits] != ["train"] or not listing.splits["train"].labeled:
        raise InputError(f"{root} has the splits {known} already: leave --split out")
    images = listing.splits["train"]
    counts = Counter(label for _, label in images)
    for label, name in enumerate(listing.classes):
        few = f"class {name} of {root} has {counts[label]} images, too few for {len(percents)}"
        require(counts[label] >= len(percents), f"{few} splits: add some, or --classes others")
    draws = {label: _draw(count, percents, seed, label) for label, count in counts.items()}
    parts = {
        name: Images(root, functools.partial(_part, images, draws, number))
        for number, name in enumerate(percents)
    }
    return replace(listing, splits=parts)


def _draw(count: int, percents: Mapping[str, int], seed: int, label: int) -> np.ndarray:
    """For each image of a class, the number of its split: uint8 (count,)."""
    others = [max(1, round(count * percent / 100)) for percent in [*percents.values()][1:]]
    while sum(others) >= count:  # of few images, one each
        others[others.index(max(others))] -= 1
    bounds = [0, *accumulate([count - sum(others), *others])]
    order = np.random.default_rng([seed, label]).permutation(count)
    numbers = np.empty(count, np.uint8)
    for number, (first, end) in enumerate(pairwise(bounds)):
        numbers[order[first:end]] = number
    return numbers


def _part(images: Images, draws: Mapping[int, np.ndarray], number: int) -> Entries:
    """The images of one split; what is none goes with train, the first."""
    seen: Counter[int] = Counter()
    for entry, label in images.entries():
        if isinstance(entry, Stray):
            if number == 0:
                yield entry, label
            continue
        if draws[label][seen[label]] == number:
            yield entry, label
        seen[label] += 1
