"""Splits made of other splits: images that are held out of train, class by class.

A rule says for each split where it comes from: {"val": 25, "test": "val"} draws 25 training images
of each class to validate on, and makes the source's own validation images the test;
{"val": 0.1, "test": 0.1} draws a tenth of each class for either.
"""

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from alexnet.data.listing import Entries, Images, Listing, Stray
from alexnet.data.pack import SPLITS
from alexnet.errors import InputError, require

Rule = Mapping[str, int | float | str]
Places = Mapping[int, tuple[int, int | None]]  # of each class, ranks in its draw: from, to


def shares(text: str) -> Rule:
    """The rule of shares in percent: "80/10/10" of train, val and test, "90/10" of train and val.

    Raises:
        InputError: They are not two or three percents above 0 that make a whole.
    """
    percents = [int(word) for word in text.split("/") if word.isdecimal()]
    fits = 2 <= len(percents) == text.count("/") + 1 <= 3 and sum(percents) == 100
    remedy = "give percents for train, val and test that add up: 80/10/10"
    require(fits and all(percents), f"split {text}: {remedy}")
    return {name: percent / 100 for name, percent in zip(SPLITS[1:], percents[1:])}


def hold_out(listing: Listing, rule: Rule, seed: int = 0) -> Listing:
    """The listing with the splits that a rule makes, beside what is left of train.

    Args:
        listing: A source with a split train.
        rule: By the new split's name, "val" or "test": the number of training images of each class,
            1 or more; or their share, between 0 and 1, rounded, but at least one image, and less
            where nothing would be left; or the name of the source's split that it is.
        seed: Of the draw.

    Raises:
        InputError: The rule names a split that is not there, or leaves a class without images.
    """
    train, splits, sizes = listing.splits.get("train"), {}, dict[str, int | float]()
    for name, of in rule.items():
        known = f"{name!r} is none of the splits that can be held out, val and test"
        require(name in SPLITS and name != "train", known)
        if isinstance(of, str):
            lacks = f"{listing.root} has no split {of!r}; it has {', '.join(listing.splits)}"
            require(of in listing.splits and of != "train", lacks)
            splits[name] = listing.splits[of]
        elif isinstance(of, float):
            require(0 < of < 1, f"{name}: hold out a share between 0 and 1 of a class")
            own = ", ".join(listing.splits)
            require(
                len(listing.splits) == 1, f"{listing.root} has splits already ({own}): keep them"
            )
            sizes[name] = of
        else:
            require(type(of) is int and of >= 1, f"{name}: hold out 1 image of a class, or more")
            sizes[name] = of
    if train is None or not train.labeled:
        raise InputError(f"{listing.root} has no labeled split train to hold images out of")
    counts = Counter(label for _, label in train)
    places = _places(listing, counts, sizes)
    order = {
        label: np.random.default_rng([seed, label]).permutation(n) for label, n in counts.items()
    }
    ranks = {label: np.argsort(drawn) for label, drawn in order.items()}
    for name, place in places.items():
        find = functools.partial(_part, train, ranks, place, strays=name == "train")
        splits[name] = Images(listing.root, find)
    gone = [name for name in listing.splits if name != "train" and name not in rule.values()]
    notes = listing.notes + [f"left out: {name} (no rule takes it)" for name in gone]
    ordered = {name: splits[name] for name in SPLITS if name in splits}
    return replace(listing, splits=ordered, notes=notes)


def _places(
    listing: Listing, counts: Mapping[int, int], sizes: Mapping[str, int | float]
) -> Mapping[str, Places]:
    """The ranks of each split's images in the draws of the classes: those held out, then train's.

    Raises:
        InputError: Nothing is left of a class.
    """
    places: dict[str, dict[int, tuple[int, int | None]]] = {name: {} for name in (*sizes, "train")}
    for label, class_name in enumerate(listing.classes):
        first, n = 0, counts[label]
        held = [x if isinstance(x, int) else max(1, int(x * n + 0.5)) for x in sizes.values()]
        while len(held) < n <= sum(held) and not all(isinstance(x, int) for x in sizes.values()):
            held[held.index(max(held))] -= 1  # of few images, train keeps one
        for name, count in zip(sizes, held):
            places[name][label] = first, first + count
            first += count
        few = f"class {class_name} of {listing.root} has {n} training images"
        require(n > first, f"{few}; {first} of them are to be held out: add images to it")
        places["train"][label] = first, None
    return places


def _part(
    images: Images, ranks: Mapping[int, np.ndarray], places: Places, strays: bool = False
) -> Entries:
    """The images of each class whose rank in its draw is in its place."""
    seen: Counter[int] = Counter()
    for entry, label in images.entries():
        if isinstance(entry, Stray):
            if strays:
                yield entry, label
            continue
        rank, (first, end) = ranks[label][seen[label]], places[label]
        seen[label] += 1
        if rank >= first and (end is None or rank < end):
            yield entry, label
