"""From photographs to a net's input, and what is said of an input that cannot be meant."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from alexnet.data import photographs
from alexnet.data.augment import Augment
from alexnet.data.decode import fit
from alexnet.errors import InputError, require
from alexnet.presets import PRESETS, Preset

if TYPE_CHECKING:
    from alexnet.network import AlexNet

NORMALIZED = 6.0  # pixels in standard deviations are within this of 0; gray levels are not
UNCENTERED = 200.0  # gray levels minus a mean image are not all positive, and as high as this


def pixels(photos: Any, size: int) -> Tensor:
    """Photographs, each scaled to `size` along its short side and cut to its center square, as in
    preparation: uint8 (N, size, size, 3).

    Args:
        photos: An image, a path, an array, or several of them.
        size: The side of the squares, in pixels.

    Raises:
        InputError: One is no image, or too narrow.
    """
    images = []
    for photo in photos if photographs.several(photos) else [photos]:
        try:
            images.append(np.asarray(fit(photographs.read(photo), size)))
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{photographs.name_of(photo) or 'an image'}: {error}") from None
    require(images, "there are no photographs")
    return torch.from_numpy(np.stack(images))


def preprocess(net: "AlexNet", photos: Any, mean: Any = None) -> Tensor:
    """Scale photographs, cut their center squares and subtract the mean.

    Args:
        net: Whose image size and preset count.
        photos: As for `pixels`.
        mean: float (S, S, 3); None: the mean that the net came with.

    Returns:
        float32 (N, 3, S, S), as the net reads them.
    """
    side, weight = net.table[0].in_size, next(net.parameters())
    mean = net.mean_image if mean is None else mean
    if mean is None:
        raise InputError(
            "the net's mean image is unknown: give mean, the training images' (H, W, 3) or three "
            "numbers, as (124, 117, 104), or load the net by AlexNet.from_run"
        )
    mean = np.asarray(mean, np.float32)
    if mean.shape == (3,):
        mean = np.broadcast_to(mean, (round(side * 8 / 7),) * 2 + (3,))
    require(
        mean.ndim == 3 and mean.shape[0] == mean.shape[1] and mean.shape[2] == 3,
        f"a mean image has the shape (S, S, 3), or is three numbers; this one has {mean.shape}",
    )
    augment = Augment(net.preset.recipe, mean, side)
    view = next(augment.views(pixels(photos, augment.mean_size).to(weight.device)))
    return view.to(weight.dtype)


def warn_of_range(images: Tensor, preset: Preset) -> None:
    """Warn where an input is plainly not pixels in 0..255 minus a mean image, as the presets' nets
    take it; a table of your own may mean another.

    Args:
        images: (N, 3, S, S).
        preset: Whose scale of the input counts.
    """
    known = preset.name.split("/")[0] in PRESETS
    if not known or preset.recipe.input_scale != 1 or not images.numel():
        return
    least, most = (float(bound) for bound in images.detach().aminmax())
    meant = "the net takes RGB in 0..255 minus the mean image; see AlexNet.preprocess"
    if 0 < max(-least, most) <= NORMALIZED:
        said = f"the input lies within {least:.3g} to {most:.3g}, as normalized pixels do: {meant}"
    elif least >= 0 and most >= UNCENTERED:
        said = f"the input lies within {least:.3g} to {most:.3g}, from which no mean is taken"
        said += f": {meant}"
    else:
        return
    warnings.warn(said, stacklevel=6)  # the line that calls the net


def is_plain(images: Tensor) -> bool:
    """Whether numbers of a tensor can be looked at: it is no stand-in of a tracer, and no CUDA
    graph is being captured."""
    is_traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return (
        not is_traced
        and type(images) is Tensor
        and images.device.type in ("cpu", "cuda")
        and not torch._C._functorch.is_functorch_wrapped_tensor(images)
        and not (images.is_cuda and torch.cuda.is_current_stream_capturing())
    )
