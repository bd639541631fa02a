"""The net on more than one device (section 3.2 of the paper): what crosses, counted in real
messages, beside what the table of layers says; and what a step costs in each layout of ranks.

    alexnet reproduce --only devices --seeds 5

The ranks are processes that `torchrun` starts; each measures with the trainer's own parts, and rank
0 writes down what all of them measured.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import islice
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from alexnet import presets, rng
from alexnet.data.augment import Augment
from alexnet.data.loader import batches
from alexnet.data.pack import open_splits
from alexnet.errors import InputError
from alexnet.exchange import Across
from alexnet.experiments.jobs import Run
from alexnet.experiments.protocol import Entry, Metrics, Profile, Record, Result, Table
from alexnet.experiments.showing import Figure, subplots
from alexnet.network import AlexNet
from alexnet.results import ROOT
from alexnet.training.learner import Learner
from alexnet.training.ranks import Ranks, join

NAME = "devices"
VERSION = 1
TIMES = ("step", "exchange")


@dataclass(frozen=True)
class Layout:
    """rows of ranks that share a batch, columns of ranks that share a net; overlap: gradients are
    summed while the backward pass runs."""

    rows: int
    columns: int
    overlap: bool = True
    preset: str = "paper"


LAYOUTS = {
    "one process": Layout(1, 1),
    "two columns": Layout(1, 2),
    "two rows": Layout(2, 1),
    "two rows, sums afterwards": Layout(2, 1, overlap=False),
    "two rows of two columns": Layout(2, 2),
    # which the paper compares with
    "one-column net, one process": Layout(1, 1, preset="paper/one-column"),
}


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    """One, of all layouts: they are timed in turns."""
    own = {name: value for name, value in profile[NAME].items() if name != "pictographs"}
    own |= {"layouts": {name: asdict(layout) for name, layout in LAYOUTS.items()}}
    return [Entry("layouts", None, profile.splits(NAME), (), own, tuple(seeds))]


def measure(entry: Entry, runs: list[Run]) -> Metrics:
    """All layouts on the full net, one after the other; a round for each seed, so that whatever
    else a machine does meets all alike."""
    pack = entry.packs["train"].path
    own = {name: value for name, value in entry.settings.items() if name != "layouts"}
    turns = tqdm(
        [(seed, name) for seed in entry.rounds for name in LAYOUTS], unit="layout", disable=None
    )
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in LAYOUTS}
    for seed, name in turns:
        rounds[name].append(launch(LAYOUTS[name], pack, seed=seed, **own))
    return {
        "layouts": {name: _together(name, of) for name, of in rounds.items()},
        "batch_size": own["batch_size"],
    }


def _together(name: str, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """A layout's rounds: medians of its times, and what it sent, which is always the same."""
    times = {what: [t for one in rounds for t in one.pop(f"{what}_times")] for what in TIMES}
    if any(one != rounds[0] for one in rounds):
        raise RuntimeError(f"the rounds of {name} did not send the same: {rounds}")
    medians = {f"{what}_seconds": round(median(seconds), 4) for what, seconds in times.items()}
    return rounds[0] | medians | {"steps": len(times["step"])}


def collect(records: list[Record]) -> Metrics:
    return records[0]["metrics"]


def table(result: Result) -> Table:
    """What a step takes in each layout."""
    layouts, rows = result["metrics"]["layouts"], []
    one = layouts["one process"]["step_seconds"]
    for name, layout in layouts.items():
        ranks, seconds = prod(layout["ranks"]), layout["step_seconds"]
        rows.append([name, str(ranks), f"{seconds:.2f}", f"{one / seconds:.2f}"])
    return Table(["layout", "ranks", "seconds a step", "times as fast"], rows)


def plot(result: Result) -> Figure:
    """Seconds a step in each layout."""
    layouts = result["metrics"]["layouts"]
    figure, axes = subplots(6, 0.3 * len(layouts) + 0.6)
    axes.barh(list(layouts), [layout["step_seconds"] for layout in layouts.values()], 0.6)
    axes.invert_yaxis()
    axes.set_xlabel("seconds a step")
    return figure


