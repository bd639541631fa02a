"""A pack: images of one size in a folder, ready to be read at any index (section 2 of the paper: 256x256, the mean image).

    manifest.json       format version, size, counts, classes, names, source, options, decoders, SHA-256 of every other file; written last
    images-00000.npy    uint8 (n, S, S, 3), RGB, at most 1 GiB each; then images-00001.npy ...
    labels.npy          int32 (N,), positions in `classes`; all -1 where nobody tells the classes
    mean.npy            float32 (S, S, 3), the mean image
    color.json          RGB mean, covariance, eigenvalues, eigenvectors as columns, in gray levels
    rejected.csv        path, reason: what was left out

Where pixels would take too much room, `encoding` is "jpeg" instead of "raw", and the images are JPEG files of S x S, end to end:

    images-00000.jpegs  at most 1 GiB each; then images-00001.jpegs ...
    offsets.npy         int64 (N + 1,): image i is bytes offsets[i] to offsets[i + 1] of all of them in a row

Mean and colors are those of the pixels that the pack gives back. Several splits are a folder of packs: `train/`, `val/`, `test/`.
"""

import csv
import glob
import hashlib
import itertools
import json
import os
import shutil
import socket
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from tqdm import tqdm

from alexnet.errors import InputError

VERSIONS = {"raw": 1, "jpeg": 2}  # of the format, by encoding
SHARD_BYTES = 2**30
FLUSH_BYTES = 2**23  # written to a shard from one request to store them to the next
SPLITS = ("train", "val", "test")
AGAIN = "remove it, and prepare it again"


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` when the block ends well. InputError where `out` is more than an empty folder."""
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise InputError(f"{out} exists already: remove it or choose another name")
    with temporary(out, "partial") as folder:
        yield folder
        try:
            os.replace(folder, out)
        except (
            OSError
        ) as error:  # the working folder itself, or something that has come to be there meanwhile
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
        few = len(images) <= 256  # 16 bits hold the sum of so many bytes
        total, products = (
            images.sum(axis=0, dtype=np.uint16 if few else np.int64).astype(np.int64),
            np.zeros((3, 3), np.int64),
        )
        # Red, green, blue, red, ..., as they lie in memory: the values of one pixel are at most two apart. Sums down columns of 128 rows
        # are exact: 128 products of bytes are less than 2^24. Not a matrix product: that would wake BLAS's threads in every worker.
        values, width, rows = images.reshape(-1), 3 * 256, np.zeros((128, 3 * 256), np.float32)
        for begin in range(0, values.size, rows.size):
            some = values[begin : begin + rows.size]
            rows.reshape(-1)[: some.size], rows.reshape(-1)[some.size :] = some, 0
            for apart in range(3):
                sums = np.einsum("mk,mk->k", rows[:, : width - apart], rows[:, apart:])
                for i in range(3 - apart):
                    products[i, i + apart] += int(sums[i::3].sum(dtype=np.float64))
        return cls(len(images), total, np.triu(products) + np.triu(products, 1).T)

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
        covariance = np.array(
            [
                [(n * int(self.products[i, j]) - sums[i] * sums[j]) / n**2 for j in range(3)]
                for i in range(3)
            ]
        )
        values, vectors = np.linalg.eigh(covariance)
        values, vectors = values[::-1], vectors[:, ::-1]
        largest = np.abs(vectors).argmax(axis=0)
        vectors = vectors * np.sign(
            vectors[largest, range(3)]
        )  # an eigenvector's sign is arbitrary: its largest entry is positive here
        return {
            "mean": mean,
            "covariance": covariance,
            "eigenvalues": np.maximum(values, 0.0),
            "eigenvectors": vectors,
        }


class PackWriter:
    """Writes a pack into a folder, shard by shard; only labels grow in memory. `finish` writes the manifest and makes it a pack.

    `expected`: how many images will be appended at most; a smaller number costs a second reading of the last shard.

    After a `checkpoint` the process may be killed: a writer on a folder that has one goes on from the last one, and `note` is what that was
    told. What was written after it is dropped, so that the finished pack is the same, byte for byte.
    """

    def __init__(
        self,
        folder: Path,
        size: int,
        expected: int,
        shard_bytes: int = SHARD_BYTES,
        encoding: str = "raw",
    ):
        self.folder, self.size, self.expected, self.encoding = folder, size, expected, encoding
        self.shard_bytes = shard_bytes
        self.per_shard = max(1, shard_bytes // (size * size * 3))
        self.shards: list[dict[str, Any]] = []
        self.labels, self.lengths, self.rejected = array("i"), array("q"), 0
        self.moments = Moments(0, np.zeros((size, size, 3), np.int64), np.zeros((3, 3), np.int64))
        self.note: Any = None
        self._file: BinaryIO | None = None
        self._planned = self._written = self._bytes = self._stored = 0
        self._rejects = self.folder / "rejected.csv"
        self._work = self.folder / "checkpoint"
        if (self._work / "state.json").is_file():
            self._restore()
        else:
            self._work.mkdir(exist_ok=True)
            self._list = self._rejects.open(
                "w", newline="", encoding="utf-8", errors="surrogateescape"
            )
            self._row("path", "reason")

    def append(
        self,
        images: np.ndarray,
        labels: Sequence[int],
        moments: Moments | None = None,
        encoded: Sequence[bytes] | None = None,
    ) -> None:
        """Add `images`, uint8 (n, S, S, 3), of classes `labels`; `moments` are theirs, if known. A writer of JPEG takes the files of the
        images, `encoded`, and of the pixels no more than their moments."""
        self.moments.add(moments or Moments.of(images))
        self.labels.extend(labels)
        if encoded is not None:
            for file in encoded:
                self._append_encoded(file)
            return
        while len(images):
            if self._file is None:
                self._begin_shard()
            now, images = np.split(images, [self._planned - self._written])
            self._write(np.ascontiguousarray(now).data)
            self._written += len(now)
            if self._written == self._planned:
                self._end_shard()

    def reject(self, path: str, reason: str) -> None:
        """Note what is left out."""
        self._row(path, reason)
        self.rejected += 1

    def _row(self, path: str, reason: str) -> None:
        # Python before 3.13 leaves a carriage return without quotes, and reads it as the end of a row.
        writer = csv.writer(
            self._list,
            lineterminator="\n",
            quoting=csv.QUOTE_ALL if "\r" in path + reason else csv.QUOTE_MINIMAL,
        )
        writer.writerow((path, reason))

    def rejections(self) -> Iterator[list[str]]:
        """The rows so far: path, reason."""
        self._list.flush()
        with self._rejects.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            yield from itertools.islice(csv.reader(file), 1, None)

    def checkpoint(self, note: Any = None) -> None:
        """Keep all that was written until now, and a `note`, anything that JSON holds."""
        self._list.flush()
        files: list[Any] = [self._list] + [self._file] * (self._file is not None)
        for file in files:
            file.flush()
            os.fsync(file.fileno())
        state = {
            "labels": len(self.labels),
            "rejected": self.rejected,
            "rejected_bytes": self._list.tell(),
            "shards": self.shards,
            "shard": None
            if self._file is None
            else [self._planned, self._written, self._bytes, self._hash.hexdigest()],
            "count": self.moments.count,
            "products": self.moments.products.tolist(),
            "note": note,
        }
        _save(
            self._work / "arrays.part",
            lambda file: np.savez(
                file,
                labels=np.array(self.labels, np.int32),
                lengths=np.array(self.lengths, np.int64),
                total=self.moments.total,
            ),
        )
        name = f"arrays-{len(self.labels)}.npz"
        os.replace(self._work / "arrays.part", self._work / name)
        _save(
            self._work / "state.part",
            lambda file: file.write(json.dumps(state | {"arrays": name}).encode()),
        )
        sync(self.folder)
        sync(self._work)
        os.replace(self._work / "state.part", self._work / "state.json")
        sync(self._work)
        for left in self._work.glob("arrays-*"):
            if left.name != name:
                left.unlink()

    def _restore(self) -> None:
        """Go on from the checkpoint. Raises whatever damage to it causes, with nothing changed on the disk."""
        state = json.loads((self._work / "state.json").read_text())
        with np.load(self._work / state["arrays"]) as arrays:
            labels, lengths, total = (arrays[name] for name in ("labels", "lengths", "total"))
        if (len(labels), total.shape) != (state["labels"], self.moments.total.shape):
            raise ValueError(f"{state['arrays']} belongs to another one")
        if (found := self._rejects.stat().st_size) < state["rejected_bytes"]:
            raise ValueError(
                f"{self._rejects.name} has {found} bytes instead of {state['rejected_bytes']}"
            )
        for shard in state["shards"]:
            if (found := (self.folder / shard["file"]).stat().st_size) != shard["bytes"]:
                raise ValueError(f"{shard['file']} has {found} bytes instead of {shard['bytes']}")
        self.shards = state["shards"]
        here = self._shard()
        if state["shard"]:
            self._planned, self._written, self._bytes, digest = state["shard"]
            self._stored = self._bytes
            header = (
                b"" if self.encoding == "jpeg" else self._header(self._planned)
            )  # `finish` may have begun to change it
            self._hash = hashlib.sha256(header)
            with here.open("rb") as file:
                file.seek(len(header))
                while piece := file.read(min(2**20, self._bytes - file.tell())):
                    self._hash.update(piece)
            if self._hash.hexdigest() != digest:
                raise ValueError(f"{here.name} is not as it was left")
        self.labels.frombytes(labels.astype(np.int32).tobytes())
        self.lengths.frombytes(lengths.astype(np.int64).tobytes())
        self.moments = Moments(
            state["count"], total, np.array(state["products"], np.int64).reshape(3, 3)
        )
        self.rejected, self.note = state["rejected"], state["note"]
        os.truncate(self._rejects, state["rejected_bytes"])
        self._list = self._rejects.open("a", newline="", encoding="utf-8", errors="surrogateescape")
        done = {shard["file"] for shard in self.shards}
        for path in self.folder.glob("images-*"):
            if path.name not in done and not (path == here and state["shard"]):
                path.unlink()
        if state["shard"]:
            os.truncate(here, self._bytes)
            self._file = here.open("r+b")
            self._file.write(header)
            self._file.seek(self._bytes)

    def finish(
        self,
        classes: Sequence[str],
        names: Sequence[str],
        *,
        source: Any = None,
        options: Any = None,
        decoders: Any = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """Write everything but the images.

        classes, names: class folders and their human names, in label order; source, options, decoders: how the pack came about, anything
        that JSON holds; numbers: what a contest calls the classes, in label order.
        """
        if self._file is not None:
            self._end_shard()
        self._list.close()
        labels = np.array(self.labels, np.int32)
        _save(self.folder / "labels.npy", lambda file: np.save(file, labels))
        _save(self.folder / "mean.npy", lambda file: np.save(file, self.moments.mean()))
        color = {key: value.tolist() for key, value in self.moments.color().items()}
        _save(
            self.folder / "color.json",
            lambda file: file.write((json.dumps(color, indent=1) + "\n").encode()),
        )
        others = ["labels.npy", "mean.npy", "color.json", "rejected.csv"]
        if self.encoding == "jpeg":
            offsets = np.concatenate(
                [np.zeros(1, np.int64), np.cumsum(np.array(self.lengths, np.int64))]
            )
            _save(self.folder / "offsets.npy", lambda file: np.save(file, offsets))
            others.append("offsets.npy")
        manifest = {
            "format": "alexnet pack",
            "version": VERSIONS[self.encoding],
            "encoding": self.encoding,
            "size": self.size,
            "count": len(self.labels),
            "rejected": self.rejected,
            "classes": list(classes),
            "names": list(names),
            "source": source,
            "options": options,
            "decoders": decoders,
            "shards": self.shards,
            "files": {name: _sha256(self.folder / name) for name in others},
        } | ({} if numbers is None else {"numbers": list(numbers)})
        _save(
            self.folder / "manifest.json.partial",
            lambda file: file.write((json.dumps(manifest, indent=1) + "\n").encode()),
        )
        os.replace(self.folder / "manifest.json.partial", self.folder / "manifest.json")
        sync(self.folder)
        shutil.rmtree(self._work)

    def close(self) -> None:
        """Let go of the files, without a checkpoint."""
        self._list.close()
        if self._file is not None:
            self._file.close()

    def _shard(self) -> Path:
        return (
            self.folder
            / f"images-{len(self.shards):05d}.{'jpegs' if self.encoding == 'jpeg' else 'npy'}"
        )

    def _begin_shard(self) -> None:
        self._file, self._hash = self._shard().open("w+b"), hashlib.sha256()
        self._written = self._bytes = self._stored = 0
        if self.encoding == "raw":
            done = sum(shard["count"] for shard in self.shards)
            self._planned = max(1, min(self.per_shard, self.expected - done))
            self._write(self._header(self._planned))

    def _write(self, data: bytes | memoryview) -> None:
        assert self._file is not None
        self._file.write(data)
        self._hash.update(data)
        self._bytes += memoryview(data).nbytes
        if self._bytes - self._stored >= FLUSH_BYTES and hasattr(os, "posix_fadvise"):
            # Linux begins to write it to the disk now, without waiting: there is less to wait for in the end.
            os.posix_fadvise(
                self._file.fileno(),
                self._stored,
                self._bytes - self._stored,
                os.POSIX_FADV_DONTNEED,
            )
            self._stored = self._bytes

    def _append_encoded(self, file: bytes) -> None:
        if self._file is not None and self._bytes + len(file) > self.shard_bytes:
            self._end_shard()
        if self._file is None:
            self._begin_shard()
        self._write(file)
        self.lengths.append(len(file))
        self._written += 1

    def _end_shard(self) -> None:
        assert self._file is not None
        path, as_planned = self._shard(), self.encoding == "jpeg" or self._written == self._planned
        if (
            not as_planned
        ):  # fewer images than planned: numpy pads headers, so that they can be rewritten in place
            self._file.seek(0)
            self._file.write(self._header(self._written))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        digest = self._hash.hexdigest() if as_planned else _sha256(path)
        self.shards.append(
            {
                "file": path.name,
                "count": self._written,
                "bytes": path.stat().st_size,
                "sha256": digest,
            }
        )

    def _header(self, count: int) -> bytes:
        buffer = BytesIO()
        np.lib.format.write_array_header_1_0(
            buffer,
            {"descr": "|u1", "fortran_order": False, "shape": (count, self.size, self.size, 3)},
        )
        return buffer.getvalue()


def _save(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Have a file's bytes, or the names in a folder, on the disk before anything that relies on them: power may fail."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Pack:
    """A prepared data set, read from memory-mapped shards.

    path: its folder; size: S, pixels; encoding: "raw" or "jpeg"; classes: folder names; names: human names; labels: int32 (N,);
    mean: float32 (S, S, 3); color: RGB mean, covariance, eigenvalues (descending), eigenvectors (columns), float64, in gray levels;
    digest: SHA-256 over the shards' digests and that of the labels: it identifies the data; numbers: ILSVRC's of the classes, or None.
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
        self.color = {
            key: np.array(value)
            for key, value in json.loads((path / "color.json").read_text()).items()
        }
        digests = [shard["sha256"] for shard in manifest["shards"]] + [
            manifest["files"]["labels.npy"]
        ]
        self.digest = hashlib.sha256("\n".join(digests).encode()).hexdigest()
        if self.encoding == "jpeg":
            self._shards = [
                np.memmap(path / shard["file"], np.uint8, "r") for shard in manifest["shards"]
            ]
            self._offsets: np.ndarray = np.load(path / "offsets.npy", mmap_mode="r")
            self._bytes = np.cumsum([0] + [len(shard) for shard in self._shards])
        else:
            # The plain view: indexing a memmap makes another one each time, which takes longer than copying a small image.
            self._shards = [
                np.load(path / shard["file"], mmap_mode="r").view(np.ndarray)
                for shard in manifest["shards"]
            ]
        self._starts = np.cumsum([0] + [shard["count"] for shard in manifest["shards"]])

    @classmethod
    def open(cls, path: str | Path) -> "Pack":
        """Open the pack in folder `path`. Raises InputError where it is none, of another version, or incomplete."""
        path = Path(path)
        manifest = read_manifest(path)
        if manifest is None:
            if path.is_dir() and (
                inside := [name for name in SPLITS if (path / name / "manifest.json").is_file()]
            ):
                raise InputError(
                    f"{path} is a folder of packs: name one of them, {', '.join(str(path / name) for name in inside)}"
                )
            what = "is not a pack" if path.exists() else "does not exist"
            raise InputError(f"{path} {what}: make one with `alexnet prepare SOURCE {path}`")
        if manifest.get("version") != VERSIONS.get(str(manifest.get("encoding", "raw")), -1):
            reads = " and ".join(
                f"{version} ({encoding})" for encoding, version in VERSIONS.items()
            )
            raise InputError(
                f"{path} is a pack of version {manifest.get('version')}, and this program reads {reads}: {AGAIN}"
            )
        try:
            for shard in manifest["shards"]:
                found = (path / shard["file"]).stat().st_size
                if found != shard["bytes"]:
                    raise InputError(
                        f"{path} is damaged, {shard['file']} has {found} bytes instead of {shard['bytes']}: {AGAIN}"
                    )
            for name in manifest["files"]:
                (path / name).stat()
            pack = cls(path, manifest)
            kinds = [
                isinstance(texts, list) and all(isinstance(text, str) for text in texts)
                for texts in (pack.classes, pack.names)
            ]
            kinds += [len(set(pack.classes)) == len(pack.classes) == len(pack.names)]
            kinds += [Path(shard["file"]).name == shard["file"] for shard in manifest["shards"]]
            kinds += [
                pack.labels.dtype == np.int32,
                pack.mean.dtype == np.float32,
                pack.mean.shape == (pack.size, pack.size, 3),
            ]
            if pack.encoding == "jpeg":
                shapes = [
                    pack._offsets.dtype == np.int64,
                    len(pack._offsets) == len(pack) + 1,
                    pack._offsets[-1] == pack._bytes[-1],
                ]
                shapes += [
                    pack._offsets[start] == begin
                    for start, begin in zip(pack._starts, pack._bytes, strict=True)
                ]
            else:
                counts = [shard["count"] for shard in manifest["shards"]]
                wanted = [(count, pack.size, pack.size, 3) for count in counts]
                shapes = [
                    shard.shape == shape and shard.dtype == np.uint8
                    for shard, shape in zip(pack._shards, wanted, strict=True)
                ]
            known = (
                not pack.labeled
                or len(pack.labels) == 0
                or 0 <= pack.labels.min() <= pack.labels.max() < len(pack.classes)
            )
            if not (
                all(kinds + shapes)
                and known
                and len(pack.labels) == pack._starts[-1] == manifest["count"]
            ):
                raise InputError(f"{path} contradicts its own manifest: {AGAIN}")
        except InputError:
            raise
        except (
            Exception
        ) as error:  # numpy reads headers as Python: one damaged bit fails in many ways
            raise InputError(
                f"{path} is a damaged pack ({' '.join(str(error).split())}): {AGAIN}"
            ) from None
        return pack

    def __reduce__(self) -> Any:
        return Pack.open, (self.path,)  # to another process goes the path, not the pixels

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Pack({str(self.path)!r}: {len(self)} images of {self.size}x{self.size}, {len(self.classes)} classes)"

    @property
    def labeled(self) -> bool:
        """Whether the classes of the images are known. Those of ILSVRC-2012's test images are not."""
        return not len(self) or bool((self.labels != -1).any())

    @property
    def pixel_bytes(self) -> int:
        """What the images take in memory."""
        return len(self) * self.size * self.size * 3

    def gather(
        self, indices: Sequence[int] | np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        """The images at `indices` (n,), each in 0..N-1, as uint8 (n, S, S, 3), in `out` where that is given. Threads may do so at the same
        time: bytes are copied, and files decoded, without Python's lock. Raises IndexError beyond 0..N-1, InputError for a
        damaged JPEG file."""
        indices = np.asarray(indices, np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(
                f"{self.path} has images 0..{len(self) - 1}; asked for {indices.min()}..{indices.max()}"
            )
        if out is None:
            out = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        which = np.searchsorted(self._starts, indices, side="right") - 1
        if self.encoding == "jpeg":
            for i, (number, index) in enumerate(zip(which.tolist(), indices.tolist(), strict=True)):
                begin, end = self._offsets[index : index + 2] - self._bytes[number]
                try:
                    with Image.open(
                        BytesIO(self._shards[number][begin:end]), formats=("JPEG",)
                    ) as image:
                        out[i] = np.asarray(image.convert("RGB"))
                except (OSError, ValueError) as error:
                    raise InputError(
                        f"{self.path} is damaged, its image {index} cannot be read ({error}): {AGAIN}"
                    ) from None
            return out
        if len(indices) and (which == which[0]).all():
            inside = indices - self._starts[which[0]]
            return np.take(
                self._shards[which[0]], inside, axis=0, out=out, mode="clip"
            )  # mode "raise" would copy twice
        for i, (number, index) in enumerate(
            zip(which.tolist(), (indices - self._starts[which]).tolist(), strict=True)
        ):
            out[i] = self._shards[number][index]
        return out

    def verify(self, progress: bool = False) -> None:
        """Read every file again and compare its SHA-256. Raises InputError naming the first damaged one."""
        expected = {
            shard["file"]: shard["sha256"] for shard in self.manifest["shards"]
        } | self.manifest["files"]
        total = sum(
            (self.path / name).stat().st_size for name in expected if (self.path / name).is_file()
        )
        title = f"verifying {self.path.name}"
        with tqdm(
            total=total,
            desc=title,
            unit="B",
            unit_scale=True,
            disable=None if progress else True,
            leave=False,
        ) as bar:
            for name, digest in expected.items():
                if not (self.path / name).is_file() or _sha256(self.path / name) != digest:
                    raise InputError(
                        f"{self.path} is damaged, {name} is not what its manifest says: {AGAIN}"
                    )
                bar.update((self.path / name).stat().st_size)


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
            raise InputError(
                f"{pack.path} and {first.path} differ in classes or size: prepare them together"
            )
    return packs


def held_out(splits: dict[str, Pack], who: str) -> str:
    """The split whose errors are reported: test, else val. Raises InputError, in the name of `who` asks, where there is neither, or no
    train."""
    name = next((name for name in ("test", "val") if name in splits), None)
    if name is None or "train" not in splits:
        raise InputError(
            f"{who}: needs train and test or val; there is {', '.join(splits)}: prepare a source with splits"
        )
    return name


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of the pack at `path`, or None where there is no pack."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except (OSError, ValueError):
        return None
    return (
        manifest
        if isinstance(manifest, dict) and manifest.get("format") == "alexnet pack"
        else None
    )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
