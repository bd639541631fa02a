"""Figure 4 (section 6.1 of the paper): test images with the five most probable classes, and the
training images that are nearest to test images in fc7's outputs.

    alexnet reproduce --only figure4 --seeds 5

Nearness is Euclidean; of every test image, or of so many evenly apart, the six nearest training
images are sought among all of them, in fc7's outputs and, to compare, in pixels. Which images are
drawn is nobody's choice: they too are evenly apart in the test set, which is in the order of its
classes. The neighbors that are drawn are those of the first seed's net.
"""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from alexnet.experiments.jobs import Run, base_job, devices
from alexnet.experiments.protocol import Entry, by_seed, only
from alexnet.network import AlexNet
from alexnet.profiles import Profile
from alexnet.results import Record
from alexnet.tables import Table

NAME = "figure4"
VERSION = 1
NET, PICTURES = "full", "pictures"  # arms: of each seed's net; what is drawn, of the first one's
LEFT, RIGHT, NEAREST = 8, 5, 6  # images of the two halves, and neighbors of each, as in the paper
BATCH = 250
RIGHT_COLOR, WRONG_COLOR = "#c2410c", "#5b7fb8"


def settings(profile: Profile) -> dict[str, Any]:
    return {"test_images": profile[NAME]["test_images"], "shown": [LEFT, RIGHT, NEAREST]}


def entries(profile: Profile, seeds: Sequence[int]) -> list[Entry]:
    own, packs = settings(profile), profile.splits()
    made = [
        Entry(NET, seed, packs, (base_job(profile, seed),), own, tuple(seeds)) for seed in seeds
    ]
    own = own | {"thumbnail": profile[NAME]["thumbnail"]}
    return [*made, Entry(PICTURES, None, packs, (base_job(profile, seeds[0]),), own, tuple(seeds))]


def measure(entry: Entry, runs: Sequence[Run]) -> dict[str, Any]:
    net, augment = runs[0].net()
    split = held_out(entry.packs, "Figure 4")
    test, train = entry.packs[split], entry.packs["train"]
    left, right = middles(len(test), LEFT), middles(len(test), RIGHT)
    most = entry.settings["test_images"] or len(test)
    queries = np.union1d(middles(len(test), most), right)
    if entry.arm == NET:
        near = search({"fc7": net.features}, train, test, queries, augment)["fc7"]
        probabilities = _probabilities(net, test, left, augment)
        top5 = {str(image): _top5(p) for image, p in zip(left, probabilities, strict=True)}
        return {
            "fc7": _share(train, test, queries, near),
            "top5": top5,
            "names": _names(test, (int(label) for best in top5.values() for label, _ in best)),
        }
    pixels = {"pixels": lambda view: view.flatten(1)}
    near = search(pixels, train, test, queries, augment)["pixels"]
    rows = {"fc7": search({"fc7": net.features}, train, test, right, augment)["fc7"]}
    rows["pixels"] = near[np.searchsorted(queries, right)]
    shown = np.unique(np.concatenate([left, right]))
    neighbors = np.unique(np.concatenate([ids.ravel() for ids in rows.values()]))
    chance = np.bincount(train.labels, minlength=len(train.classes)) / len(train)
    side = entry.settings["thumbnail"]
    labels = [*test.labels[shown].tolist(), *train.labels[neighbors].tolist()]
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
        "train_labels": {str(image): int(train.labels[image]) for image in neighbors},
        "names": _names(test, labels),
        "thumbnails": {
            "test": {str(image): thumbnail(test, int(image), side) for image in shown},
            "train": {str(image): thumbnail(train, int(image), side) for image in neighbors},
        },
    }


def _share(train: Pack, test: Pack, queries: np.ndarray, near: np.ndarray) -> float:
    """Of the nearest training images `near` (Q, k) those that are of the test image's class."""
    same = train.labels[near] == test.labels[queries][:, None]
    return round(float(same.mean()), 5)


def _names(pack: Pack, labels: Iterable[int]) -> dict[str, str]:
    return {str(label): pack.names[label] for label in sorted(set(labels))}


def collect(records: Sequence[Record]) -> dict[str, Any]:
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
    parts."""
    most = min(count, most)
    return (2 * np.arange(most) + 1) * count // (2 * most)


class Nearest:
    """The `k` nearest to each of `queries` (Q, d) among vectors that come in pieces; kept are Q
    times k distances and numbers."""

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
    spaces: Mapping[str, Callable[[Tensor], Tensor]],
    train: Pack,
    test: Pack,
    queries: np.ndarray,
    augment: Augment,
) -> dict[str, np.ndarray]:
    """Find the nearest training images of some test images, in one pass over the training images.

    Memory holds the test images' vectors and one batch.

    Args:
        spaces: What is compared: vectors (n, d) of images as the nets see them, center crops
            minus the mean image.
        queries: Numbers of the test images, (Q,).

    Returns:
        For each space the numbers of the training images, nearest first: int64 (Q, NEAREST).
    """
    device = devices()[0]

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

    parts: dict[str, list[Tensor]] = {name: [] for name in spaces}
    for view in views(test, torch.from_numpy(queries), "figure4: test images"):
        for name, vectors in spaces.items():
            parts[name].append(vectors(view))
    nearest = {name: Nearest(torch.cat(own), NEAREST) for name, own in parts.items()}
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


def thumbnail(pack: Pack, number: int, side: int) -> str:
    """An image of a pack as a JPEG file of side x side, in base64: the figure can be drawn where
    the data is not."""
    buffer = BytesIO()
    image = Image.fromarray(pack.gather([number])[0]).resize((side, side), Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=80, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


# --- drawing --------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> Table:
    """How many of the nearest training images are of a test image's class, in fc7 and in pixels,
    seed by seed."""
    metrics = result["metrics"]
    size = metrics["dimensions"]
    rows = [
        [seed, f"{share['fc7']:.1%}", f"{share['pixels']:.1%}"]
        for seed, share in metrics["neighbors"].items()
    ]
    note = (
        f"{metrics['test_images']:,} test images, {metrics['train_images']:,} training images; "
        f"by chance {metrics['by_chance']:.1%}"
    )
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
    """Eight test images, the five classes that one seed's net (None: the first) holds most
    probable, and the correct one marked."""
    figure = plt.figure(figsize=(9, 4.4), layout="constrained")
    _classified(figure, result, seed)
    return figure


def plot_right(result: dict[str, Any]) -> Figure:
    """Five test images, each with its six nearest training images in fc7's outputs, and its six
    nearest in pixels."""
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
