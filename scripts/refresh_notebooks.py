"""Run the book's notebooks anew with default parameters and store their outputs in place.

They are committed, and nbval compares with them. Nothing else that differs from run to run is
stored, so an unchanged package leaves an unchanged file. Once _config.yml says where the repository
is, each notebook begins with a cell that fetches the package where it is missing, as in Colab;
everywhere else it does nothing.

    python scripts/refresh_notebooks.py              every notebook of _toc.yml
    python scripts/refresh_notebooks.py CHAPTER ...  those, as in 03-architecture
"""

import argparse
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml

from alexnet.files import write_whole
from alexnet.kernel_environment import kernel_environment
from alexnet.notebooks import QUIET_KERNEL, chapters

ROOT = Path(__file__).resolve().parents[1]
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
BOOTSTRAP = """\
try:
    import alexnet
except ModuleNotFoundError:  # in Colab, say, which has torch and all else that a chapter needs
    import subprocess
    import sys

    folder = "alexnet-reproduced"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", "{url}", folder], check=True)
    sys.path[:0] = [folder, f"{{folder}}/kernels"]"""


def bootstrap(notebook: Any, url: str) -> None:
    """Begin a notebook, in place, with the cell that fetches the package from `url`; without one,
    take the cell away."""
    cells = [cell for cell in notebook.cells if "bootstrap" not in cell.metadata.get("tags", [])]
    if url:
        about = {"tags": ["bootstrap", "remove-cell"]}
        first = nbformat.v4.new_code_cell(BOOTSTRAP.format(url=url), metadata=about)
        first["id"] = "bootstrap"
        cells.insert(0, first)
    notebook.cells = cells


def repository() -> str:
    """The repository's address in _config.yml, or nothing."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    return (config.get("repository") or {}).get("url") or ""


def refresh(path: Path, url: str = "") -> None:
    """Execute a notebook on one thread and replace the file; a cell that fails leaves it as it was.

    Args:
        path: The notebook.
        url: As in `bootstrap`.
    """
    before = nbformat.read(path, as_version=4)
    bootstrap(before, url)
    where = {"kernel_name": "python3", "cwd": str(path.parent), "extra_arguments": QUIET_KERNEL}
    with kernel_environment(path.parents[1], threads=1):
        notebook = papermill.execute_notebook(
            before, None, progress_bar=sys.stderr.isatty(), **where
        )
    clean(notebook)
    write_whole(path, nbformat.writes(notebook).rstrip("\n") + "\n")


def clean(notebook: Any) -> None:
    """Remove from an executed notebook, in place, what says when and with what it ran, and how its
    output happened to be cut."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC})
    for cell in notebook.cells:
        for name in ("papermill", "execution", "ExecuteTime"):
            cell.metadata.pop(name, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            streams = groupby(cell.outputs, key=lambda output: output.get("name") or id(output))
            cell.outputs = [_joined(*pieces) for _, pieces in streams]


def _joined(first: Any, *rest: Any) -> Any:
    """Consecutive pieces of one stream as one output."""
    for piece in rest:
        first.text += piece.text
    return first


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("chapter", nargs="*", help="as in 03-architecture; all of _toc.yml without")
    names = parser.parse_args().chapter
    notebooks = {path.stem: path for path in chapters(ROOT)}
    if unknown := [name for name in names if name not in notebooks]:
        parser.error(f"no chapter {unknown[0]}: choose from {', '.join(notebooks)}")
    for name in names or notebooks:
        before = notebooks[name].read_bytes()
        refresh(notebooks[name], repository())
        changed = notebooks[name].read_bytes() != before
        print(f"{name}: {'changed' if changed else 'unchanged'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
