"""The lab notebook of 2012.

Its derivations are the paper's numbers, the runs make sense, the page shows what the file holds.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from alexnet import claims, labnotebook, presets
from alexnet.errors import InputError
from alexnet.presets import LRN, PAPER, SOURCE, SameMapNorm

PAGE = json.loads(
    (Path(__file__).resolve().parents[1] / "book" / "08-what-they-really-did.ipynb").read_text()
)["cells"]
RUNS = labnotebook.load()["runs"]


# --- the paper's numbers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "top1", "top5", "sources"),
    [
        ("ilsvrc2010", "37.47", "17.00", "layer-params-145-2010.cfg:178"),
        ("one-view", "39.02", "18.30", "layer-params-145-2010.cfg:180"),
        ("ilsvrc2012", "40.66", "18.21", "layer-params-145.cfg:182"),
        ("pretrained", "38.99", "16.62", "layer-params-146-2012-2011.cfg:195"),
        (
            "columns",
            "1.70",
            "1.23",
            "layer-params-145-half.cfg:100 minus layer-params-145-2010.cfg:178",
        ),
        ("lrn", "1.37", "1.15", "layer-params-148.cfg:148 minus layer-params-145.cfg:182"),
        ("overlap", "0.39", "0.30", "layer-params-147.cfg:174 minus layer-params-145.cfg:182"),
        (
            "communication",
            "1.16",
            "1.12",
            "layer-params-150.cfg:179 minus layer-params-145.cfg:182",
        ),
    ],
)
def test_derived_from_the_runs(name, top1, top5, sources):
    assert [f"{labnotebook.derive(name, what):.2f}" for what in labnotebook.WHAT] == [top1, top5]
    assert labnotebook.sources(name) == sources and labnotebook.is_difference(name) == (
        " minus " in sources
    )


@pytest.mark.parametrize("name", labnotebook.load()["derivations"])
def test_what_is_derived_is_what_the_paper_prints(name):
    rounded_twice = name in ("ten-views", "pre-training")  # differences of two printed numbers
    for what in labnotebook.WHAT:
        printed = labnotebook.printed(name, what)
        if printed is not None:
            assert abs(labnotebook.derive(name, what) - printed) <= (0.1 if rounded_twice else 0.05)


def test_what_was_not_noted_is_said_with_what_was():
    with pytest.raises(InputError, match="derives no 'dropout'; it derives ilsvrc2010, "):
        labnotebook.derive("dropout", "top1")
    with pytest.raises(
        InputError,
        match=r"no error of run '145' on test images from 10 view\(s\); its runs: 101-2009, ",
    ):
        labnotebook.noted("145", "test", 10)
    with pytest.raises(InputError, match="no error of run '200'"):
        labnotebook.noted("200", "val", 10)


# --- the runs --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_a_run_makes_sense(name):
    run = RUNS[name]
    assert run.keys() == {"net", "images", "file", "change", "schedule", "errors"} and run[
        "file"
    ].startswith("layers/layer-params-")
    assert run["images"] in ("ILSVRC-2010", "ILSVRC-2012", "Fall 2009")
    schedule = run["schedule"]
    epochs = schedule["falls"]
    assert epochs == sorted(epochs) and schedule.keys() <= {
        "lines",
        "start",
        "falls",
        "conv1",
        "color_off",
        "end",
    }
    last = schedule.get("end", 200)
    assert all(
        0 < epoch < last
        for epoch in [*epochs, *schedule.get("conv1", ()), schedule.get("color_off", 1)]
    )
    assert schedule.get("conv1", [0, 0]) == sorted(schedule.get("conv1", [0, 0]))
    lines = [int(n) for n in str(schedule["lines"]).split("-")]
    for one in run["errors"]:
        assert (
            one["split"] in ("val", "test", "unsaid")
            and one["views"] in (0, 1, 10)
            and one["line"] > lines[-1] >= lines[0]
        )
        assert 0 < one["top5"] < one["top1"] < 1 < one["nll"] < 4
    views = {(one["split"], one["views"]): one["top1"] for one in run["errors"]}
    assert len(views) == len(run["errors"])
    for split in ("val", "test"):
        if (split, 1) in views and (split, 10) in views:
            assert views[split, 10] < views[split, 1]  # ten views never did harm


def test_no_line_is_noted_twice():
    places = [
        labnotebook.where(name, one["line"]) for name, run in RUNS.items() for one in run["errors"]
    ]
    assert len(places) == len(set(places)) >= 35 and len(RUNS) >= 25


def test_the_preset_learns_as_its_run_did():
    schedule, recipe = RUNS["145-2010"]["schedule"], SOURCE.recipe
    assert schedule["falls"] == list(recipe.falls) and schedule["conv1"] == [
        recipe.conv1_fall,
        recipe.conv1_freeze,
    ]
    assert schedule["color_off"] == recipe.color_off and schedule["end"] == recipe.cycles


def test_axes_of_color():
    color = labnotebook.load()["color"]
    axes = np.array(color["axes"])
    assert np.allclose(axes @ axes.T, np.eye(3), atol=1e-4)  # orthonormal
    spread = np.sqrt(color["noise"] ** 2 * axes**2 @ np.square(color["deviations"]))
    assert labnotebook.color_shifts() == pytest.approx(spread) and [
        round(s, 1) for s in spread
    ] == [7.4, 7.2, 7.7]


def test_repeats_are_of_one_net():
    assert all(
        "145" in (name, RUNS[name]["change"].split(";")[0])
        for name in labnotebook.load()["repeats"]
    )
    assert (
        labnotebook.repeats("top1")[0] == pytest.approx(40.664)
        and len(labnotebook.repeats("top5")) == 5
    )


# --- paper and program -----------------------------------------------------------------------


STATEMENTS = {one["id"]: one for one in labnotebook.load()["statements"]}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_is_whole_and_its_finding_is_that_of_the_presets(name):
    one = STATEMENTS[name]
    needed = {"id", "topic", "section", "paper", "source", "refs", "finding", "matters"}
    assert needed < one.keys() and len(one.keys() - needed) == 1
    assert one["topic"] in labnotebook.TOPICS and one["finding"] in labnotebook.FINDINGS
    assert one["section"] in claims.contents()["sections"]
    for place in one["refs"].split("; "):
        assert re.match(r"[\w-]+\.(cfg|py|cu|cuh)(:\d+(-\d+)?(, \d+(-\d+)?)*)?( of |$)", place), (
            place
        )
    for path in one.get("presets", ()):
        same = labnotebook.in_preset("paper", path) == labnotebook.in_preset("source", path)
        if one["finding"] == "same":
            assert same, path
    if one["finding"] == "differs" and "presets" in one:
        values = [
            [labnotebook.in_preset(preset, path) for path in one["presets"]]
            for preset in ("paper", "source")
        ]
        assert values[0] != values[1]


def test_the_presets_differ_as_the_statements_say():
    """In numbers; that a finding is the presets' own is held above."""
    both = [(text, other) for text, other in zip(PAPER.layers, SOURCE.layers, strict=True)]
    norms = [
        [op for layer in preset.layers for op in layer.then if isinstance(op, LRN | SameMapNorm)]
        for preset in (PAPER, SOURCE)
    ]
    assert [op.alpha for op in norms[0]] == [1e-4] * 2
    assert [op.alpha for op in norms[1]] == [2e-5, 2e-5, 4e-5]
    assert [type(op).__name__ for op in SOURCE.layer("conv1").then] == ["LRN", "Pool", "Activation"]
    assert [type(op).__name__ for op in SOURCE.layer("conv5").then] == ["Pool", "Activation"]
    differ = [text.name for text, other in both if text.sigma != other.sigma]
    assert differ == ["conv3", "conv4", "conv5"]
    biases = [0, 1, 0, 1, 1, 1, 1, 0]
    assert [text.bias for text, _ in both] == [other.bias for _, other in both] == biases
    text, other = PAPER.recipe, SOURCE.recipe
    assert (text.bias_rate / text.rate, other.bias_rate / other.rate) == (1, 2)
    assert len(other.bias_falls) == 1
    assert (text.crop_chunk, other.crop_chunk) == (1, 32)
    assert (text.mean, other.mean) == ("aligned", "center")
    assert (text.color, other.color, text.color_off) == ("text", "source", None)


