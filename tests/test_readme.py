"""The README's tables hold what the results files hold: each row is made again from the archive."""

import re
from math import floor
from pathlib import Path

import pytest

from alexnet import claims, experiments
from alexnet.claims import reports
from alexnet.experiments import ablations, cifar_lrn
from alexnet.presets import get, shapes, total
from benchmarks import step
from benchmarks.contestants import PEER
from kernel_benchmarks import chart, record

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def points(values: list[float]) -> str:
    by_seed = ", ".join(f"{value:+.1f}" for value in values)
    return f"{claims.mean_interval(values)[0]:+.1f} points ({by_seed})"


def decided(values: list[float]) -> bool:
    mean, half = claims.mean_interval(values)
    return abs(mean) > half


def undecided(values: list[float]) -> str:
    return points(values) + ("" if decided(values) else ", undecided: the 95 % interval holds zero")


def arithmetic() -> list[str]:
    table = shapes(get("paper"))
    return [
        f"| parameters | 60 million | {total(table, 'parameters'):,} | exact |",
        f"| units | 650,000 | {total(table, 'neurons'):,} | exact |",
    ]


def recipe() -> list[str]:
    found = experiments.archived("recipe", "embedded")

    def left(arm: str) -> str:
        if not found:
            return "not yet run"
        measured = found["metrics"]["arms"][arm]
        runs, most = measured["left_at_step"].values(), max(measured["steps"].values())
        steps = sorted(step for step in runs if step is not None)
        if not steps:
            return f"not in {most:,} steps, {len(runs)} runs"
        when = f"at step {steps[0]}" + f" to {steps[-1]}" * (steps[-1] > steps[0])
        return (
            f"{when}, {len(runs)} runs"
            if len(steps) == len(runs)
            else f"{when}, {len(steps)} of {len(runs)} runs in {most:,} steps"
        )

    where = "`results/embedded/recipe/`" if found else ""
    return [
        row("the text's net, at a quarter of the width, begins to learn", "", left("text"), where),
        row("the same with the 2012 source's sigma in three layers", "", left("sigma-0.03"), where),
        row("the same, and inverted dropout", "", left("inverted-dropout"), where),
        row("the same, and pixels in 0..1", "", left("unit-input"), where),
    ]


def measured() -> list[str]:
    found, other = (
        experiments.archived("ablations", profile)
        for profile in ("embedded", "embedded-other-processor")
    )
    where = "`results/embedded/ablations/`" if found else ""
    rows = [
        row(
            "ten views instead of one, top-1",
            "-1.5 points",
            points(ablations.gains(found)) if found else "not yet run",
            where,
        )
    ]
    for arm, what in (
        ("no-lrn", "response normalization"),
        ("no-overlap", "overlap in pooling"),
        ("one-column", "the second column"),
    ):
        here = undecided(ablations.differences(found, arm)) if found else "not yet run"
        if (
            found
            and other
            and decided(ablations.differences(found, arm))
            and not decided(ablations.differences(other, arm))
        ):
            here += ", undecided on another processor with a longer budget"
        rows.append(
            row(
                f"without {what}, top-1, ten views",
                f"+{ablations.ARMS[arm].paper} points",
                here,
                where,
            )
        )
    return rows


FACTOR = "Figure 1: tanh's epochs to 25 % training error over ReLU's"


def figure1() -> list[str]:
    rows = []
    for profile in ("cifar10", "embedded"):
        if (result := experiments.archived("figure1", profile)) is None:
            continue
        nets, budget = result["metrics"]["nets"], result["metrics"]["budget"]
        relu, tanh = (nets[kind]["epochs_to_threshold"] for kind in ("ReLU", "tanh"))
        assert all(relu.values()), "ReLU arrives within the budget"
        ratios = [
            f"{tanh[seed] / relu[seed]:.1f}"
            if tanh[seed]
            else f"more than {floor(10 * budget / relu[seed]) / 10}"
            for seed in relu
        ]
        here = f"{', '.join(ratios)}, {result['data']['title']}"
        rows.append(row(FACTOR, "6", here, f"`results/{profile}/figure1/`"))
    return rows or [row(FACTOR, "6", "not yet run", "")]


def normalized() -> list[str]:
    what, found = (
        "a four-layer net on CIFAR-10 with response normalization, top-1, one view",
        experiments.archived("cifar_lrn", "cifar10"),
    )
    if not found:
        return [row(what, "-2 points", "not yet run", "")]
    own, plain = (cifar_lrn.errors(found, arm) for arm in ("with", "without"))
    here = undecided([100 * (own[seed] - plain[seed]) for seed in own])
    return [
        row(
            what,
            "-2 points",
            f"{here}, {found['data']['title']}",
            "`results/cifar10/cifar_lrn/`",
        )
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
    [arithmetic, recipe, measured, figure1, normalized, steps],
    ids=lambda rows: rows.__name__,
)
def test_the_table_is_what_the_archive_holds(rows) -> None:
    for one in rows():
        assert one in README


def test_the_scoreboard_is_the_archives() -> None:
    assert f"**{reports.line(claims.judge_all())}**" in README


def test_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]{20,}\]\(([^)]+)\)", README)
    assert pictures and all(
        (Path(__file__).resolve().parents[1] / picture).is_file() for picture in pictures
    )
