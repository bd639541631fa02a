"""Building the book, and refreshing the stored outputs of its notebooks."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
import yaml
from jupyter_cache import get_cache
from nbformat.v4 import new_code_cell, new_notebook, new_output

from alexnet.kernel_environment import kernel_environment

ROOT = Path(__file__).resolve().parents[1]


def load(name: str) -> Any:
    """A script of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


scripts = {name: load(name) for name in ("refresh_notebooks", "build_book", "book_pages")}


CODE = """\
import os, sys
print(os.environ['OMP_NUM_THREADS'])
sys.stdout.flush()
print('é', n)"""


@pytest.fixture
def chapter(tmp_path: Path) -> Path:
    path = tmp_path / "book" / "01-chapter.ipynb"
    path.parent.mkdir()
    cells = [
        new_code_cell("n = 3", metadata={"tags": ["parameters"]}),
        new_code_cell(CODE, metadata={"tags": []}),
    ]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_refreshing_twice_gives_the_same_bytes(chapter: Path) -> None:
    scripts["refresh_notebooks"].refresh(chapter)
    once = chapter.read_bytes()
    scripts["refresh_notebooks"].refresh(chapter)
    assert chapter.read_bytes() == once and "é".encode() in once  # readable in a diff, not escaped
    notebook = nbformat.read(chapter, as_version=4)
    assert [cell.execution_count for cell in notebook.cells] == [1, 2]
    assert [output.text for output in notebook.cells[1].outputs] == ["1\né 3\n"]
    assert not re.search(rb"papermill|\d\d:\d\d:\d\d|language_info|version\"", once)
    assert notebook.metadata.kernelspec.name == "python3"
    assert (
        notebook.cells[0].metadata.tags == ["parameters"]
        and "tags" not in notebook.cells[1].metadata
    )
    assert sorted(each.name for each in chapter.parent.iterdir()) == [chapter.name]


def test_a_chapter_that_fails_is_left_as_it_was(chapter: Path) -> None:
    notebook = nbformat.read(chapter, as_version=4)
    notebook.cells[1].source = "1 / 0"
    nbformat.write(notebook, chapter)
    before = chapter.read_bytes()
    with pytest.raises(papermill.PapermillExecutionError):
        scripts["refresh_notebooks"].refresh(chapter)
    assert chapter.read_bytes() == before


def test_a_notebook_fetches_the_package_where_the_repository_has_an_address(chapter: Path) -> None:
    """And only where the package is missing: here the cell does nothing."""
    refresh, bootstrap = (
        getattr(scripts["refresh_notebooks"], n) for n in ("refresh", "bootstrap")
    )
    without = nbformat.read(chapter, as_version=4)
    refresh(chapter, "https://example.org/alexnet")
    notebook = nbformat.read(chapter, as_version=4)
    first = notebook.cells[0]
    assert "https://example.org/alexnet" in first.source and first.outputs == []
    assert "remove-cell" in first.metadata["tags"]
    bootstrap(notebook, "https://example.org/elsewhere")
    text = nbformat.writes(notebook)
    assert text.count('bootstrap"') == 2 and "org/alexnet" not in text  # the cell's name and tag
    bootstrap(notebook, "")
    assert [cell.source for cell in notebook.cells] == [cell.source for cell in without.cells]


