"""Trains the models that experiments share: each once, resumable; as many at a time as there are GPUs or, without any, cores, one thread
each."""

import json
import multiprocessing
import signal
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from alexnet import presets, training
from alexnet.data.augment import Augment
from alexnet.data.loader import steps_per_epoch
from alexnet.data.pack import Pack, open_splits
from alexnet.network import AlexNet
from alexnet.processes import cores, follow_parent
from alexnet.profiles import Profile
from alexnet.training import Config
from alexnet.training.learner import Learner
from alexnet.training.precision import using_precision
from alexnet.training.ranks import Ranks

_steps: Any = None  # in a worker, shared with the parent: the counter of steps,
_stop: Any = None  # and the word to stop
_device = "cpu"  # a worker's own


def configure(
    profile: Profile, preset: str, *, epochs: float, splits: dict[str, Pack] | None = None, **fields
) -> Config:
    """A run's config on a profile: its width, image size and data, unless `fields` say otherwise."""
    packs = splits or profile.splits()
    used = {name: pack.digest for name, pack in packs.items() if name in ("train", "val")}
    given = {"width": 1.0} | profile.net | fields
    return Config(
        preset=preset, num_classes=len(packs["train"].classes), epochs=epochs, data=used, **given
    )


def base(profile: Profile, seed: int = 0, variant: str = "", **fields) -> Config:
    """The config of the net that a profile's experiments share, or of a variant of it, as in "/no-lrn"."""
    return configure(
        profile, profile["base"] + variant, epochs=profile["epochs"], seed=seed, **fields
    )


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
    splits = splits or profile.splits()
    return train_planned(profile, [(config, splits) for config in configs], title, starts)


Planned = tuple[Config, dict[str, Pack]]  # a net to train, and on what
Later = tuple[
    list[Planned], dict[str, Path]
]  # nets that hang on others; by their `start`, the runs they begin with


def train_planned(
    profile: Profile,
    planned: Sequence[Planned],
    title: str = "training",
    starts: Mapping[str, Path] | None = None,
) -> list[Path]:
    """The same, of nets on packs of their own."""
    folders = [folder(profile, config) for config, _ in planned]
    missing = {
        path: net
        for path, net in zip(folders, planned, strict=True)
        if not (path / "summary.json").exists()
    }
    if not missing:
        return folders
    # a long one, begun last, would leave the other devices idle at the end
    missing = dict(sorted(missing.items(), key=lambda net: _work(*net[1]), reverse=True))
    steps = sum(
        max(1, round(config.epochs * steps_per_epoch(splits["train"], config.batch_size)))
        for config, splits in missing.values()
    )
    pool, counter, stop = _workers(len(missing))
    with (
        pool,
        tqdm(
            total=steps,
            desc=f"{title}: {len(missing)} of {len(folders)} models",
            unit="step",
            disable=None,
        ) as bar,
    ):
        jobs = [
            pool.submit(
                _train_one, config, _root(splits), path, (starts or {}).get(config.start or "")
            )
            for path, (config, splits) in missing.items()
        ]
        pending = set(jobs)
        try:
            while pending:
                done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
                bar.update(counter.value - bar.n)
                for job in done:
                    job.result()
        except (
            BaseException
        ):  # Ctrl-C, or one that failed: the others leave checkpoints, the rest does not begin
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return folders


def _root(splits: dict[str, Pack]) -> Path:
    """What `open_splits` opens."""
    path = splits["train"].path
    return path if len(splits) == 1 else path.parent


def devices() -> list[str]:
    """Where models are trained: every GPU, or else every core."""
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"] * cores()


def _workers(jobs: int) -> tuple[ProcessPoolExecutor, Any, Any]:
    """A process on each device, no more than there are jobs; the counter of their steps; and the event by which they stop."""
    context = multiprocessing.get_context("spawn")
    counter, stop, places = context.Value("q", 0), context.Event(), context.SimpleQueue()
    used = devices()[:jobs]
    for device in used:
        places.put(device)
    return ProcessPoolExecutor(len(used), context, _begin, (counter, stop, places)), counter, stop


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
        used = {
            name: packs[name] for name in config.data
        }  # a validation set that the config does not name is not looked at
        training.train(
            config,
            used,
            out,
            start=start,
            resume=True,
            ranks=Ranks(_device),
            progress=False,
            on_steps=_count,
        )


