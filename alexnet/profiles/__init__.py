"""Profiles: how big a reproduction is. A YAML file each: the data, the net's width and image size,
the experiments with their arms and budgets.

Those of the project lie here; your own in the folder that ALEXNET_PROFILES names. `extends: NAME`
takes from another profile whatever the file does not say anew (an experiment's settings one by
one); null takes something away.
"""

import difflib
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from alexnet import results
from alexnet.data import pictographs
from alexnet.data.pack import Pack, open_splits
from alexnet.data.prepare import prepare
from alexnet.errors import InputError
from alexnet.files import lock, temporary_folder
from alexnet.keys import key

HERE = Path(__file__).parent
# settings of experiments that no profile here needs to say
OPTIONAL = {
    "devices": ("preset", "width", "image_size", "classes"),
    "cifar_lrn": ("width", "published"),
    "figure3": ("preset", "epochs"),
    "recipe": ("arms", "steps", "stop"),
    "table1": ("train_images", "test_images"),
    "table2": ("pretraining", "finetuning"),
}
# settings that say what is prepared
DATA = ("source", "size", "classes", "limit", "encoding", "hold_out")


def names() -> list[str]:
    return sorted(_files())


def _files() -> dict[str, Path]:
    ours = {path.stem: path for path in HERE.glob("*.yml")}
    folder = os.environ.get("ALEXNET_PROFILES")
    own = {path.stem: path for path in Path(folder).glob("*.yml")} if folder else {}
    for name in own.keys() & ours.keys():
        taken = f"{own[name]} has the name of a profile of the project"
        raise InputError(f"{taken}; choose another one, and write `extends: {name}`")
    return ours | own


@dataclass(frozen=True)
class Profile:
    name: str
    settings: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        """A setting.

        Raises:
            InputError: The profile has none of that name, and which profiles do.
        """
        if name not in self.settings:
            others = f"the profiles that do: {', '.join(who_has(name)) or 'none'}"
            raise InputError(f"profile {self.name!r} has no settings for {name!r}; {others}")
        return self.settings[name]

    @property
    def runs(self) -> Path:
        return results.runs(self.name)

    @property
    def net(self) -> dict[str, Any]:
        """What all nets of the profile share, unless an experiment says otherwise: fields of
        `alexnet.training.Config`."""
        shared = ("image_size", "width", "batch_size", "rate", "precision", "mode")
        return {name: self.settings[name] for name in shared if name in self.settings}

    def source(self, names: str | list[str] | None = None) -> Path | str:
        """What is prepared: "pictographs", or a folder or archive that ALEXNET_DATA holds under one
        of `names` (None: the setting `source`)."""
        names = names or self["source"]
        if names == "pictographs":
            return "pictographs"
        root = os.environ.get("ALEXNET_DATA")
        for path in [Path(root, name) for name in names] if root else ():
            if path.exists():
                return path
        where = f"set ALEXNET_DATA to the folder that holds {' or '.join(names)}"
        if root:
            where = f"ALEXNET_DATA={root} holds no {' and no '.join(names)}"
        raise InputError(f"profile {self.name!r} needs {self['title']}: {where}")

    def title(self) -> str:
        """The data's name, as it is shown wherever a result is."""
        source = self.source()
        name = source.name if isinstance(source, Path) else source
        return self.settings.get("titles", {}).get(name, self["title"])

    def splits(self, part: str | None = None) -> dict[str, Pack]:
        """The prepared data, made on first use under runs/<profile>/data.

        part: an experiment, which may have images of its own (its setting `pictographs`).
        """
        own = {"pictographs": self[part].get("pictographs")} if part else {}
        return self.packs(part or "images", own)

    def packs(self, name: str, data: dict[str, Any]) -> dict[str, Pack]:
        """Other images, prepared on first use under runs/<profile>/data as `name`.

        Args:
            data: Either `pictographs`, the arguments of `pictographs.write`; or any of DATA, where
                it differs from the profile's own: `source`, `size`, a part of the source, `classes`
                (null: all) and `limit`, and `hold_out`, the splits to make of others.
        """
        if own := data.get("pictographs"):
            out = self.runs / "data" / f"{name}-{key([own, pictographs.RECIPE])}"
            pictographs.check()
            with _locked(out):
                if not out.exists():
                    with temporary_folder(out, "images") as folder:
                        pictographs.write(folder / "images", **own)
                        prepare(folder / "images", out, size=own["size"])
                return _labeled(out)
        given: dict[str, Any] = {
            what: (data if what in data else self.settings).get(what) for what in DATA
        }
        source, size = self.source(given.pop("source")), given.pop("size")
        recipe = None
        if source == "pictographs":
            recipe = pictographs.RECIPE
            pictographs.check()  # before anything is left behind
        part = {what: value for what, value in given.items() if value is not None}
        out = (
            self.runs / "data" / f"images-{key([str(source), size, recipe, *[part] * bool(part)])}"
        )
        with _locked(out):
            return _labeled(out if out.exists() else prepare(source, out, size=size, **part))


