"""Entry points for torch.hub.

torch.hub.load(REPOSITORY, "alexnet", preset="paper") is the net with initial weights, and
torch.hub.load(REPOSITORY, "pretrained", "tiny-imagenet") a trained one with its preprocessing and
class names; REPOSITORY is owner/name on GitHub, or a clone's folder with source="local".
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet import AlexNet, Classifier

dependencies = ["torch", "numpy", "safetensors", "PIL", "tqdm", "yaml"]

if find_spec("alexnet_kernels") is None:  # a distribution of its own, in this repository
    sys.path.append(str(Path(__file__).resolve().parent / "kernels"))


def alexnet(preset: str = "paper", **options: Any) -> "AlexNet":
    """The network with initial weights.

    Args:
        preset: "paper", "source" or another, with variants, as in "paper/no-lrn".
        options: Of `alexnet.AlexNet`: num_classes, width, image_size, activation.
    """
    from alexnet import AlexNet

    return AlexNet(preset, **options)


def pretrained(name: str = "tiny-imagenet") -> "Classifier":
    """A trained network with its preprocessing and class names, to be called on photographs.

    Args:
        name: Of the weights in results/weights/.
    """
    from alexnet import AlexNet

    return AlexNet.pretrained(name)
