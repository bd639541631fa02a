"""What is read out of an experiment's metrics, and the estimate that is made of it."""

import pytest

from alexnet.claims.measuring import Missing, measure
from tests.evidence import by_seed, errors, parsed, parsed_test


def test_independent_arms_are_not_paired_by_seed():
    metrics = errors((0.11, 0.51, 0.91), (0.1, 0.5, 0.9))  # a point each; seeds differ by eighty
    apart, test = measure(parsed(), metrics), parsed().test
    assert apart.effect == pytest.approx(1) and apart.interval[0] < -50 and apart.seeds == 3
    paired = measure(parsed(test=test | {"paired": True}), metrics)
    assert paired.interval == pytest.approx((1, 1)) and paired.estimate.arms == 1
    uneven = measure(parsed(), errors((0.5, 0.6, 0.7, 0.8), (0.4, 0.5)))
    assert uneven.seeds == 2 and [len(arm) for arm in uneven.values] == [4, 2]


def test_what_has_no_seeds_goes_with_each():
    metrics = {"neighbors": {"0": {"fc7": 0.5}, "1": {"fc7": 0.6}}, "pixels": 0.1}
    test = {"form": "difference", "arm": "neighbors", "against": "pixels", "path": ["ARM"]}
    one = measure(parsed_test("points", 1, **test), {"neighbors": 0.5, "pixels": 0.1})
    assert one.effect == pytest.approx(40) and one.interval is None
    test["path"] = ["neighbors", "*", "fc7"]
    value = {"form": "value", "path": test["path"]}
    assert measure(parsed_test("points", 1, **value), metrics).effect == pytest.approx(55)


def test_a_path_may_name_several_of_which_the_first_that_is_there_counts():
    claim = parsed_test("points", 1, form="value", path=[["test", "nets"], "*"])
    assert measure(claim, {"nets": {"0": 0.2}}).effect == pytest.approx(20)
    assert measure(claim, {"nets": {"0": 0.2}, "test": None}).effect == pytest.approx(20)
    assert measure(claim, {"nets": {"0": 0.2}, "test": {"0": 0.3}}).effect == pytest.approx(30)
    with pytest.raises(Missing, match="test or nets"):
        measure(claim, {})


@pytest.mark.parametrize(
    ("metrics", "lacks"),
    [
        ({}, "nets"),
        ({"nets": {"without": 3, "with": {}}}, "nets > without > \\*"),
        ({"nets": {"without": {}, "with": {}}}, "nets > without > \\*"),
        (errors(({},), (0.5,)), "number for seed 0"),
        (errors((None,), (0.5,)), "number for seed 0"),
    ],
)
def test_what_is_not_there_is_missing(metrics, lacks):
    with pytest.raises(Missing, match=lacks):
        measure(parsed(), metrics)


TIMES = {"form": "times", "arm": "slow", "against": "fast", "path": ["ARM", "*"]}


def times(slow, fast, limit=("limit",), **more):
    claim = parsed_test(**TIMES, **({"limit": list(limit)} if limit else {}))
    return measure(claim, {"slow": by_seed(slow), "fast": by_seed(fast), "limit": 20} | more)


@pytest.mark.parametrize(
    ("slow", "fast", "shown", "side"),
    [
        ([18, 20], [3, 3], "6.3 (3.2 to 12.3) times, 2 seeds", 1),
        ([None, None], [3, 3], "more than 6.6 times, medians of 2 seeds", 1),
        ([None, 16], [10, 10], "1.60 times, medians of 2 seeds", 1),
        ([10, 10], [None, None], "less than 0.50 times, medians of 2 seeds", -1),
        ([None, None], [None, None], "beyond the budget, medians of 2 seeds", 0),
    ],
)
def test_what_did_not_arrive_bounds_a_ratio(slow, fast, shown, side):
    found = times(slow, fast)
    assert found.shown().startswith(shown.split(" (")[0]) and found.side == side
    assert (found.interval is None) == ("(" not in shown) == (found.estimate is None)
    assert found.shown().endswith(shown.rsplit(", ")[-1])


def test_a_limit_may_differ_from_arm_to_arm_and_without_one_a_number_is_missing():
    given = {"steps": {"slow": by_seed([40, 40]), "fast": by_seed([20, 20])}}
    found = times([None, None], [10, 10], ("steps", "ARM", "*"), **given)
    assert found.effect == pytest.approx(4) and found.bound == 1
    with pytest.raises(Missing, match="number for seed 0"):
        times([None], [3], limit=None)


def test_factors_are_compared_by_their_logarithms():
    test = {"form": "ratio", "arm": "slow", "against": "fast", "path": ["ARM", "*"]}
    metrics = {"slow": by_seed([8.0, 2.0]), "fast": by_seed([1.0, 1.0])}
    found = measure(parsed_test(**test), metrics)
    assert found.effect == pytest.approx(4)  # the geometric mean
    low, high = found.interval
    assert low * high == pytest.approx(16)
    with pytest.raises(Missing, match="positive numbers"):
        measure(parsed_test(**test), metrics | {"fast": by_seed([0.0, 1.0])})


def test_a_single_run_has_no_interval():
    found = measure(parsed(), errors((0.5,), (0.4,)))
    assert found.shown() == "+10.0 points, 1 seed" and found.interval is None and found.p == 1
    assert found.size == ""


def test_an_average_needs_its_interval():
    claim = parsed_test("percent", 0.5, form="estimate", path=["a"], interval=["ends"])
    found = measure(claim, {"a": 0.38, "ends": [0.37, 0.39]})
    assert found.shown() == "38.0 ± 1.0 %, bootstrap over images"
    with pytest.raises(Missing, match="interval"):
        measure(claim, {"a": 0.38, "ends": 3})
    with pytest.raises(Missing, match="ends"):
        measure(claim, {"a": 0.38})
