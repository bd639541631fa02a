"""Figure 4 (section 6.1 of the paper): test images with the five most probable classes, and the
training images that are nearest to test images in fc7's outputs.

    alexnet reproduce --only figure4 --seeds 5

Nearness is Euclidean; of every test image, or of so many evenly apart, the six nearest training
images are sought among all of them, in fc7's outputs and, to compare, in pixels. Which images are
drawn was not chosen: they too are evenly apart in the test set, which is in the order of its
classes. The neighbors that are drawn are those of the first seed's net.
"""

import base64
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from alexnet.data.augment import Augment
from alexnet.data.loader import Images
from alexnet.data.pack import Pack, held_out
from alexnet.experiments.jobs import Run, base_job, devices
from alexnet.experiments.protocol import (
    Entry,
    Metrics,
    Profile,
    Record,
    Result,
    Table,
    by_seed,
    only,
)
from alexnet.experiments.showing import Figure, pyplot
from alexnet.network import AlexNet

NAME = "figure4"
VERSION = 1
NET, PICTURES = "full", "pictures"  # arms: of each seed's net; what is drawn, of the first one's
LEFT, RIGHT, NEAREST = 8, 5, 6  # images of the two halves, and neighbors of each, as in the paper
BATCH = 250
RIGHT_COLOR, WRONG_COLOR = "#c2410c", "#5b7fb8"


def entries(profile: Profile, seeds: list[int]) -> list[Entry]:
    given, packs = profile[NAME], profile.splits()
    own = {"test_images": given["test_images"], "shown": [LEFT, RIGHT, NEAREST]}
    made = [Entry(NET, seed, packs, (base_job(profile, seed),), own) for seed in seeds]
    own = own | {"thumbnail": given["thumbnail"]}
    return [*made, Entry(PICTURES, None, packs, (base_job(profile, seeds[0]),), own)]


def measure(entry: Entry, runs: list[Run]) -> Metrics:
    net, augment = runs[0].net()
    split = held_out(entry.packs, "Figure 4")
    test, train = entry.packs[split], entry.packs["train"]
    left, right = middles(len(test), LEFT), middles(len(test), RIGHT)
    most = entry.settings["test_images"] or len(test)
    queries = np.union1d(middles(len(test), most), right)
    if entry.arm == NET:
        near = search(net.features, train, test, queries, augment)
        probabilities = _probabilities(net, test, left, augment)
        top5 = {str(image): _top5(p) for image, p in zip(left, probabilities, strict=True)}
        return {
            "fc7": _share(train, test, queries, near),
            "top5": top5,
            "names": _names(test, (int(label) for best in top5.values() for label, _ in best)),
        }
    near = search(lambda view: view.flatten(1), train, test, queries, augment)
    rows = {"fc7": search(net.features, train, test, right, augment)}
    rows["pixels"] = near[np.searchsorted(queries, right)]
    shown = {"test": np.union1d(left, right), "train": np.unique([*rows.values()])}
    chance = np.bincount(train.labels, minlength=len(train.classes)) / len(train)
    packs, side = {"test": test, "train": train}, entry.settings["thumbnail"]
    return {
        "split": split,
        "test_images": len(queries),
        "train_images": len(train),
        "classes": len(test.classes),
        "nearest": NEAREST,
        "dimensions": {"fc7": int(net.table[-2].neurons), "pixels": 3 * augment.size**2},
        "pixels": _share(train, test, queries, near),
        # the share of the test image's class among all training images
        "by_chance": round(float(chance[test.labels[queries]].mean()), 5),
        "left": [{"image": int(image), "label": int(test.labels[image])} for image in left],
        "right": [
            {"image": int(image), "label": int(test.labels[image])}
            | {space: ids[i].tolist() for space, ids in rows.items()}
            for i, image in enumerate(right)
        ],
        "neighbors_of_seed": runs[0].config.seed,
        "train_labels": {str(image): int(train.labels[image]) for image in shown["train"]},
        "names": _names(test, [int(n) for part in shown for n in packs[part].labels[shown[part]]]),
        "thumbnails": {
            part: {str(image): thumbnail(pack, int(image), side) for image in shown[part]}
            for part, pack in packs.items()
        },
    }


def _share(train: Pack, test: Pack, queries: np.ndarray, near: np.ndarray) -> float:
    """Of the nearest training images `near` (Q, k) those that are of the test image's class."""
    same = train.labels[near] == test.labels[queries][:, None]
    return round(float(same.mean()), 5)


def _names(pack: Pack, labels: Iterable[int]) -> dict[str, str]:
    return {str(label): pack.names[label] for label in sorted(set(labels))}


