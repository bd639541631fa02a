"""The paper as claims: what claims.yml may hold, and what it holds."""

import re
from pathlib import Path

import pytest

from alexnet import claims, experiments, labnotebook, profiles
from alexnet.claims.entries import ARITHMETIC, EXPERIMENTS, VERDICTS, unknown
from alexnet.claims.measuring import Missing, measure
from alexnet.errors import InputError
from tests.evidence import PATH, entry, parsed, parsed_test

ROOT = Path(__file__).resolve().parents[1]


def test_there_are_many_claims_each_with_what_a_reader_needs():
    loaded = claims.load()
    assert len(loaded) >= 60 and len({claim.id for claim in loaded}) == len(loaded)
    sections = "3.1 3.2 3.3 3.4 3.5 4.1 4.2 5 6 7"
    assert {claim.section for claim in loaded} >= set(sections.split())
    for claim in loaded:
        assert claim.claim.endswith((".", ")")) and claim.paper
        assert claim.rule() or claim.needs, claim.id
        assert not claim.chapter or list((ROOT / "book").glob(f"{claim.chapter}.*")), claim.id


def test_there_are_two_scoreboards_that_share_no_verdict():
    assert list(VERDICTS) == [ARITHMETIC, EXPERIMENTS] == list(claims.SCOREBOARDS)
    assert not set(VERDICTS[ARITHMETIC]) & set(VERDICTS[EXPERIMENTS])
    for claim in claims.load():
        assert (claim.scoreboard == ARITHMETIC) == bool(claim.agree) == ("compute" in claim.test)


def test_every_experimental_claim_declares_what_decides_it():
    order = claims.contents()["profiles"]
    assert set(order) <= set(profiles.names()) - {"embedded", "quick"}
    paper = {"ilsvrc2010", "ilsvrc2012"}
    for claim in claims.load():
        if claim.scoreboard == EXPERIMENTS and claim.test:
            assert claim.sign and claim.seeds >= 1 and set(claim.decides) <= set(order), claim.id
            assert claim.test["experiment"] in experiments.NAMES, claim.id
            assert claim.margin or claim.form == "share", claim.id
            only_paper = set(claim.decides) <= paper or claim.test["experiment"] == "cifar_lrn"
            assert claim.sign != "=" or only_paper, claim.id  # a size is for the paper's data
            assert bool(claim.needs) == (set(claim.decides) <= paper), claim.id
        elif claim.scoreboard == EXPERIMENTS:
            assert claim.needs and not claim.decides, claim.id


def test_one_metric_a_claim_top_1_where_there_is_one():
    for claim in claims.load():
        assert "top5" not in claim.test.get("path", []), claim.id
        assert claim.id == "test-top5" or not claim.id.endswith("top5")


def test_every_experiment_that_is_there_has_the_numbers_its_claims_ask_for():
    """A path that leads nowhere would be "not yet run" for ever."""
    for claim in claims.load():
        if claim.scoreboard == EXPERIMENTS and claim.test:
            name = claim.test["experiment"]
            known = [experiments.load(name, path.parent) for path in ROOT.glob(f"results/*/{name}")]
            lacks = []
            for result in filter(None, known):
                try:
                    measure(claim, result["metrics"])
                except Missing as lack:
                    lacks.append(str(lack))
            if known and len(lacks) == len(known):
                assert claim.id in OF_IMAGENET, (claim.id, lacks)


# whose experiments are archived for other data only
OF_IMAGENET = {"ilsvrc2010-top1", "one-view-top1"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"colour": 1}, "no field 'colour'"),
        ({"margins": 1}, "no field 'margins' \\(did you mean 'margin'"),
        ({"section": "9"}, "no section '9'"),
        ({"unit": "miles"}, "no unit 'miles'"),
        ({"test": {"compute": "nothing"}}, "no function 'nothing'"),
        ({"test": {"compute": "parameters"}}, "agree needs one of"),
        ({"test": {"experiment": "ablations"}}, "no form None"),
        ({"test": {}}, "without a test it must say what it needs"),
        ({"sign": "more"}, "no sign 'more'"),
        ({"sign": "=", "size": None}, "sign = needs the size"),
        ({"margin": None}, "needs a margin, above 0"),
        ({"margin": 0}, "needs a margin, above 0"),
        ({"decides": []}, "needs the profiles that may decide it"),
        ({"decides": ["cifar01"]}, "no profile that decides 'cifar01' \\(did you mean 'cifar10'"),
    ],
)
def test_a_claim_that_makes_no_sense_is_named(fields, said):
    with pytest.raises(InputError, match=f"claim 'made-up': .*{said}"):
        parsed(**fields)


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ({"form": "difference", "path": PATH}, "difference needs arm and against"),
        ({"form": "value", "path": ["a"], "arm": "b"}, "value needs neither arm nor against"),
        ({"form": "value", "path": "a"}, "a path with one '\\*' at most"),
        ({"form": "value", "path": ["*", "*"]}, "a path with one '\\*' at most"),
        ({"form": "value", "path": PATH}, "a path has ARM where two arms are compared"),
        ({"form": "value", "path": ["a"], "limits": ["b"]}, "did you mean 'limit'"),
        ({"form": "times", "arm": "a", "against": "b", "path": PATH}, "a margin, above 1"),
    ],
)
def test_tests_that_make_no_sense_are_named(test, said):
    with pytest.raises(InputError, match=said):
        parsed_test("times", 0.9, **test)


