"""ImageNet's archives, read in place: the same images and labels as unpacked ones, and every damage
noticed."""

import errno
import gzip
import io
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from alexnet.data.decode import fit
from alexnet.data.pack import Pack, open_splits
from alexnet.data.prepare import prepare
from alexnet.data.sources import list_source
from alexnet.errors import EnvironmentFault, InputError
from alexnet.evaluation import check_submission
from tests import archives
from tests.archives import TRAIN, WNIDS, WORDS, pack, packed, picture
from tests.images import rejections


@pytest.fixture
def ilsvrc(tmp_path):
    return archives.ilsvrc2012(tmp_path / "ILSVRC2012")


def listed(images):
    return [(images.below(reference).rpartition("/")[2], label) for reference, label in images]


def test_ilsvrc2012_from_its_archives(ilsvrc, tmp_path):
    before = sorted(path.name for path in ilsvrc.iterdir())
    out = prepare(ilsvrc, tmp_path / "packs", size=24)
    assert sorted(path.name for path in ilsvrc.iterdir()) == before  # nothing unpacked
    plain = prepare(archives.unpacked(tmp_path / "plain"), tmp_path / "plain packs", size=24)
    ours, theirs = open_splits(out), open_splits(plain)
    assert list(ours) == ["train", "val", "test"] and list(theirs) == ["train", "val"]
    assert (ours["train"].classes, ours["train"].names) == (WNIDS, WORDS)
    assert ours["train"].digest == theirs["train"].digest and len(ours["train"]) == 12
    assert ours["val"].labels.tolist() == [2, 0, 1, 1, 2, 0]  # in the order of the ground truth
    order = np.argsort(ours["val"].labels, kind="stable")
    assert np.array_equal(ours["val"].gather(order), theirs["val"].gather(range(6)))
    assert ours["train"].manifest["source"]["layout"] == "ILSVRC-2012"
    assert (
        ours["val"].numbers == [3, 2, 1] and theirs["val"].numbers is None
    )  # the development kit's order is another
    assert ours["test"].labels.tolist() == [-1] and not ours["test"].labeled and ours["val"].labeled
    with Image.open(io.BytesIO(picture(5))) as image:
        assert np.array_equal(ours["test"].gather([0])[0], np.asarray(fit(image, 24)))


def test_test_images_without_labels_are_in_the_order_of_their_numbers(ilsvrc, tmp_path):
    files = [(f"test/ILSVRC2012_test_{i:08d}.JPEG", picture(i)) for i in (3, 1, 5, 2)]
    pack(
        ilsvrc / "ILSVRC2012_img_test_v10102019.tar", [*files, ("test/notes.JPEG", b"none")]
    )  # the newer one is taken
    listing = list_source(ilsvrc)
    assert listed(listing.splits["test"]) == [
        (f"ILSVRC2012_test_{i:08d}.JPEG", -1) for i in (1, 2, 3, 5)
    ]
    out = prepare(ilsvrc, tmp_path / "packs", size=24, encoding="jpeg")
    packs = open_splits(out)
    assert len(packs["test"]) == 4 and packs["test"].labels.tolist() == [-1] * 4
    assert list(rejections(out / "test").values()) == [
        "no number in its name",
        "missing among the others",
    ]
    with pytest.raises(
        InputError, match=r"packs/test lacks 2 of its images, which .*rejected.csv lists"
    ):
        check_submission(with_classes(packs["test"], 5))
    assert prepare(ilsvrc, out, size=24, encoding="jpeg") == out  # it is there


def with_classes(pack, count):
    pack.classes, pack.numbers = [*map(str, range(count))], [*range(1, count + 1)]
    return pack


def test_of_a_part_there_are_no_test_images_without_labels(ilsvrc):
    listing = list_source(ilsvrc, classes=[WNIDS[0], WNIDS[2]])
    assert list(listing.splits) == ["train", "val"] and listing.numbers == [3, 1]
    assert "left out: test (its images have no labels, of which to take a part)" in listing.notes


def test_workers_read_archives(ilsvrc, tmp_path):
    packs = [
        Pack.open(prepare(ilsvrc, tmp_path / str(n), size=24, workers=n) / "train") for n in (1, 2)
    ]
    assert packs[0].digest == packs[1].digest


