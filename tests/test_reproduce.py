"""`alexnet reproduce`: what it refuses, which experiments and chapters it runs, and how it ends."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from alexnet import experiments, notebooks
from alexnet import reproduce as module
from alexnet.errors import InputError
from alexnet.notebooks import chapters
from alexnet.reproduce import parse_value
from tests.test_running_notebooks import ROOT, book, write  # noqa: F401 (a fixture)


def test_the_command_ends_with_status_1_when_a_notebook_fails(
    book: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    monkeypatch.setattr(notebooks, "BOOK", book)
    monkeypatch.setenv("ALEXNET_RUNS", str(book.parent / "runs"))
    write(
        book,
        "05-two",
        "profile: str = 'embedded'\nrate: float = 0.01",
        "assert rate > 0.05, 'too slow'",
    )
    assert module.run(parser.parse_args(["--only", "two"])) == 1
    assert "05-two: cell 4, In [4]: AssertionError: too slow" in capsys.readouterr().err
    assert module.run(parser.parse_args(["--only", "two", "-p", "rate", "0.1"])) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("by your results, ") and last.endswith(
        "; alexnet claims --runs --profile embedded lists them"
    )
    with pytest.raises(InputError, match="at least 1"):
        module.run(parser.parse_args(["--seeds", "0"]))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 1e-3),
        ("true", True),
        ("False", False),
        ("[1, 2]", [1, 2]),
        ("paper", "paper"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_parameters_are_read_as_they_would_be_written(text: str, value: Any) -> None:
    assert parse_value(text) == value and type(parse_value(text)) is type(value)


def test_run_does_the_experiments_first_and_only_those_the_profile_serves(
    monkeypatch, capsys
) -> None:
    asked, ahead, calls = [], [], []
    monkeypatch.setattr(
        experiments,
        "train_ahead",
        lambda names, profile, seeds, _: ahead.append((names, profile.name, list(seeds))),
    )
    monkeypatch.setattr(
        experiments,
        "result",
        lambda name, profile, seeds, archive: asked.append((name, profile, list(seeds), archive)),
    )
    done = notebooks.Outcome("c", "done", 0.0, Path("a/b/c.ipynb"), Path("l"))
    monkeypatch.setattr(notebooks, "run", lambda *a: calls.append(a) or [done])
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)

    assert module.run(parser.parse_args(["--profile", "cifar10", "--seeds", "2"])) == 0
    both = ["figure1", "cifar_lrn", "bf16"]
    assert asked == [(name, "cifar10", [0, 1], False) for name in both] and ahead == [
        (both, "cifar10", [0, 1])
    ]
    assert calls[0][-1] == {"03-architecture", "06-results"}
    asked.clear()
    assert module.run(parser.parse_args(["--only", "recipe", "--archive"])) == 0
    assert (
        asked == [("recipe", "embedded", [0], True)] and len(calls) == 1
    )  # an experiment by itself runs no notebook
    assert module.run(parser.parse_args([])) == 0
    assert calls[1][-1] == {path.stem for path in chapters(ROOT) if path.stem != "intro"}
    assert module.run(parser.parse_args(["--quick"])) == 0 and ahead[-1][1] == "quick"
    assert calls[2][-1] == calls[1][-1]
    del asked[1:]
    with pytest.raises(
        InputError,
        match="profile 'cifar10' has no settings for 'recipe'; the profiles that do: embedded",
    ):
        module.run(parser.parse_args(["--profile", "cifar10", "--only", "recipe"]))
    for only in ([], ["--only", "05"], ["--only", "recipe"]):
        with pytest.raises(InputError, match=r"there is no parameter 'sedes'.*'seeds'"):
            module.run(parser.parse_args(["-p", "sedes", "3", *only]))
        for seeds in (
            ["--seeds", "0"],
            ["-p", "seeds", "0"],
            ["-p", "seeds", "three"],
            ["-p", "seeds", "1.5"],
        ):
            with pytest.raises(InputError, match=r"seeds .*: give a whole number, at least 1"):
                module.run(parser.parse_args([*seeds, *only]))
    assert len(asked) == 1
