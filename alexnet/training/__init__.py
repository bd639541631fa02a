"""Training, as section 5 of the paper states it: schedules, steps, checkpoints, logs.

The update rule itself is `alexnet_kernels.momentum_step_`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alexnet.training.config import VERSION, Config
    from alexnet.training.folder import check_usable, load_run, starting_point
    from alexnet.training.interruption import Interrupted
    from alexnet.training.run import train

__all__ = ["VERSION", "Config", "Interrupted", "check_usable", "load_run"]
__all__ += ["starting_point", "train"]
_MODULES = {"VERSION": "config", "Config": "config", "Interrupted": "interruption", "train": "run"}


def __getattr__(name: str):
    """Import a name on first use: a schedule can be read without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'folder')}"), name)
