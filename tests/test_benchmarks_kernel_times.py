"""The kernels of a step by their time."""

import argparse

import pytest

from benchmarks import kernel_times
from benchmarks.contestants import TINY


def test_the_longest_stand_last_and_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(kernel_times, "SHOWN", 2)
    times = {"a": 300.0, "b": 3.0, "c": 6000.0, "d": 30.0}
    rows = kernel_times.table(times, {"a": 3, "b": 6, "c": 9, "d": 3}, 3)
    shown = {row["implementation"]: row["median_ms"] for row in rows}
    assert list(shown) == ["3 x all others", "1 x a", "3 x c", "7 x all kernels"]
    assert list(shown.values()) == pytest.approx([0.011, 0.1, 2.0, 2.111])


def test_a_step_on_a_cpu():
    *parts, busy, step = kernel_times.kernel_times(TINY, argparse.Namespace(device="cpu"))
    assert step["implementation"] == "a step" and step["median_ms"] > 0
    assert any("convolution" in row["implementation"] for row in parts)
    assert sum(row["median_ms"] for row in parts) == pytest.approx(busy["median_ms"])
