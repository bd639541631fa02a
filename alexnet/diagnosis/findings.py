"""What is wrong with a net that does not train: rules over what `sizes` measures.

A limit stands between nets that train and nets that do not, as measured on photographs of Tiny
ImageNet and CIFAR-10, at widths of 0.1 to 1 and crops of 64 to 224 pixels; tests/test_diagnosis.py
holds both sides to it.
"""

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.diagnosis.evidence import cite
from alexnet.diagnosis.sizes import LayerSize, Sizes, measure, weighted

# Images look alike to a layer where less than this share of what it reads differs between them.
# Nets that train: 0.004 (the text's, at a tenth of its width) and more; nets that do not: 0.0006
# (sigma 0.03, pixels in 0..1), 0.0005 (sigmas not scaled to a quarter of the width) and less.
ALIKE = 0.0016
# The pace is too slow below this: a share of the weights per step, on the plateau. Nets that train:
# 1.2e-5 (the text's with biases of 0, which is slow; torchvision's) and more; nets that do not:
# 1.7e-6 (the text's, pixels in 0..1) and less.
SLOW = 4.5e-6
# The outputs of nets with biases of 0 tell images apart by less than this: 6e-4 in the text's net
# with its biases at 0, which learns at a third of the pace; 0.01 and more in VGG, SqueezeNet and
# the text's net with sigma 0.03.
FAINT = 0.0025
# Nats by which the first loss may exceed ln(classes): up to 0.9 in nets that train, 13 in a net of
# He's initialization on pixels in 0..255.
EXCESS = 3.0
# Nats by which the loss may rise within the first STEPS steps. On halves of 64 images in turn: 0.9
# in the text's and the source's nets at a rate of 0.01, at widths of 0.125 to 1; at 0.1, with which
# they die, 3.1 and more from a quarter of the width on. On one batch, for nets with batch
# normalization, to which small batches are foreign, for other rules than SGD, whose first steps are
# large, and for fewer images: up to 2.3 in nets that train.
RISE_ON_HALVES, RISE, STEPS = 1.7, 2.9, 8
RECOVERED = 0.9  # of the smaller of the first loss and ln(classes): the rise has done no harm
# Shares of units: up to 0.5 dead and 0.1 saturated in nets that train.
DEAD, SATURATED = 0.9, 0.5
# Mean signals in training over those in evaluation, above the first dropout: 1 where its factor is
# right, and up to sqrt(2) a layer higher, for masks add noise that ReLUs rectify; 0.5 or 2 where it
# is wrong.
FACTOR = 1.7
PIXELS = 58.0  # rms of photographs in 0..255 minus their mean; their standard deviation
RAW = 10.0  # inputs of a larger rms are pixels in 0..255


@dataclass(frozen=True)
class Finding:
    """One thing that keeps a net from training.

    Attributes:
        name: What it is called, such as "pixel scale".
        seen: What was measured.
        why: Why it matters.
        remedy: What to do.
        evidence: What the archive says of it; may be empty.
    """

    name: str
    seen: str
    why: str
    remedy: str
    evidence: str = ""


@dataclass
class Case:
    """A net, its batch, and what was measured."""

    net: nn.Module
    images: Tensor
    labels: Tensor
    logits: Callable[[Tensor], Tensor]
    sizes: Sizes
    rate: float
    by_gradient: bool  # the step follows the gradient's size, as SGD's does and Adam's does not
    losses: list[float]  # of `walk`
    halves: bool  # it saw halves of the batch in turn

    @property
    def classes(self) -> int:
        return self.sizes.outputs.shape[1]

    @property
    def chance(self) -> float:
        return math.log(self.classes)

    def again(self, net: nn.Module | None = None, images: Tensor | None = None) -> Sizes:
        """What is measured after a change of the net or of the images.

        Args:
            net: None: the case's.
            images: (N, 3, S, S); None: the case's.
        """
        net, images = net or self.net, self.images if images is None else images
        return measure(net, images, self.labels, self.rate, self.logits)

    def is_faint(self, sizes: Sizes) -> bool:
        """Whether a net cannot tell images apart, or learns too slowly to leave chance."""
        alike = min(row.differs for row in sizes.rows) < ALIKE
        return alike or (self.by_gradient and sizes.pace < SLOW)