def test_the_development_kit_may_be_unpacked(ilsvrc, tmp_path):
    shutil.unpack_archive(ilsvrc / "ILSVRC2012_devkit_t12.tar.gz", ilsvrc, filter="data")
    (ilsvrc / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    assert list_source(ilsvrc).names == WORDS


def test_ilsvrc2010_with_its_patches(tmp_path):
    listing = list_source(archives.ilsvrc2010(tmp_path / "2010"))
    assert (listing.layout, list(listing.splits)) == ("ILSVRC-2010", ["train", "val", "test"])
    assert [label for _, label in listing.splits["val"]] == [2, 0, 1]
    assert [label for _, label in listing.splits["test"]] == [1, 2, 0]
    files = {
        reference.path.rpartition("/")[2]: reference.file()
        for reference, _ in listing.splits["train"]
    }
    assert (
        files[f"{WNIDS[1]}_7.JPEG"] == picture(77)
        and files[f"{WNIDS[1]}_9.JPEG"] == dict(TRAIN[WNIDS[1]])[f"{WNIDS[1]}_9.JPEG"]
    )
    assert [reference.file() for reference, _ in listing.splits["val"]] == [
        archives.VAL[0],
        picture(78),
        archives.VAL[2],
    ]


def test_one_archive_of_all_classes(tmp_path):
    inner = [(f"{wnid}.tar", packed(TRAIN[wnid])) for wnid in WNIDS]
    pack(tmp_path / "fall11_whole.tar", inner)
    (tmp_path / "words.txt").write_text(f"{WNIDS[0]}\t{WORDS[0]}\n")
    listing = list_source(tmp_path / "fall11_whole.tar")
    assert (listing.layout, listing.names) == ("archive", [WORDS[0], *WNIDS[1:]])
    expected = [
        (f"{wnid}_{i}.JPEG", label) for label, wnid in enumerate(WNIDS) for i in (10, 3, 7, 9)
    ]
    assert listed(listing.splits["train"]) == expected
    assert (
        len(
            Pack.open(
                prepare(
                    tmp_path / "fall11_whole.tar", tmp_path / "out", size=24, classes=2, limit=3
                )
            )
        )
        == 6
    )


def test_what_an_archive_should_not_hold(tmp_path):
    good = picture(1)
    hostile = [
        ("../../etc/passwd.JPEG", good), ("/elsewhere/evil.JPEG", good), ("ok/../../x.JPEG", good),
        ("folder/", b""), ("._n1.JPEG", b"Mac"), ("a.JPEG", picture(2)), ("b.JPEG", good),
        ("a.JPEG", good), ("name with spaces é 鯉.JPEG", good), ("page.JPEG", b"<html>"),
        ("./b.JPEG", good), ("f.txt", good),
    ]  # fmt: skip
    leading_out = [
        ("../n0.tar", packed([("a.JPEG", good)])),
        ("/abs/n9.tar", packed([("a.JPEG", good)])),
    ]
    pack(
        tmp_path / "x.tar",
        [
            ("n1.tar", packed(hostile)),
            ("readme.txt", b"hello"),
            ("n2.tar", packed(TRAIN[WNIDS[0]])),
            *leading_out,
        ],
    )
    out = Pack.open(prepare(tmp_path / "x.tar", tmp_path / "out", size=24, skip_bad=True))
    assert len(out) == 3 + 4
    images = out.gather([0, 1, 2])
    assert (images == images[0]).all()  # of two a.JPEG the last
    rows = rejections(out.path)
    leads_out = "a path that leads out of the archive"
    same_name = "a later member of the archive has the same name"
    assert [(path.removeprefix("x.tar/"), reason) for path, reason in rows.items()] == [
        ("readme.txt", "not an archive of a class"),
        ("../n0.tar", leads_out),
        ("/abs/n9.tar", leads_out),
        ("n1.tar/../../etc/passwd.JPEG", leads_out),
        ("n1.tar//elsewhere/evil.JPEG", leads_out),
        ("n1.tar/ok/../../x.JPEG", leads_out),
        ("n1.tar/._n1.JPEG", "hidden: its name begins with a dot"),
        ("n1.tar/a.JPEG", same_name),
        ("n1.tar/b.JPEG", same_name),
        ("n1.tar/f.txt", "no image by its ending"),
        ("n1.tar/page.JPEG", "no image that Pillow can read"),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.tar"]


@pytest.mark.parametrize("cut", [100, 3000, 15000])
def test_an_archive_that_ends_too_early(ilsvrc, cut):
    path = ilsvrc / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"img_train.tar.* is a damaged archive .*fetch it again"):
        list_source(ilsvrc)


def test_an_archive_with_a_broken_header(ilsvrc):
    path = ilsvrc / "ILSVRC2012_img_val.tar"
    data = bytearray(path.read_bytes())
    at = data.index(b"ILSVRC2012_val_00000003")
    data[at] ^= 1  # tarfile alone would take it for the end
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"img_val.tar is a damaged archive"):
        list_source(ilsvrc)


def test_an_archive_at_odds_with_the_ground_truth(ilsvrc, tmp_path):
    val = [(f"ILSVRC2012_val_{i:08d}.JPEG", picture(i)) for i in (1, 2, 4, 5, 6, 9)] + [
        ("notes.txt", b"")
    ]
    pack(ilsvrc / "ILSVRC2012_img_val.tar", val)
    out = prepare(ilsvrc, tmp_path / "out", size=24)
    assert open_splits(out)["val"].labels.tolist() == [2, 0, 1, 2, 0]
    rows = rejections(out / "val")
    assert {path.rpartition("/")[2]: reason for path, reason in rows.items()} == {
        "notes.txt": "no image by its ending",
        "ILSVRC2012_val_00000009.JPEG": "the ground truth has no image of this number",
        "00000003": "in the ground truth, and not in the archive",
    }


