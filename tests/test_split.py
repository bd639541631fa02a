"""Splits of a folder without: stratified, seeded, each image in one of them."""

import json
from collections import Counter

import pytest

from alexnet.data.pack import open_splits
from alexnet.data.prepare import prepare
from alexnet.data.sources import list_source
from alexnet.data.split import shares, split
from alexnet.errors import InputError
from tests.images import image_folder, rejections


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """20 images of a, 20 of b and 4 of c, and a stray."""
    root = tmp_path_factory.mktemp("split") / "photos"
    image_folder(root, [(9, 9)] * 20, "ab")
    image_folder(root, [(9, 9)] * 4, "c")
    (root / "a" / "notes.txt").touch()
    return root


def paths(listing):
    return {name: [(r.path, label) for r, label in i] for name, i in listing.splits.items()}


@pytest.mark.parametrize("text", ["80/10/10", "50/25/25", "80/20", "90/0/10"])
def test_each_image_is_in_one_split_and_each_class_in_all(folder, text):
    whole = list_source(folder)
    parts = paths(split(whole, text))
    together = [pair for pairs in parts.values() for pair in pairs]
    assert sorted(together) == sorted(paths(whole)["train"]) and [*parts] == [*shares(text)]
    for name, percent in shares(text).items():
        counts = Counter(label for _, label in parts[name])
        assert counts[0] == counts[1] == 20 * percent / 100 and counts[2] >= 1


def test_the_draw_follows_the_seed_and_not_the_process(folder):
    one, same, other = (paths(split(list_source(folder), "50/50", seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert [path for path, _ in one["train"]] == sorted(path for path, _ in one["train"])


def test_a_pack_knows_its_split(folder, tmp_path):
    out = prepare(folder, tmp_path / "pack", size=8, workers=1, split="80/10/10", split_seed=3)
    packs = open_splits(out)
    assert {name: len(pack) for name, pack in packs.items()} == {"train": 34, "val": 5, "test": 5}
    manifest = json.loads((out / "val" / "manifest.json").read_text())
    assert (manifest["options"]["split"], manifest["options"]["split_seed"]) == ("80/10/10", 3)
    assert len(rejections(out / "train")) == 1 and not rejections(out / "val")
    digest = packs["val"].digest
    assert prepare(folder, out, size=8, split="80/10/10", split_seed=3) == out  # stays as it is
    with pytest.raises(InputError, match="not this source's pack with these options"):
        prepare(folder, out, size=8, split="80/10/10", split_seed=4)
    other = prepare(folder, tmp_path / "b", size=8, workers=1, split="80/10/10", split_seed=4)
    assert open_splits(other)["val"].digest != digest


@pytest.mark.parametrize(
    "text", ["80", "80/10", "80/10/10/0", "a/b/c", "100/0/0", "0/50/50", "80/-10/30", "80/10.0/10"]
)
def test_shares_that_make_no_whole_are_refused(text):
    with pytest.raises(InputError, match=r"add up: 80/10/10"):
        shares(text)


def test_sources_that_cannot_be_split_are_refused(folder, tmp_path):
    image_folder(tmp_path / "small", [(9, 9)] * 2, "ab")
    with pytest.raises(InputError, match=r"class a of .* has 2 images, too few for 3 splits"):
        prepare(tmp_path / "small", tmp_path / "out", size=8, split="80/10/10")
    for name in ("train", "val"):
        image_folder(tmp_path / "splits" / name, [(9, 9)] * 3, "ab")
    with pytest.raises(InputError, match=r"has the splits train, val already: leave --split out"):
        prepare(tmp_path / "splits", tmp_path / "out", size=8, split="80/10/10")
    with pytest.raises(InputError, match="splits of their own"):
        prepare("pictographs", tmp_path / "out", size=32, split="80/10/10")
