"""Folders of images as people have them: taken where that is unambiguous, named where it is not."""

import gzip
import os
import unicodedata

import pytest

from alexnet.data import listing as listing_module
from alexnet.data.decode import MEGAPIXELS
from alexnet.data.pack import Pack, open_splits
from alexnet.data.prepare import prepare
from alexnet.data.sources import list_source
from alexnet.errors import InputError
from tests import archives
from tests.images import jpeg, photograph, rejections, saved

JPEG = jpeg(12, 12)
NFC, NFD = "café", unicodedata.normalize("NFD", "café")


def tree(root, *names, data=JPEG):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def beside(folder):
    return folder.with_name(f"{folder.name} out")


def counts(source, **options):
    listing = list_source(source, **options)
    return {split: len(images) for split, images in listing.splits.items()}, listing


# --- splits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", ["train", "TRAIN", "Training", "training_set", "train_images"])
@pytest.mark.parametrize("val", ["val", "Val", "valid", "validation", "VALIDATION_SET"])
def test_splits_by_the_names_that_people_give_them(tmp_path, train, val):
    tree(
        tmp_path, f"{train}/cat/0.jpg", f"{train}/dog/0.jpg", f"{val}/cat/1.jpg", f"{val}/dog/1.jpg"
    )
    count, listing = counts(tmp_path)
    assert count == {"train": 2, "val": 2} and listing.classes == ["cat", "dog"]
    assert listing.notes == []


def test_a_split_in_a_folder_of_its_own_name(tmp_path):
    tree(tmp_path, *(f"{s}_set/{s}_set/{c}/0.jpg" for s in ("training", "test") for c in "ab"))
    assert counts(tmp_path)[0] == {"train": 2, "test": 2}


def test_two_folders_of_a_split(tmp_path):
    tree(tmp_path, *(f"{split}/{c}/0.jpg" for split in ("train", "val", "valid") for c in "ab"))
    with pytest.raises(
        InputError, match="two folders for val, val and valid: take one of them out"
    ):
        list_source(tmp_path)


def test_images_of_validation_that_are_not_sorted(tmp_path):
    tree(tmp_path, "train/cloud/0.jpg", "train/umbrella/0.jpg", "val/ILSVRC2012_val_00000001.JPEG")
    message = r"val holds images \(ILSVRC2012_val_00000001.JPEG\), and no class folders: sort them"
    with pytest.raises(InputError, match=message):
        list_source(tmp_path)
    (tmp_path / "val").rename(tmp_path / "val.unsorted")  # what the message advises
    assert counts(tmp_path)[0] == {"train": 2}


def test_test_images_without_classes_are_left_out(tmp_path):
    tree(tmp_path, "train/a/0.jpg", "train/b/0.jpg", "test/0.jpg")
    count, listing = counts(tmp_path)
    assert count == {"train": 2}
    assert listing.notes == [f"left out: {tmp_path / 'test'} (its images have no labels)"]


@pytest.mark.parametrize("names", [["train/cat.0.jpg", "test1/1.jpg"], ["train/cat.0.jpg"]])
def test_training_images_that_are_not_sorted(tmp_path, names):
    tree(tmp_path, *names)
    with pytest.raises(
        InputError, match="train holds images, and no class folders: sort them into"
    ):
        list_source(tmp_path)


def test_an_empty_folder_beside_the_classes_of_a_split(tmp_path):
    """As sorting Tiny ImageNet's validation images leaves it."""
    tree(
        tmp_path,
        "train/a/images/0.jpg",
        "train/b/images/0.jpg",
        "val/a/1.jpg",
        "val/b/images/1.jpg",
    )
    (tmp_path / "val" / "images").mkdir()
    (tmp_path / "train" / "a" / "a_boxes.txt").write_text("")
    tree(tmp_path, "wnids.txt", "val/val_annotations.txt", data=b"a\nb\n")
    count, listing = counts(tmp_path)
    assert count == {"train": 2, "val": 2} and listing.layout == "splits"


