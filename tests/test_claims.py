"""The paper as claims: what claims.yml may hold, and how a verdict follows from numbers."""

import json
import math
import re
from pathlib import Path

import pytest

from alexnet import arithmetic, claims, experiments, labnotebook, results
from alexnet.claims import reports
from alexnet.cli import main
from alexnet.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def entry(**fields):
    made = {
        "id": "made-up",
        "section": "3.3",
        "claim": "Leaving it out costs a point.",
        "paper": "1 point",
        "unit": "points",
    }
    test = {
        "experiment": "ablations",
        "difference": [["nets", "without", "*", "top1"], ["nets", "with", "*", "top1"]],
    }
    return made | {"test": test, "agree": {"near": 1.0, "within": 0.5, "against": 0}} | fields


def parsed(**fields):
    return claims.parse(entry(**fields), claims.contents()["sections"])


def judged(without, base=(0.4, 0.41, 0.39, 0.4, 0.4), claim=None):
    nets = {
        name: {str(i): {"top1": v} for i, v in enumerate(values)}
        for name, values in (("without", without), ("with", base))
    }
    about = {"experiment": "ablations", "profile": "embedded", "data": {"title": "made up"}}
    return claims.judge(claim or parsed(), about | {"metrics": {"nets": nets}})


def test_there_are_many_claims_each_with_what_a_reader_needs():
    loaded = claims.load()
    assert len(loaded) >= 45 and len({claim.id for claim in loaded}) == len(loaded)
    assert {claim.section for claim in loaded} >= {
        "3.1",
        "3.2",
        "3.3",
        "3.4",
        "3.5",
        "4.1",
        "4.2",
        "5",
        "6",
        "7",
    }
    for claim in loaded:
        assert claim.claim.endswith((".", ")")) and claim.paper and claim.agreement()
        assert not claim.chapter or list((ROOT / "book").glob(f"{claim.chapter}.*")), claim.id


@pytest.mark.parametrize(
    "claim", [c for c in claims.load() if c.kind == "arithmetic"], ids=lambda c: c.id
)
def test_arithmetic_is_judged_always_and_never_not_run(claim):
    found = claims.judge(claim)
    assert found.verdict != "not yet run" and found.shown and found.on == "exact"
    assert (found.verdict == "paper's slip") <= bool(claim.slip)


def test_the_numbers_that_are_known_to_the_last_digit():
    found = {one.claim.id: one for one in claims.judge_all()}
    assert (arithmetic.parameters(), arithmetic.neurons()) == (60_965_224, 659_272)
    assert found["parameters"].verdict == found["neurons"].verdict == "reproduced"
    slips = {name for name, one in found.items() if one.verdict == "paper's slip"}
    assert len(slips) >= 2 and all(found[name].claim.slip for name in slips)
    assert any(
        "290,400" in found[name].shown for name in slips
    )  # conv1's neurons, printed as 253,440


def test_every_experiment_that_is_there_has_the_numbers_its_claims_ask_for():
    """A path that leads nowhere would be "not yet run" for ever."""
    for claim in claims.load():
        if claim.kind == "experiment" and claim.test["experiment"] in experiments.NAMES:
            folders = (ROOT / "results").glob(f"*/{claim.test['experiment']}")
            allowed = [
                path
                for path in folders
                if path.parent.name in claim.test.get("only_on", [path.parent.name])
            ]
            found = [
                claims.judge(claim, experiments.load(path.name, path.parent)) for path in allowed
            ]
            if found and all(one.verdict == "not yet run" for one in found):
                assert claim.id in UNMEASURED, (claim.id, [one.why for one in found])


UNMEASURED = {"relu-logistic"}  # which Figure 1 has no arm for yet


ARITHMETIC = {
    "reproduced": "parameters neurons layers fewer-parameters training-images validation-images "
    "test-images memory-half columns-meet one-column-parameters fc6-share overlap-sizes inputs "
    "kernels conv1-side units label-bits dropout-mean three-falls cycles",
    "not reproduced": "connections memory-whole one-rate",
    "paper's slip": "convolutions-share conv1-units crops-factor",
}


def test_every_arithmetic_verdict_is_as_known():
    found = {
        claim.id: claims.judge(claim).verdict
        for claim in claims.load()
        if claim.kind == "arithmetic"
    }
    assert found == {
        name: verdict for verdict, names in ARITHMETIC.items() for name in names.split()
    }


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
    assert found.mean == pytest.approx(
        100 * sum(a - b for a, b in zip(without, (0.4, 0.41, 0.39, 0.4, 0.4))) / len(without)
    )
    assert ("undecided" in found.why) == undecided


