"""Figure 4 (section 6.1 of the paper): test images with the five most probable classes, and the training images that are nearest to test
images in fc7's outputs.

Nearness is Euclidean; of every test image, or of so many spread evenly, the six nearest training images are sought among all of them, in
fc7's outputs and, to compare, in pixels. Which images are drawn is nobody's choice: they too are spread evenly over the test set, which is
in the order of its classes.
"""

import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure, FigureBase
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from alexnet.data.augment import Augment
from alexnet.data.loader import Images
from alexnet.data.pack import Pack, held_out
from alexnet.experiments import models
from alexnet.network import AlexNet
from alexnet.profiles import Profile
from alexnet.tables import Table

LEFT, RIGHT, NEAREST = 8, 5, 6  # images of the two halves, and neighbors of each, as in the paper
BATCH = 250
RIGHT_COLOR, WRONG_COLOR = "#c2410c", "#5b7fb8"


def config(profile: Profile) -> dict[str, Any]:
    settings = profile["figure4"]
    digests = {name: pack.digest for name, pack in profile.splits().items()}
    net = {"net": profile.net, "base": profile["base"], "epochs": profile["epochs"]}
    return {"figure4": settings, **net, "shown": [LEFT, RIGHT, NEAREST], "data": digests}


def nets(profile: Profile, seeds: list[int]) -> list[models.Planned]:
    return [(models.base(profile, seed), profile.splits()) for seed in seeds]


def run(profile: Profile, seeds: list[int]) -> dict[str, Any]:
    settings, splits = profile["figure4"], profile.splits()
    train, split = splits["train"], held_out(splits, "Figure 4")
    test = splits[split]
    paths = models.train_all(
        profile, [models.base(profile, seed) for seed in seeds], title="figure4"
    )
    device = models.devices()[0]
    nets = {str(seed): models.trained(path) for seed, path in zip(seeds, paths, strict=True)}
    augment = nets[str(seeds[0])][1]  # the same for all: the mean image is the training set's
    # what is compared: vectors (n, d) of images as the nets see them, center crops minus the mean image
    spaces: dict[str, Callable[[Tensor], Tensor]] = {"pixels": lambda view: view.flatten(1)}
    spaces |= {seed: net.features for seed, (net, _) in nets.items()}

    left, right = spread(len(test), LEFT), spread(len(test), RIGHT)
    asked = np.union1d(spread(len(test), settings["test_images"] or len(test)), right)
    found = search(spaces, train, test, asked, augment, device)
    same = {name: train.labels[near] == test.labels[asked][:, None] for name, near in found.items()}
    probabilities = {
        seed: _probabilities(net, test, left, augment) for seed, (net, _) in nets.items()
    }
    first, rows = str(seeds[0]), np.searchsorted(asked, right)
    shown = np.unique(np.concatenate([left, right]))
    neighbors = np.unique(
        np.concatenate([found[space][rows].ravel() for space in (first, "pixels")])
    )
    return {
        "split": split,
        "test_images": len(asked),
        "train_images": len(train),
        "classes": len(test.classes),
        "nearest": NEAREST,
        "dimensions": {"fc7": int(nets[first][0].table[-2].neurons), "pixels": 3 * augment.size**2},
        # of the nearest six: the share that is of the test image's class; by chance, that of the class among all training images
        "neighbors": {
            seed: {
                "fc7": round(float(same[seed].mean()), 5),
                "pixels": round(float(same["pixels"].mean()), 5),
            }
            for seed in nets
        },
        "by_chance": round(
            float(
                (np.bincount(train.labels, minlength=len(train.classes)) / len(train))[
                    test.labels[asked]
                ].mean()
            ),
            5,
        ),
        "left": [
            {
                "image": int(image),
                "label": int(test.labels[image]),
                "top5": {seed: _top5(p[i]) for seed, p in probabilities.items()},
            }
            for i, image in enumerate(left)
        ],
        "right": [
            {"image": int(image), "label": int(test.labels[image])}
            | {
                name: found[space][row].tolist()
                for name, space in (("fc7", first), ("pixels", "pixels"))
            }
            for image, row in zip(right, rows, strict=True)
        ],
        "neighbors_of_seed": seeds[0],
        "train_labels": {str(image): int(train.labels[image]) for image in neighbors},
        "names": {
            str(label): test.names[label]
            for label in _labels(test, train, shown, neighbors, probabilities)
        },
        "thumbnails": {
            "test": {
                str(image): thumbnail(test, int(image), settings["thumbnail"]) for image in shown
            },
            "train": {
                str(image): thumbnail(train, int(image), settings["thumbnail"])
                for image in neighbors
            },
        },
    }


