"""One command regenerates every figure and table: runs the book's notebooks with papermill, for a profile.

A notebook takes part if it has a cell tagged `parameters`. What is finished is stamped and not repeated until the notebook, the package,
the archive of results or the parameters change; what was interrupted starts again at the unfinished ones. Training inside a
notebook resumes by itself.
"""

import argparse
import ast
import base64
import contextlib
import difflib
import hashlib
import importlib.metadata
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

from alexnet import claims, experiments, profiles
from alexnet.claims import reports
from alexnet.errors import InputError
from alexnet.processes import as_they_end, cores

DEFAULT_PROFILE = "embedded"
# What a notebook's outputs follow from, beside itself: files under the repository's root.
PACKAGE = (
    "alexnet/**/*.py",
    "alexnet/**/*.yml",
    "kernels/**/*.py",
    "kernels/**/*.c",
    "benchmarks/*.py",
)
ARCHIVE = ("results/**/*", "benchmarks/results/*.csv", "kernels/kernel_benchmarks/results/*.csv")
QUIET_KERNEL = [
    "--log-level=ERROR"
]  # or each start of a kernel warns that it listens on this machine's own network


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook. `status` is "done", "up to date" or "failed"; `seconds` is the wall time of the run that made it."""

    chapter: str
    status: str
    seconds: float
    notebook: Path
    log: Path
    figures: tuple[Path, ...] = ()
    error: str = ""


class NotebooksFailed(RuntimeError):
    """Some notebooks failed, after all had their turn. The message names each, its cell and the error; `outcomes` holds all of them."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self.outcomes = outcomes
        failed = [outcome for outcome in outcomes if outcome.status == "failed"]
        super().__init__(
            "\n".join(
                f"{o.chapter}: {o.error}\n  log: {o.log}\n  as far as it went: {o.notebook}"
                for o in failed
            )
        )


