"""Claims and their verdicts as readers see them."""

import json
import re
from pathlib import Path

import pytest

from alexnet import claims
from alexnet.claims import reports
from alexnet.cli import main
from tests.test_claims import judged

ROOT = Path(__file__).resolve().parents[1]


def test_the_command_prints_a_table_and_the_scoreboard(capsys):
    assert main(["claims"]) == 0
    *_, board = capsys.readouterr().out.splitlines()
    judgements = claims.judge_all()
    assert board == reports.line(judgements) and board.startswith(f"{len(claims.load())} claims: ")
    assert main(["claims", "--section", "3", "--verdict", "slip", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["claims"]
    assert shown and all(
        one["section"].startswith("3") and one["verdict"] == "paper's slip" for one in shown
    )


@pytest.mark.parametrize(
    ("option", "value"), [("--section", "9"), ("--verdict", "maybe"), ("--profile", "mars")]
)
def test_what_there_is_not_is_said_in_one_line(capsys, option, value):
    assert main(["claims", option, value]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert value in line


def test_selecting_and_counting():
    every = claims.judge_all()
    assert reports.select(every) == every
    assert all(reports.select(every, section=name) for name in claims.contents()["sections"])
    third = reports.select(every, section="3")
    assert {one.claim.section for one in third} == {"3.1", "3.2", "3.3", "3.4", "3.5"}
    assert {one.claim.section for one in reports.select(every, section="4.1")} == {"4.1"}
    for asked in ("slip", "paper's slip", "Papers-Slip"):
        assert {one.verdict for one in reports.select(every, verdict=asked)} == {"paper's slip"}
    assert reports.select(every, verdict="same-direction") == reports.select(
        every, verdict="same direction"
    )
    counts = reports.count(every)
    assert list(counts) == list(claims.VERDICTS) and sum(counts.values()) == len(every) == len(
        claims.load()
    )


def test_the_line_is_one_and_the_block_the_same_in_several():
    one = claims.judge(claims.load()[0])
    assert reports.line([]) == "0 claims" and reports.line([one]) == "1 claim: 1 reproduced"
    every = claims.judge_all()
    assert reports.block(every).split("\n  ")[1:] == reports.line(every).partition(": ")[2].split(
        ", "
    )
    slips = reports.select(every, verdict="slip")
    assert (
        reports.line(slips) == "3 claims: 3 paper's slips"
        and reports.line(slips[:1]) == "1 claim: 1 paper's slip"
    )
    undecided = [judged((0.41,), base=(0.4,)), judged((0.45, 0.35), base=(0.4, 0.4))]
    assert all(one.undecided for one in undecided)
    assert reports.line(undecided).endswith(
        f"{len(undecided)} not reproduced ({len(undecided)} undecided)"
    )


def test_the_table_is_aligned_and_holds_every_claim():
    every = claims.judge_all()
    head, rule, *rows, again, last = reports.table(every).splitlines()
    assert set(rule) == {"-"} and rule == again and last == reports.line(every) and len(rule) <= 160
    at = head.index("verdict")
    verdicts = [row[at:].split("  ")[0] for row in rows if row[at : at + 1].strip()]
    assert verdicts == [one.verdict for one in every] and all(
        row[at - 2 : at].strip() == "" for row in rows
    )
    told = " ".join(
        " ".join(row[head.index("claim") : head.index("paper")].split()) for row in rows
    )
    assert all(claim.claim in told for claim in claims.load())


def test_the_figure_has_a_square_for_each_claim():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.colors import to_rgba

    every = claims.judge_all()
    figure = reports.draw(every)
    squares = figure.axes[0].patches
    assert len(squares) == len(every)
    for verdict, n in reports.count(every).items():
        assert (
            sum(square.get_edgecolor() == to_rgba(reports.COLORS[verdict]) for square in squares)
            == n
        )
    assert sum(square.get_facecolor() == to_rgba("white") for square in squares) == sum(
        one.undecided for one in every
    )
    low, high = figure.axes[0].get_xlim()
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
    assert head.count("|") == rule.count("|") == 7 and len(rows) == len(own) > 20
    by_id = dict(zip((one.claim.id for one in own), rows, strict=True))
    assert (
        "| -5.0 points, 1 seed |" in by_id["ten-views-top1"]
        and "-1.55 points" in by_id["ten-views-top1"]
    )
    (reckoned,) = (
        row for row in reports.chapter(every, "03-architecture").splitlines() if "60 million" in row
    )
    assert reckoned.endswith(
        "| 60 million |  | 60,965,224 | reproduced |"
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
def test_the_cover_and_appendix_d_show_the_scoreboard_of_the_archive(name):
    printed = "".join(
        "".join(out.get("text", "")) for cell in page(name) for out in cell.get("outputs", [])
    )
    assert reports.block(claims.judge_all()) in printed
