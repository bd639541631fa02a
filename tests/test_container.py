"""What control groups leave to a process: their files as the kernel writes them."""

import math

import pytest

from alexnet import container
from alexnet.processes import cores
from alexnet.training import Config, config
from alexnet.training.ranks import Ranks


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A machine whose files a test writes: groups(own groups, {file: content})."""

    def write(own, files):
        (tmp_path / "own").write_text(own)
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)

    monkeypatch.setattr(container, "GROUPS", tmp_path)
    monkeypatch.setattr(container, "OWN", tmp_path / "own")
    return write


V1 = "5:cpu,cpuacct:/docker/a\n3:memory:/docker/a\n"


@pytest.mark.parametrize(
    ("own", "files", "count"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        ("0::/../../a\n", {"cpu.max": "200000 100000\n"}, 2),
        (
            V1,
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            V1,
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
        ("0::/\n", {"cpu.max": "damaged"}, math.inf),
        ("0::/\n", {}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_cores_are_those_of_the_narrowest_group(groups, own, files, count):
    groups(own, files)
    assert container.cores() == count


def test_workers_are_as_many_as_the_container_has_cores(groups, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    for limit, count in (("250000", 2), ("20000", 1), ("max", 8), ("9900000", 8)):
        groups("0::/\n", {"cpu.max": f"{limit} 100000\n"})
        assert cores() == count


@pytest.mark.parametrize(
    ("own", "file"),
    [("0::/a\n", "a/memory.max"), (V1, "memory/docker/a/memory.limit_in_bytes")],
)
def test_memory_is_the_containers(groups, own, file):
    groups(own, {})
    whole = container.memory()
    groups(own, {file: "1048576\n"})
    assert container.memory() == 2**20 < whole
    groups(own, {file: "9223372036854771712\n"})  # version 1's "max"
    assert container.memory() == whole


def test_a_net_beyond_the_containers_memory_is_refused(groups, splits):
    groups("0::/\n", {"memory.max": str(2**24)})
    pack = splits["train"]
    settings = {"preset": "four-layer", "num_classes": 3, "image_size": 64, "epochs": 1.0}
    large = Config(**settings, width=32.0, data={"train": pack.digest})
    with pytest.raises(ValueError, match="GiB of memory, of 0; choose a smaller width"):
        config.check_possible(large, splits, Ranks())
