"""The net on more than one device (section 3.2 of the paper): what crosses, counted in real messages, beside what the table of layers says;
and what a step costs in each layout of ranks.

The ranks are processes that `torchrun` starts; each measures with the trainer's own parts, and rank 0 writes down what all found.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from alexnet import presets, rng
from alexnet.data.augment import Augment
from alexnet.data.loader import batches
from alexnet.data.pack import open_splits
from alexnet.errors import InputError
from alexnet.exchange import Across
from alexnet.network import AlexNet
from alexnet.profiles import Profile
from alexnet.results import ROOT
from alexnet.training.learner import Learner
from alexnet.training.ranks import Ranks, join


@dataclass(frozen=True)
class Layout:
    """rows of ranks that share a batch, columns of ranks that share a net; overlap: gradients are summed while the backward pass runs."""

    rows: int
    columns: int
    overlap: bool = True
    preset: str = "paper"

    @property
    def ranks(self) -> int:
        return self.rows * self.columns


LAYOUTS = {
    "one process": Layout(1, 1),
    "two columns": Layout(1, 2),
    "two rows": Layout(2, 1),
    "two rows, sums afterwards": Layout(2, 1, overlap=False),
    "two rows of two columns": Layout(2, 2),
    "one-column net, one process": Layout(
        1, 1, preset="paper/one-column"
    ),  # which the paper compares with
}


def config(profile: Profile) -> dict[str, Any]:
    return {"devices": profile["devices"]}


def reckon(
    rows: int, columns: int, batch: int, preset: str = "paper", **sizes: Any
) -> dict[str, float]:
    """What one rank of a layout hands to others in a step, in elements of tensors, by the table of layers alone.

    "forward", "backward": maps, units and logits that go to the rank with the other column; "gradients": what it adds up with the same
    column's other copies. "macs": its multiply-accumulates in a step, three times the forward pass's (conv1 has no gradient with respect to
    the image, which this leaves out).
    """
    table = presets.shapes(presets.get(preset), **sizes)
    crossing, images = presets.crossings(table), batch / rows
    logits = crossing.get(table[-1].layer.name, 0)
    apart = columns > 1
    last_bias = table[-1].biases  # column 0 keeps it: the larger column counts
    parameters = (presets.total(table, "parameters") - last_bias) / columns + last_bias
    return {
        "forward": images * sum(crossing.values()) * apart,
        "backward": images * (sum(crossing.values()) - logits) * apart,
        "gradients": parameters * (rows > 1),
        "macs": 3 * images * presets.total(table, "macs") / columns,
    }


def run(profile: Profile, seeds: list[int]) -> dict[str, Any]:
    """All layouts on the full net, one after the other; a round for each seed, so that whatever else a machine does meets all alike."""
    settings, pack = profile["devices"], profile.splits("devices")["train"].path
    asked = {name: value for name, value in settings.items() if name != "pictographs"}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in LAYOUTS}
    with tqdm(total=len(seeds) * len(LAYOUTS), unit="layout", disable=None) as bar:
        for seed in seeds:
            for name, layout in LAYOUTS.items():
                bar.set_description(name)
                rounds[name].append(launch(layout, pack, seed=seed, **asked))
                bar.update()
    times = ("step", "exchange")
    found = {}
    for name, (first, *others) in rounds.items():
        seconds = {
            what: [time for one in (first, *others) for time in one.pop(f"{what}_times")]
            for what in times
        }
        assert all(one == first for one in others), (
            f"the rounds of {name} did not send the same: {first}, {others}"
        )
        found[name] = (
            first
            | {f"{what}_seconds": round(median(seconds[what]), 4) for what in times}
            | {"steps": len(seconds["step"])}
        )
    return {"layouts": found, "batch_size": settings["batch_size"]}


def launch(layout: Layout, pack: Path, **settings: Any) -> dict[str, Any]:
    """Measures one layout in ranks of its own."""
    with tempfile.TemporaryDirectory() as folder:
        asked = (
            asdict(layout)
            | {"pack": str(pack), "device": "cuda" if torch.cuda.is_available() else "cpu"}
            | settings
        )
        out = Path(folder) / "found.json"
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }  # as torchrun has it for several
        start = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={layout.ranks}",
        ]
        if layout.ranks == 1:  # which needs nobody to start it, and torchrun takes seconds
            start, environment = (
                [sys.executable],
                environment | {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},
            )
        command = [*start, "-m", "alexnet.experiments.devices", json.dumps(asked), str(out)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the ranks of {layout} failed: {done.stderr[-2000:]}")
        return json.loads(out.read_text())


def measure(
    here: Ranks,
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
    """In each rank: `steps` steps after a first one that is not timed. Elements are of one image (messages) or one step (gradients)."""
    train, recipe = open_splits(pack)["train"], presets.get(preset).recipe
    torch.manual_seed(seed)
    net = AlexNet(preset, classes, width, image_size, exchange=here.exchange)
    learner = Learner(net, recipe, here, overlap=overlap)
    augment = Augment(recipe, train.mean, image_size, train.color)
    images, times = 0, {"step": list[float](), "exchange": list[float]()}
    for step, (pixels, labels, ids, positions) in enumerate(
        batches(train, batch_size, seed, 0, 0, here.shard)
    ):
        if step > steps:
            break
        x, images = augment.train(pixels, ids, positions, 0), images + len(ids)
        here.meet()
        here.exchange.seconds()
        began = time.perf_counter()
        learner.backward(x, labels, rng.key(rng.DROPOUT, 0, step, ids), batch_size)
        learner.update([recipe.rate] * len(learner.parameters))
        here.meet()
        if step:
            times["step"].append(time.perf_counter() - began)
            times["exchange"].append(here.exchange.seconds())
    sent = here.exchange.sent if isinstance(here.exchange, Across) else {}
    return {
        "ranks": [here.rows, here.world // here.rows],
        "sent_per_image": {
            f"{layer} {way}": count / images for (layer, way), count in sorted(sent.items())
        },
        "gradients_per_step": learner.gradients.bytes / 4 / (steps + 1),
        "step_times": times["step"],
        "exchange_times": times["exchange"],
        "threads": torch.get_num_threads(),
    }


def plot() -> Figure:
    """How the traffic of one rank grows with the ranks, in MB of float32 a step, and how little it computes for each number that it sends;
    by arithmetic."""
    figure, panels = plt.subplots(
        2, 2, figsize=(7.2, 5.2), layout="constrained", sharex=True, sharey="row"
    )
    counts = [2, 4, 8, 16, 32, 64]
    for (sent, done), title, grows in zip(
        panels.T, ("128 images in all", "128 images a rank"), (False, True), strict=True
    ):
        batch = {n: 128 * n if grows else 128 for n in counts}
        for label, style, traffic in (
            ("copies of the net", "C0-o", copies),
            ("convs copied, fc layers shared", "C1-s", hybrid),
        ):
            sent.plot(
                counts,
                [4e-6 * traffic(n, batch[n]) for n in counts],
                style,
                ms=4,
                lw=1.2,
                label=label,
            )
            done.plot(
                counts,
                [work(n, batch[n]) / traffic(n, batch[n]) for n in counts],
                style,
                ms=4,
                lw=1.2,
            )
        columns = reckon(1, 2, batch[2])
        crossing = columns["forward"] + columns["backward"]
        sent.plot([2], [4e-6 * crossing], "C3D", label="two columns")
        done.plot([2], [columns["macs"] / crossing], "C3D")
        sent.set(title=title, xscale="log", yscale="log", xticks=counts, xticklabels=counts)
        done.set(xlabel="ranks", yscale="log")
        done.axhline(1000, color="gray", lw=0.8, ls=":")
        for axes in (sent, done):
            axes.minorticks_off()
    panels[0, 0].set_ylabel("MB a rank sends in a step")
    panels[1, 0].set_ylabel("MACs per number sent")
    panels[0, 0].legend(frameon=False, fontsize=8)
    return figure


def work(ranks: int, batch: int) -> float:
    """Multiply-accumulates of a rank in a step: all ways of sharing here share them evenly."""
    return reckon(1, 1, batch)["macs"] / ranks


def copies(ranks: int, batch: int) -> float:
    """Elements that a rank sends in a step where each has the whole net: a ring's sum of all gradients, twice (n - 1) / n of them."""
    return (
        2 * (ranks - 1) / ranks * presets.total(presets.shapes(presets.get("paper")), "parameters")
    )


