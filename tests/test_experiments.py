"""Experiments: entries that are run once and remembered, by what they follow from; and the protocol
that every module keeps."""

import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from alexnet import experiments, profiles, results
from alexnet.data.pack import open_splits
from alexnet.errors import InputError
from alexnet.experiments import store
from alexnet.experiments.protocol import Entry, Experiment, common
from tests.experiments import own

pytestmark = pytest.mark.usefixtures("runs")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.json")}


@pytest.fixture
def counted(monkeypatch, packs32, tmp_path):
    """An experiment of two arms that counts what it measures, as figure1."""
    given = {"budget": 3, "arms": ["one", "two"]}
    calls = []

    def entries(profile, seeds):
        packs = profile.splits()
        budget = {"budget": given["budget"]}
        return [Entry(arm, seed, packs, (), budget) for arm in given["arms"] for seed in seeds]

    def measure(entry, runs):
        calls.append((entry.arm, entry.seed))
        return {"images": 8, "error": 0.25 + entry.seed}

    def collect(records):
        sizes = common([record["metrics"] for record in records], "images")
        return sizes | {f"{r['arm']} {r['seed']}": r["metrics"]["error"] for r in records}

    fake = SimpleNamespace(
        NAME="figure1", VERSION=1, entries=entries, measure=measure, collect=collect
    )
    monkeypatch.setattr(experiments, "module", lambda name: fake)
    monkeypatch.setattr(profiles, "load", lambda name: own(packs32, figure1=given))
    archive = tmp_path / "archive" / "own" / "figure1"
    return SimpleNamespace(calls=calls, given=given, fake=fake, archive=archive)


def test_an_entry_is_remembered_and_not_run_again(counted, runs, packs32):
    first = experiments.result("figure1", "own", [0, 1])
    assert experiments.result("figure1", "own", (0, 1)) == first
    assert counted.calls == [("one", 0), ("one", 1), ("two", 0), ("two", 1)]
    assert first["seeds"] == [0, 1] and first["experiment"] == "figure1"
    assert first["metrics"] == {
        "images": 8, "one 0": 0.25, "one 1": 1.25, "two 0": 0.25, "two 1": 1.25
    }  # fmt: skip
    file = runs / "own" / "results" / "figure1" / "two-1.json"
    record = json.loads(file.read_text())
    assert (record["arm"], record["seed"], record["profile"]) == ("two", 1, "own")
    assert record["settings"] == {"budget": 3} and record["metrics"]["error"] == 1.25
    assert first["data"]["title"] == "shapes"
    assert first["data"]["digests"]["test"] == open_splits(packs32)["test"].digest
    seconds = record["provenance"]["seconds"]
    assert seconds["training"] is None and seconds["measuring"] >= 0
    assert experiments.load("figure1", file.parents[1])["metrics"] == first["metrics"]


def test_two_entries_that_would_share_a_file_are_refused(counted):
    counted.given["arms"] = ["a b", "a-b"]
    with pytest.raises(InputError, match="two entries of figure1 have"):
        experiments.result("figure1", "own", [0])


def test_time_and_origin_of_a_run_that_entries_share_count_once():
    one = {"run": "r", "seconds": 60.0, "steps": 9, "commit": "aaa", "hardware": {"processor": "P"}}
    two = one | {"run": "s", "seconds": 5.0, "commit": "bbb", "hardware": {"processor": "Q"}}
    measured = {"commit": "ccc", "hardware": {"processor": "Q"}, "versions": {}}
    provenances = [
        measured | {"seconds": {"training": 60.0, "measuring": 1.0}, "training": [one]},
        measured | {"seconds": {"training": 65.0, "measuring": 2.0}, "training": [one, two]},
        measured | {"seconds": {"training": None, "measuring": None}},  # archived before
    ]
    whole = store.together(provenances)
    assert whole["seconds"] == {"training": 65.0, "measuring": 3.0}
    assert whole["commits"] == ["aaa", "bbb", "ccc"] and whole["processors"] == ["P", "Q"]