def collect(records: list[Record]) -> Metrics:
    nets, pictures = by_seed(records, NET), dict(only(records, PICTURES))
    pixels, names = pictures.pop("pixels"), pictures.pop("names")
    for metrics in nets.values():
        names |= metrics["names"]
    return pictures | {
        # of the nearest six: the share that is of the test image's class
        "neighbors": {s: {"fc7": net["fc7"], "pixels": pixels} for s, net in nets.items()},
        "left": [
            shown | {"top5": {s: net["top5"][str(shown["image"])] for s, net in nets.items()}}
            for shown in pictures["left"]
        ],
        "names": dict(sorted(names.items(), key=lambda item: int(item[0]))),
    }


def middles(count: int, most: int) -> np.ndarray:
    """At most `most` of the numbers 0..count-1, evenly apart: the middles of as many equal
    parts.

    Args:
        count: Numbers there are.
        most: Numbers to take.
    """
    most = min(count, most)
    return (2 * np.arange(most) + 1) * count // (2 * most)


def nearest(queries: Tensor, pieces: Iterable[Tensor], k: int) -> Tensor:
    """Find the `k` nearest to each of `queries` (Q, d) among vectors that come in pieces (n, d).

    Memory holds Q times k distances and numbers, and one piece.

    Args:
        queries: (Q, d).
        pieces: Vectors, (n, d) each.
        k: 1 or more, no more than there are vectors.

    Returns:
        Their numbers, counted through all pieces, nearest first: int64 (Q, k).
    """
    distances, count = queries.new_empty(len(queries), 0), 0
    numbers = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for piece in pieces:
        # the square of the distance less that of the query, which ranks alike
        more = torch.addmm(piece.square().sum(1), queries, piece.T, alpha=-2)
        their = torch.arange(count, count + len(piece), device=queries.device)
        count += len(piece)
        together = torch.cat([distances, more], 1)
        distances, best = together.topk(min(k, together.shape[1]), largest=False, sorted=True)
        numbers = torch.cat([numbers, their.expand(len(queries), -1)], 1).gather(1, best)
    return numbers


@torch.no_grad()
def search(
    vectors: Callable[[Tensor], Tensor],
    train: Pack,
    test: Pack,
    queries: np.ndarray,
    augment: Augment,
) -> np.ndarray:
    """Find the nearest training images of some test images, in one pass over the training images.

    Memory holds the test images' vectors and one batch.

    Args:
        vectors: What is compared: vectors (n, d) of images as the nets see them, center crops
            minus the mean image.
        queries: Numbers of the test images, (Q,).

    Returns:
        The numbers of the training images, nearest first: int64 (Q, NEAREST).
    """

    def pieces(pack: Pack, numbers: Tensor, title: str) -> Iterator[Tensor]:
        parts = numbers.split(BATCH)
        images = Images(pack, devices()[0], resident=False).of(parts)
        shown = tqdm(images, f"figure4: {title}", len(parts), unit="batch", disable=None)
        yield from (vectors(next(iter(augment.views(batch)))) for batch in shown)

    of_test = torch.cat([*pieces(test, torch.from_numpy(queries), "test images")])
    of_train = pieces(train, torch.arange(len(train)), "training images")
    return nearest(of_test, of_train, NEAREST).cpu().numpy()


@torch.no_grad()
def _probabilities(net: AlexNet, pack: Pack, images: np.ndarray, augment: Augment) -> Tensor:
    """Of the classes, averaged over ten views: (len(images), classes)."""
    pixels = torch.from_numpy(pack.gather(images)).to(next(net.parameters()).device)
    views = list(augment.views(pixels, 10))
    return torch.stack([net(view).softmax(1) for view in views]).mean(0).cpu()


def _top5(probabilities: Tensor) -> list[list[float]]:
    """[class, probability], the most probable first."""
    best, classes = probabilities.topk(min(5, len(probabilities)))
    return [[int(label), round(float(p), 4)] for label, p in zip(classes, best, strict=True)]


