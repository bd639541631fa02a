"""The paper as claims: what claims.yml may hold, and how a verdict follows from numbers."""

import json
from pathlib import Path

import pytest

from alexnet import arithmetic, claims, experiments, labnotebook, results, scoreboard
from alexnet.cli import main
from alexnet.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def entry(**fields):
    made = {"id": "made-up", "section": "3.3", "claim": "Leaving it out costs a point.", "paper": "1 point", "unit": "points"}
    test = {"experiment": "errors", "difference": [["nets", "without", "*", "top1"], ["nets", "with", "*", "top1"]]}
    return made | {"test": test, "agree": {"near": 1.0, "within": 0.5, "against": 0}} | fields


def parsed(**fields):
    return claims.parse(entry(**fields), claims.contents()["sections"])


def judged(without, base=(0.4, 0.41, 0.39, 0.4, 0.4), claim=None):
    nets = {name: {str(i): {"top1": v} for i, v in enumerate(values)} for name, values in (("without", without), ("with", base))}
    about = {"experiment": "errors", "profile": "embedded", "data": {"title": "made up"}}
    return claims.judge(claim or parsed(), about | {"metrics": {"nets": nets}})


# --- what is claimed ----------------------------------------------------------------------------------------------------------------------


def test_there_are_many_claims_each_with_what_a_reader_needs():
    loaded = claims.load()
    assert len(loaded) >= 45 and len({claim.id for claim in loaded}) == len(loaded)
    assert {claim.section for claim in loaded} >= {"3.1", "3.2", "3.3", "3.4", "3.5", "4.1", "4.2", "5", "6", "7"}
    for claim in loaded:
        assert claim.claim.endswith((".", ")")) and claim.paper and claim.agreement()
        assert not claim.chapter or list((ROOT / "book").glob(f"{claim.chapter}.*")), claim.id


@pytest.mark.parametrize("claim", [c for c in claims.load() if c.kind == "arithmetic"], ids=lambda c: c.id)
def test_arithmetic_is_judged_always_and_never_not_run(claim):
    found = claims.judge(claim)
    assert found.verdict != "not yet run" and found.here and found.on == "exact"
    assert (found.verdict == "paper's slip") <= bool(claim.slip)


def test_the_numbers_that_are_known_to_the_last_digit():
    found = {one.claim.id: one for one in claims.judge_all()}
    assert (arithmetic.parameters(), arithmetic.neurons()) == (60_965_224, 659_272)
    assert found["parameters"].verdict == found["neurons"].verdict == "reproduced"
    slips = {name for name, one in found.items() if one.verdict == "paper's slip"}
    assert len(slips) >= 2 and all(found[name].claim.slip for name in slips)
    assert any("290,400" in found[name].here for name in slips)  # conv1's neurons, printed as 253,440


def test_every_experiment_that_is_there_has_the_numbers_its_claims_ask_for():
    """A path that leads nowhere would be "not yet run" for ever."""
    for claim in claims.load():
        if claim.kind == "experiment" and claim.test["experiment"] in experiments.NAMES:
            folders = (ROOT / "results").glob(f"*/{claim.test['experiment']}.json")
            allowed = [path for path in folders if path.parent.name in claim.test.get("only_on", [path.parent.name])]
            found = [claims.judge(claim, results.load(path.stem, path.parent)) for path in allowed]
            if found and all(one.verdict == "not yet run" for one in found):
                assert claim.id in UNMEASURED, (claim.id, [one.why for one in found])


UNMEASURED = {"relu-logistic"}  # which Figure 1 has no arm for yet


# --- how a verdict follows ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("without", "verdict", "undecided"),
    [
        ((0.41, 0.42, 0.40, 0.41, 0.41), "reproduced", False),  # a point each
        ((0.45, 0.461, 0.441, 0.45, 0.449), "same direction", False),  # five points
        ((0.35, 0.361, 0.341, 0.35, 0.349), "not reproduced", False),  # the other way
        ((0.45, 0.35, 0.42, 0.40, 0.44), "not reproduced", True),  # who knows
        ((0.41,), "not reproduced", True),  # one seed has no interval
    ],
)
def test_a_difference_over_seeds(without, verdict, undecided):
    found = judged(without, base=(0.4, 0.41, 0.39, 0.4, 0.4)[: len(without)])
    assert (found.verdict, found.undecided) == (verdict, undecided)
    assert found.mean == pytest.approx(100 * sum(a - b for a, b in zip(without, (0.4, 0.41, 0.39, 0.4, 0.4))) / len(without))
    assert ("undecided" in found.why) == undecided


def test_seeds_are_paired_and_what_is_missing_is_named():
    wide = judged((0.11, 0.51, 0.91), base=(0.1, 0.5, 0.9))  # one point each, though seeds differ by eighty
    assert wide.verdict == "reproduced" and wide.values == pytest.approx((1, 1, 1))
    assert claims.judge(parsed()).verdict == "not yet run"
    missing = claims.judge(parsed(), {"experiment": "errors", "profile": "p", "data": {"title": "t"}, "metrics": {"nets": {}}})
    assert missing.verdict == "not yet run" and "nets > without" in missing.why


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"colour": 1}, "no field 'colour'"),
        ({"section": "9"}, "no section '9'"),
        ({"unit": "miles"}, "no unit 'miles'"),
        ({"test": {"compute": "nothing"}}, "no function 'nothing'"),
        ({"test": {"experiment": "errors"}}, "either compute, or an experiment"),
        ({"agree": {}}, "agree needs one of"),
        ({"agree": {"near": 1, "within": 2, "against": 0}}, "on one side of 0"),
    ],
)
def test_a_claim_that_makes_no_sense_is_named(fields, said):
    with pytest.raises(InputError, match=f"claim 'made-up': .*{said}"):
        parsed(**fields)


# --- the logs -----------------------------------------------------------------------------------------------------------------------------


def test_the_papers_numbers_follow_from_its_logs():
    said = {claim.id: (claim.paper, claim.logged()) for claim in claims.load() if claim.log}
    assert len(said) >= 8
    logged = {value for _, value in said.values()}
    assert {"37.47 %", "17.00 %", "39.02 %", "18.30 %", "40.66 %", "18.21 %"} <= logged
    assert {"+1.70 points", "+1.23 points", "+1.37 points", "+1.15 points", "+0.39 points", "+0.30 points"} <= logged
    assert labnotebook.sources(next(claim.log.split(".")[0] for claim in claims.load() if claim.log))


# --- the command line ---------------------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_the_scoreboard(capsys):
    assert main(["claims"]) == 0
    *_, board = capsys.readouterr().out.splitlines()
    judgements = claims.judge_all()
    assert board == scoreboard.line(judgements) and board.startswith(f"{len(claims.load())} claims: ")
    assert main(["claims", "--section", "3", "--verdict", "slip", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["claims"]
    assert shown and all(one["section"].startswith("3") and one["verdict"] == "paper's slip" for one in shown)


@pytest.mark.parametrize(("option", "value"), [("--section", "9"), ("--verdict", "maybe"), ("--profile", "mars")])
def test_what_there_is_not_is_said_in_one_line(capsys, option, value):
    assert main(["claims", option, value]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert value in line