def expected_traffic(
    rows: int, columns: int, batch: int, preset: str = "paper", **sizes: Any
) -> dict[str, float]:
    """What one rank of a layout hands to others in a step, in elements of tensors, by the table of
    layers alone.

    "forward", "backward": maps, units and logits that go to the rank with the other column;
    "gradients": what it adds up with the same column's other copies. "macs": its
    multiply-accumulates in a step, three times the forward pass's (conv1 has no gradient with
    respect to the image, which this leaves out).

    Args:
        rows: Copies of the net, each on a part of the batch.
        columns: Ranks that a copy is spread over.
        batch: Images of a step.
        preset: The net.
        sizes: Further arguments of `shapes`.
    """
    table = presets.shapes(presets.get(preset), **sizes)
    crossing, images = presets.crossings(table), batch / rows
    logits, apart = crossing.get(table[-1].layer.name, 0), columns > 1
    last_bias = table[-1].biases  # column 0 keeps it: the larger column counts
    parameters = (presets.total(table, "parameters") - last_bias) / columns + last_bias
    return {
        "forward": images * sum(crossing.values()) * apart,
        "backward": images * (sum(crossing.values()) - logits) * apart,
        "gradients": parameters * (rows > 1),
        "macs": 3 * images * presets.total(table, "macs") / columns,
    }


