"""How a verdict follows from numbers, plans and profiles."""

import json
import math

import pytest

from alexnet import arithmetic, claims, results
from alexnet.claims import judging, plans
from alexnet.claims.judging import CHANGED, EXPLORATORY, NO_ARCHIVE, PLANNED, candidate
from alexnet.cli import main
from alexnet.errors import InputError
from tests.evidence import by_seed, errors, evidence, judged, parsed, parsed_test, plan, result

ARITHMETIC = {
    "exact": "parameters neurons layers fewer-parameters training-images "
    "columns-meet one-column-parameters fc6-share overlap-sizes inputs kernels "
    "conv1-side units label-bits dropout-mean three-falls cycles",
    "slip": "connections convolutions-share conv1-units crops-factor one-rate",
}


def test_every_arithmetic_verdict_is_as_known():
    found = {c.id: claims.judge(c) for c in claims.load() if "compute" in c.test}
    assert {name: one.verdict for name, one in found.items()} == {
        name: verdict for verdict, names in ARITHMETIC.items() for name in names.split()
    }
    for one in found.values():
        assert one.shown and one.on == "arithmetic" and one.measured is None
        assert (one.verdict == "slip") == bool(one.why) == bool(one.claim.slip)
    assert (arithmetic.parameters(), arithmetic.neurons()) == (60_965_224, 659_272)
    assert "290,400" in found["conv1-units"].shown  # printed as 253,440


@pytest.mark.parametrize(
    ("without", "verdict", "said"),
    [
        ((0.45, 0.461, 0.441, 0.45, 0.449), "supported", ""),
        ((0.35, 0.361, 0.341, 0.35, 0.349), "contradicted", "the opposite sign"),
        ((0.45, 0.35, 0.42, 0.40, 0.44), "inconclusive", "5 seeds could have shown"),
        ((0.45, 0.46), "inconclusive", "2 of 3 seeds an arm"),
        ((0.45,), "inconclusive", "1 of 3 seeds an arm"),
    ],
)
def test_the_side_of_a_difference(without, verdict, said):
    one = judged(without)
    assert one.verdict == verdict and said in one.why and one.status == PLANNED
    mean = 100 * (sum(without) / len(without) - 0.40)
    assert one.measured.effect == pytest.approx(mean)


def test_a_difference_inside_the_margin_is_none():
    base = (0.400, 0.401, 0.399, 0.400)
    level = judged((0.401, 0.402, 0.400, 0.401), base)  # 0.1 points, and the interval excludes 0
    assert level.verdict == "contradicted" and "inside the margin" in level.why
    assert level.measured.p < 0.5 and level.measured.side == 1
    assert judged((0.401, 0.402, 0.400, 0.401), base, margin=0.05).verdict == "inconclusive"
    assert judged(tuple(v + 0.02 for v in base), base, sign="-").verdict == "contradicted"
    assert judged(tuple(v - 0.02 for v in base), base, sign="-").verdict == "supported"


def test_the_plans_margin_comes_before_the_claims():
    base = (0.400, 0.401, 0.399, 0.400)
    near = tuple(v + 0.004 for v in base)
    assert judged(near, base, margin=1.0).verdict == "contradicted"
    assert judged(near, base, margin=0.1).verdict == "supported"


def test_what_it_would_take_is_said():
    one = judged((0.45, 0.35, 0.42, 0.40, 0.44))
    assert one.needed > 100 and one.smallest > 3
    assert f"would take {one.needed:,} seeds an arm" in one.why
    assert f"5 seeds could have shown {one.smallest:.1f} points" in one.why