@pytest.mark.parametrize("change", ["seed", "arm", "nothing"])
def test_what_is_added_is_all_that_is_run(counted, change):
    experiments.result("figure1", "own", [0], archive=True)
    before = contents(counted.archive)
    counted.calls.clear()
    if change == "arm":
        counted.given["arms"].append("three")
    seeds = [0, 1] if change == "seed" else [0]
    grown = experiments.result("figure1", "own", seeds, archive=True)
    new = {"seed": [("one", 1), ("two", 1)], "arm": [("three", 0)], "nothing": []}[change]
    assert counted.calls == new and len(grown["metrics"]) == 1 + 2 + len(new)
    after = contents(counted.archive)
    assert before.items() <= after.items() and len(after) == 2 + len(new)


@pytest.mark.parametrize("change", ["budget", "version"])
def test_what_no_longer_fits_is_made_again_and_other_seeds_go(counted, change, capsys):
    experiments.result("figure1", "own", [0, 1], archive=True)
    counted.calls.clear()
    if change == "budget":
        counted.given["budget"] = 4
    else:
        counted.fake.VERSION = 2
    experiments.result("figure1", "own", [0], archive=True)
    assert counted.calls == [("one", 0), ("two", 0)]
    assert set(contents(counted.archive)) == {"one-0.json", "two-0.json"}
    assert "one-1.json: removed, it is of other settings" in capsys.readouterr().out


def test_an_arm_that_a_profile_lists_no_more_goes(counted):
    experiments.result("figure1", "own", [0, 1], archive=True)
    del counted.given["arms"][0]
    experiments.result("figure1", "own", [0], archive=True)
    assert set(contents(counted.archive)) == {"two-0.json", "two-1.json"}
    assert len(counted.calls) == 4


def test_the_archive_is_shown_and_never_trained_for(counted, capsys):
    assert experiments.show("figure1", "archive", "own") is None
    assert capsys.readouterr().out == "figure1, profile own: not yet run\n"
    experiments.result("figure1", "own", archive=True)
    assert len(counted.calls) == 2
    shown = experiments.show("figure1", "archive", "own", seeds=(5, 6))
    assert shown is not None and shown["seeds"] == [0] and len(counted.calls) == 2
    assert experiments.show("figure1", "archive", "another") is None
    assert experiments.show("figure1", "own", seeds=[7])["seeds"] == [7]
    assert counted.calls[2:] == [("one", 7), ("two", 7)]


@pytest.mark.parametrize("first", [False, True])
def test_runs_and_archive_take_from_each_other(counted, runs, first):
    experiments.result("figure1", "own", archive=first)
    if first:
        for path in (runs / "own" / "results" / "figure1").iterdir():
            path.unlink()
    experiments.result("figure1", "own", archive=True)
    assert len(counted.calls) == 2
    assert contents(counted.archive) == contents(runs / "own" / "results" / "figure1")


def test_entries_that_differ_where_they_must_not_are_no_result(counted, runs):
    experiments.result("figure1", "own", [0, 1])
    path = runs / "own" / "results" / "figure1" / "two-1.json"
    path.write_text(path.read_text().replace('"images": 8', '"images": 9'))
    with pytest.raises(InputError, match="entries do not belong together: images is 8 and 9"):
        experiments.load("figure1", runs / "own" / "results")


# --- the protocol -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", experiments.NAMES)
def test_every_experiment_keeps_the_protocol(name):
    module = experiments.module(name)
    assert name == module.NAME and type(module.VERSION) is int
    for function, declared in vars(Experiment).items():
        if function.startswith("_"):
            continue
        expected = list(inspect.signature(declared).parameters)[1:]
        parameters = inspect.signature(getattr(module, function)).parameters
        assert list(parameters)[: len(expected)] == expected, function
        more = list(parameters.values())[len(expected) :]
        assert all(one.default is not inspect.Parameter.empty for one in more), function


