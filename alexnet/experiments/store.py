"""What is kept of an experiment: which entries still fit, and one result of all of them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet import results
from alexnet.claims import plans
from alexnet.errors import require
from alexnet.experiments.protocol import Entry, Experiment, Metrics, Result
from alexnet.profiles import Profile
from alexnet.results import Record

if TYPE_CHECKING:
    from alexnet.experiments.jobs import Job, Run


def kept(
    experiment: Experiment, entries: Iterable[Entry], folders: Sequence[Path]
) -> list[tuple[Entry, Record | None]]:
    """Of each entry the record that one of the folders holds, the first of them before others;
    None where there is none, or what it follows from has changed.

    Args:
        experiment: Its module.
        entries: All of its entries.
        folders: Of profiles, in the order in which they are looked into.
    """
    pairs, names = [], set[Path]()
    for entry in entries:
        name = results.path(Path(), experiment.NAME, entry.arm, entry.seed)
        taken = f"two entries of {experiment.NAME} have the file {name}; rename an arm"
        require(name not in names, taken)
        names.add(name)
        files = [results.path(f, experiment.NAME, entry.arm, entry.seed) for f in folders]
        records = [results.read(file) for file in files if file.exists()]
        key = entry.key(experiment.VERSION)
        pairs.append((entry, next((one for one in records if one.get("key") == key), None)))
    return pairs


def missing_jobs(kept: Iterable[tuple[Entry, Record | None]]) -> "list[Job]":
    """The jobs of the entries of which there is no record."""
    return [job for entry, record in kept if record is None for job in entry.jobs]


def training(runs: "Sequence[Run]") -> list[Record] | None:
    """What `results.provenance` takes: who trained these runs, and for how many seconds; None
    without any."""
    parts = [
        {"run": run.folder.name} | part
        for run in runs
        for part in run.summary.get("origins", [{"seconds": run.summary["seconds"]}])
    ]
    return parts or None


def record(
    experiment: Experiment,
    profile: Profile,
    entry: Entry,
    metrics: Metrics,
    provenance: dict[str, Any],
) -> Record:
    """An entry as its file holds it.

    Args:
        experiment: Its module.
        profile: What it was run on.
        entry: What was measured.
        metrics: As JSON can hold them.
        provenance: As `alexnet.results.provenance` gives it.
    """
    identity = entry.identity(experiment.VERSION)
    data = {"title": profile.title(), "digests": identity.pop("data")}
    about: Record = {"experiment": experiment.NAME, "profile": profile.name}
    about |= {"arm": entry.arm, "seed": entry.seed, "key": entry.key(experiment.VERSION)}
    if plan := plans.digest(profile.name, experiment.NAME):
        about["plan"] = plan
    return about | identity | {"metrics": metrics, "data": data, "provenance": provenance}


def remove_stale(
    experiment: Experiment,
    profile: Profile,
    entries: Sequence[Entry],
    seeds: Sequence[int],
    folder: Path,
) -> None:
    """Remove what is no longer as the profile asks for, of other seeds and arms too; say so.

    Args:
        experiment: Its module.
        profile: What it was run on.
        entries: Those that stay.
        seeds: Those that were run now; other seeds' entries stay too.
        folder: The profile's.
    """
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
    """One result of an experiment's entries.

    Args:
        experiment: Its module.
        records: Its entries, as files hold them.
    """
    first, seeds = records[0], [r["seed"] for r in records if r["seed"] is not None]
    return {
        "experiment": experiment.NAME,
        "profile": first["profile"],
        "seeds": list(dict.fromkeys(seeds)),
        "metrics": experiment.collect(records),
        "data": first["data"],
        "provenance": together([record["provenance"] for record in records]),
    }


def together(provenances: list[dict[str, Any]]) -> dict[str, Any]:
    """The provenance of all entries: of the first, with the seconds of all, a run that several
    entries share counted once, and with all commits and processors that took part."""
    parts = {
        (part["run"], number): part
        for provenance in provenances
        for number, part in enumerate(provenance.get("training") or [])
    }
    alone = [p["seconds"]["training"] for p in provenances if not p.get("training")]  # older ones
    seconds = {
        "training": [*(part["seconds"] for part in parts.values()), *alone],
        "measuring": [provenance["seconds"]["measuring"] for provenance in provenances],
    }
    known = {what: [s for s in each if s is not None] for what, each in seconds.items()}
    total = {what: round(sum(each), 1) if each else None for what, each in known.items()}
    origins = [*parts.values(), *provenances]
    commits = dict.fromkeys(part["commit"] for part in origins if "commit" in part)
    machines = [part["hardware"] for part in origins if "hardware" in part]
    return {
        **provenances[0],
        "seconds": total,
        "training": list(parts.values()) or None,
        "commits": list(commits),
        "processors": list(dict.fromkeys(machine["processor"] for machine in machines)),
    }
