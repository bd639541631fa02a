"""Tiny packs that several files share, and the order of files.

Tests marked `gpu` are skipped where there is no CUDA device.
"""

import os
import signal

import pytest
import torch

# A shell starts background jobs with SIGINT ignored, which children inherit; tests that interrupt a
# child mean the usual state.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Without a device the Triton kernels run under Triton's interpreter, which must be told before they
# are imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


# The files that take longest, which `make test` begins with: it gives each of two processes a file
# at a time, and a long one at the end would leave the other without work.
FIRST = (
    *("test_survival.py", "test_types.py", "test_running_notebooks.py", "test_adding_a_layer.py"),
    *("test_benchmarks_data.py", "test_adding_an_operator.py", "test_benchmarks_step.py"),
    *("test_ranks.py", "test_refresh.py", "test_any_shape.py", "more-devices.ipynb"),
    *("test_choose.py", "test_operators.py", "test_installation.py", "test_sources.py"),
    *("test_devices.py", "test_adding_an_arm.py", "test_learner.py", "test_table1.py"),
    *("test_native.py", "test_steps.py", "test_partial.py", "test_prepare.py", "test_hostile.py"),
    *("test_scheduler.py", "test_baselines.py", "test_cli.py", "test_benchmarks_reach.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _packs(folder, classes, train, size):
    from alexnet.data import pictographs
    from alexnet.data.prepare import prepare

    pictographs.write(
        folder / "images", classes=classes, train=train, val=2, test=2, size=size, workers=1
    )
    return prepare(folder / "images", folder / "packs", size=size, workers=1)


@pytest.fixture(scope="session")
def packs32(tmp_path_factory):
    """A folder of packs: 4 classes, 40 + 8 + 8 images of 32 pixels, for the four-layer net.

    Beside it, in images/, lies what it was made from.
    """
    return _packs(tmp_path_factory.mktemp("packs32"), 4, 10, 32)


@pytest.fixture(scope="session")
def packs72(tmp_path_factory):
    """The same at 72 pixels, 36 + 6 + 6 images of 3 classes, for narrow AlexNets on crops of 64."""
    return _packs(tmp_path_factory.mktemp("packs72"), 3, 12, 72)


@pytest.fixture(scope="session")
def splits32(packs32):
    from alexnet.data.pack import open_splits

    return open_splits(packs32)


@pytest.fixture(scope="session")
def splits(packs72):
    from alexnet.data.pack import open_splits

    return open_splits(packs72)


@pytest.fixture(scope="session")
def straight(splits, tmp_path_factory):
    """A run of 15 steps, 5 an epoch, that nothing disturbed; to be read, or copied."""
    from alexnet.training import train
    from tests.runs import configure

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("straight") / "run"
    train(configure(splits), splits, out, progress=False)
    torch.set_num_threads(threads)
    return out


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder for models that tests of experiments share."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def one_thread():
    """Bits are promised for one number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- experiments --------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Folders for runs and archive of this test alone."""
    from alexnet import results

    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(results, "ARCHIVE", tmp_path / "archive")
    return tmp_path / "runs"


@pytest.fixture
def shared_runs(runs, trained, monkeypatch):
    """Runs that tests share: none trains what another has trained."""
    monkeypatch.setenv("ALEXNET_RUNS", str(trained))
    return trained


@pytest.fixture
def serial(monkeypatch):
    """Trains in this process, which tests what is around it faster."""
    from alexnet.experiments import scheduler
    from tests.experiments import in_this_process

    monkeypatch.setattr(scheduler, "as_they_end", in_this_process)
