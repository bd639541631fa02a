"""The lab notebook of 2012: the runs noted in the released source's comments, as data.

`labnotebook.yml` holds the runs, each with file and line, and how the paper's numbers derive from
them. Nothing here is measured by this project.
"""

from functools import cache
from math import hypot
from pathlib import Path
from typing import Any

import yaml

from alexnet.errors import InputError

FILE = Path(__file__).with_suffix(".yml")
WHAT = ("top1", "top5")


@cache
def load() -> dict[str, Any]:
    """The file as it is: {"data", "images_per_file", "color", "runs", "derivations", "repeats",
    "differences"}."""
    return yaml.safe_load(FILE.read_text())


def noted(run: str, split: str, views: int) -> dict[str, Any]:
    """One line of errors: {"line", "split", "views", "nll", "top1", "top5"}.

    Args:
        run: A run of labnotebook.yml.
        split: Whose images the errors are of.
        views: Of each image: 1 or more.

    Raises:
        InputError: No such line was noted.
    """
    runs = load()["runs"]
    for line in runs.get(run, {}).get("errors", ()):
        if (line["split"], line["views"]) == (split, views):
            return line
    raise InputError(
        f"the lab notebook has no error of run {run!r} on {split} images from {views} view(s); "
        f"its runs: {', '.join(runs)}"
    )


def where(run: str, line: int | str) -> str:
    """The place in the released source, as layer-params-145.cfg:182.

    Args:
        run: A run of labnotebook.yml.
        line: Of its file, or several, as "170-176".
    """
    return f"{Path(load()['runs'][run]['file']).name}:{line}"


def derive(name: str, what: str) -> float:
    """A derivation's value in percent, or in percentage points where it is a difference.

    Args:
        name: Of the derivation.
        what: "top1" or "top5".
    """
    entry = _derivation(name)
    value = noted(*entry["of"])[what] - (noted(*entry["minus"])[what] if "minus" in entry else 0.0)
    return round(100 * value, 4)  # the notes have six places


def sources(name: str) -> str:
    """Where a derivation's numbers stand."""
    entry = _derivation(name)
    lines = [entry[part] for part in ("of", "minus") if part in entry]
    return " minus ".join(where(line[0], noted(*line)["line"]) for line in lines)


def is_difference(name: str) -> bool:
    return "minus" in _derivation(name)


def printed(name: str, what: str) -> float | None:
    """The paper's number for it, in percent; None where the paper has none.

    Args:
        name: A derivation of labnotebook.yml.
        what: One of the numbers that it lists of the paper.
    """
    return _derivation(name).get("paper", {}).get(what)


def repeats(what: str) -> list[float]:
    """Errors in percent, validation images from ten views, of the runs of one and the same net."""
    return [100 * noted(run, "val", 10)[what] for run in load()["repeats"]]


def color_shifts() -> list[float]:
    """Standard deviation of the source's color noise in R, G and B, in gray levels, before its
    division by 1.1."""
    color = load()["color"]
    return [
        color["noise"] * hypot(*(a * d for a, d in zip(row, color["deviations"], strict=True)))
        for row in color["axes"]
    ]


def _derivation(name: str) -> dict[str, Any]:
    derivations = load()["derivations"]
    if name not in derivations:
        every = ", ".join(derivations)
        raise InputError(f"the lab notebook derives no {name!r}; it derives {every}")
    return derivations[name]
