"""What a net does in evaluation, held against training: randomness, dropout's factor, and constant
predictions."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.diagnosis.findings import FACTOR, Finding
from alexnet.diagnosis.sizes import as_it_was, forward, has_batch_norm, weighted


@torch.no_grad()
def findings(
    net: nn.Module, images: Tensor, labels: Tensor, trained: bool = False
) -> Iterator[Finding]:
    """What is wrong in evaluation mode.

    Args:
        net: Any module from images to logits; stays as it was.
        images: (N, 3, S, S), as the net reads them.
        labels: int64 (N,).
        trained: Whether its predictions mean something already.
    """
    with as_it_was(net):
        net.eval()
        outputs, quiet = _means(net, images)
        again = forward(net, images)
        net.train()
        noisy = _means(net, images)[1]
    if not torch.equal(outputs, again):
        seen = "in evaluation mode the net answers the same images differently each time"
        why = "Dropout that stays on at test time costs accuracy, and no result can be repeated."
        remedy = "Write F.dropout(x, p, self.training), or use nn.Dropout."
        yield Finding("dropout in evaluation", seen, why, remedy)
    elif not has_batch_norm(net):
        yield from _factor(quiet, noisy)
    said = outputs.argmax(1)
    if trained and len(labels.unique()) > 1 and bool((said == said[0]).all()):
        seen = f"the trained net says class {int(said[0])} of all {len(said)} images"
        why = "It has learned how frequent the classes are, and nothing of the images."
        remedy = "See the findings on the untrained net; where there are none, train for longer."
        yield Finding("constant predictions", seen, why, remedy)


def _means(net: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, tuple[float, float]]]:
    """The outputs; and the mean and the least of what each layer reads."""
    read: dict[str, tuple[float, float]] = {}

    def note(name: str, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            read.setdefault(name, (float(inputs[0].float().mean()), float(inputs[0].min())))

    hooks = [
        module.register_forward_pre_hook(lambda m, inputs, name=name: note(name, inputs))
        for name, _, module in weighted(net)
    ]
    try:
        return forward(net, images), read
    finally:
        for hook in hooks:
            hook.remove()


def _factor(
    quiet: dict[str, tuple[float, float]], noisy: dict[str, tuple[float, float]]
) -> Iterator[Finding]:
    for name, (mean, least) in quiet.items():
        if name not in noisy or least < 0 or mean <= 0:  # a mean near 0 has no meaningful ratio
            continue
        ratio = noisy[name][0] / mean
        if abs(ratio - 1) < 0.1:
            continue
        if not 1 / FACTOR < ratio < FACTOR:
            layer = name.split(".")[-1] if name.startswith("columns.") else name
            seen = f"in training {layer} reads {ratio:.2f} times what it reads in evaluation"
            why = (
                "Dropout that halves the units must double what is left, or halve all of them in "
                "evaluation: else the layers above see signals that they were not trained on."
            )
            remedy = "Use nn.Dropout, or multiply by the share that is kept in evaluation only."
            yield Finding("dropout's form", seen, why, remedy)
        return  # layers above follow from this one
