"""Whether the images that a pack was made of are still what they were."""

import csv

import numpy as np

from alexnet.data.chunks import Entry, Shelf, Target, prepared
from alexnet.data.decode import jpeg_pixels
from alexnet.data.listing import Images
from alexnet.data.pack import Pack
from alexnet.data.pack_writer import TEXT
from alexnet.processes import OrderedMap


def changes(
    images: Images, pack: Pack, target: Target, ordered_map: OrderedMap, shelf: Shelf
) -> list[str]:
    """The images whose files were written after the pack, and that it would hold other pixels of.

    Args:
        images: The images of a split, of as many bytes as those that the pack was made of.
        pack: Their pack.
        target: What was made of them.
        ordered_map: Does the work.
        shelf: See `chunks.prepared`.

    Returns:
        Paths below the source.
    """
    since = (pack.path / "manifest.json").stat().st_mtime
    if images.survey.newest <= since:
        return []
    with (pack.path / "rejected.csv").open(**TEXT) as file:
        rejected = {path for path, _ in csv.reader(file)}
    newer, indices, index = list[Entry](), list[int](), 0
    for entry, label in images:
        is_held = images.below(entry) not in rejected
        if entry.stamp()[1] > since:
            newer.append((entry, label))
            indices.append(index if is_held else -1)
        index += is_held
    changed, position = list[str](), 0
    for chunk in prepared(newer, target, ordered_map, shelf):
        lost = {entry for entry, _ in chunk.rejected}
        is_pixels = len(chunk.images) or chunk.files is None
        kept = iter(chunk.images if is_pixels else map(jpeg_pixels, chunk.files or ()))
        for reference, _ in newer[position : position + chunk.count]:
            index = indices[position]
            pixels = None if reference in lost else next(kept)
            held = None if index < 0 else pack.gather([index])[0]
            if not np.array_equal(held, pixels):  # type: ignore[arg-type]  # None is as None
                changed.append(images.below(reference))
            position += 1
        if chunk.misfit:
            return [*changed, chunk.misfit]
    return changed
