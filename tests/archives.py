"""Miniatures of ImageNet's archives, in the exact layout in which they are distributed: names,
nesting, and the development kit's files."""

import io
import tarfile
from pathlib import Path

import numpy as np
from scipy.io import savemat

from tests.images import photograph, saved

WNIDS = ["n01440764", "n01443537", "n01484850"]
WORDS = [
    "tench, Tinca tinca",
    "goldfish, Carassius auratus",
    "great white shark, white shark, man-eater",
]


def picture(seed: int, width: int = 40, height: int = 30) -> bytes:
    """A JPEG file."""
    return saved(photograph(width, height, seed), quality=95)


def pack(path: Path | io.BytesIO, files: list[tuple[str, bytes]], mode: str = "w") -> None:
    """A tar of these, in this order. A name that ends in "/" is a folder's."""
    target = {"fileobj": path} if isinstance(path, io.BytesIO) else {"name": path}
    with tarfile.open(mode=mode, format=tarfile.GNU_FORMAT, **target) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            tar.addfile(info, io.BytesIO(data))


def packed(files: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    pack(buffer, files)
    return buffer.getvalue()


def devkit(
    path: Path,
    top: str,
    year: int,
    truth: list[int],
    wnids: list[str] = WNIDS,
    words: list[str] = WORDS,
) -> None:
    """The development kit: data/meta.mat, in which an inner node of the hierarchy follows the
    classes, and the numbers of the validation images' classes. Numbers begin at 1 and are in
    another order than the identifiers: the last class is 1."""
    kinds = [float, object, object, object, float, object, float, float]
    names = "WNID words gloss num_children children wordnet_height num_train_images"
    fields = list(zip([f"ILSVRC{year}_ID", *names.split()], kinds, strict=True))
    rows = [
        (i + 1, wnid, words, "a fish", 0, [], 0, 4)
        for i, (wnid, words) in enumerate(zip(wnids[::-1], words[::-1], strict=True))
    ]
    rows.append(
        (len(wnids) + 1, "n02512053", "fish", "", len(wnids), [*range(1, len(wnids) + 1)], 1, 0)
    )
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": np.array(rows, fields).reshape(-1, 1)})
    text = "".join(f"{number}\n" for number in truth).encode()
    files = [
        (f"{top}/", b""),
        (f"{top}/data/", b""),
        (f"{top}/data/meta.mat", buffer.getvalue()),
        (f"{top}/data/ILSVRC{year}_validation_ground_truth.txt", text),
        (f"{top}/readme.txt", b"see data/\n"),
    ]
    pack(path, files, "w:gz")


TRAIN = {
    wnid: [(f"{wnid}_{i}.JPEG", picture(100 * c + i)) for i in (10, 9, 7, 3)]
    for c, wnid in enumerate(WNIDS)
}
VAL = [picture(1000 + i) for i in range(1, 7)]
TRUTH = [1, 3, 2, 2, 1, 3]  # labels 2, 0, 1, 1, 2, 0


def ilsvrc2012(root: Path) -> Path:
    root.mkdir()
    pack(
        root / "ILSVRC2012_img_train.tar",
        [(f"{wnid}.tar", packed(files)) for wnid, files in reversed(TRAIN.items())],
    )
    val = [(f"ILSVRC2012_val_{i:08d}.JPEG", data) for i, data in enumerate(VAL, 1)]
    pack(root / "ILSVRC2012_img_val.tar", val[::-1])
    pack(root / "ILSVRC2012_img_test.tar", [("ILSVRC2012_test_00000001.JPEG", picture(5))])
    devkit(root / "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12", 2012, TRUTH)
    return root


def ilsvrc2012_of(tree: Path, root: Path, fall2011: Path | None = None, more: int = 0) -> Path:
    """The images of a tree, train/<class>/ val/... test/..., as ILSVRC-2012 has them.

    fall2011: also those of train as one archive of all classes, of which the last `more` are no
    part of the other.
    """
    classes = sorted(path.name for path in (tree / "train").iterdir())
    wnids = [f"n{10_000_000 + i}" for i in range(len(classes))]
    task = wnids[: len(classes) - more]
    trains = {
        w: [(f"{w}_{p.stem}.JPEG", p.read_bytes()) for p in sorted((tree / "train" / c).iterdir())]
        for w, c in zip(wnids, classes)
    }
    root.mkdir()
    pack(
        root / "ILSVRC2012_img_train.tar", [(f"{wnid}.tar", packed(trains[wnid])) for wnid in task]
    )
    val = [
        (number, path)
        for number, c in zip(range(len(task), 0, -1), classes)
        for path in sorted((tree / "val" / c).iterdir())
    ]
    pack(
        root / "ILSVRC2012_img_val.tar",
        [(f"ILSVRC2012_val_{i:08d}.JPEG", path.read_bytes()) for i, (_, path) in enumerate(val, 1)],
    )
    test = sorted((tree / "test").glob("*/*"))
    pack(
        root / "ILSVRC2012_img_test.tar",
        [(f"ILSVRC2012_test_{i:08d}.JPEG", path.read_bytes()) for i, path in enumerate(test, 1)],
    )
    truth, names = [number for number, _ in val], [c for c, _ in zip(classes, task)]
    devkit(root / "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12", 2012, truth, task, names)
    if fall2011 is not None:
        pack(fall2011, [(f"{wnid}.tar", packed(files)) for wnid, files in trains.items()])
    return root


def ilsvrc2010(root: Path) -> Path:
    root.mkdir()
    pack(
        root / "ILSVRC2010_images_train.tar",
        [(f"{wnid}.tar", packed(files)) for wnid, files in TRAIN.items()],
    )
    for split, first in (("val", 0), ("test", 3)):
        files = [
            (f"{split}/ILSVRC2010_{split}_{i:08d}.JPEG", data)
            for i, data in enumerate(VAL[first : first + 3], 1)
        ]
        pack(root / f"ILSVRC2010_images_{split}.tar", [(f"{split}/", b""), *files])
    (root / "ILSVRC2010_test_ground_truth.txt").write_text(
        "".join(f"{number}\n" for number in TRUTH[3:])
    )
    devkit(root / "ILSVRC2010_devkit-1.0.tar.gz", "devkit-1.0", 2010, TRUTH[:3])
    patches = [
        (f"patch_images/train/{WNIDS[1]}_7.JPEG", picture(77)),
        ("patch_images/val/ILSVRC2010_val_00000002.JPEG", picture(78)),
    ]
    pack(root / "patch_images.tar", patches)
    return root


def unpacked(root: Path) -> Path:
    """The images of `ilsvrc2012` as a folder of splits."""
    for wnid, files in TRAIN.items():
        (root / "train" / wnid).mkdir(parents=True)
        (root / "val" / wnid).mkdir(parents=True)
        for name, data in files:
            (root / "train" / wnid / name).write_bytes(data)
    for i, (data, number) in enumerate(zip(VAL, TRUTH, strict=True), 1):
        (root / "val" / WNIDS[::-1][number - 1] / f"ILSVRC2012_val_{i:08d}.JPEG").write_bytes(data)
    return root
