"""What decides a run's weights, beside the pixels of its data."""

from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Literal, get_args

import torch

from alexnet import container, presets
from alexnet.data.pack import Pack
from alexnet.errors import require
from alexnet.exchange import Together
from alexnet.fields import Checked, Count, Natural, NotNegative, Positive
from alexnet.keys import key
from alexnet.network import AlexNet
from alexnet.presets.recorded import unrecorded
from alexnet.training import tools
from alexnet.training.precision import PRECISIONS, Precision
from alexnet.training.ranks import Ranks
from alexnet.training.steps import check_graph

# Part of a trained model's identity: raise it with any change that changes trained weights.
# tests/test_config.py holds the numbers that say when.
VERSION = 1

LOSSES = 50  # steps that `Config.stop_at_loss` averages over

# torch's operations one by one; in one process: the whole step as one CUDA graph, by
# alexnet.training.steps; the net's passes compiled by torch.compile; both
Mode = Literal["plain", "graph", "compiled", "compiled-graph"]
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
        stop_at_loss: End with the step at which the mean loss of the last LOSSES steps, in nats, is
            this or less.
        start: SHA-256 of the weights file that all layers but the last begin with.
        frozen: Layers that keep the weights they begin with, as "conv1,conv2".
        imported: SHA-256 of the file that others published the weights in, where nothing was
            trained (`alexnet.imports`).
        table: Digest of the preset's table where that is not what the name has always stood for
            (`alexnet.presets.recorded`); else None. Set, whatever is given.

    Raises:
        InputError: A field holds none of its words, which are listed, is of another type or out of
            range; or there is no such preset.
    """

    preset: str
    num_classes: Count
    width: Positive
    image_size: Count
    epochs: NotNegative
    data: dict[str, str]
    batch_size: Count = 128
    rate: NotNegative | None = None
    seed: Natural = 0
    stop_at_train_error: NotNegative | None = None
    precision: Precision = "fp32"
    mode: Mode = "plain"
    start: str | None = None
    stop_at_loss: NotNegative | None = None
    imported: str | None = None
    frozen: str | None = None
    version: Natural = VERSION
    table: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "table", unrecorded(self.preset))

    @property
    def identity(self) -> str:
        """The run's key: of the version, and of the fields that differ from their defaults, so
        that a field added later leaves older runs what they are."""
        settings, defaults = asdict(self), {f.name: f.default for f in fields(self)}
        defaults["version"] = MISSING
        return key({name: value for name, value in settings.items() if value != defaults[name]})

    @property
    def is_graph(self) -> bool:
        """Whether steps are CUDA graphs."""
        return self.mode in ("graph", "compiled-graph")

    @property
    def is_compiled(self) -> bool:
        """Whether torch.compile runs the net's passes."""
        return self.mode in ("compiled", "compiled-graph")

    @property
    def recipe(self) -> presets.Recipe:
        recipe = presets.get(self.preset).recipe
        if self.rate is None:
            return recipe
        bias_rate = recipe.bias_rate * self.rate / recipe.rate
        return replace(recipe, rate=self.rate, bias_rate=bias_rate)

    @property
    def frozen_layers(self) -> list[str]:
        return self.frozen.split(",") if self.frozen else []

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
    """Raise InputError where a run cannot work on these packs and ranks.

    Args:
        config: The run's settings.
        splits: Packs by split: train, and val where the schedule needs one.
        ranks: The processes that share the work.
    """
    mode, recipe, preset = config.mode, config.recipe, f"preset {config.preset!r}"
    require(
        ranks.world == 1 or mode == "plain",
        f"mode {mode} is for one process; several ranks need the mode plain",
    )
    tools.check(mode, ranks.device.type)
    fits = not config.is_graph or config.stop_at_loss is None
    early = f"mode {mode} takes a step before it knows the last one's loss; use the mode plain"
    require(fits, early)
    if config.is_graph:
        check_graph(ranks.device, PRECISIONS[config.precision])
    fits = not config.is_graph or recipe.velocity == "with rate"
    require(fits, f"{preset} has an update rule that no graph can hold; use the mode plain")
    for pack in (splits[name] for name in ("train", "val") if name in splits):
        require(
            pack.labeled,
            f"the images in {pack.path} have no labels: there is nothing to learn from them",
        )
    lacks = f"{splits['train'].path} comes without a val split, by whose error {preset} lowers"
    fits = recipe.schedule != "plateau" or "val" in splits
    require(
        fits, f"{lacks} its rate: prepare one (--split 80/10/10), or add the variant constant-rate"
    )
    names = [row.layer.name for row in config.shapes]
    for name in config.frozen_layers:
        has = f"{preset} has no layer {name!r} to freeze; it has {', '.join(names)}"
        require(name in names, has)
    require({*names} - {*config.frozen_layers}, "all layers are frozen: leave one that learns")
    needed = 12 * presets.total(config.shapes, "parameters")  # weights, gradients, velocities
    memory = container.memory()
    much = f"the net needs {needed / 2**30:,.0f} GiB of memory, of {memory / 2**30:,.0f}"
    require(needed <= memory, f"{much}; choose a smaller width")
