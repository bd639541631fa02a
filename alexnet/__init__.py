"""AlexNet, reproduced: the network, data, training and experiments of Krizhevsky, Sutskever and Hinton (2012)."""

from pathlib import Path

import kernels

if Path(kernels.__file__ or "").resolve().parent.parent != Path(__file__).resolve().parent.parent:
    raise ImportError(
        f"`kernels` is another package, at {kernels.__file__}; AlexNet needs its own, beside {Path(__file__).parent}: uninstall the other one (`pip uninstall kernels`)"
    )

from alexnet.network import AlexNet

__all__ = ["AlexNet"]
__version__ = "0.1.0"
