"""The training loop (section 5 of the paper), from a pack to a run folder: `config.json`, `log.jsonl`, `checkpoints/`,
`weights.safetensors`, `summary.json`; and what its input goes through, `mean.npy`, and its output means, `classes.json`.

A run is a function of its config and its data: started twice, or killed and resumed, it ends with the same weights, to the bit on one
machine and thread count.
"""

import fcntl
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from alexnet import evaluation, presets, rng
from alexnet.data.augment import Augment
from alexnet.data.loader import batches, steps_per_epoch
from alexnet.data.pack import Pack
from alexnet.errors import InputError
from alexnet.exchange import Together
from alexnet.network import AlexNet
from alexnet.training import checkpoint
from alexnet.training.learner import Learner, arithmetic
from alexnet.training.log import Log
from alexnet.training.ranks import Ranks
from alexnet.training.schedule import Schedule

# Part of a trained model's identity: raise it with any change that changes trained weights. tests/test_trainer.py holds the numbers that
# say when.
VERSION = 1
CHECKPOINT_SECONDS = 300.0


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
    stop_at_train_error: float | None = None  # end after the epoch in which the running training error falls to this
    precision: str = "fp32"  # or tf32, bf16, fp64: alexnet.training.learner
    version: int = VERSION

    @property
    def identity(self) -> str:
        """Of the fields that differ from their defaults, and the version: a field added later leaves older runs what they are."""
        default = {f.name: f.default for f in fields(self) if f.default is not MISSING and f.name != "version"}
        told = {name: value for name, value in asdict(self).items() if name not in default or value != default[name]}
        return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def recipe(self) -> presets.Recipe:
        recipe = presets.get(self.preset).recipe
        return recipe if self.rate is None else replace(recipe, rate=self.rate, bias_rate=recipe.bias_rate * self.rate / recipe.rate)

    def network(self, exchange: Together | None = None) -> AlexNet:
        """The net with its initial weights, or the columns of it that `exchange` has here."""
        torch.manual_seed(self.seed)
        return AlexNet(self.preset, self.num_classes, self.width, self.image_size, exchange)


