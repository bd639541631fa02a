"""The training loop (section 5 of the paper), from packs to a finished run's folder.

A run is a function of its config and its data: started twice, or killed and resumed, it ends with
the same weights, to the bit on one machine and thread count.
"""

import math
import signal
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from alexnet import evaluation, results, rng
from alexnet.convolutions import in_blocks
from alexnet.data.augment import Augment
from alexnet.data.loader import Loader, steps_per_epoch
from alexnet.data.pack import Pack
from alexnet.errors import InputError, require
from alexnet.signals import collected_signals
from alexnet.training import checkpoint, folder
from alexnet.training.config import LOSSES, Config, check_possible
from alexnet.training.interruption import Interrupted
from alexnet.training.learner import Learner
from alexnet.training.log import Log
from alexnet.training.precision import using_precision
from alexnet.training.ranks import Ranks
from alexnet.training.schedule import Schedule
from alexnet.training.steps import EagerStep, Flags, GraphStep, StepInput, StepResult

# of a `Run`, in its checkpoints
STATE = ("step", "seconds", "loss_sum", "error_sum", "ended", "recent")
LEFT_CHANCE = 0.9  # the loss has left chance when it is below this share of ln(classes)


def train(
    config: Config,
    splits: dict[str, Pack],
    out: str | Path,
    *,
    start: str | Path | None = None,
    resume: bool = False,
    ranks: Ranks | None = None,
    keep: int = 2,
    every: float = 300.0,
    progress: bool = True,
    on_steps: Callable[[int], None] = lambda steps: None,
) -> dict[str, Any]:
    """Train to the end of the budget.

    A loss, or a weight before it, that is no longer finite ends the run, and its `diverged_at`
    names the step; no checkpoint ever holds such a weight.

    Args:
        splits: Packs: "train" and, for the validation error after each epoch, "val".
        out: The run's folder. One that holds a run is refused unless `resume`; it must then hold
            a run of the same config. A finished run is returned as it is.
        start: The finished run whose weights `config.start` names (section 6: pre-trained nets).
            All layers but the last begin with them; the last one and all velocities are new. A run
            that has a checkpoint needs it no more.
        ranks: This process's place among others, and its device; None: alone, on the CPU. All
            ranks must call with the same arguments, and see the same folder.
        keep: Checkpoints that stay.
        every: Seconds between checkpoints; there is also one after each epoch.
        on_steps: Called with the number of steps a checkpoint holds, then with 1 after each step.

    Returns:
        The run's summary.

    Raises:
        InputError: Options cannot work; no folder is left behind.
        Interrupted: A signal came (`signals.STOP`); all ranks stop after the same step, and save.
        OSError: The folder cannot be written; the message holds the remedy.
    """
    out, start = Path(out), None if start is None else Path(start)
    ranks, pack = ranks or Ranks(), splits["train"]
    check_possible(config, splits, ranks)
    with ExitStack() as stack:
        dtype = stack.enter_context(using_precision(config.precision, ranks.device))
        crops = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
        blocks = in_blocks(config.shapes[0], dtype)
        settings = (config.image_size, pack.color, config.seed, crops, blocks)
        augment = Augment(config.recipe, pack.mean, *settings)
        weights = folder.starting_weights(config, start, out)
        word = ranks.one_word()
        ranks.first(lambda: stack.enter_context(folder.claimed(config, out, resume, word)))
        folder.check_shared(out, ranks, word)
        if ranks.is_first and not (out / folder.CONFIG).exists():
            folder.write_json(out / folder.CONFIG, asdict(config))
        if not folder.is_finished(out):
            net = config.network(ranks.exchange)
            if weights is not None:
                net.load_merged(weights, but=[net.table[-1].layer.name])
            learner = Learner(net, config.recipe, ranks, dtype, compiled=config.is_compiled)
            if ranks.is_first:
                folder.write_inputs(out, pack)
            Run(config, splits, augment, learner, out, keep, every, progress, on_steps).train()
        return folder.read_summary(out)