def test_seeds_are_paired_and_what_is_missing_is_named():
    wide = judged(
        (0.11, 0.51, 0.91), base=(0.1, 0.5, 0.9)
    )  # one point each, though seeds differ by eighty
    assert wide.verdict == "reproduced" and wide.values == pytest.approx((1, 1, 1))
    assert claims.judge(parsed()).verdict == "not yet run"
    missing = claims.judge(
        parsed(),
        {
            "experiment": "ablations",
            "profile": "p",
            "data": {"title": "t"},
            "metrics": {"nets": {}},
        },
    )
    assert missing.verdict == "not yet run" and "nets > without" in missing.why


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"colour": 1}, "no field 'colour'"),
        ({"section": "9"}, "no section '9'"),
        ({"unit": "miles"}, "no unit 'miles'"),
        ({"test": {"compute": "nothing"}}, "no function 'nothing'"),
        ({"test": {"experiment": "ablations"}}, "either compute, or an experiment"),
        ({"agree": {}}, "agree needs one of"),
        ({"agree": {"near": 1, "within": 2, "against": 0}}, "on one side of 0"),
    ],
)
def test_a_claim_that_makes_no_sense_is_named(fields, said):
    with pytest.raises(InputError, match=f"claim 'made-up': .*{said}"):
        parsed(**fields)


def result(metrics, **more):
    return {
        "experiment": "ablations",
        "profile": "embedded",
        "data": {"title": "made up"},
        "metrics": metrics,
    } | more


def faster(slow, fast, limit=20, **fields):
    test = {"experiment": "ablations", "ratio": [["slow", "*"], ["fast", "*"]], "limit": ["limit"]}
    claim = parsed(
        unit="times", test=test, **{"agree": {"range": [5.5, None], "against": 1}} | fields
    )
    numbers = {
        name: {str(i): v for i, v in enumerate(values)}
        for name, values in (("slow", slow), ("fast", fast))
    }
    return claims.judge(claim, result(numbers | {"limit": limit}))


@pytest.mark.parametrize(
    ("slow", "fast", "verdict", "undecided", "here"),
    [
        ([18, 20], [3, 3], "reproduced", False, "6.3 ± 4.2 times, 2 seeds"),
        ([None, None], [3, 3], "reproduced", False, "more than 6.6 times, 2 seeds"),
        ([None, None], [14, 14], "same direction", False, "more than 1.42 times, 2 seeds"),
        (
            [None, 16],
            [10, 10],
            "not reproduced",
            True,
            "more than 1.80 times, 2 seeds",
        ),  # the interval of the least values holds 1
        ([10, 10], [None, None], "not reproduced", False, "less than 0.50 times, 2 seeds"),
        ([None, None], [None, None], "not reproduced", True, "beyond the budget, 2 seeds"),
        ([None, 10], [10, None], "not reproduced", True, "beyond the budget, 2 seeds"),
    ],
)
def test_what_did_not_arrive_bounds_a_ratio(slow, fast, verdict, undecided, here):
    found = faster(slow, fast)
    assert (found.verdict, found.undecided, found.shown) == (verdict, undecided, here)
    assert (found.half is None) == ("±" not in here)


def test_a_bound_never_lies_in_a_band_that_is_closed_on_its_side():
    band = {"near": 2, "within": 0.5, "against": 1}
    assert faster([20, 20], [10, 10], agree=band).verdict == "reproduced"
    assert faster([None, None], [10, 10], agree=band).verdict == "same direction"  # it may be ten


def test_without_a_limit_what_did_not_arrive_is_missing():
    test = {"experiment": "ablations", "ratio": [["slow", "*"], ["fast", "*"]]}
    claim = parsed(unit="times", test=test, agree={"range": [5.5, None], "against": 1})
    found = claims.judge(claim, result({"slow": {"0": None}, "fast": {"0": 3}}))
    assert (
        found.verdict == "not yet run"
        and found.why == "ablations on made up has no number for seed 0"
    )


@pytest.mark.parametrize(
    ("steps", "verdict", "here"),
    [([3, 4], "reproduced", "2 of 2"), ([3, None], "not reproduced", "1 of 2")],
)
def test_arriving_is_counted(steps, verdict, here):
    claim = parsed(
        unit="seeds",
        test={"experiment": "ablations", "arrives": ["left", "*"]},
        agree={"equals": 1.0},
    )
    found = claims.judge(claim, result({"left": {str(i): step for i, step in enumerate(steps)}}))
    assert (found.verdict, found.shown, found.undecided) == (verdict, f"{here} seeds", False)


