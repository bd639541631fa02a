"""Writing a pack shard by shard; a killed process's successor goes on after the last finished one.

The format is that of `alexnet.data.pack`. While a pack is written, `checkpoint.npz` in its folder
holds what belongs to its finished shards and is kept in memory: labels, lengths and sums.
"""

import csv
import json
import os
import shutil
from array import array
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data.moments import Moments
from alexnet.data.pack import CHECKPOINT, VERSIONS, Pack
from alexnet.errors import is_environments, reason, say
from alexnet.files import file_digest, flush, write_whole

SHARD_BYTES = 2**30
TEXT: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}


class PackWriter:
    """Writes a pack into a folder; only labels grow in memory. `finish` makes it a pack.

    After a `checkpoint` the process may be killed: a writer on the same folder goes on from there,
    and `note` is what that checkpoint was given. What was written after it is dropped, so that the
    finished pack is the same, byte for byte.

    Args:
        folder: The pack's folder, which exists.
        size: Pixels of a side, S.
        encoding: "raw" or "jpeg".

    Raises:
        Exception: The folder's checkpoint is damaged, in one of many ways.
    """

    def __init__(self, folder: Path, size: int, encoding: str = "raw"):
        self.folder, self.size, self.encoding = folder, size, encoding
        self.shards: list[dict[str, Any]] = []  # the finished ones, as the manifest has them
        self.labels, self.lengths, self.rejected = array("i"), array("q"), 0
        self.moments = Moments(0, np.zeros((size, size, 3), np.int64), np.zeros((3, 3), np.int64))
        self.note: Any = None
        self._count = self._bytes = 0  # images and bytes of the shard that grows
        self._rejections = folder / "rejected.csv"
        for part in folder.glob(".*.part"):  # of a process that was killed
            part.unlink()
        if (folder / CHECKPOINT).is_file():
            self._restore()
        else:
            self._rejections.write_text("path,reason\n")

    def append(
        self,
        images: np.ndarray,
        labels: Sequence[int],
        moments: Moments | None = None,
        files: Sequence[bytes] | None = None,
    ) -> bool:
        """Add images.

        Args:
            images: uint8 (n, S, S, 3). With `files` and `moments` they are not looked at.
            labels: Their classes.
            moments: Their sums, where these are known.
            files: JPEG files of the images; where the encoding is "jpeg".

        Returns:
            Whether a shard was finished: it is time for a `checkpoint`.
        """
        before, per_shard = len(self.shards), max(1, SHARD_BYTES // (self.size * self.size * 3))
        self.moments.add(moments or Moments.of(images))
        self.labels.extend(labels)
        for data in files or ():
            if self._count and self._bytes + len(data) > SHARD_BYTES:
                self._end_shard()
            self._write(data, 1)
            self.lengths.append(len(data))
        while files is None and len(images):
            part, images = np.split(images, [per_shard - self._count])
            self._write(np.ascontiguousarray(part).data, len(part))
            if self._count == per_shard:
                self._end_shard()
        return len(self.shards) > before

    def reject(self, path: str, reason: str) -> None:
        """Note what is left out, and why.

        Args:
            path: How the source calls the image.
            reason: Why it is left out, in words.
        """
        # Python before 3.13 leaves a carriage return unquoted, and reads it as the end of a row.
        quote: Any = csv.QUOTE_ALL if "\r" in path + reason else csv.QUOTE_MINIMAL
        with self._rejections.open("a", **TEXT) as file:
            csv.writer(file, lineterminator="\n", quoting=quote).writerow((path, reason))
        self.rejected += 1

    def first_rejection(self) -> list[str]:
        """The path and the reason of what was left out first."""
        with self._rejections.open(**TEXT) as file:
            return list(csv.reader(file))[1]

    # --- shards -----------------------------------------------------------------------------------

    def _shard(self) -> Path:
        ending = "jpegs" if self.encoding == "jpeg" else "npy"
        return self.folder / f"images-{len(self.shards):05d}.{ending}"

    def _header(self) -> bytes:
        """What precedes the images of a shard; numpy pads it, so that it can be rewritten."""
        shape, buffer = (self._count, self.size, self.size, 3), BytesIO()
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(buffer, header)
        return buffer.getvalue() if self.encoding == "raw" else b""

    def _write(self, data: bytes | memoryview, count: int) -> None:
        with self._shard().open("ab" if self._count else "wb") as file:
            file.write(b"" if self._count else self._header())
            file.write(data)
            self._count, self._bytes = self._count + count, file.tell()

    def _end_shard(self) -> None:
        path = self._shard()
        with path.open("r+b") as file:
            file.write(self._header())
        flush(path)
        about = {"file": path.name, "count": self._count, "bytes": self._bytes}
        self.shards.append(about | {"sha256": file_digest(path)})
        self._count = self._bytes = 0

    # --- checkpoints ------------------------------------------------------------------------------

    def checkpoint(self, note: Any = None) -> None:
        """Keep all that was written until now, and a `note`, anything that JSON holds. The shard
        that grows is copied: little where one has just been finished."""
        flush(self._rejections)
        state = {
            "shards": self.shards, "open": [self._count, self._bytes], "rejected": self.rejected,
            "rejections": self._rejections.stat().st_size, "images": self.moments.count,
            "note": note,
        }  # fmt: skip
        rest, buffer = self._shard().read_bytes() if self._count else b"", BytesIO()
        np.savez(
            buffer, state=json.dumps(state), labels=np.array(self.labels, np.int32),
            lengths=np.array(self.lengths, np.int64), total=self.moments.total,
            products=self.moments.products, rest=np.frombuffer(rest, np.uint8),
        )  # fmt: skip
        write_whole(self.folder / CHECKPOINT, buffer.getvalue(), durable=True)

    def _restore(self) -> None:
        """Go on from the checkpoint, and drop what was written after it."""
        with np.load(self.folder / CHECKPOINT) as arrays:
            state, rest = json.loads(str(arrays["state"])), arrays["rest"].tobytes()
            self.labels.frombytes(arrays["labels"].tobytes())
            self.lengths.frombytes(arrays["lengths"].tobytes())
            self.moments = Moments(state["images"], arrays["total"], arrays["products"])
        self.shards, self.rejected, self.note = state["shards"], state["rejected"], state["note"]
        sizes = {shard["file"]: shard["bytes"] for shard in self.shards}
        for name, size in (sizes | {self._rejections.name: state["rejections"]}).items():
            if (actual := (self.folder / name).stat().st_size) < size:
                raise ValueError(f"{name} has {actual} bytes instead of {size}")
            os.truncate(self.folder / name, size)
        for path in self.folder.glob("images-*"):
            if path.name not in sizes:
                path.unlink()
        self._count, self._bytes = state["open"]
        if self._count:
            self._shard().write_bytes(rest)

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
        if self._count:
            self._end_shard()
        flush(self._rejections)
        files = {
            "labels.npy": _npy(np.array(self.labels, np.int32)),
            "mean.npy": _npy(self.moments.mean()),
            "color.json": _json({k: v.tolist() for k, v in self.moments.color().items()}),
        }
        if self.encoding == "jpeg":
            files["offsets.npy"] = _npy(np.cumsum(np.r_[0, np.array(self.lengths, np.int64)]))
        for name, content in files.items():
            write_whole(self.folder / name, content, durable=True)
        manifest = {
            "format": "alexnet pack", "version": VERSIONS[self.encoding], "encoding": self.encoding,
            "size": self.size, "count": len(self.labels), "rejected": self.rejected,
            "classes": list(classes), "names": list(names), "source": source, "options": options,
            "decoders": decoders, "shards": self.shards,
            "files": {name: file_digest(self.folder / name) for name in [*files, "rejected.csv"]},
        } | ({} if numbers is None else {"numbers": list(numbers)})  # fmt: skip
        write_whole(self.folder / "manifest.json", _json(manifest), durable=True)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)


def resumed(place: Path, size: int, encoding: str) -> PackWriter | None:
    """A writer that goes on in `place` from the last checkpoint, if that is whole; None where the
    pack is finished.

    Args:
        place: The folder of the pack that is being made.
        size: The side of its images, in pixels.
        encoding: "raw" or "jpeg".
    """
    place.mkdir(exist_ok=True)
    try:
        if (place / "manifest.json").exists():
            Pack.open(place)
            (place / CHECKPOINT).unlink(missing_ok=True)
            return None
        return PackWriter(place, size, encoding)
    except Exception as error:  # damage shows itself in many ways
        if is_environments(error) and not isinstance(error, FileNotFoundError):
            raise  # what it holds is kept
        say(f"{place} was left damaged ({reason(error)}): it is begun anew")
    shutil.rmtree(place)
    return resumed(place, size, encoding)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _npy(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
