"""AlexNet, reproduced: the network, data, training and experiments of Krizhevsky, Sutskever and
Hinton (2012).

    from alexnet import AlexNet, predict

    net = AlexNet("paper", num_classes=1000)        # a torch.nn.Module; print(net) shows its layers
    classify = AlexNet.from_run("run")              # a trained net, its preprocessing, its classes
    predict("run", "cat.jpg").top()                 # the five most probable classes

`alexnet.presets` holds the nets as tables, `alexnet.data` prepares images, `alexnet.training`
trains, `alexnet.evaluation` measures; `alexnet --help` lists the commands.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alexnet.classifier import Classifier, predict
    from alexnet.diagnosis import diagnose
    from alexnet.network import AlexNet

__all__ = ["AlexNet", "Classifier", "diagnose", "predict"]
__version__ = "0.1.0"
_MODULES = {"AlexNet": "network", "Classifier": "classifier", "predict": "classifier"}
_MODULES["diagnose"] = "diagnosis"


def __getattr__(name: str):
    """Import a name on first use: processes that only prepare images need not import torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
    return getattr(import_module(f"alexnet.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
