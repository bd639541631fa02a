"""Where a pack grows: `.<out>.partial` beside its own folder, from which a later process goes on.

    lock        held by the process that works in it
    job.json    what the pack is made of: no other work goes on with it, and a split whose images
                were changed is begun anew
    pack/       the pack, or folder of packs, with its writers' checkpoints

The pack appears under its own name when it is whole.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from alexnet.data.pack import CHECKPOINT, SPLITS, open_splits, read_manifest
from alexnet.errors import EnvironmentFault, InputError, say
from alexnet.files import Locked, explained, lock, write_whole


def is_done(out: Path, origin: dict[str, Any], options: dict[str, Any]) -> bool:
    """Whether `out` is the pack that would be made.

    Args:
        out: Where the pack is to lie.
        origin: What identifies the source.
        options: Settings that decide the pack's bytes.

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
        what, remedy = f"{out} exists already, and is no pack", "choose another name"
        if read_manifest(out) or any(read_manifest(out / split) for split in SPLITS):
            what = f"{out} exists already, and is not this source's pack with these options"
            remedy = f"remove it or {remedy}"
        raise InputError(f"{what}: {remedy}")
    try:
        open_splits(out)
    except EnvironmentFault:
        raise
    except InputError as error:
        raise InputError(f"{out} is there, and of no use: {error}") from None
    return True


def place_of(out: Path, split: str, splits: dict[str, Any]) -> Path:
    """Where the pack of a split lies: `out` itself, where there is but one.

    Args:
        out: Where the packs are to lie.
        split: One of `splits`.
        splits: All that the source has.
    """
    return out / split if len(splits) > 1 else out


@contextmanager
def partial_folder(out: Path, work_on: dict[str, Any], images: dict[str, Any]) -> Iterator[Path]:
    """Give the folder in which `out` grows, to one process at a time: that of an earlier process,
    if it did the same work, else a new one. It stays when the block fails after a checkpoint.

    Args:
        out: The pack.
        work_on: What must be the same for all of it: source, options, versions.
        images: What must be the same for each split. A split that was changed is begun anew.

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
                _begin(work, out, work_on, images)
        except Locked:
            raise InputError(f"another process is preparing {out}: wait for it") from None
        yield work / "pack"


def _begin(work: Path, out: Path, work_on: dict[str, Any], images: dict[str, Any]) -> None:
    """Make the folder `work` fit for this work, and keep what it holds of that."""
    record, known = work / "job.json", [work_on]
    if work_on["options"]["skip_bad"]:  # until now, there was nothing to skip
        known.append(work_on | {"options": work_on["options"] | {"skip_bad": False}})
    if not _has_checkpoint(work):
        shutil.rmtree(work / "pack", ignore_errors=True)
    else:
        before = _read(record)
        if before.get("work") not in known:
            what = "made of other images, with other options, or by other decoders"
            remedy = "give those again to go on with it, remove it, or choose another name"
            raise InputError(f"{work} holds a part of {out} that was {what}: {remedy}")
        for split in images:
            place = place_of(work / "pack", split, images)
            if before["images"][split] != images[split] and place.exists():
                shutil.rmtree(place)
                say(f"{out}: images of {split} were changed meanwhile: it is begun anew")
    (work / "pack").mkdir(exist_ok=True)
    write_whole(record, json.dumps({"work": work_on, "images": images}, sort_keys=True))


def _read(record: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(record.read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def _forget_unless_kept(work: Path) -> None:
    if not _has_checkpoint(work):
        shutil.rmtree(work, ignore_errors=True)


def _has_checkpoint(work: Path) -> bool:
    kept = (CHECKPOINT, f"*/{CHECKPOINT}", "*/manifest.json")
    return any(True for pattern in kept for _ in (work / "pack").glob(pattern))
