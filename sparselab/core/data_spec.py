"""Facts about a dataset before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparselab.core.data_types import DataType, Pair


@dataclass(frozen=True)
class DataSpec:
    """The facts a plan needs.

    inputs:      the type of what a network reads, with its sizes.
    targets:     the type of what it is to predict.
    train/val/test: examples per split (images; windows of text). 0 where only loading can tell.
    fingerprint: a SHA-256 over the bytes of a bundled set or a local copy; over the name of a hub set, whose content
                 is known once it is loaded (:attr:`sparselab.inputs.data.splits.Splits.content`, which the record carries).
    source:      ``bundled``, ``local`` or ``hub``.
    path:        where a local copy lies; never part of a cell's id.
    parts:       names of further parts beside the three splits, such as what is to be forgotten.
    title:       the name a table must print (``cifar10-jpeg`` for the re-compressed copy, say).
    """

    name: str
    inputs: DataType
    targets: DataType
    train: int
    val: int
    test: int
    fingerprint: str
    source: str
    path: str = ""
    title: str = ""
    parts: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Return whether the sizes of the splits are known; those of a text under a tokenizer are once it is read."""
        return self.train > 0

    @property
    def sizes(self) -> str:
        """Return the sizes in words."""
        if not self.known:
            return "sizes are known once the text is read"
        return f"{self.train:,} train, {self.val:,} val, {self.test:,} test"

    @property
    def pair(self) -> Pair:
        """Types of inputs and targets: what families and tasks are matched by."""
        return type(self.inputs), type(self.targets)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one example's inputs."""
        return self.inputs.shape

    @property
    def classes(self) -> int:
        """Return how many classes a prediction tells apart; 0 where it is no choice."""
        return self.targets.classes
