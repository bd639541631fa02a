"""Splits made of other splits."""

from collections import Counter
from itertools import chain

import pytest

from alexnet.data.hold_out import hold_out, shares
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
        ({"val": 7}, "class bee of .* has 7 training images; 7 of them are"),
        ({"val": 4, "test": 3}, "class bee"),
        ({"test": "tset"}, "no split 'tset'; it has train, val"),
        ({"valid": 1}, "'valid' is none of the splits"),
        ({"val": 0}, "hold out 1 image of a class, or more"),
        ({"test": "train"}, "no split 'train'"),
        ({"val": 0.5}, r"has splits already \(train, val\): keep them"),
        ({"val": 1.5}, "a share between 0 and 1"),
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


@pytest.fixture
def unsplit(tmp_path):
    """Classes of 20, 10 and 3 images, without splits."""
    for name, count in {"ant": 20, "bee": 10, "cat": 3}.items():
        for i in range(count):
            image(tmp_path / "own" / name / f"{i}.png", (10 * i, 99, 3))
    return tmp_path / "own"


def test_shares_leave_something_of_few_images(tmp_path):
    for i in range(4):
        image(tmp_path / "own" / "ant" / f"{i}.png", (10 * i, 99, 3))
        image(tmp_path / "own" / "bee" / f"{i}.png", (10 * i, 99, 3))
    made = listed(hold_out(list_source(tmp_path / "own"), shares("20/40/40")))
    assert {split: len(images) for split, images in made.items()} == {
        "train": 2, "val": 2, "test": 4
    }  # fmt: skip


def test_shares_are_of_each_class_and_follow_the_seed(unsplit):
    rule = shares("80/10/10")
    assert rule == {"val": 0.1, "test": 0.1} and shares("90/10") == {"val": 0.1}
    made = listed(hold_out(list_source(unsplit), rule))
    counts = {split: Counter(label for _, label in images) for split, images in made.items()}
    assert counts == {
        "train": {0: 16, 1: 8, 2: 1}, "val": {0: 2, 1: 1, 2: 1}, "test": {0: 2, 1: 1, 2: 1}
    }  # fmt: skip
    assert sorted(chain(*made.values())) == sorted(listed(list_source(unsplit))["train"])
    assert made == listed(hold_out(list_source(unsplit), rule))
    assert made != listed(hold_out(list_source(unsplit), rule, seed=1))
    (unsplit / "cat" / "0.png").unlink()
    with pytest.raises(InputError, match=r"class cat of .* has 2 .*; 2 of them .*: add images"):
        hold_out(list_source(unsplit), rule)


@pytest.mark.parametrize("text", ["80/10", "100", "100/0", "a/b", "50/20/20/10", "110/-10"])
def test_shares_have_a_sum_of_100(text):
    with pytest.raises(InputError, match=f"split {text}: give percents for train, val and test"):
        shares(text)
