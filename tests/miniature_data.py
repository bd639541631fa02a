"""ImageNet's archives in miniature, and the profile that reads them."""

import os
from pathlib import Path

from alexnet.data import pictographs
from tests import archives

HERE = Path(__file__).parent
CLASSES, MORE = 8, 2  # of the larger set, and how many of them are no part of the task


def make(root: Path) -> Path:
    """Write archives as they are distributed, and the profile "miniature"."""
    pictographs.write(root / "tree", classes=CLASSES, train=10, val=4, test=2, size=80, workers=1)
    (root / "data").mkdir()
    fall2011 = root / "data" / "fall11_whole.tar"
    archives.ilsvrc2012_of(root / "tree", root / "data" / "ilsvrc2012", fall2011, MORE)
    (root / "profiles").mkdir()
    (root / "profiles" / "miniature.yml").write_text((HERE / "miniature.yml").read_text())
    return root


def environment(place: Path, repository: Path = HERE.parent) -> dict[str, str]:
    """What a command needs to find them, and that repository's code, on one thread a process."""
    own = {
        "ALEXNET_DATA": place / "data",
        "ALEXNET_PROFILES": place / "profiles",
        "ALEXNET_RUNS": place / "runs",
        "PYTHONPATH": os.pathsep.join([str(repository), str(repository / "kernels")]),
    }
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return os.environ | threads | {name: str(value) for name, value in own.items()}
