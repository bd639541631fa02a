"""Figure 2 drawn from the network: the right numbers, arrows that cross where the table says so,
texts that keep clear of each other."""

from collections import Counter
from itertools import combinations

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from alexnet import AlexNet
from alexnet.experiments import figure2
from alexnet.presets import VARIANTS, crossings

NETS = [
    ("paper", {"width": 0.5}),
    ("source", {"width": 0.25, "num_classes": 20, "image_size": 64}),
    ("source/conv6", {"width": 0.25, "num_classes": 20}),
    ("paper/one-column", {"width": 0.25}),
    ("paper/no-overlap/no-lrn", {"width": 0.5}),
    ("paper/no-conv2/no-conv3/no-conv4", {"width": 0.5}),
    ("four-layer", {"num_classes": 10, "image_size": 32}),
    ("four-layer/tanh", {"num_classes": 10, "image_size": 64, "width": 0.5}),
]


@pytest.fixture(scope="module", params=NETS, ids=lambda net: net[0])
def drawn(request):
    torch.manual_seed(0)
    net = AlexNet(request.param[0], **request.param[1])
    figure = figure2.draw(net)
    yield net, figure
    plt.close(figure)


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def arrows(figure: Figure, kind: str) -> Counter:
    gids = [patch.get_gid() for patch in figure.axes[0].patches]
    return Counter(gid.split()[1] for gid in gids if gid and gid.startswith(kind))


def test_every_box_says_its_size_once_in_each_column(drawn):
    net, figure = drawn
    expected: Counter = Counter()
    for row in net.table:
        size = (
            f"{row.maps} maps\n{row.size} × {row.size}"
            if row.layer.kernel
            else f"{row.maps:,}\n{'classes' if row.is_last else 'units'}"
        )
        expected[size] += 1 if row.is_last else row.columns
    found = Counter(words(figure))
    assert {size: found[size] for size in expected} == expected
    assert {row.layer.name for row in net.table} <= set(found)


def test_arrows_cross_where_a_layer_reads_all_columns_and_nowhere_else(drawn):
    net, figure = drawn
    numbers = crossings(net.table)
    assert arrows(figure, "crossing") == dict.fromkeys(
        numbers, 2
    )  # from each column to the other, or into the sum
    assert Counter(word for word in words(figure) if "each way" in word) == Counter(
        f"{n:,}\neach way" for n in numbers.values()
    )
    inside = {
        row.layer.name: row.columns for row in net.table if not (row.is_last and row.columns > 1)
    }
    assert arrows(figure, "inside") == inside


def test_what_follows_the_sums_is_noted(drawn):
    net, figure = drawn
    notes = "\n".join(words(figure)).split("\n")
    kinds = [type(op).__name__ for row in net.table for op in row.layer.then]
    for kind, note in (
        ("LRN", "LRN"),
        ("Dropout", "dropout"),
        ("Pool", "max pooling"),
        ("SameMapNorm", "same-map"),
    ):
        assert notes.count(note) == kinds.count(kind)
    assert notes.count("tanh" if "tanh" in net.preset.name else "ReLU") == kinds.count("Activation")


def test_the_papers_numbers():
    figure = figure2.draw(AlexNet("paper"))
    found = words(figure)
    plt.close(figure)
    assert [word.split("\n")[0] for word in found if "each way" in word] == [
        "21,632",
        "4,608",
        "2,048",
        "1,000",
    ]
    assert {
        "48 maps\n55 × 55",
        "128 maps\n27 × 27",
        "192 maps\n13 × 13",
        "128 maps\n13 × 13",
    } <= set(found)
    assert {"11 × 11 × 3\nstride 4", "3 × 3 × 256", "reads\n9,216"} <= set(found)


def test_texts_keep_clear_of_each_other_and_inside_the_figure(drawn):
    _, figure = drawn
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = {text: text.get_window_extent(renderer) for text in figure.axes[0].texts}
    for (one, a), (two, b) in combinations(boxes.items(), 2):
        assert not a.overlaps(b), f"{one.get_text()!r} lies on {two.get_text()!r}"
    edge = figure.bbox
    for text, box in boxes.items():
        assert (
            edge.x0 <= box.x0 and box.x1 <= edge.x1 and edge.y0 <= box.y0 and box.y1 <= edge.y1
        ), f"{text.get_text()!r} is cut"


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_variant_can_be_drawn(variant):
    figure = figure2.draw(AlexNet(f"source/{variant}", 10, width=1 / 8, image_size=64))
    assert figure.axes[0].texts
    plt.close(figure)
