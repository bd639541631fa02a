"""Results with provenance. `results/<profile>/` is the archive, committed; `runs/<profile>/` is the user's own.

A result is {"experiment", "profile", "config", "config_hash", "seeds", "metrics", "data", "provenance"}; metrics carry sample sizes.
"""

import json
import os
import platform
import subprocess
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alexnet.errors import InputError

HERE = Path(__file__).resolve().parent.parent
ROOT = (
    HERE if (HERE / "book").is_dir() else Path.cwd()
)  # the repository; where it is absent, the working folder
ARCHIVE = ROOT / "results"
PACKAGES = (
    "torch",
    "torchvision",
    "triton",
    "numpy",
    "pillow",
    "scikit-learn",
    "scikit-image",
    "opencv-python-headless",
)  # provenance


def runs(profile: str) -> Path:
    """The user's folder for a profile; ALEXNET_RUNS moves all of them."""
    return Path(os.environ.get("ALEXNET_RUNS", ROOT / "runs")).resolve() / profile


def config_hash(config: Any) -> str:
    return sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def provenance(seconds: float) -> dict[str, Any]:
    """Where and with what a result was made. seconds: the wall time of making it, trainings included."""
    import torch  # here, so that listing results needs none of it

    def known(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    commit = _git("describe", "--always", "--exclude=*", "--abbrev=12")
    # archived results may be new ones, one after the other: they do not change what computes the next
    changed = _git(
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":/",
        ":(top,exclude)results",
        ":(top,exclude,glob)**/results/*.csv",
    )
    commit += "-dirty" * bool(commit and changed)
    return {
        "commit": commit or None,
        "versions": {"python": platform.python_version()}
        | {package: known(package) for package in PACKAGES},
        "hardware": {"processor": _processor(), "cores": os.cpu_count(), "gpu": gpu},
        "wall_seconds": round(seconds, 1),
    }


def _git(*words: str) -> str:
    """What git says of this folder; nothing where there is no git, or no repository."""
    try:
        return subprocess.run(
            ["git", *words], cwd=HERE, capture_output=True, text=True, check=False
        ).stdout.strip()
    except OSError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def save(result: dict[str, Any], folder: Path) -> Path:
    """Writes `folder/<experiment>.json`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['experiment']}.json"
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.rename(path)
    return path


def join(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """One result of two that differ in their seeds alone. What metrics keep by seed is put together; provenance is the later one's, with
    the earlier ones' and their seeds under "earlier".

    Raises InputError where they are not of the same settings and data, share a seed, or a metric that is not kept by seed differs.
    """
    for key in ("experiment", "profile", "config_hash", "data"):
        if earlier[key] != later[key]:
            raise InputError(
                f"results of {earlier['experiment']} cannot be joined: their {key} differ"
            )
    if shared := set(earlier["seeds"]) & set(later["seeds"]):
        raise InputError(
            f"results of {earlier['experiment']} cannot be joined: both have seed {min(shared)}"
        )
    origin = dict(earlier["provenance"])
    parts = origin.pop("earlier", [])
    own = [seed for seed in earlier["seeds"] if not any(seed in part["seeds"] for part in parts)]
    parts = [*parts, {"seeds": own, **origin}]
    together = {
        "seeds": [*earlier["seeds"], *later["seeds"]],
        "metrics": _union(earlier["metrics"], later["metrics"], earlier["experiment"]),
        "provenance": later["provenance"] | {"earlier": parts},
    }
    return later | together


def _union(one: Any, other: Any, where: str) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        both = {
            key: _union(one[key], other[key], f"{where}, {key}") if key in other else one[key]
            for key in one
        }
        return both | {key: value for key, value in other.items() if key not in one}
    if one != other:
        raise InputError(
            f"results cannot be joined: they differ in {where}; remove the archived one to run all seeds anew"
        )
    return one


def load(experiment: str, folder: Path) -> dict[str, Any] | None:
    """A result from a folder, or None where it has not been run. Raises InputError for a file that is no result."""
    path = folder / f"{experiment}.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict) or "metrics" not in found:
        raise InputError(
            f"{path} is damaged: remove it, and run `alexnet reproduce --only {experiment}` again"
        )
    return found


def archived(experiment: str, profile: str) -> dict[str, Any] | None:
    return load(experiment, ARCHIVE / profile)
