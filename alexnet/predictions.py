"""What a net makes of photographs: the most probable classes, as tables, JSON, CSV and pictures."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet.data import photographs
from alexnet.errors import needs, require
from alexnet.files import write_whole
from alexnet.tables import Table

if TYPE_CHECKING:
    from torch import Tensor

TOP = 5
BAR_COLOR = "#5b7fb8"


@dataclass(frozen=True, eq=False)
class Prediction:
    """The probabilities of one photograph's classes.

    Args:
        image: Its path; "" where it has none.
        probabilities: (classes,), float32, with a sum of 1.
        classes: Identifiers of the classes, such as their folders.
        names: What people call them.
    """

    image: str
    probabilities: "Tensor"
    classes: list[str]
    names: list[str]

    def labels(self, count: int = TOP) -> list[int]:
        """The most probable classes' positions, the most probable first."""
        order = self.probabilities.sort(descending=True, stable=True).indices
        return order[:count].tolist()

    def top(self, count: int = TOP) -> list[tuple[str, float]]:
        """The most probable classes' names, each with its probability."""
        return [(self.names[i], float(self.probabilities[i])) for i in self.labels(count)]

    def rows(self) -> list[dict[str, Any]]:
        """The same for programs: class, name, probability."""
        return [
            {"class": self.classes[i], "name": self.names[i], "probability": float(p)}
            for i, p in ((i, self.probabilities[i]) for i in self.labels())
        ]

    def __repr__(self) -> str:
        return f"Prediction({self.image}: {_words(self.top())})"


def _words(top: list[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {probability:.1%}" for name, probability in top)


def table(predictions: Sequence[Prediction]) -> Table:
    """A row for each class of each photograph."""
    rows = [
        [prediction.image if i == 0 else "", name, f"{probability:.1%}"]
        for prediction in predictions
        for i, (name, probability) in enumerate(prediction.top())
    ]
    return Table(["photograph", "class", "probability"], rows)


def as_json(predictions: Sequence[Prediction]) -> str:
    """A list of {"image": ..., "top": [{"class", "name", "probability"}, ...]}."""
    return json.dumps([{"image": one.image, "top": one.rows()} for one in predictions], indent=1)


def as_csv(predictions: Sequence[Prediction]) -> str:
    """Lines of image, rank (from 1), class, name, probability."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "rank", "class", "name", "probability"])
    for one in predictions:
        for rank, row in enumerate(one.rows(), 1):
            writer.writerow([one.image, rank, row["class"], row["name"], row["probability"]])
    return text.getvalue()


def draw(predictions: Sequence[Prediction], file: Path, across: int = 4) -> None:
    """Draw the photographs, each above its five most probable classes as bars, as in Figure 4.

    Args:
        predictions: One for each photograph.
        file: The picture to write; its ending says the format.
        across: Photographs in a row.

    Raises:
        InputError: matplotlib is not installed, or cannot write files of this ending.
    """
    pyplot = needs("matplotlib.pyplot", extra="figures", what="drawing")
    across = min(across, len(predictions))
    down = -(-len(predictions) // across)
    grid = {"height_ratios": (1.5, 1) * down}
    figure, panels = pyplot.subplots(
        2 * down,
        across,
        figsize=(2.25 * across, 2.6 * down),
        layout="constrained",
        gridspec_kw=grid,
        squeeze=False,
    )
    for panel in panels.flat:
        panel.axis("off")
    for i, prediction in enumerate(predictions):
        above, below = panels[i // across * 2 : i // across * 2 + 2, i % across]
        picture = photographs.read(prediction.image)
        picture.thumbnail((512, 512))
        above.imshow(picture)
        above.set_title(Path(prediction.image).name[:32], fontsize=8, pad=3)
        for place, (name, probability) in enumerate(prediction.top()):
            below.barh(-place, probability, 0.85, color=BAR_COLOR, alpha=0.75)
            below.text(0.02, -place, name.split(",")[0], va="center", fontsize=7)
        below.set(xlim=(0, 1), ylim=(-4.6, 0.6))
    ending = file.suffix.removeprefix(".")
    known = sorted(figure.canvas.get_supported_filetypes())
    require(ending in known, f"{file}: a picture ends in one of .{', .'.join(known)}")
    write_whole(file, lambda part: figure.savefig(part, format=ending))
    pyplot.close(figure)