def test_what_lacks(ilsvrc, tmp_path):
    kit = ilsvrc / "ILSVRC2012_devkit_t12.tar.gz"
    whole = kit.read_bytes()
    kit.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"devkit_t12.tar.gz is a damaged archive"):
        list_source(ilsvrc)
    kit.write_bytes(gzip.compress(packed([("kit/readme.txt", b"")])))
    with pytest.raises(InputError, match=r"holds no data/meta.mat"):
        list_source(ilsvrc)
    kit.write_bytes(gzip.compress(packed([("kit/data/meta.mat", b"MATLAB 5.0 no more")])))
    with pytest.raises(InputError, match=r"meta.mat .* cannot be read"):
        list_source(ilsvrc)
    archives.devkit(kit, "ILSVRC2012_devkit_t12", 2012, [1, 9])
    with pytest.raises(InputError, match=r"names a synset 9"):
        list_source(ilsvrc)
    kit.unlink()
    with pytest.raises(InputError, match=r"lacks ILSVRC2012_devkit_t12.tar.gz, which says"):
        list_source(ilsvrc)
    pack(ilsvrc / "ILSVRC2012_img_train.tar", [("n1.tar", packed([]))])
    with pytest.raises(InputError, match=r"knows no n1 of"):
        archives.devkit(kit, "ILSVRC2012_devkit_t12", 2012, [])
        list_source(ilsvrc)
    pack(tmp_path / "x.tar", [("n1.tar", packed([]))])
    with pytest.raises(InputError, match=r"x.tar/n1.tar holds no images"):
        list_source(tmp_path / "x.tar")
    pack(tmp_path / "x.tar", [("readme", b"")])
    with pytest.raises(InputError, match=r"holds no `<class>.tar`"):
        list_source(tmp_path / "x.tar")
    archives.ilsvrc2010(tmp_path / "2010")
    (tmp_path / "2010" / "ILSVRC2010_test_ground_truth.txt").unlink()
    with pytest.raises(InputError, match=r"needs ILSVRC2010_test_ground_truth.txt beside it"):
        list_source(tmp_path / "2010")


def test_the_manifest_tells_no_path_of_this_machine(ilsvrc, tmp_path):
    out = prepare(ilsvrc, tmp_path / "out", size=24)
    assert str(tmp_path) not in (out / "train" / "manifest.json").read_text()


# --- archives as people have them -----------------------------------------------------------------


def test_a_compressed_archive_is_not_called_damaged(ilsvrc, tmp_path):
    path = ilsvrc / "ILSVRC2012_img_train.tar"
    whole = path.read_bytes()
    path.write_bytes(gzip.compress(whole))
    with pytest.raises(InputError, match=r"img_train.tar is compressed \(gzip\).*: decompress it"):
        list_source(ilsvrc)
    inner = [
        ("n1.tar", packed(TRAIN[WNIDS[0]])),
        ("n2.tar", gzip.compress(packed(TRAIN[WNIDS[1]]))),
    ]
    pack(tmp_path / "x.tar", inner)
    with pytest.raises(InputError, match=r"x.tar/n2.tar is compressed \(gzip\)"):
        list_source(tmp_path / "x.tar")
    assert len(list_source(tmp_path / "x.tar", classes=["n1"]).splits["train"]) == 4
    for name, data in (("x.tar.gz", gzip.compress(whole)), ("x.zip", b"PK\3\4" + bytes(99))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name} is compressed .*: unpack it and name what"):
            list_source(tmp_path / name)


def test_archives_by_other_names(tmp_path):
    inner = [(f"winter21_whole/{wnid}.TAR", packed(TRAIN[wnid])) for wnid in WNIDS]
    for name in ("winter21_whole.TAR", "no ending"):
        pack(tmp_path / name, inner)
        listing = list_source(tmp_path / name)
        assert listing.classes == WNIDS and len(listing.splits["train"]) == 12


def test_images_without_endings_in_archives(tmp_path):
    files = [("n1_1", picture(1)), ("n1_2", b"by hand"), ("n1_3.jfif", picture(3))]
    pack(tmp_path / "x.tar", [("n1.tar", packed(files))])
    assert [name for name, _ in listed(list_source(tmp_path / "x.tar").splits["train"])] == [
        "n1_1",
        "n1_3.jfif",
    ]


def test_a_ground_truth_with_a_mark_at_the_beginning(tmp_path):
    root = archives.ilsvrc2010(tmp_path / "2010")
    truth = root / "ILSVRC2010_test_ground_truth.txt"
    truth.write_bytes(b"\xef\xbb\xbf" + truth.read_bytes())
    assert [label for _, label in list_source(root).splits["test"]] == [1, 2, 0]


def test_a_disk_that_fails_damages_no_development_kit(ilsvrc, monkeypatch):
    def failing(*_, **__):
        raise OSError(errno.EIO, "Input/output error", "kit")

    monkeypatch.setattr(tarfile, "open", failing)
    with pytest.raises(EnvironmentFault, match="cannot read kit: Input/output error; see that"):
        list_source(ilsvrc)
