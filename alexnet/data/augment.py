"""What an image goes through on its way into the net: crops, reflections and color shifts in training (section 4.1 of the paper), fixed
views at test time.

Every draw depends on (seed, epoch, image) alone, so that any process, and a resumed run, sees the same crops. Draws are made on the CPU, a
few numbers an image, and pixels are touched where they are: a GPU's views have the bits of a CPU's.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from alexnet import rng
from alexnet.errors import InputError
from alexnet.presets import Recipe
from alexnet_kernels import crop_flip_color


class Augment:
    """From uint8 images (N, S, S, 3) of a pack, on any device, to the net's input there, float32 (N, 3, size, size).

    mean: the training pack's mean image, float (S, S, 3); color: its eigenvalues and eigenvectors, which only training needs.
    """

    def __init__(
        self,
        recipe: Recipe,
        mean: np.ndarray,
        size: int,
        color: dict[str, np.ndarray] | None = None,
        seed: int = 0,
    ):
        self.recipe, self.size, self.seed = recipe, size, seed
        self.mean_size = mean.shape[0]
        self.margin = (
            self.mean_size - size
        )  # offsets are 0..margin: 33 x 33 positions for 224 in 256
        if self.margin < 0:
            wide = mean.shape[0]
            raise InputError(
                f"the pack's images are {wide} pixels wide, less than the net's {size}; choose --image-size {wide} or less"
            )
        middle = self.margin // 2
        self.mean = torch.from_numpy(
            np.array(
                mean
                if recipe.mean == "aligned"
                else mean[middle : middle + size, middle : middle + size]
            )
        )
        if color is not None:
            values = torch.from_numpy(
                np.maximum(color["eigenvalues"], 0.0)
            )  # of the covariance of RGB, in gray levels squared
            # what a draw from N(0, 0.1) along each axis is multiplied by, in gray levels
            reach = {
                "text": values / 255,
                "text-255": values,
                "source": values.sqrt(),
                None: values * 0,
            }[recipe.color]
            self.axes = torch.from_numpy(color["eigenvectors"]) * reach  # (3, 3), one axis a column

    def train(
        self, images: Tensor, ids: Tensor, positions: Tensor, epoch: int, color: bool = True
    ) -> Tensor:
        """One random view of each image. ids: the images' numbers in the pack; positions: their places in the epoch's order, int64 (N,), on
        the CPU; color: shifts are on."""
        return self.cut(images, *self.draw(ids, positions, epoch, color))

    def draw(
        self, ids: Tensor, positions: Tensor, epoch: int, color: bool = True
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        """What is drawn for `train`, on the CPU: offsets int64 (N, 2), flips bool (N,), color shifts float32 (N, 3), and the scale."""
        recipe = self.recipe
        who = ids if recipe.crop_chunk == 1 else positions // recipe.crop_chunk
        if recipe.crops == "random":
            draw = rng.uniform(rng.key(rng.CROP, self.seed, epoch, who), 3)
            offsets = (draw[:, :2] * (self.margin + 1)).to(torch.int64)
            flips = draw[:, 2] < 0.5 if recipe.flips else torch.zeros(len(ids), dtype=torch.bool)
        else:
            offsets = torch.full((len(ids), 2), self.margin // 2)
            flips = torch.zeros(len(ids), dtype=torch.bool)
        scale, shift = recipe.input_scale, torch.zeros(len(ids), 3)
        if color and recipe.color:
            draw = 0.1 * rng.normal(rng.key(rng.COLOR, self.seed, epoch, ids), 3)
            shift = (draw @ self.axes.T).to(torch.float32)
            scale = scale / 1.1 if recipe.color == "source" else scale
        return offsets, flips, shift, scale

    def view(self, images: Tensor, top: int, left: int, flip: bool) -> Tensor:
        """The same crop of every image."""
        n = len(images)
        offsets = torch.tensor([[top, left]]).expand(n, 2)
        flips = torch.full((n,), flip)
        return self.cut(images, offsets, flips, torch.zeros(n, 3), self.recipe.input_scale)

    def cut(
        self, images: Tensor, offsets: Tensor, flips: Tensor, shift: Tensor, scale: float
    ) -> Tensor:
        """The crops that were drawn, minus the mean image, shifted, scaled and mirrored, on the images' device."""
        device = images.device
        if self.mean.device != device:
            self.mean = self.mean.to(device)
        offsets, flips, shift = (
            small.to(device, non_blocking=True) for small in (offsets, flips, shift)
        )
        on_gpu = device.type == "cuda"  # where convolutions want a pixel's channels together
        return crop_flip_color(
            images, offsets, flips, shift, self.mean, self.size, scale, channels_last=on_gpu
        )

    def views(self, images: Tensor, count: int = 1) -> Iterator[Tensor]:
        """One view: the center crop. Ten: the four corners and the center, each with its reflection (section 4.1). Made one after the
        other, each in one pass over the same images: there are never two."""
        end, middle = self.margin, self.margin // 2
        places = {
            1: [(middle, middle)],
            10: [(0, 0), (0, end), (middle, middle), (end, 0), (end, end)],
        }[count]
        for top, left in places:
            for flip in (False, True)[: 1 if count == 1 else 2]:
                yield self.view(images, top, left, flip)
