"""The book's notebooks, run with papermill for a profile, several at a time.

A notebook takes part if it has a cell tagged `parameters`. What is finished is stamped and not
repeated until the notebook, the package, the archive of results or the parameters change; what was
interrupted starts again at the unfinished ones. Training inside a notebook resumes by itself.
"""

import ast
import base64
import contextlib
import difflib
import json
import logging
import multiprocessing
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alexnet import profiles
from alexnet.errors import InputError, needs
from alexnet.files import temporary_folder, write_whole
from alexnet.kernel_environment import kernel_environment
from alexnet.keys import key
from alexnet.processes import as_they_end, cores
from alexnet.results import HERE
from alexnet_kernels import files, machine

BOOK = HERE / "book"
# What a notebook's outputs follow from, beside itself: files under the repository's root.
PACKAGE = tuple(
    "alexnet/**/*.py alexnet/**/*.yml alexnet/**/*.json benchmarks/*.py "
    "kernels/**/*.py kernels/**/*.c".split()
)
ARCHIVE = ("results/**/*", "**/results/*.csv")
# or each start of a kernel warns that it listens on this machine's own network
QUIET_KERNEL = ["--log-level=ERROR"]
# whose versions are kept with a stamp
PACKAGES = "alexnet-reproduced torch torchvision triton numpy matplotlib papermill".split()


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook. `status` is "done", "up to date" or "failed"; `seconds` is the
    wall time of the run that made it."""

    chapter: str
    status: str
    seconds: float
    notebook: Path
    log: Path
    figures: tuple[Path, ...] = ()
    error: str = ""


class NotebooksFailed(RuntimeError):
    """Some notebooks failed, after all had their turn. The message names each, its cell and the
    error; `outcomes` holds all of them."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self.outcomes = outcomes
        failed = (outcome for outcome in outcomes if outcome.status == "failed")
        line = "{0.chapter}: {0.error}\n  log: {0.log}\n  as far as it went: {0.notebook}"
        super().__init__("\n".join(map(line.format, failed)))


@dataclass(frozen=True)
class Task:
    """A notebook to be run."""

    path: Path
    parameters: dict[str, Any]
    out: Path  # the folder for what it makes
    key: str  # of its stamp

    def file(self, folder: str, suffix: str) -> Path:
        """What it makes below `out`, named by the chapter.

        Args:
            folder: Its name below `out`.
            suffix: The file's ending, with a dot.
        """
        return self.out / folder / f"{self.path.stem}{suffix}"

    def outcome(self, status: str, seconds: float, **more: Any) -> Outcome:
        """What became of the notebook.

        Args:
            status: "done", "up to date" or "failed".
            seconds: That it took.
            more: Further fields of `Outcome`.
        """
        notebook, log = self.file("notebooks", ".ipynb"), self.file("logs", ".log")
        return Outcome(self.path.stem, status, seconds, notebook, log, **more)


