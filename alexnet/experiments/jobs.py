"""Jobs: the training runs that experiments ask for, and what a finished one tells.

A trained model is an artifact under runs/<profile>/models, keyed by its config's identity. All
experiments share it: nothing is trained twice.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import torch

from alexnet import evaluation, presets
from alexnet.data.augment import Augment
from alexnet.data.loader import steps_per_epoch
from alexnet.data.pack import Pack
from alexnet.errors import InputError, say
from alexnet.keys import key
from alexnet.network import AlexNet
from alexnet.processes import cores
from alexnet.profiles import Profile
from alexnet.training import Config, auto_precision, load_run, log, starting_point

Packs = dict[str, Pack]


def devices() -> list[str]:
    """Where models are trained: every GPU, or else every core."""
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"] * cores()


@dataclass(frozen=True)
class Run:
    """The folder of a finished job, and what it holds."""

    folder: Path

    @cached_property
    def summary(self) -> dict[str, Any]:
        """How the job ended."""
        return self._read(lambda summary: {**summary})

    @cached_property
    def config(self) -> Config:
        return self._read(lambda summary: Config(**summary["config"]))

    def _read(self, part: Callable[[Any], Any]) -> Any:
        file = self.folder / "summary.json"
        try:
            return part(json.loads(file.read_text()))
        except (ValueError, TypeError, KeyError):
            remedy = f"remove {self.folder}, and the same command makes it anew"
            raise InputError(f"{file} is damaged; {remedy}") from None

    @cached_property
    def losses(self) -> list[float]:
        """Training loss, step by step, in nats."""
        return log.losses(self.folder)

    def rows(self, kind: str, name: str) -> list[Any]:
        """One value of each row of the log of a kind, "step" or "epoch".

        Args:
            kind: "step" or "epoch".
            name: Of the value.
        """
        return [row[name] for row in log.read(self.folder, kind)]

    def net(self) -> tuple[AlexNet, Augment]:
        """The net, in evaluation mode on the first device, with what its input goes through."""
        net, augment, _ = load_run(self.folder)
        return net.to(devices()[0]), augment

    def errors(self, pack: Pack) -> dict[str, evaluation.Errors]:
        """The net's on a pack, by the number of views: "1" and "10"."""
        net, augment = self.net()
        return {
            str(views): evaluation.evaluate(net, pack, augment, views, progress=True)
            for views in (1, 10)
        }

    def views(self, pack: Pack) -> dict[str, Any]:
        """The same, as results hold them."""
        return {views: errors.rounded() for views, errors in self.errors(pack).items()}


class Job:
    """Work for one device, minutes to days long, that leaves a folder with a `summary.json`.

    A job may need others, which are finished before it begins.
    """

    packs: Packs
    needs: "tuple[Job, ...]" = ()
    steps = 0  # for the progress bar
    at_once = 0  # how many of the kind may be under way; 0: one on each device
    work = math.inf  # how long it takes, in multiply-accumulates; infinite where nobody knows

    @property
    def key(self) -> str:
        """Known before the job begins, whatever the jobs that it needs will decide."""
        raise NotImplementedError

    def folder(self, profile: Profile, needed: Sequence[Run]) -> Path:
        """Where it leaves its result.

        Args:
            profile: In whose folder of runs it lies.
            needed: The finished runs that it needs, in the order of `needs`.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Raise InputError where something is missing that the job needs; before any begins."""

    def task(self, profile: Profile, needed: Sequence[Run]) -> Callable[[], object]:
        """What a worker calls.

        Args:
            profile: What the job is done for.
            needed: The finished runs that it needs, in the order of `needs`.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Training(Job):
    """A training run.

    Args:
        config: Its config, except for what `decide` changes.
        packs: The images, by split; those that the config names are used.
        needs: Jobs that `decide` looks at.
        decide: The config, once the needed jobs are finished, of `config` and their runs.
    """

    config: Config
    packs: Packs
    needs: tuple[Job, ...] = ()
    decide: Callable[[Config, Sequence[Run]], Config] = lambda config, needed: config

    @cached_property
    def key(self) -> str:  # type: ignore[override]
        if not self.needs:
            return self.config.identity
        needed = [job.key for job in self.needs]
        return key([self.config.identity, self.decide.__name__, needed])

    @property
    def steps(self) -> int:  # type: ignore[override]
        per_epoch = steps_per_epoch(self.packs["train"], self.config.batch_size)
        return max(1, round(self.config.epochs * per_epoch))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the forward pass of one image."""
        config = self.config
        sizes = config.num_classes, config.width, config.image_size
        return presets.total(presets.shapes(presets.get(config.preset), *sizes), "macs")

    @property
    def work(self) -> float:  # type: ignore[override]
        """Those of as many forward passes as take as long: a step takes some three, validation
        one."""
        validation = len(self.packs["val"]) / 3 if "val" in self.config.data else 0
        return self.config.epochs * (len(self.packs["train"]) + validation) * self.macs

    @property
    def data(self) -> Path:
        """What `open_splits` opens."""
        path = self.packs["train"].path
        return path if len(self.packs) == 1 else path.parent

    def folder(self, profile: Profile, needed: Sequence[Run] = ()) -> Path:
        return profile.runs / "models" / self.decide(self.config, needed).identity

    def task(self, profile: Profile, needed: Sequence[Run] = ()) -> Callable[[], object]:
        from alexnet.experiments import scheduler

        config = self.decide(self.config, needed)
        start = needed[0].folder if config.start else None
        return partial(scheduler.train_one, config, self.data, self.folder(profile, needed), start)