@pytest.mark.parametrize(("error", "verdict"), [(0.3747, "reproduced"), (0.3801, "not reproduced")])
def test_one_seed_decides_an_error(error, verdict):
    test = {"experiment": "ablations", "value": ["nets", "CNN", "*", "top1"]}
    claim = parsed(unit="percent", test=test, agree={"near": 37.5, "within": 0.5})
    found = claims.judge(claim, result({"nets": {"CNN": {"0": {"top1": error}}}}))
    assert (found.verdict, found.undecided, found.shown) == (
        verdict,
        False,
        f"{100 * error:.1f} %, 1 seed",
    )


def test_a_gap_has_no_sign_and_what_has_no_seed_goes_with_each():
    test = {"experiment": "ablations", "gap": [["val", "*"], ["test"]]}
    claim = parsed(test=test, agree={"range": [0, 1]})
    found = claims.judge(claim, result({"val": {"0": 0.40, "1": 0.42}, "test": 0.41}))
    assert found.values == pytest.approx((1, 1)) and found.mean == pytest.approx(1)


def test_a_single_time_needs_no_interval_and_is_shown_with_its_machine():
    test = {
        "experiment": "devices",
        "label": "hardware",
        "ratio": [["layouts", "two", 0], ["layouts", "one", 0]],
    }
    claim = parsed(unit="times", test=test, agree={"range": [0.7, 1.0], "against": 1})
    machine = {"hardware": {"processor": "slow", "cores": 2, "gpu": None}}
    for two, verdict in ((0.9, "reproduced"), (0.4, "same direction"), (1.1, "not reproduced")):
        found = claims.judge(
            claim, result({"layouts": {"two": [two], "one": [1.0]}}, provenance=machine)
        )
        assert (found.verdict, found.undecided, found.data) == (verdict, False, "slow, 2 cores")
        assert found.half is None and "seed" not in found.shown


def test_a_path_that_ends_at_no_number_is_missing():
    for metrics in (
        {"nets": {"without": {"0": {"top1": {}}}, "with": {"0": {"top1": 0.5}}}},
        {"nets": {"without": 3, "with": {}}},
    ):
        assert claims.judge(parsed(), result(metrics)).verdict == "not yet run"


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ({"experiment": "ablations", "difference": [["a", "*"]]}, "difference takes two paths"),
        ({"experiment": "ablations", "value": "a"}, "value takes one path"),
        ({"experiment": "ablations", "ratio": [["*", "*"], ["a"]]}, "one '\\*' at most"),
        (
            {"experiment": "ablations", "value": ["a"], "gap": [["a"], ["b"]]},
            "one of value, difference",
        ),
    ],
)
def test_paths_that_make_no_sense_are_named(test, said):
    with pytest.raises(InputError, match=said):
        parsed(test=test)


@pytest.mark.parametrize(
    "claim",
    [c for c in claims.load() if "near" in c.agree or "equals" in c.agree],
    ids=lambda c: c.id,
)
def test_the_number_to_agree_with_is_the_papers(claim):
    wanted = claim.agree.get("near", claim.agree.get("equals"))
    numbers = [float(n.replace(",", "")) for n in re.findall(r"-?\d[\d,]*(?:\.\d+)?", claim.paper)]
    if "million" in claim.paper:
        numbers = [1e6 * n for n in numbers]
    if claim.id in SAID_IN_WORDS:
        assert not re.search(r"\b\d", claim.paper)
    elif claim.unit == "files":
        assert wanted == math.ceil(numbers[0] / 1024)
    elif claim.id == "units":
        assert [wanted[0], wanted[-1]] == numbers
    else:
        assert numbers == ([float(n) for n in wanted] if isinstance(wanted, list) else [wanted])


SAID_IN_WORDS = ["one-column-parameters", "dropout-mean", "recipe-trains", "specialization-recurs"]
SAID_IN_WORDS += ["kernels", "columns-meet", "overlap-sizes"]


def test_what_counts_as_agreement_is_said():
    assert parsed().agreement() == "agrees if 0.5 to 1.5 and the interval excludes 0"
    assert parsed(agree={"range": [2, None]}).agreement() == "agrees if at least 2"
    assert (
        parsed(agree={"range": [None, -2], "against": 0}).agreement()
        == "agrees if at most -2 and the interval excludes 0"
    )
    assert parsed(agree={"near": 3, "within": 0}).agreement() == "agrees if 3"
    assert parsed(agree={"equals": 1.0}).agreement() == "agrees if equal"
    single = {"experiment": "devices", "ratio": [["a"], ["b"]]}
    assert (
        parsed(test=single, agree={"range": [0.5, 1], "against": 1}).agreement()
        == "agrees if 0.5 to 1"
    )  # no seeds, no interval


