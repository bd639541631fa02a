import errno
import json
import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from alexnet.data import sources, torchvision_sets
from alexnet.data.listing import SAMPLE, File, Item, Stray
from alexnet.data.pack import Pack, open_splits
from alexnet.data.prepare import prepare
from alexnet.errors import EnvironmentFault, InputError
from tests.images import rejections


def image(path, color=(10, 20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), color).save(path)


def listed(listing):
    return {
        split: [(images.below(reference), label) for reference, label in images]
        for split, images in listing.splits.items()
    }


def strays(listing, split="train"):
    return {
        listing.splits[split].below(e): e.reason
        for e, _ in listing.splits[split].entries()
        if isinstance(e, Stray)
    }


def test_image_folder(tmp_path):
    for name in ("sea_lion/b.PNG", "sea_lion/a.jpg", "ant/z.jpeg"):
        image(tmp_path / name)
    (tmp_path / "ant" / "notes.txt").write_text("")
    (tmp_path / "ant" / ".hidden.jpg").write_text("")
    listing = sources.list_source(tmp_path)
    assert (listing.layout, listing.classes, listing.names) == (
        "image folder",
        ["ant", "sea_lion"],
        ["ant", "sea lion"],
    )
    assert listed(listing) == {
        "train": [("ant/z.jpeg", 0), ("sea_lion/a.jpg", 1), ("sea_lion/b.PNG", 1)]
    }
    assert listing.notes == [
        "left out of train, and listed in rejected.csv: ant/.hidden.jpg, ant/notes.txt"
    ]
    assert strays(listing) == {
        "ant/.hidden.jpg": "hidden: its name begins with a dot",
        "ant/notes.txt": "no image by its ending",
    }


def test_a_class_named_train_is_a_class(tmp_path):
    image(tmp_path / "train" / "a.jpg")
    image(tmp_path / "tram" / "a.jpg")
    assert sources.list_source(tmp_path).classes == ["train", "tram"]
    image(tmp_path / "train" / "b" / "a.jpg")  # or is it a split, beside a stray image?
    with pytest.raises(InputError, match=r"train holds folders \(b\) and images \(a.jpg\): take"):
        sources.list_source(tmp_path)


def test_splits(tmp_path):
    for name in ("train/b/0.jpg", "train/a/0.jpg", "test/a/9.jpg", "test/b/8.jpg", "extra/a/0.jpg"):
        image(tmp_path / name)
    listing = sources.list_source(tmp_path)
    assert listing.layout == "splits"
    assert listed(listing) == {
        "train": [("train/a/0.jpg", 0), ("train/b/0.jpg", 1)],
        "test": [("test/a/9.jpg", 0), ("test/b/8.jpg", 1)],
    }
    assert len(listing.notes) == 1 and "extra" in listing.notes[0]


def test_nothing_is_left_out_without_a_word(tmp_path):
    for name in (
        "one/a/0.png",
        "one/.b/0.png",
        "two/train/a/0.png",
        "two/train/.c/0.png",
        "two/loose.png",
    ):
        image(tmp_path / name)
    shutil.copy(tmp_path / "one" / "a" / "0.png", tmp_path / "one" / "endless")
    (tmp_path / "one" / "words.txt").write_text("a\tan a\n")
    one, two = sources.list_source(tmp_path / "one"), sources.list_source(tmp_path / "two")
    assert strays(one) == {
        ".b": "hidden: its name begins with a dot",
        "endless": "not in a class folder",
    }
    assert strays(two) == {"train/.c": "hidden: its name begins with a dot"}
    assert (
        two.notes[0]
        == f"left out: {tmp_path / 'two' / 'loose.png'} (not in a class folder of a split)"
    )


def test_digest_follows_paths_labels_and_bytes(tmp_path):
    for root in ("one", "two"):
        image(tmp_path / root / "a" / "0.png")

    def digest(root):
        return sources.list_source(tmp_path / root).splits["train"].survey.digest

    before = digest("one")
    assert digest("two") == before  # the same wherever it lies
    image(tmp_path / "two" / "a" / "1.png")
    assert digest("two") != before
    (tmp_path / "one" / "a" / "0.png").write_bytes(b"other")
    assert digest("one") != before