def reproduce(
    profile: str = DEFAULT_PROFILE,
    only: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    force: bool = False,
    book: Path | None = None,
    runs: Path | None = None,
    chapters_wanted: set[str] | None = None,
) -> list[Outcome]:
    """Run the book's notebooks for a profile; returns one outcome per notebook, in the book's order.

    only: one chapter, as in `03-architecture`, `03` or `architecture`. parameters: passed to the notebooks that have them; each must exist
    in at least one. force: run also what is up to date. book, runs: other places than the repository's `book/` and `runs/`.
    chapters_wanted: the chapters to run; None: all. Writes `runs/<profile>/{notebooks,logs,figures,stamps}/`. Raises InputError for an
    unknown profile, chapter or parameter before anything runs, and NotebooksFailed at the end.
    """
    _papermill()  # what lacks is told before anything runs
    profiles.load(profile)
    book = (Path(book) if book else Path(__file__).resolve().parents[1] / "book").resolve()
    root = book.parent
    out = (Path(runs) if runs else root / "runs").resolve() / profile
    selected = [
        path
        for path in _select(book, only)
        if chapters_wanted is None or path.stem in chapters_wanted
    ]
    wanted = {"profile": profile, **(parameters or {})}
    known = {path: _papermill_parameters(path) for path in selected}
    _check_parameters(set(parameters or ()), set().union(*known.values()))

    for folder in ("notebooks", "logs", "figures", "stamps"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    package, archive = tree_digest(root, PACKAGE), tree_digest(root, ARCHIVE)
    own = tree_digest(out, ("results/*.json",))  # by which the page of claims judges
    outcomes: dict[Path, Outcome] = {}
    tasks: list[Task] = []
    for path in selected:
        given = {name: value for name, value in wanted.items() if name in known[path]}
        key = _digest([_sources(path), package, archive, own, given])
        if not force and (finished := _finished(out, path.stem, key)):
            print(f"{path.stem}: up to date", flush=True)
            outcomes[path] = finished
        else:
            tasks.append((path, given, out, key))
    with kernel_environment(root, threads=1):
        for number, (path, outcome) in enumerate(_run_all(tasks), 1):
            print(
                f"[{number}/{len(tasks)}] {path.stem}: {outcome.status}, {outcome.seconds:.0f} s {outcome.error}".rstrip(),
                flush=True,
            )
            outcomes[path] = outcome
    ordered = [outcomes[path] for path in selected]
    if any(outcome.status == "failed" for outcome in ordered):
        raise NotebooksFailed(ordered)
    return ordered


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `alexnet reproduce` to a parser; `run` obeys them."""
    names = ", ".join(profiles.names())
    parser.add_argument(
        "--profile",
        default=DEFAULT_PROFILE,
        metavar="P",
        help=f"how big: {names} (default: {DEFAULT_PROFILE})",
    )
    parser.add_argument(
        "--quick",
        dest="profile",
        action="store_const",
        const="quick",
        help="--profile quick: less of everything",
    )
    one = f"one chapter, as 03-architecture, or one experiment: {', '.join(experiments.NAMES)}"
    parser.add_argument("--only", metavar="NAME", help=one)
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds per experiment (default: 1)")
    kept = "also write the results to results/, the archive that the book shows; seeds that it has already are kept"
    parser.add_argument("--archive", action="store_true", help=kept)
    parser.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="another parameter of the notebooks",
    )
    parser.add_argument(
        "--force", action="store_true", help="run also the notebooks that are up to date"
    )


def run(arguments: argparse.Namespace) -> int:
    """`alexnet reproduce`: first the experiments, here, where their progress shows; then the notebooks, which find the results there.

    Returns the exit status, 0 or 1; InputError is the caller's to report.
    """
    profile, only = profiles.load(arguments.profile), arguments.only
    parameters = {name: parse_value(value) for name, value in arguments.parameters}
    if arguments.seeds is not None:
        parameters["seeds"] = arguments.seeds
    book = Path(__file__).resolve().parents[1] / "book"
    known = (
        [{"profile", "seeds"}]
        if only in experiments.NAMES
        else [_papermill_parameters(path) for path in _select(book, only)]
    )
    _check_parameters(set(parameters), set().union(*known))
    if type(count := parameters.get("seeds", 1)) is not int or count < 1:
        raise InputError(f"seeds {count}: give a whole number, at least 1")
    shown = experiments.CHAPTERS
    asked = (
        [only]
        if only in shown
        else [
            name
            for name in shown
            if any(only is None or _named(only, chapter) for chapter in shown[name])
        ]
    )
    served = [name for name in asked if name in profile.settings]
    if only in experiments.NAMES:
        profile[only]  # says so where the profile cannot serve it
    seeds = range(count)
    experiments.train_ahead(served, profile, list(seeds), arguments.archive)
    for name in served:
        print(f"experiment {name}, profile {profile.name}", flush=True)
        experiments.result(name, profile.name, seeds, archive=arguments.archive)
    if only in experiments.NAMES:
        print(profile.runs / "results" / f"{only}.json")
        return 0
    useful = None if only else {chapter for name in served for chapter in shown[name]}
    if (
        useful is not None and profile["source"] == "pictographs"
    ):  # which serve everything, also what no experiment is behind
        useful |= {path.stem for path in _select(book, None)} - {
            chapter for chapters in shown.values() for chapter in chapters
        }
    try:
        outcomes = reproduce(
            profile.name,
            only,
            parameters,
            arguments.force,
            runs=profile.runs.parent,
            chapters_wanted=useful,
        )
    except NotebooksFailed as failed:
        print(failed, file=sys.stderr)
        return 1
    print(
        f"{sum(len(outcome.figures) for outcome in outcomes)} figures: {outcomes[0].notebook.parents[1] / 'figures'}"
    )
    judged = claims.judge_all(profile.name, own=True)
    print(
        f"by your results, {reports.line(judged)}; alexnet claims --runs --profile {profile.name} lists them"
    )
    return 0


def parse_value(text: str) -> Any:
    """The value of a parameter as typed: a Python literal, `true`, `false`, or else the text itself."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def chapters(root: Path) -> list[Path]:
    """The notebooks that `_toc.yml` under `root` names, in its order. Raises InputError where there is no book."""
    toc = root / "_toc.yml"
    if not toc.is_file():
        raise InputError(
            f"no book in {root} (no _toc.yml): the installed package has none; run from a clone of the repository"
        )

    named = [(root / name).with_suffix(".ipynb") for name in pages(yaml.safe_load(toc.read_text()))]
    return [path for path in named if path.is_file()]


def pages(toc: Any) -> Iterator[str]:
    """Every page that a table of contents names, in its order."""
    if isinstance(toc, dict):
        yield from (toc[key] for key in ("root", "file") if key in toc)
        yield from (
            name for key in ("parts", "chapters", "sections") for name in pages(toc.get(key))
        )
    elif isinstance(toc, list):
        yield from (name for item in toc for name in pages(item))


def tree_digest(root: Path, patterns: Iterable[str]) -> str:
    """SHA-256 (hex) over the names and contents of the files under `root` that match the glob patterns."""
    digest = hashlib.sha256()
    for path in sorted(
        {
            path
            for pattern in patterns
            for path in root.glob(pattern)
            if path.is_file() and path.suffix != ".pyc"
        }
    ):
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def kernel_environment(root: Path, threads: int | None = None) -> Iterator[None]:
    """What the notebooks' kernels inherit meanwhile: this interpreter's kernel, before any other that is installed for the user; this very
    package; and, where `threads` is given, that many threads, so that sums of floats come out the same on every machine."""
    changes = {
        "JUPYTER_PATH": os.pathsep.join(
            filter(
                None, [str(Path(sys.prefix) / "share" / "jupyter"), os.environ.get("JUPYTER_PATH")]
            )
        ),
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(root), str(root / "kernels"), os.environ.get("PYTHONPATH")])
        ),
    }
    if threads:
        changes |= dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)
        ) | {"PYTHONHASHSEED": "0"}
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def _papermill() -> Any:
    try:
        import ipykernel  # noqa: F401  (the kernel: needed as much, and missed later)
        import papermill
    except ImportError as missing:
        raise InputError(
            f"{missing.name} is not installed, which running the notebooks needs: pip install -e '.[book]'"
        ) from None
    return papermill


