"""A trained net with all that it takes to name what a photograph shows: its preprocessing and its
class names, from a run's folder or an exported file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from alexnet import inputs
from alexnet.card import Card
from alexnet.data import photographs
from alexnet.errors import InputError, needs, require
from alexnet.network import AlexNet
from alexnet.predictions import Prediction
from alexnet.training.folder import check_usable, load_run

BATCH = 32  # photographs at a time


class Classifier:
    """A trained net, to be called on photographs.

    `Classifier.open("run")("cat.jpg").top()` gives the five most probable classes.

    Args:
        logits: From the net's input to its output: a net in evaluation mode, or a session of ONNX.
        card: What the input goes through, and what the outputs mean.

    Attributes:
        net: The `AlexNet`; None for one of ONNX.
        card: Preset, mean image, classes, license and whatever else is known of the net.
        names: What people call the classes, in the order of the outputs.
        augment: From uint8 images (N, S, S, 3) to views.
    """

    def __init__(self, logits: Callable[[Tensor], Tensor], card: Card):
        self.logits, self.card, self.names = logits, card, card.names
        self.net = logits if isinstance(logits, AlexNet) else None
        self.augment = card.augment()

    @classmethod
    def open(cls, where: str | Path) -> "Classifier":
        """Open a run's folder, a file that `alexnet export` wrote (.safetensors or .onnx), or
        weights that come along, by their name.

        Raises:
            InputError: There is none, or it is damaged, or a package is missing that it needs.
        """
        path = Path(where)
        if not path.exists() and len(path.parts) == 1 and not path.suffix:
            from alexnet.pretrained import path_of

            path = path_of(str(where))
        require(path.exists(), f"{path} does not exist: name a run, or a file of `alexnet export`")
        readers: dict[str, Callable[[Path], tuple[Callable[[Tensor], Tensor], Card]]]
        readers = {".onnx": _from_onnx, ".safetensors": _from_safetensors}
        if path.is_dir():
            check_usable(path)
            return cls(load_run(path)[0], Card.of_run(path))
        endings = " or ".join(readers)
        require(path.suffix in readers, f"{path} is no run: name its folder, or a {endings} file")
        return cls(*readers[path.suffix](path))

    def to(self, device: str | torch.device) -> "Classifier":
        """Move the net to a device. Raises InputError for one of ONNX, which runs on the CPU."""
        if self.net is not None:
            self.net.to(device)
        else:
            is_cpu = torch.device(device).type == "cpu"
            require(is_cpu, "a net of ONNX runs on the CPU here: use --device cpu")
        return self

    def __call__(self, photos: Any, views: int = 1) -> Any:
        """Predict the class of one photograph, or of each of several.

        Args:
            photos: One, or several: paths, Pillow images, or arrays of pixels in 0..255, uint8 or
                floating-point, (H, W, 3); an array (N, H, W, 3) is several.
            views: 1: the center crop; 10: corners and reflections too, averaged after the softmax.

        Returns:
            A `Prediction`; of several photographs, a list of them.

        Raises:
            InputError: One is no image, or there are neither one nor ten views.
        """
        require(views in (1, 10), f"views {views}: give 1 or 10")
        if not photographs.several(photos):
            return self._predict([photos], views)[0]
        photos = list(photos)
        parts = [photos[i : i + BATCH] for i in range(0, len(photos), BATCH)]
        return [prediction for part in parts for prediction in self._predict(part, views)]

    @torch.no_grad()
    def _predict(self, photos: list[Any], views: int) -> list[Prediction]:
        pixels = inputs.pixels(photos, self.augment.mean_size)
        weight = torch.empty(0) if self.net is None else next(self.net.parameters())
        together = torch.zeros(len(photos), len(self.names))
        for view in self.augment.views(pixels.to(weight.device), views):
            together += self.logits(view.to(weight.dtype)).float().softmax(1).cpu() / views
        names = map(photographs.name_of, photos)
        return [
            Prediction(name, probabilities, self.card.classes, self.names)
            for name, probabilities in zip(names, together, strict=True)
        ]

    def __repr__(self) -> str:
        card, kind = self.card, "ONNX" if self.net is None else "AlexNet"
        return (
            f"Classifier({kind} of preset {card.preset!r}, width {card.width:g}, {len(self.names)} "
            f"classes, {card.image_size} of {self.augment.mean_size} pixels)"
        )


def predict(net: str | Path | Classifier, photos: Any, views: int = 1) -> Any:
    """Predict the classes of photographs.

    Args:
        net: A run's folder, an exported file, the name of weights that come along, or an open
            `Classifier`, which spares opening it again.
        photos: See `Classifier.__call__`.
        views: 1 or 10.

    Returns:
        A `Prediction` of one photograph, or a list of them.

    Raises:
        InputError: The net or a photograph cannot be read.
    """
    classifier = net if isinstance(net, Classifier) else Classifier.open(net)
    return classifier(photos, views)


def _from_safetensors(file: Path) -> tuple[AlexNet, Card]:
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
        card = Card.of_metadata(file, metadata)
        net = card.network()
        net.load_merged(load_file(file))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is no safetensors file, or a damaged one ({error})") from None
    return net, card


def _from_onnx(file: Path) -> tuple[Callable[[Tensor], Tensor], Card]:
    runtime = needs("onnxruntime", extra="export", what="ONNX")
    try:
        session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has exceptions of its own
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{file} is no ONNX file, or a damaged one ({reason})") from None
    card = Card.of_metadata(file, session.get_modelmeta().custom_metadata_map)
    name = session.get_inputs()[0].name

    def logits(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: images.contiguous().numpy()})[0])

    return logits, card