def run(
    profile: str,
    only: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    force: bool = False,
    book: Path = BOOK,
    runs: Path | None = None,
    chapters: set[str] | None = None,
) -> list[Outcome]:
    """Run the book's notebooks for a profile. Writes `runs/<profile>/{notebooks,logs,figures,
    stamps}/`.

    Args:
        only: One chapter, as in `03-architecture`, `03` or `architecture`.
        parameters: Passed to the notebooks that have them; each must exist in at least one.
        force: Run also what is up to date.
        book, runs: Other places than the repository's `book/` and `runs/`.
        chapters: The chapters to run; None: all.

    Returns:
        One outcome a notebook, in the book's order.

    Raises:
        InputError: An unknown profile, chapter or parameter; before anything runs.
        NotebooksFailed: At the end.
    """
    papermill()  # what is missing is said before anything runs
    profiles.load(profile)
    root = book.resolve().parent
    out = (runs or root / "runs").resolve() / profile
    paths = [path for path in select(book, only) if chapters is None or path.stem in chapters]
    given = {"profile": profile, **(parameters or {})}
    known = {path: parameter_names(path) for path in paths}
    check_parameters({*(parameters or ())}, set().union(*known.values()))

    for folder in ("notebooks", "logs", "figures", "stamps"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    made_of = [tree_digest(root, PACKAGE), tree_digest(root, ARCHIVE)]
    made_of += [tree_digest(out, ("results/**/*.json",))]  # by which the page of claims judges
    outcomes: dict[Path, Outcome] = {}
    tasks: list[Task] = []
    for path in paths:
        own = {name: value for name, value in given.items() if name in known[path]}
        task = Task(path, own, out, key([_cells(path), made_of, own]))
        if not force and (finished := _finished(task)):
            print(f"{path.stem}: up to date", flush=True)
            outcomes[path] = finished
        else:
            tasks.append(task)
    with kernel_environment(root, threads=1):
        for number, (task, outcome) in enumerate(_run_all(tasks), 1):
            what = f"{outcome.status}, {outcome.seconds:.0f} s {outcome.error}".rstrip()
            print(f"[{number}/{len(tasks)}] {outcome.chapter}: {what}", flush=True)
            outcomes[task.path] = outcome
    ordered = [outcomes[path] for path in paths]
    if any(outcome.status == "failed" for outcome in ordered):
        raise NotebooksFailed(ordered)
    return ordered


# --- what there is ------------------------------------------------------------------------------


def chapters(root: Path) -> list[Path]:
    """The notebooks that `_toc.yml` under `root` names, in its order.

    Raises:
        InputError: There is no book.
    """
    toc = root / "_toc.yml"
    if not toc.is_file():
        lacks = f"no book and no archive of results in {root} (no _toc.yml)"
        raise InputError(
            f"{lacks}: the installed package has neither; run from a clone of the repository"
        )
    named = [(root / name).with_suffix(".ipynb") for name in pages(yaml.safe_load(toc.read_text()))]
    return [path for path in named if path.is_file()]


def pages(toc: Any) -> Iterator[str]:
    """Every page that a table of contents names, in its order."""
    if isinstance(toc, dict):
        yield from (toc[name] for name in ("root", "file") if name in toc)
        for name in ("parts", "chapters", "sections"):
            yield from pages(toc.get(name))
    elif isinstance(toc, list):
        yield from (name for item in toc for name in pages(item))


def select(book: Path, only: str | None) -> list[Path]:
    """The notebooks with a parameters cell, or the one of them that is named.

    Args:
        book: The folder of the notebooks.
        only: A chapter, as `is_named` takes it; None: all.

    Raises:
        InputError: There is no such chapter.
    """
    root = book.resolve().parent
    paths = [path for path in chapters(root) if any("parameters" in c[2] for c in _cells(path))]
    if not paths:
        raise InputError(f"no notebook of {root / '_toc.yml'} has a cell tagged 'parameters'")
    named = [path for path in paths if only is None or is_named(only, path.stem)]
    if not named:
        choice = ", ".join(path.stem for path in paths)
        raise InputError(f"there is no chapter {only!r} to reproduce: choose from {choice}")
    return named


def is_named(only: str | None, chapter: str) -> bool:
    """Whether 03-architecture, 03 or architecture names the chapter."""
    return only in (chapter, *chapter.split("-", 1))


def parameter_names(path: Path) -> set[str]:
    """The names in a notebook's parameters cell."""
    cells = [source for _, source, tags in _cells(path) if "parameters" in tags]
    tree = ast.walk(ast.parse("\n".join(cells)))
    return {
        node.id for node in tree if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def check_parameters(given: set[str], known: set[str]) -> None:
    """Raise InputError for a parameter that no notebook has."""
    for name in sorted(given - known):
        close = difflib.get_close_matches(name, known, n=1)
        meant = f" (did you mean {close[0]!r}?)" if close else ""
        raise InputError(
            f"there is no parameter {name!r}{meant}: there are {', '.join(sorted(known))}"
        )
    if "profile" in given:
        raise InputError("the profile is not a parameter among others: name it with --profile")


def _cells(path: Path) -> list[tuple[str, str, list[str]]]:
    """(type, source, tags) of each cell: what a notebook is, apart from its outputs."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        (cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", []))
        for cell in cells
    ]


def code_length(path: Path) -> int:
    """Characters of code in a notebook: roughly how long it takes, known beforehand. A long one,
    begun last, would leave cores idle."""
    return sum(len(source) for kind, source, _ in _cells(path) if kind == "code")


def tree_digest(root: Path, patterns: Iterable[str]) -> str:
    """SHA-256 (hex) over the names and contents of the files under `root` that match the glob
    patterns.

    Args:
        root: A folder.
        patterns: Globs below it.
    """
    matches = (path for pattern in patterns for path in root.glob(pattern))
    return files.tree_digest(root, (path for path in matches if path.suffix != ".pyc"))


# --- running ------------------------------------------------------------------------------------


def _finished(task: Task) -> Outcome | None:
    """The outcome of an earlier run of the same thing, if all that it made is still there."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stamp = json.loads(task.file("stamps", ".json").read_text())
        figures = tuple(task.file("figures", "") / name for name in stamp["figures"])
        outcome = task.outcome("up to date", float(stamp["seconds"]), figures=figures)
        made = all(path.is_file() for path in (outcome.notebook, *figures))
        return outcome if made and stamp["key"] == task.key else None
    return None


def _run_all(tasks: list[Task]) -> Iterator[tuple[Task, Outcome]]:
    """Run notebooks, one on each core; gives them as they end."""
    workers = min(cores(), len(tasks))
    if workers <= 1:
        yield from ((task, _run(task)) for task in tasks)
        return
    print(f"{len(tasks)} notebooks, {workers} at a time", flush=True)
    tasks = sorted(tasks, key=lambda task: code_length(task.path), reverse=True)
    died = "a process died, perhaps for lack of memory "
    died += "(or no `if __name__ == '__main__':` guards what called this)"
    for number, future in as_they_end(_run, [(task,) for task in tasks], workers):
        try:
            yield tasks[number], future.result()
        except BrokenProcessPool:
            yield tasks[number], tasks[number].outcome("failed", 0.0, error=died)


def _run(task: Task) -> Outcome:
    """Run one notebook. It appears under its name when it has ended, well or badly; its stamp when
    all that it made is in place."""
    stamp, notebook = task.file("stamps", ".json"), task.file("notebooks", ".ipynb")
    stamp.unlink(missing_ok=True)
    running = notebook.with_name(f".{task.path.stem}.running.ipynb")
    start, error, executed = time.monotonic(), "", None
    options = {"kernel_name": "python3", "extra_arguments": QUIET_KERNEL, "log_output": True}
    alone = multiprocessing.parent_process() is None  # of several at a time, none has a bar
    options |= {"cwd": str(task.path.parent), "progress_bar": sys.stderr.isatty() and alone}
    with _papermill_log(task.file("logs", ".log")) as logger:
        try:
            executed = papermill().execute_notebook(
                str(task.path), str(running), parameters=task.parameters, **options
            )
            if numbers := without_figures(executed):
                raise RuntimeError(f"cell {numbers[0]} draws no figure")
        except Exception as failure:  # its code, its kernel's death: the others get their turn
            logger.error(str(failure))
            error = _explain(failure)
    seconds = time.monotonic() - start
    if running.exists():
        os.replace(running, notebook)
    if executed is None or error:
        return task.outcome("failed", seconds, error=error)
    figures = _extract_figures(executed, task.file("figures", ""))
    versions = {name: version for name in PACKAGES if (version := machine.version(name))}
    content = {"key": task.key, "parameters": task.parameters, "seconds": round(seconds, 1)}
    content["figures"] = [figure.name for figure in figures]
    content["versions"] = {"python": platform.python_version()} | versions
    write_whole(stamp, json.dumps(content, indent=2, default=str) + "\n")
    return task.outcome("done", seconds, figures=figures)


def without_figures(notebook: Any) -> list[int]:
    """Which cells of an executed notebook, counted from 1, hold no picture though they have a
    figure's label; a cell that draws under a condition is not looked at."""

    def lacks(cell: Any) -> bool:
        pictures = (name for o in cell.get("outputs", []) for name in o.get("data", {}))
        is_figure = "figure" in cell.metadata.get("mystnb", {})
        certain = not re.search(r"^if ", cell.source, re.MULTILINE)
        return is_figure and certain and not any(name.startswith("image/") for name in pictures)

    return [number for number, cell in enumerate(notebook.cells, 1) if lacks(cell)]


def _explain(error: Exception) -> str:
    """One line: the cell, by its place and its prompt, and the error's last line."""
    where, text = type(error).__name__, str(error)
    if hasattr(error, "cell_index"):  # papermill's PapermillExecutionError
        cell: Any = error
        where = f"cell {cell.cell_index + 1}, In [{cell.exec_count}]: {cell.ename}"
        text = cell.evalue
    lines = text.strip().splitlines()
    return f"{where}: {lines[-1]}" if lines else where


def _extract_figures(notebook: Any, folder: Path) -> tuple[Path, ...]:
    """Write the PNG outputs to `folder`, which holds nothing else afterwards: named by the label of
    the cell's figure, or numbered."""
    names: list[str] = []
    with temporary_folder(folder, "partial") as fresh:
        for cell in notebook.cells:
            label = cell.metadata.get("mystnb", {}).get("figure", {}).get("name", "")
            label = re.sub(r"[^\w.-]", "-", label)
            for output in cell.get("outputs", []):
                if picture := output.get("data", {}).get("image/png"):
                    name = label
                    if not label or f"{label}.png" in names:
                        name = f"{label}-{len(names) + 1:02}".lstrip("-")
                    names.append(f"{name}.png")
                    (fresh / names[-1]).write_bytes(base64.b64decode("".join(picture)))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(fresh, folder)
    return tuple(folder / name for name in names)


def papermill() -> Any:
    """What runs notebooks. Raises InputError, which names the extra, where it is missing."""
    for name in ("ipykernel", "papermill"):  # the kernel is needed as much, and missed later
        module = needs(name, extra="book", what="running the notebooks")
    return module


@contextlib.contextmanager
def _papermill_log(path: Path) -> Iterator[logging.Logger]:
    """Send what papermill logs, the cells' printed output included, to a file instead of the
    terminal."""
    logger = logging.getLogger("papermill")
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        handler.close()
