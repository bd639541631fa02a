"""The environment of the kernels that run notebooks, the same whatever the user has set."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ADVICE = ("Deprecation", "PendingDeprecation", "Future")  # warnings to authors


@contextmanager
def kernel_environment(root: Path, threads: int | None = None) -> Iterator[None]:
    """Set what the notebooks' kernels inherit meanwhile.

    That is this interpreter's kernel, before any other that is installed for the user; this very
    package; figures inside the notebook, in matplotlib's own style, whatever the user has set; no
    IPython profile of the user's, and no advice to authors of other packages; and, where `threads`
    is given, that many threads, so that sums of floats come out the same on every machine.

    Args:
        root: The repository, whose packages kernels import.
        threads: Of each kernel; None: as many as it takes.
    """
    before, ipython = dict(os.environ), root / "_build" / "ipython"
    with suppress(OSError):  # or IPython takes a temporary one
        ipython.mkdir(parents=True, exist_ok=True)

    def prepend(name: str, *folders: Path) -> str:
        return os.pathsep.join([*map(str, folders), *filter(None, [before.get(name)])])

    changes = {
        "JUPYTER_PATH": prepend("JUPYTER_PATH", Path(sys.prefix) / "share" / "jupyter"),
        "PYTHONPATH": prepend("PYTHONPATH", root, root / "kernels"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "IPYTHONDIR": str(ipython),
        "PYTHONWARNINGS": ",".join(f"ignore::{kind}Warning" for kind in ADVICE),
    }
    if (spec := importlib.util.find_spec("matplotlib")) and spec.origin:
        changes["MATPLOTLIBRC"] = str(Path(spec.origin).parent / "mpl-data" / "matplotlibrc")
    if threads:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        changes |= dict.fromkeys(names, str(threads)) | {"PYTHONHASHSEED": "0"}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in changes:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in changes if name in before})