def train(
    config: Config,
    splits: dict[str, Pack],
    out: Path,
    *,
    resume: bool = False,
    ranks: Ranks | None = None,
    keep: int = 2,
    progress: bool = True,
    on_steps: Callable[[int], None] = lambda steps: None,
) -> dict:
    """Trains to the end of the budget and returns the run's summary.

    splits: packs "train" and, for the validation error after each epoch, "val". ranks: where this process stands among others, and its
    device; None: alone, on the CPU. All ranks must call with the same arguments, and see the same folder `out`. A folder that holds a run
    is an InputError unless `resume`, and must then hold a run of the same config; a finished run is returned as it is. keep: checkpoints
    that stay. on_steps is told of every step taken (and, at once, of those a checkpoint already holds). Ctrl-C and SIGTERM leave a
    checkpoint, then raise Interrupted, on all ranks after the same step. A loss that is no longer finite ends the run, and the summary's
    `diverged_at` names the step. Options that cannot work raise InputError and leave no folder behind.
    """
    ranks = ranks or Ranks()
    pack, validation, recipe = splits["train"], splits.get("val"), config.recipe
    if recipe.schedule == "plateau" and validation is None:
        raise InputError(
            f"{pack.path} comes without a val split; preset {config.preset!r} needs one, to lower its rate when the validation error stops "
            "improving (or add its variant constant-rate)"
        )
    table = presets.shapes(presets.get(config.preset), config.num_classes, config.width, config.image_size)
    needed = 12 * presets.total(table, "parameters")  # bytes of weights, gradients and velocities
    if needed > (there := os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")):
        raise InputError(f"the net needs {needed / 2**30:,.0f} GiB of memory, of {there / 2**30:,.0f}; choose a smaller width")
    augment = Augment(recipe, pack.mean, config.image_size, pack.color, config.seed)
    with ExitStack() as stack:
        dtype = stack.enter_context(arithmetic(config.precision, ranks.device))
        ranks.first(lambda: stack.enter_context(claimed(config, out, resume)))
        if not (out / "summary.json").exists():
            learner = Learner(config.network(ranks.exchange), recipe, ranks, dtype)
            _train(config, pack, validation, augment, learner, out, ranks, keep, progress, on_steps)
        return json.loads((out / "summary.json").read_text())


def _train(
    config: Config,
    pack: Pack,
    validation: Pack | None,
    augment: Augment,
    learner: Learner,
    out: Path,
    ranks: Ranks,
    keep: int,
    progress: bool,
    on_steps: Callable[[int], None],
) -> None:
    recipe = config.recipe
    if ranks.is_first:
        for stale in out.glob(".column-*.part"):  # of ranks that were killed at the very end
            stale.unlink()
        np.save(out / "mean.npy", pack.mean)
        (out / "classes.json").write_text(json.dumps(pack.classes, indent=1) + "\n")
    per_epoch = steps_per_epoch(pack, config.batch_size)
    last_step = max(1, round(config.epochs * per_epoch))
    schedule, step, seconds = Schedule.of(config.epochs), 0, 0.0
    loss_sum = error_sum = 0.0  # over the images of this epoch so far
    ended: str | None = None
    done = checkpoint.steps(out / "checkpoints")
    if done:
        columns, state = checkpoint.load(done[-1], [str(number) for number in learner.net.numbers])
        try:
            if state.get("run", config.identity) != config.identity:
                raise InputError("it is of a run with another config")
            step, seconds, loss_sum, error_sum = state["step"], state["seconds"], state["loss_sum"], state["error_sum"]
            schedule, ended = Schedule.from_state(state["schedule"]), state.get("ended")
            learner.rates = state.get("rates", [])
            learner.restore(columns)
        except (InputError, KeyError, TypeError) as error:
            raise InputError(f"{done[-1]} does not belong to this run: {error}; remove it to go on from the checkpoint before it") from None
    log = Log(out, step) if ranks.is_first else None
    names = [str(number) for number in range(presets.get(config.preset).columns)]
    writer = checkpoint.Writer(out / "checkpoints", names, ranks.one_word(), ranks.is_first, keep)

    def settle() -> None:
        """Waits for the checkpoint that is being written. Where a rank could not write its part, all stop."""
        if any(ranks.totals(flags=[writer.failed(wait=True)])[1]) and not writer.failed():
            writer.give_up()
            raise RuntimeError(f"another rank could not write its part of a checkpoint to {writer.folder}; it says why")
        writer.wait()

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
            "rates": learner.rates,
            "ended": ended,
        }
        writer.save(step, learner.columns() if ranks.keeps else {}, state)

    bar = tqdm(total=last_step, initial=step, desc=config.preset, unit="step", disable=None if progress and ranks.is_first else True)
    saved = time.monotonic()
    stop = False
    with _asked_to_stop() as asked:
        on_steps(step)
        while step < last_step and ended is None:
            epoch, inside = divmod(step, per_epoch)
            rates = [schedule.rate(recipe, epoch, name.split(".")[2], name.endswith("bias")) for name in learner.parameters]
            shards = batches(pack, config.batch_size, config.seed, epoch, inside, ranks.shard)
            while step < last_step:
                ranks.exchange.seconds()  # what validation took
                began = time.monotonic()
                try:
                    images, labels, ids, positions = next(shards)
                except StopIteration:
                    break
                count = min(config.batch_size, len(pack) - step % per_epoch * config.batch_size)  # of all rows
                x = augment.train(images, ids, positions, epoch, schedule.color(recipe, epoch))
                fed = time.monotonic() - began
                share = learner.backward(x, labels, rng.key(rng.DROPOUT, config.seed, step, ids), count)
                due = ranks.is_first and time.monotonic() - saved > CHECKPOINT_SECONDS
                (total, wrong), (stop, failed, due) = ranks.totals(share, [bool(asked), writer.failed(), due])
                loss = total / count
                if not math.isfinite(loss):
                    ended = "diverged"
                    break
                learner.update(rates)
                ranks.step = step = step + 1
                took = time.monotonic() - began
                seconds, loss_sum, error_sum = seconds + took, loss_sum + total, error_sum + wrong
                if log is not None:
                    exchanged = ranks.exchange.seconds()
                    speed = {"images_per_second": count / took, "seconds_data": fed, "seconds_exchange": exchanged}
                    speed["seconds_compute"] = took - fed - exchanged
                    log.add("step", step, epoch=epoch, loss=loss, error=wrong / count, rate=max(rates), **speed)
                bar.update()
                on_steps(1)
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                if ranks.world == 1:  # nobody else has to agree
                    stop, due = bool(asked), time.monotonic() - saved > CHECKPOINT_SECONDS
                if failed:
                    settle()
                if stop:
                    break
                if due and step % per_epoch and step < last_step:
                    save()
                    saved = time.monotonic()
            if ended:
                break
            if step % per_epoch == 0 or step == last_step:
                seen = len(pack) if step % per_epoch == 0 else step % per_epoch * config.batch_size
                mean_loss, train_error = loss_sum / seen, error_sum / seen
                row: dict[str, float] = {"epoch": step / per_epoch, "loss": mean_loss, "error": train_error, "falls": schedule.falls}
                if validation is not None:
                    errors = _validate(learner.net, validation, augment, ranks)
                    row |= {"val_top1": errors.top1, "val_top5": errors.top5, "val_nll": errors.nll}
                    schedule.observe(recipe, errors.top1, started=mean_loss < 0.9 * math.log(config.num_classes))
                if log is not None:
                    log.add("epoch", step, **row)
                loss_sum = error_sum = 0.0
                if config.stop_at_train_error is not None and train_error <= config.stop_at_train_error:
                    ended = "reached"
                elif schedule.finished:
                    ended = "plateau"
                save()
                saved = time.monotonic()
            if stop:
                save()
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
            if not all(bool(value.isfinite().all()) for value in net.parameters()):  # the last update did it
                ended = "diverged"
            _write(out / "weights.safetensors", lambda part: save_file(net.export_merged(), part))
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
            _write(out / "summary.json", lambda part: part.write_text(json.dumps(summary, indent=1)))
        ranks.meet()