def summary(path: Path) -> dict[str, Any]:
    """How a run ended."""
    return json.loads((path / "summary.json").read_text())


def trained(path: Path) -> tuple[AlexNet, Augment]:
    """A finished run's net, in evaluation mode on the first device, with what its input goes through."""
    net, augment, _ = training.load_run(path)
    return net.to(devices()[0]), augment


# --- how long it will take ----------------------------------------------------------------------------------------------------------------


def forecast(profile: Profile, planned: Sequence[Planned]) -> str:
    """What training all of these will take, in words: those that are there already cost nothing. A few steps of the costliest of each kind
    of net are timed, and scaled by multiplications for its variants: between kinds, a multiplication's time differs by several times."""
    nets = {config.identity: (config, splits) for config, splits in planned}
    missing = [
        net for net in nets.values() if not (folder(profile, net[0]) / "summary.json").exists()
    ]
    if not missing:
        return f"all {len(nets)} models are there already"
    kinds: dict[tuple, list[Planned]] = {}
    for config, splits in missing:
        kinds.setdefault((config.preset.split("/")[0], config.width, config.image_size), []).append(
            (config, splits)
        )
    costliest = [max(alike, key=lambda net: _macs(net[0])) for alike in kinds.values()]
    at_once = min(len(missing), len(devices()))
    with _workers(at_once)[0] as pool:  # all at work, as later: cores share caches and memory
        jobs = [
            [pool.submit(_seconds_an_image, config, _root(splits)) for _ in range(at_once)]
            for config, splits in costliest
        ]
        rates = [
            statistics.mean(job.result() for job in same) / _macs(config)
            for same, (config, _) in zip(jobs, costliest, strict=True)
        ]
    seconds = (
        sum(
            rate * _work(*net)
            for rate, alike in zip(rates, kinds.values(), strict=True)
            for net in alike
        )
        / at_once
    )
    where = f"{len(devices())} {'GPUs' if devices()[0] != 'cpu' else 'cores'}"
    there = f", {len(nets) - len(missing)} there already" if len(missing) < len(nets) else ""
    images, models = (
        sum(config.epochs * len(splits["train"]) for config, splits in missing),
        "models" if len(missing) > 1 else "model",
    )
    return f"{len(missing)} {models} to train{there}: {images / 1e6:,.2f} million images, about {duration(seconds)} on {where}"


def duration(seconds: float) -> str:
    """In words, two units at most."""
    for unit, size, below in (("day", 86400, 3600), ("hour", 3600, 60), ("minute", 60, 1)):
        if seconds >= 2 * size:
            whole, rest = divmod(seconds, size)
            small = (
                f" {rest / below:.0f} {'hours' if below == 3600 else 'minutes'}"
                if below > 1 and rest >= below
                else ""
            )
            return f"{whole:.0f} {unit}s{small}"
    return f"{seconds:.0f} seconds"


def _work(config: Config, splits: dict[str, Pack]) -> float:
    """Multiply-accumulates, forward, that take as long as all of a run: a step is some three forward passes, validation one."""
    return (
        config.epochs
        * (len(splits["train"]) + (len(splits["val"]) / 3 if "val" in config.data else 0))
        * _macs(config)
    )


def _macs(config: Config) -> int:
    """Of one image."""
    return presets.total(
        presets.shapes(
            presets.get(config.preset), config.num_classes, config.width, config.image_size
        ),
        "macs",
    )


def _seconds_an_image(config: Config, data: Path) -> float:
    """Of training, augmentation included, in a worker."""
    pack, device = open_splits(data)["train"], torch.device(_device)
    count = min(config.batch_size, len(pack), 32 if _device == "cpu" else config.batch_size)
    ids, labels = torch.arange(count), torch.zeros(count, dtype=torch.int64)
    images, took = torch.from_numpy(pack.gather(ids.numpy())).to(device), []
    augment = Augment(config.recipe, pack.mean, config.image_size, pack.color, config.seed)
    with using_precision(config.precision, device) as dtype:
        learner = Learner(config.network(), config.recipe, Ranks(_device), dtype)
        for _ in range(10):
            began = time.perf_counter()
            learner.backward(augment.train(images, ids, ids, 0), labels, ids, count)
            learner.update([0.0] * len(learner.parameters))
            took.append(time.perf_counter() - began)
    return statistics.median(took[4:]) / count  # the first ones also gather memory