def test_the_papers_numbers_follow_from_its_logs():
    said = {claim.id: (claim.paper, claim.logged()) for claim in claims.load() if claim.log}
    assert len(said) >= 8
    logged = {value for _, value in said.values()}
    assert {"37.47 %", "17.00 %", "39.02 %", "18.30 %", "40.66 %", "18.21 %"} <= logged
    assert {
        "+1.70 points",
        "+1.23 points",
        "+1.37 points",
        "+1.15 points",
        "+0.39 points",
        "+0.30 points",
    } <= logged
    assert labnotebook.sources(
        next(claim.log.split(".")[0] for claim in claims.load() if claim.log)
    )


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An archive, and runs, that hold what a test puts there."""
    monkeypatch.setattr(results, "ARCHIVE", tmp_path / "archive")
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "runs"))

    def put(profile, where="archive", gain=0.01, **more):
        folder = tmp_path / where / profile / ("results" if where == "runs" else "")
        names = ("images", "train_images", "sample", "classes", "train_error", "overfitting")
        others = dict.fromkeys((*names, "iterations", "val_error", "loss"), 1)
        for arm, over in (("full", 0.0), ("no-lrn", gain)):
            for seed in range(3):
                nets = {"views": {"10": {"top1": 0.4 + over, "top5": 0.2}}}
                about = {"arm": arm, "seed": seed, "profile": profile, **more}
                record = result(others | {"nets": nets}, **about)
                record["provenance"] = {"seconds": {"training": 1, "measuring": 1}}
                path = results.save(record, folder)
        return path

    return put


def lrn(**options):
    return {one.claim.id: one for one in claims.judge_all(**options)}["lrn-top1"]


def test_the_largest_data_decide_whatever_comes_out_there(places):
    assert lrn().verdict == "not yet run"
    places("embedded")
    assert (lrn().verdict, lrn().profile) == ("reproduced", "embedded")
    places("ilsvrc2012", gain=-0.01)
    assert (lrn().verdict, lrn().profile) == ("not reproduced", "ilsvrc2012")
    assert lrn(profile="embedded").verdict == "reproduced"
    assert lrn(profile="cifar10").verdict == "not yet run"


def test_ones_own_results_decide_when_asked_for(places):
    places("embedded", where="runs")
    assert lrn().verdict == "not yet run" and lrn(own=True).verdict == "reproduced"


def test_imagenets_errors_are_judged_on_imagenet_only(places):
    places("embedded", experiment="table1")
    only = {claim.id: claim.test["only_on"] for claim in claims.load() if "only_on" in claim.test}
    assert set(only) >= {"ilsvrc2010-top1", "ilsvrc2012-top5", "cifar-lrn", "fall2009-top1"}
    judged_all = claims.judge_all()
    assert {one.verdict for one in judged_all if one.claim.id in only} == {"not yet run"}


def test_a_damaged_result_is_named(places, capsys):
    path = places("embedded")
    path.write_text(path.read_text()[:100])
    assert main(["claims"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line and "is damaged: remove it" in line
    path.write_text("[]")
    with pytest.raises(InputError, match="is damaged"):
        claims.judge_all()


def test_what_the_archive_says_of_figure_1_is_what_chapter_3_says():
    found = {one.claim.id: one for one in claims.judge_all()}["relu-six-times"]
    cells = json.loads((ROOT / "book" / "03-architecture.ipynb").read_text())["cells"]
    printed = "".join(
        "".join(out.get("text", "")) for cell in cells for out in cell.get("outputs", [])
    )
    said = re.findall(r"^verdict: (.+)$", printed, flags=re.MULTILINE)
    assert said in ([], [found.verdict])  # the page may come to leave it to appendix D


def test_json_is_complete_and_standard(capsys, places):
    places("embedded")
    assert main(["claims", "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert told["counts"] == reports.count(claims.judge_all()) and len(told["claims"]) == len(
        claims.load()
    )
    one = next(claim for claim in told["claims"] if claim["id"] == "ten-views-top1")
    assert one["log"] == "-1.55 points" and one["chapter"] == "06-results"
    one = next(claim for claim in told["claims"] if claim["id"] == "lrn-top1")
    assert len(one["by_seed"]) == 3 and one["mean"] == pytest.approx(
        sum(one["by_seed"]) / 3
    ) == pytest.approx(1)
    assert one["half_width"] == pytest.approx(0, abs=1e-9)