def _select(book: Path, only: str | None) -> list[Path]:
    """The notebooks with a parameters cell, or the one of them that is named."""
    selected = [
        path
        for path in chapters(book.parent)
        if any("parameters" in tags for _, _, tags in _sources(path))
    ]
    if not selected:
        raise InputError(
            f"no notebook of {book.parent / '_toc.yml'} has a cell tagged 'parameters': there is nothing to reproduce"
        )
    if only is None:
        return selected
    named = [path for path in selected if _named(only, path.stem)]
    if not named:
        raise InputError(
            f"there is no chapter {only!r} to reproduce: choose from {', '.join(path.stem for path in selected)}"
        )
    return named


def _named(only: str | None, chapter: str) -> bool:
    """Whether 03-architecture, 03 or architecture names the chapter."""
    return only in (chapter, *chapter.split("-", 1))


def _papermill_parameters(path: Path) -> set[str]:
    """The names in a notebook's parameters cell."""
    with (
        contextlib.redirect_stdout(None),
        _papermill_log(Path(os.devnull)),
    ):  # papermill remarks on what it cannot infer
        return set(_papermill().inspect_notebook(str(path)))


def _check_parameters(given: set[str], known: set[str]) -> None:
    for name in sorted(given - known):
        close = difflib.get_close_matches(name, known, n=1)
        meant = f" (did you mean {close[0]!r}?)" if close else ""
        raise InputError(
            f"there is no parameter {name!r}{meant}: there are {', '.join(sorted(known))}"
        )
    if "profile" in given:
        raise InputError("the profile is not a parameter among others: name it with --profile")


