"""Figures of notebooks are drawings, the same bytes each time."""

import subprocess
import sys

import pytest

pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")

DRAW = """
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.pylabtools import print_figure
from alexnet import plots

InteractiveShell.instance()
plots.vector()
import matplotlib.pyplot as plt

figure, axes = plt.subplots()
axes.plot([0, 1], label="a line")
axes.legend()
print(print_figure(figure, "svg", metadata={"Date": None}))
"""


def test_a_drawing_has_its_text_as_text_and_the_same_bytes_each_time():
    drawn = [
        subprocess.run(
            [sys.executable, "-c", DRAW], capture_output=True, text=True, check=True, timeout=120
        ).stdout
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1] and "<svg" in drawn[0]
    assert ">a line</text>" in drawn[0]
