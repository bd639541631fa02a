"""The pilot: spread of one net's runs, and what more of them could show."""

import re

import pytest

from alexnet.experiments import ablations, pilot
from tests.experiments import drawn, own, run


def test_the_pilot_shares_the_runs_of_the_ablations_and_never_sees_the_test(packs72, serial, runs):
    base = {"base": "paper/sigma-0.03/constant-rate", "epochs": 1, "batch_size": 12}
    settings = {"pilot": {"arms": ["full"]}, "ablations": {"arms": ["full"], "sample": 5}}
    profile = own(packs72, **settings, **base, image_size=64, width=1 / 16, rate=0.001)
    entries = pilot.entries(profile, [0, 1])
    assert all(set(entry.packs) == {"train", "val"} for entry in entries)
    assert [entry.jobs[0].key for entry in entries] == [
        entry.jobs[0].key for entry in ablations.entries(profile, [0, 1])
    ]
    metrics = run(pilot, profile, [0, 1])
    assert metrics["val_images"] == 6 and len(metrics["arms"]["full"]["val_error"]["1"]) == 1


def test_the_table_says_which_effects_so_many_seeds_would_show():
    kinds = {
        "val_error": {"0": [0.9, 0.76], "1": [0.9, 0.75]},
        "train_error": {"0": [0.9, 0.8], "1": [0.9, 0.8]},
        "seconds": {"0": 3600.0, "1": 7200.0},
    }
    metrics = {"epochs": 2.0, "train_images": 1000, "arms": {"full": kinds}}
    row = re.split(r"  +", pilot.table({"metrics": metrics}).splitlines()[1].strip())
    # a spread of 0.71 points; from a table of the t test's power: 2.024 and 1.507 spreads, 8 an arm
    assert row[1:4] == ["75.5 ± 6.4 %", "0.71", "1.5"]
    assert float(row[6]) == pytest.approx(1.507 * 0.7071, abs=0.06)
    drawn(pilot.plot, {"metrics": metrics})
