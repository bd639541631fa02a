"""What training in bfloat16 costs: one net, trained in float32 and in bfloat16 (with the weights
that are updated in float32), the same seeds.

    alexnet reproduce --only bf16 --profile cifar10 --seeds 3

Runs are chaotic: two that differ in the last digit are as far apart after an epoch as two seeds.
So the means over seeds are compared, and not the runs of a seed.
"""

from alexnet.claims.statistics import welch
from alexnet.data.pack import held_out
from alexnet.experiments import recipe
from alexnet.experiments.jobs import Run, training_job
from alexnet.experiments.protocol import (
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
from alexnet.experiments.showing import Figure, chance_line, curves, subplots, with_half
from alexnet.training import log

NAME = "bf16"
VERSION = 1
ARMS = {"fp32": "float32", "bf16": "bfloat16"}  # by the precision
KINDS = ("error", "ten_views", "left_at_step", "seconds", "loss")


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    given, packs = profile[NAME], profile.splits()
    fields = {name: given[name] for name in ("preset", "epochs", "image_size", "rate")}
    own = {"window": recipe.WINDOW, "drop": recipe.DROP}
    return [
        Entry(arm, seed, packs, (job,), own)
        for seed in seeds
        for arm in ARMS
        for job in [training_job(profile, packs=packs, seed=seed, precision=arm, **fields)]
    ]


def measure(entry: Entry, runs: list[Run]) -> Metrics:
    (run,), split = runs, held_out(entry.packs, "what bfloat16 costs")
    errors, losses = run.errors(entry.packs[split]), run.losses
    classes = len(entry.packs[split].classes)
    return {
        "images": len(entry.packs[split]),
        "train_images": len(entry.packs["train"]),
        "classes": classes,
        "epochs": run.config.epochs,
        "preset": run.config.preset,
        "error": round(errors["1"].top1, 5),
        "ten_views": round(errors["10"].top1, 5),
        "left_at_step": recipe.left_at(losses, classes),
        "loss": [round(mean, 4) for mean in log.means(losses, recipe.WINDOW)],
        "seconds": run.summary["seconds"],
    }


def collect(records: list[Record]) -> Metrics:
    nested = by_arm(records, ARMS)
    sizes = common(each(nested), "images", "train_images", "classes", "epochs", "preset")
    return sizes | {"arms": {arm: by_kind(by_seed, KINDS) for arm, by_seed in nested.items()}}


def table(result: Result) -> Table:
    """Errors and the step at which the plateau is left, means over seeds, and the difference with
    its 95 % interval, of independent runs."""
    metrics, rows = result["metrics"], []
    errors = {a: [100 * e for e in kinds["error"].values()] for a, kinds in metrics["arms"].items()}
    for arm, kinds in metrics["arms"].items():
        ten = [100 * error for error in kinds["ten_views"].values()]
        steps = [step for step in kinds["left_at_step"].values() if step is not None]
        left = with_half(steps, ".0f") if steps else "never"
        row = [ARMS[arm], f"{with_half(errors[arm], '.2f')} %", f"{with_half(ten, '.2f')} %", left]
        rows.append([*row, str(len(errors[arm]))])
    notes = [f"{metrics['preset']}, {metrics['epochs']:g} epochs"]
    if len(errors) == len(ARMS) and min(map(len, errors.values())) > 1:
        apart = welch(errors["bf16"], errors["fp32"])
        low, high = apart.interval
        notes.append(
            f"bfloat16 minus float32, one view: {apart.value:+.2f} points, "
            f"95 % interval {low:+.2f} to {high:+.2f}"
        )
    head = ["trained in", "test error", "ten views", "plateau left at step", "seeds"]
    return Table(head, rows, notes)


def plot(result: Result) -> Figure:
    """Training loss by step; thin lines are further seeds."""
    metrics = result["metrics"]
    figure, axes = subplots(5.5, 3)
    for color, (arm, kinds) in enumerate(metrics["arms"].items()):
        look = {"color": f"C{color}", "lw": 1.4}
        curves(axes, kinds["loss"], recipe.WINDOW, ARMS[arm], {"lw": 0.7}, **look)
    chance_line(axes, metrics["classes"])
    axes.set(xlabel="step", ylabel="training loss, nats")
    axes.legend(frameon=False)
    return figure
