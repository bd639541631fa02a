"""What Figure 1's factor of six depends on (section 3.1 of the paper): how much sooner than tanh
ReLU comes down to a training error, where the four-layer net starts from other weights, sees its
pixels on another scale, or has a layer more or less. (It cannot depend on the order of pooling and
nonlinearity, but for rounding: a rising function of a maximum is the maximum of the function. One
batch shows it.)

    alexnet reproduce --only figure1_factors --seeds 5

Every net is trained at each of the profile's rates, and the best of them counts, for ReLU and for
tanh separately, as in the paper; what comes out at one rate for both is then a factor too. Nets are
narrower than Figure 1's own, and the threshold is higher, so that all of it takes minutes.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from alexnet.data.augment import Augment
from alexnet.data.loader import steps_per_epoch
from alexnet.data.pack import Pack
from alexnet.experiments.jobs import Run, Training, configure, train_only
from alexnet.experiments.protocol import Entry, by_seed, common, only
from alexnet.network import AlexNet
from alexnet.profiles import Profile
from alexnet.results import Record
from alexnet.tables import Table

NAME = "figure1_factors"
VERSION = 1
KINDS = {"ReLU": "", "tanh": "/tanh"}
NETS = {
    "as in Figure 1": "four-layer",
    "first weights: He's": "four-layer/he-init",
    "input: pixels of unit variance": "four-layer/unit-variance",
    "input and first weights: both of these": "four-layer/unit-variance/he-init",
    "depth: two convolutions": "four-layer/no-conv3",
    "depth: four convolutions": "four-layer/deeper",
}
BATCH = 128
ORDER = "order of pooling and nonlinearity"


def settings(profile: Profile) -> dict[str, Any]:
    return {name: profile[NAME][name] for name in ("threshold", "epochs")}


def entries(profile: Profile, seeds: Sequence[int]) -> list[Entry]:
    given, packs, own = profile[NAME], train_only(profile.splits(NAME)), settings(profile)
    fields = {"width": given["width"], "image_size": packs["train"].size, "batch_size": BATCH}
    fields |= {"epochs": given["epochs"], "stop_at_train_error": given["threshold"]}
    made = []
    for name, preset in NETS.items():
        for kind, variant in KINDS.items():
            for rate in given["rates"][kind]:
                for seed in seeds:
                    about = {"packs": packs, "rate": rate, "seed": seed}
                    config = configure(profile, preset + variant, **about, **fields)
                    arm, job = f"{name}, {kind}, rate {rate}", Training(config, packs)
                    made.append(Entry(arm, seed, packs, (job,), own, tuple(seeds)))
    return [*made, Entry(ORDER, None, packs, (), {"width": given["width"], "batch": BATCH})]


def measure(entry: Entry, runs: Sequence[Run]) -> dict[str, Any]:
    pack, own = entry.packs["train"], entry.settings
    if not runs:
        return {kind: order(variant, pack, own["width"]) for kind, variant in KINDS.items()}
    (run,) = runs
    errors, window = run.rows("step", "error"), steps_per_epoch(pack, BATCH)
    return {
        "images": len(pack),
        "threshold": own["threshold"],
        "budget": own["epochs"],
        "rate": run.config.rate,
        "epochs": arrival(errors, own["threshold"], window),
    }


def collect(records: Sequence[Record]) -> dict[str, Any]:
    every = [record["metrics"] for record in records if record["seed"] is not None]
    rates = {
        kind: sorted({r["metrics"]["rate"] for r in records if f", {kind}, rate " in r["arm"]})
        for kind in KINDS
    }
    epochs = {
        name: {
            kind: {
                str(rate): {
                    seed: metrics["epochs"]
                    for seed, metrics in by_seed(records, f"{name}, {kind}, rate {rate}").items()
                }
                for rate in rates[kind]
            }
            for kind in KINDS
        }
        for name in NETS
    }
    sizes = common(every, "images", "threshold", "budget")
    return {**sizes, "epochs": epochs, "order": only(records, ORDER)}


def order(variant: str, pack: Pack, width: float) -> float:
    """The largest difference of any weight's gradient, on one batch, between pooling after the
    nonlinearity and before it."""
    ids = torch.arange(min(BATCH, len(pack)))
    found = []
    for preset in (f"four-layer{variant}", f"four-layer{variant}/pool-first"):
        torch.manual_seed(0)
        net = AlexNet(preset, len(pack.classes), width, pack.size)
        (view,) = Augment(net.preset.recipe, pack.mean, pack.size).views(
            torch.from_numpy(pack.gather(ids.numpy()))
        )
        F.cross_entropy(net(view), torch.from_numpy(pack.labels[ids]).long()).backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    return float((found[0] - found[1]).abs().max())


def arrival(errors: list[float], threshold: float, window: int) -> float | None:
    """Epochs, of `window` steps, until the mean error of the last epoch's steps is at the threshold
    or below; None: not within the run."""
    total = 0.0
    for step, error in enumerate(errors, 1):
        total += error - (errors[step - 1 - window] if step > window else 0.0)
        if step >= window and total / window <= threshold + 1e-9:
            return round(step / window, 2)
    return None


def mean(by_seed: dict[str, float | None], budget: float) -> tuple[float, int]:
    """Epochs, averaged over seeds, and how many seeds did not arrive: they count as the budget, so
    that the mean is a lower bound."""
    values = list(by_seed.values())
    return float(np.mean([budget if value is None else value for value in values])), values.count(
        None
    )


def best(by_rate: dict[str, dict[str, float | None]], budget: float) -> str:
    """The rate with which a net arrives first; of several that do not, the lowest."""
    return min(
        by_rate,
        key=lambda rate: (
            mean(by_rate[rate], budget)[0],
            mean(by_rate[rate], budget)[1],
            float(rate),
        ),
    )


def factor(relu: tuple[float, int], tanh: tuple[float, int], seeds: int) -> str:
    """tanh's epochs over ReLU's, in words where a bound is all there is; a bound is rounded to the
    side on which it holds."""
    ratio = tanh[0] / relu[0]
    if relu[1] and tanh[1]:
        arrived = seeds - relu[1], seeds - tanh[1]
        return (
            "of {2} seeds {0} with ReLU, {1} with tanh".format(*arrived, seeds)
            if any(arrived)
            else "neither arrives"
        )
    if relu[1]:
        return f"less than {math.ceil(10 * ratio) / 10:.1f}"
    return f"more than {math.floor(10 * ratio) / 10:.1f}" if tanh[1] else f"{ratio:.1f}"


def rows(
    metrics: dict[str, Any],
) -> Iterable[tuple[str, str, tuple[float, int], str, tuple[float, int]]]:
    """What is different, ReLU's rate and epochs, tanh's rate and epochs: each at its best rate,
    then the first net at one rate for both."""
    budget = metrics["budget"]
    for name, kinds in metrics["epochs"].items():
        relu, tanh = (best(kinds[kind], budget) for kind in KINDS)
        yield name, relu, mean(kinds["ReLU"][relu], budget), tanh, mean(kinds["tanh"][tanh], budget)
    kinds = metrics["epochs"][next(iter(NETS))]
    for rate in (rate for rate in kinds["ReLU"] if rate in kinds["tanh"]):
        yield (
            "rate: the same for both",
            rate,
            mean(kinds["ReLU"][rate], budget),
            rate,
            mean(kinds["tanh"][rate], budget),
        )


def table(result: dict[str, Any]) -> Table:
    """One row for each thing that is different."""
    metrics = result["metrics"]
    lines = []
    first = metrics["epochs"][next(iter(NETS))]
    tried = {kind: sorted(by_rate, key=float) for kind, by_rate in first.items()}
    seeds = len(next(iter(first["ReLU"].values())))
    for name, relu_rate, relu, tanh_rate, tanh in rows(metrics):
        sides = []
        for kind, rate, (epochs, missing) in (("ReLU", relu_rate, relu), ("tanh", tanh_rate, tanh)):
            edge = "*" if rate in (tried[kind][0], tried[kind][-1]) and "rate" not in name else ""
            at = (
                "any"
                if missing and epochs == metrics["budget"] and "rate" not in name
                else rate + edge
            )
            sides += ["> " * bool(missing) + f"{epochs:.1f}", at]
        lines.append([name, *sides, factor(relu, tanh, seeds)])
    notes = [
        f">: some seeds did not arrive within {metrics['budget']} epochs, and count as if they "
        "had at their end"
    ]
    notes.append("*: the lowest rate tried, or the highest; a better one may lie beyond")
    apart = ", ".join(f"{kind} {difference:.0e}" for kind, difference in metrics["order"].items())
    notes.append(
        "order of pooling and nonlinearity: the same function; a gradient's largest difference: "
        f"{apart}"
    )
    head = [
        f"epochs to {metrics['threshold']:.0%} training error",
        "ReLU",
        "at rate",
        "tanh",
        "at rate",
        "factor (the paper: 6)",
    ]
    return Table(head, lines, notes)


def plot(result: dict[str, Any]) -> Figure:
    """Epochs to the threshold, ReLU and tanh, each at its best rate; open marks are the budget,
    which was not enough."""
    metrics = result["metrics"]
    shown = list(rows(metrics))[: len(metrics["epochs"])]
    figure, axes = plt.subplots(figsize=(6.5, 0.34 * len(shown) + 0.9), layout="constrained")
    for y, (_, _, relu, _, tanh) in enumerate(shown):
        axes.plot([relu[0], tanh[0]], [y, y], color="gray", lw=1, zorder=0)
        for kind, color, (epochs, missing) in (("ReLU", "C0", relu), ("tanh", "C3", tanh)):
            axes.plot(
                epochs,
                y,
                "o",
                color=color,
                mfc="white" if missing else color,
                label=kind if y == 0 else None,
            )
    axes.set_yticks(range(len(shown)), [name for name, *_ in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel=f"epochs to {metrics['threshold']:.0%} training error", xlim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    return figure
