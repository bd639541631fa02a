"""What the tables and figures of experiments share; matplotlib is imported where one is drawn."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alexnet.claims.statistics import mean_interval
from alexnet.errors import needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure
else:
    Axes = Figure = Any

COLUMN = ("#3b6fa0", "#c77c11")  # colors of column 0 and 1, and of other pairs


def side_by_side(values: Iterable[float], form: str) -> str:
    """Several seeds' numbers in one cell.

    Args:
        values: One for each seed.
        form: A format specification, as ".1f".
    """
    return "  ".join(f"{value:{form}}" for value in values)


def with_half(values: Sequence[float], form: str) -> str:
    """The mean, and half of its 95 % interval where there is one.

    Args:
        values: One for each seed.
        form: A format specification, as ".1f".
    """
    mean, half = mean_interval(values)
    return f"{mean:{form}}" + (f" ± {half:.1f}" if math.isfinite(half) else "")


def span(values: Iterable[float | None], form: str) -> str:
    """From the least to the greatest number; "" without any.

    Args:
        values: Numbers; None counts as none.
        form: A format specification, as ".1f".
    """
    known = sorted(value for value in values if value is not None)
    return " to ".join(dict.fromkeys(f"{end:{form}}" for end in known[:1] + known[-1:]))


def pyplot() -> Any:
    """matplotlib.pyplot. Raises InputError, which names the extra, where it is not installed."""
    return needs("matplotlib.pyplot", extra="figures", what="drawing")


def subplots(
    width: float, height: float, down: int = 1, across: int = 1, **more: Any
) -> tuple[Figure, Any]:
    """A figure, in inches, and its axes."""
    return pyplot().subplots(down, across, figsize=(width, height), layout="constrained", **more)


def curves(
    axes: Axes, by_seed: Mapping[str, Sequence[float]], window: int, label: str,
    further: Mapping[str, Any], **style: Any,
) -> None:  # fmt: skip
    """A line for each seed, a value every `window` steps; those after the first look as `further`
    says."""
    for i, values in enumerate(by_seed.values()):
        at = [window * (k + 1) for k in range(len(values))]
        axes.plot(at, values, **style | ({"label": label} if i == 0 else dict(further)))


def chance_line(axes: Axes, classes: int) -> None:
    """The loss of a net that knows nothing, ln(classes)."""
    axes.axhline(math.log(classes), color="gray", ls=":", lw=1)


def name_chance(axes: Axes, classes: int, x: float, above: float = 0.0, ha: str = "left") -> None:
    """Its name, above the line at `x`."""
    look: dict[str, Any] = {"fontsize": 8, "color": "gray", "ha": ha, "va": "bottom"}
    axes.text(x, math.log(classes) + above, f"ln {classes}", **look)