def spread(count: int, wanted: int) -> np.ndarray:
    """`wanted` of the numbers 0..count-1, evenly spaced: the middles of as many equal parts. All of them where there are no more."""
    wanted = min(count, wanted)
    return (2 * np.arange(wanted) + 1) * count // (2 * wanted)


class Nearest:
    """The `k` nearest to each of `queries` (Q, d) among vectors that come in pieces; kept are Q times k distances and numbers."""

    def __init__(self, queries: Tensor, k: int):
        self.queries, self.k, self.count = queries, k, 0
        self.distances = queries.new_empty(len(queries), 0)
        self.numbers = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)

    def add(self, vectors: Tensor) -> None:
        """The next vectors (n, d), numbered on from the last ones."""
        # the square of the distance less that of the query, which ranks alike
        distances = torch.addmm(vectors.square().sum(1), self.queries, vectors.T, alpha=-2)
        numbers = torch.arange(self.count, self.count + len(vectors), device=vectors.device).expand(
            len(self.queries), -1
        )
        self.count += len(vectors)
        together = torch.cat([self.distances, distances], 1)
        self.distances, kept = together.topk(
            min(self.k, together.shape[1]), largest=False, sorted=True
        )
        self.numbers = torch.cat([self.numbers, numbers], 1).gather(1, kept)


@torch.no_grad()
def search(
    spaces: dict[str, Callable[[Tensor], Tensor]],
    train: Pack,
    test: Pack,
    asked: np.ndarray,
    augment: Augment,
    device: str,
) -> dict[str, np.ndarray]:
    """In each space the numbers of the training images that are nearest to the test images `asked`: int64 (len(asked), NEAREST), nearest
    first. One pass over the training images serves all spaces; memory holds the test images' vectors and one batch."""

    def views(pack: Pack, numbers: Tensor, title: str):
        pieces = numbers.split(BATCH)
        for images in tqdm(
            Images(pack, device, resident=False).of(pieces),
            total=len(pieces),
            desc=title,
            unit="batch",
            disable=None,
        ):
            yield next(iter(augment.views(images)))

    queries: dict[str, list[Tensor]] = {name: [] for name in spaces}
    for view in views(test, torch.from_numpy(asked), "figure4: test images"):
        for name, vectors in spaces.items():
            queries[name].append(vectors(view))
    nearest = {name: Nearest(torch.cat(parts), NEAREST) for name, parts in queries.items()}
    for view in views(train, torch.arange(len(train)), "figure4: training images"):
        for name, vectors in spaces.items():
            nearest[name].add(vectors(view))
    return {name: found.numbers.cpu().numpy() for name, found in nearest.items()}


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


def _labels(
    test: Pack,
    train: Pack,
    shown: np.ndarray,
    neighbors: np.ndarray,
    probabilities: dict[str, Tensor],
) -> list[int]:
    """Of all classes that the figure names."""
    named = [torch.from_numpy(test.labels[shown]), torch.from_numpy(train.labels[neighbors])]
    named += [p.topk(min(5, p.shape[1])).indices.flatten() for p in probabilities.values()]
    return torch.cat([labels.long() for labels in named]).unique().tolist()


