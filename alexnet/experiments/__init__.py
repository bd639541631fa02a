"""One module per figure and table, each an `Experiment` (see `alexnet.experiments.protocol`).

An experiment is made of entries, one for each arm and seed. An entry is remembered under
runs/<profile>/results, or in the archive, by the key of all that it follows from. So what is added
to an experiment is all that is trained and measured.
"""

import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from alexnet import profiles, results
from alexnet.errors import InputError
from alexnet.experiments.protocol import Entry, Experiment, as_experiment
from alexnet.profiles import Profile
from alexnet.results import Record

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


def module(name: str) -> Experiment:
    """An experiment by its name.

    Raises:
        InputError: There is none.
    """
    if name not in NAMES:
        raise InputError(f"there is no experiment {name!r}; there are {', '.join(NAMES)}")
    return as_experiment(import_module(f"alexnet.experiments.{name}"))


def load(name: str, folder: Path) -> dict[str, Any] | None:
    """The result that a profile's folder holds, or None where it has not been run.

    Whether its entries still fit the profile is not looked at: that would need the data.
    """
    records = results.load(name, folder)
    return assemble(name, records) if records else None


def archived(name: str, profile: str) -> dict[str, Any] | None:
    """The result in the archive, or None where it has not been run."""
    return load(name, results.ARCHIVE / profile)


def assemble(name: str, records: Sequence[Record]) -> dict[str, Any]:
    """One result of an experiment's entries."""
    seconds = [record["provenance"]["seconds"] for record in records]
    total = {
        what: sum(one[what] for one in seconds if one[what] is not None)
        if any(one[what] is not None for one in seconds)
        else None
        for what in ("training", "measuring")
    }
    seeds = [record["seed"] for record in records if record["seed"] is not None]
    first = records[0]
    return {
        "experiment": name,
        "profile": first["profile"],
        "seeds": list(dict.fromkeys(seeds)),
        "metrics": module(name).collect(records),
        "data": first["data"],
        "provenance": first["provenance"] | {"seconds": total},
    }


def result(
    name: str, profile: str = "embedded", seeds: Sequence[int] = (0,), archive: bool = False
) -> dict[str, Any]:
    """The result of an experiment on a profile: what runs/ remembers of it, and else run now.

    Args:
        archive: Entries that results/ has are not run again, and it has all of them afterwards.

    Raises:
        InputError: The profile has no settings for the experiment, or its data is missing.
    """
    from alexnet.experiments import scheduler  # here, so that showing results needs no torch

    chosen = profiles.load(profile)
    entries, kept = _kept(name, chosen, seeds, archive)
    missing = [entry for entry in entries if id(entry) not in kept]
    runs = scheduler.train(chosen, [job for entry in missing for job in entry.jobs], name)
    for entry in missing:
        began = time.monotonic()
        own = [runs[job.key] for job in entry.jobs]
        metrics = module(name).measure(entry, own)
        provenance = results.provenance(
            sum(run.seconds for run in own) if own else None, time.monotonic() - began
        )
        record = _record(name, chosen, entry, metrics, provenance)
        kept[id(entry)] = record
        results.save(record, chosen.runs / "results")
    if archive:
        for record in kept.values():
            folder = results.ARCHIVE / profile
            file = results.path(folder, name, record["arm"], record["seed"])
            if not file.exists() or results.read(file) != record:
                results.save(record, folder)
    for folder in (chosen.runs / "results", *[results.ARCHIVE / profile] * archive):
        _remove_stale(name, chosen, entries, folder)
    return assemble(name, [kept[id(entry)] for entry in entries])


def _kept(
    name: str, profile: Profile, seeds: Sequence[int], archive: bool
) -> tuple[list[Entry], dict[int, Record]]:
    """All entries, and the records of those that are there already, by the entry's id."""
    experiment = module(name)
    entries = experiment.entries(profile, list(seeds))
    folders = [*[results.ARCHIVE / profile.name] * archive, profile.runs / "results"]
    kept = {}
    for entry in entries:
        for folder in folders:
            file = results.path(folder, name, entry.arm, entry.seed)
            if file.exists():
                record = results.read(file)
                if record.get("key") == entry.key(experiment.VERSION):
                    kept.setdefault(id(entry), record)
    return entries, kept


def _record(
    name: str, profile: Profile, entry: Entry, metrics: dict[str, Any], provenance: dict[str, Any]
) -> Record:
    version = module(name).VERSION
    identity = entry.identity(version)
    return {
        "experiment": name,
        "profile": profile.name,
        "arm": entry.arm,
        "seed": entry.seed,
        "key": entry.key(version),
        "version": version,
        "settings": identity["settings"],
        "runs": identity["runs"],
        "metrics": metrics,
        "data": {"title": profile.title(), "digests": identity["data"]},
        "provenance": provenance,
    }


def _remove_stale(name: str, profile: Profile, entries: Sequence[Entry], folder: Path) -> None:
    """Remove entries that are no longer what the profile asks for, and say so."""
    experiment, records = module(name), results.load(name, folder)
    seeds = list(dict.fromkeys(seed for entry in entries for seed in entry.seeds))
    others = {record["seed"] for record in records} - {None, *seeds}
    wanted = [*experiment.entries(profile, [*seeds, *sorted(others)]), *entries]
    keys = {(entry.arm, entry.seed): entry.key(experiment.VERSION) for entry in wanted}
    for record in records:
        if record.get("key") != keys.get((record["arm"], record["seed"])):
            file = results.path(folder, name, record["arm"], record["seed"])
            file.unlink(missing_ok=True)
            print(f"{file}: removed, its settings are not those of the profile", flush=True)


def train_ahead(
    names: Sequence[str], profile: Profile, seeds: Sequence[int], archive: bool = False
) -> None:
    """Say how long the jobs of these experiments will take, and do them all in one pool, so that
    every device has work to the end."""
    from alexnet.experiments import scheduler

    jobs = []
    for name in names:
        entries, kept = _kept(name, profile, seeds, archive)
        jobs += [job for entry in entries if id(entry) not in kept for job in entry.jobs]
    if jobs:
        print(scheduler.forecast(profile, jobs), flush=True)
        scheduler.train(profile, jobs, "all models")


def show(
    name: str, profile: str, archived: str = "embedded", seeds: Sequence[int] = (0,)
) -> dict[str, Any] | None:
    """For chapters: profile "archive" reads results/<archived>/ and never trains; any other runs
    the experiment on that profile.

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
