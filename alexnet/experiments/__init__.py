"""One module per figure and table: `config(profile)`, `run(profile, seeds) -> metrics`, `plot(result)`; and where it trains, `nets(profile,
seeds)`, what it will train, and `then(profile, seeds)`, what hangs on those. This file finds, runs and remembers them.

A trained model is an artifact under runs/<profile>/models, keyed by its config's identity; a result one under runs/<profile>/results, keyed
by its config's hash and seeds. Both are shared by all chapters and the command line: nothing is trained twice.
"""

import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from alexnet import profiles, results
from alexnet.errors import InputError, needs

# where each experiment is shown
CHAPTERS: dict[str, tuple[str, ...]] = {
    "figure1": ("03-architecture",),
    "figure1_factors": ("03-architecture",),
    "cifar_lrn": ("06-results",),
    "recipe": ("05-learning",),
    "permuted": ("04-overfitting",),
    "ablations": ("04-overfitting", "05-learning", "06-results", "07-discussion", "pictographs"),
    "figure3": ("06-results",),
    "figure4": ("06-results",),
    "table1": ("06-results", "pictographs"),
    "table2": ("06-results",),
    "throughput": ("04-overfitting",),
    "devices": ("03-architecture", "more-devices"),
    "page": (),  # the net that runs inside the pages, and kernels to look at there
    "live": (),  # every chapter that needs it runs it anew; its archive holds the bands
}
NAMES = tuple(CHAPTERS)


def module(name: str) -> ModuleType:
    if name not in NAMES:
        raise InputError(f"there is no experiment {name!r}; there are {', '.join(NAMES)}")
    return needs(f"alexnet.experiments.{name}", extra="experiments", what=f"experiment {name}")


def result(
    name: str, profile: str = "embedded", seeds: Sequence[int] = (0,), archive: bool = False
) -> dict[str, Any]:
    """The experiment's result on a profile: what runs/ remembers if its config and seeds are these, else run now. archive: results/ has it
    too, afterwards; seeds that it has already, of this very config, are not run again.

    Raises InputError where the profile has no settings for the experiment, or its data is missing.
    """
    chosen = profiles.load(profile)
    config = _config(name, chosen)
    kept = _kept(name, profile, config) if archive else None
    asked = {"config_hash": results.config_hash(config), "seeds": _left(kept, seeds)}
    if kept and not asked["seeds"]:
        return kept
    remembered = results.load(name, chosen.runs / "results")
    if remembered is None or any(remembered[key] != value for key, value in asked.items()):
        began = time.monotonic()
        metrics = module(name).run(chosen, asked["seeds"])
        data = {
            "title": chosen.title(),
            "digests": {split: pack.digest for split, pack in chosen.splits(name).items()},
        }
        remembered = {
            "experiment": name,
            "profile": profile,
            "config": config,
            **asked,
            "metrics": metrics,
            "data": data,
            "provenance": results.provenance(time.monotonic() - began),
        }
        results.save(remembered, chosen.runs / "results")
    if archive:
        if kept:
            remembered = results.join(kept, remembered)
            results.save(remembered, chosen.runs / "results")
        results.save(remembered, results.ARCHIVE / profile)
    return remembered


def _config(name: str, profile: profiles.Profile) -> dict[str, Any]:
    from alexnet.training import VERSION  # here, so that listing experiments needs no torch

    return module(name).config(profile) | {"training_version": VERSION}


def _kept(name: str, profile: str, config: dict[str, Any]) -> dict[str, Any] | None:
    """What the archive has of this very config."""
    kept = results.archived(name, profile)
    return kept if kept and kept["config_hash"] == results.config_hash(config) else None


def _left(kept: dict[str, Any] | None, seeds: Sequence[int]) -> list[int]:
    """The seeds that are not there yet."""
    return [seed for seed in seeds if kept is None or seed not in kept["seeds"]]


def train_ahead(
    names: Sequence[str], profile: profiles.Profile, seeds: list[int], archive: bool = False
) -> None:
    """Says how long the models of these experiments will take, and trains them, all in one go: so every device has work to the end. Then,
    again in one go, those that hang on them: at the best rate of a sweep, or from a pre-trained net's weights."""
    from alexnet.experiments import models

    able = [name for name in names if hasattr(module(name), "nets")]
    left = {
        name: _left(_kept(name, profile.name, _config(name, profile)) if archive else None, seeds)
        for name in able
    }
    planned = [net for name in able if left[name] for net in module(name).nets(profile, left[name])]
    if planned:
        print(models.forecast(profile, planned), flush=True)
        models.train_planned(profile, planned, "all models")
        later = [
            module(name).then(profile, left[name])
            for name in able
            if left[name] and hasattr(module(name), "then")
        ]
        starts = {start: root for _, roots in later for start, root in roots.items()}
        models.train_planned(
            profile, [net for nets, _ in later for net in nets], "models that follow", starts
        )


def show(
    name: str, profile: str, archived: str = "embedded", seeds: Sequence[int] = (0,)
) -> dict[str, Any] | None:
    """For chapters: profile "archive" reads results/<archived>/ and never trains; any other runs the experiment on that profile.

    None: not yet run, or not to be run on such a profile; then a line says so.
    """
    found = None
    if profile == "archive":
        found = results.archived(name, archived)
    elif name in profiles.load(profile).settings:
        found = result(name, profile, seeds)
    if found is None:
        print(f"{name}, profile {archived if profile == 'archive' else profile}: not yet run")
    return found
