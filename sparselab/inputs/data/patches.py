"""Pairs of images in memory, as patches for training and whole for scoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sparselab.inputs.data.loader import Batch, InMemory, Job, Source, sent
from sparselab.inputs.data.seeds import generator
from sparselab.inputs.data.splits import PARTS, Loads, content_of

TURNS = 8  # of a square patch: quarter turns, mirrored or not


@dataclass(frozen=True)
class ImagePairs:
    """given, wanted: (n, c, h, w) uint8; the same tensor where noise is yet to be added."""

    given: Tensor
    wanted: Tensor

    def __len__(self) -> int:
        return len(self.wanted)


class Patches(InMemory):
    """Batches (b, c, side, side) of what is given and what is wanted, float32 from 0 to 1; whole images in evaluation.

    Training draws places and turns of patches, and noise, by numbers of the batch that are the same on every rank. Evaluation
    gives each image the noise of its row, always the same. sigma: standard deviation of Gaussian noise, of 255; neither
    clipped nor rounded. count: patches of each image in an epoch.
    """

    def __init__(self, pairs: ImagePairs, side: int, count: int, sigma: float, train: bool, device: str = "cpu"):
        self.given, self.wanted = pairs.given.to(device), pairs.wanted.to(device)
        self.side, self.sigma = side, sigma
        self.count = count if train else 1

    def __len__(self) -> int:
        return self.count * len(self.wanted)

    def batch(self, job: Job) -> Batch:
        if job.place is None:
            rows = job.rows[job.mine]
            given, wanted = (scaled(images[self._send(rows)]) for images in (self.given, self.wanted))
            shape = tuple(self.wanted.shape[1:])
            drawn = [generator("noise", int(row)).standard_normal(shape, np.float32) for row in rows if self.sigma]
            return self._noisy(given, np.array(drawn)), wanted
        rng, whole = job.generator(), len(job.rows)
        channels, height, width = self.wanted.shape[1:]
        top, left = (rng.integers(0, extent - self.side + 1, whole)[job.mine] for extent in (height, width))
        turns = rng.integers(0, TURNS, whole)[job.mine]
        at = self._send(job.rows[job.mine] // self.count)
        shape = (whole, channels, self.side, self.side)
        noise: np.ndarray = rng.standard_normal(shape, np.float32)[job.mine] if self.sigma else np.empty(0)
        given, wanted = (self._cut(images, at, top, left, turns) for images in (self.given, self.wanted))
        return self._noisy(given, noise), wanted

    def _cut(self, images: Tensor, at: Tensor, top: np.ndarray, left: np.ndarray, turns: np.ndarray) -> Tensor:
        """(b, c, side, side): the patches of ``images[at]``, turned."""
        steps = torch.arange(self.side, device=images.device)
        down = self._send(top)[:, None, None, None] + steps[:, None]
        across = self._send(left)[:, None, None, None] + steps
        channels = torch.arange(images.shape[1], device=images.device)[:, None, None]
        cut = scaled(images[at[:, None, None, None], channels, down, across])
        for turn in range(1, TURNS):
            some = self._send(np.flatnonzero(turns == turn))
            cut[some] = turned(cut[some], turn)
        return cut

    def _noisy(self, given: Tensor, noise: np.ndarray) -> Tensor:
        return given + torch.from_numpy(noise).to(given.device) * (self.sigma / 255) if noise.size else given

    def _send(self, numbers: np.ndarray) -> Tensor:
        return sent(numbers, self.wanted.device)


def scaled(pixels: Tensor) -> Tensor:
    """Scale eight-bit values.

    Args:
        pixels: any shape, uint8

    Returns:
        The same shape, float32 in [0, 1].
    """
    return pixels.float() / 255


def turned(images: Tensor, turn: int) -> Tensor:
    """Square images by ``turn % 4`` quarter turns, from 4 on mirrored first."""
    return torch.rot90(images.flip(-1) if turn >= 4 else images, turn % 4, (-2, -1))


@dataclass(frozen=True)
class PairSplits(Loads):
    """Pairs of images for each of the three splits, by name; the rest as :class:`Patches` takes it."""

    parts: Mapping[str, ImagePairs]
    side: int
    count: int
    sigma: float
    digests: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def content(self) -> str:
        """Hash of every pixel."""
        pairs = [self.parts[part] for part in PARTS]
        return content_of(tensor for pair in pairs for tensor in (pair.given, pair.wanted))

    def source(self, part: str, batch_size: int, train: bool, device: str, workers: int) -> Source:
        return Patches(self.parts[part], self.side, self.count, self.sigma, train, device)
