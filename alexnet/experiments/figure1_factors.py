"""What Figure 1's factor of six depends on (section 3.1 of the paper): how much sooner than tanh
ReLU comes down to a training error, where the four-layer net starts from other weights, sees its
pixels on another scale, or has a layer more or less. (It cannot depend on the order of pooling and
nonlinearity, except for rounding: an increasing function of a maximum is the maximum of the
function. One batch shows it.)

    alexnet reproduce --only figure1_factors --seeds 5

Every net is trained at each of the profile's rates, and the best of them counts, for ReLU and for
tanh separately, as in the paper; what comes out at one rate for both is then a factor too. Nets are
narrower than Figure 1's own, and the threshold is higher, so that all of it takes minutes.
"""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from alexnet.data.augment import Augment
from alexnet.data.loader import steps_per_epoch
from alexnet.data.pack import Pack
from alexnet.experiments.jobs import Run, first_below, train_only, training_job
from alexnet.experiments.protocol import (
    Entry,
    Metrics,
    Profile,
    Record,
    Result,
    Table,
    by_kind,
    by_seed,
    common,
    only,
)
from alexnet.experiments.showing import Figure, subplots
from alexnet.network import AlexNet

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
Arrival = tuple[float, int]  # epochs, averaged over seeds, and how many seeds did not arrive
Row = tuple[str, dict[str, tuple[str, Arrival]]]  # what is different; of each kind rate and epochs


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    given, packs = profile[NAME], train_only(profile.splits(NAME))
    own = {name: given[name] for name in ("threshold", "epochs")}
    fields = {"width": given["width"], "image_size": packs["train"].size, "batch_size": BATCH}
    fields |= {"epochs": given["epochs"], "stop_at_train_error": given["threshold"]}
    made = []
    for (name, preset), (kind, variant) in product(NETS.items(), KINDS.items()):
        for rate, seed in product(given["rates"][kind], seeds):
            job = training_job(profile, preset + variant, packs, rate=rate, seed=seed, **fields)
            made.append(Entry(f"{name}, {kind}, rate {rate}", seed, packs, (job,), own))
    return [*made, Entry(ORDER, None, packs, (), {"width": given["width"], "batch": BATCH})]


def measure(entry: Entry, runs: list[Run]) -> Metrics:
    pack, own = entry.packs["train"], entry.settings
    if not runs:
        return {kind: order(variant, pack, own["width"]) for kind, variant in KINDS.items()}
    errors, window = runs[0].rows("step", "error"), steps_per_epoch(pack, BATCH)
    return {
        "images": len(pack),
        "threshold": own["threshold"],
        "budget": own["epochs"],
        "rate": runs[0].config.rate,
        "epochs": arrival(errors, own["threshold"], window),
    }


def collect(records: list[Record]) -> Metrics:
    nets = [record for record in records if record["seed"] is not None]
    rates = {
        kind: sorted({r["metrics"]["rate"] for r in nets if f", {kind}, rate " in r["arm"]})
        for kind in KINDS
    }

    def epochs(arm: str) -> dict[str, float | None]:
        return by_kind(by_seed(nets, arm), ["epochs"])["epochs"]

    by_net = {
        name: {
            kind: {str(rate): epochs(f"{name}, {kind}, rate {rate}") for rate in rates[kind]}
            for kind in KINDS
        }
        for name in NETS
    }
    sizes = common([net["metrics"] for net in nets], "images", "threshold", "budget")
    return {**sizes, "epochs": by_net, "order": only(records, ORDER)}


def order(variant: str, pack: Pack, width: float) -> float:
    """The largest difference of any weight's gradient, on one batch, between pooling after the
    nonlinearity and before it.

    Args:
        variant: Of the preset.
        pack: Images for the batch.
        width: The factor of maps and units.
    """
    ids = torch.arange(min(BATCH, len(pack)))
    pixels, labels = torch.from_numpy(pack.gather(ids.numpy())), torch.from_numpy(pack.labels[ids])
    gradients = []
    for preset in (f"four-layer{variant}", f"four-layer{variant}/pool-first"):
        torch.manual_seed(0)
        net = AlexNet(preset, len(pack.classes), width, pack.size)
        (view,) = Augment(net.preset.recipe, pack.mean, pack.size).views(pixels)
        F.cross_entropy(net(view), labels.long()).backward()
        own = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
        gradients.append(torch.cat(own))
    return float((gradients[0] - gradients[1]).abs().max())


def arrival(errors: list[float], threshold: float, window: int) -> float | None:
    """Epochs, of `window` steps, until the mean error of the last epoch's steps is at the threshold
    or below; None: not within the run.

    Args:
        errors: One for each step, 0..1.
        threshold: 0..1.
        window: Steps of an epoch.
    """
    step = first_below(errors, window, threshold + 1e-9)
    return None if step is None else round(step / window, 2)


