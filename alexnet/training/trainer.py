"""The training loop (section 5 of the paper), from a pack to a run folder: `config.json`, `log.jsonl`, `checkpoints/`,
`weights.safetensors`, `summary.json`; and what its input goes through, `mean.npy`, and its output means, `classes.json`.

A run is a function of its config and its data: started twice, or killed and resumed, it ends with the same weights, to the bit on one
machine and thread count.
"""

import fcntl
import io
import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from alexnet import evaluation, presets, rng
from alexnet.data.augment import Augment
from alexnet.data.loader import Loader, steps_per_epoch
from alexnet.data.pack import Pack
from alexnet.errors import InputError, SharedError
from alexnet.exchange import Together
from alexnet.network import AlexNet, check_merged
from alexnet.training import checkpoint
from alexnet.training.learner import Learner, arithmetic
from alexnet.training.log import Log
from alexnet.training.ranks import Ranks
from alexnet.training.schedule import Schedule
from alexnet.training.whole import Totals, WholeStep

# Part of a trained model's identity: raise it with any change that changes trained weights. tests/test_trainer.py holds the numbers that
# say when.
VERSION = 1
MODES = {
    "plain": "torch's operations one by one",
    "graph": "the whole step as one CUDA graph, in one process",
    "compiled": "the net's passes compiled by torch.compile, in one process",
}
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Config:
    """All that decides a run's weights, beside the data's pixels, which `data` identifies (digests of the packs, by split)."""

    preset: str
    num_classes: int
    width: float
    image_size: int
    epochs: float
    data: dict[str, str]
    batch_size: int = 128
    rate: float | None = None  # None: the preset's; the biases' rate keeps its ratio to it
    seed: int = 0
    stop_at_train_error: float | None = (
        None  # end after the epoch in which the running training error falls to this
    )
    precision: str = "fp32"  # or tf32, bf16, fp64: alexnet.training.learner
    mode: str = "plain"  # or graph (alexnet.training.whole), compiled (torch.compile)
    start: str | None = None  # SHA-256 of the weights file that all layers but the last begin with
    version: int = VERSION

    @property
    def identity(self) -> str:
        """Of the fields that differ from their defaults, and the version: a field added later leaves older runs what they are."""
        default = {
            f.name: f.default
            for f in fields(self)
            if f.default is not MISSING and f.name != "version"
        }
        told = {
            name: value
            for name, value in asdict(self).items()
            if name not in default or value != default[name]
        }
        return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def recipe(self) -> presets.Recipe:
        recipe = presets.get(self.preset).recipe
        return (
            recipe
            if self.rate is None
            else replace(
                recipe, rate=self.rate, bias_rate=recipe.bias_rate * self.rate / recipe.rate
            )
        )

    def network(self, exchange: Together | None = None) -> AlexNet:
        """The net with its initial weights, or the columns of it that `exchange` has here."""
        torch.manual_seed(self.seed)
        return AlexNet(self.preset, self.num_classes, self.width, self.image_size, exchange)


