"""A run's folder: what a run writes there, and how it is read.

lock                  held by the process that trains there
config.json           the run's `Config`
mean.npy              the mean image that its input lacks
classes.json          the meaning of its outputs: class folders
names.json            what people call the classes
license.txt           the terms of the weights, where they are known
log.jsonl             its log (alexnet.training.log)
checkpoints/          (alexnet.training.checkpoint)
weights.safetensors   at the end: the weights, in the layout of one device
summary.json          at the end: how the run ended
"""

import io
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from alexnet import presets
from alexnet.data.augment import Augment
from alexnet.data.pack import Pack
from alexnet.errors import InputError, SharedError, require
from alexnet.files import Locked, file_digest, lock, write_whole
from alexnet.network import AlexNet, check_merged
from alexnet.training import checkpoint
from alexnet.training.checkpoint import Columns
from alexnet.training.config import Config
from alexnet.training.learner import Learner
from alexnet.training.ranks import Ranks, listed

WEIGHTS, SUMMARY, CONFIG = "weights.safetensors", "summary.json", "config.json"
MEAN, CLASSES, NAMES, LICENSE = "mean.npy", "classes.json", "names.json", "license.txt"


@contextmanager
def claimed(config: Config, out: Path, resume: bool, word: str) -> Iterator[None]:
    """Make a new run's folder, or check that the one there is this run; keep other processes out
    of it while the block runs.

    Args:
        word: Stands in the lock, for other ranks to see.

    Raises:
        InputError: The folder is in use, of another run or of no run, or cannot be made.
    """
    _check_place(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {out}: {error.strerror}; choose another place") from None
    with ExitStack() as stack:
        try:
            held = stack.enter_context(lock(out / "lock", wait=False))
        except Locked:
            raise InputError(
                f"another process is training in {out}; wait for it, or choose another folder"
            ) from None
        with checkpoint.writing(out / "lock"):
            held.truncate(0)
            held.write(word)
            held.flush()
        if (out / CONFIG).exists():
            _check_same(config, out, resume)
        for left in out.glob(".*.part"):  # by processes that were killed
            left.unlink()
        yield


def _check_place(out: Path) -> None:
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    is_place = out.is_dir() or not out.exists()
    require(is_place, f"{out} is a file; choose another name for the run's folder")
    # all that a process killed at the very beginning leaves behind
    beginning = re.compile(rf"lock|\.{re.escape(CONFIG)}\.\d+\.part")
    is_run = CONFIG in names or all(map(beginning.fullmatch, names))
    require(is_run, f"{out} is there and holds something that is no run; choose another folder")


def _check_same(config: Config, out: Path, resume: bool) -> None:
    require(
        resume,
        f"{out} already holds a run; add --resume to go on with it, or choose another folder",
    )
    remedy, stored = "choose another folder, or the same options", asdict(read_config(out))
    for name, value in asdict(config).items():
        different = f"{out} holds a run with {name} {stored[name]!r}, not {value!r}"
        require(stored[name] == value, f"{different}; {remedy}")


def check_shared(out: Path, ranks: Ranks, word: str) -> None:
    """Raise InputError on all ranks where one does not see the folder that rank 0 has claimed.

    Args:
        out: The run's folder.
        ranks: The processes of the run.
        word: What rank 0 has written into the folder's lock.
    """
    if ranks.world == 1:
        return
    file, until = out / "lock", time.monotonic() + 5  # seconds, which a network's disk may take
    while not (seen := file.exists() and file.read_text() == word) and time.monotonic() < until:
        time.sleep(0.1)
    _, blind = ranks.totals(flags=[not seen and rank == ranks.rank for rank in range(ranks.world)])
    if which := listed(rank for rank, one in enumerate(blind) if one):
        raise SharedError(
            f"{which} cannot see rank 0's {out}; give all ranks the same --out, on a disk that "
            "they share"
        )


def write(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    """Write a file of the run whole or not at all. Raises OSError with the remedy.

    Args:
        path: The file.
        content: Text, bytes, or a function that writes to the path it is given.
    """
    with checkpoint.writing(path):
        write_whole(path, content)


def write_json(path: Path, value: Any) -> None:
    """Write a value as a JSON file of the run.

    Args:
        path: The file.
        value: Anything that JSON holds.

    Raises:
        OSError: As `write`.
    """
    write(path, json.dumps(value, indent=1))


def write_inputs(out: Path, pack: Pack) -> None:
    """Write the mean image and the classes of the training images.

    Args:
        out: The run's folder.
        pack: The training images.
    """
    mean = io.BytesIO()
    np.save(mean, pack.mean)
    write(out / MEAN, mean.getvalue())
    write(out / CLASSES, json.dumps(pack.classes, indent=1) + "\n")
    write(out / NAMES, json.dumps(pack.names, indent=1) + "\n")


def is_finished(out: Path) -> bool:
    return (out / SUMMARY).exists()


def read_summary(out: Path) -> dict[str, Any]:
    """How a finished run ended.

    Raises:
        InputError: The file is damaged.
    """
    remedy = "remove it, and give the command of the run again with --resume"
    return _read(out / SUMMARY, _summary, remedy)


def _summary(file: Path) -> dict[str, Any]:
    summary = json.loads(file.read_text())
    kinds: dict[str, Any] = {"config": dict, "steps": int, "ended": str}
    kinds |= {"epochs": int | float, "seconds": int | float, "diverged_at": int | None}
    for name, kind in kinds.items():
        if not isinstance(summary, dict) or not isinstance(summary.get(name, ...), kind):
            raise ValueError(f"it does not say {name!r}")
    return summary


def _mean(file: Path) -> np.ndarray:
    mean = np.load(file)
    if not isinstance(mean, np.ndarray) or mean.ndim != 3 or mean.shape[2] != 3:
        raise ValueError("it is no image of three colors")
    return mean


def read_config(folder: Path) -> Config:
    """The settings that a run was trained with.

    Raises:
        InputError: The file is damaged, or the table that its preset names has changed since.
    """
    values = _read(folder / CONFIG, lambda file: dict(json.loads(file.read_text())))
    config = _read(folder / CONFIG, lambda file: Config(**values))
    changed = f"{folder} holds a net of another table than preset {config.preset!r} now has"
    remedy = "use the version of this package that trained it, or train again in another folder"
    require(config.table == values.get("table"), f"{changed}; {remedy}")
    return config


def read_mean(folder: Path) -> np.ndarray:
    return _read(folder / MEAN, _mean)


def read_list(file: Path, count: int) -> list[str] | None:
    """A list of so many texts from a JSON file; None where there is no such file.

    Args:
        file: A JSON file.
        count: How many texts there must be.

    Raises:
        InputError: It holds something else.
    """

    def read(file: Path) -> list[str]:
        values = json.loads(file.read_text())
        if not isinstance(values, list) or [type(value) for value in values] != [str] * count:
            raise ValueError(f"not {count} texts")
        return values

    return _read(file, read) if file.exists() else None


def _read(
    file: Path, read: Callable[[Path], Any], remedy: str = "train again, in another folder"
) -> Any:
    try:
        return read(file)
    except (ValueError, TypeError, EOFError, SafetensorError) as error:
        raise InputError(f"{file} is damaged ({error}); {remedy}") from None


def _check_finished(folder: Path) -> None:
    is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    place = folder if is_free else "RUN"  # somebody's images, say, are no place for one
    require(
        (folder / CONFIG).exists(),
        f"{folder} holds no run; make one with `alexnet train --data PACK --out {place}`",
    )
    require(
        is_finished(folder),
        f"the run in {folder} is not finished; go on with it by `alexnet train ... --out {folder} "
        "--resume`",
    )
    for file in (folder / WEIGHTS, folder / MEAN):
        require(file.exists(), f"{file} is missing; train again, in another folder")


def check_usable(folder: str | Path) -> None:
    """Raise InputError where a folder holds no finished run, or one that diverged."""
    folder = Path(folder)
    _check_finished(folder)
    step = read_summary(folder)["diverged_at"]
    require(
        step is None,
        f"the run in {folder} diverged at step {step}, and is of no use; train again in another "
        "folder, with a lower --lr",
    )


def load_run(folder: str | Path) -> tuple[AlexNet, Augment, Config]:
    """Load a finished run.

    Returns:
        The network in evaluation mode, what its input goes through, and the run's settings.

    Raises:
        InputError: The folder holds no finished run, or a damaged one.
    """
    folder = Path(folder)
    _check_finished(folder)
    config, mean = read_config(folder), read_mean(folder)
    net = config.network()
    net.mean_image = mean
    _read(folder / WEIGHTS, lambda file: net.load_merged(load_file(file)))
    return net.eval(), Augment(config.recipe, mean, config.image_size), config


def check_like_trained(pack: Pack, run: Path, config: Config, augment: Augment) -> None:
    """Raise InputError where a pack's images or classes are not like those a run was trained on.

    Args:
        pack: The images to evaluate.
        run: The run's folder, named in messages.
        config: The run's settings.
        augment: Made with the mean image that the run was trained with.
    """
    own, trained = (len(pack.classes), pack.size), (config.num_classes, augment.mean_size)
    given = f"{pack.path} has {own[0]} classes of {own[1]}-pixel images"
    expected = f"the run in {run} was trained on {trained[0]} of {trained[1]}"
    require(own == trained, f"{given}; {expected}; evaluate it on a pack like that one")
    names = read_list(run / CLASSES, config.num_classes) or pack.classes
    for name, other in zip(names, pack.classes):
        require(
            name == other,
            f"{pack.path} has other classes than the run in {run} was trained on, of which one is "
            f"{name!r}",
        )


def starting_point(run: str | Path) -> str:
    """What `Config.start` is for nets that begin with a finished run's weights.

    Raises:
        InputError: There is no such run.
    """
    check_usable(run)
    return file_digest(Path(run) / WEIGHTS)


def starting_weights(config: Config, start: Path | None, out: Path) -> dict[str, Tensor] | None:
    """The weights that `config.start` names, once they are known to fit.

    Args:
        config: The run's settings, whose `start` is a digest or None.
        start: The folder of the run to begin with.
        out: The folder of the run that begins.

    Returns:
        The weights; None where there are none, or where the run has gone on from them.

    Raises:
        InputError: The run in `start` is not the one that is named, or of another net.
    """
    if config.start is None:
        require(
            start is None,
            f"the config names no weights to start from, and the run in {start} was given",
        )
        return None
    if is_finished(out) or checkpoint.steps(out / "checkpoints"):
        return None
    expected = f"{config.start[:16]}..."
    if start is None:
        raise InputError(
            f"the run begins with the weights of another, of SHA-256 {expected}, and that run was "
            "not given"
        )
    digest = starting_point(start)
    require(
        digest == config.start,
        f"{start / WEIGHTS} has SHA-256 {digest[:16]}..., and the run begins with that of "
        f"{expected}",
    )
    weights, shapes = _read(start / WEIGHTS, load_file), config.shapes
    try:
        check_merged(weights, presets.get(config.preset), shapes, but=[shapes[-1].layer.name])
    except InputError as error:
        raise InputError(
            f"the run in {start} is of another net: {error}; all layers but the last must agree"
        ) from None
    return weights


def gather_columns(learner: Learner, out: Path) -> Columns:
    """The tensors of all columns, on rank 0; other ranks' come through the folder.

    Args:
        learner: Of this rank.
        out: The run's folder, which all ranks share.
    """
    columns, ranks, count = learner.columns(), learner.ranks, learner.net.preset.columns
    if ranks.world == 1:
        return columns
    places = {str(number): out / f".column-{number}.part" for number in range(count)}
    if ranks.row == 0:
        for number, tensors in columns.items():
            on_cpu = {name: value.cpu().contiguous() for name, value in tensors.items()}
            write(places[number], partial(checkpoint.save_file, on_cpu))
    ranks.meet()
    if ranks.is_first:
        columns = {number: load_file(place) for number, place in places.items()}
        for place in places.values():
            place.unlink()
    return columns


def write_weights(config: Config, columns: Columns, out: Path) -> None:
    """Write the weights and buffers of all columns, in the layout of one device and in the type
    that they were updated in.

    Args:
        config: The run's settings.
        columns: As `gather_columns` gives them.
        out: The run's folder.
    """
    net = config.network().to(torch.float64 if config.precision == "fp64" else torch.float32)
    with torch.no_grad():
        for name, value in net.state_dict().items():  # tensors that share the net's memory
            _, number, rest = name.split(".", 2)
            value.copy_(columns[number][rest])
    write(out / WEIGHTS, partial(checkpoint.save_file, net.export_merged()))