def _sources(path: Path) -> list[tuple[str, str, list[str]]]:
    """(type, source, tags) of each cell: what a notebook is, apart from its outputs."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        (cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", []))
        for cell in cells
    ]


def code_length(path: Path) -> int:
    """Characters of code in a notebook: roughly how long it takes, known beforehand. A long one, begun last, would leave cores idle."""
    return sum(len(source) for kind, source, _ in _sources(path) if kind == "code")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _finished(out: Path, chapter: str, key: str) -> Outcome | None:
    """The outcome of an earlier run of the same thing, if all that it made is still there."""
    try:
        stamp = json.loads((out / "stamps" / f"{chapter}.json").read_text())
        if stamp["key"] != key:
            return None
        figures = tuple(out / "figures" / chapter / name for name in stamp["figures"])
        seconds = float(stamp["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    notebook = out / "notebooks" / f"{chapter}.ipynb"
    if not all(path.is_file() for path in (notebook, *figures)):
        return None
    return Outcome(
        chapter, "up to date", seconds, notebook, out / "logs" / f"{chapter}.log", figures
    )


Task = tuple[
    Path, dict[str, Any], Path, str
]  # a notebook, its parameters, the folder for what it makes, the key of its stamp


def _run_all(tasks: list[Task]) -> Iterator[tuple[Path, Outcome]]:
    """Execute notebooks, one on each core; gives them as they end."""
    workers = min(cores(), len(tasks))
    if workers <= 1:
        yield from ((task[0], _run(*task)) for task in tasks)
        return
    print(f"{len(tasks)} notebooks, {workers} at a time", flush=True)
    tasks = sorted(tasks, key=lambda task: code_length(task[0]), reverse=True)
    for number, job in as_they_end(_run, tasks, workers):
        path, _, out, _ = tasks[number]
        try:
            outcome = job.result()
        except BrokenProcessPool:
            died = "a process died, perhaps for want of memory (or no `if __name__ == '__main__':` guards what called this)"
            outcome = Outcome(
                path.stem,
                "failed",
                0.0,
                out / "notebooks" / path.name,
                out / "logs" / f"{path.stem}.log",
                error=died,
            )
        yield path, outcome


def _run(path: Path, parameters: dict[str, Any], out: Path, key: str) -> Outcome:
    """Execute one notebook. It appears under its name when it has ended, well or badly; its stamp when all that it made is in place."""
    papermill = _papermill()
    chapter = path.stem
    notebook, log, stamp = (
        out / "notebooks" / f"{chapter}.ipynb",
        out / "logs" / f"{chapter}.log",
        out / "stamps" / f"{chapter}.json",
    )
    stamp.unlink(missing_ok=True)
    running = notebook.with_name(f".{chapter}.running.ipynb")
    start = time.monotonic()
    with _papermill_log(log) as logger:
        try:
            executed = papermill.execute_notebook(
                str(path),
                str(running),
                parameters=parameters,
                kernel_name="python3",
                cwd=str(path.parent),
                extra_arguments=QUIET_KERNEL,
                log_output=True,
                progress_bar=sys.stderr.isatty()
                and multiprocessing.parent_process() is None,  # of several at a time, none
            )
        except Exception as error:  # whatever stops one notebook (its code, its kernel's death), the others get their turn
            logger.error(str(error))
            if running.exists():
                os.replace(running, notebook)
            return Outcome(
                chapter, "failed", time.monotonic() - start, notebook, log, error=_explain(error)
            )
    seconds = time.monotonic() - start
    os.replace(running, notebook)
    figures = _extract_figures(executed, out / "figures" / chapter)
    packages = (
        "alexnet-reproduced",
        "torch",
        "torchvision",
        "triton",
        "numpy",
        "matplotlib",
        "papermill",
    )
    record = {
        "key": key,
        "parameters": parameters,
        "seconds": round(seconds, 1),
        "figures": [figure.name for figure in figures],
        "versions": {"python": platform.python_version()}
        | {name: version for name in packages if (version := _version(name))},
    }
    partial = stamp.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=2, default=str) + "\n")
    os.replace(partial, stamp)
    return Outcome(chapter, "done", seconds, notebook, log, figures)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _explain(error: Exception) -> str:
    """One line: the cell, by its place and its prompt, and the error's last line."""
    cell: Any = (
        error if hasattr(error, "cell_index") else None
    )  # papermill's PapermillExecutionError
    where = (
        f"cell {cell.cell_index + 1}, In [{cell.exec_count}]: {cell.ename}"
        if cell
        else type(error).__name__
    )
    lines = str(cell.evalue if cell else error).strip().splitlines()
    return f"{where}: {lines[-1]}" if lines else where


@contextlib.contextmanager
def _papermill_log(path: Path) -> Iterator[logging.Logger]:
    """Send what papermill logs, the cells' printed output included, to a file instead of the terminal."""
    logger = logging.getLogger("papermill")
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield logger
    finally:
        logger.level, logger.propagate = before
        logger.removeHandler(handler)
        handler.close()


def _extract_figures(notebook: Any, folder: Path) -> tuple[Path, ...]:
    """Write the PNG outputs to `folder`, which holds nothing else afterwards: named by the label of the cell's figure, or numbered."""
    fresh = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    names: list[str] = []
    for cell in notebook.cells:
        label = re.sub(
            r"[^\w.-]", "-", cell.metadata.get("mystnb", {}).get("figure", {}).get("name", "")
        )
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                name = (
                    label
                    if label and f"{label}.png" not in names
                    else f"{label}-{len(names) + 1:02}".lstrip("-")
                )
                names.append(f"{name}.png")
                (fresh / names[-1]).write_bytes(
                    base64.b64decode("".join(output["data"]["image/png"]))
                )
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(fresh, folder)
    return tuple(folder / name for name in names)
