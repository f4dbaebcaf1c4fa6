"""A loaded dataset: three disjoint splits, and how to feed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from sparselab.data.augment import Augment
from sparselab.data.feed import Feed
from sparselab.data.sources import Images, Pictures, Windows

PARTS = ("train", "val", "test")


class Splits(Protocol):
    """What every loaded dataset offers.

    fingerprint: of the content that was loaded. digests: names of the rows that each split selected (may be empty).
    """

    fingerprint: str
    digests: Mapping[str, str]

    def feed(self, part: str, batch_size: int, seed: int, **where: Any) -> Feed: ...


@dataclass(frozen=True)
class ImageSplit:
    """images: (n, c, h, w) uint8. labels: (n,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageSplits:
    """Images in memory. ``mean`` and ``std`` are per channel, of pixel / 255; ``augment`` is for training only."""

    train: ImageSplit
    val: ImageSplit
    test: ImageSplit
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int
    fingerprint: str
    augment: Augment = field(default_factory=Augment)
    digests: Mapping[str, str] = field(default_factory=dict)

    def feed(
        self,
        part: str,
        batch_size: int,
        seed: int,
        train: bool | None = None,
        rank: int = 0,
        world: int = 1,
        device: str = "cpu",
        augment: Augment | None = None,
        workers: int = 0,
    ) -> Feed:
        """Batches of ``part``. ``train`` shuffles and augments, and is true for the part of that name.

        ``workers`` is accepted and not used: the images are in memory.
        """
        train = part == "train" if train is None else train
        used = (self.augment if augment is None else augment) if train else Augment()
        split: ImageSplit = getattr(self, part)
        source = Images(split.images, split.labels, self.mean, self.std, self.classes, used, device)
        return Feed(source, batch_size, seed, train, rank, world)


@dataclass(frozen=True)
class TextSplits:
    """Tokens in memory: each split is 1-D, uint8 where the vocabulary allows, else int32.

    vocab: size of the vocabulary. bytes_per_split: bytes of the text behind each split, for bits per byte.
    """

    train: Tensor
    val: Tensor
    test: Tensor
    vocab: int
    block: int
    bytes_per_split: Mapping[str, int]
    fingerprint: str
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def bytes_per_token(self) -> dict[str, float]:
        """Bytes of text per token, per split that has tokens."""
        return {part: self.bytes_per_split[part] / len(t) for part in PARTS if len(t := getattr(self, part))}

    def feed(
        self,
        part: str,
        batch_size: int,
        seed: int,
        train: bool | None = None,
        rank: int = 0,
        world: int = 1,
        device: str = "cpu",
        workers: int = 0,
    ) -> Feed:
        """Batches of windows of ``part``; ``workers`` is accepted and not used: the tokens are in memory."""
        train = part == "train" if train is None else train
        return Feed(Windows(getattr(self, part), self.block, device), batch_size, seed, train, rank, world)


@dataclass(frozen=True)
class PictureSplits:
    """Encoded pictures that stay on disk and are decoded by worker processes.

    pictures: per split, where to read row i from. labels: per split, (n,) int64.
    """

    pictures: Mapping[str, Any]
    labels: Mapping[str, np.ndarray]
    size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int
    fingerprint: str
    augment: bool = True
    digests: Mapping[str, str] = field(default_factory=dict)

    def feed(
        self,
        part: str,
        batch_size: int,
        seed: int,
        train: bool | None = None,
        rank: int = 0,
        world: int = 1,
        device: str = "cpu",
        workers: int = 0,
    ) -> Feed:
        """Batches of ``part``, decoded by ``workers`` processes (0: in this one)."""
        train = part == "train" if train is None else train
        source = Pictures(
            self.pictures[part],
            self.labels[part],
            size=self.size,
            resize=self.resize,
            mean=self.mean,
            std=self.std,
            augment=train and self.augment,
            device=device,
            workers=workers,
        )
        return Feed(source, batch_size, seed, train, rank, world)
