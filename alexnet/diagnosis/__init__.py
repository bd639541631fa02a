"""Why a net does not train: `alexnet.diagnose(model, images, labels)`, and `alexnet diagnose`.

It works on any classifier written in torch. `sizes` measures, `findings` judges, `evidence` cites
the archive, `command` reads
presets and runs.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.diagnosis import evaluation_mode, findings
from alexnet.diagnosis.findings import Case, Finding
from alexnet.diagnosis.sizes import (
    BATCH,
    LayerSize,
    as_it_was,
    forward,
    has_batch_norm,
    layer_sizes,
    measure,
    walk,
)
from alexnet.errors import InputError, require
from alexnet.tables import Table

__all__ = ["Diagnosis", "Finding", "LayerSize", "diagnose", "layer_sizes"]

RATE, MOMENTUM = 0.01, 0.9  # section 5


@dataclass
class Diagnosis:
    """What was measured, layer by layer, and what is wrong. `print` shows both.

    Attributes:
        layers: Sizes of signals and gradients before the first step.
        loss: Nats, of the batch.
        chance: ln(classes): the loss of a net that knows nothing.
        rate: The learning rate that updates are computed with.
        losses: Nats, before each of eight steps on the batch, and after them.
        findings: None where nothing known to fail was seen.
    """

    layers: list[LayerSize]
    loss: float
    chance: float
    rate: float
    losses: list[float]
    findings: list[Finding] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data, for JSON: numbers that are not finite are None."""
        return _finite(asdict(self))

    @property
    def table(self) -> Table:
        has_bounded = any(row.saturated is not None for row in self.layers)
        head = ["layer", "signal", "differs", "dead", *["saturated"] * has_bounded]
        head += ["gain", "gradient", "update/weight"]
        rows = []
        for row in self.layers:
            flat = "-" if row.saturated is None else f"{row.saturated:.0%}"
            cells = [row.layer, f"{row.signal:.2g}", f"{row.differs:.2g}", f"{row.dead:.0%}"]
            cells += [*[flat] * has_bounded, f"{row.gain:.2f}", f"{row.gradient:.1e}"]
            rows.append([*cells, f"{row.update:.1e}"])
        notes = [
            f"first loss {self.loss:.3f} nats, chance ln({round(math.exp(self.chance))}) = "
            f"{self.chance:.3f}; learning rate {self.rate:g}",
        ]
        return Table(head, rows, notes)

    def __str__(self) -> str:
        lines = [str(self.table), ""]
        for number, finding in enumerate(self.findings, 1):
            lines.append(f"{number}. {finding.name}: {finding.seen}.")
            lines += [f"   Why: {finding.why}", f"   Do:  {finding.remedy}"]
            lines += [f"   {finding.evidence}"] if finding.evidence else []
        if not self.findings:
            lines.append("Nothing that is known to keep a net from training was found.")
        return "\n".join(lines)


def diagnose(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    rate: float | None = None,
    trained: bool = False,
) -> Diagnosis:
    """Say why a classifier does not train, from one batch; best before its first step.

    The model, the optimizer and torch's random state are left as they were. A batch of 64 images of
    several classes is enough.

    Args:
        model: Takes images and returns logits (N, classes).
        images: As in training, (N, ...), on any device.
        labels: int64 (N,), from 0.
        optimizer: Over the model's parameters; None: SGD with momentum 0.9.
        rate: The learning rate (default: the optimizer's, or 0.01).
        trained: The model has been trained, so its predictions are judged as well.

    Returns:
        Sizes of signals and gradients per layer, and findings.

    Raises:
        InputError: Images, labels or outputs are not what a classifier takes and gives.
    """
    _check(images, labels)
    place = next(model.parameters(), None)
    if place is None:
        raise InputError("the model has no parameters: there is nothing to diagnose")
    images, labels = images.detach().to(place), labels.detach().to(place.device).long()
    with torch.no_grad(), as_it_was(model):
        outputs = forward(model.eval(), images)
    labels, found = findings.labels_of(labels, outputs.shape[1])
    logits, more = findings.logits_of(outputs)
    found += more
    if optimizer is None:
        rate = rate or RATE
        optimizer = torch.optim.SGD(_learned(model), rate, MOMENTUM)
    rate = rate or float(optimizer.param_groups[0]["lr"])
    sizes = measure(model, images, labels, rate, logits)
    by_gradient = isinstance(optimizer, torch.optim.SGD)
    halves = by_gradient and not has_batch_norm(model) and len(images) >= BATCH
    losses = walk(model, images, labels, optimizer, logits, findings.STEPS, halves)
    case = Case(model, images, labels, logits, sizes, rate, by_gradient, losses, halves)
    if not trained and findings.ONE_CLASS not in (one.name for one in found):
        found += findings.all_of(case)
    found += evaluation_mode.findings(model, images, labels, trained)
    return Diagnosis(sizes.rows, sizes.loss, case.chance, rate, losses, found)


def _learned(model: nn.Module) -> list[nn.Parameter]:
    learned = [p for p in model.parameters() if p.requires_grad]
    require(learned, "no parameter of the model learns: all have requires_grad=False")
    return learned


def _check(images: Tensor, labels: Tensor) -> None:
    for name, value in (("images", images), ("labels", labels)):
        require(isinstance(value, Tensor), f"{name} are {type(value).__name__}: give a tensor")
    require(
        images.dim() >= 2 and len(images) >= 2,
        f"images are {tuple(images.shape)}: give a batch of two or more, 64 for example",
    )
    require(
        images.is_floating_point(),
        f"images are {images.dtype}: give them as the net reads them, as float",
    )
    require(bool(images.isfinite().all()), "images hold NaN or infinity: look at how they are made")
    integers = labels.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    fits = integers and labels.shape == images.shape[:1]
    given = f"labels are {labels.dtype} of shape {tuple(labels.shape)}"
    require(fits, f"{given}: give one class number an image, int64 ({len(images)},)")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
