"""Profiles: how big a reproduction is. A YAML file each: the data, the net's width and image size, the budgets of the experiments."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alexnet import results
from alexnet.data import pictographs
from alexnet.data.pack import Pack, open_splits, temporary
from alexnet.data.prepare import prepare
from alexnet.errors import InputError

HERE = Path(__file__).parent


def names() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.yml"))


@dataclass(frozen=True)
class Profile:
    name: str
    settings: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        """A setting; raises InputError where the profile has none of that name: it cannot serve what asks for it."""
        if key not in self.settings:
            others = ", ".join(who_has(key)) or "none"
            raise InputError(f"profile {self.name!r} has no settings for {key!r}; the profiles that do: {others}")
        return self.settings[key]

    @property
    def runs(self) -> Path:
        return results.runs(self.name)

    @property
    def net(self) -> dict[str, Any]:
        """What all nets of the profile share, unless an experiment says otherwise: fields of `trainer.Config`."""
        return {name: self.settings[name] for name in ("image_size", "width", "batch_size", "rate") if name in self.settings}

    def source(self) -> Path | str:
        """What is prepared: "pictographs", or a folder under ALEXNET_DATA."""
        wanted = self["source"]
        if wanted == "pictographs":
            return wanted
        root = os.environ.get("ALEXNET_DATA")
        for name in wanted:
            if root and (Path(root) / name).is_dir():
                return Path(root) / name
        where = f"set ALEXNET_DATA to the folder that holds {' or '.join(wanted)}"
        if root:
            where = f"ALEXNET_DATA={root} holds no {' and no '.join(wanted)}"
        raise InputError(f"profile {self.name!r} needs {self['title']}: {where}")

    def title(self) -> str:
        """The data's name, as it is shown wherever a result is."""
        source = self.source()
        return self.settings.get("titles", {}).get(source.name if isinstance(source, Path) else source, self["title"])

    def splits(self, part: str | None = None) -> dict[str, Pack]:
        """The prepared data, made on first use under runs/<profile>/data.

        part: an experiment, which may have images of its own (its setting `pictographs`).
        """
        own = self.settings[part].get("pictographs") if part else None
        if own is None:
            source = self.source()
            what = [str(source), self["size"], pictographs.RECIPE if source == "pictographs" else None]
            out = self.runs / "data" / f"images-{results.config_hash(what)}"
            with alone(out):
                return open_splits(out if out.exists() else prepare(source, out, size=self["size"]))
        out = self.runs / "data" / f"{part}-{results.config_hash([own, pictographs.RECIPE])}"
        with alone(out):
            if not out.exists():
                with temporary(out, "images") as folder:
                    pictographs.write(folder / "images", **own)
                    prepare(folder / "images", out, size=own["size"])
            return open_splits(out)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """One process at a time makes `out`; the others wait for it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_name(f".{out.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def who_has(key: str) -> list[str]:
    return [name for name in names() if key in load(name).settings]


def load(name: str) -> Profile:
    """Raises InputError that lists the profiles where there is none of that name."""
    if name not in names():
        raise InputError(f"there is no profile {name!r}; there are {', '.join(names())}")
    return Profile(name, yaml.safe_load((HERE / f"{name}.yml").read_text()))
