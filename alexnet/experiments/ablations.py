"""What each part of the net and of its recipe is worth: every part that the text takes away, or
praises (sections 3 to 5 and 7 of the paper), taken away alone.

    alexnet reproduce --only ablations --seeds 5

All arms have the same budget, and an arm shares its seed with the full net: initial weights as far
as the layers agree, the order of the images, crops, shifts and masks. So differences are taken seed
by seed. Ten views against one need no arm: each net is read both ways.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from alexnet.claims.statistics import mean_interval
from alexnet.data.augment import Augment
from alexnet.data.pack import Pack, held_out
from alexnet.experiments import protocol
from alexnet.experiments.jobs import Run, Training, training_job
from alexnet.experiments.protocol import (
    Arm,
    Entry,
    Metrics,
    Profile,
    Record,
    Result,
    Table,
    by_arm,
    by_kind,
    common,
    each,
)
from alexnet.experiments.showing import COLUMN, Figure, side_by_side, subplots, with_half
from alexnet.network import AlexNet
from alexnet.training import log

NAME = "ablations"
VERSION = 1
FULL = "full"
ARMS = {  # a profile runs those that it lists
    FULL: Arm("", "the full net", "3.5"),
    "source": Arm("source/plateau-rate", "the released source's net, the text's rule for the rate"),
    "no-lrn": Arm("/no-lrn", "without response normalization", "3.3", "1.4", 1.4),
    "no-overlap": Arm("/no-overlap", "pooling without overlap", "3.4", "0.4", 0.4),
    "one-column": Arm(
        "/one-column", "one column, its convolutions half as wide", "3.2", "1.7", 1.7
    ),
    "no-crops": Arm("/no-crops", "without crops and reflections", "4.1", "substantial overfitting"),
    "no-color": Arm("/no-color", "without color shifts", "4.1", "over 1", 1.0),
    "no-dropout": Arm("/no-dropout", "without dropout", "4.2", "substantial overfitting"),
    "no-decay": Arm("/no-decay", "without weight decay", "5", "higher training error"),
    "no-conv2": Arm("/no-conv2", "without conv2", "7", "about 2", 2.0),
    "no-conv3": Arm("/no-conv3", "without conv3", "7", "about 2", 2.0),
    "no-conv4": Arm("/no-conv4", "without conv4", "7", "about 2", 2.0),
    "no-conv5": Arm("/no-conv5", "without conv5", "7", "about 2", 2.0),
}
WINDOW = 50  # steps that a loss is averaged over
ENDS = ("epochs", "ended", "falls", "diverged_at")  # of a run's summary
NEAR = 0.1  # of the best validation error: so near to it, a run has converged
KINDS = ("nets", "train_error", "overfitting", "iterations", "val_error", "loss")
DEFINITIONS = {
    "train_error": "top-1 error on a fixed sample of the training images, one view, in evaluation "
    "mode: center crops, all units on",
    "overfitting": "top-1 error on the test images (validation images, where these have no "
    "labels), one view, minus the training error",
    "iterations": "steps after which the validation error is for the first time within 10 % of "
    "the run's lowest (above it by a tenth of it at most); it is measured once an epoch",
}


def arms(profile: Profile) -> list[str]:
    """Those that a profile runs."""
    return list(protocol.chosen(profile, NAME, ARMS))


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    own = {"sample": profile[NAME]["sample"], "window": WINDOW, "near": NEAR}
    packs, chosen = profile.splits(), protocol.chosen(profile, NAME, ARMS)
    return [
        Entry(name, seed, packs, (job(profile, arm, seed),), own)
        for seed in seeds
        for name, arm in chosen.items()
    ]


def job(profile: Profile, arm: Arm, seed: int) -> Training:
    """The training of an arm's net.

    Args:
        profile: What it is trained on.
        arm: A row of ARMS.
        seed: Of the run.
    """
    preset = arm.preset_on(profile["base"])
    return training_job(profile, preset, profile.splits(), epochs=profile["epochs"], seed=seed)


def measure(entry: Entry, runs: list[Run]) -> Metrics:
    (run,), train = runs, entry.packs["train"]
    reported = entry.packs[held_out(entry.packs, "the ablations")]
    sample, errors = evenly(len(train), entry.settings["sample"]), run.errors(reported)
    train_error = error_on(*run.net(), train, sample)
    validation = run.rows("epoch", "val_top1")
    views = {count: one.rounded() for count, one in errors.items()}
    return {
        "images": len(reported),
        "train_images": len(train),
        "sample": len(sample),
        "classes": len(reported.classes),
        "nets": {"views": views} | {name: run.summary[name] for name in ENDS},
        "train_error": round(train_error, 5),
        "overfitting": round(errors["1"].top1 - train_error, 5),
        "iterations": iterations(run.rows("epoch", "step"), validation),
        "val_error": [round(error, 4) for error in validation],
        "loss": [round(mean, 3) for mean in log.means(run.losses, WINDOW)],
    }


def collect(records: list[Record]) -> Metrics:
    nested = by_arm(records, ARMS)
    sizes = common(each(nested), "images", "train_images", "sample", "classes")
    kinds = {
        kind: {arm: by_kind(by_seed, KINDS)[kind] for arm, by_seed in nested.items()}
        for kind in KINDS
    }
    return {**sizes, "window": WINDOW, "definitions": DEFINITIONS, **kinds}


def evenly(count: int, most: int) -> np.ndarray:
    """The numbers of at most `most` images of `count`, evenly apart, both ends included: int64.

    Args:
        count: Images there are.
        most: Images to take.
    """
    return np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)


@torch.no_grad()
def error_on(net: AlexNet, augment: Augment, pack: Pack, ids: np.ndarray) -> float:
    """The top-1 error, 0..1, of a net in evaluation mode on the images at `ids` (n,), one view.

    Args:
        net: In evaluation mode.
        augment: Made with the training set's mean image.
        pack: The images.
        ids: Their numbers in the pack, int64 (n,).
    """
    device, wrong = next(net.parameters()).device, 0
    for part in np.array_split(ids, -(-len(ids) // 250)):
        (view,) = augment.views(torch.from_numpy(pack.gather(part)).to(device))
        wrong += int((net(view).argmax(1).cpu().numpy() != pack.labels[part]).sum())
    return wrong / len(ids)


def iterations(steps: Sequence[int], errors: list[float], near: float = NEAR) -> int | None:
    """The first of `steps` after which the validation error is at most 1 + near times its lowest;
    None: there was no epoch.

    Args:
        steps: At which each epoch ended.
        errors: Validation errors after them, 0..1.
        near: A share of the lowest error.
    """
    pairs = zip(steps, errors, strict=True)
    return next((step for step, error in pairs if error <= (1 + near) * min(errors)), None)


def differences(result: Result, arm: str, views: int = 10, what: str = "top1") -> list[float]:
    """The arm's test error minus the full net's, seed by seed, in percentage points; empty where
    the arm was not run.

    Args:
        result: Of the experiment.
        arm: A key of ARMS.
        views: 1 or 10.
        what: "top1" or "top5".
    """
    own, full = (errors(result, name, views, what) for name in (arm, FULL))
    return [100 * (own[seed] - full[seed]) for seed in full if seed in own]


def gains(result: Result, what: str = "top1") -> list[float]:
    """The full net's error from ten views minus that from one, seed by seed, in percentage
    points.

    Args:
        result: Of the experiment.
        what: "top1" or "top5".
    """
    ten, one = (errors(result, FULL, views, what) for views in (10, 1))
    return [100 * (ten[seed] - one[seed]) for seed in ten]


def errors(result: Result, arm: str, views: int = 10, what: str = "top1") -> dict[str, float]:
    """An arm's test errors by seed, shares of 1.

    Args:
        result: Of the experiment.
        arm: A key of ARMS.
        views: 1 or 10.
        what: "top1" or "top5".
    """
    nets = result["metrics"]["nets"].get(arm, {})
    return {seed: net["views"][str(views)][what] for seed, net in nets.items()}


def table(result: Result) -> Table:
    """What each arm costs in test error, beside what the paper says."""
    full = [100 * error for error in errors(result, FULL).values()]
    first = [ARMS[FULL].what, "", f"{with_half(full, '.1f')} %", side_by_side(full, ".1f")]
    rows = [first, ["differences from it, percentage points"]]
    for what, section, paper, values, _ in _differences(result):
        mean = with_half(values, "+.1f") if values else "not yet run"
        name = f"  {what} ({section})" if section else f"  {what}"
        paper = f"+{paper}" if paper[:1].isdigit() else paper
        rows.append([name, paper, mean, side_by_side(values, "+.1f")])
    head = ["top-1 error, ten views", "the paper", "mean, 95 % interval", "seed by seed"]
    return Table(head, rows)


def _differences(result: Result) -> list[tuple]:
    """What is different, its section, what the paper says that it costs, the measured differences
    in percentage points, and the paper's number."""
    return [
        *(
            (arm.what, arm.section, arm.paper, differences(result, name), arm.points)
            for name, arm in ARMS.items()
            if name != FULL
        ),
        ("ten views against one, of the full net", "4.1", "-1.5", gains(result), -1.5),
    ]


