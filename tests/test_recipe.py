"""What the recipe depends on: when a net has left ln(classes), arms, and the table."""

import math

import matplotlib
import numpy as np
import pytest

from alexnet.errors import InputError
from alexnet.experiments import recipe
from alexnet.training import log
from tests.experiments import TINY, configs, drawn, own, run

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_means_over_windows():
    assert log.means([1.0, 3.0, 5.0, 7.0, 100.0], window=2) == [2.0, 6.0]
    assert log.means([1.0, 2.0, 3.0], window=3) == [2.0] and log.means([1.0], window=2) == []


def test_a_net_has_left_when_the_mean_of_a_window_has_fallen_far_enough():
    high, low = math.log(10), math.log(10) - 1
    assert (
        recipe.left_at([high] * 10 + [low] * 10, 10, window=5, drop=0.19) == 11
    )  # one low in five: a fall of 0.2
    assert recipe.left_at([high] * 10 + [low] * 10, 10, window=5, drop=0.21) == 12
    assert recipe.left_at([low] * 20, 10, window=5, drop=0.2) == 5  # not before a window is full
    assert recipe.left_at([high] * 100, 10, window=5, drop=0.2) is None
    assert (
        recipe.left_at([low] * 4, 10, window=5, drop=0.2) is None and recipe.left_at([], 10) is None
    )
    noisy = list(np.random.default_rng(0).normal(2.2, 0.3, 400))
    slow = next(
        (i for i in range(50, 401) if np.mean(noisy[i - 50 : i]) <= math.log(10) - 0.15), None
    )
    assert slow is not None and recipe.left_at(noisy, 10, window=50, drop=0.15) == slow


def test_the_recipe_runs_every_arm_and_only_two_have_a_fall(packs72, serial, runs, monkeypatch):
    monkeypatch.setattr(recipe, "WINDOW", 2)
    monkeypatch.setattr(recipe, "AFTER", 1)
    arms = list(recipe.ARMS)
    profile = own(packs72, recipe={"epochs": 4, "arms": arms}, **TINY)
    metrics = run(recipe, profile, [0])
    assert metrics["arms"].keys() == recipe.ARMS.keys() and (
        metrics["classes"],
        metrics["steps"],
        metrics["images"],
    ) == (3, 12, 36)
    presets = sorted(config["preset"] for config in configs(profile))
    assert presets == sorted(recipe.preset(arm) for arm in recipe.ARMS.values())
    assert all(set(config["data"]) == {"train"} for config in configs(profile))
    assert metrics["after_the_fall"].keys() == {"rate inside", "rate outside"}
    inside, outside, plain = (
        metrics["arms"][name]["loss"]["0"] for name in ("rate inside", "rate outside", "sigma-0.03")
    )
    assert inside[:4] == outside[:4] == plain[:4]  # until the fall
    assert metrics["arms"]["sigma-0.03"]["end"]["0"] == plain[-1]
    said = recipe.table({"metrics": metrics})
    assert all(arm.what in said for arm in recipe.ARMS.values())
    drawn(recipe.plot, {"metrics": metrics})


def test_a_profile_may_name_some_of_the_recipes_arms(packs72, serial, shared_runs):
    profile = own(
        packs72,
        recipe={"epochs": 1, "arms": ["source", "he-init"]},
        image_size=64,
        width=1 / 16,
        batch_size=12,
    )
    metrics = run(recipe, profile, [0])
    assert list(metrics["arms"]) == ["source", "he-init"] and metrics["steps"] == 3
    said = recipe.table({"metrics": metrics})
    assert (
        recipe.ARMS["source"].what in said and recipe.ARMS["text"].what not in said.splitlines()[1]
    )
    drawn(recipe.plot, {"metrics": metrics})
    with pytest.raises(InputError, match="recipe has no arm 'nosuch'; it has text, "):
        run(recipe, own(packs72, recipe={"epochs": 1, "arms": ["nosuch"]}), [0])


def test_the_recipes_table_says_who_trains_and_when():
    steps = {"steps": {"0": 628, "1": 628}}
    never = {
        "left_at_step": {"0": None, "1": None},
        "end": {"0": 3.69, "1": 3.7},
        "diverged_at": {"0": None, "1": None},
    } | steps
    arms = dict.fromkeys(recipe.ARMS, never)
    arms["source"] = {
        "left_at_step": {"0": 430, "1": None},
        "end": {"0": 3.1, "1": 3.7},
        "diverged_at": {"0": None, "1": None},
    } | steps
    arms["he-init"] = {
        "left_at_step": {"0": None, "1": None},
        "end": {"0": None, "1": 3.7},
        "diverged_at": {"0": 7, "1": None},
    } | steps
    arms["text"] = never | {"steps": {"0": 3768, "1": 3768}}
    said = recipe.table(
        {
            "metrics": {
                "classes": 40,
                "steps": 628,
                "arms": arms,
                "after_the_fall": {"rate inside": {"0": 3.25}},
            }
        }
    )
    rows = {line.strip()[:20].strip(): line for line in said.splitlines()}
    assert (
        "0 of 2" in rows["the text: sigma 0.01"]
        and "not in 3,768  " in rows["the text: sigma 0.01"]
    )
    assert "1 of 2" in rows["all of the source's"] and " 430  " in rows["all of the source's"]
    assert rows["all of the source's"].endswith(" 3.10 to 3.70")
    he = rows["He's initialization,"]
    assert "diverges at 7  " in he and he.endswith(" 3.70")
    assert "not in 628  " in rows["pixels in 0..1"]
    assert "0.2 nats below ln 40 = 3.69 nats, within 628 steps" in said
    assert "rate inside the velocity, mean loss of the 20 steps after the fall: 3.250" in said


def test_steps_are_drawn_for_each_run_those_censored_at_their_budget():
    arms = {
        "text": {"left_at_step": {"0": 120, "1": None}, "steps": {"0": 120, "1": 500}},
        "sigma-0.03": {"left_at_step": {"0": 60, "1": 70}, "steps": {"0": 60, "1": 70}},
    }
    figure = recipe.plot_steps({"metrics": {"arms": arms}})
    places = [(float(line.get_xdata()[0]), line.get_marker()) for line in figure.axes[0].lines]
    assert places == [(60, "o"), (70, "o"), (120, "o"), (500, "x")]
