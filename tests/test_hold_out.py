"""Splits made of other splits."""

from collections import Counter

import pytest

from alexnet.data.hold_out import hold_out
from alexnet.data.pack import open_splits
from alexnet.data.prepare import prepare
from alexnet.data.sources import list_source
from alexnet.errors import InputError
from tests.test_sources import image, listed


@pytest.fixture
def source(tmp_path):
    """Two classes: 9 and 7 images to train on, 2 each to validate on."""
    for split, counts in {"train": (9, 7), "val": (2, 2)}.items():
        for name, count in zip(("ant", "bee"), counts, strict=True):
            for i in range(count):
                image(tmp_path / "source" / split / name / f"{i}.png", (10 * i, 99, 3))
    return tmp_path / "source"


def test_images_are_held_out_of_train_by_class_and_each_lies_in_one_split(source):
    whole = listed(list_source(source))
    made = listed(hold_out(list_source(source), {"val": 3, "test": "val"}))
    assert list(made) == ["train", "val", "test"]
    assert Counter(label for _, label in made["val"]) == {0: 3, 1: 3}
    assert made["test"] == whole["val"]
    assert sorted(made["train"] + made["val"]) == sorted(whole["train"])
    assert made["val"] != sorted(made["val"])[:3]  # drawn, not the first
    assert made == listed(hold_out(list_source(source), {"val": 3, "test": "val"}))
    both = listed(hold_out(list_source(source), {"val": 3, "test": 2}))
    assert both["val"] == made["val"] and not set(both["test"]) & set(both["val"])
    assert [len(both[split]) for split in ("train", "val", "test")] == [6, 6, 4]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"val": 7}, "class bee of .* has 7 training images; 7 of each class"),
        ({"val": 4, "test": 3}, "class bee"),
        ({"test": "tset"}, "no split 'tset'; it has train, val"),
        ({"valid": 1}, "'valid' is none of the splits"),
        ({"val": 0}, "hold out 1 image of a class, or more"),
        ({"test": "train"}, "no split 'train'"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(source, rule, said):
    with pytest.raises(InputError, match=said):
        hold_out(list_source(source), rule)


def test_a_pack_is_made_by_the_rule_and_remembers_it(source, tmp_path):
    out = prepare(source, tmp_path / "pack", size=4, hold_out={"val": 2, "test": "val"})
    packs = open_splits(out)
    assert {split: len(pack) for split, pack in packs.items()} == {"train": 12, "val": 4, "test": 4}
    assert prepare(source, out, size=4, hold_out={"val": 2, "test": "val"}) == out
    with pytest.raises(InputError, match="exists already"):
        prepare(source, out, size=4, hold_out={"val": 3, "test": "val"})
    with pytest.raises(InputError, match="splits of their own"):
        prepare("pictographs", tmp_path / "other", size=72, hold_out={"val": 3})
