"""AlexNet, reproduced: the network, data, training and experiments of Krizhevsky, Sutskever and Hinton (2012)."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alexnet.network import AlexNet

__all__ = ["AlexNet"]
__version__ = "0.1.0"

# An unrelated package on PyPI has our operators' name.
_found = find_spec("kernels")
if _found is None or Path(_found.origin or "").resolve().parent.parent != Path(__file__).resolve().parent.parent:
    _remedy = "uninstall it (`pip uninstall kernels`)"
    where = f"another package at {_found.origin}: {_remedy}" if _found else "missing: install this repository again"
    raise ImportError(f"AlexNet needs its own package `kernels`, beside {Path(__file__).parent}; the one found is {where}")


def __getattr__(name: str):
    """`AlexNet` on first use: processes that only prepare images need not import torch."""
    if name == "AlexNet":
        from alexnet.network import AlexNet

        return AlexNet
    raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