def tiny_imagenet(root):
    for wnid in ("n02", "n01"):
        image(root / "train" / wnid / "images" / f"{wnid}_0.JPEG")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
    for i in range(3):
        image(root / "val" / "images" / f"val_{i}.JPEG")
    image(root / "test" / "images" / "test_0.JPEG")
    boxes = [
        f"val_{i}.JPEG\t{wnid}\t0\t0\t1\t1\n" for i, wnid in ((2, "n01"), (0, "n02"), (1, "n01"))
    ]
    (root / "val" / "val_annotations.txt").write_text("".join(boxes))
    (root / "wnids.txt").write_text("n02\nn01\n")
    (root / "words.txt").write_text(
        "n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\tfire salamander\n"
    )


def test_tiny_imagenet(tmp_path):
    tiny_imagenet(tmp_path)
    listing = sources.list_source(tmp_path)
    assert (listing.classes, listing.names) == (
        ["n01", "n02"],
        ["goldfish, Carassius auratus", "fire salamander"],
    )
    assert listed(listing) == {
        "train": [("train/n01/images/n01_0.JPEG", 0), ("train/n02/images/n02_0.JPEG", 1)],
        "val": [
            ("val/images/val_0.JPEG", 1),
            ("val/images/val_1.JPEG", 0),
            ("val/images/val_2.JPEG", 0),
        ],
    }
    assert any("test" in note and "no labels" in note for note in listing.notes)


def test_tiny_imagenet_at_odds_with_itself(tmp_path):
    tiny_imagenet(tmp_path)
    annotations = tmp_path / "val" / "val_annotations.txt"
    annotations.write_text("val_0.JPEG\tn02\nval_1.JPEG\tn07\n")
    with pytest.raises(InputError, match=r"line 2.*n07"):
        sources.list_source(tmp_path)
    annotations.write_text("../../etc/x.JPEG\tn02\n")
    with pytest.raises(InputError, match="line 1"):
        sources.list_source(tmp_path)
    (tmp_path / "wnids.txt").write_text("n02\n")
    with pytest.raises(InputError, match="lacks n01"):
        sources.list_source(tmp_path)


def test_cifar10(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    names = [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ]
    pixels = np.random.default_rng(0).integers(0, 256, (60, 3, 32, 32), np.uint8)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for i, batch in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        entry = {"data": pixels[10 * i : 10 * i + 10].reshape(10, -1), "labels": list(range(10))}
        (folder / batch).write_bytes(pickle.dumps(entry))
    # Not in order, for labels follow sorted names.
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names[::-1]}))
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setitem(CIFAR10.meta, "md5", None)
    for source in (tmp_path, folder):
        listing = sources.list_source(source)
        assert (listing.layout, listing.classes, list(listing.splits)) == (
            "CIFAR-10",
            names,
            ["train", "test"],
        )
        assert [len(images) for images in listing.splits.values()] == [50, 10]
        reference, label = list(listing.splits["train"])[23]
        assert label == 9 - 3  # the fourth of the reversed names
        assert np.array_equal(np.asarray(reference.open()), pixels[23].transpose(1, 2, 0))
        assert listing.splits["train"].below(reference) == "train/00023"
    monkeypatch.undo()
    # its checksums are not the real ones
    with pytest.raises(InputError, match=r"finds no CIFAR10 in .*: fetch it again"):
        sources.list_source(tmp_path)


def test_classes_must_agree(tmp_path):
    for name in ("train/a/0.jpg", "train/b/0.jpg", "val/a/0.jpg", "val/c/0.jpg"):
        image(tmp_path / name)
    with pytest.raises(InputError, match="val has c, which train lacks and lacks b"):
        sources.list_source(tmp_path)