def test_a_family_is_corrected_by_holm():
    """Two claims of one experiment: each by itself would be supported."""
    near = (0.412, 0.425, 0.402, 0.416, 0.412)  # p = 0.03 or so
    alone = judged(near)
    assert alone.verdict == "supported" and 0.02 < alone.adjusted < 0.05
    given = evidence(errors(near, (0.40, 0.41, 0.39, 0.40, 0.40)), plan(made_up=0.5, other=0.5))
    (one,) = judging.judge_family([candidate(parsed(), given)])
    assert one.adjusted == pytest.approx(2 * alone.adjusted) and one.verdict == "inconclusive"
    pair = [candidate(parsed(id=name), given) for name in ("made-up", "other")]
    assert [one.adjusted for one in judging.judge_family(pair)] == [one.adjusted] * 2


def test_runs_without_a_plan_are_exploratory_and_decide_nothing():
    clear = errors((0.45, 0.461, 0.441, 0.45, 0.449), (0.40, 0.41, 0.39, 0.40, 0.40))
    named = plan(made_up=0.5)
    for given in (
        evidence(clear),
        evidence(clear, named, digests=[None, "d"]),
        evidence(clear, named, digests=[]),
        evidence(clear, plan(another=0.5)),
    ):
        one = judged((), given=given)
        assert one.status == EXPLORATORY and one.verdict == "inconclusive"
        assert one.why.startswith("exploratory") and one.measured.interval[0] > 0
    one = judged((), given=evidence(clear, named, digests=["d", "older"]))
    assert one.status == CHANGED and one.verdict == "supported"
    assert one.why.startswith("the plan changed after the runs")
    one = judged((), given=evidence(clear, plan(seeds=8, made_up=0.5)))
    assert one.verdict == "supported" and "5 of 8 planned seeds" in one.why
    one = judged((), given=evidence(clear, named), decides=["tiny-imagenet"])
    assert one.verdict == "not yet run" and "decides nothing" in one.why
    assert judged((), given=evidence(clear, named, digests=["d"])).provenance == {
        "folder": "results/cifar10/ablations",
        "entries": 1,
        "commits": ["c"],
        "processors": ["slow"],
    }


def test_the_papers_number_itself():
    test = {"experiment": "ablations", "form": "value", "path": ["nets", "with", "*", "top1"]}
    fields = {"test": test, "unit": "percent", "sign": "=", "size": 37.5, "seeds": 2}

    def of(*values, margin=0.5):
        given = evidence(errors((), values), plan(made_up=margin))
        return judged((), given=given, **fields)

    assert of(0.3745, 0.3755, 0.375).verdict == "supported"
    assert of(0.3945, 0.3955, 0.395).verdict == "contradicted"
    assert of(0.3545, 0.3555, 0.355).measured.side == -1
    assert of(0.36, 0.39, 0.375).verdict == of(0.375).verdict == "inconclusive"
    assert of(0.375, 0.376).measured.size == "the interval holds the paper's number"


def times(slow, fast, limit=20, margin=1.2, **fields):
    test = {"form": "times", "arm": "slow", "against": "fast", "path": ["ARM", "*"]}
    claim = parsed_test(limit=["limit"], margin=margin, **test)
    metrics = {"slow": by_seed(slow), "fast": by_seed(fast), "limit": limit}
    return judging.judge_family([candidate(claim, evidence(metrics, plan(made_up=margin)))])[0]


def test_a_bound_judges_the_side_and_never_the_size():
    never = times([None] * 5, [9, 10, 11, 10, 10])
    assert never.verdict == "supported" and never.measured.bound == 1
    assert never.shown == "more than 2.0 (at least 2.0) times, medians of 5 seeds"
    assert never.measured.p_within == 1 and never.smallest < 1.2 and never.needed == 4
    assert never.measured.size == "a bound, inconclusive on size"
    assert times([9, 10, 11, 10, 10], [None] * 5).verdict == "contradicted"
    few = times([None] * 3, [10, 10, 10])  # whatever they are, three cannot exclude chance
    assert few.verdict == "inconclusive" and "at least 4 seeds an arm, or a longer" in few.why
    assert times([None] * 5, [None] * 5).verdict == "inconclusive"
    assert few.smallest == math.inf and few.measured.interval is None
    assert times([None] * 5, [None] * 5).shown == "beyond the budget, medians of 5 seeds"
    late = times([None, 16, 17, 18, 19, 20], [10, None, 10, 9, 9, 11])  # most of both arrive
    assert late.shown == "1.80 (0.90 to 2.1) times, medians of 6 seeds"
    assert late.measured.bound == 0
    assert late.measured.size == "the interval holds the paper's number"
    arrived = times([18, 19, 20, 18, 19], [10, 10, 11, 10, 10])
    assert arrived.verdict == "supported" and arrived.measured.interval[0] > 1.7
    assert times([10, 11, 10, 11], [10, 10, 11, 11], margin=1.5).verdict == "contradicted"