# --- configs ------------------------------------------------------------------------------------


def configure(
    profile: Profile, preset: str, *, epochs: float, packs: Packs | None = None, **fields: Any
) -> Config:
    """A run's config on a profile: its width, image size and data, unless `fields` say otherwise.

    Args:
        packs: Other images than the profile's; of them train and val, if there is one, are used.
    """
    packs = packs or profile.splits()
    used = {name: pack.digest for name, pack in packs.items() if name in ("train", "val")}
    given = {"width": 1.0} | profile.net | fields
    classes = len(packs["train"].classes)
    if given.get("precision") == "auto":
        given["precision"] = _precision(profile, preset, classes, given)
    return Config(preset=preset, num_classes=classes, epochs=epochs, data=used, **given)


def _precision(profile: Profile, preset: str, classes: int, given: dict[str, Any]) -> str:
    """The precision that this machine trains a net in, one for all nets of the profile's own size,
    so that those that are compared have the same."""
    if all(given[name] == profile.settings.get(name) for name in ("width", "image_size")):
        preset = profile.settings.get("base", preset)
    size = given["width"], given["image_size"], given.get("batch_size", 128)
    choice = auto_precision.choose(preset, classes, *size, devices()[0], threads=1)
    about = f"{preset.split('/')[0]}, width {given['width']:g}, {given['image_size']} pixels"
    _say(f"precision auto: {choice.precision} for {about}: {choice.why}")
    return choice.precision


_say = cache(say)  # once each


def base(profile: Profile, seed: int = 0, variant: str = "") -> Config:
    """The config of the net that a profile's experiments share, or of a variant of it, as in
    "/no-lrn".

    Args:
        profile: Its "base" is the preset, its "epochs" the budget.
        seed: Of the run.
        variant: Appended to the preset's name.
    """
    return configure(profile, profile["base"] + variant, epochs=profile["epochs"], seed=seed)


def base_job(profile: Profile, seed: int) -> Training:
    """The training of the net that a profile's experiments share.

    Args:
        profile: See `base`.
        seed: Of the run.
    """
    return Training(base(profile, seed), profile.splits())


def training_job(profile: Profile, preset: str, packs: Packs, **fields: Any) -> Training:
    """The training of a net on these images, which the config names; `fields` as in `configure`.

    Args:
        profile: Its width and image size are the net's.
        preset: A name such as "paper/no-lrn".
        packs: Packs by split: train, and val where the schedule needs one.
        fields: Further fields of the config.
    """
    return Training(configure(profile, preset, packs=packs, **fields), packs)


def train_only(packs: Packs) -> Packs:
    """The training images alone, for runs that validate on none."""
    return {"train": packs["train"]}


# --- configs that depend on other runs ----------------------------------------------------------


def at_best_rate(config: Config, sweep: Sequence[Run]) -> Config:
    """The same at the rate of the run with the lowest late loss.

    Args:
        config: The run's settings.
        sweep: Finished short runs at several rates.
    """
    return replace(config, rate=min(sweep, key=late_loss).config.rate)


def late_loss(run: Run) -> float:
    """Mean loss of the last quarter of a run's steps; infinite if it diverged."""
    late = run.losses[-max(1, len(run.losses) // 4) :]
    return math.inf if run.summary["ended"] == "diverged" else sum(late) / len(late)


def from_weights(config: Config, needed: Sequence[Run]) -> Config:
    """The same, from the weights of a finished run in all layers but the last.

    Args:
        config: The run's settings.
        needed: The run to begin with, alone.
    """
    return replace(config, start=starting_point(needed[0].folder))


# --- what curves tell ---------------------------------------------------------------------------


def first_below(values: Sequence[float], window: int, level: float) -> int | None:
    """The first step, from 1, at which the mean of the last `window` values is at `level` or below;
    None: never.

    Args:
        values: One for each step.
        window: Steps of a mean.
        level: What the mean must reach.
    """
    total = 0.0
    for step, value in enumerate(values, 1):
        total += value - (values[step - 1 - window] if step > window else 0.0)
        if step >= window and total / window <= level:
            return step
    return None