# --- levels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "place"),  # of which the first ones are images
    [
        (["dataset/a/0.jpg", "dataset/b/0.jpg"], "dataset"),
        (["dataset/train/a/0.jpg", "dataset/train/b/0.jpg"], "dataset"),
        (["101_ObjectCategories/a/0.jpg", "101_ObjectCategories/b/0.jpg", "Annotations/a/0.mat"],
         "101_ObjectCategories"),
        (["ILSVRC/Data/CLS-LOC/train/n1/0.JPEG", "ILSVRC/Annotations/CLS-LOC/train/n1/0.xml",
          "ILSVRC/ImageSets/CLS-LOC/val.txt", "ILSVRC/Data/CLS-LOC/test/0.JPEG"],
         "ILSVRC/Data/CLS-LOC"),
        (["x/a/0.jpg", "__MACOSX/x/a/._0.jpg", "@eaDir/y/a/0.jpg"], "x"),
    ],
)  # fmt: skip
def test_a_source_some_levels_too_high(tmp_path, names, place):
    tree(tmp_path, *names)
    count, listing = counts(tmp_path)
    assert count == {"train": 2 if "b" in names[1].split("/") else 1}
    assert listing.notes[0] == f"the images are those of {tmp_path / place}"
    digest = listing.splits["train"].survey.digest
    assert digest == list_source(tmp_path / place).splits["train"].survey.digest


def test_several_sources_in_a_folder(tmp_path):
    tree(tmp_path, "one/a/0.jpg", "two/a/0.jpg")
    with pytest.raises(InputError, match=r"several folders in it have: name one, .*/one, .*/two$"):
        list_source(tmp_path)


def test_no_images_anywhere(tmp_path):
    tree(tmp_path, "a/b/notes.txt", "winter21_whole.tar.gz")
    with pytest.raises(InputError, match=r"and archives: winter21_whole.tar.gz: unpack them"):
        list_source(tmp_path)
    (tmp_path / "winter21_whole.tar.gz").unlink()
    with pytest.raises(InputError, match="holds no class folders with images: give each"):
        list_source(tmp_path)


def test_folders_that_systems_make_are_no_classes(tmp_path):
    tree(tmp_path, "a/0.jpg", "b/0.jpg", "__MACOSX/a/._0.jpg", "@eaDir/a/0.jpg", "b/@eaDir/0.jpg")
    pack = Pack.open(prepare(tmp_path, beside(tmp_path), size=8))
    assert pack.classes == ["a", "b"]
    assert rejections(pack.path) == {
        "@eaDir": "made by a system, and no class",
        "__MACOSX": "made by a system, and no class",
        "b/@eaDir": "a folder",
    }


def test_a_pack_does_not_go_into_its_source_at_any_level(tmp_path):
    tree(tmp_path, "x/a/0.jpg")
    with pytest.raises(InputError, match="among the images"):
        prepare(tmp_path, tmp_path / "out", size=8)


# --- classes --------------------------------------------------------------------------------------


def test_names_of_classes_in_two_spellings_of_unicode(tmp_path):
    tree(tmp_path, f"train/{NFD}/0.jpg", "train/b/0.jpg", f"val/{NFC}/0.jpg", "val/b/0.jpg")
    for chosen in (None, [NFD], [NFC]):
        count, listing = counts(tmp_path, classes=chosen)
        assert NFC in listing.classes and count["train"] == count["val"] == (1 if chosen else 2)
    (tmp_path / "words.txt").write_text(f"{NFC}\tcoffee house\n")
    assert "coffee house" in list_source(tmp_path).names
    tree(tmp_path, f"val/{NFD}/1.jpg")
    with pytest.raises(InputError, match=f"two folders {NFC}, whose names Unicode writes in two"):
        list_source(tmp_path)


def test_chosen_classes_come_before_the_faults_of_others(tmp_path):
    tree(tmp_path, "train/a/0.jpg", "train/b/0.jpg", "val/a/0.jpg", "val/b/0.jpg", "val/d/0.jpg")
    (tmp_path / "train" / "c").mkdir()
    tree(tmp_path, "train/b/1.jpg", data=b"no image")
    for options in ({}, {"limit": 1}, {"classes": ["a", "c"]}):
        with pytest.raises(InputError, match=r"every split needs the same|holds no images"):
            list_source(tmp_path, **options)
    packs = open_splits(prepare(tmp_path, beside(tmp_path), size=8, classes=["a"]))
    assert [len(pack) for pack in packs.values()] == [1, 1]


