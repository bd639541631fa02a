"""Plans: what is fixed before runs that shall decide claims. A file a profile, `<profile>.yml` in
this folder, committed before the runs; a part of it for each experiment:

    ablations:
      arms: [full, no-lrn, one-column]
      seeds: 5              # an arm
      epochs: 30            # or steps, the budget of a run; a number, or one for each arm
      stopping: whole rounds of seeds until ten hours are used; no verdict is looked at before
      metric: top-1 error, ten views, official validation images
      claims:               # that it decides, each with its margin: within it, there is no effect
        lrn-top1: 0.4
        columns-top1: 0.5

A part may also say `schedule`, `precision` and `note`. The claims of a part are one family for
Holm's correction, whether they have been run or not. A margin is in the claim's unit (for times a
factor; null for shares, which need none) and comes before the margin in claims.yml.

Each entry of `results/` keeps the digest of the part under which it ran, as "plan".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alexnet.claims.entries import Claim, load, unknown
from alexnet.errors import InputError
from alexnet.keys import key

FOLDER = Path(__file__).parent
NEEDED = ("arms", "seeds", "stopping", "metric", "claims")
KNOWN = (*NEEDED, "epochs", "steps", "schedule", "precision", "note")


@dataclass(frozen=True)
class Plan:
    """The part of a profile's plan that one experiment has.

    Args:
        content: As in the file.
        digest: By which an entry says under which plan it ran.
    """

    content: dict[str, Any]
    digest: str

    @property
    def margins(self) -> dict[str, float | None]:
        """By the claim's id."""
        return self.content["claims"]

    @property
    def seeds(self) -> int:
        """How many an arm are planned."""
        return self.content["seeds"]


def digest(profile: str, experiment: str) -> str | None:
    """The digest of the committed plan of an experiment on a profile; None where there is none.

    Args:
        profile: Its name.
        experiment: Its name.

    Raises:
        InputError: The plan's file is wrong.
    """
    plan = of_profile(profile).get(experiment)
    return plan.digest if plan else None


def of_profile(profile: str) -> dict[str, Plan]:
    """The plans of a profile's experiments; none where the profile has no plan.

    Raises:
        InputError: The file is wrong; the message names it, the part, and what is wrong.
    """
    path = FOLDER / f"{profile}.yml"
    if not path.exists():
        return {}
    try:
        parts = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(parts, dict):
        raise InputError(f"{path} holds no plan: give a part for each experiment")
    for experiment, part in parts.items():
        if problem := next(_problems(profile, experiment, part), None):
            raise InputError(f"{path}: {experiment}: {problem}")
    return {name: Plan(part, key(part)) for name, part in parts.items()}


def _problems(profile: str, experiment: str, part: Any) -> Iterator[str]:
    from alexnet import experiments  # which write the digest into their entries

    if problem := unknown(experiment, experiments.NAMES, "experiment"):
        yield problem
    if not isinstance(part, dict):
        yield f"give {', '.join(NEEDED)}, and epochs or steps"
    yield from filter(None, (unknown(name, KNOWN, "part of a plan") for name in part))
    yield from (f"it lacks {name!r}" for name in NEEDED if name not in part)
    if not {"epochs", "steps"} & part.keys():
        yield "it lacks the budget: epochs or steps"
    if type(part["seeds"]) is not int or part["seeds"] < 1:
        yield f"seeds is {part['seeds']!r}: give a whole number, at least 1"
    known = getattr(experiments.module(experiment), "ARMS", None)
    if not isinstance(part["arms"], list):
        yield "arms is a list"
    yield from filter(None, (unknown(arm, known, "arm") for arm in part["arms"] if known))
    if not isinstance(part["claims"], dict):
        yield "claims is a table: each claim's id with its margin; {} where it decides none"
    claims = {claim.id: claim for claim in load()}
    for name, margin in part["claims"].items():
        problem = unknown(name, claims, "claim")
        problem = problem or _problem(claims[name], margin, profile, experiment)
        yield from filter(None, [problem])


def _problem(claim: Claim, margin: Any, profile: str, experiment: str) -> str:
    if claim.test.get("experiment") != experiment:
        return f"claim {claim.id!r} is not of this experiment"
    if profile not in claim.decides:
        return f"profile {profile!r} does not decide claim {claim.id!r} (decides, in claims.yml)"
    least = 1.0 if claim.no_effect == 1 else 0.0
    if claim.form == "share":
        return "" if margin is None else f"claim {claim.id!r} is a share: its margin is null"
    number = isinstance(margin, int | float) and not isinstance(margin, bool)
    return "" if number and margin > least else f"claim {claim.id!r} needs a margin above {least:g}"
