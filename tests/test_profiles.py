"""Profiles: what they hold, and what is told where one cannot serve."""

import json
import re

import pytest

from alexnet import profiles
from alexnet.data.pack import open_splits
from alexnet.errors import InputError
from alexnet.notebooks import BOOK
from alexnet.profiles import Profile
from tests import archives


def test_every_profile_loads_and_says_what_its_data_is():
    assert {"embedded", "cifar10"} <= set(profiles.names())
    for name in profiles.names():
        profile = profiles.load(name)
        assert profile.name == name and profile["title"] and profile["source"] and profile["size"]


def test_an_unknown_name_lists_the_names():
    with pytest.raises(
        InputError, match=f"no profile 'imagenet'; there are {', '.join(profiles.names())}"
    ):
        profiles.load("imagenet")


def test_a_missing_setting_names_the_profiles_that_have_it():
    lacking = Profile("lacking", {"title": "nothing"})
    others = ", ".join(profiles.who_has("figure1"))
    with pytest.raises(
        InputError, match=f"'lacking' has no settings for 'figure1'; the profiles that do: {others}"
    ):
        lacking["figure1"]
    assert "embedded" in profiles.who_has("figure1")
    with pytest.raises(InputError, match="the profiles that do: none"):
        lacking["nonsense"]


def test_data_is_found_through_the_environment_alone(tmp_path, monkeypatch):
    cifar = profiles.load("cifar10")
    monkeypatch.delenv("ALEXNET_DATA", raising=False)
    with pytest.raises(
        InputError,
        match="needs CIFAR-10: set ALEXNET_DATA to the folder that holds "
        "cifar-10-batches-py or cifar10-jpeg",
    ):
        cifar.source()
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path))
    with pytest.raises(
        InputError,
        match=f"needs CIFAR-10: ALEXNET_DATA={tmp_path} holds no cifar-10-batches-py "
        "and no cifar10-jpeg",
    ):
        cifar.title()
    (tmp_path / "cifar10-jpeg").mkdir()
    assert cifar.source() == tmp_path / "cifar10-jpeg" and cifar.title() == "CIFAR-10 (JPEG copy)"
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert cifar.source() == tmp_path / "cifar-10-batches-py" and cifar.title() == "CIFAR-10"


def test_a_single_wanted_folder_is_told_as_well(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path))
    with pytest.raises(
        InputError, match=f"needs photographs: ALEXNET_DATA={tmp_path} holds no photos$"
    ):
        Profile("own", {"title": "photographs", "source": ["photos"]}).source()


def test_data_is_prepared_once_below_the_users_runs(packs32, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "mine"))
    monkeypatch.setenv("ALEXNET_DATA", str(packs32.parent))
    profile = Profile("own", {"title": "shapes", "source": ["images"], "size": 24})
    assert profile.runs == tmp_path / "mine" / "own"
    first = profile.splits()
    assert {name: (len(pack), pack.size) for name, pack in first.items()} == {
        "train": (40, 24),
        "val": (8, 24),
        "test": (8, 24),
    }
    assert first["train"].path.is_relative_to(profile.runs / "data")
    monkeypatch.setattr(profiles, "prepare", None)  # not called again
    assert (
        profile.splits()["train"].digest
        == first["train"].digest
        == open_splits(first["train"].path.parent)["train"].digest
    )


def test_images_without_labels_are_no_split_of_a_profile(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "mine"))
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path))
    archives.ilsvrc2012(tmp_path / "ILSVRC2012")
    profile = Profile("own", {"title": "fish", "source": ["ILSVRC2012"], "size": 24})
    splits = profile.splits()
    assert list(splits) == ["train", "val"] and list(open_splits(splits["val"].path.parent)) == [
        "train",
        "val",
        "test",
    ]


def test_nets_of_a_profile_share_what_it_says():
    assert Profile("own", {"image_size": 64, "width": 0.25, "epochs": 3}).net == {
        "image_size": 64,
        "width": 0.25,
    }