ONE_CLASS = "one class in the batch"


def labels_of(labels: Tensor, classes: int) -> tuple[Tensor, list[Finding]]:
    """Labels that a loss can be taken of, and what is wrong with those that were given.

    Args:
        labels: As they were given, (N,).
        classes: Outputs of the net.
    """
    low, high, found = int(labels.min()), int(labels.max()), []
    outputs = f"the net has {classes} outputs, for labels from 0 to {classes - 1}"
    shift = 1 if high == classes else -1
    if low >= 0 and high < classes:
        # would class 0 be missing by luck? 20 times more images than outputs
        if low == 1 and high == classes - 1 and len(labels) >= 20 * classes:
            found = [_off_by_one(f"labels run from 1 to {high}; {outputs}")]
    elif low >= -1 and high <= classes and high - low < classes:
        found = [_off_by_one(f"labels run from {low} to {high}; {outputs}")]
        labels = labels - shift
    else:
        seen = f"labels run from {low} to {high}; {outputs}"
        why = "A label without an output has no loss: torch stops, or a GPU asserts."
        remedy = f"Number the classes from 0, and build the net with {high - min(low, 0) + 1}."
        found = [Finding("labels out of range", seen, why, remedy)]
        labels = (labels - min(low, 0)) % classes
    if len(labels) >= 16 and low == high:
        seen = f"all {len(labels)} labels of the batch are {low}"
        why = "Batches of one class teach the net to say that class; the next batch unlearns it."
        remedy = "Shuffle: DataLoader(..., shuffle=True)."
        found.append(Finding(ONE_CLASS, seen, why, remedy))
    return labels, found


def _off_by_one(seen: str) -> Finding:
    why = (
        "Output 0 never is right, and the last class has no output: torch stops with "
        '"Target is out of bounds", or the net learns one class less.'
    )
    return Finding("labels off by one", seen, why, "Count from 0: labels - labels.min().")


def logits_of(outputs: Tensor) -> tuple[Callable[[Tensor], Tensor], list[Finding]]:
    """What makes logits of a net's outputs, and what is wrong where they are none."""
    sums = outputs.float().sum(1)
    if outputs.shape[1] < 2 or not (outputs.min() >= 0 and (sums - 1).abs().max() < 1e-2):
        return lambda z: z, []
    classes = outputs.shape[1]
    least = math.log(classes - 1 + math.e) - 1
    seen = "the outputs are probabilities: none is negative, and each row sums to 1"
    why = (
        "Cross-entropy applies softmax by itself. After a second one the loss of a perfect net is "
        f"{least:.2f} nats, not 0, and gradients shrink by the number of classes."
    )
    remedy = "Give cross_entropy the logits: remove the last softmax, and apply it in evaluation."
    finding = Finding("softmax before cross-entropy", seen, why, remedy)
    return lambda z: z.clamp(min=1e-30).log(), [finding]


def all_of(case: Case) -> Iterator[Finding]:
    """The findings on sizes, causes before what follows from them."""
    sizes = case.sizes
    too_large = not math.isfinite(sizes.loss) or sizes.loss > case.chance + EXCESS
    if too_large:
        yield _too_large(case)
    elif case.is_faint(sizes) and not any(map(is_saturated, sizes.rows)):
        yield _too_faint(case)
    elif zero := _zero_biases(case):
        yield zero
    if not too_large and (rate := _too_fast(case)):
        yield rate
    for row in sizes.rows:
        if row.dead > DEAD:
            seen = f"{row.dead:.0%} of the units that {row.layer} reads are 0 for every image"
            why = "A ReLU that is never above 0 has no gradient, and stays so."
            remedy = "Lower the learning rate, or begin again with biases of 0 or more."
            yield Finding("dead units", seen, why, remedy)
            break
    for row in sizes.rows:
        if is_saturated(row):
            seen = f"{row.saturated:.0%} of {row.layer}'s outputs lie where the curve is flat"
            why = "The slope there is below a twentieth of the steepest: gradients end there."
            remedy = "Scale the input to unit variance and the weights to a gain near 1."
            yield Finding("saturated units", seen, why, remedy)
            break
    yield from _normalization(case.net)


