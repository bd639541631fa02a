"""What the tests of experiments share: a profile over packs that are there already, training in
this process."""

import json
import warnings
from concurrent.futures import Future

from alexnet.data.pack import open_splits
from alexnet.experiments import scheduler, store
from alexnet.profiles import Profile

TINY = {"image_size": 64, "width": 1 / 16, "batch_size": 12, "base": "paper/sigma-0.03"}


class Own(Profile):
    """A profile over packs that are there already."""

    def splits(self, part=None):
        return open_splits(self.settings["packs"])


def own(packs, **settings):
    return Own("own", {"title": "shapes", "source": "pictographs", "packs": packs} | settings)


def in_this_process(function, tasks, workers, begin=None, on_wait=None):
    """`as_they_end`, without processes."""
    for number, task in enumerate(tasks):
        future = Future()
        future.set_result(function(*task))
        yield number, future


def run(experiment, profile, seeds):
    """The collected metrics of all entries, trained and measured, as they come back from files."""
    entries = experiment.entries(profile, seeds)
    trained = scheduler.train(profile, [job for entry in entries for job in entry.jobs])
    records = []
    for entry in entries:
        metrics = experiment.measure(entry, [trained[job.key] for job in entry.jobs])
        records.append(store.record(experiment, profile, entry, metrics, {}))
    return experiment.collect(json.loads(json.dumps(records, allow_nan=False)))


def configs(profile):
    """The config of every model that is there."""
    paths = (profile.runs / "models").glob("*/config.json")
    return [json.loads(path.read_text()) for path in paths]


def drawn(plot, result):
    import matplotlib.pyplot as plt

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot(result)
        figure.canvas.draw()
    assert figure.axes and any(axes.lines or axes.images or axes.patches for axes in figure.axes)
    plt.close(figure)
