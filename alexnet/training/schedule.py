"""Rates (section 5 of the paper): one for all layers, divided by ten when the validation error stops improving; or the falls logged in
2012."""

import math
from dataclasses import asdict, dataclass

from alexnet.errors import InputError
from alexnet.presets import Recipe


@dataclass
class Schedule:
    """Rates by epoch. Its fields are its whole state, and go into checkpoints.

    "plateau": a fall after `patience` epochs without a better validation error at the current rate, at most three; the next such plateau
    ends the run. Waiting begins when the net has left ln(classes): before that nothing can stop improving. "logged": the preset's falls, on
    its scale of `cycles` epochs stretched to `epochs`. "constant": no falls.
    """

    epochs: float  # the budget
    patience: int
    falls: int = 0  # so far
    best: float = math.inf  # validation error at this rate
    waited: int = 0
    finished: bool = False

    @classmethod
    def of(cls, epochs: float) -> "Schedule":
        return cls(epochs=epochs, patience=max(2, round(epochs / 12)))

    def observe(self, recipe: Recipe, validation_error: float, started: bool) -> None:
        """After each epoch. started: the training loss has left ln(classes)."""
        if recipe.schedule != "plateau" or not started:
            return
        if validation_error < self.best:
            self.best, self.waited = validation_error, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.finished = self.falls == 3
            self.falls, self.best, self.waited = min(self.falls + 1, 3), math.inf, 0

    def rate(self, recipe: Recipe, epoch: float, layer: str, bias: bool) -> float:
        """Of a layer's weights or biases during `epoch` (counted from 0); 0 means frozen."""
        start = recipe.bias_rate if bias else recipe.rate
        if recipe.schedule == "constant":
            return start
        if recipe.schedule == "plateau":
            return start / 10**self.falls
        then = epoch * recipe.cycles / self.epochs  # where the logged run was
        falls = recipe.bias_falls if bias else recipe.falls
        rate = start / 10 ** sum(then >= fall for fall in falls)
        if layer == "conv1":
            if recipe.conv1_freeze is not None and then >= recipe.conv1_freeze:
                return 0.0
            if (
                not bias
                and recipe.conv1_fall is not None
                and recipe.conv1_fall <= then < recipe.falls[-1]
            ):
                return rate / 10
        return rate

    def color(self, recipe: Recipe, epoch: float) -> bool:
        """Whether color shifts are on."""
        return recipe.color_off is None or epoch * recipe.cycles / self.epochs < recipe.color_off

    def state(self) -> dict:
        return asdict(self) | {
            "best": None if math.isinf(self.best) else self.best
        }  # JSON has no infinity

    @classmethod
    def from_state(cls, state: object) -> "Schedule":
        """Raises InputError where `state` is not what `state()` gives."""
        known = cls.of(1.0).state().keys()
        if not isinstance(state, dict) or state.keys() != known:
            raise InputError(f"its schedule is {state!r}, without {', '.join(known)} or with more")
        for name, value in state.items():
            kinds = {
                "epochs": (int, float),
                "best": (int, float, type(None)),
                "finished": (bool,),
            }.get(name, (int,))
            most = 3 if name == "falls" else math.inf
            if type(value) not in kinds or (value is not None and not 0 <= value <= most):
                raise InputError(f"its schedule's {name} is {value!r}")
        return cls(**(state | {"best": math.inf if state["best"] is None else state["best"]}))