def is_saturated(row: LayerSize) -> bool:
    return row.saturated is not None and row.saturated > SATURATED


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())


def _to_unit(case: Case) -> Tensor:
    mean, deviation = case.images.mean(), case.images.std()
    return (case.images - mean) / (deviation if deviation > 0 else 1)


def _too_large(case: Case) -> Finding:
    scale, loss = _rms(case.images), case.sizes.loss
    seen = f"the first loss is {loss:.2f} nats, and ln({case.classes}) = {case.chance:.2f}"
    why = (
        "A net that knows nothing should lose ln(classes). One that is surely wrong gets gradients "
        "that throw its weights away: it dies, or says the same of every image."
    )
    fixed = case.again(images=_to_unit(case)).loss if scale > RAW else math.inf
    if fixed <= case.chance + EXCESS:
        seen += f"; the input's rms is {scale:.0f}. At unit variance it would be {fixed:.2f} nats"
        remedy = "Divide the pixels by their standard deviation, 58, or make the weights smaller."
        return Finding("pixel scale", seen, why, remedy, cite("he-init"))
    most = max(case.sizes.rows, key=lambda row: row.gain)
    seen += f"; {most.layer} multiplies signals by {most.gain:.1f} (sigma times sqrt(fan-in))"
    remedy = "Make the initial weights smaller: sigma = sqrt(2 / fan-in) fits ReLUs."
    return Finding("sigma against fan-in", seen, why, remedy)


def _too_faint(case: Case) -> Finding:
    """What keeps a net from telling images apart: the first cause without which it would."""
    row = min(case.sizes.rows, key=lambda row: row.differs)
    if row.differs < ALIKE:
        seen = f"{row.differs:.1g} of what {row.layer} reads differs between images"
    else:
        seen = f"weights change by {case.sizes.pace:.1g} of their size in a step"
    why = (
        "Images reach the upper layers as one and the same signal, so gradients can teach the last "
        "biases only: the loss stays at ln(classes)."
    )
    scale = _rms(case.images)
    if case.rate < 0.01 and not case.is_faint(
        measure(case.net, case.images, case.labels, 0.01, case.logits)
    ):
        seen = f"{seen}, at a rate of {case.rate:g}"
        return Finding("learning rate too low", seen, why, "Try a rate of 0.01.")
    if scale < RAW and not case.is_faint(case.again(images=_to_unit(case) * PIXELS)):
        seen += (
            f"; the input's rms is {scale:.2g}. With pixels in 0..255, {PIXELS:.0f}, it would do"
        )
        remedy = (
            "Give the net pixels in 0..255 minus the mean image, which sigma 0.01 is meant for, "
            "or initialize with sigma = sqrt(2 / fan-in)."
        )
        return Finding("pixel scale", seen, why, remedy, cite("unit-input"))
    if scale < 1 and not case.is_faint(case.again(images=_to_unit(case))):
        seen += f"; the input's rms is {scale:.2g}, its mean {float(case.images.mean()):.2g}"
        remedy = "Subtract the mean of the pixels and divide by their standard deviation."
        return Finding("pixel scale", seen, why, remedy, cite("unit-input"))
    if not case.is_faint(case.again(net=_rescaled(case.net))):
        least = min(case.sizes.rows, key=lambda row: row.gain)
        seen += (
            f"; {least.layer} multiplies signals by {least.gain:.2f} (sigma times sqrt(fan-in)). "
            "With sqrt(2) in every layer it would do"
        )
        remedy = (
            "sigma = sqrt(2 / fan-in); in a narrower net than the paper's, the paper's sigma "
            "times sqrt(full fan-in / fan-in)."
        )
        return Finding("sigma against fan-in", seen, why, remedy, cite("unscaled-sigma"))
    remedy = "Look where `differs` or `gradient` falls in the table: the layer above is the cause."
    return Finding("signal vanishes", seen, why, remedy)