def test_the_statements_are_those_of_the_text_in_words():
    found = labnotebook.statements()
    assert len(found) == len(STATEMENTS) >= 30
    assert {one["topic"] for one in found} == set(labnotebook.TOPICS)
    assert {one["finding"] for one in found} == set(labnotebook.FINDINGS)
    of = {one["id"]: one for one in found}
    assert of["lrn-alpha"]["here"] == (
        "paper: LRN alpha 0.0001 in conv1, conv2. source: LRN alpha 0.00002 in conv1, conv2"
    )
    assert of["biases"]["here"] == (
        "both presets: bias 0 in conv1, conv3, fc8; bias 1 in conv2, conv4, conv5, fc6, fc7"
    )
    assert of["relu"]["here"].endswith("source: Pool, ReLU after conv5")
    assert "{" not in "".join(one["matters"] for one in found)
    assert f"{labnotebook.derive('lrn', 'top1'):.1f} points" in of["third-norm"]["matters"]


def test_the_statements_numbers_are_the_nets():
    whole, half = (presets.shapes(presets.get(name)) for name in ("paper", "paper/one-column"))
    assert f"{presets.total(whole, 'parameters'):,}." == STATEMENTS["parameters"]["source"]
    assert (
        f"{presets.total(half, 'parameters') / 1e6:.1f} million"
        in (STATEMENTS["half-net"]["matters"])
    )
    units = STATEMENTS["conv1-units"]
    assert f"{whole[0].neurons:,}" in units["source"]
    assert f"({presets.total(whole, 'neurons'):,})" in units["matters"]
    wrong = presets.total(whole, "neurons") - whole[0].neurons + 253_440
    assert f"({wrong:,})" in units["matters"]
    crossing = presets.crossings(whole)
    both_ways = 2 * sum(crossing[name] for name in ("conv3", "fc6", "fc7")) + whole[-2].maps
    assert f"{both_ways:,} numbers" in STATEMENTS["columns"]["matters"]
    both = [(text, other) for text, other in zip(PAPER.layers, SOURCE.layers, strict=True)]
    assert [text.name for text, other in both if text.sigma != other.sigma] == [
        path.partition(".")[0] for path in STATEMENTS["sigma-convolutions"]["presets"]
    ]