def test_the_cell_that_fetches_the_package_does(tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    for package in ("alexnet", "kernels/alexnet_kernels"):
        (remote / package).mkdir(parents=True)
        (remote / package / "__init__.py").write_text("fetched = True\n")
    git = ["git", "-C", str(remote), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    (tmp_path / "work").mkdir()
    cell = scripts["refresh_notebooks"].BOOTSTRAP.format(url=remote.as_uri())
    code = f"{cell}\nimport alexnet, alexnet_kernels\nassert alexnet.fetched\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        cwd=tmp_path / "work",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_docstrings_are_plain_text_to_the_book() -> None:
    text = "v = m * v, with `rate` and x_ |y|; on\ntwo lines.\n\n    a folder\n      file    what"
    marked = scripts["book_pages"].marked_up(f"{text}\n\nThe *end*.")
    assert marked[0] == r"v = m \* v, with ``rate`` and x\_ \|y\|; on two lines."
    assert marked[2:6] == ["::", "", "    a folder", "      file    what"]
    assert marked[7] == r"The \*end\*."
    assert scripts["book_pages"].marked_up("All `Module`s.")[0] == r"All ``Module``\ s."


def test_sections_of_docstrings_are_lists_in_the_book() -> None:
    text = """Sums.

Args:
    x, y: Two `numbers`, or
        more.
    size: Odd.

Returns:
    The sum, in
    one number.
"""
    marked = [line for line in scripts["book_pages"].marked_up(text) if line]
    args = ["- ``x``, ``y``: Two ``numbers``, or more.", "- ``size``: Odd."]
    assert marked == ["Sums.", "**Args**", *args, "**Returns**", "The sum, in one number."]


def test_verdicts_come_first_in_their_rows_as_badges() -> None:
    def row(tag: str, *cells: str) -> str:
        return f"<tr>{''.join(f'<{tag}><p>{cell}</p></{tag}>' for cell in cells)}\n</tr>"

    moved = scripts["book_pages"].verdicts_first
    head, one = row("th", "claim", "verdict"), row("td", "It has 5.", "not yet run; later")
    badge = '<span class="verdict verdict-not-yet-run">not yet run; later</span>'
    assert moved(f"<table>{head}{one}</table>") == (
        "<table><tr><th><p>verdict</p></th><th><p>claim</p></th></tr>"
        f"<tr><td><p>{badge}</p></td><td><p>It has 5.</p></td></tr></table>"
    )
    other = f"<table>{row('th', 'verdict', 'claim')}{one}</table>"
    assert moved(other) == other


def test_streams_are_joined_only_with_their_own_kind() -> None:
    pieces = [("stdout", "a"), ("stdout", "b"), ("stderr", "c"), ("stdout", "d")]
    notebook = new_notebook(
        cells=[
            new_code_cell(
                "", outputs=[new_output("stream", name=name, text=text) for name, text in pieces]
            )
        ]
    )
    scripts["refresh_notebooks"].clean(notebook)
    assert [(output.name, output.text) for output in notebook.cells[0].outputs] == [
        ("stdout", "ab"),
        ("stderr", "c"),
        ("stdout", "d"),
    ]


def test_the_books_buttons_hang_on_the_repositorys_address_alone() -> None:
    with_buttons = scripts["build_book"].with_buttons
    plain = {"title": "T", "repository": {"url": "", "branch": "main"}, "html": {"favicon": "f"}}
    assert with_buttons(plain, None) == plain
    github = with_buttons(plain, "https://github.com/name/alexnet.git")
    assert (
        github["repository"]["url"] == "https://github.com/name/alexnet"
        and github["html"]["favicon"] == "f"
    )
    assert github["html"]["use_repository_button"] and github["launch_buttons"]["colab_url"]
    elsewhere = with_buttons(
        {**plain, "repository": {"url": "https://codeberg.org/name/alexnet"}}, None
    )
    assert elsewhere["html"]["use_issues_button"] and "launch_buttons" not in elsewhere


def test_the_book_forgets_what_other_code_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_book = scripts["build_book"]
    monkeypatch.setattr(build_book, "ROOT", tmp_path)
    monkeypatch.setattr(build_book, "BUILD", tmp_path / "_build")
    source = tmp_path / "alexnet" / "network.py"
    source.parent.mkdir()
    source.write_text("maps = 48\n")
    cached = [
        tmp_path / "_build" / ".jupyter_cache" / "executed",
        tmp_path / "_build" / ".doctrees" / "page",
    ]

    def survives() -> bool:
        for path in cached:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        build_book.forget_if_changed()
        assert len({path.exists() for path in cached}) == 1
        return cached[0].exists()

    assert [survives(), survives()] == [False, True]
    source.write_text("maps = 64\n")
    assert [survives(), survives()] == [False, True]
    for name in (
        "kernels/alexnet_kernels/native.c",
        "results/embedded/live.json",
        "kernels/kernel_benchmarks/results/max_pool.csv",
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
        assert [survives(), survives()] == [False, True], name
    style = tmp_path / "book" / "_static" / "custom.css"
    style.parent.mkdir(parents=True)
    style.write_text("p { color: red }\n")
    build_book.forget_if_changed()
    assert [path.exists() for path in cached] == [
        True,
        False,
    ]  # pages are written anew, with the same numbers


def test_the_book_executes_ahead_what_its_cache_lacks(
    chapter: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build_book, root = scripts["build_book"], chapter.parents[1]
    monkeypatch.setattr(build_book, "ROOT", root)
    monkeypatch.setattr(build_book, "BUILD", root / "_build")
    tally = "open('tally', 'a').write('x')"
    nbformat.write(new_notebook(cells=[new_code_cell(tally)]), root / "book" / "02-good.ipynb")
    nbformat.write(
        new_notebook(cells=[new_code_cell(tally), new_code_cell("1 / 0")]),
        root / "book" / "03-bad.ipynb",
    )
    pages = [{"file": f"book/{name}"} for name in ("02-good", "03-bad")]
    (root / "_toc.yml").write_text(
        yaml.safe_dump({"format": "jb-book", "root": "book/01-chapter", "chapters": pages})
    )
    for count in (3, 1):  # the one that failed is tried again
        with kernel_environment(ROOT, threads=1):
            build_book.execute_ahead(60)
        assert f"Executing {count} notebook" in capsys.readouterr().out
    assert (root / "book" / "tally").read_text() == "xxx"
    cached = {
        Path(record.uri).stem
        for record in get_cache(root / "_build" / ".jupyter_cache").list_cache_records()
    }
    assert cached == {"01-chapter", "02-good"}

    # a notebook that was renamed is the same one
    (root / "book" / "02-good.ipynb").rename(root / "book" / "04-better.ipynb")
    toc = (root / "_toc.yml").read_text()
    (root / "_toc.yml").write_text(toc.replace("02-good", "04-better"))
    with kernel_environment(ROOT, threads=1):
        build_book.execute_ahead(60)
    assert "Executing 1 notebook" in capsys.readouterr().out
    assert (root / "book" / "tally").read_text() == "xxxx"  # the bad one again


def test_the_book_is_not_built_without_its_figures(
    chapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_book, root = scripts["build_book"], chapter.parents[1]
    monkeypatch.setattr(build_book, "ROOT", root)
    monkeypatch.setattr(build_book, "BUILD", root / "_build")
    labelled = new_code_cell("1", metadata={"mystnb": {"figure": {"name": "fig-lost"}}})
    nbformat.write(new_notebook(cells=[labelled]), chapter)
    toc = {"format": "jb-book", "root": "book/01-chapter"}
    (root / "_toc.yml").write_text(yaml.safe_dump(toc))
    with kernel_environment(ROOT, threads=1), pytest.raises(SystemExit, match="draws no figure"):
        build_book.execute_ahead(60)


def test_mathjax_is_pruned_to_what_pages_load(tmp_path: Path) -> None:
    used = {"tex-chtml.js", "output/chtml/fonts/woff-v2/Main.woff", "input/tex/extensions/color.js"}
    for name in (*used, "sre/speech.js", "output/svg/a.js", "input/tex/extensions/all-packages.js"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    scripts["build_book"].prune_mathjax(tmp_path)
    kept = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert kept == used | {"LICENSE.txt"}
    assert not (tmp_path / "sre").exists()
