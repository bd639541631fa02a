"""`alexnet diagnose`: of a preset before its first step, or of a run."""

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alexnet import presets
from alexnet.data.pack import Pack
from alexnet.diagnosis import Diagnosis, diagnose, findings, images
from alexnet.diagnosis.evidence import cite
from alexnet.diagnosis.findings import Finding
from alexnet.errors import require
from alexnet.network import AlexNet
from alexnet.presets import LRN, Dropout, Preset
from alexnet.training import Config, load_run
from alexnet.training.folder import is_finished, read_config, read_summary
from alexnet.training.log import losses

WINDOW = 50  # steps that a run's last loss is averaged over
AT_CHANCE = 0.98  # of the entropy of the labels: above it, nothing of the images is known


def run(args: argparse.Namespace) -> None:
    """Do what `alexnet diagnose` says, and print it."""
    given = args.run is None or args.preset is None
    require(given, f"give a run ({args.run}) or --preset {args.preset}, not both")
    if args.run is None:
        what, result = args.preset or "paper", _preset(args)
    else:
        settings = ("width", "image_size", "lr", "seed", "classes")
        set_here = [name for name in settings if getattr(args, name) is not None]
        listed = ", ".join(f"--{name.replace('_', '-')}" for name in set_here)
        require(not set_here, f"a run has settings of its own: leave out {listed}")
        what, result = str(args.run), _run(args)
    images_of = str(args.data) if args.data else "noise with the spectrum of photographs"
    if args.json:
        print(json.dumps({"net": what, "images": images_of, **result.as_dict()}, indent=1))
    else:
        print(f"{what}, {args.images} images: {images_of}\n\n{result}")


def _preset(args: argparse.Namespace) -> Diagnosis:
    pack = images.training_pack(args.data) if args.data else None
    preset = presets.get(args.preset or "paper")
    default = round(pack.size * 7 / 64) * 8 if pack else preset.reference_size
    if pack and preset.recipe.crops == "center":
        default = pack.size
    classes = args.classes or (len(pack.classes) if pack else 1000)
    fits = pack is None or classes == len(pack.classes)
    require(fits, f"{args.data} has its own number of classes: leave out --classes")
    config = Config(
        preset.name,
        classes,
        args.width or 1.0,
        args.image_size or default,
        epochs=1.0,
        data={},
        rate=args.lr,
        seed=args.seed or 0,
    )
    return of_config(config, pack, args.images, args.device)


def _run(args: argparse.Namespace) -> Diagnosis:
    exists = (args.run / "config.json").exists()
    what = f"{args.run} holds no run" if args.run.exists() else f"{args.run} does not exist"
    require(exists, f"{what}; of a net before its first step: alexnet diagnose --preset PRESET")
    config = read_config(args.run)
    pack = images.training_pack(args.data) if args.data else None
    if pack:
        count = len(pack.classes)
        given = f"{args.data} has {count} classes, and the run in {args.run} {config.num_classes}"
        require(count == config.num_classes, f"{given}: give the pack that it was trained on")
    result = of_config(config, pack, args.images, args.device)
    result.findings += _of_the_end(args.run, config, pack, args.images, args.device)
    return result


def batch_of(config: Config, pack: Pack | None, count: int) -> tuple[Tensor, Tensor]:
    """A first batch for a net of these settings; stand-ins where there is no pack.

    Args:
        config: The run's settings.
        pack: The training images; None: stand-ins.
        count: Images of the batch.

    Returns:
        Images (count, 3, S, S) and labels int64 (count,).
    """
    recipe, size = config.recipe, config.image_size
    if pack:
        return images.from_pack(pack, recipe, size, count, config.seed)
    return images.stand_ins(recipe, size, count, config.num_classes, config.seed)


def of_config(
    config: Config, pack: Pack | None = None, count: int = 64, device: str = "cpu"
) -> Diagnosis:
    """Diagnose a net as a run of these settings begins with it.

    Args:
        pack: The training images; None: stand-ins.
        count: Images of the batch.
    """
    x, labels = batch_of(config, pack, count)
    net, recipe = config.network().to(device), config.recipe
    optimizer = torch.optim.SGD(_groups(net, recipe), recipe.rate, recipe.momentum)
    result = diagnose(net, x.to(device), labels.to(device), optimizer=optimizer)
    names = [finding.name for finding in result.findings]
    preset = presets.get(config.preset)
    result.findings += [one for one in _settings(preset) if one.name not in names]
    return result


