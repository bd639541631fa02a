"""Training, as section 5 of the paper states it: schedules, steps, checkpoints, logs.

The update rule itself is `alexnet_kernels.momentum_step_`.
"""

from alexnet.training.config import VERSION, Config
from alexnet.training.folder import check_usable, load_run, starting_point
from alexnet.training.interruption import Interrupted
from alexnet.training.run import train

__all__ = [
    "VERSION",
    "Config",
    "Interrupted",
    "check_usable",
    "load_run",
    "starting_point",
    "train",
]
