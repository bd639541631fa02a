"""Claims and their verdicts as readers see them."""

import json
import math
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, ValidationError

from alexnet import claims
from alexnet.claims import reports
from alexnet.claims.entries import ARITHMETIC, EXPERIMENTS, FORMS, VERDICTS
from alexnet.claims.judging import CHANGED, DEMONSTRATION, EXPLORATORY, NO_ARCHIVE, PLANNED
from alexnet.claims.scoreboard import LOOKS
from alexnet.cli import main
from tests.evidence import errors, evidence, judged, plan

ROOT = Path(__file__).resolve().parents[1]


def test_the_command_prints_two_scoreboards_and_then_the_claims(capsys):
    assert main(["claims"]) == 0
    said, judgements = capsys.readouterr().out, claims.judge_all()
    first, second = said.splitlines()[:2]
    assert [first, second] == reports.block(judgements).splitlines()
    assert first.startswith("arithmetic and records: ") and second.startswith("experiments: ")
    assert said.index("effect, 95 % interval") < said.index("The net has 60 million parameters")
    assert main(["claims", "--section", "3", "--verdict", "slip", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["claims"]
    assert shown and all(
        one["section"].startswith("3") and one["verdict"] == "slip" for one in shown
    )


@pytest.mark.parametrize(
    ("option", "value"), [("--section", "9"), ("--verdict", "slips"), ("--profile", "mars")]
)
def test_what_there_is_not_is_said_in_one_line(capsys, option, value):
    assert main(["claims", option, value]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert value in line and (option != "--verdict" or "did you mean 'slip'" in line)


def test_selecting_and_counting():
    every = claims.judge_all()
    assert reports.select(every) == every
    assert all(reports.select(every, section=name) for name in claims.contents()["sections"])
    third = reports.select(every, section="3")
    assert {one.claim.section for one in third} == {"3.1", "3.2", "3.3", "3.4", "3.5"}
    assert {one.claim.section for one in reports.select(every, section="4.1")} == {"4.1"}
    for name in ("not-testable-here", "not testable here", "Not-Testable-Here"):
        assert {one.verdict for one in reports.select(every, verdict=name)} == {"not testable here"}
    counts = reports.count(every)
    assert {board: tuple(names) for board, names in counts.items()} == VERDICTS
    assert sum(sum(names.values()) for names in counts.values()) == len(claims.load())


def test_the_line_is_one_and_the_block_the_same_in_two():
    one = claims.judge(claims.load()[0])
    assert reports.line([]) == "no claims"
    assert reports.line([one]) == "arithmetic and records: 1 exact"
    every = claims.judge_all()
    assert reports.block(every).split("\n") == reports.line(every).split("; ")
    slips = reports.select(every, verdict="slip")
    assert reports.line(slips) == "arithmetic and records: 5 slips"
    assert reports.line(slips[:1]) == "arithmetic and records: 1 slip"
    assert "claims" not in reports.line(every)  # no sum of both


def test_the_table_is_aligned_and_holds_every_claim():
    every = claims.judge_all()
    _, *tables = reports.table(every).split("\n\n")
    assert len(tables) == 2
    for board, text in zip((EXPERIMENTS, ARITHMETIC), tables, strict=True):
        lines = text.splitlines()
        rule = next(i for i, row in enumerate(lines) if set(row) == {"-"})
        head, rows, own = lines[0], lines[rule + 1 :], lines[rule]
        assert len(own) <= 170 and all(len(row) <= len(own) for row in lines)
        at = head.index("verdict")
        assert all(row[at - 2 : at].strip() == "" for row in rows)
        shown = [one for one in every if one.claim.scoreboard == board]
        verdicts = [row[at:].split("  ")[0] for row in rows if row[at : at + 1].strip()]
        assert verdicts == [one.verdict for one in shown]
        claimed = " ".join(
            " ".join(row[head.index("claim") : head.index("paper")].split()) for row in rows
        )
        assert all(one.claim.claim in claimed for one in shown)


def test_a_row_has_effect_interval_seeds_p_and_what_could_have_shown():
    one = judged((0.45, 0.461, 0.441, 0.45, 0.449))
    text = " ".join(reports.table([one]).split())
    assert "+5.0 ± 1.0 points, 5 seeds" in text
    assert "< 0.001" in text and f"{one.smallest:.1f} points" in text and "supported" in text


def valid(document):
    """Holds a document of `as_json` to its schema."""
    Draft202012Validator(json.loads(reports.schema())).validate(document)


def test_the_schema_is_sound_and_describes_every_field(capsys):
    assert main(["claims", "--schema"]) == 0
    assert capsys.readouterr().out == reports.schema()
    schema = json.loads(reports.schema())
    Draft202012Validator.check_schema(schema)
    claim = schema["$defs"]["claim"]
    assert set(claim["required"]) == set(claim["properties"]) == set(_document()["claims"][0])
    assert set(schema["required"]) == set(schema["properties"]) == set(_document())
    for properties in (schema["properties"], claim["properties"]):
        assert all(field["description"] for field in properties.values())
    verdicts = [*(name for names in VERDICTS.values() for name in names), NO_ARCHIVE]
    assert schema["$defs"]["verdict"]["enum"] == verdicts
    assert schema["$defs"]["scoreboard"]["enum"] == list(VERDICTS)
    assert claim["properties"]["form"]["enum"] == [*FORMS, None]
    assert claim["properties"]["runs"]["enum"][:4] == [PLANNED, CHANGED, EXPLORATORY, DEMONSTRATION]
    rows = reports.fields().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(claim["properties"])


def _document():
    return json.loads(reports.as_json(claims.judge_all()))


@pytest.mark.parametrize(
    ("claim", "field", "value"),
    [
        ("parameters", "verdict", "supported"),
        ("parameters", "value", None),
        ("parameters", "band", None),
        ("parameters", "equals", 60),
        ("ten-views-top1", "verdict", "exact"),
        ("ten-views-top1", "band", [0, 1]),
        ("ten-views-top1", "form", "mean"),
        ("ten-views-top1", "interval", [0, 1, 2]),
        ("ten-views-top1", "p", 0.1),
        ("ten-views-top1", "note", None),
    ],
)
def test_the_schema_refuses_what_no_claim_says(claim, field, value):
    document = _document()
    valid(document)
    next(one for one in document["claims"] if one["id"] == claim)[field] = value
    with pytest.raises(ValidationError):
        valid(document)


def test_others_can_judge_by_the_document():
    """What is exact follows from value and band; what the interval says, from no effect."""
    for one in _document()["claims"]:
        if one["equals"] is not None:
            assert (one["value"] == one["equals"]) == (one["verdict"] == "exact"), one["id"]
        elif one["band"]:
            low, high = (
                end if end is not None else sign * math.inf
                for end, sign in zip(one["band"], (-1, 1))
            )
            values = one["value"] if isinstance(one["value"], list) else [one["value"]]
            assert all(low <= each <= high for each in values) == (one["verdict"] == "exact")
        elif one["verdict"] == "supported" and one["form"] != "share":
            low, high = one["interval"]
            side = low > one["no_effect"] if one["sign"] == "+" else high < one["no_effect"]
            assert side and one["adjusted_p"] < 0.05 and one["plan"]


def test_json_is_complete_and_standard(capsys):
    assert main(["claims", "--json"]) == 0
    said = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert said["counts"] == reports.count(claims.judge_all())
    assert [one["id"] for one in said["claims"]] == [claim.id for claim in claims.load()]
    valid(said)
    one = next(claim for claim in said["claims"] if claim["id"] == "ten-views-top1")
    assert one["log"] == "-1.55 points" and one["chapter"] == "06-results"
    full = judged((0.45, 0.461, 0.441, 0.45, 0.449))
    valid(document := json.loads(reports.as_json([full])))
    (one,) = document["claims"]
    assert (one["scoreboard"], one["verdict"], one["seeds"]) == (EXPERIMENTS, "supported", 5)
    assert one["effect"] == pytest.approx(5.02) and one["interval"][0] < 5 < one["interval"][1]
    assert one["adjusted_p"] < 0.05 and one["margin"] == 0.5 and one["plan"] == "d"
    assert one["smallest_detectable"] > 0 and one["seeds_needed"] > 1 and one["profile"]
    assert one["provenance"]["entries"] == 1 and len(one["by_seed"]) == 2
    valid(document := json.loads(reports.as_json([judged((0.45,))])))
    (one,) = document["claims"]
    assert one["interval"] is None and one["smallest_detectable"] is None


def test_a_plan_that_changed_is_told_with_the_verdict():
    metrics = errors((0.45, 0.461, 0.441), (0.40, 0.41, 0.39))
    changed = judged((), given=evidence(metrics, plan(made_up=0.5), digests=["old"]))
    assert changed.status == CHANGED
    assert "supported; the plan changed after the runs" in reports.markdown([changed])


def test_the_figure_has_a_square_for_each_claim_on_its_scoreboards_side():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.colors import to_rgba

    every = claims.judge_all()
    (axes,) = reports.draw(every).axes
    squares = axes.patches
    assert len(squares) == len(every)
    for verdict in {one.verdict for one in every}:
        color = to_rgba(LOOKS[verdict][0])
        same = [name for name in LOOKS if to_rgba(LOOKS[name][0]) == color]
        expected = sum(one.verdict in same for one in every)
        assert sum(square.get_facecolor() == color for square in squares) == expected
    heads = {text.get_text(): text.get_position()[0] for text in axes.texts}
    left = sum(square.get_x() < heads[EXPERIMENTS] for square in squares)
    assert left == sum(one.claim.scoreboard == ARITHMETIC for one in every)
    low, high = axes.get_xlim()
    assert all(
        low <= square.get_x() and square.get_x() + square.get_width() <= high for square in squares
    )


def test_links_lead_to_pages_that_are_there(monkeypatch, tmp_path):
    linked = reports.markdown(claims.judge_all())
    pages = set(re.findall(r"\]\(([\w-]+\.ipynb)\)", linked))
    assert pages and all((ROOT / "book" / page).is_file() for page in pages)
    monkeypatch.setattr(reports, "ROOT", tmp_path)
    assert "](" not in reports.markdown(claims.judge_all())


def page(name):
    return json.loads((ROOT / "book" / f"{name}.ipynb").read_text())["cells"]


def test_appendix_d_shows_what_the_archive_holds():
    """Every number on the page is made again from claims.yml, the notes of 2012 and results/."""
    every, shown = claims.judge_all(), {}
    for cell in page("claims"):
        for out in cell.get("outputs", []):
            if "text/markdown" in out.get("data", {}):
                shown["".join(cell["source"])] = "".join(out["data"]["text/markdown"])
    assert shown.pop("Markdown(reports.fields())") == reports.fields()
    assert list(shown) == [f'show("{name}")' for name in claims.contents()["sections"]]
    for name in claims.contents()["sections"]:
        found = [one for one in every if one.claim.section == name]
        said = shown[f'show("{name}")']
        assert reports.markdown(found) in said and reports.notes(found) in said
    prose = "".join(
        "".join(cell["source"]) for cell in page("claims") if cell["cell_type"] == "markdown"
    )
    assert re.findall(r"\d+\.\d{2,}|\d,\d{3}", prose) == []  # numbers stand in the tables


def test_a_chapters_table_tells_its_own_claims_and_what_the_page_has_measured():
    every = claims.judge_all()
    own = [one for one in every if one.claim.chapter == "06-results"]
    head, rule, *rows = reports.chapter(
        every, "06-results", {"ten-views-top1": "-5.0 points, 1 seed"}
    ).splitlines()
    assert head.count("|") == rule.count("|") == 7 and len(rows) == len(own) > 15
    by_id = dict(zip((one.claim.id for one in own), rows, strict=True))
    assert (
        "| -5.0 points, 1 seed |" in by_id["ten-views-top1"]
        and "-1.55 points" in by_id["ten-views-top1"]
    )
    (computed,) = (
        row for row in reports.chapter(every, "03-architecture").splitlines() if "60 million" in row
    )
    assert computed.endswith(
        "| 60 million |  | 60,965,224 | exact |"
    )  # no log says anything in that chapter


NUMBERED = sorted(
    {one.claim.chapter for one in claims.judge_all() if one.claim.chapter[:1].isdigit()}
)


@pytest.mark.parametrize("name", NUMBERED)
def test_each_chapter_shows_the_table_of_the_archive(name):
    (cell,) = (cell for cell in page(name) if "reports.chapter" in "".join(cell["source"]))
    shown = "".join(
        "".join(out.get("data", {}).get("text/markdown", "")) for out in cell["outputs"]
    ).splitlines()
    trains = "nbval-ignore-output" in cell["metadata"]["tags"]
    mine = reports.chapter(
        claims.judge_all(), name, {"ten-views-top1": "another number"} if trains else None
    ).splitlines()

    def without_the_pages_own(row):
        cells = row.split(" | ")
        return [*cells[:-2], *cells[-1:]] if trains else cells

    assert [without_the_pages_own(row) for row in shown] == [
        without_the_pages_own(row) for row in mine
    ]


@pytest.mark.parametrize("name", ["intro", "claims"])
def test_the_cover_and_appendix_d_show_the_scoreboards_of_the_archive(name):
    printed = "".join(
        "".join(out.get("text", "")) for cell in page(name) for out in cell.get("outputs", [])
    )
    assert reports.block(claims.judge_all()) in printed
