"""What augmentation costs (section 4.1 of the paper, where it is computationally free: a CPU made the next batch while the GPU trained).

Training steps of the profile's net are timed twice, in turns: on one batch that stays, and on batches as the trainer has them, gathered
ahead by threads and then cropped, reflected and shifted in color on the device that trains. On a CPU nobody else is there to do that.
"""

import time
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from alexnet import rng
from alexnet.data.augment import Augment
from alexnet.data.loader import Batch, Loader
from alexnet.experiments import models
from alexnet.profiles import Profile
from alexnet.training.learner import Learner
from alexnet.training.precision import PRECISIONS, using_precision
from alexnet.training.ranks import Ranks

KINDS = ("same batch", "augmented")


def config(profile: Profile) -> dict[str, Any]:
    settings = profile["throughput"]
    return {
        "throughput": settings,
        "base": profile["base"],
        "net": profile.net,
        "data": profile.splits()["train"].digest,
    }


def run(profile: Profile, seeds: list[int]) -> dict[str, Any]:
    """A few rounds for each seed, of so many steps each, after a first one that is not kept."""
    settings, pack, rates = (
        profile["throughput"],
        profile.splits()["train"],
        dict[str, list[float]](),
    )
    config = models.base(profile, seeds[0])
    device = torch.device(models.devices()[0])
    with using_precision(config.precision, device):
        learner = Learner(
            config.network(), config.recipe, Ranks(device), PRECISIONS[config.precision]
        )
        augment = Augment(config.recipe, pack.mean, config.image_size, pack.color)
        loader = Loader(pack, config.batch_size, config.seed, device)
        first = next(iter(loader.epoch(0)))
        fixed = augment.train(first[0], *first[2:], 0)

        def train(batch: Batch, x: torch.Tensor) -> int:
            _, labels, ids, _ = batch
            learner.backward(x, labels, rng.key(rng.DROPOUT, config.seed, 0, ids), len(ids))
            learner.update(
                [0.0] * len(learner.parameters)
            )  # the work of a step, and no step: nothing may diverge
            return len(ids)

        def same() -> int:
            return sum(train(first, fixed) for _ in range(settings["steps"]))

        def augmented(number: int) -> int:
            done = 0
            for _, batch in zip(range(settings["steps"]), loader.epoch(number), strict=False):
                images, _, ids, positions = batch
                done += train(batch, augment.train(images, ids, positions, number))
            return done

        for number in tqdm(
            range(1 + settings["rounds"] * len(seeds)),
            desc="throughput",
            unit="round",
            disable=None,
        ):
            for kind in KINDS if number % 2 else KINDS[::-1]:
                began = time.perf_counter()
                images = (
                    same() if kind == "same batch" else augmented(number + 1)
                )  # 0 is where the fixed batch is from
                if number:  # losses are read at each step, so the device has ended what it was told
                    rates.setdefault(kind, []).append(images / (time.perf_counter() - began))
    return {
        "images_per_second": {kind: round(median(found), 1) for kind, found in rates.items()},
        "rounds": len(rates[KINDS[0]]),
        "steps": settings["steps"],
        "batch_size": config.batch_size,
        "threads": torch.get_num_threads(),
        "spread": {
            kind: [round(min(found), 1), round(max(found), 1)] for kind, found in rates.items()
        },
    }


def table(result: dict[str, Any]) -> str:
    """Images a second of both, and their ratio, in plain text."""
    metrics = result["metrics"]
    rate, spread = metrics["images_per_second"], metrics["spread"]
    lines = [
        f"images a second, median of {metrics['rounds']} rounds of {metrics['steps']} steps (least and most)"
    ]
    lines += [
        f"  {kind:<12}{rate[kind]:>10,.0f}  ({spread[kind][0]:,.0f} to {spread[kind][1]:,.0f})"
        for kind in KINDS
    ]
    return "\n".join(
        [*lines, f"augmented over same batch: {rate['augmented'] / rate['same batch']:.2f}"]
    )


def plot(result: dict[str, Any]) -> Figure:
    """Two bars; lines from the slowest round to the fastest."""
    metrics = result["metrics"]
    rate, spread = metrics["images_per_second"], metrics["spread"]
    figure, axes = plt.subplots(figsize=(5, 1.4), layout="constrained")
    for place, kind in enumerate(KINDS):
        axes.barh(place, rate[kind], color="#8fb3d9")
        axes.plot(spread[kind], [place, place], color="#1f5a96", lw=1.5)
    axes.set_yticks(range(len(KINDS)), KINDS)
    axes.invert_yaxis()
    axes.set_xlabel("images a second")
    return figure