def test_an_unknown_name_is_told_with_its_nearest():
    assert unknown("a", ["a", "b"], "letter") == ""
    assert unknown("lrm", ["lrn", "x"], "arm") == (
        "there is no arm 'lrm' (did you mean 'lrn'?); there are lrn, x"
    )
    with pytest.raises(InputError, match="lacks 'claim'"):
        given = entry()
        del given["claim"]
        claims.parse(given, claims.contents()["sections"])


@pytest.mark.parametrize("claim", claims.load(), ids=lambda c: c.id)
def test_the_number_to_agree_with_is_the_papers(claim):
    names = ("near", "equals")
    expected = next((claim.agree[name] for name in names if name in claim.agree), claim.size)
    numbers = [float(n.replace(",", "")) for n in re.findall(r"-?\d[\d,]*(?:\.\d+)?", claim.paper)]
    if "million" in claim.paper:
        numbers = [1e6 * n for n in numbers]
    if claim.id in SAID_IN_WORDS:
        assert not re.search(r"\b\d", claim.paper)
    elif claim.id == "units":
        assert [expected[0], expected[-1]] == numbers
    elif claim.id == "validation-test":
        assert (claim.size, [claim.margin]) == (0, numbers)
    elif isinstance(expected, list):
        assert numbers == [float(n) for n in expected]
    elif expected is not None:
        assert numbers[0] == expected


SAID_IN_WORDS = ["one-column-parameters", "dropout-mean", "kernels", "columns-meet"]
SAID_IN_WORDS += ["overlap-sizes", "recipe-trains", "specialization-recurs"]


def test_the_rule_is_said():
    test = {"compute": "parameters"}
    plain = {"sign": "", "size": None, "margin": None, "decides": [], "unit": ""}
    for agree, words in (
        ({"range": [2, None]}, "exact if at least 2"),
        ({"range": [None, -2]}, "exact if at most -2"),
        ({"near": 3, "within": 0}, "exact if 3"),
        ({"near": 3, "within": 0.5}, "exact if 2.5 to 3.5"),
        ({"equals": 1.0}, "exact if equal"),
    ):
        assert parsed(test=test, agree=agree, **plain).rule() == words
    rule = "claimed: more than 0; no effect: within ±0.5 points; 3 seeds an arm at least"
    assert parsed().rule() == rule
    assert "claimed: 1 points, to within 0.5" in parsed(sign="=").rule()
    test = {"form": "ratio", "arm": "a", "against": "b", "path": ["ARM", "*"]}
    assert "more than 1; no effect: within a factor of 1.2" in parsed_test(**test).rule()
    share = parsed_test("seeds", None, form="share", path=["a", "*"])
    assert "more than half of the seeds" in share.rule()


def test_the_papers_numbers_follow_from_its_logs():
    said = {claim.id: (claim.paper, claim.logged()) for claim in claims.load() if claim.log}
    assert len(said) >= 8
    logged = {value for _, value in said.values()}
    assert {"37.47 %", "39.02 %", "40.66 %", "38.99 %"} <= logged
    assert {"+1.70 points", "+1.37 points", "+0.39 points", "-1.55 points"} <= logged
    assert labnotebook.sources(
        next(claim.log.split(".")[0] for claim in claims.load() if claim.log)
    )


# What a reader would take for a verdict of the scoreboard that this project no longer has.
OLD_VERDICTS = re.compile(r"(?i)\b(not )?reproduced\b|\bsame[ -]direction\b|\bundecided\b")
TITLE = re.compile(r"(?i)alexnet[,-]? ?reproduced")


def test_no_other_words_are_used_for_verdicts():
    """Nothing here is "reproduced" but the title: an experiment supports a claim, contradicts it,
    or is inconclusive."""
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "book").glob("*.md")]
    for pattern in ("alexnet/**/*.py", "alexnet/**/*.yml", "book/*.ipynb", "book/_static/**/*.js"):
        files += ROOT.glob(pattern)
    assert len(files) > 100
    for path in files:
        text = TITLE.sub("", path.read_text(encoding="utf-8"))
        text = re.sub(r'"image/(png|jpeg)": "[^"]*"', "", text)
        assert not OLD_VERDICTS.search(text), (path, OLD_VERDICTS.search(text))
