"""What augmentation costs (section 4.1 of the paper, where it is computationally free: a CPU made
the next batch while the GPU trained).

    alexnet reproduce --only throughput

Training steps of the profile's net are timed twice, in turns: on one batch that stays, and on
batches as the trainer has them, gathered ahead by threads and then cropped, reflected and shifted
in color on the device that trains. On a CPU nobody else is there to do that.
"""

import time
from dataclasses import fields
from itertools import islice, repeat
from statistics import median

import torch
from tqdm import tqdm

from alexnet import rng
from alexnet.data.augment import Augment
from alexnet.data.loader import Loader
from alexnet.experiments.jobs import Run, base, devices
from alexnet.experiments.protocol import Entry, Metrics, Profile, Record, Result, Table
from alexnet.experiments.showing import Figure, subplots
from alexnet.training import Config
from alexnet.training.learner import Learner
from alexnet.training.precision import PRECISIONS, using_precision
from alexnet.training.ranks import Ranks

NAME = "throughput"
VERSION = 1
KINDS = ("same batch", "augmented")


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    own, config = profile[NAME], base(profile)
    # without defaults, so that a field added later leaves the key what it is
    given = {f.name: getattr(config, f.name) for f in fields(config)}
    given = {f.name: given[f.name] for f in fields(config) if given[f.name] != f.default}
    return [Entry("steps", None, profile.splits(), (), own | {"config": given})]


def measure(entry: Entry, runs: list[Run]) -> Metrics:
    """Rounds of so many steps, after a first one that is not kept."""
    own, pack = entry.settings, entry.packs["train"]
    config, device = Config(**own["config"]), torch.device(devices()[0])
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with using_precision(config.precision, device):
        precision = PRECISIONS[config.precision]
        learner = Learner(config.network(), config.recipe, Ranks(device), precision)
        augment = Augment(config.recipe, pack.mean, config.image_size, pack.color)
        loader = Loader(pack, config.batch_size, config.seed, device)
        first = next(iter(loader.epoch(0)))
        fixed = augment.train(first[0], *first[2:], 0)

        def steps(kind: str, number: int) -> int:
            """Images of so many steps."""
            images, augmented = 0, kind == "augmented"
            batches = loader.epoch(number) if augmented else repeat(first)
            for pixels, labels, ids, positions in islice(batches, own["steps"]):
                x = augment.train(pixels, ids, positions, number) if augmented else fixed
                learner.backward(x, labels, rng.key(rng.DROPOUT, config.seed, 0, ids), len(ids))
                # the work of a step, and no step: nothing may diverge
                learner.update([0.0] * len(learner.parameters))
                images += len(ids)
            return images

        for number in tqdm(range(1 + own["rounds"]), desc=NAME, unit="round", disable=None):
            for kind in KINDS if number % 2 else KINDS[::-1]:
                began = time.perf_counter()
                images = steps(kind, number + 1)  # 0 is where the fixed batch is from
                if number:  # losses are read at each step, so the device has ended its work
                    rates[kind].append(images / (time.perf_counter() - began))
    return {
        "images_per_second": {kind: round(median(rate), 1) for kind, rate in rates.items()},
        "rounds": own["rounds"],
        "steps": own["steps"],
        "batch_size": config.batch_size,
        "threads": torch.get_num_threads(),
        "spread": {kind: [round(min(r), 1), round(max(r), 1)] for kind, r in rates.items()},
    }


def collect(records: list[Record]) -> Metrics:
    return records[0]["metrics"]


def table(result: Result) -> Table:
    """Images a second of both, and their ratio."""
    metrics = result["metrics"]
    rate, spread = metrics["images_per_second"], metrics["spread"]
    rows = [[kind, *(f"{n:,.0f}" for n in (rate[kind], *spread[kind]))] for kind in KINDS]
    ratio = rate["augmented"] / rate["same batch"]
    notes = [
        f"median of {metrics['rounds']} rounds of {metrics['steps']} steps",
        f"augmented over same batch: {ratio:.2f}",
    ]
    return Table(["images a second", "median", "least", "most"], rows, notes)


def plot(result: Result) -> Figure:
    """Two bars; lines from the slowest round to the fastest."""
    metrics = result["metrics"]
    rate, spread = metrics["images_per_second"], metrics["spread"]
    figure, axes = subplots(5, 1.4)
    for place, kind in enumerate(KINDS):
        axes.barh(place, rate[kind], color="#8fb3d9")
        axes.plot(spread[kind], [place, place], color="#1f5a96", lw=1.5)
    axes.set_yticks(range(len(KINDS)), KINDS)
    axes.invert_yaxis()
    axes.set_xlabel("images a second")
    return figure