# --- the page --------------------------------------------------------------------------------


def shown():
    outputs = [out for cell in PAGE for out in cell.get("outputs", [])]
    return "\n".join(
        "".join(out.get("text") or out.get("data", {}).get("text/markdown", "")) for out in outputs
    )


def test_every_error_on_the_page_is_in_the_file_and_the_other_way_round():
    there = {
        f"{100 * one['top1']:.2f} / {100 * one['top5']:.2f}": (
            f"{one['nll']:.3f} nats",
            f"line {one['line']}",
        )
        for run in RUNS.values()
        for one in run["errors"]
    }
    found = re.findall(r"(\d\d\.\d\d / \d\d\.\d\d) \([^;]*; ([\d.]+ nats); (line \d+)\)", shown())
    assert sorted(found) == sorted((pair, *more) for pair, more in there.items())
    assert len(found) == sum(len(run["errors"]) for run in RUNS.values())


def test_every_derivation_on_the_page_is_derived():
    rows = [
        row
        for row in shown().splitlines()
        if ".cfg:" in row and " nats" not in row and row.count("|") == 5
    ]
    told = {row.split(" | ")[0].strip("| "): row.split(" | ") for row in rows}
    for name, one in labnotebook.load()["derivations"].items():
        _, paper, here, where = told.pop(one["what"])
        sign = "+" if labnotebook.is_difference(name) else ""
        assert here == " / ".join(
            f"{labnotebook.derive(name, what):{sign}.3f}" for what in labnotebook.WHAT
        )
        assert where.strip("| ") == labnotebook.sources(name)
        printed = [labnotebook.printed(name, what) for what in labnotebook.WHAT]
        assert paper.strip() == (
            "" if None in printed else " / ".join(f"{number:{sign}.1f}" for number in printed)
        )
    assert told == {}


def test_every_statement_is_on_the_page():
    for one in labnotebook.statements():
        finding = labnotebook.FINDINGS[one["finding"]]
        row = f"| {one['paper']} | {one['source']} | `{one['refs']}` | {finding} |"
        assert row in shown()


def test_prose_holds_no_measured_number():
    prose = "".join("".join(cell["source"]) for cell in PAGE if cell["cell_type"] == "markdown")
    assert set(re.findall(r"\d+\.\d+", prose)) == {"0.01", "0.03"}  # sigma


def test_the_page_opens_with_the_findings_counted():
    findings = [one["finding"] for one in labnotebook.statements()]
    same, open_, other, slips = (
        findings.count(name) for name in ("same", "silent", "differs", "slip")
    )
    counted = f"{same} hold to the letter, {open_} leave something open, {other} differ"
    opening = "".join(PAGE[0]["source"])
    assert f"Of {len(findings)} statements" in opening
    assert f"{counted} and {slips} are slips." in opening