@dataclass
class Run:
    """A run under way, from its last checkpoint or its beginning. See `train`."""

    config: Config
    splits: dict[str, Pack]
    augment: Augment
    learner: Learner
    out: Path
    keep: int
    every: float
    progress: bool
    on_steps: Callable[[int], None]

    def __post_init__(self) -> None:
        config, learner, ranks = self.config, self.learner, self.learner.ranks
        self.ranks, self.pack = ranks, self.splits["train"]
        self.steps_per_epoch = steps_per_epoch(self.pack, config.batch_size)
        self.last_step = max(1, round(config.epochs * self.steps_per_epoch))
        self.schedule = Schedule.of(config.recipe, config.epochs)
        self.step, self.seconds = 0, 0.0  # taken so far
        self.loss_sum = self.error_sum = 0.0  # over the images of this epoch so far
        self.recent: list[float] = []  # mean losses of the last LOSSES steps
        self.ended: str | None = None  # "reached", "plateau" or "diverged"
        # of each process that took part: what computed, its steps and seconds
        self.origins: list[dict[str, Any]] = []
        self.restore()
        self.begin_origin()

        size = config.batch_size
        self.loader = Loader(self.pack, size, config.seed, ranks.device, ranks.shard)
        kind = GraphStep if config.is_graph else EagerStep
        self.stepper = kind(learner, self.augment, size, self.flags)
        self.log = Log(self.out, self.step) if ranks.is_first else None
        self.writer = checkpoint.Writer(
            self.out / "checkpoints",
            range(learner.net.preset.columns),
            ranks.one_word(),
            ranks.is_first,
            self.keep,
        )
        hidden = None if self.progress and ranks.is_first else True  # None: without a terminal
        self.bar = tqdm(
            total=self.last_step,
            initial=self.step,
            desc=config.preset,
            unit="step",
            disable=hidden,
        )
        self.rates: list[float] = []  # of this epoch, one a parameter
        self.signals: list[int] = []  # numbers of those that came
        self.stop = self.due = False  # a signal came; it is time for a checkpoint
        self.saved = self.counted = time.monotonic()  # when the last checkpoint, step was

    def train(self) -> None:
        with collected_signals() as self.signals:
            self.on_steps(self.step)
            while self.step < self.last_step and self.ended is None:
                self.take_steps()
                if self.ended == "diverged" or self.has_diverged():  # the next loss would
                    self.ended = "diverged"
                    break
                if self.step % self.steps_per_epoch == 0 or self.step == self.last_step:
                    self.end_epoch()
                self.save()
                if self.stop:
                    self.interrupt()
            self.finish()

    def take_steps(self) -> None:
        """Take the steps that are left of this epoch, or until a checkpoint is due."""
        self.due = False
        self.ranks.exchange.seconds()  # forget those of validation
        self.counted = time.monotonic()
        with closing(self.batches()) as batches:
            for batch in batches:
                self.count(self.stepper.step(batch))
                if self.stop or self.due or self.ended:
                    break
        self.count(self.stepper.last())

    def batches(self) -> Generator[StepInput, None, None]:
        """The batches that are left of this epoch."""
        config, (epoch, done) = self.config, divmod(self.step, self.steps_per_epoch)
        layers = ((name.split(".")[2], kind) for name, kind in self.learner.kinds.items())
        self.rates = [
            0.0 if layer in config.frozen_layers else self.schedule.rate(epoch, layer, kind)
            for layer, kind in layers
        ]
        color = self.schedule.color(epoch)
        end = min(self.steps_per_epoch, self.last_step - epoch * self.steps_per_epoch)
        with closing(self.loader.epoch(epoch, done)) as shares:
            for number in range(done, end):
                with self.stepper.feeding.running():
                    images, labels, ids, positions = next(shares)
                    step = epoch * self.steps_per_epoch + number
                    keys = rng.key(rng.DROPOUT, config.seed, step, ids)
                    draw = self.augment.draw(ids, positions, epoch, color)
                size = min(config.batch_size, len(self.pack) - number * config.batch_size)
                yield StepInput(images, draw, labels, keys, self.rates, size)

    def count(self, result: StepResult | None) -> None:
        """Take note of a step's result; None: there is none yet."""
        if result is None or self.ended is not None:
            return
        if not math.isfinite(result.loss):
            self.ended = "diverged"
            return
        now = time.monotonic()
        took, self.counted = now - self.counted, now
        self.spend(took, steps=1)
        self.step = self.ranks.step = self.step + 1
        self.loss_sum += result.loss
        self.error_sum += result.errors
        self.recent = [*self.recent, result.loss / result.count][-LOSSES:]
        level, known = self.config.stop_at_loss, len(self.recent) == LOSSES
        if level is not None and known and sum(self.recent) / LOSSES <= level:
            self.ended = "reached"
        self.log_step(result, took)
        self.bar.update()
        self.on_steps(1)
        self.bar.set_postfix(loss=f"{result.loss / result.count:.3f}", refresh=False)
        # a process alone need not agree with others, and knows more by now
        flags = self.flags() if self.ranks.world == 1 else result.flags
        self.stop, self.due = self.stop or flags.stop, self.due or flags.due
        if flags.failed:
            self.settle()

    def begin_origin(self) -> None:
        """Take down what computes in this process, unless it is as in the one before."""
        here = results.origin() if self.ranks.is_first else {}
        last = self.origins[-1] if self.origins else None
        if last is None or any(last.get(name) != value for name, value in here.items()):
            self.origins.append({**here, "steps": 0, "seconds": 0.0})

    def spend(self, seconds: float, steps: int = 0) -> None:
        """Count time that training and validation took.

        Args:
            seconds: Of wall-clock time.
            steps: Training steps done in it.
        """
        self.seconds += seconds
        self.origins[-1]["steps"] += steps
        self.origins[-1]["seconds"] += seconds

    def flags(self) -> Flags:
        """What this rank tells the others after a step."""
        due = self.ranks.is_first and time.monotonic() - self.saved > self.every
        return Flags(bool(self.signals), self.writer.failed(), due)

    def log_step(self, result: StepResult, took: float) -> None:
        """Log a step's loss, rate and time.

        Args:
            result: What the step returned.
            took: Its seconds.
        """
        feeding = self.stepper.feeding.seconds()
        exchange = self.ranks.exchange.seconds() + self.learner.gradients.seconds()
        seconds = {"data": feeding, "exchange": exchange, "compute": took - feeding - exchange}
        row = {f"seconds_{name}": spent for name, spent in seconds.items()}
        row |= {"loss": result.loss / result.count, "error": result.errors / result.count}
        row |= {"rate": max(self.rates), "images_per_second": result.count / took}
        if self.log is not None:
            self.log.add("step", self.step, epoch=(self.step - 1) // self.steps_per_epoch, **row)

    def has_diverged(self) -> bool:
        """Whether a tensor that a checkpoint would hold, of any rank, is no longer finite."""
        columns = self.learner.columns().values()
        finite = [value.isfinite().all() for tensors in columns for value in tensors.values()]
        return any(self.ranks.totals(flags=[not torch.stack(finite).all()])[1])

    def end_epoch(self) -> None:
        """Validate, log the epoch, and decide whether the run ends or a rate falls."""
        config, steps = self.config, self.step % self.steps_per_epoch
        images = steps * config.batch_size or len(self.pack)
        loss, train_error = self.loss_sum / images, self.error_sum / images
        row = {"epoch": self.step / self.steps_per_epoch, "loss": loss, "error": train_error}
        row["falls"] = self.schedule.falls
        if "val" in self.splits:
            began = time.monotonic()
            errors = self.validate(self.splits["val"])
            self.spend(time.monotonic() - began)
            row |= {"val_top1": errors.top1, "val_top5": errors.top5, "val_nll": errors.nll}
            started = loss < LEFT_CHANCE * math.log(config.num_classes)
            self.schedule.observe(errors.top1, started)
        if self.log is not None:
            self.log.add("epoch", self.step, **row)
        self.loss_sum = self.error_sum = 0.0
        if self.schedule.finished:
            self.ended = "plateau"
        if config.stop_at_train_error is not None and train_error <= config.stop_at_train_error:
            self.ended = "reached"

    def validate(self, pack: Pack) -> evaluation.Errors:
        """The errors on a whole pack, of which each row of ranks sees its share."""
        ranks = self.ranks
        probabilities, labels = evaluation.predict(
            self.learner.net, pack, self.augment, shard=ranks.shard, on_batch=ranks.tick
        )
        n = len(labels)
        own = evaluation.errors(probabilities, labels) if n else evaluation.Errors(0.0, 0.0, 0.0, 0)
        if ranks.rows == 1:
            return own
        (top1, top5, nll, count), _ = ranks.totals([own.top1 * n, own.top5 * n, own.nll * n, n])
        return evaluation.Errors(top1 / count, top5 / count, nll / count, int(count))

    def save(self) -> None:
        """Write a checkpoint, in a thread."""
        self.settle()
        if self.log is not None:
            self.log.flush()
        state: dict[str, Any] = {name: getattr(self, name) for name in STATE}
        state |= {"run": self.config.identity, "epoch": self.step / self.steps_per_epoch}
        state["rates"] = dict(zip(self.short_names(), self.learner.rates))
        state |= {
            "schedule": self.schedule.state(),
            "origins": [dict(part) for part in self.origins],
        }
        self.writer.save(self.step, self.learner.columns() if self.ranks.row == 0 else {}, state)
        self.saved = time.monotonic()

    def short_names(self) -> list[str]:
        """Of the parameters, whichever column they are of: "conv1.weight"."""
        return [name.split(".", 2)[2] for name in self.learner.parameters]

    def restore(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        if not (done := checkpoint.steps(self.out / "checkpoints")):
            return
        last, names = done[-1], self.short_names()
        columns, state = checkpoint.load(last, self.learner.net.numbers)
        state = {"run": self.config.identity, "rates": [], "ended": None, "recent": []} | state
        try:
            same = state["run"] == self.config.identity
            require(same, "it is of a run with another config")
            checkpoint.check_state(state, last.name, self.last_step, names)
            self.schedule.restore(state.get("schedule"))
            self.learner.restore(columns)
        except InputError as error:
            raise InputError(
                f"{last} does not belong to this run: {error}; remove it to go on from the "
                "checkpoint before it"
            ) from None
        self.origins = state.get("origins", [])
        self.learner.rates = [state["rates"][name] for name in names] if state["rates"] else []
        for name in STATE:
            setattr(self, name, state[name])

    def settle(self) -> None:
        """Wait for the checkpoint that is being written. If a rank cannot write its part, all
        stop."""
        failed = self.ranks.totals(flags=[self.writer.failed(wait=True)])[1]
        if any(failed) and not self.writer.failed():
            self.writer.give_up()
            raise RuntimeError(
                f"another rank could not write its part of a checkpoint to {self.writer.folder}; "
                "it says why"
            )
        self.writer.wait()

    def close(self) -> None:
        self.settle()
        self.bar.close()
        if self.log is not None:
            self.log.close()

    def interrupt(self) -> None:
        """Stop, on all ranks."""
        self.close()
        self.ranks.meet()
        raise Interrupted(
            self.signals[0] if self.signals else signal.SIGTERM,
            f"stopped at step {self.step} of {self.last_step}; nothing is lost: "
            "the same command with --resume goes on from there",
        )

    def finish(self) -> None:
        """Write the weights and the summary, which make the run a finished one."""
        self.close()
        ranks, config = self.ranks, self.config
        columns = folder.gather_columns(self.learner, self.out)
        if ranks.is_first:
            folder.write_weights(config, columns, self.out)
            summary = {"config": asdict(config), "steps": self.step}
            summary |= {"epochs": self.step / self.steps_per_epoch, "ended": self.ended or "budget"}
            summary["diverged_at"] = self.step + 1 if self.ended == "diverged" else None
            summary |= {"falls": self.schedule.falls, "seconds": round(self.seconds, 1)}
            summary |= {"threads": torch.get_num_threads(), "device": ranks.device.type}
            summary["ranks"] = [ranks.rows, ranks.world // ranks.rows]
            rounded = [part | {"seconds": round(part["seconds"], 1)} for part in self.origins]
            summary["origins"] = rounded
            folder.write_json(self.out / folder.SUMMARY, summary)
        ranks.meet()
