"""Errors and views, against hand-made cases."""

import pytest
import torch

from alexnet.evaluation import errors, top_k_error


def test_top_k_errors_by_hand():
    p = torch.tensor([[0.1, 0.2, 0.3, 0.05, 0.05, 0.3 - 1e-3, 1e-3]] * 3)
    labels = torch.tensor([2, 0, 6])  # ranks 1, 4, 7
    found = errors(p, labels)
    assert found.top1 == pytest.approx(2 / 3) and found.top5 == pytest.approx(1 / 3) and found.count == 3
    assert found.nll == pytest.approx(-(torch.tensor([0.3, 0.1, 1e-3]).log().mean()).item(), rel=1e-5)


def test_ties_count_in_part():
    p = torch.full((1, 10), 0.1)  # ten level classes, five places
    assert top_k_error(p, torch.tensor([3]), 5) == pytest.approx(0.5)
    assert top_k_error(p, torch.tensor([3]), 1) == pytest.approx(0.9)
    assert top_k_error(p, torch.tensor([3]), 10) == pytest.approx(0.0)