def train(
    config: Config,
    splits: dict[str, Pack],
    out: Path,
    *,
    start: Path | None = None,
    resume: bool = False,
    ranks: Ranks | None = None,
    keep: int = 2,
    every: float = 300.0,
    progress: bool = True,
    on_steps: Callable[[int], None] = lambda steps: None,
) -> dict:
    """Trains to the end of the budget and returns the run's summary.

    splits: packs "train" and, for the validation error after each epoch, "val". start: the finished run whose weights `config.start` is of
    (section 6: pre-trained nets). All layers but the last begin with them, the last one and all velocities anew; a run that has a
    checkpoint needs it no more. ranks: where this process stands among others, and its device; None: alone, on the CPU. All ranks must call
    with the same arguments, and see the same folder `out`. A folder that holds a run is an InputError unless `resume`, and must then hold a
    run of the same config; a finished run is returned as it is. keep: checkpoints that stay. every: seconds from one to the next; there is
    also one after each epoch. on_steps is told of every step taken (and, at once, of those a checkpoint already holds). Ctrl-C and SIGTERM
    leave a checkpoint, then raise Interrupted, on all ranks after the same step. A loss, or a weight before it, that is no longer finite
    ends the run, and its `diverged_at` names the step; no checkpoint ever holds such a weight. Options that cannot work raise InputError
    and leave no folder behind.
    """
    ranks = ranks or Ranks()
    if config.mode not in MODES:
        raise InputError(f"there is no mode {config.mode!r}; there are {', '.join(MODES)}")
    if ranks.world > 1 and config.mode != "plain":
        raise InputError(
            f"mode {config.mode} is for one process; several ranks need the mode plain"
        )
    if config.mode == "compiled" and ranks.device.type == "cpu":
        cxx = os.environ.get(
            "CXX", "clang++" if sys.platform == "darwin" else "g++"
        )  # as torch.compile chooses
        if shutil.which(cxx.partition(" ")[0]) is None:
            raise InputError(
                f"mode compiled needs a C++ compiler, and there is no {cxx or 'g++'}; install g++, or use the mode plain"
            )
    pack, validation, recipe = splits["train"], splits.get("val"), config.recipe
    if config.mode == "graph" and recipe.velocity != "with rate":
        raise InputError(
            f"preset {config.preset!r} has an update rule that no graph can hold; use the mode plain"
        )
    for one in (pack, validation):
        if one is not None and not one.labeled:
            raise InputError(
                f"the images in {one.path} have no labels: there is nothing to learn from them"
            )
    if recipe.schedule == "plateau" and validation is None:
        raise InputError(
            f"{pack.path} comes without a val split; preset {config.preset!r} needs one, to lower its rate when the validation error stops "
            "improving (or add its variant constant-rate)"
        )
    table = presets.shapes(
        presets.get(config.preset), config.num_classes, config.width, config.image_size
    )
    needed = 12 * presets.total(table, "parameters")  # bytes of weights, gradients and velocities
    if needed > (there := os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")):
        raise InputError(
            f"the net needs {needed / 2**30:,.0f} GiB of memory, of {there / 2**30:,.0f}; choose a smaller width"
        )
    augment = Augment(recipe, pack.mean, config.image_size, pack.color, config.seed)
    with ExitStack() as stack:
        dtype = stack.enter_context(arithmetic(config.precision, ranks.device))
        weights = _starting_weights(config, start, out, table)
        word = ranks.one_word()
        ranks.first(lambda: stack.enter_context(claimed(config, out, resume, word)))
        _check_shared(out, ranks, word)
        if ranks.is_first and not (out / "config.json").exists():
            _write(
                out / "config.json",
                lambda part: part.write_text(json.dumps(asdict(config), indent=1)),
            )
        if not (out / "summary.json").exists():
            net = config.network(ranks.exchange)
            if weights is not None:
                net.load_merged(weights, but=[table[-1].layer.name])
            learner = Learner(net, recipe, ranks, dtype, compiled=config.mode == "compiled")
            _train(
                config,
                pack,
                validation,
                augment,
                learner,
                out,
                ranks,
                keep,
                every,
                progress,
                on_steps,
            )
        return json.loads((out / "summary.json").read_text())


def starting_point(run: Path) -> str:
    """What `Config.start` is for nets that begin with the weights of a finished run. Raises InputError where there is none."""
    check_usable(run)
    return checkpoint.sha256(run / WEIGHTS)


def _starting_weights(
    config: Config, start: Path | None, out: Path, table: list[presets.Shape]
) -> dict[str, Tensor] | None:
    """Those that `config.start` names, once they are known to fit; None where there are none, or where the run has gone on from them."""
    if config.start is None:
        if start is not None:
            raise InputError(
                f"the config names no weights to start from, and the run in {start} was given"
            )
        return None
    if (out / "summary.json").exists() or checkpoint.steps(out / "checkpoints"):
        return None
    if start is None:
        raise InputError(
            f"the run begins with the weights of another, of SHA-256 {config.start[:16]}..., and that run was not given"
        )
    if (found := starting_point(start)) != config.start:
        raise InputError(
            f"{start / WEIGHTS} has SHA-256 {found[:16]}..., and the run begins with that of {config.start[:16]}..."
        )
    weights = _read_weights(start / WEIGHTS)
    try:
        check_merged(weights, presets.get(config.preset), table, but=[table[-1].layer.name])
    except InputError as error:
        raise InputError(
            f"the run in {start} is of another net: {error}; all layers but the last must agree"
        ) from None
    return weights


def _train(
    config: Config,
    pack: Pack,
    validation: Pack | None,
    augment: Augment,
    learner: Learner,
    out: Path,
    ranks: Ranks,
    keep: int,
    every: float,
    progress: bool,
    on_steps: Callable[[int], None],
) -> None:
    recipe = config.recipe
    if ranks.is_first:
        for stale in out.glob(".column-*.part"):  # of ranks that were killed at the very end
            stale.unlink()
        mean = io.BytesIO()
        np.save(mean, pack.mean)
        _write(out / "mean.npy", lambda part: part.write_bytes(mean.getvalue()))
        _write(
            out / "classes.json",
            lambda part: part.write_text(json.dumps(pack.classes, indent=1) + "\n"),
        )
    loader = Loader(pack, config.batch_size, config.seed, ranks.device, ranks.shard)
    whole = (
        WholeStep(learner, augment, pack.size, config.batch_size)
        if config.mode == "graph"
        else None
    )
    per_epoch = steps_per_epoch(pack, config.batch_size)
    last_step = max(1, round(config.epochs * per_epoch))
    schedule, step, seconds = Schedule.of(config.epochs), 0, 0.0
    loss_sum = error_sum = 0.0  # over the images of this epoch so far
    ended: str | None = None
    done = checkpoint.steps(out / "checkpoints")
    kinds = [
        name.split(".", 2)[2] for name in learner.parameters
    ]  # "conv1.weight", of whichever column
    if done:
        columns, state = checkpoint.load(done[-1], [str(number) for number in learner.net.numbers])
        try:
            state = {
                "run": config.identity,
                "rates": [],
                "ended": None,
            } | state  # which older ones lack
            if state["run"] != config.identity:
                raise InputError("it is of a run with another config")
            _check_state(state, done[-1].name, last_step, kinds)
            step, seconds, loss_sum, error_sum = (
                state["step"],
                state["seconds"],
                state["loss_sum"],
                state["error_sum"],
            )
            schedule, ended = Schedule.from_state(state.get("schedule")), state["ended"]
            learner.rates = [state["rates"][kind] for kind in kinds] if state["rates"] else []
            learner.restore(columns)
        except InputError as error:
            raise InputError(
                f"{done[-1]} does not belong to this run: {error}; remove it to go on from the checkpoint before it"
            ) from None
    log = Log(out, step) if ranks.is_first else None
    names = [str(number) for number in range(presets.get(config.preset).columns)]
    writer = checkpoint.Writer(out / "checkpoints", names, ranks.one_word(), ranks.is_first, keep)

    def settle() -> None:
        """Waits for the checkpoint that is being written. Where a rank could not write its part, all stop."""
        if any(ranks.totals(flags=[writer.failed(wait=True)])[1]) and not writer.failed():
            writer.give_up()
            raise RuntimeError(
                f"another rank could not write its part of a checkpoint to {writer.folder}; it says why"
            )
        writer.wait()

    def diverged() -> bool:
        """Whether a weight or a velocity, of any rank, is no longer finite. No checkpoint is made of such ones."""
        finite = [
            value.isfinite().all()
            for tensors in learner.columns().values()
            for value in tensors.values()
        ]
        return any(ranks.totals(flags=[not torch.stack(finite).all()])[1])

    def save() -> None:
        settle()
        if log is not None:
            log.flush()
        state = {
            "run": config.identity,
            "step": step,
            "epoch": step / per_epoch,
            "seconds": seconds,
            "loss_sum": loss_sum,
            "error_sum": error_sum,
            "schedule": schedule.state(),
            "rates": dict(zip(kinds, learner.rates)),
            "ended": ended,
        }
        writer.save(step, learner.columns() if ranks.keeps else {}, state)

    bar = tqdm(
        total=last_step,
        initial=step,
        desc=config.preset,
        unit="step",
        disable=None if progress and ranks.is_first else True,
    )
    saved = time.monotonic()
    stop = due = False

    def steps(
        epoch: int, inside: int, rates: list[float]
    ) -> Generator[tuple[int, float, float, float, list[bool]], None, None]:
        """From the `inside`-th step of an epoch on, each as soon as its loss is known: its images, summed loss and errors, over all ranks;
        the seconds that the host has been at feeding since the one before; flags that all ranks share. A whole step is still under way on
        the device while the host makes the next one ready and sends it after it, so that the device never waits: once `stop` or `due` is
        set, one more step comes."""
        fed = 0.0

        def told(
            count: int, total: float, wrong: float
        ) -> tuple[int, float, float, float, list[bool]]:
            nonlocal fed
            flags = [
                bool(asked),
                writer.failed(),
                ranks.is_first and time.monotonic() - saved > every,
            ]
            (total, wrong), flags = ranks.totals([total, wrong], flags)
            spent, fed = fed, 0.0
            return count, total, wrong, spent, flags

        with closing(loader.epoch(epoch, inside)) as shards:
            under_way: tuple[int, Totals] | None = None
            for number in range(
                epoch * per_epoch + inside, min((epoch + 1) * per_epoch, last_step)
            ):
                if stop or due:
                    break
                began = time.monotonic()
                images, labels, ids, positions = next(shards)
                count = min(
                    config.batch_size, len(pack) - number % per_epoch * config.batch_size
                )  # of all rows
                keys, color = (
                    rng.key(rng.DROPOUT, config.seed, number, ids),
                    schedule.color(recipe, epoch),
                )
                if whole is not None and len(ids) == whole.count:
                    draw = augment.draw(ids, positions, epoch, color)
                    fed += time.monotonic() - began
                    before, under_way = under_way, (count, whole(images, draw, labels, keys, rates))
                    if before is not None:
                        yield told(before[0], *before[1].read())
                    continue
                x = augment.train(images, ids, positions, epoch, color)
                fed += time.monotonic() - began
                if under_way is not None:
                    before, under_way = under_way, None
                    yield told(before[0], *before[1].read())
                    if stop or due:
                        break
                done = told(count, *learner.backward(x, labels, keys, count))
                if math.isfinite(done[1]):
                    learner.update(rates)
                yield done
            if under_way is not None:
                yield told(under_way[0], *under_way[1].read())

    with _asked_to_stop() as asked:
        on_steps(step)
        while step < last_step and ended is None:
            epoch, inside = divmod(step, per_epoch)
            rates = [
                schedule.rate(recipe, epoch, name.split(".")[2], name.endswith("bias"))
                for name in learner.parameters
            ]
            due = False
            ranks.exchange.seconds()  # what validation took
            began = time.monotonic()
            with closing(steps(epoch, inside, rates)) as taken:
                for count, total, wrong, fed, (stop_now, failed, due_now) in taken:
                    loss = total / count
                    if not math.isfinite(loss):
                        ended = "diverged"
                        break
                    ranks.step = step = step + 1
                    took = (now := time.monotonic()) - began
                    seconds, loss_sum, error_sum, began = (
                        seconds + took,
                        loss_sum + total,
                        error_sum + wrong,
                        now,
                    )
                    exchanged = ranks.exchange.seconds() + learner.gradients.seconds()
                    if log is not None:
                        speed = {
                            "images_per_second": count / took,
                            "seconds_data": fed,
                            "seconds_exchange": exchanged,
                        }
                        speed["seconds_compute"] = took - fed - exchanged
                        log.add(
                            "step",
                            step,
                            epoch=epoch,
                            loss=loss,
                            error=wrong / count,
                            rate=max(rates),
                            **speed,
                        )
                    bar.update()
                    on_steps(1)
                    bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                    if ranks.world == 1:  # nobody else has to agree
                        stop_now, due_now = bool(asked), time.monotonic() - saved > every
                    stop, due = stop or stop_now, due or due_now
                    if failed:
                        settle()
            if ended is None and diverged():
                ended = "diverged"  # the next loss would be no number
            if ended:
                break
            if step % per_epoch == 0 or step == last_step:
                seen = len(pack) if step % per_epoch == 0 else step % per_epoch * config.batch_size
                mean_loss, train_error = loss_sum / seen, error_sum / seen
                row: dict[str, float] = {
                    "epoch": step / per_epoch,
                    "loss": mean_loss,
                    "error": train_error,
                    "falls": schedule.falls,
                }
                if validation is not None:
                    errors = _validate(learner.net, validation, augment, ranks)
                    row |= {"val_top1": errors.top1, "val_top5": errors.top5, "val_nll": errors.nll}
                    schedule.observe(
                        recipe, errors.top1, started=mean_loss < 0.9 * math.log(config.num_classes)
                    )
                if log is not None:
                    log.add("epoch", step, **row)
                loss_sum = error_sum = 0.0
                if (
                    config.stop_at_train_error is not None
                    and train_error <= config.stop_at_train_error
                ):
                    ended = "reached"
                elif schedule.finished:
                    ended = "plateau"
                save()
                saved = time.monotonic()
            elif stop or due:
                save()
                saved = time.monotonic()
            if stop:
                settle()
                ranks.meet()
                if log is not None:
                    log.close()
                bar.close()
                told = f"stopped at step {step} of {last_step}; nothing is lost: the same command with --resume goes on from there"
                raise Interrupted(asked[0] if asked else signal.SIGTERM, told)

        settle()
        bar.close()
        if log is not None:
            log.close()
        columns = _all_columns(learner, out, ranks)
        if ranks.is_first:
            net = _filled(config, columns)
            _write(out / WEIGHTS, lambda part: save_file(net.export_merged(), part))
            summary = {
                "config": asdict(config),
                "steps": step,
                "epochs": step / per_epoch,
                "ended": ended or "budget",
                "diverged_at": step + 1 if ended == "diverged" else None,
                "falls": schedule.falls,
                "seconds": round(seconds, 1),
                "threads": torch.get_num_threads(),
                "ranks": [ranks.rows, ranks.world // ranks.rows],
                "device": ranks.device.type,
            }
            _write(
                out / "summary.json", lambda part: part.write_text(json.dumps(summary, indent=1))
            )
        ranks.meet()


def _check_state(state: dict, name: str, last_step: int, kinds: list[str]) -> None:
    """Raises InputError where an entry is not what a run of `last_step` steps, whose parameters are of these `kinds`, puts into its
    checkpoint `name`."""

    def number(value: Any) -> bool:
        return type(value) in (int, float) and 0 <= value < math.inf

    fits: dict[str, Callable[[Any], bool]] = {
        "step": lambda step: (
            type(step) is int
            and 0 <= step <= last_step
            and name == f"{checkpoint.PREFIX}{step:09d}"
        ),
        **dict.fromkeys(("seconds", "loss_sum", "error_sum"), number),
        "rates": lambda rates: (
            rates in ({}, [])
            or (type(rates) is dict and all(number(rates.get(kind)) for kind in kinds))
        ),
        "ended": lambda ended: ended in (None, "reached", "plateau"),
    }
    for entry, fit in fits.items():
        if not fit(state.get(entry)):
            raise InputError(f"its {entry} is {state.get(entry)!r}")


def _validate(net: AlexNet, pack: Pack, augment: Augment, ranks: Ranks) -> evaluation.Errors:
    """The errors on a whole pack, of which each row of ranks sees its share."""
    probabilities, labels = evaluation.predict(
        net, pack, augment, shard=ranks.shard, on_batch=ranks.tick
    )
    if ranks.rows == 1:
        return evaluation.errors(probabilities, labels)
    n = len(labels)
    own = evaluation.errors(probabilities, labels) if n else evaluation.Errors(0.0, 0.0, 0.0, 0)
    (top1, top5, nll, count), _ = ranks.totals([own.top1 * n, own.top5 * n, own.nll * n, n])
    return evaluation.Errors(top1 / count, top5 / count, nll / count, int(count))


def _all_columns(learner: Learner, out: Path, ranks: Ranks) -> checkpoint.Columns:
    """Of the whole net, on rank 0; those of other ranks come through the run's folder."""
    columns = learner.columns()
    if ranks.world == 1:
        return columns
    places = {
        number: out / f".column-{number}.part"
        for number in range(presets.get(learner.net.preset).columns)
    }
    if ranks.keeps:
        for number, tensors in columns.items():
            with checkpoint.writing(places[int(number)]):
                save_file(
                    {name: value.cpu().contiguous() for name, value in tensors.items()},
                    places[int(number)],
                )
    ranks.meet()
    if ranks.is_first:
        columns = {str(number): load_file(place) for number, place in places.items()}
        for place in places.values():
            place.unlink()
    return columns


def _filled(config: Config, columns: checkpoint.Columns) -> AlexNet:
    """The net in one process, with the columns' weights, in the type that they were updated in."""
    net = config.network().to(columns["0"]["conv1.weight"].dtype)
    with torch.no_grad():
        for name, value in net.named_parameters():
            _, number, rest = name.split(".", 2)
            value.copy_(columns[number][rest])
    return net


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Whole or not at all. Raises OSError, with the remedy, where that cannot be done."""
    part = path.with_suffix(".part")
    with checkpoint.writing(path):
        write(part)
        part.rename(path)


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop and did, with a checkpoint. `signal` is the number of the signal."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number

    def __reduce__(self) -> tuple:  # on its way from a worker
        return Interrupted, (self.signal, str(self))


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM while a step is under way; outside the main thread signals stay as they are."""
    asked: list[int] = []
    try:
        before = {
            number: signal.signal(number, lambda n, _: asked.append(n))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
    except ValueError:
        before = {}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def claimed(config: Config, out: Path, resume: bool, word: str) -> Iterator[None]:
    """Makes the folder of a new run, or checks that the one there is this run; other processes are kept out of it until the block ends,
    by a lock in which `word` stands."""
    file, beginnings = (
        out / "config.json",
        {"lock", "config.part"},
    )  # all that a process killed right here leaves behind
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; choose another name for the run's folder")
    if (
        not file.exists()
        and out.exists()
        and any(path.name not in beginnings for path in out.iterdir())
    ):
        raise InputError(
            f"{out} is there and holds something that is no run; choose another folder"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {out}: {error.strerror}; choose another place") from None
    with (out / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"another process is training in {out}; wait for it, or choose another folder"
            ) from None
        with checkpoint.writing(out / "lock"):
            lock.truncate(0)
            lock.write(word)
            lock.flush()
        if file.exists():
            if not resume:
                raise InputError(
                    f"{out} already holds a run; add --resume to go on with it, or choose another folder"
                )
            there = _read_config(out)
            for name, value in asdict(config).items():
                if (held := getattr(there, name)) != value:
                    raise InputError(
                        f"{out} holds a run with {name} {held!r}, not {value!r}; choose another folder, or the same options"
                    )
        yield


def _check_shared(out: Path, ranks: Ranks, word: str) -> None:
    """Raises InputError on all ranks where one does not see the folder that rank 0 has claimed."""
    if ranks.world == 1:
        return
    lock, until = (
        out / "lock",
        time.monotonic() + 5,
    )  # seconds, which a file system on a network may take
    while not (seen := lock.exists() and lock.read_text() == word) and time.monotonic() < until:
        time.sleep(0.1)
    _, blind = ranks.totals(flags=[not seen and rank == ranks.rank for rank in range(ranks.world)])
    if any(blind):
        which = " and ".join(f"rank {rank}" for rank, one in enumerate(blind) if one)
        raise SharedError(
            f"{which} cannot see rank 0's {out}; give all ranks the same --out, on a disk that they share"
        )


def _read_config(folder: Path) -> Config:
    try:
        return Config(**json.loads((folder / "config.json").read_text()))
    except (ValueError, TypeError):
        raise InputError(
            f"{folder / 'config.json'} is damaged, or of a newer version; choose another folder"
        ) from None


def _check_finished(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise InputError(
            f"{folder} holds no run; make one with `alexnet train --data PACK --out {folder}`"
        )
    if not (folder / "summary.json").exists():
        raise InputError(
            f"the run in {folder} is not finished; go on with it by `alexnet train ... --out {folder} --resume`"
        )
    for name in (WEIGHTS, "mean.npy"):
        if not (folder / name).exists():
            raise InputError(f"{folder / name} is missing; train again, in another folder")


def check_usable(folder: Path) -> None:
    """Raises InputError where `folder` holds no finished run, or one that diverged."""
    _check_finished(folder)
    if (step := json.loads((folder / "summary.json").read_text())["diverged_at"]) is not None:
        told = f"the run in {folder} diverged at step {step}, and its weights are of no use"
        raise InputError(f"{told}; train again in another folder, with a lower --lr")


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}); train again, in another folder") from None


def load_run(folder: Path) -> tuple[AlexNet, Augment, Config]:
    """A finished run's network, in evaluation mode, with what its input goes through. Raises InputError where there is none."""
    _check_finished(folder)
    config = _read_config(folder)
    try:
        average = np.load(folder / "mean.npy")
    except (ValueError, EOFError) as error:
        raise InputError(
            f"{folder / 'mean.npy'} is damaged ({error}); train again, in another folder"
        ) from None
    net = config.network()
    net.load_merged(_read_weights(folder / WEIGHTS))
    return net.eval(), Augment(config.recipe, average, config.image_size), config
