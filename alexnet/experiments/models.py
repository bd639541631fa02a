"""Trains the models that experiments share: each once, resumable; as many at a time as there are GPUs or, without any, cores, one thread
each."""

import json
import multiprocessing
import signal
from collections.abc import Mapping, Sequence
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
_device = "cpu"  # a worker's own


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


def train_all(
    profile: Profile,
    configs: Sequence[Config],
    splits: dict[str, Pack] | None = None,
    title: str = "training",
    starts: Mapping[str, Path] | None = None,
) -> list[Path]:
    """The run folders of these configs, in their order; those not there yet are trained, one at a time on each device.

    splits: other packs than the profile's. starts: of configs that begin with the weights of a finished run, by their `start`, its folder.
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
    places = context.SimpleQueue()
    workers = min(len(missing), len(devices()))
    for device in devices()[:workers]:
        places.put(device)
    with (
        ProcessPoolExecutor(workers, context, _begin, (counter, stop, places)) as pool,
        tqdm(total=steps, desc=f"{title}: {len(missing)} of {len(folders)} models", unit="step", disable=None) as bar,
    ):
        jobs = [
            pool.submit(_train_one, config, root, path, (starts or {}).get(config.start or "")) for path, config in missing.items()
        ]
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


def devices() -> list[str]:
    """Where models are trained: every GPU, or else every core."""
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"] * cores()


def _begin(counter: Any, stop: Any, places: Any) -> None:
    global _steps, _stop, _device
    _steps, _stop, _device = counter, stop, places.get()
    follow_parent()
    if _device == "cpu":
        torch.set_num_threads(1)
    else:
        torch.cuda.set_device(_device)  # also for kernels, which run on the current one


def _count(steps: int) -> None:
    with _steps.get_lock():
        _steps.value += steps
    if _stop.is_set():
        signal.raise_signal(signal.SIGTERM)


def _train_one(config: Config, data: Path, out: Path, start: Path | None) -> None:
    if not _stop.is_set():
        packs = open_splits(data)
        used = {name: packs[name] for name in config.data}  # a validation set that the config does not name is not looked at
        trainer.train(config, used, out, start=start, resume=True, ranks=Ranks(_device), progress=False, on_steps=_count)


def summary(path: Path) -> dict[str, Any]:
    """How a run ended."""
    return json.loads((path / "summary.json").read_text())
