"""What every experiment is made of: arms, entries, and the functions that each module has."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from alexnet.errors import InputError
from alexnet.keys import key
from alexnet.results import Record

if TYPE_CHECKING:  # so that showing results needs no torch
    from matplotlib.figure import Figure

    from alexnet.data.pack import Pack
    from alexnet.experiments.jobs import Job, Run
    from alexnet.profiles import Profile
    from alexnet.tables import Table


@dataclass(frozen=True)
class Arm:
    """A row of an experiment's table of arms."""

    preset: str  # a preset's name; or "" or "/variant": the profile's base net, or a variant of it
    what: str  # in words, as tables and figures show it
    section: str = ""  # of the paper
    paper: str = ""  # what the text says that it costs
    points: float | None = None  # the same, percentage points of top-1 error, if it says a number
    who: str = ""  # programs that do so: only those whose files were read
    panel: int = 0  # of the figure
    budgets: int = 1  # of training steps that the arm is given

    def preset_on(self, base: str) -> str:
        """The preset's name where `base` is the profile's base net."""
        return base + self.preset if self.preset[:1] in ("", "/") else self.preset


@dataclass(frozen=True)
class Entry:
    """One arm and one seed: what is trained and measured once, and kept in one file."""

    arm: str
    seed: int | None  # None: of several seeds, or of none
    packs: "dict[str, Pack]"  # the images that it is measured on, by split
    jobs: "tuple[Job, ...]" = ()  # the training runs that it measures
    settings: Mapping[str, Any] = field(default_factory=dict)  # all else that decides its metrics
    seeds: tuple[int, ...] = ()  # those asked for; they decide nothing that `key` does not know

    def identity(self, version: int) -> dict[str, Any]:
        """What the entry's metrics follow from."""
        return {
            "version": version,
            "settings": dict(self.settings),
            "runs": [job.key for job in self.jobs],
            "data": {split: pack.digest for split, pack in self.packs.items()},
        }

    def key(self, version: int) -> str:
        """By which it is known whether a file still holds this entry."""
        return key(self.identity(version))


class Experiment(Protocol):
    """A module of `alexnet.experiments`. Its file is named as it is."""

    NAME: str
    VERSION: int  # of the measurement: a change to what it computes is a new number

    def settings(self, profile: "Profile") -> dict[str, Any]:
        """The measurement's own settings. Raises InputError where the profile has none."""

    def entries(self, profile: "Profile", seeds: Sequence[int]) -> list[Entry]:
        """All that the experiment consists of, with the training runs that each entry needs."""

    def measure(self, entry: Entry, runs: "Sequence[Run]") -> dict[str, Any]:
        """An entry's metrics, as JSON can hold them, of its finished runs in their order."""

    def collect(self, records: Sequence[Record]) -> dict[str, Any]:
        """The metrics of all entries, as tables, figures and claims read them."""

    def table(self, result: dict[str, Any]) -> "Table":
        """The assembled result in words, beside the paper's."""

    def plot(self, result: dict[str, Any]) -> "Figure":
        """The assembled result as a figure."""


def as_experiment(module: ModuleType) -> Experiment:
    """The module, with the type of what it is; tests/test_protocol.py checks that it is one."""
    return cast(Experiment, module)


class Incomplete(Exception):
    """Entries are missing without which there is no result: it was interrupted."""


T = TypeVar("T")


def chosen(profile: "Profile", experiment: str, arms: Mapping[str, T]) -> dict[str, T]:
    """The arms that a profile lists, in the table's order.

    Raises:
        InputError: It lists one that there is not.
    """
    listed = profile[experiment].get("arms", [])
    if unknown := [arm for arm in listed if arm not in arms]:
        known = ", ".join(arms)
        raise InputError(
            f"profile {profile.name!r}: {experiment} has no arm {unknown[0]!r}; it has {known}"
        )
    return {name: arm for name, arm in arms.items() if name in listed}


def by_arm(records: Iterable[Record], arms: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """The entries' metrics by arm, in the order of `arms`, and by seed; other arms are left out."""
    nested: dict[str, dict[str, dict[str, Any]]] = {arm: {} for arm in arms}
    for record in records:
        if record["arm"] in nested:
            nested[record["arm"]][str(record["seed"])] = record["metrics"]
    return {arm: by_seed for arm, by_seed in nested.items() if by_seed}


def by_seed(records: Iterable[Record], arm: str) -> dict[str, dict[str, Any]]:
    """The metrics of one arm's entries."""
    return by_arm(records, [arm]).get(arm, {})


def by_kind(entries: Mapping[str, Mapping[str, Any]], kinds: Iterable[str]) -> dict[str, Any]:
    """Metrics of several seeds by their kind, and then by seed."""
    return {kind: {seed: metrics[kind] for seed, metrics in entries.items()} for kind in kinds}


def only(records: Iterable[Record], arm: str) -> dict[str, Any]:
    """The metrics of an arm's one entry, which has no seed.

    Raises:
        Incomplete: It is missing.
    """
    for record in records:
        if record["arm"] == arm:
            return record["metrics"]
    raise Incomplete(f"there is no entry {arm!r}")


def common(entries: Iterable[Mapping[str, Any]], *names: str) -> dict[str, Any]:
    """Metrics that must be the same in all entries, as numbers of images.

    Raises:
        InputError: They differ: the entries do not belong together.
        Incomplete: There are none.
    """
    if not (every := list(entries)):
        raise Incomplete("there are no entries")
    first, *others = every
    for name in names:
        if unlike := [entry[name] for entry in others if entry[name] != first[name]]:
            raise InputError(
                f"entries do not belong together: {name} is {first[name]} and {unlike[0]}; "
                "remove those that are wrong, and run the experiment again"
            )
    return {name: first[name] for name in names}