def test_nothing_to_list(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist"):
        sources.list_source(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no class folders"):
        sources.list_source(tmp_path)
    image(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="is a file"):
        sources.list_source(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="no class folders"):
        sources.list_source(tmp_path)
    image(tmp_path / "full" / "a.jpg")
    (tmp_path / "hollow").mkdir()
    with pytest.raises(InputError, match=r"hollow.* holds no images"):
        sources.list_source(tmp_path)


def test_names_with_anything_in_them(tmp_path):
    names = [
        "with space",
        "großer Tümmler",
        "鯉",
        "a,b",
        'say "no"',
        "b'c",
        "emoji 🐟",
        os.fsdecode(b"latin\xe9"),
    ]
    for name in names:
        image(tmp_path / name / f"{name}.png")
    listing = sources.list_source(tmp_path)
    assert listing.classes == sorted(names) and len(listing.splits["train"]) == len(names)
    pack = Pack.open(prepare(tmp_path, tmp_path.with_name(f"{tmp_path.name} out"), size=4))
    assert pack.classes == sorted(names) and len(pack) == len(names)


def test_wordnets_names(tmp_path):
    for wnid in ("n01440764", "n01443537", "n02512053"):
        image(tmp_path / wnid / "a.JPEG")
    (tmp_path / "words.txt").write_text("n01440764\ttench, Tinca tinca\n")
    (tmp_path / "synset_words.txt").write_text("n01443537 goldfish, Carassius auratus\n")
    assert sources.list_source(tmp_path).names == [
        "tench, Tinca tinca",
        "goldfish, Carassius auratus",
        "n02512053",
    ]


def test_a_part_of_a_source(tmp_path):
    for split in ("train", "val"):
        for name in "abc":
            for i in range(3):
                image(tmp_path / split / name / f"{i}.png")
    (tmp_path / "train" / "b" / "x.txt").write_text("")
    part = sources.list_source(tmp_path, classes=["c", "b"], limit=2)
    assert part.classes == ["b", "c"]
    assert listed(part)["val"] == [
        ("val/b/0.png", 0),
        ("val/b/1.png", 0),
        ("val/c/0.png", 1),
        ("val/c/1.png", 1),
    ]
    assert strays(part) == {}  # it comes after the second image
    assert strays(sources.list_source(tmp_path, classes=2)) == {
        "train/b/x.txt": "no image by its ending"
    }
    assert len(sources.list_source(tmp_path, classes=1).splits["train"]) == 3
    assert len(sources.list_source(tmp_path, limit=1).splits["train"]) == 3
    with pytest.raises(InputError, match="has no class d; it has a, b, c"):
        sources.list_source(tmp_path, classes=["a", "d"])
    with pytest.raises(InputError, match="classes 4"):
        sources.list_source(tmp_path, classes=4)


def test_a_million_images_would_take_no_memory(tmp_path):
    """The listing of a split holds no list: it is found again by every pass."""
    for i in range(300):
        image(tmp_path / "a" / f"{i}.png")
    images = sources.list_source(tmp_path).splits["train"]
    assert len(images.survey.sample) < 2 * SAMPLE and images.survey.count == 300
    image(tmp_path / "a" / "late.png")
    assert len(list(images)) == 301


def test_torchvisions_data_sets(tmp_path):
    def idx(data):
        dimensions = b"".join(n.to_bytes(4, "big") for n in data.shape)
        return bytes([0, 0, 8, data.ndim]) + dimensions + data.tobytes()

    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = {
        "train": rng.integers(0, 256, (30, 28, 28), np.uint8),
        "t10k": rng.integers(0, 256, (10, 28, 28), np.uint8),
    }
    for part, images in pixels.items():
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            idx(np.arange(len(images), dtype=np.uint8) % 10)
        )
    listing = sources.list_source(f"torchvision:FashionMNIST:{tmp_path}")
    assert (
        listing.layout == "torchvision FashionMNIST"
        and listing.classes == sorted(listing.classes)
        and len(listing.classes) == 10
    )
    reference, label = list(listing.splits["train"])[13]
    assert listing.classes[label] == "Dress"  # the fourth of torchvision's order
    assert np.array_equal(np.asarray(reference.open())[:, :, 1], pixels["train"][13])
    packs = open_splits(
        prepare(
            f"torchvision:FashionMNIST:{tmp_path}",
            tmp_path.with_name(f"{tmp_path.name} out"),
            size="native",
        )
    )
    assert {split: len(pack) for split, pack in packs.items()} == {"train": 30, "test": 10}

    for name in ("n01440764/a", "n01440764/b", "n02102040/c"):
        image(tmp_path / "imagenette2" / "train" / f"{name}.JPEG")
        image(tmp_path / "imagenette2" / "val" / f"{name}.JPEG")
    for number in (2979186, 3000684, 3028079, 3394916, 3417042, 3425413, 3445777, 3888257):
        wnid = f"n{number:08d}"
        image(tmp_path / "imagenette2" / "train" / wnid / "a.JPEG")
    listing = sources.list_source(f"torchvision:Imagenette:{tmp_path}")
    names = ["tench, Tinca tinca", "English springer, English springer spaniel"]
    assert list(listing.splits) == ["train", "val"] and listing.names[:2] == names
    assert [type(reference) for reference, _ in listing.splits["val"]] == [File] * 3

    for source in (
        "torchvision:",
        "torchvision:CIFAR10",
        "torchvision:vgg:/x",
        "torchvision:VisionDataset:/x",
        "torchvision:FakeData:/x",
    ):
        with pytest.raises(InputError, match="write it as torchvision:CIFAR100"):
            sources.list_source(source)
    with pytest.raises(InputError, match=r"torchvision finds no CIFAR100 in .*not found"):
        sources.list_source(f"torchvision:CIFAR100:{tmp_path}")


@pytest.mark.parametrize(("name", "kind"), [("Food101", File), ("Caltech101", Item)])
def test_torchvisions_files_are_opened_by_workers_alone(tmp_path, monkeypatch, capsys, name, kind):
    """Damaged ones are images like others: named, or left out. Listing decodes nothing."""
    place = {"Food101": "food-101/images", "Caltech101": "caltech101/101_ObjectCategories"}[name]
    files = [f"{c}/image_{i:04d}.jpg" for c in ("apple_pie", "waffles") for i in (1, 2, 3)]
    for i, file in enumerate(files):
        image(tmp_path / place / file, (40 * i, 9, 9))
    (tmp_path / "caltech101" / "101_ObjectCategories" / "BACKGROUND_Google").mkdir(parents=True)
    (tmp_path / "food-101" / "meta").mkdir(parents=True)
    (tmp_path / "food-101" / "meta" / "classes.txt").write_text("apple_pie\nwaffles\n")
    listed = {
        c: [file.removesuffix(".jpg") for file in files if file.startswith(c)]
        for c in ("apple_pie", "waffles")
    }
    for split in ("train", "test"):
        (tmp_path / "food-101" / "meta" / f"{split}.json").write_text(json.dumps(listed))
    whole = (tmp_path / place / files[1]).read_bytes()
    (tmp_path / place / files[1]).write_bytes(whole[:-20])
    (tmp_path / place / files[3]).write_text("no image")
    source, out = f"torchvision:{name}:{tmp_path}", tmp_path.with_name(f"{tmp_path.name} out")
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "convert", lambda *_: pytest.fail("an image was decoded"))
        listing = sources.list_source(source)
    assert len(listing.splits["train"]) == 6 and {
        type(reference) for reference, _ in listing.splits["train"]
    } == {kind}
    assert listing.classes == ["apple_pie", "waffles"]
    with pytest.raises(InputError, match=r"/.*: .*; and \d more .*: mend or remove them"):
        prepare(source, out, size=4)
    pack = next(iter(open_splits(prepare(source, out, size=4, skip_bad=True)).values()))
    assert (
        pack.labels.tolist() == [0, 0, 1, 1]
        and abs(pack.gather([3])[0, 0, 0].astype(int) - [200, 9, 9]).max() < 9
    )
    rows = rejections(pack.path)
    assert len(rows) == 2 and set(rows.values()) == {"no image that Pillow can read"}


