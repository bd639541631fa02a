"""The files that say what is installed agree with each other and with the code."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path
from zipfile import ZipFile

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


@pytest.mark.parametrize("source", ["", "kernels"])
def test_an_editable_install_wins_over_a_folder_of_the_packages_name(source, tmp_path) -> None:
    """As in the folder that holds the clone, or after `alexnet train --out alexnet`."""
    project = tmp_path / "alexnet"
    ignored = shutil.ignore_patterns(".*", "_build", "runs", "results", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT / source, project, ignore=ignored)
    build = "from setuptools import build_meta; print(build_meta.build_editable('..'))"
    command = [sys.executable, "-c", build]
    wheel = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout
    with ZipFile(tmp_path / wheel.split()[-1]) as file:
        (name,) = (each for each in file.namelist() if each.endswith(".pth"))
        assert file.read(name).decode().strip() == str(project)


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


def test_make_notices_an_environment_of_another_place(tmp_path) -> None:
    """A copy of a clone, and one that was moved: their programs would run the first one's code."""
    first = tmp_path / "a clone (ä)"
    (first / ".venv").mkdir(parents=True)
    (first / "kernels").mkdir()
    for name in ("Makefile", "pyproject.toml", "kernels/pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, first / name)
    (first / ".venv" / ".ready").write_text(f"{first}/.venv\n")

    def plan(folder: Path) -> str:
        command = ["make", "-n", "lint"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout

    assert "install" not in plan(first)
    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    (tmp_path / "link").mkdir()
    shutil.copytree(first, tmp_path / "link", dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "link" / ".venv")
    (tmp_path / "link" / ".venv").symlink_to(first / ".venv")
    assert "making it anew" in plan(copy) and "pip install" in plan(copy)
    assert "install" not in plan(tmp_path / "link")
    first.rename(tmp_path / "moved")
    assert "making it anew" in plan(tmp_path / "moved")
