"""Results with provenance, one file for each arm and seed.

`results/<profile>/<experiment>/<arm>-<seed>.json` is the archive, committed. The user's own lie in
the same form under `runs/<profile>/results/`. A file is an entry: {"experiment", "profile", "arm",
"seed", "key", "settings", "runs", "metrics", "data", "provenance"}. `key` is that of the settings,
the training runs and the data that the metrics follow from; metrics carry sample sizes. An
installed package carries the archive as `alexnet/archive/`.
"""

import json
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet.errors import InputError
from alexnet.files import write_whole
from alexnet_kernels import machine

HERE = Path(__file__).resolve().parent.parent
IN_CLONE = (HERE / "book").is_dir()
# the repository; where it is absent, the working folder
ROOT = HERE if IN_CLONE else Path.cwd()
ARCHIVE = ROOT / "results" if IN_CLONE else Path(__file__).with_name("archive")
# whose versions are kept with a result
PACKAGES = "torch torchvision triton numpy pillow scikit-learn scikit-image".split()
PACKAGES += ["opencv-python-headless"]

Record = dict[str, Any]  # an entry, as its file holds it


def runs(profile: str) -> Path:
    """The user's folder for a profile; ALEXNET_RUNS moves all of them."""
    return Path(os.environ.get("ALEXNET_RUNS", ROOT / "runs")).resolve() / profile


def path(folder: Path, experiment: str, arm: str, seed: int | None) -> Path:
    """Where an entry lies below a profile's folder.

    Args:
        folder: A profile's: results/NAME, or runs/NAME/results.
        experiment: Its name.
        arm: The arm's name; characters that file names should not have become hyphens.
        seed: None for entries that have none.
    """
    name = arm if seed is None else f"{arm}-{seed}"
    return folder / experiment / f"{re.sub(r'[^A-Za-z0-9.+-]+', '-', name)}.json"


def save(record: Record, folder: Path) -> Path:
    """Write an entry below a profile's folder, whole or not at all.

    Args:
        record: An entry, as `alexnet.experiments.store.record` makes it.
        folder: A profile's.

    Returns:
        The file.
    """
    file = path(folder, record["experiment"], record["arm"], record["seed"])
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(record, indent=1) + "\n")
    return file


def load(experiment: str, folder: Path) -> list[Record]:
    """All entries of an experiment below a profile's folder, by arm and seed.

    Args:
        experiment: Its name.
        folder: A profile's.

    Raises:
        InputError: A file is no entry.
    """
    records = [read(file) for file in (folder / experiment).glob("*.json")]
    return sorted(records, key=lambda record: (record["arm"], record["seed"] or 0))


def read(file: Path) -> Record:
    """An entry from its file.

    Raises:
        InputError: It is none.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        record = None
    parts = ("metrics", "data", "provenance")
    if (
        not isinstance(record, dict)
        or not record.keys() >= {"arm", "seed", *parts}
        or not all(isinstance(record[part], dict) for part in parts)
    ):
        name = file.parent.name
        raise InputError(f"{file} is damaged: remove it, and run `alexnet reproduce --only {name}`")
    return record


def provenance(
    training: Sequence[Record] | None = None, measuring: float | None = None
) -> dict[str, Any]:
    """Where and with what a result is made.

    Args:
        training: Of each process that took part in the training runs, what `origin` said in it,
            with "run" (the run's key) and "seconds"; None where there are none, or unknown.
        measuring: Seconds of everything else.

    Returns:
        `origin` of the measuring; "seconds" of "training", validation included, and of
        "measuring"; and "training".
    """
    total = None if training is None else sum(part["seconds"] for part in training)
    seconds = {"training": total, "measuring": measuring}
    rounded = {what: s if s is None else round(s, 1) for what, s in seconds.items()}
    return origin() | {"seconds": rounded, "training": training}


def origin() -> dict[str, Any]:
    """What computes here: "commit", "versions" and "hardware"."""
    import torch  # here, so that showing results needs none of it

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    commit = machine.git(HERE, "describe", "--always", "--exclude=*", "--abbrev=12")
    # archived results may be new ones, one after the other: they do not change what computes
    changed = machine.git(
        HERE, "status", "--porcelain", "--untracked-files=no", "--", ":/",
        ":(top,exclude)results", ":(top,exclude,glob)**/results/*.csv",
    )  # fmt: skip
    return {
        "commit": f"{commit}-dirty" if commit and changed else commit or None,
        "versions": {"python": platform.python_version()}
        | {package: machine.version(package) for package in PACKAGES},
        "hardware": {"processor": machine.processor(), "cores": os.cpu_count(), "gpu": gpu},
    }