def learning(result: Result, arms: Iterable[str] = ARMS) -> Table:
    """Training error, test error from one view, overfitting and iterations to convergence, means
    over seeds.

    Args:
        result: Of the experiment.
        arms: Keys of ARMS, one a row.
    """
    metrics, rows = result["metrics"], []
    for arm in arms:
        if arm in metrics["nets"]:
            kinds = ("train_error", "overfitting", "iterations")
            train, over, steps = ([*metrics[kind][arm].values()] for kind in kinds)
            train, over = np.mean(train), np.mean(over)
            known = [step for step in steps if step is not None] or [0]
            cells = [f"{train:.1%}", f"{train + over:.1%}", f"{100 * over:+.1f}"]
            rows.append([ARMS[arm].what, *cells, f"{np.mean(known):,.0f}"])
    notes = [
        f"{name.replace('train_', 'training ')}: {what}"
        for name, what in metrics["definitions"].items()
    ]
    head = ["mean over seeds", "training error", "test error", "overfitting", "iterations"]
    return Table(head, rows, notes)


def plot(result: Result) -> Figure:
    """What each arm costs, paired over seeds: small dots are seeds, bars 95 % intervals around the
    mean, diamonds the paper's numbers."""
    rows = [row for row in _differences(result) if row[3]]
    figure, axes = subplots(7, 0.32 * len(rows) + 1)
    label: str | None = "the paper, on ImageNet"
    for y, (*_, values, points) in enumerate(rows):
        mean, half = mean_interval(values)
        bar = half if np.isfinite(half) else None
        axes.plot(values, [y] * len(values), ".", color="C0", ms=4, alpha=0.5)
        axes.errorbar(mean, y, xerr=bar, fmt="o", color="C0", ms=5, capsize=3)
        if points is not None:
            axes.plot(points, y, "D", color="C3", ms=5, mfc="none", label=label)
            label = None
    axes.axvline(0, color="gray", ls=":", lw=1)
    names = [what.removesuffix(", of the full net") for what, *_ in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("top-1 error minus the full net's, ten views, percentage points", fontsize=9)
    if label is None:
        axes.legend(frameon=False, fontsize=8)
    return figure


def plot_overfitting(result: Result, arms: Iterable[str] = ARMS) -> Figure:
    """A line for each arm, from the error on the training images (open) to that on the test images,
    one view: small dots are seeds, large ones their means.

    Args:
        result: Of the experiment.
        arms: Names; those that were not run are left out.
    """
    metrics = result["metrics"]
    rows = [arm for arm in arms if arm in metrics["nets"]]
    figure, axes = subplots(6.4, 0.4 * len(rows) + 1.1)
    gaps = {}
    for y, arm in enumerate(rows):
        train = 100 * np.array([*metrics["train_error"][arm].values()])
        test = train + 100 * np.array([*metrics["overfitting"][arm].values()])
        gaps[arm] = float(np.mean(test - train))
        axes.plot([train.mean(), test.mean()], [y, y], color="C0", lw=2, zorder=1)
        for values, color in ((train, "white"), (test, "C0")):
            axes.plot(values, [y] * len(values), ".", color="C0", ms=4, alpha=0.5, zorder=2)
            axes.plot(values.mean(), y, "o", ms=7, mfc=color, mec="C0", zorder=3)
        right = max(train.max(), test.max())
        beside = {"textcoords": "offset points", "va": "center", "fontsize": 8}
        axes.annotate(f"{gaps[arm]:+.1f}", (right, y), (10, 0), **beside)
    axes.set_yticks(range(len(rows)), [ARMS[arm].what for arm in rows], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.18, y=0.15)
    axes.set_xlim(left=max(axes.get_xlim()[0], -2))  # no error is below 0
    axes.set_xlabel("top-1 error on training images (open) and test images, %", fontsize=9)
    widest = ARMS[max(gaps, key=lambda arm: gaps[arm])].what
    axes.set_title(f"the widest gap: {widest}", fontsize=10)
    return figure


def plot_convergence(result: Result, arms: tuple[str, str]) -> Figure:
    """The validation error of two arms by epoch, means over seeds; dots are where each run has
    converged, as `DEFINITIONS` says. The title has the ratio of the mean epochs to convergence.

    Args:
        result: Of the experiment, with validation errors.
        arms: Names of the two.
    """
    figure, axes = subplots(6, 3)
    epochs = []
    for arm, color, line in zip(arms, COLUMN, ("-", "--"), strict=True):
        curves = result["metrics"]["val_error"][arm].values()
        common = range(1, min(map(len, curves)) + 1)  # a run that diverged is shorter
        mean = [100 * np.mean(errors) for errors in zip(*curves, strict=False)]
        axes.plot(common, mean, line, color=color, label=ARMS[arm].what)
        at = [iterations(range(1, len(errors) + 1), errors) or 0 for errors in curves]
        reached = [100 * errors[epoch - 1] for epoch, errors in zip(at, curves, strict=True)]
        axes.plot(at, reached, "o", color=color, ms=5, alpha=0.7)
        epochs.append(float(np.mean(at)))
    second = ARMS[arms[1]].what
    ratio = f"{epochs[0] / epochs[1]:.1f}"
    axes.set_title(f"epochs to convergence: {ratio} times those {second}", fontsize=10)
    axes.set(xlabel="epoch", ylabel="validation error, %")
    axes.legend(frameon=False, fontsize=8)
    return figure
