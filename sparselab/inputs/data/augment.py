"""Augmentation of a whole batch where the batch lies, from numbers drawn beforehand [no torch at import].

Drawing and applying are apart: the numbers of a GLOBAL batch are drawn on the CPU from its address, and every rank
applies its rows of them on its own device. So neither the device nor the number of processes changes an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from sparselab.core.options import Options

if TYPE_CHECKING:
    from torch import Tensor


class Augment(Options):
    """Augmentation of training images. Order: crop and flip, affine, normalise, cutout, mixup."""

    flip: bool = Field(default=False, description="true mirrors left to right with probability 1/2")
    crop: int = Field(
        default=0, ge=0, description="pixels of padding on every side before a random crop of the image's size"
    )
    pad: Literal["zero", "reflect"] = Field(default="zero", description="what crop pads with: zero or reflect")
    shift: float = Field(default=0.0, ge=0, description="largest translation along each axis, in pixels (bilinear)")
    rotate: float = Field(default=0.0, ge=0, le=180, description="largest rotation either way, in degrees")
    scale: float = Field(default=0.0, ge=0, lt=1, description="largest change of size either way, as a fraction")
    cutout: int = Field(
        default=0, ge=0, description="side in pixels of a square set to the mean (DeVries and Taylor 2017)"
    )
    mixup: float = Field(default=0.0, ge=0, description="alpha of Beta(alpha, alpha) (Zhang et al. 2018); 0 is off")

    @property
    def affine(self) -> bool:
        return bool(self.shift or self.rotate or self.scale)

    def draw(self, rng: np.random.Generator, count: int, height: int, width: int) -> Draw:
        """The numbers for ``count`` images. Everything is drawn whatever is on, so one option never moves another."""
        corner = rng.integers(0, 2 * self.crop + 1, (count, 2))
        flip = rng.random(count) < 0.5
        jitter = rng.uniform(-1, 1, (count, 4))
        centre = np.stack([rng.integers(0, height, count), rng.integers(0, width, count)], 1)
        return Draw(
            corner=corner - self.crop,
            flip=flip & self.flip,
            theta=self._theta(jitter, height, width),
            centre=centre - self.cutout // 2,
        )

    def _theta(self, jitter: np.ndarray, height: int, width: int) -> np.ndarray:
        """(count, 2, 3) float32: output to input coordinates, both in [-1, 1] as ``grid_sample`` counts them."""
        angle = np.deg2rad(self.rotate * jitter[:, 0])
        size = 1 + self.scale * jitter[:, 1]
        cos, sin = np.cos(angle) / size, np.sin(angle) / size
        right, down = 2 * self.shift * jitter[:, 2] / width, 2 * self.shift * jitter[:, 3] / height
        rows = [[cos, -sin * height / width, right], [sin * width / height, cos, down]]
        return np.array(rows, np.float32).transpose(2, 0, 1)


@dataclass(frozen=True)
class Draw:
    """The numbers of some images, a row each.

    corner: (n, 2) int, top and left of the crop, 0 = where the image lies.
    flip:   (n,) bool.
    theta:  (n, 2, 3) float32, inverse affine map.
    centre: (n, 2) int, top and left of the cutout; may lie outside.
    """

    corner: np.ndarray
    flip: np.ndarray
    theta: np.ndarray
    centre: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Draw:
        return Draw(self.corner[rows], self.flip[rows], self.theta[rows], self.centre[rows])


def crop_and_flip(images: Tensor, rows: Tensor, draw: Draw, augment: Augment) -> Tensor:
    """Images ``rows`` of ``images`` (n, c, h, w), cropped and mirrored; same dtype, (b, c, h, w).

    The padded image is never made: indices outside are reflected, or clamped and set to zero.
    """
    import torch

    if not (augment.crop or augment.flip):
        return images[rows]
    channels, height, width = images.shape[1:]
    device = images.device
    corner = torch.from_numpy(draw.corner).to(device, non_blocking=True)
    flip = torch.from_numpy(draw.flip).to(device, non_blocking=True)
    y = corner[:, :1] + torch.arange(height, device=device)
    x = corner[:, 1:] + torch.arange(width, device=device)
    x = torch.where(flip[:, None], x.flip(1), x)
    outside = None
    if augment.crop and augment.pad == "zero":
        outside = ((y < 0) | (y >= height))[:, None, :, None] | ((x < 0) | (x >= width))[:, None, None, :]
        y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    elif augment.crop:
        y = (height - 1) - ((height - 1) - y.abs()).abs()
        x = (width - 1) - ((width - 1) - x.abs()).abs()
    # Whole rows of pixels are taken first, then pixels of each: several times as fast as one index of four tensors.
    planes = rows[:, None] * channels + torch.arange(channels, device=device)
    lines = planes[:, :, None] * height + y[:, None, :]
    taken = images.reshape(-1, width).index_select(0, lines.flatten()).view(*lines.shape, width)
    taken = taken.gather(3, x[:, None, None, :].expand(*lines.shape, width))
    return taken if outside is None else taken.masked_fill_(outside, 0)


def affine(images: Tensor, draw: Draw) -> Tensor:
    """Float images (b, c, h, w) rotated, scaled and shifted, bilinear, zero outside."""
    import torch
    from torch.nn import functional

    height, width = images.shape[2:]
    theta = torch.from_numpy(draw.theta).to(images.device, non_blocking=True)[:, :, :, None, None]
    y = ((2 * torch.arange(height, device=images.device) + 1) / height - 1)[:, None]
    x = ((2 * torch.arange(width, device=images.device) + 1) / width - 1)[None, :]
    # written out instead of affine_grid: a batched matrix product may round differently for another batch size
    grid = theta[:, :, 0] * x + theta[:, :, 1] * y + theta[:, :, 2]
    return functional.grid_sample(images, grid.permute(0, 2, 3, 1), mode="bilinear", align_corners=False)


def cutout(images: Tensor, draw: Draw, side: int) -> Tensor:
    """Set a square of each image to 0, clipped at the border.

    Args:
        images: (b, c, h, w) float
        draw: the numbers of this place
        side: pixels of the square

    Returns:
        (b, c, h, w), a copy.
    """
    import torch

    height, width = images.shape[2:]
    corner = torch.from_numpy(draw.centre).to(images.device, non_blocking=True)
    y = torch.arange(height, device=images.device) - corner[:, :1]
    x = torch.arange(width, device=images.device) - corner[:, 1:]
    inside = ((y >= 0) & (y < side))[:, None, :, None] & ((x >= 0) & (x < side))[:, None, None, :]
    return images.masked_fill(inside, 0)