def test_tiny_imagenet_by_other_editors(tmp_path):
    tiny_imagenet(tmp_path)
    for name in ("wnids.txt", "words.txt", "val/val_annotations.txt"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    (tmp_path / "val" / "images" / "val_1.JPEG").unlink()
    listing = sources.list_source(tmp_path)
    assert listing.names == ["goldfish, Carassius auratus", "fire salamander"]
    assert [len(images) for images in listing.splits.values()] == [2, 2]
    assert strays(listing, "val") == {
        "val/images/val_1.JPEG": "in val_annotations.txt, and not there"
    }


def test_torchvisions_numbered_classes_are_in_the_order_of_their_numbers(tmp_path):
    class Numbered:
        targets = [10, 2, 1, 10]

        def __len__(self):
            return 4

    assert torchvision_sets._classes(Numbered()) == ([1, 2, 10], ["01", "02", "10"])


def test_a_split_that_torchvision_cannot_read_is_not_left_out_in_silence(tmp_path, monkeypatch):
    from torchvision import datasets

    class Half(datasets.VisionDataset):
        classes = ("a", "b")

        def __init__(self, root, train=True):
            super().__init__(root)
            if not train:
                raise error

        def __len__(self):
            return 0

    monkeypatch.setattr(datasets, "Half", Half, raising=False)
    error = OSError(errno.EIO, "Input/output error", "batch")
    with pytest.raises(EnvironmentFault, match="cannot read batch: Input/output error"):
        sources.list_source(f"torchvision:Half:{tmp_path}")
    error = RuntimeError("corrupted")
    listing = sources.list_source(f"torchvision:Half:{tmp_path}")
    assert listing.notes == ["left out: test (corrupted)"]


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESTALE, errno.EIO])
def test_a_folder_that_cannot_be_reached_is_no_class_without_images(tmp_path, monkeypatch, code):
    for name in ("a/0.png", "b/0.png"):
        image(tmp_path / name)
    scandir = os.scandir

    def failing(path):
        if str(path).endswith("b"):
            raise OSError(code, os.strerror(code), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(EnvironmentFault, match=f"cannot read .*b: {os.strerror(code)}; see that"):
        sources.list_source(tmp_path)


def test_links_into_a_folder_that_is_gone_are_not_left_out(tmp_path):
    """As a network drive that is not there; a link to nothing in a folder that is there is bad."""
    image(tmp_path / "drive" / "0.png")
    image(tmp_path / "source" / "a" / "1.png")
    (tmp_path / "source" / "a" / "0.png").symlink_to(tmp_path / "drive" / "0.png")
    (tmp_path / "source" / "a" / "2.png").symlink_to(tmp_path / "drive" / "no.png")
    assert len(sources.list_source(tmp_path / "source").splits["train"]) == 3
    (tmp_path / "drive").rename(tmp_path / "away")
    with pytest.raises(EnvironmentFault, match=r"cannot read .*a/0.png: No such file"):
        sources.list_source(tmp_path / "source")


def test_links_that_lead_in_circles(tmp_path):
    image(tmp_path / "a" / "0.png")
    (tmp_path / "a" / "1.png").symlink_to("1.png")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a" / "up").symlink_to("..")
    listing = sources.list_source(tmp_path)
    image(tmp_path / "homeless.jpg")
    lost = {
        "homeless.jpg": "not in a class folder",
        "loop": "a link that leads nowhere",
        "a/up": "a folder",
    }
    assert listing.classes == ["a"] and strays(listing) == lost
    pack = Pack.open(
        prepare(tmp_path, tmp_path.with_name(f"{tmp_path.name} out"), size=4, skip_bad=True)
    )
    assert len(pack) == 1
    assert rejections(pack.path)["a/1.png"] == "Too many levels of symbolic links"
