"""What an image goes through on its way into the net: crops, reflections and color shifts in
training (section 4.1 of the paper), fixed views at test time.

Every draw depends on (seed, epoch, image) alone, so that any process, and a resumed run, sees the
same crops. Draws are made on the CPU, a few numbers an image, and pixels are touched where they
are: a GPU's views have the bits of a CPU's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alexnet import rng
from alexnet.errors import InputError
from alexnet.presets import Recipe
from alexnet_kernels import crop_flip_color


@dataclass(frozen=True)
class Indexed:
    """Some of the images that stay on a device, which are gathered where they are cropped."""

    pixels: Tensor  # all of them, uint8 (M, S, S, 3)
    index: Tensor  # which, int64 (N,), on the same device

    def gathered(self) -> Tensor:
        """The images themselves, (N, S, S, 3)."""
        return self.pixels.index_select(0, self.index)


class Augment:
    """From uint8 images (N, S, S, 3) of a pack, on any device, to the net's input on that device,
    (N, 3, size, size), or the same in blocks.

    Args:
        recipe: What is drawn.
        mean: The training pack's mean image, float (S, S, 3).
        size: Pixels of a crop's side.
        color: The training pack's eigenvalues and eigenvectors, which only training needs.
        seed: Of the draws.
        dtype: What the results are rounded to.
        blocks: The side of the blocks of pixels that become channels, and that of a crop with
            zeros on the right and bottom, as `alexnet.convolutions.in_blocks` gives them; None:
            results stay images.

    Raises:
        InputError: The crops are larger than the images.
    """

    def __init__(
        self,
        recipe: Recipe,
        mean: np.ndarray,
        size: int,
        color: dict[str, np.ndarray] | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        blocks: tuple[int, int] | None = None,
    ):
        self.block, self.side = blocks or (1, size)
        self.recipe, self.size, self.seed, self.dtype = recipe, size, seed, dtype
        self.mean_size = mean.shape[0]
        self.margin = self.mean_size - size  # offsets are 0..margin: 33 x 33 for 224 in 256
        if self.margin < 0:
            what = f"the pack's images are {self.mean_size} pixels wide, less than the net's {size}"
            raise InputError(f"{what}; choose --image-size {self.mean_size} or less")
        middle = slice(self.margin // 2, self.margin // 2 + size)
        own = mean if recipe.mean == "aligned" else mean[middle, middle]
        self.mean = torch.from_numpy(np.array(own))
        if color is not None:
            # Eigenvalues of the covariance of RGB, in gray levels squared.
            values = torch.from_numpy(np.maximum(color["eigenvalues"], 0.0))
            # What a draw from N(0, 0.1) along each axis is multiplied by, in gray levels.
            reaches = {"text": values / 255, "text-255": values, "source": values.sqrt()}
            reach = reaches[recipe.color] if recipe.color else values * 0
            self.axes = torch.from_numpy(color["eigenvectors"]) * reach  # (3, 3), as columns

    def train(
        self,
        images: Tensor | Indexed,
        ids: Tensor,
        positions: Tensor,
        epoch: int,
        color: bool = True,
    ) -> Tensor:
        """One random view of each image.

        Args:
            images: uint8 (N, S, S, 3).
            ids: Their numbers in the pack, int64 (N,), on the CPU.
            positions: Their places in the epoch's order, int64 (N,), on the CPU.
            epoch: From 0.
            color: Whether colors are shifted.
        """
        return self.cut(images, *self.draw(ids, positions, epoch, color))

    def draw(
        self, ids: Tensor, positions: Tensor, epoch: int, color: bool = True
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        """What is drawn for `train`, on the CPU.

        Args:
            ids: Numbers of the images in the pack, int64 (N,), on the CPU.
            positions: Their places in the epoch's order, int64 (N,), on the CPU.
            epoch: From 0.
            color: Whether colors are shifted.

        Returns:
            Offsets int64 (N, 2), flips bool (N,), color shifts float32 (N, 3), and the scale.
        """
        recipe = self.recipe
        groups = ids if recipe.crop_chunk == 1 else positions // recipe.crop_chunk
        flips = torch.zeros(len(ids), dtype=torch.bool)
        if recipe.crops == "random":
            draw = rng.uniform(rng.key(rng.CROP, self.seed, epoch, groups), 3)
            offsets = (draw[:, :2] * (self.margin + 1)).to(torch.int64)
            flips = draw[:, 2] < 0.5 if recipe.flips else flips
        else:
            offsets = torch.full((len(ids), 2), self.margin // 2)
        scale, shift = recipe.input_scale, torch.zeros(len(ids), 3)
        if color and recipe.color:
            draw = 0.1 * rng.normal(rng.key(rng.COLOR, self.seed, epoch, ids), 3)
            shift = (draw @ self.axes.T).to(torch.float32)
            scale = scale / 1.1 if recipe.color == "source" else scale
        return offsets, flips, shift, scale

    def view(self, images: Tensor, top: int, left: int, flip: bool) -> Tensor:
        """The same crop of every image.

        Args:
            images: uint8 (N, S, S, 3).
            top: Rows above the crop, 0..S - size.
            left: Columns left of it, 0..S - size.
            flip: Whether the crop is mirrored.

        Returns:
            (N, 3, size, size), on the images' device.
        """
        n = len(images)
        offsets, flips = torch.tensor([[top, left]]).expand(n, 2), torch.full((n,), flip)
        return self.cut(images, offsets, flips, torch.zeros(n, 3), self.recipe.input_scale)

    def cut(
        self,
        images: Tensor | Indexed,
        offsets: Tensor,
        flips: Tensor,
        shift: Tensor,
        scale: float,
    ) -> Tensor:
        """The crops that were drawn, minus the mean image, shifted, scaled and mirrored, on the
        images' device.

        Args:
            images: uint8 (N, S, S, 3), or so many of a larger array.
            offsets: Top and left of each crop, int64 (N, 2), 0..S - size.
            flips: Which crops are mirrored, bool (N,).
            shift: Added to the colors, float32 (N, 3), in gray levels.
            scale: What the result is multiplied by.

        Returns:
            (N, 3, size, size), on the images' device; or in blocks, as maps of more channels.
        """
        index: Tensor | None = None
        if isinstance(images, Indexed):
            index, images = images.index, images.pixels
        device = images.device
        if self.mean.device != device:
            self.mean = self.mean.to(device)
        offsets, flips, shift = (x.to(device, non_blocking=True) for x in (offsets, flips, shift))
        # convolutions want a pixel's channels together, but for wider types on a CPU
        last = device.type == "cuda" or self.dtype == torch.bfloat16
        given = (images, offsets, flips, shift, self.mean, self.size, scale, self.dtype, last)
        return crop_flip_color(*given, index, self.block, self.side)

    def views(self, images: Tensor, count: int = 1) -> Iterator[Tensor]:
        """The views of a test, made one after the other, so that there are never two.

        Args:
            images: uint8 (N, S, S, 3).
            count: 1: the center crop; 10: the four corners and the center, each with its reflection
                (section 4.1).
        """
        end, middle = self.margin, self.margin // 2
        corners = [(0, 0), (0, end), (middle, middle), (end, 0), (end, end)]
        for top, left in {1: [(middle, middle)], 10: corners}[count]:
            for flip in (False, True)[: 1 if count == 1 else 2]:
                yield self.view(images, top, left, flip)