def hybrid(ranks: int, batch: int) -> float:
    """The same where only the convolutions are copied, and each rank owns a share of the units of every fully connected layer (Krizhevsky,
    2014): gradients of the convolutions by a ring; each rank's images' pooled maps, units and partial sums to all others, and back."""
    table = presets.shapes(presets.get("paper"))
    convs = sum(row.parameters for row in table if row.layer.kernel)
    dense = [row for row in table if not row.layer.kernel]
    read = sum(
        row.fan_in * (row.columns if row.layer.reads == "own" else 1) for row in dense
    )  # by all units of a layer, of one image
    gathered = (
        read * batch * (ranks - 1) / ranks
    )  # each rank's share of the images, or of the units, to all others
    return 2 * (ranks - 1) / ranks * convs + 2 * gathered


def main(arguments: list[str] | None = None) -> int:
    """What `launch` starts in every rank."""
    form = argparse.ArgumentParser(description=measure.__doc__)
    form.add_argument("asked", type=json.loads)
    form.add_argument("out", type=Path)
    args = form.parse_args(arguments)
    asked = args.asked
    rows, columns = asked.pop("rows"), asked.pop("columns")
    here = join(
        presets.get(asked["preset"]).columns, asked.pop("device"), columns
    )  # ranks may share a GPU
    if (here.rows, here.world) != (rows, rows * columns):
        raise InputError(f"{here.world} ranks do not make {rows} x {columns}")
    found = measure(here, Path(asked.pop("pack")), **asked)
    if here.is_first:
        args.out.write_text(json.dumps(found))
    here.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