def _validate(net: AlexNet, pack: Pack, augment: Augment, ranks: Ranks) -> evaluation.Errors:
    """The errors on a whole pack, of which each row of ranks sees its share."""
    probabilities, labels = evaluation.predict(net, pack, augment, shard=ranks.shard, on_batch=ranks.tick)
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
    places = {number: out / f".column-{number}.part" for number in range(presets.get(learner.net.preset).columns)}
    if ranks.keeps:
        for number, tensors in columns.items():
            save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, places[int(number)])
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
    """Whole or not at all."""
    part = path.with_suffix(".part")
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
        before = {number: signal.signal(number, lambda n, _: asked.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        before = {}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def claimed(config: Config, out: Path, resume: bool) -> Iterator[None]:
    """Makes the folder of a new run, or checks that the one there is this run; other processes are kept out of it until the block ends."""
    file, beginnings = out / "config.json", {"lock", "config.part"}  # all that a process killed right here leaves behind
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; choose another name for the run's folder")
    if not file.exists() and out.exists() and any(path.name not in beginnings for path in out.iterdir()):
        raise InputError(f"{out} is there and holds something that is no run; choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {out}: {error.strerror}; choose another place") from None
    with (out / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"another process is training in {out}; wait for it, or choose another folder") from None
        if not file.exists():
            part = out / "config.part"
            part.write_text(json.dumps(asdict(config), indent=1))
            part.rename(file)
        elif not resume:
            raise InputError(f"{out} already holds a run; add --resume to go on with it, or choose another folder")
        else:
            there = _read_config(out)
            for name, value in asdict(config).items():
                if (held := getattr(there, name)) != value:
                    raise InputError(f"{out} holds a run with {name} {held!r}, not {value!r}; choose another folder, or the same options")
        yield


def _read_config(folder: Path) -> Config:
    try:
        return Config(**json.loads((folder / "config.json").read_text()))
    except (ValueError, TypeError):
        raise InputError(f"{folder / 'config.json'} is damaged, or of a newer version; choose another folder") from None


def load_run(folder: Path) -> tuple[AlexNet, Augment, Config]:
    """A finished run's network, in evaluation mode, with what its input goes through. Raises InputError where there is none."""
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} holds no run; make one with `alexnet train --data PACK --out {folder}`")
    if not (folder / "summary.json").exists():
        raise InputError(f"the run in {folder} is not finished; go on with it by `alexnet train ... --out {folder} --resume`")
    config = _read_config(folder)
    weights, mean = folder / "weights.safetensors", folder / "mean.npy"
    for path in (weights, mean):
        if not path.exists():
            raise InputError(f"{path} is missing; train again, in another folder")
    try:
        found, average = load_file(weights), np.load(mean)
    except (SafetensorError, ValueError, EOFError) as error:
        raise InputError(f"the weights or the mean image in {folder} are damaged ({error}); train again, in another folder") from None
    net = config.network()
    net.load_merged(found)
    return net.eval(), Augment(config.recipe, average, config.image_size), config
