"""The files that say what is installed agree with each other and with the code."""

import ast
import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
KERNELS = tomllib.loads((ROOT / "kernels" / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OURS = {PROJECT["name"], KERNELS["name"]}
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
LOCK = [
    line
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if not line.startswith("#")
]


def names(requirements: list[str]) -> set[str]:
    """Distributions, with those of the extras of this project that are named."""
    found = set()
    for requirement in map(Requirement, requirements):
        if requirement.name == PROJECT["name"]:
            found |= set().union(*(names(EXTRAS[extra]) for extra in requirement.extras))
        else:
            found.add(canonicalize_name(requirement.name))
    return found


def test_conda_offers_the_pythons_that_the_project_supports() -> None:
    python = next(item for item in CONDA if isinstance(item, str) and item.startswith("python"))
    assert SpecifierSet(python.removeprefix("python")) == SpecifierSet(PROJECT["requires-python"])


def test_the_supported_pythons_are_declared_as_classifiers() -> None:
    supported = SpecifierSet(PROJECT["requires-python"])
    declared = {
        c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)
    }
    assert declared == {f"3.{minor}" for minor in range(30) if f"3.{minor}" in supported}
    assert KERNELS["requires-python"] == PROJECT["requires-python"]


def test_conda_and_make_install_both_distributions_with_all_extras() -> None:
    (pip,) = (item["pip"] for item in CONDA if isinstance(item, dict))
    assert pip == ["-e ./kernels", "-e .[all]"]
    assert "-e ./kernels -e '.[all]'" in (ROOT / "Makefile").read_text()
    assert names(EXTRAS["all"]) == set().union(*map(names, EXTRAS.values()))


def test_the_base_installation_is_what_the_package_imports_and_no_more() -> None:
    """Modules imported when a module is, outside what extras name."""
    assert names(PROJECT["dependencies"]) == {
        *("alexnet-kernels", "torch", "numpy", "safetensors", "tqdm", "pyyaml", "pillow")
    }
    assert names(KERNELS["dependencies"]) == {"torch", "numpy", "triton"}
    modules = {"alexnet", "alexnet_kernels", "torch", "numpy", "safetensors", "tqdm", "yaml", "PIL"}
    for path in sorted((ROOT / "alexnet").rglob("*.py")):
        if path.parent.name not in ("experiments", "baselines"):  # the extra `experiments`
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    given = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                    given = given or [alias.name for alias in getattr(node, "names", [])]
                    tops = {name.partition(".")[0] for name in given}
                    assert tops <= modules | sys.stdlib_module_names, path


def test_jupyter_book_stays_below_2() -> None:
    (book,) = (Requirement(each) for each in EXTRAS["book"] if each.startswith("jupyter-book"))
    assert "1.0.4.post1" in book.specifier and "2.0.0" not in book.specifier


def test_the_lock_pins_exact_versions_and_nothing_else() -> None:
    inexact = [line for line in LOCK if not re.fullmatch(r"[\w.-]+==[A-Za-z0-9.]+", line)]
    locked = [canonicalize_name(line.split("==")[0]) for line in LOCK]
    assert not inexact and len(locked) == len(set(locked)) and not OURS & set(locked)


@pytest.mark.parametrize(
    "requirement",
    sorted({*PROJECT["dependencies"], *KERNELS["dependencies"], *chain(*EXTRAS.values())}),
)
def test_the_lock_meets_every_requirement(requirement: str) -> None:
    required = Requirement(requirement)
    locked = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in LOCK}
    if required.name in OURS:
        assert required.extras <= set(EXTRAS)
    else:
        assert required.specifier.contains(locked[canonicalize_name(required.name)])


def test_the_citation_is_of_this_version_and_names_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    titles = [each["title"] for each in citation["references"]]
    assert "ImageNet Classification with Deep Convolutional Neural Networks" in titles
