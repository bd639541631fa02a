"""Writing a pack: shard by shard, with checkpoints from which a killed process's successor goes on.

The format is that of `alexnet.data.pack`. While a pack is written, `checkpoint.npz` in its folder
says how long each file was, and holds what is kept in memory: labels, lengths and sums.
"""

import csv
import hashlib
import json
import os
from array import array
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from alexnet.data.moments import Moments
from alexnet.data.pack import CHECKPOINT, VERSIONS
from alexnet.files import file_digest, write_whole

SHARD_BYTES = 2**30
FLUSH_BYTES = 2**23  # written to a shard from one request to store them to the next
TEXT: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}


class PackWriter:
    """Writes a pack into a folder; only labels grow in memory. `finish` makes it a pack.

    After a `checkpoint` the process may be killed: a writer on the same folder goes on from there,
    and `note` is what that checkpoint was given. What was written after it is dropped, so that the
    finished pack is the same, byte for byte.

    Args:
        folder: The pack's folder, which exists.
        size: Pixels of a side, S.
        expected: Images that will be appended at most; fewer cost a second reading of the last
            shard.
        shard_bytes: Bytes of a shard at most.
        encoding: "raw" or "jpeg".

    Raises:
        Exception: The folder's checkpoint is damaged, in one of many ways.
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
        self.shards: list[dict[str, Any]] = []  # the finished ones, as the manifest has them
        self.labels, self.lengths, self.rejected = array("i"), array("q"), 0
        self.moments = Moments(0, np.zeros((size, size, 3), np.int64), np.zeros((3, 3), np.int64))
        self.note: Any = None
        self._file: BinaryIO | None = None  # the shard that grows
        self._planned = self._count = self._bytes = self._stored = 0  # images and bytes of it
        self._rejects = folder / "rejected.csv"
        for part in folder.glob(".*.part"):  # of a process that was killed
            part.unlink()
        is_new = not (folder / CHECKPOINT).is_file()
        if not is_new:
            self._restore()
        self._list = self._rejects.open("w" if is_new else "a", **TEXT)
        if is_new:
            self._row("path", "reason")

    def append(
        self,
        images: np.ndarray,
        labels: Sequence[int],
        moments: Moments | None = None,
        files: Sequence[bytes] | None = None,
    ) -> None:
        """Add images.

        Args:
            images: uint8 (n, S, S, 3). With `files` and `moments` they are not looked at.
            labels: Their classes.
            moments: Their sums, where these are known.
            files: JPEG files of the images; where the encoding is "jpeg".
        """
        self.moments.add(moments or Moments.of(images))
        self.labels.extend(labels)
        for data in files or ():
            if self._file is not None and self._bytes + len(data) > self.shard_bytes:
                self._end_shard()
            self._write(data, 1)
            self.lengths.append(len(data))
        while files is None and len(images):
            if self._file is None:
                self._begin_shard()
            part, images = np.split(images, [self._planned - self._count])
            self._write(np.ascontiguousarray(part).data, len(part))
            if self._count == self._planned:
                self._end_shard()

    def reject(self, path: str, reason: str) -> None:
        """Note what is left out, and why."""
        self._row(path, reason)
        self.rejected += 1

    def _row(self, path: str, reason: str) -> None:
        # Python before 3.13 leaves a carriage return unquoted, and reads it as the end of a row.
        quote: Any = csv.QUOTE_ALL if "\r" in path + reason else csv.QUOTE_MINIMAL
        csv.writer(self._list, lineterminator="\n", quoting=quote).writerow((path, reason))

    def first_rejection(self) -> list[str]:
        """The path and the reason of what was left out first."""
        self._list.flush()
        with self._rejects.open(**TEXT) as file:
            return list(csv.reader(file))[1]

    # --- shards -----------------------------------------------------------------------------------

    def _shard(self) -> Path:
        ending = "jpegs" if self.encoding == "jpeg" else "npy"
        return self.folder / f"images-{len(self.shards):05d}.{ending}"

    def _header(self, count: int) -> bytes:
        """What precedes the images of a shard."""
        if self.encoding == "jpeg":
            return b""
        shape, buffer = (count, self.size, self.size, 3), BytesIO()
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(buffer, header)
        return buffer.getvalue()

    def _begin_shard(self) -> None:
        self._file, self._hash = self._shard().open("w+b"), hashlib.sha256()
        self._count = self._bytes = self._stored = 0
        finished = sum(shard["count"] for shard in self.shards)
        self._planned = max(1, min(self.per_shard, self.expected - finished))
        self._write(self._header(self._planned), 0)

    def _write(self, data: bytes | memoryview, count: int) -> None:
        if self._file is None:
            self._begin_shard()
        assert self._file is not None
        self._file.write(data)
        self._hash.update(data)
        self._bytes += memoryview(data).nbytes
        self._count += count
        size = self._bytes - self._stored
        if size >= FLUSH_BYTES and hasattr(os, "posix_fadvise"):
            # Linux begins to store it, without waiting: there is less to wait for in the end.
            fd, advice = self._file.fileno(), os.POSIX_FADV_DONTNEED
            os.posix_fadvise(fd, self._stored, size, advice)
            self._stored = self._bytes

    def _end_shard(self) -> None:
        assert self._file is not None
        path, as_planned = self._shard(), self.encoding == "jpeg" or self._count == self._planned
        if not as_planned:  # numpy pads headers, so that they can be rewritten in place
            self._file.seek(0)
            self._file.write(self._header(self._count))
        _flush(self._file)
        self._file.close()
        self._file = None
        digest = self._hash.hexdigest() if as_planned else file_digest(path)
        shard = {"file": path.name, "count": self._count, "bytes": self._bytes, "sha256": digest}
        self.shards.append(shard)

    # --- checkpoints ------------------------------------------------------------------------------

    def checkpoint(self, note: Any = None) -> None:
        """Keep all that was written until now, and a `note`, anything that JSON holds."""
        _flush(self._list)
        sizes = {self._rejects.name: self._list.tell()}
        sizes |= {shard["file"]: shard["bytes"] for shard in self.shards}
        shard = None
        if self._file is not None:
            _flush(self._file)
            sizes[self._shard().name] = self._bytes
            digest = self._hash.hexdigest()
            shard = {"planned": self._planned, "count": self._count, "sha256": digest}
        state = {
            "sizes": sizes, "shards": self.shards, "shard": shard, "rejected": self.rejected,
            "count": self.moments.count, "note": note,
        }  # fmt: skip
        buffer = BytesIO()
        np.savez(
            buffer, state=json.dumps(state), labels=np.array(self.labels, np.int32),
            lengths=np.array(self.lengths, np.int64), total=self.moments.total,
            products=self.moments.products,
        )  # fmt: skip
        write_whole(self.folder / CHECKPOINT, buffer.getvalue(), durable=True)

    def _restore(self) -> None:
        """Go on from the checkpoint, and cut off what was written after it."""
        with np.load(self.folder / CHECKPOINT) as arrays:
            state = json.loads(str(arrays["state"]))
            self.labels.frombytes(arrays["labels"].tobytes())
            self.lengths.frombytes(arrays["lengths"].tobytes())
            self.moments = Moments(state["count"], arrays["total"], arrays["products"])
        self.shards, self.rejected, self.note = state["shards"], state["rejected"], state["note"]
        sizes: dict[str, int] = state["sizes"]
        for name, size in sizes.items():
            if (actual := (self.folder / name).stat().st_size) < size:
                raise ValueError(f"{name} has {actual} bytes instead of {size}")
            os.truncate(self.folder / name, size)
        for path in self.folder.glob("images-*"):
            if path.name not in sizes:
                path.unlink()
        if state["shard"]:
            self._planned, self._count = state["shard"]["planned"], state["shard"]["count"]
            self._bytes = self._stored = sizes[self._shard().name]
            self._file = self._shard().open("r+b")
            header = self._header(self._planned)  # `finish` may have begun to change it
            self._file.write(header)
            self._hash = hashlib.sha256(header)
            while data := self._file.read(2**20):
                self._hash.update(data)
            if self._hash.hexdigest() != state["shard"]["sha256"]:
                raise ValueError(f"{self._shard().name} is not as it was left")

    # --- the end ----------------------------------------------------------------------------------

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

        Args:
            classes: Class folders, in label order.
            names: What people call the classes.
            source: What the images come from; anything that JSON holds, as the next two.
            options: How they were prepared.
            decoders: Versions of the libraries that prepared them.
            numbers: What a contest calls the classes.
        """
        if self._file is not None:
            self._end_shard()
        _flush(self._list)
        self._list.close()
        color = {key: value.tolist() for key, value in self.moments.color().items()}
        files = {
            "labels.npy": _npy(np.array(self.labels, np.int32)),
            "mean.npy": _npy(self.moments.mean()),
            "color.json": _json(color),
        }
        if self.encoding == "jpeg":
            ends = np.cumsum(np.array(self.lengths, np.int64))
            files["offsets.npy"] = _npy(np.concatenate([np.zeros(1, np.int64), ends]))
        for name, content in files.items():
            write_whole(self.folder / name, content, durable=True)
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
            "files": {name: file_digest(self.folder / name) for name in [*files, "rejected.csv"]},
        } | ({} if numbers is None else {"numbers": list(numbers)})
        write_whole(self.folder / "manifest.json", _json(manifest), durable=True)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the files, without a checkpoint."""
        self._list.close()
        if self._file is not None:
            self._file.close()


def _flush(file: Any) -> None:
    """Have what was written to an open file on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _npy(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
