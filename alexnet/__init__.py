"""AlexNet, reproduced: the network, data, training and experiments of Krizhevsky, Sutskever and
Hinton (2012)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alexnet.diagnosis import diagnose
    from alexnet.network import AlexNet

__all__ = ["AlexNet", "diagnose"]
__version__ = "0.1.0"


def __getattr__(name: str):
    """A name on first use: processes that only prepare images need not import torch."""
    if name == "AlexNet":
        from alexnet.network import AlexNet

        return AlexNet
    if name == "diagnose":
        from alexnet.diagnosis import diagnose

        return diagnose
    raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
