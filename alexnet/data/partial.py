"""Where a pack grows: `.<out>.partial` beside its own folder, from which a later process goes on.

    lock        held by the process that works in it
    job.json    what the pack is made of: no other work goes on with it
    pack/       the pack, or folder of packs, with its writers' checkpoints

The pack appears under its own name when it is whole.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from alexnet.data.pack import CHECKPOINT, open_splits, read_manifest
from alexnet.errors import InputError
from alexnet.files import Locked, explained, lock, write_whole


def is_done(out: Path, origin: dict[str, Any], options: dict[str, Any]) -> bool:
    """Whether `out` is the pack that would be made.

    Raises:
        InputError: It is anything else but nothing or an empty folder.
    """
    if out.is_symlink() and not out.exists():
        raise InputError(f"{out} is a link that leads nowhere: remove it or choose another name")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    manifests = {split: read_manifest(place_of(out, split, origin)) for split in origin}
    made_of = {split: (m["source"], m["options"]) for split, m in manifests.items() if m}
    if made_of != {split: (source, options) for split, source in origin.items()}:
        what = f"{out} exists already, and is not this source's pack with these options"
        raise InputError(f"{what}: remove it or choose another name")
    try:
        open_splits(out)
    except InputError as error:
        raise InputError(f"{out} is there, and of no use: {error}") from None
    print(f"{out} is prepared already, from the same images with the same options", file=sys.stderr)
    return True


def place_of(out: Path, split: str, splits: dict[str, Any]) -> Path:
    """Where the pack of a split lies: `out` itself, where there is but one."""
    return out / split if len(splits) > 1 else out


@contextmanager
def partial_folder(out: Path, identity: dict[str, Any]) -> Iterator[Path]:
    """Give the folder in which `out` grows, to one process at a time: that of an earlier process,
    if it did the same work, else a new one. It stays when the block fails after a checkpoint.

    Raises:
        InputError: It holds a part of something else, is in use, or cannot be written.
    """
    work = out.parent / f".{out.name}.partial"
    with ExitStack() as stack:
        try:
            with explained(f"cannot write {out}", "make room, or choose another place"):
                work.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock(work / "lock", wait=False))
                stack.callback(_forget_unless_kept, work)
                _begin(work, out, identity)
        except Locked:
            raise InputError(f"another process is preparing {out}: wait for it") from None
        yield work / "pack"


def _begin(work: Path, out: Path, identity: dict[str, Any]) -> None:
    """Make the folder `work` fit for `identity`, and keep what it holds of that."""
    record, texts = work / "job.json", [json.dumps(identity, sort_keys=True)]
    if identity["options"]["skip_bad"]:  # until now, there was nothing to skip
        strict = identity | {"options": identity["options"] | {"skip_bad": False}}
        texts.append(json.dumps(strict, sort_keys=True))
    if not _has_checkpoint(work):
        shutil.rmtree(work / "pack", ignore_errors=True)
        (work / "pack").mkdir()
    elif not (record.is_file() and record.read_text() in texts):
        what = "made of other images, with other options, or by other decoders"
        remedy = "give those again to go on with it, remove it, or choose another name"
        raise InputError(f"{work} holds a part of {out} that was {what}: {remedy}")
    write_whole(record, texts[0])


def _forget_unless_kept(work: Path) -> None:
    if not _has_checkpoint(work):
        shutil.rmtree(work, ignore_errors=True)


def _has_checkpoint(work: Path) -> bool:
    kept = (CHECKPOINT, f"*/{CHECKPOINT}", "*/manifest.json")
    return any(True for pattern in kept for _ in (work / "pack").glob(pattern))