def thumbnail(pack: Pack, number: int, side: int) -> str:
    """An image of a pack as a JPEG file of side x side, in base64: the figure can be drawn where
    the data is not.

    Args:
        pack: The images.
        number: Of the image in the pack.
        side: In pixels.
    """
    buffer = BytesIO()
    image = Image.fromarray(pack.gather([number])[0]).resize((side, side), Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=80, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


# --- drawing --------------------------------------------------------------------------------------


def table(result: Result) -> Table:
    """How many of the nearest training images are of a test image's class, in fc7 and in pixels,
    seed by seed."""
    metrics = result["metrics"]
    shares, spaces = metrics["neighbors"], metrics["dimensions"].items()
    rows = [
        [seed, *(f"{share[space]:.1%}" for space, _ in spaces)] for seed, share in shares.items()
    ]
    note = (
        f"{metrics['test_images']:,} test images, {metrics['train_images']:,} training "
        f"images; by chance {metrics['by_chance']:.1%}"
    )
    return Table(["seed", *(f"{space}, {size:,} numbers" for space, size in spaces)], rows, [note])


def plot(result: Result) -> Figure:
    """Both halves, one above the other."""
    figure = pyplot().figure(figsize=(9, 8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(4.4, 3.6))
    plot_left(result, figure=above)
    plot_right(result, figure=below)
    return figure


def plot_left(
    result: Result, seed: int | str | None = None, figure: Figure | None = None
) -> Figure:
    """Eight test images, the five classes that one seed's net (None: the first) holds most
    probable, and the correct one marked.

    Args:
        result: Of the experiment.
        seed: Of the net; None: the first.
        figure: To draw in; None: a new one.
    """
    figure = figure or pyplot().figure(figsize=(9, 4.4), layout="constrained")
    metrics, chosen = result["metrics"], str(result["seeds"][0] if seed is None else seed)
    across = -(-len(metrics["left"]) // 2)
    panels = figure.subplots(4, across, gridspec_kw={"height_ratios": (1.5, 1) * 2}, squeeze=False)
    for panel in panels.flat:
        panel.axis("off")
    longest = max(p for shown in metrics["left"] for _, p in shown["top5"][chosen])
    for i, shown in enumerate(metrics["left"]):
        above, below = panels[i // across * 2 : i // across * 2 + 2, i % across]
        above.imshow(_picture(metrics, "test", shown["image"]))
        above.set_title(_name(metrics, shown["label"]), fontsize=8, pad=3)
        for place, (label, p) in enumerate(shown["top5"][chosen]):
            correct = label == shown["label"]
            below.barh(-place, p, 0.85, color=RIGHT_COLOR if correct else WRONG_COLOR, alpha=0.75)
            words = ("▸ " if correct else "") + _name(metrics, int(label))
            below.text(-0.04 * longest, -place, words, va="center", ha="right", fontsize=8)
        # names on the left, bars on the right
        below.set(xlim=(-1.9 * longest, longest), ylim=(-4.6, 0.6))
    return figure


def plot_right(result: Result, figure: Figure | None = None) -> Figure:
    """Five test images, each with its six nearest training images in fc7's outputs, and its six
    nearest in pixels.

    Args:
        result: Of the experiment.
        figure: To draw in; None: a new one.
    """
    figure = figure or pyplot().figure(figsize=(9, 3.6), layout="constrained")
    metrics, count = result["metrics"], result["metrics"]["nearest"]
    widths = [1, 0.3, *[1] * count, 0.3, *[1] * count]  # the test image, and both sixes, apart
    grid = {"width_ratios": widths}
    panels = figure.subplots(len(metrics["right"]), len(widths), gridspec_kw=grid, squeeze=False)
    for panel in panels.flat:
        panel.set(xticks=[], yticks=[])
    for panel in panels[:, [1, 2 + count]].flat:
        panel.axis("off")
    for row, shown in zip(panels, metrics["right"], strict=True):
        row[0].imshow(_picture(metrics, "test", shown["image"]))
        name = _name(metrics, shown["label"])
        row[0].set_ylabel(name, fontsize=7, rotation=0, ha="right", va="center")
        for first, space in ((2, "fc7"), (3 + count, "pixels")):
            for panel, number in zip(row[first:], shown[space]):
                panel.imshow(_picture(metrics, "train", number))
                same = metrics["train_labels"][str(number)] == shown["label"]
                panel.spines[:].set(color=RIGHT_COLOR if same else "white", linewidth=2)
    panels[0, 0].set_title("test", fontsize=8)
    for place, space in ((2, "fc7's outputs"), (3 + count, "pixels")):
        panels[0, place].set_title(f"nearest in {space}", fontsize=8, loc="left")
    return figure


def _picture(metrics: Metrics, split: str, number: int) -> np.ndarray:
    with Image.open(BytesIO(base64.b64decode(metrics["thumbnails"][split][str(number)]))) as image:
        return np.asarray(image)


def _name(metrics: Metrics, label: int) -> str:
    """What people call a class, its first name where it has several."""
    return metrics["names"][str(label)].split(",")[0]
