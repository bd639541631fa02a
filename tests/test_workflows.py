"""What runs elsewhere, by files that nothing here executes: workflows, pre-commit hooks, Binder.

They name only what exists."""

import os
import re
import shlex
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
STEPS = [
    (name, step)
    for name, flow in WORKFLOWS.items()
    for job in flow["jobs"].values()
    for step in job.get("steps", ())  # a job may be another workflow
]


def commands() -> list[str]:
    """Lines of shell: the workflows', and those of CONTRIBUTING.md and .ci/run."""
    lines = [line for _, step in STEPS for line in step.get("run", "").splitlines()]
    lines += re.findall(r"^    (make .*)$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    lines += re.findall(r"`(make [^`]*)`", (ROOT / "CONTRIBUTING.md").read_text())
    return lines + re.findall(r"^step .*?(make .*)$", (ROOT / ".ci" / "run").read_text(), re.M)


def test_every_make_target_that_is_named_exists() -> None:
    named = []
    for line in commands():
        words = shlex.split(line, comments=True)
        if words and words[0] == "make":
            named += [
                word for word in words[1:] if "=" not in word and not word.startswith((".", "-"))
            ]
    assert {"test", "browser"} <= set(named) and set(named) <= TARGETS


def test_actions_are_named_by_release() -> None:
    used = [step["uses"] for _, step in STEPS if "uses" in step]
    assert (
        used
        and [each for each in used if not re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+)*", each)] == []
    )


def test_every_supported_python_is_tested() -> None:
    supported = SpecifierSet(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    )
    assert WORKFLOWS["tests"]["jobs"]["test"]["strategy"]["matrix"]["python"] == [
        f"3.{n}" for n in range(30) if f"3.{n}" in supported
    ]


def test_executed_notebooks_are_kept_for_what_they_were_made_of() -> None:
    (cache,) = [step for _, step in STEPS if step.get("uses", "").startswith("actions/cache@")]
    patterns = re.findall(r"'([^']+)'", cache["with"]["key"])
    assert [pattern for pattern in patterns if not any(ROOT.glob(pattern))] == []
    parts = {pattern.split("/")[0] for pattern in patterns}
    assert parts >= {"alexnet", "kernels", "book", "results", "requirements.lock"}
    assert "schedule" in cache["if"]  # once a week without


def test_the_book_is_published_from_main_and_shown_to_who_reviews() -> None:
    flow: dict[Any, Any] = WORKFLOWS["book"]
    triggers = flow[True]  # what YAML makes of `on`
    assert {"push", "pull_request", "schedule"} <= set(triggers) and re.fullmatch(
        r"\d+ \d+ \* \* \d", triggers["schedule"][0]["cron"]
    )
    uploads = {
        step["uses"].split("@")[0]: step
        for step in flow["jobs"]["build"]["steps"]
        if "upload" in step.get("uses", "")
    }
    assert uploads["actions/upload-pages-artifact"]["with"]["path"] == "_build/html"
    assert flow["jobs"]["publish"]["needs"] == "build" and "main" in flow["jobs"]["publish"]["if"]
    assert flow["permissions"] == {"contents": "read"}
    (words,) = [
        step["with"]["args"].split()
        for step in flow["jobs"]["links"]["steps"]
        if "args" in step.get("with", {})
    ]
    assert [word for word in words if "." in word and not any(ROOT.glob(word))] == []


@pytest.mark.parametrize(
    "hook", [hook for repo in HOOKS for hook in repo["hooks"]], ids=lambda hook: hook["id"]
)
def test_hooks_are_local_and_run_what_there_is(hook: dict[str, Any]) -> None:
    assert [repo["repo"] for repo in HOOKS] == ["local"]
    words = shlex.split(hook["entry"])
    assert words[0] in (".venv/bin/ruff", ".venv/bin/mypy", ".venv/bin/python")
    assert [
        word for word in words if word.startswith("tests/") and not (ROOT / word).is_file()
    ] == []
    if "files" in hook:
        tracked = [
            path.relative_to(ROOT).as_posix()
            for path in (*ROOT.glob("book/**/*"), *ROOT.glob("scripts/*"), *ROOT.glob("*.yml"))
        ]
        assert any(re.search(hook["files"], path) for path in tracked)


def test_binder_has_what_the_package_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text())["dependencies"]
    pip = next(item["pip"] for item in listed if isinstance(item, dict))
    names = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}
    installed = {}
    for line in [item for item in listed if isinstance(item, str)] + pip:
        match = re.fullmatch(r"([\w-]+)([<>=].*)?", line)
        assert match, line
        installed[names.get(match[1], match[1])] = match[2] or ""
    extras = project["optional-dependencies"]
    for text in chain(project["dependencies"], *(extras[name] for name in BINDER)):
        required = Requirement(text)
        if not required.name.startswith("alexnet-"):  # postBuild installs these
            assert installed[required.name] == str(required.specifier), required.name
    assert installed["python"].removeprefix("=") in SpecifierSet(project["requires-python"])
    built = ROOT / ".binder" / "postBuild"
    assert os.access(built, os.X_OK) and "-e ./kernels -e ." in built.read_text()


BINDER = (
    "figures",
    "experiments",
    "datasets",
    "tensorboard",
    "bench",
)  # what the chapters need to run
