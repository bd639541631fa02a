"""The version of a release in all files that state it, and what else they share."""

import datetime
import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from scripts import release

ROOT = Path(__file__).resolve().parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
ZENODO = json.loads((ROOT / ".zenodo.json").read_text())
# top-level keys of CFF 1.2.0, and those that it needs
KEYS = """abstract authors cff-version commit contact date-released doi identifiers keywords license
license-url message preferred-citation references repository repository-artifact repository-code
title type url version""".split()
NEEDED = ("authors", "cff-version", "message", "title")
NAMED = {"family-names", "given-names", "name"}


@pytest.fixture
def clone(tmp_path):
    for name, _ in release.PLACES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_all_files_state_one_version(capsys):
    assert release.main([]) == 0
    version = capsys.readouterr().out.strip()
    assert version == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert release.main(["--tag", f"v{version}"]) == 0
    for tag in (version, f"v{version}.1"):
        assert release.main(["--tag", tag]) == 2
        assert f"tag it v{version}" in capsys.readouterr().err


def test_a_version_is_written_into_all_files(clone):
    before = {name: (clone / name).read_text() for name, _ in release.PLACES}
    old = release.check(root=clone)
    release.write("12.3.0rc1", clone)
    assert release.check("v12.3.0rc1", clone) == "12.3.0rc1"
    for name, text in before.items():
        changed = (clone / name).read_text()
        assert changed != text and changed.replace("12.3.0rc1", old) == text, name


@pytest.mark.parametrize("version", ["", "next", "v1.2", "1.2.0-rc1", "01.2"])
def test_what_is_no_version_is_refused(clone, version):
    before = (clone / "pyproject.toml").read_text()
    with pytest.raises(ValueError, match=r"is no version|^write "):
        release.write(version, clone)
    assert (clone / "pyproject.toml").read_text() == before


@pytest.mark.parametrize("name", sorted({name for name, _ in release.PLACES}))
def test_a_file_that_differs_or_states_none_is_named(clone, name):
    text, version = (clone / name).read_text(), release.check(root=clone)
    (clone / name).write_text(text.replace(version, "9.9.9"))
    with pytest.raises(ValueError, match=rf"differ: .*9\.9\.9 in {re.escape(name)}"):
        release.check(root=clone)
    (clone / name).write_text("")
    with pytest.raises(ValueError, match=re.escape(name)):
        release.write("1.0.0", clone)
    assert all(stated in (version, "") for stated in _stated(clone, name))


def _stated(clone, damaged):
    """The versions in the files that are whole: none was written."""
    for name, pattern in release.PLACES:
        if name != damaged:
            yield from re.findall(pattern, (clone / name).read_text())


def test_the_citation_is_valid():
    assert set(NEEDED) <= CITATION.keys() <= set(KEYS)
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] in ("software", "dataset")
    assert all(isinstance(CITATION[name], str) for name in ("title", "message", "abstract"))
    assert isinstance(CITATION["version"], str) and isinstance(CITATION["license"], str)
    assert isinstance(CITATION.get("date-released", datetime.date.today()), datetime.date)
    people = [*CITATION["authors"]]
    for reference in CITATION["references"]:
        assert {"type", "title", "authors"} <= reference.keys()
        people += reference["authors"]
    assert people and all(person and person.keys() <= NAMED for person in people)
    assert all(("name" in person) != ("family-names" in person) for person in people)
    assert len(set(CITATION["keywords"])) == len(CITATION["keywords"])


def test_zenodo_is_told_the_same():
    for name in ("title", "version", "license", "keywords"):
        assert ZENODO[name] == CITATION[name], name
    assert ZENODO["description"] == CITATION["abstract"]
    assert ZENODO["creators"] == [{"name": person["name"]} for person in CITATION["authors"]]
    assert ZENODO["upload_type"] == CITATION["type"] and ZENODO["access_right"] == "open"
    (paper,), (reference,) = CITATION["references"], ZENODO["references"]
    years = (paper["title"], str(paper["year"]), f"{paper['start']}-{paper['end']}")
    assert all(part in reference for part in years)
    assert [person["family-names"] in reference for person in paper["authors"]] == [True] * 3
