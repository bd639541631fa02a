"""Errors and views, against hand-made cases."""

import numpy as np
import pytest
import torch

from alexnet import AlexNet
from alexnet.data.augment import Augment
from alexnet.data.pack import open_splits
from alexnet.evaluation import errors, evaluate, hits, predict
from alexnet.presets import get


def top_k_error(probabilities, labels, k):
    return 1 - float(hits(probabilities, labels, k).mean())


def test_top_k_errors_by_hand():
    p = torch.tensor([[0.1, 0.2, 0.3, 0.05, 0.05, 0.3 - 1e-3, 1e-3]] * 3)
    labels = torch.tensor([2, 0, 6])  # ranks 1, 4, 7
    found = errors(p, labels)
    assert (
        found.top1 == pytest.approx(2 / 3)
        and found.top5 == pytest.approx(1 / 3)
        and found.count == 3
    )
    assert found.nll == pytest.approx(
        -(torch.tensor([0.3, 0.1, 1e-3]).log().mean()).item(), rel=1e-5
    )


def test_hits_are_told_image_by_image():
    p = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.4, 0.4], [torch.nan] * 3])
    assert hits(p, torch.tensor([0, 2, 1]), 1).tolist() == [1.0, 0.5, 0.0]
    assert (
        hits(p, torch.tensor([2, 0, 1]), 2).tolist() == [0.0, 0.0, 0.0]
        and hits(p, torch.tensor([2, 0, 1]), 1).dtype == torch.float64
    )


def test_ties_count_in_part():
    p = torch.full((1, 10), 0.1)  # ten level classes, five places
    assert top_k_error(p, torch.tensor([3]), 5) == pytest.approx(0.5)
    assert top_k_error(p, torch.tensor([3]), 1) == pytest.approx(0.9)
    assert top_k_error(p, torch.tensor([3]), 10) == pytest.approx(0.0)


def test_no_number_is_an_error():
    p = torch.tensor([[torch.nan, torch.nan, torch.nan], [0.2, 0.5, 0.3]])
    assert (
        top_k_error(p, torch.tensor([0, 1]), 1)
        == top_k_error(p, torch.tensor([0, 1]), 5)
        == pytest.approx(0.5)
    )


@pytest.mark.parametrize("preset", ["paper", "source"])
def test_ten_views_are_averaged_after_the_softmax(packs72, preset):
    """Against views that are cut here, by slices."""
    splits = open_splits(packs72)
    pack, mean = splits["train"], splits["train"].mean
    torch.manual_seed(0)
    net = AlexNet(preset, 3, 1 / 8, 64)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)  # away from equal outputs
    # these weights make logits large: it would show where a smaller batch is added in another order
    net.double()
    augment = Augment(get(preset).recipe, mean, 64)
    images = pack.gather(range(len(pack))).astype(np.float32)
    views = []
    for top, left in ((0, 0), (0, 8), (8, 0), (8, 8), (4, 4)):
        average = mean[top : top + 64, left : left + 64] if preset == "paper" else mean[4:68, 4:68]
        view = images[:, top : top + 64, left : left + 64] - average
        views += [view, view[:, :, ::-1]]
    net.eval()
    with torch.no_grad():
        outputs = [
            net(torch.from_numpy(view.transpose(0, 3, 1, 2).copy()).double()).softmax(1)
            for view in views
        ]
    net.train()
    ten, labels = predict(net, pack, augment, views=10, batch_size=7)
    one, _ = predict(net, pack, augment)
    assert net.training
    assert labels.tolist() == pack.labels.tolist()
    torch.testing.assert_close(ten, torch.stack(outputs).mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one, outputs[8], rtol=1e-5, atol=1e-6)
    assert (one - ten).abs().max() > 1e-3
    found = evaluate(net, pack, augment, views=10)
    assert found == errors(*predict(net, pack, augment, 10)) and found.count == 36
    some, few = predict(net, pack, augment, batch_size=4, shard=(1, 3))
    assert len(some) == len(few) == 12
    torch.testing.assert_close(some, one[12:24], rtol=1e-5, atol=1e-6)
