"""What decides a run's weights, beside the pixels of its data."""

from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Literal, get_args

import torch

from alexnet import container, presets
from alexnet.data.pack import Pack
from alexnet.errors import require
from alexnet.exchange import Together
from alexnet.fields import Checked
from alexnet.keys import key
from alexnet.network import AlexNet
from alexnet.training import tools
from alexnet.training.precision import Precision
from alexnet.training.ranks import Ranks

# Part of a trained model's identity: raise it with any change that changes trained weights.
# tests/test_config.py holds the numbers that say when.
VERSION = 1

# torch's operations one by one; in one process: the whole step as one CUDA graph, by
# alexnet.training.steps; the net's passes compiled by torch.compile
Mode = Literal["plain", "graph", "compiled"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Config(Checked):
    """A run's settings, which decide its weights.

    Args:
        preset: A name such as "paper/no-lrn".
        epochs: The budget; it may end inside an epoch.
        data: Digests of the packs, by split.
        rate: The first learning rate; None: the preset's. The biases' rate keeps its ratio to it.
        stop_at_train_error: End after the epoch whose running training error falls to this.
        start: SHA-256 of the weights file that all layers but the last begin with.

    Raises:
        InputError: A field holds none of its words, which are listed, or is of another type.
    """

    preset: str
    num_classes: int
    width: float
    image_size: int
    epochs: float
    data: dict[str, str]
    batch_size: int = 128
    rate: float | None = None
    seed: int = 0
    stop_at_train_error: float | None = None
    precision: Precision = "fp32"
    mode: Mode = "plain"
    start: str | None = None
    version: int = VERSION

    @property
    def identity(self) -> str:
        """The run's key: of the version, and of the fields that differ from their defaults, so
        that a field added later leaves older runs what they are."""
        settings, defaults = asdict(self), {f.name: f.default for f in fields(self)}
        defaults["version"] = MISSING
        return key({name: value for name, value in settings.items() if value != defaults[name]})

    @property
    def recipe(self) -> presets.Recipe:
        recipe = presets.get(self.preset).recipe
        if self.rate is None:
            return recipe
        bias_rate = recipe.bias_rate * self.rate / recipe.rate
        return replace(recipe, rate=self.rate, bias_rate=bias_rate)

    @property
    def shapes(self) -> list[presets.Shape]:
        """The net's layers at this width and image size."""
        preset = presets.get(self.preset)
        return presets.shapes(preset, self.num_classes, self.width, self.image_size)

    def network(self, exchange: Together | None = None) -> AlexNet:
        """The net with its initial weights, or those of its columns that are this process's."""
        torch.manual_seed(self.seed)
        return AlexNet(self.preset, self.num_classes, self.width, self.image_size, exchange)


def check_possible(config: Config, splits: dict[str, Pack], ranks: Ranks) -> None:
    """Raise InputError where a run cannot work on these packs and ranks."""
    mode, recipe, preset = config.mode, config.recipe, f"preset {config.preset!r}"
    require(
        ranks.world == 1 or mode == "plain",
        f"mode {mode} is for one process; several ranks need the mode plain",
    )
    tools.check(mode, ranks.device.type)
    fits = mode != "graph" or recipe.velocity == "with rate"
    require(fits, f"{preset} has an update rule that no graph can hold; use the mode plain")
    for pack in (splits[name] for name in ("train", "val") if name in splits):
        require(
            pack.labeled,
            f"the images in {pack.path} have no labels: there is nothing to learn from them",
        )
    lacks = f"{splits['train'].path} comes without a val split, by whose error {preset} lowers"
    fits = recipe.schedule != "plateau" or "val" in splits
    require(fits, f"{lacks} its rate: prepare one, or add the variant constant-rate")
    needed = 12 * presets.total(config.shapes, "parameters")  # weights, gradients, velocities
    memory = container.memory()
    much = f"the net needs {needed / 2**30:,.0f} GiB of memory, of {memory / 2**30:,.0f}"
    require(needed <= memory, f"{much}; choose a smaller width")
