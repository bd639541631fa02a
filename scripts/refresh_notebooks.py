"""Run the book's notebooks anew with default parameters and store their outputs in place: they are committed, and nbval compares with them.

Nothing else that differs from run to run is stored, so an unchanged package leaves an unchanged file. Once _config.yml says where the
repository is, each notebook begins with a cell that fetches the package where it is missing, as in Colab; everywhere else it does nothing.

    python scripts/refresh_notebooks.py              every notebook of _toc.yml
    python scripts/refresh_notebooks.py CHAPTER ...  those, as in 03-architecture
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml

from alexnet.notebooks import QUIET_KERNEL, chapters, kernel_environment

ROOT = Path(__file__).resolve().parents[1]
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


BOOTSTRAP = """\
try:
    import alexnet
except ModuleNotFoundError:  # in Colab, say, which has torch and all else that a chapter needs
    import subprocess
    import sys

    subprocess.run(["git", "clone", "--quiet", "--depth", "1", "{url}", "alexnet-reproduced"], check=True)
    sys.path.insert(0, "alexnet-reproduced")"""


def bootstrap(notebook: Any, url: str) -> None:
    """Begin a notebook, in place, with the cell that fetches the package from `url`; without one, take the cell away."""
    notebook.cells = [
        cell for cell in notebook.cells if "bootstrap" not in cell.metadata.get("tags", [])
    ]
    if url:
        cell = nbformat.v4.new_code_cell(
            BOOTSTRAP.format(url=url), metadata={"tags": ["bootstrap", "remove-cell"]}
        )
        cell["id"] = "bootstrap"
        notebook.cells.insert(0, cell)


def repository() -> str:
    """The repository's address in _config.yml, or nothing."""
    return (yaml.safe_load((ROOT / "_config.yml").read_text()).get("repository") or {}).get(
        "url"
    ) or ""


def refresh(path: Path, url: str = "") -> None:
    """Execute a notebook on one thread and replace the file; a cell that fails leaves it as it was. url: see `bootstrap`."""
    before = nbformat.read(path, as_version=4)
    bootstrap(before, url)
    with kernel_environment(path.parents[1], threads=1):
        notebook = papermill.execute_notebook(
            before,
            None,
            kernel_name="python3",
            cwd=str(path.parent),
            extra_arguments=QUIET_KERNEL,
            progress_bar=sys.stderr.isatty(),
        )
    clean(notebook)
    partial = path.with_suffix(".partial")
    partial.write_text(nbformat.writes(notebook).rstrip("\n") + "\n", encoding="utf-8")
    os.replace(partial, path)


def clean(notebook: Any) -> None:
    """Remove from an executed notebook, in place, what says when and with what it ran, and how its output happened to be cut."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC})
    for cell in notebook.cells:
        for name in ("papermill", "execution", "ExecuteTime"):
            cell.metadata.pop(name, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = _merge_streams(cell.outputs)


def _merge_streams(outputs: list[Any]) -> list[Any]:
    merged: list[Any] = []
    for output in outputs:
        if (
            output.output_type == "stream"
            and merged
            and merged[-1].output_type == "stream"
            and merged[-1].name == output.name
        ):
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run the notebooks anew and store their outputs in place."
    )
    parser.add_argument("chapter", nargs="*", help="as in 03-architecture; all of _toc.yml without")
    wanted = parser.parse_args().chapter
    notebooks = {path.stem: path for path in chapters(ROOT)}
    if unknown := [name for name in wanted if name not in notebooks]:
        parser.error(f"no chapter {unknown[0]}: choose from {', '.join(notebooks)}")
    for name in wanted or notebooks:
        before = notebooks[name].read_bytes()
        refresh(notebooks[name], repository())
        print(
            f"{name}: {'unchanged' if notebooks[name].read_bytes() == before else 'changed'}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
