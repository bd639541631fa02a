"""The files that say what is installed agree with each other: pyproject.toml, environment.yml, requirements.lock, CITATION.cff."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
LOCK = [
    line
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if not line.startswith("#")
]


def test_conda_offers_the_pythons_that_the_project_supports() -> None:
    python = next(item for item in CONDA if isinstance(item, str) and item.startswith("python"))
    assert SpecifierSet(python.removeprefix("python")) == SpecifierSet(PROJECT["requires-python"])


def test_the_supported_pythons_are_declared_as_classifiers() -> None:
    declared = {
        c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)
    }
    assert declared == {
        f"3.{minor}"
        for minor in range(30)
        if f"3.{minor}" in SpecifierSet(PROJECT["requires-python"])
    }


def test_conda_installs_the_project_with_extras_that_exist() -> None:
    (pip,) = (item["pip"] for item in CONDA if isinstance(item, dict))
    (editable,) = pip
    named = re.fullmatch(r"-e \.\[([\w,]+)\]", editable)
    assert named and set(named[1].split(",")) == {"book", "test"} <= set(EXTRAS)


def test_jupyter_book_stays_below_2() -> None:
    (book,) = (Requirement(each) for each in EXTRAS["book"] if each.startswith("jupyter-book"))
    assert "1.0.4.post1" in book.specifier and "2.0.0" not in book.specifier


def test_the_lock_pins_exact_versions_and_nothing_else() -> None:
    assert [
        line for line in LOCK if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)
    ] == []
    names = [canonicalize_name(line.split("==")[0]) for line in LOCK]
    assert len(names) == len(set(names)) and "alexnet-reproduced" not in names


@pytest.mark.parametrize(
    "requirement",
    [
        *PROJECT["dependencies"],
        *EXTRAS["book"],
        *EXTRAS["test"],
        *EXTRAS["bench"],
        *EXTRAS["export"],
    ],
)
def test_the_lock_meets_every_requirement(requirement: str) -> None:
    wanted = Requirement(requirement)
    locked = {
        canonicalize_name(name): version for name, version in (line.split("==") for line in LOCK)
    }
    assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)])


def test_the_citation_is_of_this_version_and_names_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert "ImageNet Classification with Deep Convolutional Neural Networks" in [
        each["title"] for each in citation["references"]
    ]