@pytest.mark.parametrize("name", experiments.NAMES)
def test_every_archived_result_has_a_table_and_a_figure(name, monkeypatch):
    import matplotlib.pyplot as plt

    from alexnet.tables import Table

    monkeypatch.setattr(results, "ARCHIVE", results.ROOT / "results")
    for profile in profiles.names():
        if archived := experiments.archived(name, profile):
            module = experiments.module(name)
            assert isinstance(module.table(archived), Table)
            plt.close(module.plot(archived))


def test_an_unknown_experiment_lists_what_there_is():
    with pytest.raises(
        InputError, match=f"no experiment 'figure9'; there are {', '.join(experiments.NAMES)}"
    ):
        experiments.module("figure9")


def test_a_profile_that_cannot_serve_says_so(packs32):
    profile = own(packs32, base="paper", epochs=1)
    for name in experiments.NAMES:
        module = experiments.module(name)
        with pytest.raises(InputError, match=f"'own' has no settings for '{name}'"):
            module.entries(profile, [0])


# --- the archive --------------------------------------------------------------------------------


class Archived(profiles.Profile):
    """A profile over packs of which only digests and numbers of classes are known."""

    def packs(self, name, data):
        sizes = data.get("pictographs") or {}
        digests = self.settings["digests"]["pretraining" if name == "pretraining" else "images"]
        classes = [str(i) for i in range(sizes.get("classes", self.settings["classes_of"]))]
        return {
            split: SimpleNamespace(
                digest=digest, classes=classes, size=sizes.get("size", 32), path=Path(split)
            )
            for split, digest in digests.items()
        }


@pytest.mark.parametrize(
    ("profile", "name", "classes"),
    [
        ("embedded", "ablations", 40),
        ("embedded", "recipe", 40),
        ("embedded", "figure1", 10),
        ("embedded", "figure1_factors", 10),
        ("embedded", "figure3", 40),
        ("embedded", "figure4", 40),
        ("embedded", "table1", 40),
        ("embedded", "throughput", 40),
        ("embedded", "devices", 4),
        ("embedded", "page", 10),
        ("embedded", "live", 5),
        ("cifar10", "figure1", 10),
        ("tiny-imagenet-quarter", "figure3", 200),
        ("tiny-imagenet-quarter", "figure4", 200),
        ("tiny-imagenet-quarter", "table1", 200),
    ],
)
def test_the_archive_is_of_the_profiles_settings(profile, name, classes):
    """By its keys, which are made again from the archived digests: nothing would be run."""
    records = results.load(name, Path(__file__).parents[1] / "results" / profile)
    digests: dict[str, str] = {}
    for record in records:
        digests |= record["data"]["digests"]
    settings = profiles.load(profile).settings
    if name == "recipe":  # which validates on nothing
        digests = {"train": digests["train"]}
    about = {"digests": {"images": digests}, "classes_of": classes}
    module, stub = experiments.module(name), Archived(profile, settings | about)
    seeds = sorted({record["seed"] for record in records} - {None}) or [0]
    wanted = {(e.arm, e.seed): e.key(module.VERSION) for e in module.entries(stub, seeds)}
    assert {(r["arm"], r["seed"]): r["key"] for r in records} == wanted


def test_every_arm_has_a_file_of_its_own():
    archive = Path(__file__).parents[1] / "results"
    for path in archive.glob("*/*/*.json"):
        record = results.read(path)
        assert (
            results.path(path.parents[1], path.parent.name, record["arm"], record["seed"]) == path
        )


@pytest.mark.parametrize("name", experiments.NAMES)
def test_a_result_that_was_interrupted_is_not_yet_run_or_a_part(name, tmp_path, monkeypatch):
    """With any one of its entries it is read without a complaint."""
    for file in sorted((results.ROOT / "results").glob(f"*/{name}/*.json"))[:40]:
        folder = tmp_path / file.stem / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file.name).write_bytes(file.read_bytes())
        part = experiments.load(name, folder.parent)
        assert part is None or part["metrics"]