@torch.no_grad()
def _rescaled(net: nn.Module) -> nn.Module:
    """A copy whose weights have the rms sqrt(2 / fan-in)."""
    net = deepcopy(net)
    for _, _, module in weighted(net):
        for p in module.parameters(recurse=False):
            if p.dim() > 1 and (size := _rms(p)) > 0:
                p.mul_((2 / p[0].numel()) ** 0.5 / size)
    return net


def _zero_biases(case: Case) -> Finding | None:
    biases = [p for name, p in case.net.named_parameters() if name.split(".")[-1] == "bias"]
    if not biases or case.sizes.spread >= FAINT or any(bool((p != 0).any()) for p in biases):
        return None
    seen = f"all biases are 0, and images change the outputs by {case.sizes.spread:.1g}"
    return zero_biases_finding(seen)


def zero_biases_finding(seen: str) -> Finding:
    why = (
        "With the text's small weights the signal fades from layer to layer. Biases of 1 keep "
        "ReLUs on, so that gradients pass; without them learning starts later."
    )
    remedy = (
        "Set the biases of conv2, conv4, conv5, fc6 and fc7 to 1, as section 5 has it, or "
        "initialize with sigma = sqrt(2 / fan-in)."
    )
    return Finding("zero biases", seen, why, remedy, cite("zero-biases"))


def _too_fast(case: Case) -> Finding | None:
    first, peak, last = case.losses[0], max(case.losses), case.losses[-1]
    blown = not all(map(math.isfinite, case.losses))
    limit = RISE_ON_HALVES if case.halves else RISE
    if blown or (peak > first + limit and last > RECOVERED * min(first, case.chance)):
        top = "infinity" if blown else f"{peak:.2f}"
        where = "on halves of the batch" if case.halves else "on one batch"
        seen = f"{STEPS} steps {where} take the loss from {first:.2f} to {top}"
        seen += "" if blown else f", and leave it at {last:.2f}"
        why = (
            "Steps that raise the loss so far overshoot: ReLUs die, and the net ends "
            "by saying the same of every image."
        )
        remedy = f"Divide the rate, {case.rate:g}, by ten; the paper's is 0.01 with momentum 0.9."
        return Finding("learning rate too high", seen, why, remedy)
    return None


def _normalization(net: nn.Module) -> Iterator[Finding]:
    """Response normalization whose alpha means something else than the text's."""
    for name, module in net.named_modules():
        kind = type(module).__name__
        if kind not in ("LocalResponseNorm", "CrossMapLRN2d"):
            continue
        own = type(module).__module__.startswith("alexnet_kernels")
        values: dict[str, Any] = vars(module)
        size, alpha, k = (values.get(key) for key in ("size", "alpha", "k"))
        if not (size and alpha and k):
            continue
        term = alpha if own else alpha / size
        if k == 2 and math.isclose(term * size, 1e-4, rel_tol=0.01):  # k = 1 is Caffe's own net
            yield alpha_finding(f"{name}: alpha {alpha:g} acts as {term:g} a squared term", size)
            return


def alpha_finding(seen: str, size: int) -> Finding:
    """The finding that alpha has another convention's value.

    Args:
        seen: What was measured, in words.
        size: Of the window that alpha is divided by.
    """
    why = (
        "torch and Caffe divide alpha by the window's size; the text's equation does not. "
        f"Responses are damped {size} times less than the text says. Such nets train."
    )
    remedy = f"For the text's equation give torch alpha = {size}e-4, or alexnet_kernels 1e-4."
    return Finding("alpha's convention", seen, why, remedy, cite("lrn-over-size"))
