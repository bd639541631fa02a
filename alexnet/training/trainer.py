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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from alexnet import evaluation, presets, rng
from alexnet.data.augment import Augment
from alexnet.data.loader import batches, steps_per_epoch
from alexnet.data.pack import Pack
from alexnet.errors import InputError
from alexnet.network import AlexNet
from alexnet.training import checkpoint
from alexnet.training.log import Log
from alexnet.training.schedule import Schedule
from kernels import momentum_step_

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

    def network(self) -> AlexNet:
        """The net with its initial weights."""
        torch.manual_seed(self.seed)
        return AlexNet(self.preset, self.num_classes, self.width, self.image_size)


def train(
    config: Config,
    splits: dict[str, Pack],
    out: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    progress: bool = True,
    on_steps: Callable[[int], None] = lambda steps: None,
) -> dict:
    """Trains to the end of the budget and returns the run's summary.

    splits: packs "train" and, for the validation error after each epoch, "val". A folder that holds a run is an InputError unless `resume`,
    and must then hold a run of the same config; a finished run is returned as it is. on_steps is told of every step taken (and, at once, of
    those a checkpoint already holds). Ctrl-C and SIGTERM leave a checkpoint, then raise Interrupted. A loss that is no longer finite ends
    the run, and the summary's `diverged_at` names the step. Options that cannot work raise InputError and leave no folder behind.
    """
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
    with claimed(config, out, resume):
        if not (out / "summary.json").exists():
            _train(config, pack, validation, augment, out, device, progress, on_steps)
        return json.loads((out / "summary.json").read_text())


def _train(
    config: Config,
    pack: Pack,
    validation: Pack | None,
    augment: Augment,
    out: Path,
    device: str,
    progress: bool,
    on_steps: Callable[[int], None],
) -> None:
    recipe = config.recipe
    net = config.network().to(device)
    parameters = dict(net.named_parameters())  # "columns.0.conv1.weight"
    velocities = {name: torch.zeros_like(value) for name, value in parameters.items()}
    decays = [0.0 if name.endswith("bias") else recipe.weight_decay for name in parameters]
    np.save(out / "mean.npy", pack.mean)
    (out / "classes.json").write_text(json.dumps(pack.classes, indent=1) + "\n")
    per_epoch = steps_per_epoch(pack, config.batch_size)
    last_step = max(1, round(config.epochs * per_epoch))
    schedule, step, seconds = Schedule.of(config.epochs), 0, 0.0
    loss_sum = error_sum = 0.0  # over the images of this epoch so far
    ended: str | None = None
    done = checkpoint.steps(out / "checkpoints")
    if done:
        columns, state = checkpoint.load(done[-1])
        _restore(parameters, velocities, columns)
        step, seconds, loss_sum, error_sum = state["step"], state["seconds"], state["loss_sum"], state["error_sum"]
        schedule, ended = Schedule.from_state(state["schedule"]), state.get("ended")
    log = Log(out, step)

    def save() -> None:
        log.flush()
        state = {
            "step": step,
            "epoch": step / per_epoch,
            "seconds": seconds,
            "loss_sum": loss_sum,
            "error_sum": error_sum,
            "schedule": schedule.state(),
            "ended": ended,
        }
        checkpoint.save(out / "checkpoints", step, _by_column(parameters, velocities), state)

    bar = tqdm(total=last_step, initial=step, desc=config.preset, unit="step", disable=None if progress else True)
    saved = time.monotonic()
    with _asked_to_stop() as asked:
        on_steps(step)
        while step < last_step and ended is None:
            epoch, inside = divmod(step, per_epoch)
            for images, labels, ids, positions in batches(pack, config.batch_size, config.seed, epoch, inside):
                began = time.monotonic()
                rates = [schedule.rate(recipe, epoch, name.split(".")[2], name.endswith("bias")) for name in parameters]
                x = augment.train(images, ids, positions, epoch, schedule.color(recipe, epoch)).to(device)
                logits = net(x, rng.key(rng.DROPOUT, config.seed, step, ids).to(device))
                loss = F.cross_entropy(logits, labels.to(device))
                value = float(loss.detach())
                if not math.isfinite(value):
                    ended = "diverged"
                    break
                loss.backward()
                momentum_step_(
                    list(parameters.values()),
                    [p.grad for p in parameters.values() if p.grad is not None],
                    list(velocities.values()),
                    rates,
                    recipe.momentum,
                    decays,
                )
                net.zero_grad(set_to_none=True)
                wrong = int((logits.detach().argmax(1).cpu() != labels).sum())
                step += 1
                seconds += time.monotonic() - began
                loss_sum, error_sum = loss_sum + value * len(ids), error_sum + wrong
                log.add("step", step, epoch=epoch, loss=value, error=wrong / len(ids), rate=max(rates))
                bar.update()
                on_steps(1)
                bar.set_postfix(loss=f"{value:.3f}", refresh=False)
                if asked or step == last_step:
                    break
                if time.monotonic() - saved > CHECKPOINT_SECONDS and step % per_epoch:
                    save()
                    saved = time.monotonic()
            if ended:
                break
            if step % per_epoch == 0 or step == last_step:
                seen = len(pack) if step % per_epoch == 0 else step % per_epoch * config.batch_size
                mean_loss, train_error = loss_sum / seen, error_sum / seen
                row: dict[str, float] = {"epoch": step / per_epoch, "loss": mean_loss, "error": train_error, "falls": schedule.falls}
                if validation is not None:
                    errors = evaluation.evaluate(net, validation, augment)
                    row |= {"val_top1": errors.top1, "val_top5": errors.top5, "val_nll": errors.nll}
                    schedule.observe(recipe, errors.top1, started=mean_loss < 0.9 * math.log(config.num_classes))
                log.add("epoch", step, **row)
                loss_sum = error_sum = 0.0
                if config.stop_at_train_error is not None and train_error <= config.stop_at_train_error:
                    ended = "reached"
                elif schedule.finished:
                    ended = "plateau"
                save()
                saved = time.monotonic()
            if asked:
                save()
                log.close()
                bar.close()
                told = f"stopped at step {step} of {last_step}; nothing is lost: the same command with --resume goes on from there"
                raise Interrupted(asked[0], told)

    bar.close()
    log.close()
    if not all(bool(value.isfinite().all()) for value in parameters.values()):  # the last update did it
        ended = "diverged"
    part = out / "weights.part"
    save_file(net.export_merged(), part)
    part.rename(out / "weights.safetensors")
    summary = {
        "config": asdict(config),
        "steps": step,
        "epochs": step / per_epoch,
        "ended": ended or "budget",
        "diverged_at": step + 1 if ended == "diverged" else None,
        "falls": schedule.falls,
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
    }
    part = out / "summary.part"
    part.write_text(json.dumps(summary, indent=1))
    part.rename(out / "summary.json")


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


def _by_column(parameters: Mapping[str, Tensor], velocities: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    columns: dict[str, dict[str, Tensor]] = {}
    for name, value in parameters.items():
        _, number, rest = name.split(".", 2)
        columns.setdefault(number, {}).update({rest: value, f"velocity.{rest}": velocities[name]})
    return columns


def _restore(parameters: Mapping[str, Tensor], velocities: Mapping[str, Tensor], columns: Mapping[str, Mapping[str, Tensor]]) -> None:
    with torch.no_grad():
        for name, value in parameters.items():
            _, number, rest = name.split(".", 2)
            value.copy_(columns[number][rest])
            velocities[name].copy_(columns[number][f"velocity.{rest}"])
