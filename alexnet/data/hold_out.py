"""Splits made of other splits: images that are held out of train, the same number of each class.

A rule says for each split where it comes from: {"val": 25, "test": "val"} draws 25 training images
of each class to validate on, and makes the source's own validation images the test.
"""

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from alexnet.data.listing import Entries, Images, Listing, Stray
from alexnet.data.pack import SPLITS
from alexnet.errors import InputError, require

Rule = Mapping[str, int | str]


def hold_out(listing: Listing, rule: Rule) -> Listing:
    """The listing with the splits that a rule makes, beside what is left of train.

    Args:
        listing: A source with a split train.
        rule: By the new split's name, "val" or "test": the number of training images of each class,
            1 or more; or the name of the source's split that it is.

    Raises:
        InputError: The rule names a split that is not there, or leaves a class without images.
    """
    train, splits, places = listing.splits.get("train"), {}, dict[str, tuple[int, int]]()
    first = 0
    for name, of in rule.items():
        known = f"{name!r} is none of the splits that can be held out, val and test"
        require(name in SPLITS and name != "train", known)
        if isinstance(of, str):
            lacks = f"{listing.root} has no split {of!r}; it has {', '.join(listing.splits)}"
            require(of in listing.splits and of != "train", lacks)
            splits[name] = listing.splits[of]
        else:
            require(type(of) is int and of >= 1, f"{name}: hold out 1 image of a class, or more")
            places[name] = first, first + of
            first += of
    if train is None or not train.labeled:
        raise InputError(f"{listing.root} has no labeled split train to hold images out of")
    counts = Counter(label for _, label in train)
    for label, name in enumerate(listing.classes):
        few = f"class {name} of {listing.root} has {counts[label]} training images"
        require(counts[label] > first, f"{few}; {first} of each class are to be held out")
    order = {label: np.random.default_rng([0, label]).permutation(n) for label, n in counts.items()}
    ranks = {label: np.argsort(drawn) for label, drawn in order.items()}
    parts = {name: functools.partial(_part, train, ranks, *place) for name, place in places.items()}
    splits |= {name: Images(listing.root, find) for name, find in parts.items()}
    rest = functools.partial(_part, train, ranks, first, None, strays=True)
    splits["train"] = Images(listing.root, rest)
    gone = [name for name in listing.splits if name != "train" and name not in rule.values()]
    notes = listing.notes + [f"left out: {name} (no rule takes it)" for name in gone]
    ordered = {name: splits[name] for name in SPLITS if name in splits}
    return replace(listing, splits=ordered, notes=notes)


def _part(
    images: Images, ranks: Mapping[int, np.ndarray], first: int, end: int | None, strays=False
) -> Entries:
    """The images of each class whose rank in its draw is from `first` to `end`."""
    seen: Counter[int] = Counter()
    for entry, label in images.entries():
        if isinstance(entry, Stray):
            if strays:
                yield entry, label
            continue
        rank = ranks[label][seen[label]]
        seen[label] += 1
        if rank >= first and (end is None or rank < end):
            yield entry, label
