"""The lab notebook of 2012: the runs noted in the released source's comments, as data.

`labnotebook.yml` holds the runs, each with file and line, and how the paper's numbers derive from
them. Nothing here is measured by this project.
"""

from functools import cache
from math import hypot
from pathlib import Path
from typing import Any

import yaml

from alexnet import presets
from alexnet.errors import InputError

FILE = Path(__file__).with_suffix(".yml")
WHAT = ("top1", "top5")
TOPICS = ("architecture", "initialization", "data", "learning", "evaluation")
FINDINGS = {
    "same": "the same",
    "differs": "differs",
    "silent": "the text is silent",
    "slip": "a slip of the text",
}


@cache
def load() -> dict[str, Any]:
    """The file as it is: {"data", "images_per_file", "color", "runs", "derivations", "repeats",
    "statements"}."""
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


def statements() -> list[dict[str, Any]]:
    """What the text says beside what the program does, in the order of the text.

    Returns:
        Of each: id, topic (of TOPICS), section, paper, source, refs, finding (of FINDINGS),
        matters, and here: what the presets `paper` and `source` do.
    """
    worth = {name: f"{derive(name, 'top1'):.1f}" for name in load()["derivations"]}
    return [
        {name: text for name, text in one.items() if name != "presets"}
        | {"matters": one["matters"].format_map(worth), "here": one.get("here") or _here(one)}
        for one in load()["statements"]
    ]


def in_preset(preset: str, path: str) -> Any:
    """A value of a preset's table.

    Args:
        preset: As `alexnet.presets.get` takes it.
        path: As layer.field, layer.then (the names of its operations), layer.Operation.field or
            recipe.field.
    """
    table = presets.get(preset)
    first, *rest = path.split(".")
    row: Any = table.recipe if first == "recipe" else table.layer(first)
    if rest == ["then"]:
        return tuple(type(op).__name__.replace("Activation", "ReLU") for op in row.then)
    if len(rest) == 2:
        row = next(op for op in row.then if type(op).__name__ == rest[0])
    return getattr(row, rest[-1])


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, float):  # 0.00002, not 2e-05
        return f"{value:f}".rstrip("0").rstrip(".")
    return "none" if value is None else str(value)


def _here(statement: dict[str, Any]) -> str:
    """The presets' values in words; told once where both hold the same."""

    def of(preset: str) -> str:
        layers: dict[str, list[str]] = {}
        for path in statement["presets"]:
            first, _, field = path.partition(".")
            value = _shown(in_preset(preset, path))
            what = f"{value} after" if field == "then" else f"{field.replace('_', ' ')} {value} in"
            layers.setdefault(what.replace(".", " ", field.count(".")), []).append(first)
        return "; ".join(
            what.removesuffix(" in") if names == ["recipe"] else f"{what} {', '.join(names)}"
            for what, names in layers.items()
        )

    text, other = of("paper"), of("source")
    return f"both presets: {text}" if text == other else f"paper: {text}. source: {other}"


def _derivation(name: str) -> dict[str, Any]:
    derivations = load()["derivations"]
    if name not in derivations:
        every = ", ".join(derivations)
        raise InputError(f"the lab notebook derives no {name!r}; it derives {every}")
    return derivations[name]
