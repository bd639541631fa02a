"""What every experiment is made of: arms, entries, and the functions that each module has."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from alexnet.data.pack import Pack
from alexnet.errors import InputError
from alexnet.fields import Checked, Count, Finite, Natural
from alexnet.keys import key
from alexnet.profiles import Profile
from alexnet.results import Record
from alexnet.tables import Table

if TYPE_CHECKING:
    from alexnet.experiments.jobs import Job, Run
    from alexnet.experiments.showing import Figure

Metrics = dict[str, Any]  # of an entry, or of all entries together
Result = dict[str, Any]  # with metrics, as `alexnet.experiments.result` assembles it


@dataclass(frozen=True)
class Arm(Checked):
    """A row of an experiment's table of arms.

    Raises:
        InputError: A field is of another type, or out of range.
    """

    preset: str  # a preset's name; or "" or "/variant": the profile's base net, or a variant of it
    what: str  # in words, as tables and figures show it
    section: str = ""  # of the paper
    paper: str = ""  # what the text says that it costs
    points: Finite | None = None  # the same, percentage points of top-1 error, if it says a number
    who: str = ""  # programs that do so: only those whose files were read
    panel: Natural = 0  # of the figure
    budgets: Count = 1  # of training steps that the arm is given

    def preset_on(self, base: str) -> str:
        """The preset's name where `base` is the profile's base net."""
        return base + self.preset if self.preset[:1] in ("", "/") else self.preset


@dataclass(frozen=True)
class Entry:
    """One arm and one seed: what is trained and measured once, and kept in one file."""

    arm: str
    seed: int | None  # None: of several seeds, or of none
    packs: dict[str, Pack]  # the images that it is measured on, by split
    jobs: "tuple[Job, ...]" = ()  # the training runs that it measures
    settings: Mapping[str, Any] = field(default_factory=dict)  # all else that decides its metrics
    rounds: tuple[int, ...] = ()  # seeds of repetitions in one entry; they decide no key

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
    """A module of `alexnet.experiments`, whose file is named as it is."""

    NAME: str
    VERSION: int  # of the measurement: a change to what it computes is a new number

    def entries(self, profile: Profile, seeds: list[int]) -> list[Entry]:
        """All that the experiment consists of.

        Args:
            profile: Whose settings under the experiment's name say how large everything is.
            seeds: Of the training runs.

        Returns:
            One entry for each arm and seed: settings of its own, and the training runs that it
            needs.

        Raises:
            InputError: The profile has no settings for the experiment.
        """

    def measure(self, entry: Entry, runs: "list[Run]") -> Metrics:
        """An entry's metrics.

        Args:
            entry: One of `entries`.
            runs: Its finished training runs, in the order of `entry.jobs`.

        Returns:
            What JSON can hold, with sample sizes.
        """

    def collect(self, records: list[Record]) -> Metrics:
        """The metrics of all entries, as tables, figures and claims read them."""

    def table(self, result: Result) -> Table:
        """The assembled result in words, beside the paper's."""

    def plot(self, result: Result) -> "Figure":
        """The assembled result as a figure."""


class Incomplete(Exception):
    """Entries are missing without which there is no result: it was interrupted."""


T = TypeVar("T")


def chosen(profile: Profile, experiment: str, arms: Mapping[str, T]) -> dict[str, T]:
    """The arms that a profile lists, in the table's order.

    Args:
        profile: Whose settings list the arms.
        experiment: Its name, under which they stand.
        arms: The table of arms, by name.

    Raises:
        InputError: It lists one that there is not.
    """
    listed = profile[experiment].get("arms", [])
    for arm in listed:
        if arm not in arms:
            about = f"{experiment} has no arm {arm!r}; it has {', '.join(arms)}"
            raise InputError(f"profile {profile.name!r}: {about}")
    return {name: arm for name, arm in arms.items() if name in listed}


def by_arm(records: Iterable[Record], arms: Iterable[str]) -> dict[str, dict[str, Metrics]]:
    """The entries' metrics by arm, in the order of `arms`, and by seed; other arms are left out.

    Args:
        records: Entries as files hold them.
        arms: Names of arms.
    """
    nested: dict[str, dict[str, Metrics]] = {arm: {} for arm in arms}
    for record in records:
        if record["arm"] in nested:
            nested[record["arm"]][str(record["seed"])] = record["metrics"]
    return {arm: by_seed for arm, by_seed in nested.items() if by_seed}


def by_seed(records: Iterable[Record], arm: str) -> dict[str, Metrics]:
    """The metrics of one arm's entries.

    Args:
        records: Entries as files hold them.
        arm: Its name.

    Returns:
        Metrics by seed, a text.
    """
    return by_arm(records, [arm]).get(arm, {})


def by_kind(entries: Mapping[str, Metrics], kinds: Iterable[str]) -> Metrics:
    """Metrics of several seeds by their kind, and then by seed.

    Args:
        entries: Metrics by seed.
        kinds: Names of metrics.
    """
    return {kind: {seed: metrics[kind] for seed, metrics in entries.items()} for kind in kinds}


def pick(entries: Mapping[str, Metrics], kinds: Iterable[str]) -> dict[str, Metrics]:
    """Of the metrics of several seeds, these kinds.

    Args:
        entries: Metrics by seed.
        kinds: Names of metrics.
    """
    return {seed: {kind: metrics[kind] for kind in kinds} for seed, metrics in entries.items()}


def only(records: Iterable[Record], arm: str) -> Metrics:
    """The metrics of an arm's one entry, which has no seed.

    Args:
        records: Entries as files hold them.
        arm: Its name.

    Raises:
        Incomplete: It is missing.
    """
    if metrics := by_seed(records, arm):
        return next(iter(metrics.values()))
    raise Incomplete(f"there is no entry {arm!r}")


def each(nested: Mapping[str, Mapping[str, Metrics]]) -> list[Metrics]:
    """The metrics of all arms and seeds."""
    return [metrics for by_seed in nested.values() for metrics in by_seed.values()]


def common(entries: Iterable[Metrics], *names: str) -> Metrics:
    """Metrics that must be the same in all entries, as numbers of images.

    Args:
        entries: The metrics of several entries.
        names: Of the metrics in question.

    Raises:
        InputError: They differ: the entries do not belong together.
        Incomplete: There are none.
    """
    if not (every := list(entries)):
        raise Incomplete("there are no entries")
    for name in names:
        first, *others = dict.fromkeys(metrics[name] for metrics in every)
        if others:
            raise InputError(
                f"entries do not belong together: {name} is {first} and {others[0]}; "
                "remove those that are wrong, and run the experiment again"
            )
    return {name: every[0][name] for name in names}
