"""A loaded dataset: three disjoint splits, and loaders of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from sparselab.core.data_spec import DataSpec
from sparselab.inputs.data.augment import Augment
from sparselab.inputs.data.loader import Loader, Source
from sparselab.inputs.data.sources import Images, Pictures, Streams, Windows

PARTS = ("train", "val", "test")


class Splits(Protocol):
    """The interface of a loaded dataset."""

    @property
    def content(self) -> str:
        """SHA-256 of what the three splits really hold, wherever it came from; :func:`content_of`."""

    @property
    def digests(self) -> Mapping[str, str]:
        """A name for what each split selected."""

    def loader(
        self,
        part: str,
        batch_size: int,
        seed: int,
        train: bool | None = None,
        rank: int = 0,
        world: int = 1,
        device: str = "cpu",
        workers: int = 0,
    ) -> Loader:
        """Batches of ``part`` (train, val or test). ``train`` shuffles and augments; by default the part of that name.

        ``batch_size`` is global; ``rank`` of ``world`` gets its slice of each batch. ``workers`` processes decode what
        does not lie in memory.
        """


class Loads:
    """Base of loaded datasets: :meth:`loader`, of the source that a subclass names."""

    def source(self, part: str, batch_size: int, train: bool, device: str, workers: int) -> Source:
        """Examples of ``part``, shuffled and augmented where ``train``. workers: for what does not lie in memory."""
        raise NotImplementedError

    def loader(
        self,
        part: str,
        batch_size: int,
        seed: int,
        train: bool | None = None,
        rank: int = 0,
        world: int = 1,
        device: str = "cpu",
        workers: int = 0,
    ) -> Loader:
        """As :meth:`Splits.loader`."""
        train = part == "train" if train is None else train
        return Loader(self.source(part, batch_size, train, device, workers), batch_size, seed, train, rank, world)


def loaded(data: DataSpec, splits: Splits) -> dict[str, Any]:
    """Return a record's account of the data: announced facts, the content, and examples per split.

    Those are counted where the plan did not know them (a text whose tokens only reading tells).
    """
    sizes = {part: getattr(data, part) if data.known else len(splits.loader(part, 1, 0).source) for part in PARTS}
    return {
        "name": data.name,
        "title": data.title,
        "fingerprint": data.fingerprint,
        "content": splits.content,
        "source": data.source,
        **sizes,
    }


def content_of(arrays: Iterable[Any]) -> str:
    """SHA-256 over kind, shape and values of arrays (or tensors on the CPU), in their order."""
    total = hashlib.sha256()
    for array in map(np.asarray, arrays):
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(hashlib.sha256(np.ascontiguousarray(array).data).digest())
    return total.hexdigest()


@dataclass(frozen=True)
class ImageSplit:
    """images: (n, c, h, w) uint8. labels: (n,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageSplits(Loads):
    """Images in memory. ``mean`` and ``std`` are per channel, of pixel / 255; ``augment`` is for training only.

    others: further parts by name, such as ``forget`` and ``retain``; parts of the whole, so :attr:`content` covers them.
    """

    train: ImageSplit
    val: ImageSplit
    test: ImageSplit
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int
    augment: Augment = field(default_factory=Augment)
    digests: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, ImageSplit] = field(default_factory=dict)

    @cached_property
    def content(self) -> str:
        """Hash of every pixel and label."""
        splits: list[ImageSplit] = [getattr(self, part) for part in PARTS]
        return content_of(tensor for split in splits for tensor in (split.images, split.labels))

    def source(self, part: str, batch_size: int, train: bool, device: str, workers: int) -> Source:
        split: ImageSplit = self.others[part] if part in self.others else getattr(self, part)
        augment = self.augment if train else Augment()
        return Images(split.images, split.labels, self.mean, self.std, self.classes, augment, device)


@dataclass(frozen=True)
class TextSplits(Loads):
    """Tokens in memory: each split is 1-D, uint8 where the vocabulary allows, else int32.

    vocab: size of the vocabulary. bytes_per_split: bytes of the text behind each split, for bits per byte.
    streams: whether windows are read in order, as many streams as a batch has rows, and not drawn at random. apart: whether
    the text is records of ``block`` tokens, and windows begin where these do.
    """

    train: Tensor
    val: Tensor
    test: Tensor
    vocab: int
    block: int
    bytes_per_split: Mapping[str, int]
    digests: Mapping[str, str] = field(default_factory=dict)
    streams: bool = False
    apart: bool = False

    @cached_property
    def content(self) -> str:
        """Hash of every token."""
        return content_of(getattr(self, part) for part in PARTS)

    @property
    def bytes_per_token(self) -> dict[str, float]:
        """Bytes of text per token, per split that has tokens."""
        return {part: self.bytes_per_split[part] / len(t) for part in PARTS if len(t := getattr(self, part))}

    def source(self, part: str, batch_size: int, train: bool, device: str, workers: int) -> Source:
        """Windows of ``block`` tokens, or ``batch_size`` streams of them."""
        tokens = getattr(self, part)
        return (
            Streams(tokens, self.block, batch_size, train, device)
            if self.streams
            else Windows(tokens, self.block, device, self.apart)
        )


@dataclass(frozen=True)
class PictureSplits(Loads):
    """Encoded pictures that stay on disk and are decoded by worker processes.

    pictures: per split, where to read row i from. labels: per split, (n,) int64. lengths: per split, (n,) int64, the
    bytes of each encoded picture.
    """

    pictures: Mapping[str, Any]
    labels: Mapping[str, np.ndarray]
    lengths: Mapping[str, np.ndarray]
    size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int
    augment: bool = True
    digests: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def content(self) -> str:
        """Hash of every label and of each picture's length in bytes: reading all pictures would take longer than an epoch."""
        return content_of(array[part] for part in PARTS for array in (self.labels, self.lengths))

    def source(self, part: str, batch_size: int, train: bool, device: str, workers: int) -> Source:
        """Pictures that ``workers`` processes decode; without any, this process does."""
        return Pictures(
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