def test_files_of_text_with_a_mark_at_the_beginning(tmp_path):
    tree(tmp_path, "a/0.jpg", "b/0.jpg")
    (tmp_path / "words.txt").write_text("\ufeffa\tant\nb\tbee\n", encoding="utf-8")
    assert list_source(tmp_path).names == ["ant", "bee"]


# --- files ----------------------------------------------------------------------------------------


def test_images_by_rare_endings_and_by_none(tmp_path):
    tree(tmp_path, "a/0.jfif", "a/1.jpe", "a/n01440764_2", "a/3.JPG")
    tree(tmp_path, "a/readme", data=b"by hand")
    os.mkfifo(tmp_path / "a" / "pipe")
    pack = Pack.open(prepare(tmp_path, beside(tmp_path), size=8))
    assert len(pack) == 4
    assert rejections(pack.path) == dict.fromkeys(["a/pipe", "a/readme"], "no image by its ending")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(300)


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("0.jpg", HEIC, "HEIC"),
        ("0.heic", HEIC, "HEIC"),
        ("no ending", HEIC, "HEIC"),
        ("0.png", saved(photograph(8, 8), "JPEG2000"), "JPEG 2000"),
        ("0.jxl", b"\xff\x0a" + bytes(99), "JPEG XL"),
    ],
)
def test_an_image_of_a_kind_that_is_not_read_is_called_by_it(tmp_path, name, data, kind):
    tree(tmp_path / "a", name, data=data)
    with pytest.raises(InputError, match=f"a {kind} image, which is not read here: convert it"):
        prepare(tmp_path, beside(tmp_path), size=8)


def test_avif_whatever_its_ending(tmp_path):
    pytest.importorskip("PIL.AvifImagePlugin")
    data = saved(photograph(12, 12), "AVIF")
    tree(tmp_path, "a/0.jpg", "a/1.avif", "a/2", data=data)
    assert len(Pack.open(prepare(tmp_path, beside(tmp_path), size=8))) == 3


def test_large_photographs(tmp_path):
    """Phones make 108 megapixels, and Pillow calls that an attack."""
    assert MEGAPIXELS >= 200
    tree(tmp_path, "a/0.png", data=saved(photograph(1500, 1400), "PNG"))
    out = beside(tmp_path)
    message = r"0.png: 3 megapixels, more than 2: .* --max-megapixels 3 takes it; mend or remove it"
    with pytest.raises(InputError, match=message):
        prepare(tmp_path, out, size=8, max_megapixels=2)
    assert len(Pack.open(prepare(tmp_path, out, size=8, max_megapixels=3))) == 1
    with pytest.raises(InputError, match="max_megapixels 0: give 1 or more"):
        prepare(tmp_path, out, size=8, max_megapixels=0)


def test_all_bad_images_are_named_at_once(tmp_path, capsys):
    tree(tmp_path, "train/a/0.jpg", "train/b/0.jpg", "val/a/0.jpg", "val/b/0.jpg")
    bad = ["train/a/1.jpg", "train/b/\x1b[31m.jpg", "val/b/1.jpg"]
    tree(tmp_path, *bad, data=b"no image")
    out = beside(tmp_path)
    with pytest.raises(
        InputError, match=r"train/a/1.jpg: no image .*; and 2 more .* above: mend or"
    ):
        prepare(tmp_path, out, size=8)
    text = capsys.readouterr().err
    assert "\x1b" not in text and text.count("no image that Pillow can read\n") == 3
    for name in bad:
        (tmp_path / name).unlink()
    packs = open_splits(prepare(tmp_path, out, size=8))
    assert [len(pack) for pack in packs.values()] == [2, 2]


def test_control_characters_do_not_reach_the_terminal(tmp_path, capsys):
    tree(tmp_path, "a/0.jpg", "a/\x1b]0;owned\x07\u202e.txt", "b/0.jpg")
    prepare(tmp_path, beside(tmp_path), size=8)
    text = capsys.readouterr().err
    assert "a/?]0;owned??.txt" in text and not {*text} & {"\x1b", "\x07", "\u202e"}