@pytest.mark.parametrize(
    ("steps", "verdict"),
    [([3] * 6, "supported"), ([3] * 5, "inconclusive"), ([None] * 6, "contradicted")],
)
def test_a_share_is_judged_against_half(steps, verdict):
    claim = parsed_test("seeds", None, form="share", path=["left", "*"])
    given = evidence({"left": by_seed(steps)}, plan(made_up=None))
    one = judging.judge_family([candidate(claim, given)])[0]
    arrived = sum(step is not None for step in steps)
    assert one.verdict == verdict and one.shown.startswith(f"{arrived} of {len(steps)} seeds (")
    assert verdict != "inconclusive" or "at least 6 seeds an arm" in one.why


def test_an_average_is_judged_by_its_bootstrap():
    claim = parsed_test("points", 0.3, form="estimate", path=["gain"])
    for gain, verdict in (
        ([0.02, 0.015, 0.025], "supported"),
        ([-0.02, -0.025, -0.015], "contradicted"),
        ([0.0, -0.001, 0.001], "contradicted"),  # inside the margin
        ([0.02, -0.01, 0.05], "inconclusive"),
    ):
        claim = parsed_test("points", 0.3, form="estimate", path=["gain"])
        given = evidence({"gain": gain}, plan(made_up=0.3))
        one = judging.judge_family([candidate(claim, given)])[0]
        assert one.verdict == "inconclusive" and "1 of 3 seeds" in one.why  # as it asks
        single = parsed(test=claim.test, seeds=1)
        one = judging.judge_family([candidate(single, given)])[0]
        assert one.verdict == verdict and "bootstrap over images" in one.shown, gain


def test_one_claim_by_itself_and_what_is_missing():
    assert claims.judge(parsed()).verdict == "not yet run"
    missing = claims.judge(parsed(), result({"nets": {}}))
    assert missing.verdict == "not yet run" and "nets > without" in missing.why
    needs = parsed(test={}, decides=[], needs="a GTX 580")
    assert claims.judge(needs).verdict == "not testable here"
    assert claims.judge(needs).why == "needs a GTX 580"
    found = claims.judge(parsed(), result(errors((0.5, 0.6, 0.5), (0.4, 0.4, 0.4))))
    assert found.status == EXPLORATORY


# --- archives -------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An archive, runs and plans that hold what a test puts there."""
    monkeypatch.setattr(results, "ARCHIVE", tmp_path / "archive")
    monkeypatch.setattr(plans, "FOLDER", tmp_path / "plans")
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "runs"))
    (tmp_path / "archive").mkdir()
    (tmp_path / "plans").mkdir()

    def put(profile, where="archive", gain=0.05, planned=True, **more):
        """Three seeds of the full net and of that without normalization."""
        if planned:
            part = {"arms": ["full", "no-lrn"], "seeds": 3, "epochs": 1, "stopping": "none"}
            part |= {"metric": "top-1", "claims": {"lrn-top1": 0.4}}
            (tmp_path / "plans" / f"{profile}.yml").write_text(json.dumps({"ablations": part}))
        digest = plans.digest(profile, "ablations") if planned else None
        folder = tmp_path / where / profile / ("results" if where == "runs" else "")
        names = ("images", "train_images", "sample", "classes", "train_error", "overfitting")
        others = dict.fromkeys((*names, "iterations", "val_error", "loss"), 1)
        for arm, over in (("full", 0.0), ("no-lrn", gain)):
            for seed in range(3):
                views = {"10": {"top1": 0.4 + over + seed / 1000, "top5": 0.2}}
                about = {"arm": arm, "seed": seed, "profile": profile, "plan": digest, **more}
                record = result(others | {"nets": {"views": views}}, **about)
                record["provenance"] = {"seconds": {"training": 1, "measuring": 1}}
                path = results.save(record, folder)
        return path

    return put


