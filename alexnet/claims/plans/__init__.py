"""Plans: what is fixed before the runs that shall decide claims; a file a profile, committed before
the runs. Each entry of `results/` keeps the digest of the part under which it ran, as "plan"."""

from pathlib import Path

import yaml

from alexnet.keys import key

FOLDER = Path(__file__).parent


def digest(profile: str, experiment: str) -> str | None:
    """The digest of the committed plan of an experiment on a profile; None where there is none."""
    path = FOLDER / f"{profile}.yml"
    part = (
        yaml.safe_load(path.read_text(encoding="utf-8")).get(experiment) if path.exists() else None
    )
    return key(part) if part else None
