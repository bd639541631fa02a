"""Every notebook of the book is fit to be held to its stored outputs, and nbval really does that.

nbval compares nothing in a cell that was never executed, so a notebook whose outputs were cleared
would pass: the guard here refuses it.
"""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from alexnet.notebooks import chapters

ROOT = Path(__file__).resolve().parents[1]
SIZE_LIMIT = (
    500_000  # bytes: figures of 72 to 100 dots per inch; more slows down cloning and reviewing
)
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
IGNORED = {"nbval-ignore-output", "nbval-skip"}


def faults(notebook: Any, opening: bool = False) -> list[str]:
    """What keeps a notebook from being committed, one line each.

    The book's opening page may do without parameters.
    """
    found = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tags = [tag for cell in code for tag in cell.metadata.get("tags", [])]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("not executed once, from top to bottom")
    if "injected-parameters" in tags:
        found.append("parameters of a run left in")
    if tags.count("parameters") > 1 or (code and not opening and "parameters" not in tags):
        found.append("not exactly one cell tagged parameters")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("kernelspec is not python3")
    if code and not any(
        cell.outputs and not IGNORED & set(cell.metadata.get("tags", [])) for cell in code
    ):
        found.append("no output that is compared")
    for cell in code:
        settings, where = cell.metadata.get("mystnb", {}), f"In [{cell.execution_count}]"
        # it silences the last value everywhere but under nbval, whose kernel keeps no history
        if cell.source.rstrip().endswith(";"):
            found.append(f"{where}: ends in a semicolon (assign the value instead: _ = ...)")
        if any(output.output_type == "error" for output in cell.outputs):
            found.append(f"{where}: stored error")
        described = settings.get("image", {}).get("alt") or settings.get("figure", {}).get(
            "caption"
        )
        drawn = any(name in output.get("data", {}) for output in cell.outputs for name in PICTURES)
        if drawn and not described:
            lacks = "figure without alternative text (cell metadata: mystnb: image: alt)"
            found.append(f"{where}: {lacks}")
    return found


@pytest.mark.parametrize("path", chapters(ROOT), ids=lambda path: path.stem)
def test_every_chapter_is_fit_to_be_compared(path: Path) -> None:
    assert faults(nbformat.read(path, as_version=4), opening=path == chapters(ROOT)[0]) == []
    assert path.stat().st_size < SIZE_LIMIT


def test_the_table_of_contents_names_only_what_exists() -> None:
    lines = (
        line.split(":", 1) for line in (ROOT / "_toc.yml").read_text().splitlines() if ":" in line
    )
    named = [value.strip() for key, value in lines if key.strip(" -") in ("root", "file")]
    assert (
        named
        and [
            name
            for name in named
            if not any((ROOT / f"{name}{end}").is_file() for end in (".ipynb", ".md"))
        ]
        == []
    )


@pytest.fixture
def fit() -> Any:
    """A notebook as it should be: parameters, a number, a figure."""
    picture = new_output(
        "display_data", data={"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}
    )
    return new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
        cells=[
            new_markdown_cell("# Title"),
            new_code_cell(
                "profile = 'embedded'", execution_count=1, metadata={"tags": ["parameters"]}
            ),
            new_code_cell(
                "print(6 * 7, 'maps')",
                execution_count=2,
                outputs=[new_output("stream", text="42 maps\n")],
            ),
            new_code_cell(
                "draw()",
                execution_count=3,
                outputs=[picture],
                metadata={"mystnb": {"image": {"alt": "A line."}}},
            ),
        ],
    )


def test_the_guard_accepts_a_fit_notebook(fit: Any) -> None:
    assert faults(fit) == []


def unrun(nb: Any) -> None:
    nb.cells[2].execution_count = None


def out_of_order(nb: Any) -> None:
    nb.cells[2].execution_count, nb.cells[3].execution_count = 3, 2


def injected(nb: Any) -> None:
    nb.cells[2].metadata["tags"] = ["injected-parameters"]


def no_parameters(nb: Any) -> None:
    nb.cells[1].metadata["tags"] = []


def two_parameters(nb: Any) -> None:
    nb.cells[2].metadata["tags"] = ["parameters"]


def other_kernel(nb: Any) -> None:
    nb.metadata.kernelspec.name = "my-env"


def error_stored(nb: Any) -> None:
    nb.cells[2].outputs.append(new_output("error", ename="E", evalue="", traceback=[]))


def semicolon(nb: Any) -> None:
    nb.cells[3].source += ";"


def no_alternative_text(nb: Any) -> None:
    del nb.cells[3].metadata["mystnb"]


def nothing_compared(nb: Any) -> None:
    for cell in nb.cells[2:]:
        cell.metadata["tags"] = ["nbval-ignore-output"]


@pytest.mark.parametrize(
    "spoil",
    [
        unrun,
        out_of_order,
        injected,
        no_parameters,
        two_parameters,
        other_kernel,
        semicolon,
        error_stored,
        no_alternative_text,
        nothing_compared,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_the_guard_refuses_a_notebook_with(spoil: Callable[[Any], None], fit: Any) -> None:
    spoil(fit)
    assert len(faults(fit)) == 1


def test_the_guard_lets_the_opening_page_do_without_parameters(fit: Any) -> None:
    no_parameters(fit)
    assert faults(fit, opening=True) == []


def test_nbval_passes_an_unchanged_copy_and_fails_a_changed_number(
    fit: Any, tmp_path: Path
) -> None:
    fit.cells.pop()  # draws nothing: this one is really executed
    changed = copy.deepcopy(fit)
    changed.cells[2].outputs[0].text = "43 maps\n"
    nbformat.write(fit, tmp_path / "unchanged.ipynb")
    nbformat.write(changed, tmp_path / "changed.ipynb")
    report = tmp_path / "report.xml"
    sanitize = ROOT / "tests" / "nbval_sanitize.cfg"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--nbval",
        "--nbval-current-env",
    ]
    command += [
        "--nbval-sanitize-with",
        str(sanitize),
        "--junitxml",
        str(report),
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1, result.stdout + result.stderr
    outcome = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    assert len(outcome) == 1 and "changed.ipynb" in outcome[0] and "unchanged" not in outcome[0], (
        result.stdout
    )
    assert "1 failed, 3 passed" in result.stdout


def test_the_sanitizer_leaves_numbers_alone() -> None:
    import configparser
    import re

    rules = configparser.RawConfigParser()
    rules.read(ROOT / "tests" / "nbval_sanitize.cfg")
    shown = json.dumps({"top-1": 0.375, "loss": "1.234e-05", "images": 1281167, "size": "224x224"})
    assert rules.sections()
    for section in rules.sections():
        assert re.sub(rules[section]["regex"], rules[section]["replace"], shown) == shown
