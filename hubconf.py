"""Entry points for `torch.hub.load`: the network, and nets with weights that come along.

torch.hub.load(REPOSITORY, "alexnet", "source", num_classes=10)    # a new net
torch.hub.load(REPOSITORY, "classifier", "tiny-imagenet")("cat.jpg").top()
"""

import sys
from pathlib import Path

dependencies = ["torch", "numpy", "safetensors", "tqdm", "yaml", "PIL"]

# a clone holds two packages, of which neither need be installed
sys.path += [str(Path(__file__).resolve().parent / name) for name in (".", "kernels")]


def alexnet(preset="paper", weights=None, **settings):
    """A net, as a `torch.nn.Module`.

    Args:
        preset: "paper", "source", "caffe" or "four-layer", with variants, as in "paper/no-lrn".
        weights: The name of weights that come along, whose preset the net then has, in evaluation
            mode; None: initial ones.
        settings: Of a net with initial weights: see `alexnet.AlexNet`.
    """
    from alexnet import AlexNet

    return AlexNet.pretrained(weights).net if weights else AlexNet(preset, **settings)


def classifier(weights="tiny-imagenet"):
    """A net with weights that come along, its preprocessing and its class names, to be called on
    photographs: an `alexnet.Classifier`."""
    from alexnet import AlexNet

    return AlexNet.pretrained(weights)
