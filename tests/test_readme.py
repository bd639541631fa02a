"""The README's tables hold what the results files hold: each row is made again from the archive."""

import re
from pathlib import Path

import pytest

from alexnet import claims, experiments
from alexnet.claims import reports
from alexnet.presets import get, shapes, total
from benchmarks import step
from benchmarks.contestants import PEER
from kernel_benchmarks import chart, record

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def findings() -> list[str]:
    """The first table: what a stranger asks."""
    table = shapes(get("paper"))
    sizes = [f"{total(table, what):,}" for what in ("parameters", "neurons")]
    result = experiments.archived("recipe", "tiny-imagenet-cpu")
    assert result

    def left(arm: str) -> str:
        steps = [step for step in result["metrics"]["arms"][arm]["left_at_step"].values() if step]
        runs = len(result["metrics"]["arms"][arm]["left_at_step"])
        return f"at step {min(steps):,} to {max(steps):,}, {len(steps)} of {runs} runs"

    shown = {one.claim.id: one.shown.lstrip("+") for one in claims.judge_all()}
    where, file = "`results/tiny-imagenet-cpu/recipe/`", "`benchmarks/results/step.csv`"
    rows = {
        row["implementation"]: row
        for row in step.latest("steps", False)
        if row["preset"] == "paper" and row["case"] == "full net"
    }
    ours = rows["ours"]
    fast = f"{ours['images_per_s']:,.0f} images/s, {ours['ratio']:.1f} times the same net in"
    return [
        row(
            "How large is the paper's net?",
            f"{sizes[0]} parameters and {sizes[1]} units; the paper says 60 million and 650,000",
            "exact",
        ),
        row("Does the recipe train as it is written?", f"Yes: {left('text')}", where),
        row(
            "And with the larger initial weights of its authors' program?",
            f"Sooner: {left('sigma-0.03')}",
            where,
        ),
        row(
            "What keeps it from overfitting?",
            "Crops with reflections, and dropout. Without the one, test error minus training error "
            f"grows by {shown['crops-overfitting']}; without the other, by "
            f"{shown['dropout-overfitting']}",
            "`results/caltech101-cpu/ablations/`",
        ),
        row(
            f"How fast does it train on {ours['threads']:.0f} cores?",
            f"{fast} torch's own layers ({ours['device']})",
            file,
        ),
    ]


def operators(rows: list[dict]) -> list[str]:
    """The table of one run on a CPU: how many times as long torch's own operators take."""

    def ratios(operator: str, layer: str, ours: str) -> list[str]:
        found = []
        for direction in ("forward", "both"):
            case = {"operator": operator, "layer": layer, "direction": direction}
            here = {
                row["implementation"]: row["median_ms"]
                for row in rows
                if case.items() <= row.items()
            }
            found.append(f"{here['torch'] / here[ours]:.1f}")
        return found

    def line(what: str, operator: str, layer: str, ours: str = "ours") -> str:
        forward, both = ratios(operator, layer, ours)
        return (
            f"| {what} | {forward} | {both} | `kernels/kernel_benchmarks/results/{operator}.csv` |"
        )

    first = rows[0]
    machine = (
        f"{first['device']}, {first['threads']:.0f} threads, float32, batch {first['batch']:.0f}"
    )
    what = f"times as fast as torch's operators, on a CPU ({machine})"
    return [
        row(what, "forward", "forward and backward", "file"),
        line("response normalization after conv1", "local_response_norm", "conv1"),
        line("the same without a C compiler", "local_response_norm", "conv1", "ours, composite"),
        line("pooling after conv1", "max_pool", "conv1"),
        line("bias, ReLU, normalization and pooling after conv1", "response_norm_pool", "conv1"),
        line("the source's third normalization, after conv2", "same_map_norm", "conv2"),
    ]


def test_the_operators_table_is_one_machines_run() -> None:
    """Rows of other machines and later commits may come; those in the README stay archived."""
    files = [record.ARCHIVE / f"{name}.csv" for name in chart.SHORT]
    rows = [row for path in files for row in record.read(path) if not row["cuda"] and row["batch"]]
    runs: dict[tuple, list[dict]] = {}
    for row in rows:
        runs.setdefault((row["device"], row["source"]), []).append(row)
    tables = []
    for run in runs.values():
        try:
            tables.append(operators(run))
        except KeyError:  # one operator, or one implementation, measured by itself
            continue
    assert any(all(line in README for line in table) for table in tables), tables


def steps() -> list[str]:
    """A training step on the CPU that was measured last."""
    latest = [row for row in step.latest("steps", False) if row["preset"] == "paper"]
    if not latest:
        return [row("a training step on a CPU", "not yet measured", "not yet measured", "")]
    # the cases in which everyone took part
    places = {
        row["case"]: (row["batch"], row["threads"])
        for row in latest
        if row["implementation"] == "ours, no compiler"
    }
    rows = {
        (row["case"], row["implementation"]): row
        for row in latest
        if (row["batch"], row["threads"]) == places.get(row["case"])
    }
    first, where = next(iter(rows.values())), "`benchmarks/results/step.csv`"

    def line(what: str, case: str, name: str) -> str:
        rate, ratio = (rows[case, name][column] for column in ("images_per_s", "ratio"))
        return row(what, f"{rate:,.0f}", f"{ratio or 1:.2f}", where)

    full, small = "full net", "default profile"
    batches = [f"{rows[case, 'ours']['batch']:.0f}" for case in (full, small)]
    machine = f"{first['device']}, {first['threads']:.0f} threads, float32"
    return [
        row(f"a training step on a CPU ({machine})", "images/s", "times torch's layers", "file"),
        line(f"the paper's net, batch {batches[0]}", full, "ours"),
        line("the same without a C compiler", full, "ours, no compiler"),
        line("the same net in torch's own layers", full, PEER),
        line("torchvision's AlexNet: lighter, and without normalization", full, "torchvision"),
        line(f"the default profile's net, batch {batches[1]}", small, "ours"),
        line("the same without a C compiler", small, "ours, no compiler"),
        line("the same net in torch's own layers", small, PEER),
    ]


@pytest.mark.parametrize(
    "rows",
    [findings, steps],
    ids=lambda rows: rows.__name__,
)
def test_the_table_is_what_the_archive_holds(rows) -> None:
    for one in rows():
        assert one in README


def test_the_scoreboards_and_the_claims_that_experiments_judge_are_the_archives() -> None:
    judgements = claims.judge_all()
    assert f"**{reports.line(judgements)}**" in README
    assert reports.readme(judgements) in README, reports.readme(judgements)


def test_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]{20,}\]\(([^)]+)\)", README)
    assert pictures and all(
        (Path(__file__).resolve().parents[1] / picture).is_file() for picture in pictures
    )
