"""Trains the models that experiments share: each once, several at a time, one thread each, resumable."""

import json
import multiprocessing
import signal
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from alexnet.data.loader import steps_per_epoch
from alexnet.data.pack import Pack, open_splits
from alexnet.data.parallel import cores, follow_parent
from alexnet.profiles import Profile
from alexnet.training import trainer
from alexnet.training.ranks import Ranks
from alexnet.training.trainer import Config

_steps: Any = None  # in a worker, shared with the parent: the counter of steps,
_stop: Any = None  # and the word to stop


def configure(profile: Profile, preset: str, *, epochs: float, splits: dict[str, Pack] | None = None, **fields) -> Config:
    """A run's config on a profile: its width, image size and data, unless `fields` say otherwise."""
    packs = splits or profile.splits()
    used = {name: pack.digest for name, pack in packs.items() if name in ("train", "val")}
    given = {"width": 1.0} | profile.net | fields
    return Config(preset=preset, num_classes=len(packs["train"].classes), epochs=epochs, data=used, **given)


def base(profile: Profile, seed: int = 0, variant: str = "", **fields) -> Config:
    """The config of the net that a profile's experiments share, or of a variant of it, as in "/no-lrn"."""
    return configure(profile, profile["base"] + variant, epochs=profile["epochs"], seed=seed, **fields)


change = replace  # a config with other fields


def folder(profile: Profile, config: Config) -> Path:
    return profile.runs / "models" / config.identity


def train_all(profile: Profile, configs: Sequence[Config], splits: dict[str, Pack] | None = None, title: str = "training") -> list[Path]:
    """The run folders of these configs, in their order; those not there yet are trained, as many at a time as there are cores.

    splits: other packs than the profile's.
    """
    folders = [folder(profile, config) for config in configs]
    splits = splits or profile.splits()
    root = splits["train"].path if len(splits) == 1 else splits["train"].path.parent
    missing = {path: config for path, config in zip(folders, configs, strict=True) if not (path / "summary.json").exists()}
    if not missing:
        return folders
    steps = sum(max(1, round(config.epochs * steps_per_epoch(splits["train"], config.batch_size))) for config in missing.values())
    context = multiprocessing.get_context("spawn")
    counter, stop = context.Value("q", 0), context.Event()
    cuda = torch.cuda.is_available()
    workers = 1 if cuda else min(len(missing), cores())
    with (
        ProcessPoolExecutor(workers, context, _begin, (counter, stop)) as pool,
        tqdm(total=steps, desc=f"{title}: {len(missing)} of {len(folders)} models", unit="step", disable=None) as bar,
    ):
        jobs = [pool.submit(_train_one, config, root, path, "cuda" if cuda else "cpu") for path, config in missing.items()]
        pending = set(jobs)
        try:
            while pending:
                done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
                bar.update(counter.value - bar.n)
                for job in done:
                    job.result()
        except BaseException:  # Ctrl-C, or one that failed: the others leave checkpoints, the rest does not begin
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return folders


def _begin(counter: Any, stop: Any) -> None:
    global _steps, _stop
    _steps, _stop = counter, stop
    follow_parent()
    torch.set_num_threads(1)


def _count(steps: int) -> None:
    with _steps.get_lock():
        _steps.value += steps
    if _stop.is_set():
        signal.raise_signal(signal.SIGTERM)


def _train_one(config: Config, data: Path, out: Path, device: str) -> None:
    if not _stop.is_set():
        packs = open_splits(data)
        used = {name: packs[name] for name in config.data}  # a validation set that the config does not name is not looked at
        trainer.train(config, used, out, resume=True, ranks=Ranks(device), progress=False, on_steps=_count)


def summary(path: Path) -> dict[str, Any]:
    """How a run ended."""
    return json.loads((path / "summary.json").read_text())
