"""Learning rates by epoch (section 5 of the paper).

A schedule is a class in SCHEDULES under the word that `Recipe.schedule` holds.
"""

import math
from dataclasses import dataclass
from typing import Any

from alexnet.errors import require
from alexnet.presets import Recipe

MAX_FALLS = 3  # of the plateau rule; the next plateau ends the run


@dataclass
class Schedule:
    """The rates of a run, constant unless a subclass says otherwise.

    Args:
        recipe: The preset's recipe: the first rates, of weights and of biases.
        epochs: The budget; `recipe.cycles` epochs of a logged run are stretched to it.
    """

    recipe: Recipe
    epochs: float
    falls: int = 0  # so far
    finished: bool = False  # nothing more to be gained: the run may end before its budget

    @staticmethod
    def of(recipe: Recipe, epochs: float) -> "Schedule":
        """The schedule that the recipe names.

        Args:
            recipe: The preset's recipe, whose `schedule` is a key of SCHEDULES.
            epochs: The budget.
        """
        return SCHEDULES[recipe.schedule](recipe, epochs)

    def start(self, kind: str) -> float:
        """The first rate of a parameter's kind, "weight" or "bias"."""
        return self.recipe.bias_rate if kind == "bias" else self.recipe.rate

    def rate(self, epoch: float, layer: str, kind: str = "weight") -> float:
        """The learning rate in some epoch.

        Args:
            epoch: From 0; steps within an epoch may count as its fractions.
            layer: The layer's name.
            kind: Of its parameters: "weight", "bias" or "gain".

        Returns:
            A rate per step; 0 means frozen.
        """
        return self.start(kind)

    def color(self, epoch: float) -> bool:
        """Whether color shifts are on."""
        return self.recipe.color_off is None or self.logged_epoch(epoch) < self.recipe.color_off

    def logged_epoch(self, epoch: float) -> float:
        """The epoch on the recipe's scale of `cycles` epochs."""
        return epoch * self.recipe.cycles / self.epochs

    def observe(self, validation_error: float, started: bool) -> None:
        """Take note of an epoch's end.

        Args:
            validation_error: Top-1, 0..1.
            started: The training loss has left ln(classes).
        """

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to hold, as JSON."""
        return {}

    def restore(self, state: Any) -> None:
        """Take `state()` back. Raises InputError where it cannot be that."""


class Logged(Schedule):
    """The falls logged in 2012. Source: layer-params-145-2010.cfg:170-176."""

    def rate(self, epoch: float, layer: str, kind: str = "weight") -> float:
        recipe, now = self.recipe, self.logged_epoch(epoch)
        falls = recipe.bias_falls if kind == "bias" else recipe.falls
        rate = self.start(kind) / 10 ** sum(now >= fall for fall in falls)
        if layer == "conv1" and recipe.conv1_freeze is not None and now >= recipe.conv1_freeze:
            return 0.0
        ahead = recipe.conv1_fall is not None and recipe.conv1_fall <= now < recipe.falls[-1]
        return rate / 10 if layer == "conv1" and ahead and kind != "bias" else rate


@dataclass
class Plateau(Schedule):
    """The paper's rule: divide by ten when the validation error stops improving.

    A fall comes after `patience` epochs without a better error at the current rate, at most three
    times; the next such plateau ends the run. Waiting begins when the net has left ln(classes):
    before that nothing can stop improving.
    """

    best: float = math.inf  # validation error at the current rate
    waited: int = 0

    @property
    def patience(self) -> int:
        return max(2, round(self.epochs / 12))

    def rate(self, epoch: float, layer: str, kind: str = "weight") -> float:
        return self.start(kind) / 10**self.falls

    def observe(self, validation_error: float, started: bool) -> None:
        better = validation_error < self.best
        if started and better:
            self.best, self.waited = validation_error, 0
        elif started:
            self.waited += 1
        if self.waited >= self.patience:
            self.finished = self.falls == MAX_FALLS
            self.falls, self.best, self.waited = min(self.falls + 1, MAX_FALLS), math.inf, 0

    def state(self) -> dict[str, Any]:
        names = ("epochs", "patience", "falls", "best", "waited", "finished")
        best = None if math.isinf(self.best) else self.best  # JSON has no infinity
        return {name: getattr(self, name) for name in names} | {"best": best}

    def restore(self, state: Any) -> None:
        names = self.state().keys()
        whole = isinstance(state, dict) and state.keys() == names
        require(whole, f"its schedule is {state!r}, without {', '.join(names)} or with more")
        types = {"epochs": (int, float), "best": (int, float, type(None)), "finished": (bool,)}
        for name, value in state.items():
            most = MAX_FALLS if name == "falls" else math.inf
            of_type = type(value) in types.get(name, (int,))
            fits = of_type and (value is None or 0 <= value <= most)
            require(fits, f"its schedule's {name} is {value!r}")
        self.falls, self.waited, self.finished = (state[n] for n in ("falls", "waited", "finished"))
        self.best = math.inf if state["best"] is None else state["best"]


SCHEDULES: dict[str, type[Schedule]] = {"plateau": Plateau, "logged": Logged, "constant": Schedule}