def thumbnail(pack: Pack, number: int, side: int) -> str:
    """An image of a pack as a JPEG file of side x side, in base64: the figure can be drawn where the data is not."""
    buffer = BytesIO()
    image = Image.fromarray(pack.gather([number])[0]).resize((side, side), Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=80, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


# --- drawing ------------------------------------------------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> Table:
    """How many of the nearest training images are of a test image's class, in fc7 and in pixels, seed by seed."""
    metrics = result["metrics"]
    size = metrics["dimensions"]
    rows = [
        [seed, f"{share['fc7']:.1%}", f"{share['pixels']:.1%}"]
        for seed, share in metrics["neighbors"].items()
    ]
    note = f"{metrics['test_images']:,} test images, {metrics['train_images']:,} training images; by chance {metrics['by_chance']:.1%}"
    return Table(
        ["seed", f"fc7, {size['fc7']:,} numbers", f"pixels, {size['pixels']:,} numbers"],
        rows,
        [note],
    )


def plot(result: dict[str, Any]) -> Figure:
    """Both halves, one above the other."""
    figure = plt.figure(figsize=(9, 8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(4.4, 3.6))
    _classified(above, result)
    _neighbors(below, result)
    return figure


def plot_left(result: dict[str, Any], seed: int | str | None = None) -> Figure:
    """Eight test images, the five classes that one seed's net (None: the first) holds most probable, and the correct one marked."""
    figure = plt.figure(figsize=(9, 4.4), layout="constrained")
    _classified(figure, result, seed)
    return figure


def plot_right(result: dict[str, Any]) -> Figure:
    """Five test images, each with its six nearest training images in fc7's outputs, and its six nearest in pixels."""
    figure = plt.figure(figsize=(9, 3.6), layout="constrained")
    _neighbors(figure, result)
    return figure


def _classified(figure: FigureBase, result: dict[str, Any], seed: int | str | None = None) -> None:
    metrics, chosen = result["metrics"], str(result["seeds"][0] if seed is None else seed)
    across = -(-len(metrics["left"]) // 2)
    panels = figure.subplots(4, across, gridspec_kw={"height_ratios": (1.5, 1) * 2}, squeeze=False)
    for panel in panels.flat:
        panel.axis("off")
    for i, shown in enumerate(metrics["left"]):
        above, below = panels[i // across * 2 : i // across * 2 + 2, i % across]
        above.imshow(_picture(metrics, "test", shown["image"]))
        above.set_title(_name(metrics, shown["label"]), fontsize=8, pad=3)
        for place, (label, p) in enumerate(shown["top5"][chosen]):
            correct = label == shown["label"]
            below.barh(-place, p, 0.85, color=RIGHT_COLOR if correct else WRONG_COLOR, alpha=0.75)
            below.text(
                0.02,
                -place,
                ("▸ " if correct else "") + _name(metrics, int(label)),
                va="center",
                fontsize=7,
            )
        below.set(xlim=(0, 1), ylim=(-4.6, 0.6))


def _neighbors(figure: FigureBase, result: dict[str, Any]) -> None:
    metrics, count = result["metrics"], result["metrics"]["nearest"]
    widths = [1, 0.3, *[1] * count, 0.3, *[1] * count]  # the test image, and both sixes, apart
    panels = figure.subplots(
        len(metrics["right"]), len(widths), gridspec_kw={"width_ratios": widths}, squeeze=False
    )
    for panel in panels.flat:
        panel.set(xticks=[], yticks=[])
    for panel in panels[:, [1, 2 + count]].flat:
        panel.axis("off")
    for row, shown in zip(panels, metrics["right"], strict=True):
        row[0].imshow(_picture(metrics, "test", shown["image"]))
        row[0].set_ylabel(
            _name(metrics, shown["label"]), fontsize=7, rotation=0, ha="right", va="center"
        )
        for first, space in ((2, "fc7"), (3 + count, "pixels")):
            for panel, number in zip(row[first:], shown[space]):
                panel.imshow(_picture(metrics, "train", number))
                same = metrics["train_labels"][str(number)] == shown["label"]
                panel.spines[:].set(color=RIGHT_COLOR if same else "white", linewidth=2)
    panels[0, 0].set_title("test", fontsize=8)
    panels[0, 2].set_title("nearest in fc7's outputs", fontsize=8, loc="left")
    panels[0, 3 + count].set_title("nearest in pixels", fontsize=8, loc="left")


def _picture(metrics: dict[str, Any], split: str, number: int) -> np.ndarray:
    with Image.open(BytesIO(base64.b64decode(metrics["thumbnails"][split][str(number)]))) as image:
        return np.asarray(image)


def _name(metrics: dict[str, Any], label: int) -> str:
    """What people call a class, its first name where it has several."""
    return metrics["names"][str(label)].split(",")[0]
