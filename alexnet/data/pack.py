"""A pack: images of one size as raw bytes in a folder, ready to be read at any index (section 2 of the paper: 256x256, the mean image).

    manifest.json       format version, size, counts, classes, names, source, options, decoders, SHA-256 of every other file; written last
    images-00000.npy    uint8 (n, S, S, 3), RGB, at most 1 GiB each; then images-00001.npy ...
    labels.npy          int32 (N,), positions in `classes`
    mean.npy            float32 (S, S, 3), the mean image
    color.json          RGB mean, covariance, eigenvalues, eigenvectors as columns, in gray levels
    rejected.csv        path, reason: images left out

Several splits are a folder of packs: `train/`, `val/`, `test/`.
"""

import csv
import glob
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from alexnet.errors import InputError

VERSION = 1
SHARD_BYTES = 2**30
SPLITS = ("train", "val", "test")


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` when the block ends well. InputError where `out` is more than an empty folder."""
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise InputError(f"{out} exists already: remove it or choose another name")
    with temporary(out, "partial") as folder:
        yield folder
        try:
            os.replace(folder, out)
        except OSError as error:  # the working folder itself, or something that has come to be there meanwhile
            raise InputError(f"cannot make {out}: {error.strerror}; choose another name") from None


@contextmanager
def temporary(out: Path, purpose: str) -> Iterator[Path]:
    """A folder beside `out` that lives as long as the block.

    What a killed process left behind is swept away by the next one on this machine that works on the same `out`.
    """
    stem = f".{out.name}.{purpose}-{socket.gethostname()}-"
    folder = out.parent / f"{stem}{os.getpid()}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in out.parent.glob(f"{glob.escape(stem)}*"):
            if not _alive(left.name.removeprefix(stem)):
                shutil.rmtree(left, ignore_errors=True)
        folder.mkdir()
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; choose another place") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, PermissionError):
        pass
    return True


@dataclass
class Moments:
    """Exact sums over images: what the mean image and the colors' covariance are made of.

    count: images; total: int64 (S, S, 3), the sum of the images; products: int64 (3, 3), sums over all pixels of channel i times channel j.
    int64 holds both for two billion images of 256x256.
    """

    count: int
    total: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray) -> "Moments":
        """The sums of `images`, uint8 (n, S, S, 3)."""
        products = np.zeros((3, 3), np.int64)
        for image in images:  # sums of integers, not a matrix product: that would wake BLAS's threads in every worker
            channels = image.reshape(-1, 3).T.astype(np.uint32)
            for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
                products[i, j] += (channels[i] * channels[j]).sum(dtype=np.int64)
                products[j, i] = products[i, j]
        return cls(len(images), images.sum(axis=0, dtype=np.int64), products)

    def add(self, other: "Moments") -> None:
        self.count += other.count
        self.total += other.total
        self.products += other.products

    def mean(self) -> np.ndarray:
        """The mean image, float32 (S, S, 3)."""
        return (self.total / self.count).astype(np.float32)

    def color(self) -> dict[str, np.ndarray]:
        """RGB mean (3,), population covariance (3, 3), eigenvalues (3,) descending, eigenvectors (3, 3) as columns; gray levels."""
        n = self.count * self.total.shape[0] * self.total.shape[1]
        sums = [int(s) for s in self.total.sum(axis=(0, 1))]
        mean = np.array([s / n for s in sums])
        # Python's integers: one rounding at the division, no cancellation.
        covariance = np.array([[(n * int(self.products[i, j]) - sums[i] * sums[j]) / n**2 for j in range(3)] for i in range(3)])
        values, vectors = np.linalg.eigh(covariance)
        values, vectors = values[::-1], vectors[:, ::-1]
        largest = np.abs(vectors).argmax(axis=0)
        vectors = vectors * np.sign(vectors[largest, range(3)])  # an eigenvector's sign is arbitrary: its largest entry is positive here
        return {"mean": mean, "covariance": covariance, "eigenvalues": np.maximum(values, 0.0), "eigenvectors": vectors}


class PackWriter:
    """Writes a pack into an empty folder, shard by shard, in constant memory. `finish` writes the manifest and makes it a pack.

    `expected`: how many images will be appended at most; a smaller number costs a second reading of the last shard.
    """

    def __init__(self, folder: Path, size: int, expected: int, shard_bytes: int = SHARD_BYTES):
        self.folder, self.size, self.expected = folder, size, expected
        self.per_shard = max(1, shard_bytes // (size * size * 3))
        self.shards: list[dict[str, Any]] = []
        self.labels: list[int] = []
        self.moments = Moments(0, np.zeros((size, size, 3), np.int64), np.zeros((3, 3), np.int64))
        self._file: BinaryIO | None = None
        self._planned = self._written = 0

    def append(self, images: np.ndarray, labels: Sequence[int], moments: Moments | None = None) -> None:
        """Add `images`, uint8 (n, S, S, 3), of classes `labels`; `moments` are theirs, if known."""
        self.moments.add(moments or Moments.of(images))
        self.labels.extend(labels)
        while len(images):
            if self._file is None:
                self._begin_shard()
            assert self._file is not None
            now, images = np.split(images, [self._planned - self._written])
            data = np.ascontiguousarray(now).data
            self._file.write(data)
            self._hash.update(data)
            self._written += len(now)
            if self._written == self._planned:
                self._end_shard()

    def finish(
        self, classes: Sequence[str], names: Sequence[str], *, source: Any = None, options: Any = None, decoders: Any = None,
        rejected: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Write everything but the images.

        classes, names: class folders and their human names, in label order; rejected: (path, reason) of images left out;
        source, options, decoders: how the pack came about, anything that JSON holds.
        """
        if self._file is not None:
            self._end_shard()
        np.save(self.folder / "labels.npy", np.array(self.labels, np.int32))
        np.save(self.folder / "mean.npy", self.moments.mean())
        color = {key: value.tolist() for key, value in self.moments.color().items()}
        (self.folder / "color.json").write_text(json.dumps(color, indent=1) + "\n")
        with open(self.folder / "rejected.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file, lineterminator="\n").writerows([("path", "reason"), *rejected])
        manifest = {
            "format": "alexnet pack",
            "version": VERSION,
            "size": self.size,
            "count": len(self.labels),
            "rejected": len(rejected),
            "classes": list(classes),
            "names": list(names),
            "source": source,
            "options": options,
            "decoders": decoders,
            "shards": self.shards,
            "files": {name: _sha256(self.folder / name) for name in ("labels.npy", "mean.npy", "color.json", "rejected.csv")},
        }
        partial = self.folder / "manifest.json.partial"
        partial.write_text(json.dumps(manifest, indent=1) + "\n")
        os.replace(partial, self.folder / "manifest.json")

    def _begin_shard(self) -> None:
        done = sum(shard["count"] for shard in self.shards)
        self._planned, self._written = max(1, min(self.per_shard, self.expected - done)), 0
        self._file = (self.folder / f"images-{len(self.shards):05d}.npy").open("w+b")
        header = self._header(self._planned)
        self._file.write(header)
        self._hash = hashlib.sha256(header)

    def _end_shard(self) -> None:
        assert self._file is not None
        path = self.folder / f"images-{len(self.shards):05d}.npy"
        if self._written < self._planned:  # fewer images than planned: numpy pads headers, so that they can be rewritten in place
            self._file.seek(0)
            self._file.write(self._header(self._written))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        digest = self._hash.hexdigest() if self._written == self._planned else _sha256(path)
        self.shards.append({"file": path.name, "count": self._written, "bytes": path.stat().st_size, "sha256": digest})

    def _header(self, count: int) -> bytes:
        buffer = BytesIO()
        np.lib.format.write_array_header_1_0(
            buffer, {"descr": "|u1", "fortran_order": False, "shape": (count, self.size, self.size, 3)})
        return buffer.getvalue()


class Pack:
    """A prepared data set, read from memory-mapped shards.

    path: its folder; size: S, pixels; classes: folder names; names: human names; labels: int32 (N,); mean: float32 (S, S, 3);
    color: RGB mean, covariance, eigenvalues (descending), eigenvectors (columns), float64, in gray levels;
    digest: SHA-256 over the shards' digests and that of the labels: it identifies the data.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]):
        self.path, self.manifest = path, manifest
        self.size: int = manifest["size"]
        self.classes: list[str] = manifest["classes"]
        self.names: list[str] = manifest["names"]
        self.labels: np.ndarray = np.load(path / "labels.npy")
        self.mean: np.ndarray = np.load(path / "mean.npy")
        self.color = {key: np.array(value) for key, value in json.loads((path / "color.json").read_text()).items()}
        digests = [shard["sha256"] for shard in manifest["shards"]] + [manifest["files"]["labels.npy"]]
        self.digest = hashlib.sha256("\n".join(digests).encode()).hexdigest()
        self._shards = [np.load(path / shard["file"], mmap_mode="r") for shard in manifest["shards"]]
        self._starts = np.cumsum([0] + [len(shard) for shard in self._shards])

    @classmethod
    def open(cls, path: str | Path) -> "Pack":
        """Open the pack in folder `path`. Raises InputError where it is none, of another version, or incomplete."""
        path = Path(path)
        manifest = read_manifest(path)
        if manifest is None:
            if path.is_dir() and (inside := [name for name in SPLITS if (path / name / "manifest.json").is_file()]):
                raise InputError(f"{path} is a folder of packs: name one of them, {', '.join(str(path / name) for name in inside)}")
            what = "is not a pack" if path.exists() else "does not exist"
            raise InputError(f"{path} {what}: make one with `alexnet prepare SOURCE {path}`")
        if manifest.get("version") != VERSION:
            raise InputError(f"{path} is a pack of version {manifest.get('version')}, and this program reads {VERSION}: prepare it again")
        try:
            for shard in manifest["shards"]:
                found = (path / shard["file"]).stat().st_size
                if found != shard["bytes"]:
                    raise InputError(f"{path / shard['file']} has {found} bytes instead of {shard['bytes']}: prepare the pack again")
            pack = cls(path, manifest)
            shapes = [shard.shape[1:] == (pack.size, pack.size, 3) and shard.dtype == np.uint8 for shard in pack._shards]
            known = len(pack.labels) == 0 or 0 <= pack.labels.min() <= pack.labels.max() < len(pack.classes)
            if not (all(shapes) and known and len(pack.labels) == pack._starts[-1] == manifest["count"]):
                raise InputError(f"{path} contradicts its own manifest: prepare the pack again")
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
            raise InputError(f"{path} is a damaged pack ({error}): prepare it again") from None
        return pack

    def __reduce__(self) -> Any:
        return Pack.open, (self.path,)  # to another process goes the path, not the pixels

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Pack({str(self.path)!r}: {len(self)} images of {self.size}x{self.size}, {len(self.classes)} classes)"

    def gather(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images at `indices` (n,), each in 0..N-1, as uint8 (n, S, S, 3). Raises IndexError beyond these."""
        indices = np.asarray(indices, np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"{self.path} has images 0..{len(self) - 1}; asked for {indices.min()}..{indices.max()}")
        out = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        which = np.searchsorted(self._starts, indices, side="right") - 1
        for number in np.unique(which):
            here = which == number
            out[here] = self._shards[number][indices[here] - self._starts[number]]
        return out

    def verify(self) -> None:
        """Read every file again and compare its SHA-256. Raises InputError naming the first damaged one."""
        expected = {shard["file"]: shard["sha256"] for shard in self.manifest["shards"]} | self.manifest["files"]
        for name, digest in expected.items():
            if not (self.path / name).is_file() or _sha256(self.path / name) != digest:
                raise InputError(f"{self.path / name} is not what its manifest says: prepare the pack again")


def open_splits(path: str | Path) -> dict[str, Pack]:
    """The packs under `path`, keyed "train", "val", "test": a folder of packs, or a single pack, which is "train". Raises InputError."""
    path = Path(path)
    inside = [name for name in SPLITS if (path / name / "manifest.json").is_file()]
    if (path / "manifest.json").exists() or not inside:
        return {"train": Pack.open(path)}
    packs = {name: Pack.open(path / name) for name in inside}
    first = packs[inside[0]]
    for pack in packs.values():
        if (pack.classes, pack.size) != (first.classes, first.size):
            raise InputError(f"{pack.path} and {first.path} differ in classes or size: prepare them together")
    return packs


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of the pack at `path`, or None where there is no pack."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == "alexnet pack" else None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