def launch(layout: Layout, pack: Path, **settings: Any) -> dict[str, Any]:
    """Measure one layout in ranks of its own.

    Args:
        layout: Ranks, columns, and the net.
        pack: The folder of a pack.
        settings: Further arguments of `measure_ranks`.

    Returns:
        What `measure_ranks` returns on rank 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        device, count = "cuda" if torch.cuda.is_available() else "cpu", layout.rows * layout.columns
        options = asdict(layout) | {"pack": str(pack), "device": device} | settings
        out = Path(folder) / "measured.json"
        # as torchrun has it for several
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        if count == 1:  # which needs nobody to start it, and torchrun takes seconds
            start, environment = (
                [],
                environment | {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},
            )
        command = [
            sys.executable,
            *start,
            "-m",
            "alexnet.experiments.devices",
            json.dumps(options),
            str(out),
        ]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the ranks of {layout} failed: {done.stderr[-2000:]}")
        return json.loads(out.read_text())


def measure_ranks(
    ranks: Ranks,
    pack: Path,
    batch_size: int,
    steps: int,
    overlap: bool = True,
    preset: str = "paper",
    width: float = 1.0,
    image_size: int = 224,
    classes: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """In each rank: `steps` steps after a first one that is not timed. Elements are of one image
    (messages) or one step (gradients).

    Args:
        ranks: The processes that share the work.
        pack: The folder of a pack.
        batch_size: Images of a step, of all ranks.
        steps: That are timed, 0 or more.
        overlap: Whether gradients travel while others are computed.
        preset: The net.
        width: The factor of its maps and units.
        image_size: The side of its input, in pixels.
        classes: Of its last layer.
        seed: Of weights and draws.
    """
    train, recipe = open_splits(pack)["train"], presets.get(preset).recipe
    torch.manual_seed(seed)
    net = AlexNet(preset, classes, width, image_size, exchange=ranks.exchange)
    learner = Learner(net, recipe, ranks, overlap=overlap)
    augment = Augment(recipe, train.mean, image_size, train.color)
    images, times = 0, {what: list[float]() for what in TIMES}
    own = islice(batches(train, batch_size, seed, 0, 0, ranks.shard), steps + 1)
    for step, (pixels, labels, ids, positions) in enumerate(own):
        x, images = augment.train(pixels, ids, positions, 0), images + len(ids)
        ranks.meet()
        ranks.exchange.seconds()
        began = time.perf_counter()
        learner.backward(x, labels, rng.key(rng.DROPOUT, 0, step, ids), batch_size)
        learner.update([recipe.rate] * len(learner.parameters))
        ranks.meet()
        if step:
            times["step"].append(time.perf_counter() - began)
            times["exchange"].append(ranks.exchange.seconds())
    sent = sorted(ranks.exchange.sent.items()) if isinstance(ranks.exchange, Across) else []
    return {
        "ranks": [ranks.rows, ranks.world // ranks.rows],
        "sent_per_image": {f"{layer} {way}": n / images for (layer, way), n in sent},
        "gradients_per_step": learner.gradients.bytes / 4 / (steps + 1),
        **{f"{what}_times": seconds for what, seconds in times.items()},
        "threads": torch.get_num_threads(),
    }


def plot_traffic() -> Figure:
    """How the traffic of one rank grows with the ranks, in MB of float32 a step, and how little it
    computes for each number that it sends; by arithmetic."""
    figure, panels = subplots(7.2, 5.2, 2, 2, sharex=True, sharey="row")
    counts, titles = [2, 4, 8, 16, 32, 64], ("128 images in all", "128 images a rank")
    ways = [
        ("copies of the net", "C0-o", copies),
        ("convs copied, fc layers shared", "C1-s", hybrid),
    ]
    for (sent, done), title in zip(panels.T, titles, strict=True):
        batch = {n: 128 * n if title == titles[1] else 128 for n in counts}
        for label, style, traffic in ways:
            elements = {n: traffic(n, batch[n]) for n in counts}
            sent.plot(
                counts, [4e-6 * elements[n] for n in counts], style, ms=4, lw=1.2, label=label
            )
            done.plot(
                counts, [work(n, batch[n]) / elements[n] for n in counts], style, ms=4, lw=1.2
            )
        columns = expected_traffic(1, 2, batch[2])
        crossing = columns["forward"] + columns["backward"]
        sent.plot([2], [4e-6 * crossing], "C3D", label="two columns")
        done.plot([2], [columns["macs"] / crossing], "C3D")
        sent.set(title=title, xscale="log", yscale="log", xticks=counts, xticklabels=counts)
        done.set(xlabel="ranks", yscale="log")
        done.axhline(1000, color="gray", lw=0.8, ls=":")
        sent.minorticks_off()
        done.minorticks_off()
    for panel, label in zip(
        panels[:, 0], ("MB a rank sends in a step", "MACs per number sent"), strict=True
    ):
        panel.set_ylabel(label)
    panels[0, 0].legend(frameon=False, fontsize=8)
    return figure


def work(ranks: int, batch: int) -> float:
    """Multiply-accumulates of a rank in a step: all ways of sharing here share them evenly.

    Args:
        ranks: 1 or more.
        batch: Images of a step, of all ranks.
    """
    return expected_traffic(1, 1, batch)["macs"] / ranks


def copies(ranks: int, batch: int) -> float:
    """Elements that a rank sends in a step where each has the whole net: a ring's sum of all
    gradients, twice (n - 1) / n of them.

    Args:
        ranks: 1 or more.
        batch: Images of a step, of all ranks.
    """
    return (
        2 * (ranks - 1) / ranks * presets.total(presets.shapes(presets.get("paper")), "parameters")
    )


def hybrid(ranks: int, batch: int) -> float:
    """The same where only the convolutions are copied, and each rank owns a share of the units of
    every fully connected layer (Krizhevsky, 2014): gradients of the convolutions by a ring; each
    rank's images' pooled maps, units and partial sums to all others, and back.

    Args:
        ranks: 1 or more.
        batch: Images of a step, of all ranks.
    """
    table = presets.shapes(presets.get("paper"))
    convs = sum(row.parameters for row in table if row.layer.kernel)
    dense = [row for row in table if not row.layer.kernel]
    # of one image, by all units of a layer
    read = sum(row.fan_in * (row.columns if row.layer.reads == "own" else 1) for row in dense)
    # each rank's share of the images, or of the units, to all others
    gathered = read * batch * (ranks - 1) / ranks
    return 2 * (ranks - 1) / ranks * convs + 2 * gathered


def main() -> None:
    """What `launch` starts in every rank."""
    options, out = json.loads(sys.argv[1]), Path(sys.argv[2])
    rows, columns = options.pop("rows"), options.pop("columns")
    # ranks may share a GPU
    ranks = join(presets.get(options["preset"]).columns, options.pop("device"), columns)
    if (ranks.rows, ranks.world) != (rows, rows * columns):
        raise InputError(f"{ranks.world} ranks do not make {rows} x {columns}")
    measured = measure_ranks(ranks, Path(options.pop("pack")), **options)
    if ranks.is_first:
        out.write_text(json.dumps(measured))
    ranks.leave()


if __name__ == "__main__":
    main()