def _groups(net: AlexNet, recipe: presets.Recipe) -> list[dict]:
    """The parameters, with the rates and the decay that the recipe gives them."""
    kinds, groups = net.parameter_kinds(), []
    for name, parameter in net.named_parameters():
        kind = kinds[name]
        decay = recipe.weight_decay if kind in recipe.decayed else 0.0
        rate = recipe.bias_rate if kind == "bias" else recipe.rate
        groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
    return sorted(groups, key=lambda group: group["lr"] != recipe.rate)  # weights' rate is first


def _settings(preset: Preset) -> Iterator[Finding]:
    """What a preset's variants change that is known to matter, and sizes do not show."""
    base = presets.get(preset.name.split("/")[0])
    alphas, usual = (
        [op.alpha for row in one.layers for op in row.then if isinstance(op, LRN)]
        for one in (preset, base)
    )
    if alphas and usual and alphas[0] < usual[0]:
        seen = f"alpha is {alphas[0]:g} a squared term; {base.name} has {usual[0]:g}"
        yield findings.alpha_finding(seen, 5)
    ones, usual_ones = (sum(row.bias != 0 for row in one.layers) for one in (preset, base))
    if usual_ones and not ones and preset.gain is None:
        seen = f"all biases are 0; {base.name} has ones in {usual_ones} layers"
        yield findings.zero_biases_finding(seen)
    inverted, usual_form = (
        any(isinstance(op, Dropout) and op.inverted for row in one.layers for op in row.then)
        for one in (preset, base)
    )
    if inverted and not usual_form:
        yield Finding(
            "dropout's form",
            "dropout doubles what it keeps in training; the text halves all in evaluation instead",
            "fc7 and fc8 read signals twice as large in training, which their sigma is not made "
            "for: first losses and steps are larger.",
            "Use the text's form, or halve the sigma of the layers above dropout.",
            cite("inverted-dropout"),
        )
    if preset.recipe.velocity != base.recipe.velocity:
        yield Finding(
            "rate outside the velocity",
            "the velocity holds gradients without the rate, as in torch's SGD",
            "Nothing differs until the rate falls: then the old velocity slows down at once, where "
            "the text's runs on for some ten steps. Such nets train.",
            "For the text's rule use alexnet_kernels.momentum_step_, or multiply torch's momentum "
            "buffers by ten where the rate falls to a tenth.",
            cite("rate outside"),
        )


def _of_the_end(
    run: Path, config: Config, pack: Pack | None, count: int, device: str
) -> Iterator[Finding]:
    """What a run's log and its weights show."""
    if not is_finished(run):
        return
    if step := read_summary(run)["diverged_at"]:
        seen = f"the run's loss, or a weight, was no longer finite at step {step}"
        why = "A step that overshoots makes the next gradient larger still."
        yield Finding("diverged", seen, why, "Train with a lower --lr, in another folder.")
        return
    if loss := last_loss_at_chance(run, chance(config, pack)):
        seen = f"the run ended at {loss:.3f} nats; {chance(config, pack):.3f} need no image at all"
        why = "It has learned how frequent the classes are, and nothing of the images."
        remedy = "Mend the findings above; where there are none, train for longer."
        yield Finding("ended at chance", seen, why, remedy, cite("text"))
    net, _, _ = load_run(run)
    x, labels = batch_of(config, pack, count)
    at_end = diagnose(net.to(device), x.to(device), labels.to(device), trained=True)
    yield from (finding for finding in at_end.findings if finding.name == "constant predictions")


def chance(config: Config, pack: Pack | None) -> float:
    """The entropy of the labels, in nats: the loss of a net that knows how frequent the classes
    are, and no more.

    Args:
        config: Gives the number of classes where there is no pack.
        pack: The training images; None: all classes are as frequent.
    """
    if pack is None:
        return math.log(config.num_classes)
    counts = np.bincount(pack.labels)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def last_loss_at_chance(run: Path, chance: float) -> float | None:
    """A run's mean loss over its last steps, where it is no better than chance; else None.

    Args:
        run: The run's folder.
        chance: In nats, as `chance` gives it.
    """
    last = losses(run)[-WINDOW:]
    mean = sum(last) / len(last) if last else 0.0
    return mean if mean > AT_CHANCE * chance else None


def chance_line(run: Path, data: Path, config: Config, pack: Pack) -> str | None:
    """What is said at the end of a run that has learned nothing; None of any other.

    Args:
        run: The run's folder.
        data: What it was trained on, named in the line.
        config: The run's settings.
        pack: The training images.
    """
    floor = chance(config, pack)
    loss = last_loss_at_chance(run, floor)
    if loss is None:
        return None
    said = f"{run}: ended at chance: loss {loss:.3f} nats, and {floor:.3f} need no image at all"
    return f"{said}; it may need more steps, or: alexnet diagnose {run} --data {data}"
