"""`alexnet reproduce`: one command regenerates every figure and table of the paper, for a profile.

First the experiments, in this process, where their progress shows; then the book's notebooks, which
find the results there.
"""

import argparse
import ast
import sys
from typing import Any

from alexnet import claims, experiments, notebooks, profiles, results
from alexnet.claims import reports
from alexnet.errors import InputError, require
from alexnet.profiles import Profile

DEFAULT_PROFILE = "embedded"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `alexnet reproduce` to a parser; `run` obeys them."""
    names, add = ", ".join(profiles.names()), parser.add_argument
    size = f"how big: {names} (default: {DEFAULT_PROFILE})"
    add("--profile", default=DEFAULT_PROFILE, metavar="P", help=size)
    quick = "--profile quick: less of everything"
    add("--quick", dest="profile", action="store_const", const="quick", help=quick)
    one = f"one chapter, as 03-architecture, or one experiment: {', '.join(experiments.NAMES)}"
    add("--only", metavar="NAME", help=one)
    add("--seeds", type=int, metavar="N", help="seeds per experiment (default: 1)")
    archive = "also write the results to results/, the archive that the book shows; what it has "
    archive += "already of these settings is kept"
    add("--archive", action="store_true", help=archive)
    pair: dict[str, Any] = {"nargs": 2, "action": "append", "metavar": ("NAME", "VALUE")}
    more = "another parameter of the notebooks"
    add("-p", dest="parameters", default=[], help=more, **pair)
    add("--force", action="store_true", help="run also the notebooks that are up to date")


def run(arguments: argparse.Namespace) -> int:
    """Obey the options. Returns the exit status, 0 or 1; InputError is the caller's to report."""
    profile, only = profiles.load(arguments.profile), arguments.only
    is_experiment = only in experiments.NAMES
    parameters = {name: parse_value(value) for name, value in arguments.parameters}
    if arguments.seeds is not None:
        parameters["seeds"] = arguments.seeds
    known = {"profile", "seeds"}
    if not is_experiment:
        notebooks.papermill()  # what is missing is said before hours of experiments
        paths = notebooks.select(notebooks.BOOK, only)
        known = set().union(*map(notebooks.parameter_names, paths))
    notebooks.check_parameters(set(parameters), known)
    if type(count := parameters.get("seeds", 1)) is not int or count < 1:
        raise InputError(f"seeds {count}: give a whole number, at least 1")
    remedy = "leave it out, or run the program of a clone"
    require(results.IN_CLONE or not arguments.archive, f"--archive writes into a clone: {remedy}")
    if is_experiment:
        profile[only]  # says so where the profile cannot serve it
    served = [
        name
        for name, chapters in experiments.CHAPTERS.items()
        if name in profile.settings
        and (only in (None, name) or any(notebooks.is_named(only, c) for c in chapters))
    ]
    seeds = range(count)
    experiments.train_ahead(served, profile, seeds, arguments.archive)
    for name in served:
        print(f"experiment {name}, profile {profile.name}", flush=True)
        experiments.result(name, profile.name, seeds, archive=arguments.archive)
    if is_experiment:
        print(profile.runs / "results" / only)
        return 0
    return _run_notebooks(profile, only, parameters, arguments.force, served)


def _run_notebooks(
    profile: Profile, only: str | None, parameters: dict[str, Any], force: bool, served: list[str]
) -> int:
    chapters = None
    if only is None:
        shown = experiments.CHAPTERS
        chapters = {chapter for name in served for chapter in shown[name]}
        if profile["source"] == "pictographs":  # which serve also what no experiment is behind
            every = {path.stem for path in notebooks.select(notebooks.BOOK, None)}
            chapters |= every - {chapter for several in shown.values() for chapter in several}
    places = notebooks.BOOK, profile.runs.parent
    try:
        outcomes = notebooks.run(profile.name, only, parameters, force, *places, chapters)
    except notebooks.NotebooksFailed as failed:
        print(failed, file=sys.stderr)
        return 1
    figures = sum(len(outcome.figures) for outcome in outcomes)
    print(f"{figures} figures: {outcomes[0].notebook.parents[1] / 'figures'}")
    judged = reports.line(claims.judge_all(profile.name, own=True))
    listing = f"alexnet claims --runs --profile {profile.name} lists them"
    print(f"by your results, {judged}; {listing}")
    return 0


def parse_value(text: str) -> Any:
    """The value of a parameter as typed: a Python literal, `true`, `false`, or else the text."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