def test_own_profiles_extend_others(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_PROFILES", str(tmp_path))
    (tmp_path / "small.yml").write_text(
        "extends: embedded\nwidth: 0.125\nfigure1: {epochs: 1}\npermuted: null\n"
    )
    (tmp_path / "smaller.yml").write_text("extends: small\nfigure1: {threshold: 0.5}\n")
    base, small = profiles.load("embedded"), profiles.load("small")
    assert {"small", "smaller", "embedded"} <= set(profiles.names()) and small.name == "small"
    assert (
        small["width"] == 0.125
        and small["size"] == base["size"]
        and "permuted" not in small.settings
    )
    assert small["figure1"] == base["figure1"] | {"epochs": 1}
    assert profiles.load("smaller")["figure1"] == base["figure1"] | {"epochs": 1, "threshold": 0.5}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: nonsense", "there is no profile 'nonsense'"),
        ("extends: own", "own.yml extends itself, by way of own"),
        ("a: [1", "own.yml cannot be read as YAML"),
        ("just words", "own.yml holds no settings"),
        ("epoch: 3", r"own.yml: there is no setting 'epoch' \(did you mean 'epochs'\?\); known: "),
        ("ablations: {samples: 3}", r"ablations: there is no setting 'samples' .*'sample'"),
    ],
)
def test_a_profile_that_cannot_be(tmp_path, monkeypatch, text, said):
    monkeypatch.setenv("ALEXNET_PROFILES", str(tmp_path))
    (tmp_path / "own.yml").write_text(text)
    with pytest.raises(InputError, match=said):
        profiles.load("own")


def test_an_own_profile_has_a_name_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_PROFILES", str(tmp_path))
    (tmp_path / "cifar10.yml").write_text("extends: embedded")
    with pytest.raises(InputError, match=r"cifar10.yml has the name of a profile of the project"):
        profiles.names()


def test_a_part_may_take_other_data_than_its_profile(packs32, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "mine"))
    monkeypatch.setenv("ALEXNET_DATA", str(packs32.parent))
    profile = Profile("own", {"title": "shapes", "source": ["images"], "size": 24, "classes": 2})
    assert len(profile.splits()["train"]) == 20 and len(profile.splits()["train"].classes) == 2
    everything = profile.packs(
        "more", {"classes": None, "epochs": 3}
    )  # what is no word on data is no matter
    assert len(everything["train"]) == 40 and everything["train"].size == 24
    assert (
        profile.packs("others", {"classes": None})["train"].path == everything["train"].path
    )  # prepared once
    some = profile.packs("some", {"classes": ["cloud", "sun", "umbrella"], "limit": 4, "size": 16})
    assert (len(some["train"]), some["train"].size) == (12, 16)
    drawn = profile.packs(
        "drawn", {"pictographs": {"classes": 2, "train": 3, "val": 0, "test": 0, "size": 20}}
    )
    assert (
        [*drawn] == ["train"]
        and len(drawn["train"]) == 6
        and drawn["train"].path.name.startswith("drawn-")
    )
    with pytest.raises(InputError, match=r"needs shapes: .* holds no elsewhere"):
        profile.packs("lacking", {"source": ["elsewhere"]})


def test_every_profile_lists_arms_that_there_are():
    from alexnet.experiments import ablations, recipe
    from alexnet.experiments.protocol import chosen

    listed = {}
    for name in profiles.names():
        profile = profiles.load(name)
        for experiment in (ablations, recipe):
            if experiment.NAME in profile.settings:
                listed[name, experiment.NAME] = chosen(profile, experiment.NAME, experiment.ARMS)
    assert all(listed.values()) and ablations.FULL in listed["quick", "ablations"]
    for name in ("embedded", "ilsvrc2012"):
        assert listed[name, "ablations"] == ablations.ARMS  # in the table's order
    of_recipe = [arms for (_, name), arms in listed.items() if name == "recipe"]
    assert set().union(*of_recipe) == recipe.ARMS.keys()
    added = ("torch-weights", "he-weights", "biases-0.1")  # since the default's were archived
    assert list(listed["embedded", "recipe"]) == [arm for arm in recipe.ARMS if arm not in added]


def test_a_misspelled_profile_is_an_error_in_every_chapter():
    """Each chapter hands its `profile` to something that refuses an unknown one."""
    profiles.check("archive")
    profiles.check("embedded")
    with pytest.raises(InputError, match="there is no profile 'imbedded'; there are"):
        profiles.check("imbedded")
    refusing = re.compile(r"(profiles\.check|judge_all)\(profile\b|experiments\.show\([^)]*profile")
    chapters = sorted(BOOK.glob("*.ipynb"))
    assert len(chapters) > 10
    for chapter in chapters:
        cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        if tagged:  # the cover takes no parameters
            assert 'profile = "archive"' in "".join(tagged[0]["source"]), chapter.name
            assert any(map(refusing.search, code)), chapter.name
