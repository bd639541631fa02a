"""Sizes of signals and gradients, layer by layer, of any classifier written in torch: what decides
whether a net learns is seen before its first step.

The measurement runs the net in training mode, as it would learn, but without dropout, whose masks
would count as differences between images. It leaves the net as it was.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from alexnet.errors import InputError, require
from alexnet.network import OperationModule
from alexnet.presets import Dropout

BATCH = 64  # images to which gradients of other batches are converted
FLAT = 0.05  # a unit is saturated where its slope is below this share of the steepest
# slopes of bounded nonlinearities, in shares of the steepest, as functions of their outputs
SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda y: 1 - y * y,
    "sigmoid": lambda y: 4 * y * (1 - y),
}


@dataclass(frozen=True)
class LayerSize:
    """One layer with weights, in the order of the forward pass; several columns count as one.

    Attributes:
        signal: Root mean square of what the layer reads.
        differs: The share of it that differs between images: the rms deviation from the mean over
            images, over `signal`. Nothing else can tell classes apart.
        dead: The share of the layer's inputs that are 0 for every image.
        saturated: The share of its tanh or logistic outputs where the slope is below a twentieth of
            the steepest; None: it has no such outputs.
        gain: The weights' rms times sqrt(fan-in): what the layer multiplies signals by.
        gradient: Root mean square of the loss's gradient by the weights.
        update: The weights' first step over their size, rms by rms, without momentum.
        plateau: The same where the last biases have learned how frequent the classes are, so that
            only differences between images are left to learn; of a batch of `BATCH` images.
    """

    layer: str
    signal: float
    differs: float
    dead: float
    saturated: float | None
    gain: float
    gradient: float
    update: float
    plateau: float


@dataclass(frozen=True)
class Sizes:
    """What one batch shows of a net.

    Attributes:
        rows: One a layer.
        outputs: The net's outputs (N, classes).
        loss: Mean cross-entropy, in nats.
        spread: The outputs' rms deviation from their mean over the images.
    """

    rows: list[LayerSize]
    outputs: Tensor
    loss: float
    spread: float

    @property
    def pace(self) -> float:
        """The geometric mean of the rows' `plateau`; 0 where a layer gets no gradient."""
        if any(not row.plateau > 0 for row in self.rows):
            return 0.0
        return math.exp(sum(math.log(row.plateau) for row in self.rows) / len(self.rows))


@dataclass
class _Reading:
    """What hooks note of one layer."""

    weights: list[Tensor] = field(default_factory=list)
    squares: list[Tensor] = field(default_factory=list)
    deviations: list[Tensor] = field(default_factory=list)
    dead: list[Tensor] = field(default_factory=list)
    saturated: list[Tensor] = field(default_factory=list)


class _Saturation(TorchFunctionMode):
    """Notes how flat bounded nonlinearities are, be they modules or functions."""

    def __init__(self) -> None:
        self.current: _Reading | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        slope = SLOPES.get(getattr(func, "__name__", "").rstrip("_"))
        if slope and self.current is not None and isinstance(result, Tensor):
            with torch.no_grad():
                self.current.saturated.append((slope(result.detach()) < FLAT).float().mean())
        return result


