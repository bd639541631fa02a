"""Rates by epoch: the logged falls of 2012, and falls when the validation error stops improving."""

import json
import math
from dataclasses import replace

import pytest

from alexnet.errors import InputError
from alexnet.presets import PAPER, SOURCE
from alexnet.training.schedule import SCHEDULES, Schedule


def rates(epoch, layer="conv3", bias=False, epochs=93.0):
    return Schedule.of(SOURCE.recipe, epochs).rate(epoch, layer, "bias" if bias else "weight")


def test_the_sources_rates_at_their_logged_epochs():
    assert [rates(e) for e in (0, 22, 23, 50, 51, 77, 78, 92)] == pytest.approx(
        [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5]
    )
    assert [rates(e, bias=True) for e in (0, 22, 23, 92)] == pytest.approx(
        [0.02, 0.02, 0.002, 0.002]
    )
    assert [rates(e, "conv1") for e in (67, 68, 71, 72, 92)] == pytest.approx(
        [1e-4, 1e-5, 1e-5, 0, 0]
    )
    assert rates(72, "conv1", bias=True) == 0


def test_the_logged_scale_stretches_to_the_budget():
    assert rates(2.2, epochs=9.3) == pytest.approx(1e-2) and rates(
        2.31, epochs=9.3
    ) == pytest.approx(1e-3)


def test_color_goes_off_when_logged():
    schedule = Schedule.of(SOURCE.recipe, 93.0)
    assert schedule.color(67) and not schedule.color(68)
    assert Schedule.of(PAPER.recipe, 93.0).color(92)


def test_plateau_falls_three_times_then_ends():
    schedule, seen = Schedule.of(PAPER.recipe, 36.0), []
    assert schedule.patience == 3
    for epoch, error in enumerate([0.9, 0.8, 0.7] + [0.7] * 15):
        assert not schedule.finished
        seen.append(round(-math.log10(schedule.rate(epoch, "fc6"))))
        schedule.observe(error, started=True)
    # three epochs without a better error; then, at each new rate, one epoch that sets the mark and
    # three that do not beat it
    assert seen == [2] * 6 + [3] * 4 + [4] * 4 + [5] * 4
    assert schedule.finished and schedule.falls == 3


def test_waiting_begins_when_the_net_has_left_chance():
    schedule = Schedule.of(PAPER.recipe, 36.0)
    for _ in range(30):
        schedule.observe(0.975, started=False)
    assert schedule.falls == 0


def restored(state, recipe=PAPER.recipe):
    schedule = Schedule.of(recipe, 36.0)
    schedule.restore(json.loads(json.dumps(state)))
    return schedule


def test_state_survives_json():
    schedule = Schedule.of(PAPER.recipe, 36.0)
    assert restored(schedule.state()) == schedule
    schedule.observe(0.5, started=True)
    assert restored(schedule.state()) == schedule
    schedule.observe(0.6, started=True)
    assert restored(schedule.state()) == schedule and schedule.waited == 1


def test_schedules_without_state_take_that_of_older_checkpoints():
    for recipe in (SOURCE.recipe, replace(PAPER.recipe, schedule="constant")):
        schedule = Schedule.of(recipe, 36.0)
        assert restored(schedule.state(), recipe) == schedule
        assert restored(Schedule.of(PAPER.recipe, 36.0).state(), recipe) == schedule


@pytest.mark.parametrize(
    "change",
    [
        {"falls": 4},
        {"falls": -1},
        {"falls": True},
        {"waited": 1.0},
        {"best": "x"},
        {"best": math.nan},
        {"finished": 0},
        {"epochs": None},
    ],
)
def test_a_state_that_is_none_is_refused_by_name(change):
    ((name, value),) = change.items()
    with pytest.raises(InputError, match=f"its schedule's {name} is {value!r}"):
        restored(Schedule.of(PAPER.recipe, 36.0).state() | change)


def test_a_state_with_other_entries_is_refused():
    names = "epochs, patience, falls, best, waited, finished"
    for state in ({}, None, [], Schedule.of(PAPER.recipe, 36.0).state() | {"more": 1}):
        with pytest.raises(InputError, match=f"without {names} or with more"):
            restored(state)


def test_every_word_has_its_schedule():
    for word, kind in SCHEDULES.items():
        assert type(Schedule.of(replace(PAPER.recipe, schedule=word), 9.0)) is kind
    assert Schedule.of(replace(PAPER.recipe, schedule="constant"), 9.0).rate(8, "conv1") == 0.01
