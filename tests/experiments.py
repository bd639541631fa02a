"""What the tests of experiments share: a profile over packs that are there already, training in this process, a folder for runs."""

import warnings

import pytest

from alexnet import results, training
from alexnet.data.pack import open_splits
from alexnet.experiments import models
from alexnet.profiles import Profile


class Own(Profile):
    """A profile over packs that are there already."""

    def splits(self, part=None):
        return open_splits(self.settings["packs"])


def own(packs, **settings):
    return Own("own", {"title": "shapes", "source": "pictographs", "packs": packs} | settings)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(results, "ARCHIVE", tmp_path / "archive")
    return tmp_path / "runs"


def train_here(profile, planned, title="", starts=None):
    """`models.train_planned` in this process."""
    folders = [models.folder(profile, config) for config, _ in planned]
    for (config, splits), folder in zip(planned, folders, strict=True):
        used = {name: pack for name, pack in splits.items() if name in config.data}
        training.train(
            config,
            used,
            folder,
            start=(starts or {}).get(config.start),
            resume=True,
            progress=False,
        )
    return folders


@pytest.fixture
def serial(monkeypatch):
    """Trains in this process, which tests what is around it faster."""
    monkeypatch.setattr(models, "train_planned", train_here)


def drawn(plot, result):
    import matplotlib.pyplot as plt

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot(result)
        figure.canvas.draw()
    assert figure.axes and any(axes.lines or axes.images for axes in figure.axes)
    plt.close(figure)