def lrn(**options):
    return {one.claim.id: one for one in claims.judge_all(**options)}["lrn-top1"]


def test_the_first_data_set_of_the_order_that_was_planned_decides(places):
    assert lrn().verdict == "not yet run"
    places("tiny-imagenet-cpu")
    assert (lrn().verdict, lrn().profile) == ("supported", "tiny-imagenet-cpu")
    places("tiny-imagenet", planned=False, gain=-0.05)
    assert (lrn().verdict, lrn().profile) == ("supported", "tiny-imagenet-cpu")
    places("tiny-imagenet", gain=-0.05)  # the full data set comes first, whatever it says
    assert (lrn().verdict, lrn().profile) == ("contradicted", "tiny-imagenet")
    assert lrn(profile="cifar10").verdict == "not yet run"
    order = claims.contents()["profiles"]
    places_of = [
        order.index(name) for name in ("tiny-imagenet", "tiny-imagenet-cpu", "caltech101-cpu")
    ]
    assert places_of == sorted(places_of) < [order.index("cifar10")]


def test_pictographs_demonstrate(places):
    places("embedded", planned=False)
    assert "embedded" not in claims.contents()["profiles"]
    assert lrn().verdict == "not yet run" and lrn().measured is None
    shown = lrn(profile="embedded")
    assert shown.verdict == "not yet run" and shown.measured.effect == pytest.approx(5)
    assert "a demonstration, which decides nothing" in shown.why
    for one in claims.judge_all("embedded"):
        assert one.verdict in ("exact", "slip", "not yet run", "not testable here")


def test_a_plan_that_changes_after_the_runs_is_told(places, tmp_path):
    places("tiny-imagenet-cpu")
    assert lrn().status == PLANNED and lrn().plan == plans.digest("tiny-imagenet-cpu", "ablations")
    file = tmp_path / "plans" / "tiny-imagenet-cpu.yml"
    file.write_text(file.read_text().replace("0.4", "0.3"))
    assert lrn().status == CHANGED and lrn().verdict == "supported"
    file.unlink()
    assert lrn().status == EXPLORATORY and lrn().verdict == "inconclusive"


def test_ones_own_results_decide_when_asked_for(places):
    places("tiny-imagenet-quarter", where="runs")
    assert lrn().verdict == "not yet run" and lrn(own=True).verdict == "supported"


def test_a_damaged_result_is_named(places, capsys):
    path = places("tiny-imagenet-quarter")
    path.write_text(path.read_text()[:100])
    assert main(["claims"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line and "is damaged: remove it" in line
    path.write_text("[]")
    with pytest.raises(InputError, match="is damaged"):
        claims.judge_all()


def test_without_an_archive_nothing_is_called_not_yet_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "ARCHIVE", tmp_path / "nowhere")
    verdicts = {one.verdict for one in claims.judge_all()}
    assert verdicts == {"exact", "slip", "not testable here", NO_ARCHIVE}
    assert main(["claims"]) == 0
    said = capsys.readouterr().out
    assert f"the archive {tmp_path / 'nowhere'} is missing: run this in a clone" in said
    assert "not yet run" not in said
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "runs"))
    assert NO_ARCHIVE not in {one.verdict for one in claims.judge_all(own=True)}


def test_what_could_have_been_seen_is_a_factor_where_factors_are_compared():
    one = times([10, 14, 9, 13, 12], [10, 12, 9, 11, 13])
    assert one.verdict == "inconclusive" and 1 < one.smallest < 3 and math.isfinite(one.smallest)
