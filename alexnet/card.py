"""What goes with a net's weights into a file: what its input goes through, what its outputs mean,
and whose the weights are. Exported files hold it as metadata, as texts."""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from alexnet import presets
from alexnet.data.augment import Augment
from alexnet.errors import InputError, require
from alexnet.network import AlexNet
from alexnet.training import folder

UNLICENSED = "none stated"
FIELDS = ("preset", "num_classes", "width", "image_size", "mean", "classes")  # that a net needs


@dataclass(frozen=True)
class Card:
    """A net's description.

    Args:
        mean: The mean image, float32 (S, S, 3).
        classes: Their identifiers, in the order of the outputs.
        names: What people call them.
        license: Of the weights.
        more: Whatever else is known: recipe, errors, origin.
    """

    preset: str
    width: float
    image_size: int
    mean: np.ndarray
    classes: list[str]
    names: list[str]
    license: str = UNLICENSED
    more: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_run(cls, run: Path) -> "Card":
        """That of a finished run. Raises InputError where it is damaged."""
        config, mean = folder.read_config(run), folder.read_mean(run)
        numbered = [str(number) for number in range(config.num_classes)]
        classes = folder.read_list(run / folder.CLASSES, config.num_classes) or numbered
        names = folder.read_list(run / folder.NAMES, config.num_classes)
        names = names or [name.replace("_", " ") for name in classes]
        license = run / folder.LICENSE
        words = license.read_text(encoding="utf-8").strip() if license.exists() else UNLICENSED
        given = (config.preset, config.width, config.image_size, mean)
        return cls(*given, classes, names, words)

    @classmethod
    def of_metadata(cls, file: Path, given: Mapping[str, str]) -> "Card":
        """That of an exported file, from its metadata.

        Args:
            file: Its name stands in messages.
            given: The metadata, texts by name.

        Raises:
            InputError: A part is missing or damaged.
        """
        lacks = [name for name in FIELDS if name not in given]
        require(
            not lacks,
            f"{file} lacks {', '.join(lacks)} in its metadata; write it by "
            f"`alexnet export RUN {file.name}`",
        )
        try:
            classes = json.loads(given["classes"])
            names = json.loads(given["names"]) if "names" in given else classes
            mean = np.load(io.BytesIO(base64.b64decode(given["mean"])), allow_pickle=False)
            size, width = int(given["image_size"]), float(given["width"])
            sound = len(classes) == len(names) == int(given["num_classes"])
        except (ValueError, TypeError, EOFError) as error:
            raise InputError(
                f"the metadata of {file} are damaged ({error}): export again"
            ) from None
        require(sound, f"the metadata of {file} name {len(classes)} classes: export again")
        known = {*FIELDS, "names", "license", "input"}
        more = {name: value for name, value in given.items() if name not in known}
        words = given.get("license", UNLICENSED)
        return cls(given["preset"], width, size, mean, classes, names, words, more)

    def metadata(self) -> dict[str, str]:
        """As texts, from which `of_metadata` makes it again."""
        mean = io.BytesIO()
        np.save(mean, np.ascontiguousarray(self.mean, np.float32))
        return {
            "preset": self.preset,
            "num_classes": str(len(self.classes)),
            "width": str(self.width),
            "image_size": str(self.image_size),
            "mean": base64.b64encode(mean.getvalue()).decode(),
            "classes": json.dumps(self.classes),
            "names": json.dumps(self.names),
            "license": self.license,
        } | self.more

    def augment(self) -> Augment:
        """What the input goes through."""
        return Augment(presets.get(self.preset).recipe, self.mean, self.image_size)

    def network(self) -> AlexNet:
        """A net of this kind, in evaluation mode, with initial weights."""
        net = AlexNet(self.preset, len(self.classes), self.width, self.image_size).eval()
        net.mean_image = self.mean
        return net
