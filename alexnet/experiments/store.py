"""What is kept of an experiment: which entries still fit, and one result of all of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet import results
from alexnet.experiments.protocol import Entry, Experiment
from alexnet.profiles import Profile
from alexnet.results import Record


def kept(
    experiment: Experiment, entries: Sequence[Entry], folders: Sequence[Path]
) -> list[Record | None]:
    """Of each entry the record that one of the folders holds, the first of them before others;
    None where there is none, or what it follows from has changed."""
    found = []
    for entry in entries:
        files = [results.path(f, experiment.NAME, entry.arm, entry.seed) for f in folders]
        records = [results.read(file) for file in files if file.exists()]
        key = entry.key(experiment.VERSION)
        found.append(next((record for record in records if record.get("key") == key), None))
    return found


def record(
    experiment: Experiment,
    profile: Profile,
    entry: Entry,
    metrics: dict[str, Any],
    provenance: dict[str, Any],
) -> Record:
    """An entry as its file holds it."""
    identity = entry.identity(experiment.VERSION)
    return {
        "experiment": experiment.NAME,
        "profile": profile.name,
        "arm": entry.arm,
        "seed": entry.seed,
        "key": entry.key(experiment.VERSION),
        "version": experiment.VERSION,
        "settings": identity["settings"],
        "runs": identity["runs"],
        "metrics": metrics,
        "data": {"title": profile.title(), "digests": identity["data"]},
        "provenance": provenance,
    }


def remove_stale(
    experiment: Experiment, profile: Profile, entries: Sequence[Entry], folder: Path
) -> None:
    """Remove what is no longer as the profile asks for, of other seeds and arms too; say so."""
    records = results.load(experiment.NAME, folder)
    seeds = list(dict.fromkeys(seed for entry in entries for seed in entry.seeds))
    others = {record["seed"] for record in records} - {None, *seeds}
    wanted = [*experiment.entries(profile, [*seeds, *sorted(others)]), *entries]
    keys = {(entry.arm, entry.seed): entry.key(experiment.VERSION) for entry in wanted}
    for record in records:
        if record.get("key") != keys.get((record["arm"], record["seed"])):
            file = results.path(folder, experiment.NAME, record["arm"], record["seed"])
            file.unlink(missing_ok=True)
            print(f"{file}: removed, it is of other settings than the profile has", flush=True)


def assemble(experiment: Experiment, records: Sequence[Record]) -> dict[str, Any]:
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
