"""What is kept of an experiment: which entries still fit, and one result of all of them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet import results
from alexnet.experiments.protocol import Entry, Experiment, Metrics, Result
from alexnet.profiles import Profile
from alexnet.results import Record

if TYPE_CHECKING:
    from alexnet.experiments.jobs import Job


def kept(
    experiment: Experiment, entries: Iterable[Entry], folders: Sequence[Path]
) -> list[tuple[Entry, Record | None]]:
    """Of each entry the record that one of the folders holds, the first of them before others;
    None where there is none, or what it follows from has changed."""
    pairs = []
    for entry in entries:
        files = [results.path(f, experiment.NAME, entry.arm, entry.seed) for f in folders]
        records = [results.read(file) for file in files if file.exists()]
        key = entry.key(experiment.VERSION)
        pairs.append((entry, next((one for one in records if one.get("key") == key), None)))
    return pairs


def missing_jobs(kept: Iterable[tuple[Entry, Record | None]]) -> "list[Job]":
    """The jobs of the entries of which there is no record."""
    return [job for entry, record in kept if record is None for job in entry.jobs]


def record(
    experiment: Experiment,
    profile: Profile,
    entry: Entry,
    metrics: Metrics,
    provenance: dict[str, Any],
) -> Record:
    """An entry as its file holds it."""
    identity = entry.identity(experiment.VERSION)
    data = {"title": profile.title(), "digests": identity.pop("data")}
    about: Record = {"experiment": experiment.NAME, "profile": profile.name}
    about |= {"arm": entry.arm, "seed": entry.seed, "key": entry.key(experiment.VERSION)}
    return about | identity | {"metrics": metrics, "data": data, "provenance": provenance}


def remove_stale(
    experiment: Experiment,
    profile: Profile,
    entries: Sequence[Entry],
    seeds: Sequence[int],
    folder: Path,
) -> None:
    """Remove what is no longer as the profile asks for, of other seeds and arms too; say so."""
    records = results.load(experiment.NAME, folder)
    others = {record["seed"] for record in records} - {None, *seeds}
    current = [*experiment.entries(profile, [*seeds, *sorted(others)]), *entries]
    keys = {(entry.arm, entry.seed): entry.key(experiment.VERSION) for entry in current}
    for record in records:
        if record.get("key") != keys.get((record["arm"], record["seed"])):
            file = results.path(folder, experiment.NAME, record["arm"], record["seed"])
            file.unlink(missing_ok=True)
            print(f"{file}: removed, it is of other settings than the profile has", flush=True)


def assemble(experiment: Experiment, records: list[Record]) -> Result:
    """One result of an experiment's entries."""
    first, seeds = records[0], [r["seed"] for r in records if r["seed"] is not None]
    seconds = {
        what: [s for r in records if (s := r["provenance"]["seconds"][what]) is not None]
        for what in ("training", "measuring")
    }
    total = {what: round(sum(known), 1) if known else None for what, known in seconds.items()}
    return {
        "experiment": experiment.NAME,
        "profile": first["profile"],
        "seeds": list(dict.fromkeys(seeds)),
        "metrics": experiment.collect(records),
        "data": first["data"],
        "provenance": first["provenance"] | {"seconds": total},
    }
