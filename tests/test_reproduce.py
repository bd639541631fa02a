"""The driver of the notebooks: what it refuses, what it repeats, what it makes. The notebooks here are tiny and really run."""

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook

from alexnet import reproduce as module
from alexnet.errors import InputError
from alexnet.processes import as_they_end
from alexnet.reproduce import NotebooksFailed, chapters, parse_value, reproduce

ROOT = Path(__file__).resolve().parents[1]
TALLY = "open('tally', 'a').write({name!r} + '\\n')"  # in book/: which notebooks ran
METADATA = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def write(book: Path, name: str, parameters: str, *cells: Any) -> None:
    head = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    sources = [
        cell if not isinstance(cell, str) else new_code_cell(cell)
        for cell in (TALLY.format(name=name), *cells)
    ]
    nbformat.write(new_notebook(cells=[head, *sources], metadata=METADATA), book / f"{name}.ipynb")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A book of three: an introduction without parameters, and two chapters."""
    book = tmp_path / "book"
    book.mkdir()
    toc = {
        "root": "book/intro",
        "parts": [{"chapters": [{"file": "book/03-one", "sections": [{"file": "book/05-two"}]}]}],
    }
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump({"format": "jb-book", **toc}))
    nbformat.write(new_notebook(), book / "intro.ipynb")
    write(book, "03-one", "profile: str = 'embedded'\nseeds: int = 5", "print(profile, seeds)")
    write(book, "05-two", "profile: str = 'embedded'", "print(profile)")
    return book


def ran(book: Path) -> list[str]:
    """Several run at a time, in no order."""
    tally = book / "tally"
    return sorted(tally.read_text().split()) if tally.exists() else []


def printed(notebook: Path) -> str:
    return "".join(
        output.get("text", "")
        for cell in nbformat.read(notebook, as_version=4).cells
        for output in cell.get("outputs", [])
    )


def test_runs_every_notebook_that_has_parameters_once(
    book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = reproduce("cifar10", parameters={"seeds": 2}, book=book)
    assert [(o.chapter, o.status) for o in first] == [("03-one", "done"), ("05-two", "done")]
    out = book.parent / "runs" / "cifar10"
    assert (
        first[0].notebook == out / "notebooks" / "03-one.ipynb"
        and first[0].log == out / "logs" / "03-one.log"
    )
    assert "cifar10 2" in printed(first[0].notebook) and "cifar10" in printed(first[1].notebook)
    assert "cifar10 2" in first[0].log.read_text()
    stamp = json.loads((out / "stamps" / "03-one.json").read_text())
    assert (
        stamp["parameters"] == {"profile": "cifar10", "seeds": 2}
        and stamp["seconds"] > 0
        and stamp["versions"]["python"]
    )

    second = reproduce("cifar10", parameters={"seeds": 2}, book=book)
    assert [o.status for o in second] == ["up to date"] * 2 and ran(book) == ["03-one", "05-two"]
    assert second[0].seconds == stamp["seconds"]
    assert capsys.readouterr().out.count("up to date") == 2


OTHERS = {
    "kernels in C": "kernels/alexnet_kernels/native.c",
    "benchmarks": "kernels/kernel_benchmarks/results/max_pool.csv",
}


CHANGES = [
    "nothing",
    "notebook",
    "package",
    "kernels in C",
    "results",
    "own results",
    "benchmarks",
    "output",
    "force",
]


@pytest.mark.parametrize("changed", CHANGES)
def test_repeats_what_changed_and_no_more(book: Path, changed: str) -> None:
    reproduce(book=book, only="two")
    if changed == "notebook":
        write(book, "05-two", "profile: str = 'embedded'", "print('other', profile)")
    elif changed == "package":
        (book.parent / "alexnet").mkdir()
        (book.parent / "alexnet" / "network.py").write_text("maps = 48\n")
    elif changed == "results":
        (book.parent / "results").mkdir()
        (book.parent / "results" / "table1.json").write_text("{}")
    elif changed == "own results":  # by which the page of claims judges
        (book.parent / "runs" / "embedded" / "results").mkdir()
        (book.parent / "runs" / "embedded" / "results" / "table1.json").write_text("{}")
    elif changed in OTHERS:
        (book.parent / OTHERS[changed]).parent.mkdir(parents=True)
        (book.parent / OTHERS[changed]).touch()
    elif changed == "output":
        (book.parent / "runs" / "embedded" / "notebooks" / "05-two.ipynb").unlink()
    (again,) = reproduce(book=book, only="05", force=changed == "force")
    assert again.status == ("up to date" if changed == "nothing" else "done")
    assert len(ran(book)) == (1 if changed == "nothing" else 2)


def test_a_notebook_executed_in_place_is_the_same_notebook(book: Path) -> None:
    reproduce(book=book, only="two")
    path = book / "05-two.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].execution_count = 7  # outputs and counts are not what a notebook does
    nbformat.write(notebook, path)
    assert reproduce(book=book, only="two")[0].status == "up to date"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"parameters": {"sedes": 2}}, "'sedes' (did you mean 'seeds'?): there are profile, seeds"),
        (
            {"parameters": {"seeds": 2}, "only": "two"},
            "there is no parameter 'seeds': there are profile",
        ),
        ({"parameters": {"profile": "cifar10"}}, "name it with --profile"),
        ({"profile": "imagenet"}, "there is no profile 'imagenet'; there are cifar10, embedded"),
        ({"only": "three"}, "there is no chapter 'three' to reproduce: choose from 03-one, 05-two"),
        ({"only": "intro"}, "there is no chapter 'intro'"),
    ],
)
def test_refuses_bad_input_before_anything_runs(
    book: Path, arguments: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError) as refused:
        reproduce(book=book, **arguments)
    assert expected in str(refused.value) and "\n" not in str(refused.value)
    assert ran(book) == [] and not (book.parent / "runs").exists()


def test_without_the_repository_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no _toc\.yml.*run from a clone"):
        reproduce(book=tmp_path / "book")


def test_without_papermill_names_the_extra(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "papermill", None)
    with pytest.raises(
        InputError, match=r"papermill is not installed.*pip install -e '\.\[book\]'"
    ):
        reproduce(book=book)


def test_a_failing_notebook_is_reported_and_does_not_stop_the_others(book: Path) -> None:
    write(
        book,
        "03-one",
        "profile: str = 'embedded'",
        "print('so far')\nraise ValueError('bad\\nlast line')",
        "print('never')",
    )
    with pytest.raises(NotebooksFailed) as failed:
        reproduce(book=book)
    one, two = failed.value.outcomes
    assert (one.status, two.status) == ("failed", "done")
    assert (
        one.error == "cell 4, In [4]: ValueError: last line"
    )  # counting the cell that papermill put in
    message = str(failed.value)
    assert one.error in message and str(one.log) in message and str(one.notebook) in message
    assert "so far" in printed(one.notebook) and "never" not in printed(one.notebook)
    assert "ValueError" in one.log.read_text()

    write(book, "03-one", "profile: str = 'embedded'", "print('mended')")
    assert [o.status for o in reproduce(book=book)] == ["done", "up to date"]


def test_the_command_ends_with_status_1_when_a_notebook_fails(
    book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    monkeypatch.setattr(module, "__file__", str(book.parent / "alexnet" / "reproduce.py"))
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


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on_at_the_unfinished_notebook(
    book: Path, stop: signal.Signals
) -> None:
    wait = "import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.05)"
    write(book, "05-two", "profile: str = 'embedded'", wait, "print('end')")
    script = f"from pathlib import Path; from alexnet.reproduce import reproduce; reproduce(book=Path({str(book)!r}))"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    }
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 60
    stamp = book.parent / "runs" / "embedded" / "stamps" / "03-one.json"
    while ran(book) != ["03-one", "05-two"] or not stamp.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(stop)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == -stop or (
        stop == signal.SIGINT and "KeyboardInterrupt" in errors
    ), errors
    notebooks = book.parent / "runs" / "embedded" / "notebooks"
    assert not (notebooks / "05-two.ipynb").exists()  # nothing half-done under a finished name

    (book / "go").touch()
    again = reproduce(book=book)
    assert [o.status for o in again] == ["up to date", "done"] and ran(book) == [
        "03-one",
        "05-two",
        "05-two",
    ]
    assert [path.name for path in sorted(notebooks.iterdir())] == ["03-one.ipynb", "05-two.ipynb"]


def _wait_for(path: Path | None) -> None:
    deadline = time.monotonic() + 60
    while path and not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def test_long_tasks_come_as_they_end_and_a_process_that_died_is_told(tmp_path: Path) -> None:
    order = []
    for number, _ in as_they_end(_wait_for, [(tmp_path / "go",), (None,)], 2):
        order.append(number)
        (tmp_path / "go").touch()  # the first task ends only once the second has come
    assert order == [1, 0]
    jobs = [job for _, job in as_they_end(os._exit, [(3,), (3,), (3,)], 2)]
    assert [type(job.exception()) for job in jobs] == [BrokenProcessPool] * 3


def test_long_tasks_that_nobody_waits_for_are_stopped() -> None:
    began = time.monotonic()
    for _ in as_they_end(time.sleep, [(0.0,), (600.0,)], 2):
        break
    while multiprocessing.active_children() and time.monotonic() < began + 60:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def test_a_notebook_whose_process_died_has_failed(
    book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_run", _die)
    monkeypatch.setattr(module, "cores", lambda: 2)
    with pytest.raises(
        NotebooksFailed, match="03-one: a process died, perhaps for want of memory"
    ) as failed:
        reproduce(book=book)
    assert [outcome.status for outcome in failed.value.outcomes] == ["failed", "failed"]


def _die(*_: Any) -> None:
    os._exit(3)


def test_figures_are_extracted_by_label_or_number_and_old_ones_go(book: Path) -> None:
    show = f"from IPython.display import Image\nimport base64\nImage(base64.b64decode({PIXEL!r}))"
    labelled = new_code_cell(
        show, metadata={"mystnb": {"figure": {"name": "fig-filters", "caption": "Filters."}}}
    )
    write(book, "05-two", "profile: str = 'embedded'", labelled, show)
    (outcome,) = reproduce(book=book, only="two")
    folder = book.parent / "runs" / "embedded" / "figures" / "05-two"
    assert [figure.name for figure in outcome.figures] == ["fig-filters.png", "02.png"]
    assert sorted(folder.iterdir()) == sorted(outcome.figures)
    assert all(figure.read_bytes().startswith(b"\x89PNG") for figure in outcome.figures)

    outcome.figures[0].unlink()
    write(book, "05-two", "profile: str = 'embedded'", show)
    (again,) = reproduce(book=book, only="two")
    assert [figure.name for figure in again.figures] == ["01.png"] and list(
        folder.iterdir()
    ) == list(again.figures)


def test_the_kernel_is_this_interpreter_whatever_else_is_installed(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel of the same name in the user's home, which starts another program, is passed over."""
    other = tmp_path / "home" / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(
        json.dumps({"argv": ["/bin/false"], "display_name": "Other", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(other.parents[1]))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    write(book, "05-two", "profile: str = 'embedded'", "import sys, alexnet\nprint(sys.executable)")
    (outcome,) = reproduce(book=book, only="two")
    assert sys.executable in printed(outcome.notebook)


def test_chapters_come_in_the_order_of_the_table_of_contents(book: Path) -> None:
    assert [path.stem for path in chapters(book.parent)] == ["intro", "03-one", "05-two"]


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
    import argparse

    from alexnet import experiments
    from alexnet import reproduce as module

    asked, ahead, notebooks = [], [], []
    monkeypatch.setattr(
        experiments,
        "train_ahead",
        lambda names, profile, seeds, _: ahead.append((names, profile.name, seeds)),
    )
    monkeypatch.setattr(
        experiments,
        "result",
        lambda name, profile, seeds, archive: asked.append((name, profile, list(seeds), archive)),
    )
    done = module.Outcome("c", "done", 0.0, Path("a/b/c.ipynb"), Path("l"))
    monkeypatch.setattr(module, "reproduce", lambda *a, **k: notebooks.append((a, k)) or [done])
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)

    assert module.run(parser.parse_args(["--profile", "cifar10", "--seeds", "2"])) == 0
    both = ["figure1", "cifar_lrn"]
    assert asked == [(name, "cifar10", [0, 1], False) for name in both] and ahead == [
        (both, "cifar10", [0, 1])
    ]
    assert notebooks[0][1]["chapters_wanted"] == {"03-architecture", "06-results"}
    asked.clear()
    assert module.run(parser.parse_args(["--only", "recipe", "--archive"])) == 0
    assert (
        asked == [("recipe", "embedded", [0], True)] and len(notebooks) == 1
    )  # an experiment by itself runs no notebook
    assert module.run(parser.parse_args([])) == 0
    assert notebooks[1][1]["chapters_wanted"] == {
        path.stem for path in chapters(ROOT) if path.stem != "intro"
    }
    assert module.run(parser.parse_args(["--quick"])) == 0 and ahead[-1][1] == "quick"
    assert notebooks[2][1]["chapters_wanted"] == notebooks[1][1]["chapters_wanted"]
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
