"""Test errors (sections 4.1 and 6 of the paper), from one view or from ten whose softmax outputs
are averaged; and files for an evaluation server, where the labels are not public."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from alexnet.data.augment import Augment
from alexnet.data.loader import Images
from alexnet.data.pack import Pack
from alexnet.errors import require
from alexnet.network import AlexNet


@dataclass(frozen=True)
class Errors:
    """Over `count` images: shares in 0..1, and the mean negative log-likelihood in nats."""

    top1: float
    top5: float
    nll: float
    count: int

    def rounded(self) -> dict[str, float | None]:
        """As results hold them, to five places; the likelihood of a net that diverged is None."""
        nll = round(self.nll, 5) if math.isfinite(self.nll) else None
        return {"top1": round(self.top1, 5), "top5": round(self.top5, 5), "nll": nll}


def hits(probabilities: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether each image's label is among its k most probable classes.

    A tie across the k-th place counts in part, as in 2012. An image whose probabilities are NaN is
    a miss.

    Args:
        probabilities: (N, classes).
        labels: int64 (N,).

    Returns:
        float64 (N,), in 0..1.

    Source: layer_kernels.cu:108.
    """
    own = probabilities.gather(1, labels[:, None])
    above, level = (probabilities > own).sum(1), (probabilities == own).sum(1)
    share = ((k - above) / level.clamp(min=1)).clamp(0, 1)
    return (share * (level > 0)).to(torch.float64)  # nothing equals NaN, not even itself


def errors(probabilities: Tensor, labels: Tensor) -> Errors:
    """The errors of predictions. With fewer than six classes the top-5 error is 0.

    Args:
        probabilities: (N, classes), rows summing to 1.
        labels: int64 (N,).
    """
    likelihood = probabilities.gather(1, labels[:, None]).clamp(min=1e-30)
    top1, top5 = (1.0 - float(hits(probabilities, labels, k).mean()) for k in (1, 5))
    return Errors(top1, top5, float(-likelihood.to(torch.float64).log().mean()), len(labels))


@torch.no_grad()
def predict(
    net: AlexNet,
    pack: Pack,
    augment: Augment,
    views: int = 1,
    batch_size: int = 250,
    progress: bool = False,
    shard: tuple[int, int] = (0, 1),
    on_batch: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Predict the classes of a pack's images.

    Args:
        augment: Made with the training set's mean image.
        views: 1, the center crop; or 10, whose softmax outputs are averaged.
        shard: (d, D): the d-th of D parts of the images.
        on_batch: Called before each batch.

    Returns:
        Probabilities (N, classes), float32 or wider, and labels int64 (N,), in the pack's order.
    """
    weight, classes = next(net.parameters()), net.table[-1].maps
    first, end = (len(pack) * part // shard[1] for part in (shard[0], shard[0] + 1))
    was_training = net.training
    net.eval()
    outputs = [torch.empty(0, classes)]
    numbers = _batches(first, end, batch_size)
    batches = Images(pack, weight.device, resident=False).of(numbers)
    bar = tqdm(
        batches,
        f"{views}-view evaluation",
        len(numbers),
        leave=False,
        unit="batch",
        disable=None if progress else True,
    )
    for images in bar:
        on_batch()
        logits = (net(view.to(weight.dtype)) for view in augment.views(images, views))
        wide = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in logits)
        outputs.append(sum(x.softmax(1) for x in wide).cpu() / views)
    net.train(was_training)
    return torch.cat(outputs), torch.from_numpy(pack.labels[first:end]).long()


def _batches(first: int, end: int, size: int) -> list[Tensor]:
    return [torch.arange(i, min(i + size, end)) for i in range(first, end, size)]


@torch.no_grad()
def features(
    net: AlexNet,
    pack: Pack,
    augment: Augment,
    layer: str = "fc7",
    batch_size: int = 250,
    progress: bool = False,
) -> Iterator[Tensor]:
    """A layer's outputs for the center crops of a pack's images, batch by batch in its order.

    Args:
        net: Is in evaluation mode afterwards.
        layer: See `AlexNet.features`.

    Yields:
        float32 units (n, C) or maps (n, C, H, W), on the CPU.

    Raises:
        InputError: The net has no such layer.
    """
    weight = next(net.eval().parameters())
    numbers = _batches(0, len(pack), batch_size)
    batches = Images(pack, weight.device, resident=False).of(numbers)
    disable = None if progress else True
    for images in tqdm(batches, layer, len(numbers), leave=False, unit="batch", disable=disable):
        view = next(augment.views(images))
        yield net.features(view.to(weight.dtype), layer).float().cpu()


def evaluate(net: AlexNet, pack: Pack, augment: Augment, views: int = 1, **options) -> Errors:
    """The errors of a net on a pack's images.

    Args:
        net: Is in its former mode afterwards.
        pack: Images with labels.
        augment: Made with the training set's mean image.
        views: 1 or 10, as for `predict`.
        options: Further arguments of `predict`.

    Raises:
        InputError: The images have no labels.
    """
    require(
        pack.labeled,
        f"the images in {pack.path} have no labels: choose another split, or write a file to send "
        "by --submission",
    )
    return errors(*predict(net, pack, augment, views, **options))


def submission(probabilities: Tensor, pack: Pack) -> Iterator[str]:
    """The lines of a file for ILSVRC's evaluation server, in the development kit's format.

    There is one line for each image, in the order of their numbers: five classes by their ILSVRC
    numbers (1 to 1000), the most probable first. See `check_submission`.

    Args:
        probabilities: (N, classes), in the pack's order.
        pack: Prepared from ILSVRC's archives, so that it knows the classes' numbers.
    """
    assert pack.numbers is not None
    for best in probabilities.sort(dim=1, descending=True, stable=True).indices[:, :5].tolist():
        yield " ".join(str(pack.numbers[label]) for label in best)


def check_submission(pack: Pack) -> None:
    """Raise InputError where no `submission` can be made for a pack: the order of its images or the
    numbers of its classes are unknown."""
    count, rejected = len(pack.classes), pack.manifest["rejected"]
    require(
        pack.numbers,
        f"the classes in {pack.path} have no ILSVRC numbers: prepare it from ILSVRC's archives, "
        "with the development kit",
    )
    require(count >= 5, f"{pack.path} has {count} classes, and a line of a submission names five")
    listed = f"{rejected} of its images, which {pack.path / 'rejected.csv'} lists"
    require(not rejected, f"{pack.path} lacks {listed}: mend them, and prepare it again")
