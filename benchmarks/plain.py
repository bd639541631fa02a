"""The same nets as one writes them with torch's own layers: grouped convolutions,
F.local_response_norm, nn.MaxPool2d.

The peer of benchmarks/step.py, and an independent second of alexnet/network.py: from the same
weights it gives the same numbers.
"""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.presets import LRN, Activation, Dropout, Operation, Pool, SameMapNorm, get, shapes


class Plain(nn.Sequential):
    """A preset's net in the layout of one device: its state_dict is what `AlexNet.export_merged`
    gives."""

    def __init__(self, preset: str, num_classes: int, width: float, image_size: int):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        maps = 3
        for row in shapes(get(preset), num_classes, width, image_size):
            name, kernel, columns = row.layer.name, row.layer.kernel, row.columns
            out = row.maps if row.is_last else row.maps * columns
            before, after = row.pad
            if row.layer.local:
                raise ValueError(f"torch has no locally connected layer, as {name} is")
            if kernel:
                if before != after:
                    layers[f"{name}_pad"] = nn.ZeroPad2d((before, after, before, after))
                padding = before if before == after else 0
                groups = columns if row.layer.reads == "own" else 1
                stride = row.layer.stride
                layers[name] = nn.Conv2d(maps, out, kernel, stride, padding, groups=groups)
            else:
                layers.setdefault("flatten", nn.Flatten())
                layers[name] = nn.Linear(maps * row.in_size**2, out)
            for i, operation in enumerate(row.layer.then):
                layers[f"{name}_{i}"] = module(operation, columns)
            maps = out
        super().__init__(layers)


def module(operation: Operation, columns: int) -> nn.Module:
    if isinstance(operation, Activation):
        return {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[str(operation.kind)]()
    if isinstance(operation, Pool):
        return nn.MaxPool2d(operation.size, operation.stride, ceil_mode=operation.ceil)
    forms = {LRN: ResponseNorm, SameMapNorm: MapNorm, Dropout: Drop}
    return forms[type(operation)](operation, columns)


class Of(nn.Module):
    """What one operation of the preset does."""

    def __init__(self, settings: Any, columns: int = 1):
        super().__init__()
        self.settings, self.columns = settings, columns


class ResponseNorm(Of):
    """torch's alpha is divided by the window's size; the paper's is per term."""

    def forward(self, x: Tensor) -> Tensor:
        norm = self.settings
        apart = x.unflatten(1, (self.columns, -1)).flatten(0, 1)  # windows stay within a column
        y = F.local_response_norm(apart, norm.size, norm.alpha * norm.size, norm.beta, norm.k)
        return y.unflatten(0, (-1, self.columns)).flatten(1, 2)


class MapNorm(Of):
    def forward(self, x: Tensor) -> Tensor:
        norm = self.settings
        squares = F.avg_pool2d(x * x, norm.size, 1, norm.size // 2) * norm.size**2
        return x * (norm.k + norm.alpha * squares) ** -norm.beta


class Drop(Of):
    """The paper's form, unscaled in training, by torch's, which scales."""

    def forward(self, x: Tensor) -> Tensor:
        keep = self.settings.keep
        x = F.dropout(x, 1 - keep, self.training)
        return x if self.settings.inverted else x * keep


def sgd(
    net: nn.Module, rate: float = 1e-4, momentum: float = 0.9, weight_decay: float = 5e-4
) -> torch.optim.SGD:
    """torch's SGD over weights and, without decay, biases."""
    weights, biases = (
        [p for p in net.parameters() if (p.dim() > 1) is big] for big in (True, False)
    )
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": weight_decay},
        {"params": biases},
    ]
    return torch.optim.SGD(groups, lr=rate, momentum=momentum)
