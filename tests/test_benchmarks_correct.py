"""What a GPU is checked for before it is timed: right results pass, and wrong ones are seen."""

import math
from dataclasses import replace

import pytest
import torch

from alexnet.training.learner import Learner
from alexnet_kernels import _choose
from benchmarks import correct
from benchmarks.contestants import TINY
from kernel_benchmarks import record


def test_operators(tmp_path, capsys):
    path = tmp_path / "correct.csv"
    words = ["operators", "--tiny", "--device", "cpu", "--out", str(path), "--commit", "abc"]
    assert correct.main(words) == 0
    rows = record.read(path, correct.COLUMNS)
    names = {row["case"].split()[0] for row in rows}
    assert names == set(correct.operators.OPERATORS)
    assert all(row["error"] <= row["target"] and row["commit"] == "abc" for row in rows)
    assert f"{len(rows)} of {len(rows)} checked, 0 wrong" in capsys.readouterr().out


@pytest.mark.parametrize("error", [1.0, math.nan])
def test_a_wrong_operator_is_seen(error, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(correct, "checked", lambda entry: error)
    words = ["operators", "--tiny", "--device", "cpu", "--out", str(tmp_path / "correct.csv")]
    assert correct.main(words) == 1
    assert "WRONG" in capsys.readouterr().out


def test_gradients_beside_float64():
    assert 0 < correct.gradients_off(TINY, "cpu") < correct.NET
    half = replace(TINY, precision="bf16")
    assert 0 < correct.gradients_off(half, "cpu") < correct.NET


def test_a_gradient_that_is_off_is_seen(monkeypatch):
    backward = Learner.backward

    def wrong(self, *given):
        result = backward(self, *given)
        if self.dtype == torch.float32 and _choose.mode() != "composite":
            self.parameters["columns.1.conv3.weight"].grad.mul_(1.01)
        return result

    monkeypatch.setattr(Learner, "backward", wrong)
    floor = correct.FLOOR["fp32"]
    assert correct.gradients_off(TINY, "cpu") == pytest.approx(0.01 / floor, rel=0.1)


def test_a_graph_does_as_eager_steps_do():
    assert correct.updates_off(TINY, "cpu", "graph") < correct.WAYS


def test_a_step_that_is_left_out_is_seen(monkeypatch):
    send, steps = correct.GraphStep.send, []

    def forgets(self, batch):
        steps.append(batch)
        rates = [0.0] * len(batch.rates) if len(steps) == correct.STEPS else batch.rates
        return send(self, batch._replace(rates=rates))

    monkeypatch.setattr(correct.GraphStep, "send", forgets)
    assert correct.updates_off(TINY, "cpu", "graph") > 100 * correct.WAYS