@lru_cache(maxsize=16)
def _labeled(out: Path) -> dict[str, Pack]:
    """Those splits that errors can be measured on: not ILSVRC-2012's test images."""
    return {split: pack for split, pack in open_splits(out).items() if pack.labeled}


def _locked(out: Path) -> AbstractContextManager[object]:
    """One process at a time makes `out`; the others wait for it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return lock(out.with_name(f".{out.name}.lock"))


def who_has(setting: str) -> list[str]:
    """The profiles that have a setting."""
    return [name for name in names() if setting in load(name).settings]


def load(name: str, below: tuple[str, ...] = ()) -> Profile:
    """A profile by its name.

    Args:
        below: Profiles that extend it, the last of them directly.

    Raises:
        InputError: There is none, and which there are; or its file holds none.
    """
    files = _files()
    if name not in files:
        raise InputError(f"there is no profile {name!r}; there are {', '.join(sorted(files))}")
    path = files[name]
    if name in below:
        raise InputError(f"{path} extends itself, by way of {', '.join(below)}")
    try:
        own = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(own, dict):
        raise InputError(
            f"{path} holds no settings; {HERE / 'embedded.yml'} shows what it may hold"
        )
    check_names(own, path)
    if "extends" in own:
        own = _over(load(own.pop("extends"), (*below, name)).settings, own)
    return Profile(name, {key: value for key, value in own.items() if value is not None})


def check(name: str) -> None:
    """Raise InputError where a chapter's `profile` is neither "archive" nor the name of a profile:
    chapters that train nothing call this, lest a misspelled name pass."""
    if name != "archive":
        load(name)


def check_names(own: dict[str, Any], path: Path) -> None:
    """Raise InputError, with the nearest known one, for a setting that no profile of the project
    has: a misspelled one would be passed over. Tables are looked into, as `ablations: {sample}`.

    Args:
        own: A profile's settings.
        path: Its file, named in messages.
    """
    known = _known()
    pairs = [(name, "", known) for name in own]
    for table, inside in own.items():
        if isinstance(inside, dict) and isinstance(known.get(table), dict):
            pairs += [(name, f"{table}: ", known[table]) for name in inside]
    for name, where, names in pairs:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            meant = f" (did you mean {near[0]!r}?)" if near else ""
            listed = ", ".join(sorted(names))
            raise InputError(f"{path}: {where}there is no setting {name!r}{meant}; known: {listed}")


@lru_cache
def _known() -> dict[str, Any]:
    """All settings that profiles of the project have, one laid over the other."""
    known: dict[str, Any] = dict.fromkeys(("extends", "mode", *DATA))
    for path in sorted(HERE.glob("*.yml")):
        for name, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            is_table = isinstance(value, dict)
            known[name] = {**(known.get(name) or {}), **value} if is_table else known.get(name)
    for table, names in OPTIONAL.items():
        known[table] |= dict.fromkeys(names)
    return known


def _over(held: Any, value: Any) -> Any:
    if not (isinstance(held, dict) and isinstance(value, dict)):
        return value
    return held | {key: _over(held.get(key), one) for key, one in value.items()}
