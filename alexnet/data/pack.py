"""A pack: images of one size in a folder, ready to be read at any index (section 2 of the paper:
256x256, the mean image).

    manifest.json       format version, size, counts, classes, names, source, options, decoders,
                        SHA-256 of every other file; written last
    images-00000.npy    uint8 (n, S, S, 3), RGB, at most 1 GiB each; then images-00001.npy ...
    labels.npy          int32 (N,), positions in `classes`; all -1 where the classes are unknown
    mean.npy            float32 (S, S, 3), the mean image
    color.json          RGB mean, covariance, eigenvalues, eigenvectors as columns, in gray levels
    rejected.csv        path, reason: what was left out

Where pixels would take too much room, `encoding` is "jpeg" instead of "raw", and the images are
JPEG files of S x S, end to end:

    images-00000.jpegs  at most 1 GiB each; then images-00001.jpegs ...
    offsets.npy         int64 (N + 1,): image i is bytes offsets[i] to offsets[i + 1] of all of them

Mean and colors are those of the pixels that the pack gives back. Several splits are a folder of
packs: `train/`, `val/`, `test/`.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from alexnet.data import decode
from alexnet.errors import EnvironmentFault, InputError, is_environments, reason
from alexnet.files import file_digest

VERSIONS = {"raw": 1, "jpeg": 2}  # of the format, by encoding
CHECKPOINT = "checkpoint.npz"  # in the folder of a pack that is being written
SPLITS = ("train", "val", "test")
AGAIN = "remove it, and prepare it again"


class Pack:
    """A prepared data set, read from memory-mapped shards.

    Attributes:
        path: Its folder.
        size: Pixels of a side, S.
        encoding: "raw" or "jpeg".
        classes: Class folders, in label order.
        names: What people call the classes.
        numbers: ILSVRC's numbers of the classes, or None.
        labels: int32 (N,).
        mean: The mean image, float32 (S, S, 3).
        color: RGB mean, covariance, eigenvalues (descending), eigenvectors (columns), float64, in
            gray levels.
        digest: SHA-256 over the shards' digests and that of the labels: it identifies the data.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]):
        self.path, self.manifest = path, manifest
        self.size: int = manifest["size"]
        self.encoding: str = manifest.get("encoding", "raw")
        self.classes: list[str] = manifest["classes"]
        self.names: list[str] = manifest["names"]
        self.numbers: list[int] | None = manifest.get("numbers")
        self.labels: np.ndarray = np.load(path / "labels.npy")
        self.mean: np.ndarray = np.load(path / "mean.npy")
        color = json.loads((path / "color.json").read_text())
        self.color = {key: np.array(value) for key, value in color.items()}
        shards = manifest["shards"]
        digests = [shard["sha256"] for shard in shards] + [manifest["files"]["labels.npy"]]
        self.digest = hashlib.sha256("\n".join(digests).encode()).hexdigest()
        files = [path / shard["file"] for shard in shards]
        if self.encoding == "jpeg":
            self._shards: list[np.ndarray] = [np.memmap(file, np.uint8, "r") for file in files]
            self._offsets: np.ndarray = np.load(path / "offsets.npy", mmap_mode="r")
            self._bytes = np.cumsum([0] + [len(shard) for shard in self._shards])
        else:
            # The plain view: indexing a memmap makes another one each time, which takes longer
            # than copying a small image.
            self._shards = [np.load(file, mmap_mode="r").view(np.ndarray) for file in files]
        self._starts = np.cumsum([0] + [shard["count"] for shard in shards])

    @classmethod
    def open(cls, path: str | Path) -> "Pack":
        """Open the pack in folder `path`.

        Raises:
            InputError: It is no pack, one of another version, incomplete, or damaged.
        """
        path = Path(path)
        manifest = read_manifest(path)
        if manifest is None:
            if inside := _splits_in(path):
                packs = ", ".join(str(path / name) for name in inside)
                raise InputError(f"{path} is a folder of packs: name one of them, {packs}")
            if path.exists():
                what = f"{path} is not a pack: make one of its images"
                raise InputError(f"{what} with `alexnet prepare {path} PACK`, or name one")
            what = f"{path} does not exist"
            raise InputError(f"{what}: make one with `alexnet prepare SOURCE {path}`")
        version = manifest.get("version")
        if version != VERSIONS.get(str(manifest.get("encoding", "raw")), -1):
            known = " and ".join(f"{number} ({encoding})" for encoding, number in VERSIONS.items())
            raise InputError(f"{path}: version {version}, this program reads {known}: {AGAIN}")
        try:
            for file, expected in ((shard["file"], shard["bytes"]) for shard in manifest["shards"]):
                if (size := (path / file).stat().st_size) != expected:
                    what = f"{file} has {size} bytes instead of {expected}"
                    raise InputError(f"{path} is damaged, {what}: {AGAIN}")
            for name in manifest["files"]:
                (path / name).stat()
            pack = cls(path, manifest)
            if not pack._is_sound():
                raise InputError(f"{path} contradicts its own manifest: {AGAIN}")
        except InputError:
            raise
        except Exception as error:  # numpy reads headers as Python: one bit fails in many ways
            what = f"({reason(error)})"
            if is_environments(error) and not isinstance(error, FileNotFoundError):
                raise EnvironmentFault(f"cannot read the pack {path} {what}") from None
            raise InputError(f"{path} is a damaged pack {what}: {AGAIN}") from None
        return pack

    def _is_sound(self) -> bool:
        """Whether the manifest's fields and the small files are of the right kinds, and shards,
        offsets and labels fit together."""
        if not (
            all(isinstance(x, list) for x in (self.classes, self.names))
            and all(isinstance(name, str) for name in self.classes + self.names)
            and len(set(self.classes)) == len(self.classes) == len(self.names)
            and all(Path(shard["file"]).name == shard["file"] for shard in self.manifest["shards"])
            and (self.labels.dtype, self.mean.dtype) == (np.int32, np.float32)
            and self.mean.shape == (self.size, self.size, 3)
            and len(self) == self._starts[-1] == self.manifest["count"]
        ):
            return False
        known = self.labels if self.labeled else self.labels[:0]
        if known.size and not (known.min() >= 0 and known.max() < len(self.classes)):
            return False
        if self.encoding == "jpeg":
            offsets = self._offsets
            is_whole = offsets.dtype == np.int64 and len(offsets) == len(self) + 1
            return is_whole and bool((offsets[self._starts] == self._bytes).all())
        return all(
            shard.shape == (count, self.size, self.size, 3) and shard.dtype == np.uint8
            for shard, count in zip(self._shards, np.diff(self._starts).tolist(), strict=True)
        )

    def __reduce__(self) -> Any:
        return Pack.open, (self.path,)  # to another process goes the path, not the pixels

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        size = f"{len(self)} images of {self.size}x{self.size}"
        return f"Pack({str(self.path)!r}: {size}, {len(self.classes)} classes)"

    @property
    def labeled(self) -> bool:
        """Whether the images' classes are known, as those of ILSVRC-2012's test images are not."""
        return not len(self) or bool((self.labels != -1).any())

    @property
    def pixel_bytes(self) -> int:
        """Bytes that the images take in memory."""
        return len(self) * self.size * self.size * 3

    def gather(
        self, indices: Sequence[int] | np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Read images; any number of threads at a time, without Python's lock.

        Args:
            indices: Of the images, (n,), each in 0..N-1.
            out: Where to put them.

        Returns:
            uint8 (n, S, S, 3), `out` where that is given.

        Raises:
            IndexError: An index is out of range.
            InputError: A JPEG file is damaged.
        """
        indices = np.asarray(indices, np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            given = f"{indices.min()}..{indices.max()}"
            raise IndexError(f"{self.path} has images 0..{len(self) - 1}, and not all of {given}")
        if out is None:
            out = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        if self.encoding == "jpeg":
            for i, (shard, index) in enumerate(zip(shards.tolist(), indices.tolist(), strict=True)):
                begin, end = self._offsets[index : index + 2] - self._bytes[shard]
                try:
                    out[i] = decode.jpeg_pixels(self._shards[shard][begin:end])
                except (OSError, ValueError) as error:
                    what = f"its image {index} cannot be read ({error})"
                    raise InputError(f"{self.path} is damaged, {what}: {AGAIN}") from None
            return out
        places = indices - self._starts[shards]
        if len(indices) and (shards == shards[0]).all():
            # mode "raise" would copy twice
            return np.take(self._shards[shards[0]], places, axis=0, out=out, mode="clip")
        for i, (shard, place) in enumerate(zip(shards.tolist(), places.tolist(), strict=True)):
            out[i] = self._shards[shard][place]
        return out

    def verify(self, progress: bool = False) -> None:
        """Read every file and compare its SHA-256.

        Raises:
            InputError: A file is damaged.
        """
        expected = {shard["file"]: shard["sha256"] for shard in self.manifest["shards"]}
        expected |= self.manifest["files"]
        total = sum(path.stat().st_size for path in self.path.iterdir() if path.name in expected)
        bar = {"desc": f"verifying {self.path.name}", "unit": "B", "unit_scale": True}
        with tqdm(total=total, disable=None if progress else True, leave=False, **bar) as done:
            for name, digest in expected.items():
                path = self.path / name
                if not path.is_file() or file_digest(path) != digest:
                    what = f"{name} is not what its manifest says"
                    raise InputError(f"{self.path} is damaged, {what}: {AGAIN}")
                done.update(path.stat().st_size)


def _splits_in(path: Path) -> list[str]:
    """Which splits the folder of packs `path` holds."""
    return [name for name in SPLITS if (path / name / "manifest.json").is_file()]


def open_splits(path: str | Path) -> dict[str, Pack]:
    """Open a folder of packs, keyed "train", "val", "test"; or a single pack, which is "train".

    Raises:
        InputError: A pack cannot be opened, or they differ in classes or size.
    """
    path = Path(path)
    inside = _splits_in(path)
    if (path / "manifest.json").exists() or not inside:
        return {"train": Pack.open(path)}
    packs = {name: Pack.open(path / name) for name in inside}
    first = packs[inside[0]]
    for pack in packs.values():
        if (pack.classes, pack.size) != (first.classes, first.size):
            what = f"{pack.path} and {first.path} differ in classes or size"
            raise InputError(f"{what}: prepare them together")
    return packs


def held_out(splits: dict[str, Pack], who: str) -> str:
    """The split whose errors are reported: test, else val.

    Args:
        splits: As `open_splits` gives.
        who: In whose name an error is raised.

    Raises:
        InputError: There is neither, or no train.
    """
    name = next((name for name in ("test", "val") if name in splits), None)
    if name is None or "train" not in splits:
        needs = f"{who}: needs train and test or val; there is {', '.join(splits)}"
        raise InputError(f"{needs}: prepare a source with splits")
    return name


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of the pack at `path`, or None where there is no pack.

    Raises:
        EnvironmentFault: The disk or the network does not say.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise EnvironmentFault(f"cannot read the pack {path} ({reason(error)})") from None
    is_ours = isinstance(manifest, dict) and manifest.get("format") == "alexnet pack"
    return manifest if is_ours else None
