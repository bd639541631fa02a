"""One module per figure and table, each an `Experiment` (see `alexnet.experiments.protocol`).

An experiment is made of entries, one for each arm and seed. An entry is remembered under
runs/<profile>/results, or in the archive, by the key of all that it follows from. So what is added
to an experiment is all that is trained and measured.
"""

import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from alexnet import profiles, results
from alexnet.errors import InputError
from alexnet.experiments import store
from alexnet.experiments.protocol import Experiment, Incomplete
from alexnet.profiles import Profile

# where each experiment is shown
CHAPTERS: dict[str, tuple[str, ...]] = {
    "figure1": ("03-architecture",),
    "figure1_factors": ("03-architecture",),
    "cifar_lrn": ("06-results",),
    "bf16": (),  # what bfloat16 costs: not yet run
    "recipe": ("05-learning",),
    "pilot": (),  # what further runs could show: it comes before a plan
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


def module(name: str) -> Experiment:
    """An experiment by its name.

    Raises:
        InputError: There is none.
    """
    if name not in NAMES:
        raise InputError(f"there is no experiment {name!r}; there are {', '.join(NAMES)}")
    return cast(Experiment, importlib.import_module(f"alexnet.experiments.{name}"))


def load(name: str, folder: Path) -> dict[str, Any] | None:
    """The result that a profile's folder holds, or None where it has not been run to its end.

    Whether its entries still fit the profile is not looked at: that would need the data.

    Args:
        name: The experiment's.
        folder: Of a profile: results/NAME, or runs/NAME/results.
    """
    records = results.load(name, folder)
    try:
        return store.assemble(module(name), records) if records else None
    except Incomplete:
        return None


def archived(name: str, profile: str) -> dict[str, Any] | None:
    """The result in the archive, or None where it has not been run.

    Args:
        name: The experiment's.
        profile: The profile's.
    """
    return load(name, results.ARCHIVE / profile)


def result(
    name: str, profile: str = "embedded", seeds: Sequence[int] = (0,), archive: bool = False
) -> dict[str, Any]:
    """The result of an experiment on a profile: what runs/ remembers of it, and else run now.

    Args:
        name: The experiment's.
        profile: The profile's.
        seeds: Of the training runs.
        archive: Entries that results/ has are not run again, and it has all of them afterwards.

    Raises:
        InputError: The profile has no settings for the experiment, or its data is missing.
    """
    from alexnet.experiments import scheduler

    chosen, experiment = profiles.load(profile), module(name)
    folders = _folders(chosen, archive)
    kept = store.kept(experiment, experiment.entries(chosen, list(seeds)), folders)
    runs = scheduler.train(chosen, store.missing_jobs(kept), name)
    records = []
    for entry, record in kept:
        if record is None:
            began, own = time.monotonic(), [runs[job.key] for job in entry.jobs]
            metrics = experiment.measure(entry, own)
            provenance = results.provenance(store.training(own), time.monotonic() - began)
            record = store.record(experiment, chosen, entry, metrics, provenance)
        for folder in folders:  # what one has, the other need not make again
            file = results.path(folder, name, entry.arm, entry.seed)
            if not file.exists() or results.read(file) != record:
                results.save(record, folder)
        records.append(record)
    entries = [entry for entry, _ in kept]
    for folder in folders:
        store.remove_stale(experiment, chosen, entries, seeds, folder)
    return store.assemble(experiment, records)


def _folders(profile: Profile, archive: bool) -> list[Path]:
    """Where entries are remembered."""
    return [*[results.ARCHIVE / profile.name] * archive, profile.runs / "results"]


def train_ahead(
    names: Sequence[str], profile: Profile, seeds: Sequence[int], archive: bool = False
) -> None:
    """Say how long the jobs of these experiments will take, and do them all in one pool, so that
    every device has work to the end.

    Args:
        names: The experiments'.
        profile: What they run on.
        seeds: Of the training runs.
        archive: Whether entries in results/ count as done.
    """
    from alexnet.experiments import scheduler

    jobs = []
    for experiment in map(module, names):
        entries = experiment.entries(profile, list(seeds))
        jobs += store.missing_jobs(store.kept(experiment, entries, _folders(profile, archive)))
    if jobs:
        print(scheduler.forecast(profile, jobs), flush=True)
        scheduler.train(profile, jobs, "all models")


def show(
    name: str, profile: str, archived: str = "embedded", seeds: Sequence[int] = (0,)
) -> dict[str, Any] | None:
    """The result of an experiment, for a chapter to show.

    Args:
        name: The experiment's.
        profile: "archive" reads results/<archived>/ and never trains; any other runs the experiment
            on that profile.
        archived: The profile whose archive is read.
        seeds: Of the training runs.

    Returns:
        None where it has not been run, or cannot be on such a profile; then a line says so.
    """
    shown = None
    if profile == "archive":
        shown = load(name, results.ARCHIVE / archived)
    elif name in profiles.load(profile).settings:
        shown = result(name, profile, seeds)
    if shown is None:
        print(f"{name}, profile {archived if profile == 'archive' else profile}: not yet run")
    return shown