def weighted(net: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """The modules that own weights: their names, those of their layers, and they themselves."""
    for name, module in net.named_modules():
        if any(p.dim() > 1 for p in module.parameters(recurse=False)):
            parts = name.split(".")
            is_column = parts[0] == "columns" and len(parts) == 3  # of an AlexNet
            yield name, parts[2] if is_column else name or type(module).__name__, module


def is_dropout(module: nn.Module) -> bool:
    own = isinstance(module, OperationModule) and isinstance(module.row, Dropout)
    return own or "Dropout" in type(module).__name__


@contextmanager
def as_it_was(net: nn.Module) -> Iterator[None]:
    """Give back the net's modes, buffers and gradients, and torch's random state, at the end."""
    modes = {module: module.training for module in net.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in net.buffers()]
    gradients = [(p, p.grad) for p in net.parameters()]
    devices = {p.device.index for p in net.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=sorted(i for i in devices if i is not None)):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for p, gradient in gradients:
            p.grad = gradient
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def without_dropout(net: nn.Module) -> None:
    """Training mode for all but dropout."""
    net.train()
    for module in net.modules():
        if is_dropout(module):
            module.eval()


def forward(net: nn.Module, images: Tensor) -> Tensor:
    """The outputs (N, classes).

    Args:
        net: Any module from images to logits.
        images: (N, 3, S, S).

    Raises:
        InputError: The net does not take the images, or gives no such outputs.
    """
    try:
        outputs = net(images)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        what = f"the net fails on images of shape {tuple(images.shape)}"
        raise InputError(f"{what}: {reason}") from error
    if isinstance(outputs, tuple) and outputs:  # GoogLeNet gives its helpers' outputs as well
        outputs = outputs[0]
    fits = isinstance(outputs, Tensor) and outputs.dim() == 2 and len(outputs) == len(images)
    given = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    require(fits, f"a classifier's outputs are (N, classes); this net's are {given}")
    return outputs


def measure(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    rate: float = 0.01,
    logits: Callable[[Tensor], Tensor] = lambda outputs: outputs,
) -> Sizes:
    """Measure a net on one batch: a forward pass and two backward ones.

    Args:
        net: A classifier, on any device.
        images: Its input, (N, ...), on its device.
        labels: int64 (N,).
        rate: The learning rate.
        logits: What makes logits of the net's outputs.

    Raises:
        InputError: The net does not take the images, or has no weights.
    """
    with as_it_was(net):
        without_dropout(net)
        outputs, readings = _read(net, images)
        z = logits(outputs).to(torch.promote_types(outputs.dtype, torch.float32))
        loss = F.cross_entropy(z, labels)
        on_plateau = F.cross_entropy(z + fitted_biases(z.detach(), labels), labels)
        weights = [weight for reading in readings.values() for weight in reading.weights]
        plain = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        settled = torch.autograd.grad(on_plateau, weights, allow_unused=True)
    by_weight = {id(w): g for w, g in zip(weights, zip(plain, settled, strict=True), strict=True)}
    rows = [_row(name, reading, by_weight, rate, len(images)) for name, reading in readings.items()]
    deviation = _rms([outputs.detach() - outputs.detach().mean(0)])
    return Sizes(rows, outputs.detach(), float(loss.detach()), deviation)


def layer_sizes(
    net: nn.Module, images: Tensor, labels: Tensor, rate: float = 0.01
) -> list[dict[str, Any]]:
    """Sizes of signals and gradients, one row a layer, as plain data; see `LayerSize` and
    `measure`.

    Args:
        net: Any module from images to logits.
        images: (N, 3, S, S), as the net reads them.
        labels: int64 (N,).
        rate: The learning rate at which updates are compared with weights.
    """
    return [asdict(row) for row in measure(net, images, labels, rate).rows]


def _read(net: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, _Reading]]:
    """The outputs, and what the layers with weights read, in the order of the forward pass."""
    readings: dict[str, _Reading] = {}
    saturation = _Saturation()

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        reading = saturation.current = readings.setdefault(name, _Reading())
        if not (inputs and isinstance(inputs[0], Tensor)):
            return
        own = (p for p in module.parameters(recurse=False) if p.dim() > 1 and p.requires_grad)
        held = {id(weight) for weight in reading.weights}
        reading.weights += [weight for weight in own if id(weight) not in held]
        x = inputs[0].detach().float()
        reading.squares.append(x.square().mean())
        reading.deviations.append((x - x.mean(0)).square().mean())
        is_image = name == next(iter(readings))  # whose black border is no dead unit
        reading.dead.append((x == 0).all(0).float().mean() * (not is_image))

    with ExitStack() as stack:
        for _, layer, module in weighted(net):
            hook = lambda m, inputs, name=layer: note(name, m, inputs)  # noqa: E731
            stack.callback(module.register_forward_pre_hook(hook).remove)
        with saturation, torch.enable_grad():
            outputs = forward(net, images)
    readings = {name: reading for name, reading in readings.items() if reading.weights}
    require(readings, "the net has no layer with weights that learn: there is nothing to diagnose")
    require(outputs.requires_grad, "the net's outputs do not follow from weights that learn")
    return outputs, readings


def _row(
    name: str, reading: _Reading, gradients: dict[int, Any], rate: float, count: int
) -> LayerSize:
    signal = float(torch.stack(reading.squares).mean().sqrt())
    deviation = float(torch.stack(reading.deviations).mean().sqrt())
    flat = reading.saturated
    weights = [weight.detach() for weight in reading.weights]
    both = [gradients[id(weight)] for weight in reading.weights]
    plain, settled = (_rms([g for g in gs if g is not None]) for gs in zip(*both, strict=True))
    size = _rms(weights)
    over = rate / size if size else 0.0
    return LayerSize(
        name,
        signal,
        deviation / signal if signal else 0.0,
        float(torch.stack(reading.dead).mean()),
        float(torch.stack(flat).mean()) if flat else None,
        size * math.sqrt(weights[0][0].numel()),
        plain,
        over * plain,
        over * settled * math.sqrt(count / BATCH),  # it is mostly the sampling of images
    )


def _rms(tensors: list[Tensor]) -> float:
    count = sum(x.numel() for x in tensors)
    return math.sqrt(sum(float(x.double().square().sum()) for x in tensors) / max(count, 1))


@torch.no_grad()
def fitted_biases(logits: Tensor, labels: Tensor) -> Tensor:
    """What added to the logits gives each class its frequency among the labels, on average.

    Args:
        logits: (N, classes).
        labels: int64 (N,).

    Returns:
        (classes,).
    """
    z = logits.double()
    counts = torch.bincount(labels, minlength=z.shape[1]).double().clamp(min=1e-3)
    frequency, biases = (counts / counts.sum()).log(), torch.zeros_like(counts)
    for _ in range(50):
        biases += frequency - (z + biases).log_softmax(1).exp().mean(0).clamp(min=1e-30).log()
    return biases.to(logits.dtype)


def has_batch_norm(net: nn.Module) -> bool:
    return any(hasattr(module, "running_mean") for module in net.modules())


def walk(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    logits: Callable[[Tensor], Tensor],
    steps: int,
    halves: bool,
) -> list[float]:
    """The loss before each of some steps, and after the last. The net and the optimizer are left
    as they were.

    Args:
        halves: Steps see the halves of the batch in turn, as different as batches are; or the same
            32 images each time.
    """
    half = len(images) // 2
    parts = [slice(0, half), slice(half, None)] if halves else [slice(0, 32)]
    weights = [(p, p.detach().clone()) for p in net.parameters()]
    state = _copied(optimizer.state_dict())
    losses: list[float] = []
    with as_it_was(net):
        without_dropout(net)
        for step in range(steps + 1):
            part, is_last = parts[step % len(parts)], step == steps
            with torch.set_grad_enabled(not is_last):
                z = logits(forward(net, images[part])).float()
                loss = F.cross_entropy(z, labels[part])
            losses.append(float(loss.detach()))
            if is_last or not math.isfinite(losses[-1]):
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        for p, before in weights:
            p.copy_(before)
    optimizer.load_state_dict(state)
    return losses


def _copied(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {name: _copied(value) for name, value in state.items()}
    return [_copied(value) for value in state] if isinstance(state, list) else state
