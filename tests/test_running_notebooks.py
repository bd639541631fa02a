"""Running notebooks: what is refused, what is repeated, what is made. The notebooks here are tiny
and really run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook

from alexnet import notebooks as module
from alexnet.errors import InputError
from alexnet.notebooks import NotebooksFailed, chapters
from alexnet.notebooks import run as reproduce

ROOT = Path(__file__).resolve().parents[1]
TALLY = "open('tally', 'a').write({name!r} + '\\n')"  # in book/: which notebooks ran
METADATA = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9aw"
PIXEL += "AAAABJRU5ErkJggg=="


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


def test_repeats_what_changed_and_no_more(book: Path) -> None:
    root, runs = book.parent, book.parent / "runs" / "embedded"

    def again(**options: Any) -> str:
        (outcome,) = reproduce("embedded", book=book, only="05", **options)
        return outcome.status

    assert [again(), again()] == ["done", "up to date"]
    for name in (
        "alexnet/network.py",
        "kernels/alexnet_kernels/native.c",
        "results/embedded/table1/CNN-0.json",
        "runs/embedded/results/table1/CNN-0.json",  # by which the page of claims judges
        "benchmarks/results/max_pool.csv",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
        assert [again(), again()] == ["done", "up to date"], name
    write(book, "05-two", "profile: str = 'embedded'", "print('other', profile)")
    assert [again(), again()] == ["done", "up to date"]
    (runs / "notebooks" / "05-two.ipynb").unlink()
    assert [again(), again()] == ["done", "up to date"]
    assert again(force=True) == "done" and len(ran(book)) == 9


def test_a_notebook_executed_in_place_is_the_same_notebook(book: Path) -> None:
    reproduce("embedded", book=book, only="two")
    path = book / "05-two.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].execution_count = 7  # outputs and counts are not what a notebook does
    nbformat.write(notebook, path)
    assert reproduce("embedded", book=book, only="two")[0].status == "up to date"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"parameters": {"sedes": 2}}, "'sedes' (did you mean 'seeds'?): there are profile, seeds"),
        (
            {"parameters": {"seeds": 2}, "only": "two"},
            "there is no parameter 'seeds': there are profile",
        ),
        ({"parameters": {"profile": "cifar10"}}, "name it with --profile"),
        ({"profile": "imagenet"}, "there is no profile 'imagenet'; there are "),
        ({"only": "three"}, "there is no chapter 'three' to reproduce: choose from 03-one, 05-two"),
        ({"only": "intro"}, "there is no chapter 'intro'"),
    ],
)
def test_refuses_bad_input_before_anything_runs(
    book: Path, arguments: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError) as refused:
        reproduce(**{"profile": "embedded", "book": book} | arguments)
    assert expected in str(refused.value) and "\n" not in str(refused.value)
    assert ran(book) == [] and not (book.parent / "runs").exists()


def test_without_the_repository_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no archive of results in .*no _toc\.yml.*run from a clone"
    ):
        reproduce("embedded", book=tmp_path / "book")


def test_without_papermill_names_the_extra(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "papermill", None)
    with pytest.raises(InputError, match=r"notebooks needs papermill: pip install .*\[book\]'"):
        reproduce("embedded", book=book)


def test_a_failing_notebook_is_reported_and_does_not_stop_the_others(book: Path) -> None:
    write(
        book,
        "03-one",
        "profile: str = 'embedded'",
        "print('so far')\nraise ValueError('bad\\nlast line')",
        "print('never')",
    )
    with pytest.raises(NotebooksFailed) as failed:
        reproduce("embedded", book=book)
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
    assert [o.status for o in reproduce("embedded", book=book)] == ["done", "up to date"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on_at_the_unfinished_notebook(
    book: Path, stop: signal.Signals
) -> None:
    wait = "import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.05)"
    write(book, "05-two", "profile: str = 'embedded'", wait, "print('end')")
    imports = "from pathlib import Path; from alexnet.notebooks import run"
    script = f"{imports}; run('embedded', book=Path({str(book)!r}))"
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
    again = reproduce("embedded", book=book)
    assert [o.status for o in again] == ["up to date", "done"] and ran(book) == [
        "03-one",
        "05-two",
        "05-two",
    ]
    assert [path.name for path in sorted(notebooks.iterdir())] == ["03-one.ipynb", "05-two.ipynb"]


def test_a_notebook_whose_process_died_has_failed(
    book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_run", _die)
    monkeypatch.setattr(module, "cores", lambda: 2)
    with pytest.raises(
        NotebooksFailed, match="03-one: a process died, perhaps for lack of memory"
    ) as failed:
        reproduce("embedded", book=book)
    assert [outcome.status for outcome in failed.value.outcomes] == ["failed", "failed"]


def _die(*_: Any) -> None:
    os._exit(3)


def test_figures_are_extracted_by_label_or_number_and_old_ones_go(book: Path) -> None:
    show = f"from IPython.display import Image\nimport base64\nImage(base64.b64decode({PIXEL!r}))"
    labelled = new_code_cell(
        show, metadata={"mystnb": {"figure": {"name": "fig-filters", "caption": "Filters."}}}
    )
    write(book, "05-two", "profile: str = 'embedded'", labelled, show)
    (outcome,) = reproduce("embedded", book=book, only="two")
    folder = book.parent / "runs" / "embedded" / "figures" / "05-two"
    assert [figure.name for figure in outcome.figures] == ["fig-filters.png", "02.png"]
    assert sorted(folder.iterdir()) == sorted(outcome.figures)
    assert all(figure.read_bytes().startswith(b"\x89PNG") for figure in outcome.figures)

    outcome.figures[0].unlink()
    write(book, "05-two", "profile: str = 'embedded'", show)
    (again,) = reproduce("embedded", book=book, only="two")
    assert [figure.name for figure in again.figures] == ["01.png"] and list(
        folder.iterdir()
    ) == list(again.figures)


def test_the_kernel_is_this_interpreter_whatever_else_is_installed(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel of the same name in the user's home, which starts another program, is passed
    over."""
    other = tmp_path / "home" / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(
        json.dumps({"argv": ["/bin/false"], "display_name": "Other", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(other.parents[1]))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    write(book, "05-two", "profile: str = 'embedded'", "import sys, alexnet\nprint(sys.executable)")
    (outcome,) = reproduce("embedded", book=book, only="two")
    assert sys.executable in printed(outcome.notebook)


DRAWS = """import matplotlib
import matplotlib.pyplot as plt
from IPython import get_ipython
print(matplotlib.rcParams["lines.linewidth"], "loaded" in get_ipython().user_ns)
_ = plt.subplots(figsize=(1, 1))"""


def test_figures_are_in_the_notebook_whatever_the_user_has_set(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend without a window, as on servers; a profile of IPython's; a style; and a place with
    blanks and other letters in its name."""
    profile = tmp_path / "ipython" / "profile_default"
    (profile / "startup").mkdir(parents=True)
    (profile / "startup" / "00.py").write_text("loaded = True\nprint('good morning')\n")
    settings = "c.InlineBackend.figure_formats = {'svg'}\n"
    (profile / "ipython_kernel_config.py").write_text(settings)
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\n")
    for name, value in {
        "MPLBACKEND": "Agg",
        "IPYTHONDIR": tmp_path / "ipython",
        "MATPLOTLIBRC": tmp_path / "matplotlibrc",
    }.items():
        monkeypatch.setenv(name, str(value))
    place = tmp_path / "mein Büchlein"
    place.mkdir()
    for path in (book, book.parent / "_toc.yml"):
        path.rename(place / path.name)
    figure = new_code_cell(DRAWS, metadata={"mystnb": {"figure": {"name": "fig-one"}}})
    write(place / "book", "05-two", "profile: str = 'embedded'", figure)
    (outcome,) = reproduce("embedded", book=place / "book", only="two")
    assert [path.name for path in outcome.figures] == ["fig-one.png"]
    assert printed(outcome.notebook) == "1.5 False\n"


def test_nbval_has_the_environment_of_all_kernels(
    book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "book" / "conftest.py", book)
    write(book, "05-two", "profile: str = 'embedded'", new_code_cell(DRAWS))
    (outcome,) = reproduce("embedded", book=book, only="two")
    shutil.copy(outcome.notebook, book / "stored.ipynb")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "kernels")]))
    options = ["-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env"]
    command = [sys.executable, "-m", "pytest", *options, "stored.ipynb"]
    done = subprocess.run(command, cwd=book, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout


def test_a_figure_that_is_not_there_is_a_failure(book: Path) -> None:
    labelled = {"mystnb": {"figure": {"name": "fig-lost"}}}
    cells = [new_code_cell(text, metadata=labelled) for text in ("if False:\n    1", "1")]
    write(book, "05-two", "profile: str = 'embedded'", *cells)
    with pytest.raises(NotebooksFailed, match="cell 5 draws no figure"):
        reproduce("embedded", book=book, only="two")
    assert not list(book.parent.glob("runs/embedded/stamps/*"))


def test_chapters_come_in_the_order_of_the_table_of_contents(book: Path) -> None:
    assert [path.stem for path in chapters(book.parent)] == ["intro", "03-one", "05-two"]