def mean(by_seed: dict[str, float | None], budget: float) -> Arrival:
    """Seeds that did not arrive count as the budget, so that the mean is a lower bound.

    Args:
        by_seed: Epochs until the threshold; None: not within the budget.
        budget: In epochs.
    """
    values = list(by_seed.values())
    epochs = [budget if value is None else value for value in values]
    return float(np.mean(epochs)), values.count(None)


def best(by_rate: dict[str, dict[str, float | None]], budget: float) -> str:
    """The rate with which a net arrives first; of several that do not, the lowest.

    Args:
        by_rate: Epochs by rate and by seed; None: not within the budget.
        budget: In epochs.
    """
    return min(by_rate, key=lambda rate: (*mean(by_rate[rate], budget), float(rate)))


def factor(relu: Arrival, tanh: Arrival, seeds: int) -> str:
    """tanh's epochs over ReLU's, in words where a bound is all there is; a bound is rounded to the
    side on which it holds.

    Args:
        relu: Mean epochs, or a bound of them.
        tanh: The same.
        seeds: Of either mean.
    """
    ratio, late = tanh[0] / relu[0], (relu[1], tanh[1])
    if late == (seeds, seeds):
        return "neither arrives"
    if all(late):
        return f"of {seeds} seeds {seeds - late[0]} with ReLU, {seeds - late[1]} with tanh"
    if late[0]:
        return f"less than {math.ceil(10 * ratio) / 10:.1f}"
    return f"more than {math.floor(10 * ratio) / 10:.1f}" if late[1] else f"{ratio:.1f}"


def rows(metrics: Metrics) -> Iterator[Row]:
    """Each net, with both kinds at their best rates; then the first net at one rate for both."""
    budget = metrics["budget"]

    def at(kinds: dict[str, Any], rate: str = "") -> dict[str, tuple[str, Arrival]]:
        rates = {kind: rate or best(kinds[kind], budget) for kind in KINDS}
        return {kind: (rates[kind], mean(kinds[kind][rates[kind]], budget)) for kind in KINDS}

    yield from ((name, at(kinds)) for name, kinds in metrics["epochs"].items())
    kinds = metrics["epochs"][next(iter(NETS))]
    for rate in (rate for rate in kinds["ReLU"] if rate in kinds["tanh"]):
        yield "rate: the same for both", at(kinds, rate)


def table(result: Result) -> Table:
    """One row for each thing that is different."""
    metrics, lines = result["metrics"], []
    first = metrics["epochs"][next(iter(NETS))]
    tried = {kind: sorted(by_rate, key=float) for kind, by_rate in first.items()}
    seeds = len(next(iter(first["ReLU"].values())))
    for name, kinds in rows(metrics):
        cells = []
        for kind, (rate, (epochs, late)) in kinds.items():
            chosen = not name.startswith("rate")
            edge = "*" if chosen and rate in (tried[kind][0], tried[kind][-1]) else ""
            never = chosen and late and epochs == metrics["budget"]
            cells += ["> " * bool(late) + f"{epochs:.1f}", "any" if never else rate + edge]
        lines.append([name, *cells, factor(kinds["ReLU"][1], kinds["tanh"][1], seeds)])
    apart = ", ".join(f"{kind} {difference:.0e}" for kind, difference in metrics["order"].items())
    notes = [
        f">: some seeds did not arrive within {metrics['budget']} epochs, and count as if they had "
        "at their end",
        "*: the lowest rate tried, or the highest; a better one may lie beyond",
        f"{ORDER}: the same function; a gradient's largest difference: {apart}",
    ]
    head = [f"epochs to {metrics['threshold']:.0%} training error", "ReLU", "at rate"]
    return Table([*head, "tanh", "at rate", "factor (the paper: 6)"], lines, notes)


def plot(result: Result) -> Figure:
    """Epochs to the threshold, ReLU and tanh, each at its best rate; open marks are the budget,
    which was not enough."""
    metrics = result["metrics"]
    shown = list(rows(metrics))[: len(metrics["epochs"])]
    figure, axes = subplots(6.5, 0.34 * len(shown) + 0.9)
    for y, (_, kinds) in enumerate(shown):
        arrivals = [arrival for _, arrival in kinds.values()]
        axes.plot([epochs for epochs, _ in arrivals], [y, y], color="gray", lw=1, zorder=0)
        for kind, color, (epochs, late) in zip(KINDS, ("C0", "C3"), arrivals, strict=True):
            look = {"color": color, "mfc": "white" if late else color}
            axes.plot(epochs, y, "o", label=None if y else kind, **look)
    axes.set_yticks(range(len(shown)), [name for name, *_ in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel=f"epochs to {metrics['threshold']:.0%} training error", xlim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    return figure
