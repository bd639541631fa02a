"""Figure 4: nearest neighbors in pieces against all at once, and what is stored of a trained
net."""

import base64
import json
from io import BytesIO

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from alexnet import evaluation, training
from alexnet.data.pack import open_splits
from alexnet.experiments import figure4, jobs
from tests.experiments import drawn, own, run

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("one_thread", "shared_runs", "serial")


@pytest.mark.parametrize("pieces", [(40,), (7, 7, 7, 7, 7, 5), (1, 39), (3, 2, 35)])
def test_neighbors_found_in_pieces_are_those_of_all_at_once(pieces):
    generator = np.random.default_rng(0)
    queries, vectors = generator.normal(size=(9, 5)), generator.normal(size=(40, 5)) * 3
    nearest = figure4.Nearest(torch.from_numpy(queries), 6)
    for piece in torch.from_numpy(vectors).split(pieces):
        nearest.add(piece)
    distances = ((queries[:, None] - vectors[None]) ** 2).sum(-1)
    assert nearest.numbers.tolist() == np.argsort(distances, axis=1)[:, :6].tolist()
    assert nearest.numbers.shape == nearest.distances.shape == (9, 6)


def test_fewer_vectors_than_neighbors_are_all_there():
    nearest = figure4.Nearest(torch.zeros(2, 3), 6)
    nearest.add(torch.tensor([[3.0, 0, 0], [1.0, 0, 0]]))
    nearest.add(torch.tensor([[2.0, 0, 0]]))
    assert nearest.numbers.tolist() == [[1, 2, 0]] * 2


def test_images_are_spread_evenly():
    assert figure4.middles(2000, 8).tolist() == [125, 375, 625, 875, 1125, 1375, 1625, 1875]
    assert figure4.middles(5, 5).tolist() == figure4.middles(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert figure4.middles(150_000, 5).tolist() == [15_000, 45_000, 75_000, 105_000, 135_000]


@pytest.fixture
def made(packs72):
    settings = {
        "image_size": 64,
        "width": 1 / 8,
        "batch_size": 12,
        "base": "paper/sigma-0.03",
        "epochs": 1,
    }
    profile = own(packs72, figure4={"test_images": None, "thumbnail": 24}, **settings)
    return profile, {"metrics": run(figure4, profile, [2, 0]), "seeds": [2, 0]}


def test_figure4_finds_and_stores_what_it_draws(packs72, made):
    profile, result = made
    metrics = result["metrics"]
    packs = open_splits(packs72)
    train, test = packs["train"], packs["test"]
    assert (metrics["test_images"], metrics["train_images"], metrics["dimensions"]) == (
        6,
        36,
        {"fc7": 512, "pixels": 12288},
    )
    assert list(metrics["neighbors"]) == ["2", "0"] and metrics["by_chance"] == pytest.approx(
        1 / 3, abs=1e-5
    )

    net, augment, _ = training.load_run(jobs.base_job(profile, 2).folder(profile))
    with torch.no_grad():
        views = {
            name: next(iter(augment.views(torch.from_numpy(p.gather(range(len(p)))))))
            for name, p in packs.items()
        }
        for space, vectors in (("pixels", lambda view: view.flatten(1)), ("fc7", net.features)):
            distances = torch.cdist(
                vectors(views["test"]).double(), vectors(views["train"]).double()
            )
            near = distances.argsort(1)[:, :6].numpy()
            share = float((train.labels[near] == test.labels[:, None]).mean())
            assert metrics["neighbors"]["2"][space] == pytest.approx(share, abs=1e-5), space
            assert [shown[space] for shown in metrics["right"]] == near[
                [shown["image"] for shown in metrics["right"]]
            ].tolist()
    assert metrics["neighbors"]["2"]["pixels"] == metrics["neighbors"]["0"]["pixels"]

    assert [shown["image"] for shown in metrics["left"]] == [0, 1, 2, 3, 4, 5]
    probabilities, _ = evaluation.predict(net, test, augment, views=10)
    for shown in metrics["left"]:
        found = shown["top5"]["2"]
        assert len(found) == 3 and shown["label"] == test.labels[shown["image"]]
        assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)
        assert sum(p for _, p in found) == pytest.approx(1, abs=1e-3)
        for label, p in found:
            assert p == pytest.approx(float(probabilities[shown["image"], label]), abs=1e-4)
    assert metrics["names"] == {str(i): name for i, name in enumerate(test.names)}
    number = metrics["right"][0]["fc7"][0]
    with Image.open(
        BytesIO(base64.b64decode(metrics["thumbnails"]["train"][str(number)]))
    ) as image:
        assert image.size == (24, 24)
        small = Image.fromarray(train.gather([number])[0]).resize((24, 24))
        assert np.abs(np.asarray(image).astype(float) - np.asarray(small)).mean() < 20
    assert metrics["train_labels"][str(number)] == train.labels[number]


def test_figure4_is_drawn_without_the_data(made):
    _, result = made
    for plot in (
        figure4.plot,
        figure4.plot_left,
        figure4.plot_right,
        lambda result: figure4.plot_left(result, seed=0),
    ):
        drawn(plot, json.loads(json.dumps(result)))


def test_a_part_of_the_test_images_is_spread_and_holds_those_drawn(packs72):
    settings = {
        "image_size": 64,
        "width": 1 / 8,
        "batch_size": 12,
        "base": "paper/sigma-0.03",
        "epochs": 1,
    }
    metrics = run(
        figure4, own(packs72, figure4={"test_images": 1, "thumbnail": 8}, **settings), [0]
    )
    assert metrics["test_images"] == 5 and [shown["image"] for shown in metrics["right"]] == [
        0,
        1,
        3,
        4,
        5,
    ]