@pytest.mark.parametrize("name", ["images", "Photos", "img"])
def test_images_beside_a_table_of_labels_are_not_one_class(tmp_path, name):
    tree(tmp_path, f"{name}/0.jpg", f"{name}/1.jpg")
    (tmp_path / "labels.csv").write_text("0.jpg,cat")
    with pytest.raises(InputError, match=rf"{name} is the only folder of images.* give each class"):
        list_source(tmp_path)
    tree(tmp_path, "cats/0.jpg")
    assert sorted(counts(tmp_path)[1].classes) == sorted([name, "cats"])


# --- classes in archives --------------------------------------------------------------------------


def class_archives(folder):
    """What the archive of ILSVRC's training images unpacks to."""
    folder.mkdir(parents=True)
    for wnid, images in archives.TRAIN.items():
        archives.pack(folder / f"{wnid}.tar", images)
    return folder


def pixels(out):
    pack = Pack.open(out)
    return pack.classes, pack.labels.tolist(), pack.gather(range(len(pack))).tolist()


def test_archives_of_synsets_beside_each_other_are_classes(tmp_path, monkeypatch):
    """In a split too, or half unpacked; the pack is that of the folders."""
    tree = archives.unpacked(tmp_path / "tree")
    expected = prepare(tree, tmp_path / "expected", size=24) / "train"
    folder = class_archives(tmp_path / "images")
    half = class_archives(tmp_path / "half")
    (half / "n01443537.tar").unlink()
    (tree / "train" / "n01443537").rename(half / "n01443537")
    (tree / "train" / "n01484850").rename(half / "n01484850")  # and its archive is still there
    splits = class_archives(tmp_path / "splits" / "train").parent
    (tree / "val").rename(splits / "val")
    class_archives(tmp_path / "deep" / "ILSVRC" / "train")
    monkeypatch.setattr(listing_module, "_OPEN", {f"open before {i}": os.dup(0) for i in range(15)})
    for source in (folder, half, tmp_path / "deep"):
        assert pixels(prepare(source, beside(source), size=24, workers=1)) == pixels(expected)
    packs = open_splits(prepare(splits, beside(splits), size=24, workers=1))
    assert pixels(packs["train"].path) == pixels(expected) and len(packs["val"]) == 6
    assert rejections(beside(half)) == {"n01484850.tar": "not in a class folder"}
    assert len(listing_module._OPEN) == 16
    one = prepare(folder, tmp_path / "one", size=24, classes=["n01443537"], limit=2)
    assert len(Pack.open(one)) == 2


def test_archives_of_classes_of_any_name_if_nothing_else_is_there(tmp_path):
    for name in ("cat", "dog"):
        archives.pack(tmp_path / f"{name}.tar", [(f"{name}/", b""), (f"{name}/0.jpg", JPEG)])
    assert counts(tmp_path)[1].classes == ["cat", "dog"]
    tree(tmp_path, "fish/0.jpg")  # a backup beside class folders is no class
    assert counts(tmp_path)[1].classes == ["fish"]
    (tmp_path / "more").mkdir()
    for name in ("fall11_whole", "winter21_whole"):
        archives.pack(tmp_path / "more" / f"{name}.tar", [("n01440764.tar", b"")])
    with pytest.raises(InputError, match=r"holds no class folders, and archives: fall11_whole.tar"):
        list_source(tmp_path / "more")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:1500], "n01443537.tar is a damaged archive"),
        (lambda data: b"", "n01443537.tar is a damaged archive"),
        (gzip.compress, r"n01443537.tar is compressed \(gzip\)"),
        (lambda data: archives.packed([("a.txt", b"")]), "class archive .* holds no images.*a.txt"),
    ],
)
def test_a_bad_archive_of_a_class_counts_where_the_class_is_taken(tmp_path, damage, message):
    bad = class_archives(tmp_path / "images") / "n01443537.tar"
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.raises(InputError, match=message):
        prepare(tmp_path / "images", tmp_path / "out", size=8)
    prepare(tmp_path / "images", tmp_path / "out", size=8, classes=["n01440764", "n01484850"])
