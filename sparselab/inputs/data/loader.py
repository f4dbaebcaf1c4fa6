"""Batches for a run that can stop after any of them and go on as if it had not.

The order of an epoch and what happens to a batch are pure functions of (seed, epoch, batch). Nothing random is stored:
the position is the whole state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sparselab.core.errors import refuse
from sparselab.inputs.data.seeds import generator

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Job:
    """One batch to make.

    rows: (b,) the examples of the GLOBAL batch. mine: places in it of this rank's share.
    place: (seed, epoch, batch) in training, None in evaluation.
    """

    rows: np.ndarray
    mine: np.ndarray
    place: tuple[int, int, int] | None

    def generator(self) -> np.random.Generator:
        """The generator of this batch, the same on every rank. Only in training."""
        assert self.place is not None
        return generator("augment", *self.place)


class Source(Protocol):
    """A source of examples."""

    def __len__(self) -> int:
        """Examples in an epoch."""

    def rows(self, rng: np.random.Generator | None) -> np.ndarray:
        """(len,) the examples of one epoch, in order; ``rng`` is None in evaluation."""

    def batches(self, jobs: Iterable[Job]) -> Iterator[Batch]:
        """A batch for each job, in order. May take jobs ahead of the batches that it gives."""


class InMemory:
    """Base of sources whose examples all lie in memory: a subclass says how many there are, and makes a batch."""

    def __len__(self) -> int:
        raise NotImplementedError

    def rows(self, rng: np.random.Generator | None) -> np.ndarray:
        return np.arange(len(self)) if rng is None else rng.permutation(len(self))

    def batches(self, jobs: Iterable[Job]) -> Iterator[Batch]:
        return map(self.batch, jobs)

    def batch(self, job: Job) -> Batch:
        raise NotImplementedError


def sent(numbers: np.ndarray, device: torch.device | str) -> Tensor:
    """The numbers on ``device``; nothing waits for the copy."""
    return torch.from_numpy(numbers).to(device, non_blocking=True)


class Loader:
    """Batches of ``source``; what a Lightning trainer takes as a loader.

    ``batch_size`` is GLOBAL: rank r of ``world`` gets the r-th contiguous slice of every batch, augmented as in a run
    of one process. Of a batch that will be cut into ``cuts`` micro-batches it gets the r-th slice of each, one after the
    other: all ranks together see the micro-batches of one process. Training drops the last short batch. Evaluation drops
    nothing: the last batch may be short, its slices uneven, and a slice is empty where the batch has fewer examples than
    there are ranks.

    An iteration starts at the position that :meth:`load_state_dict` or :meth:`position` set, once; later ones start at
    batch 0. After a whole epoch the next iteration is the next epoch's, unless :meth:`set_epoch` says otherwise.
    Evaluation always starts at 0. ConfigError where training has no whole batch or ``world`` does not divide it.
    """

    def __init__(self, source: Source, batch_size: int, seed: int, train: bool, rank: int = 0, world: int = 1):
        if train and batch_size % world:
            refuse(f"batch_size={batch_size}", f"does not divide into {world} processes", "write a multiple of it")
        if train and len(source) < batch_size:
            refuse(
                f"batch_size={batch_size}",
                f"the training split has only {len(source)} examples, so not one whole batch",
                f"write at most batch_size={len(source)}",
            )
        self.source = source
        self.batch_size = batch_size
        self.seed = seed
        self.train = train
        self.rank = rank
        self.world = world
        self.cuts = 1
        self._epoch = 0
        self._start = 0  # where the next iteration begins
        self._handed = 0  # batches of the epoch handed out so far

    def __len__(self) -> int:
        """Batches in a whole epoch, wherever this one starts."""
        n = len(self.source)
        return n // self.batch_size if self.train else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: the position is read when the first batch is asked for. Lightning makes the iterator before it
        # calls set_epoch.
        if not self.train:
            yield from self.source.batches(self._jobs(0, 0))
            return
        epoch, first = self._epoch, self._start
        self._start = 0
        for index, batch in enumerate(self.source.batches(self._jobs(epoch, first)), first + 1):
            self._epoch, self._handed = self._after(epoch, index)
            yield batch

    def position(self, epoch: int, batch: int) -> None:
        """Start the next iteration at ``batch`` of ``epoch``, both from 0; ``len(self)`` is the next epoch's 0."""
        if not 0 <= batch <= len(self) or epoch < 0:
            raise ValueError(f"no batch {batch} in epoch {epoch}: an epoch has {len(self)} batches")
        self._epoch, self._start = self._after(epoch, batch)
        self._handed = self._start

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration ``epoch``'s. Of the epoch already set, the position stays."""
        if epoch != self._epoch:
            self._epoch, self._start, self._handed = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """The position after the last batch handed out."""
        return {"epoch": self._epoch, "batch": self._handed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position(state["epoch"], state["batch"])

    @property
    def batch_sampler(self) -> SimpleNamespace:
        """Lightning calls ``loader.batch_sampler.sampler.set_epoch`` before each epoch."""
        return SimpleNamespace(sampler=self)

    def _after(self, epoch: int, batch: int) -> tuple[int, int]:
        return (epoch + 1, 0) if batch == len(self) else (epoch, batch)

    def _jobs(self, epoch: int, first: int) -> Iterator[Job]:
        rows = self.source.rows(generator("order", self.seed, epoch) if self.train else None)
        for index in range(first, len(self)):
            batch = rows[index * self.batch_size : (index + 1) * self.batch_size]
            micro = np.array_split(np.arange(len(batch)), self.cuts)
            bounds = [[len(places) * r // self.world for r in (self.rank, self.rank + 1)] for places in micro]
            mine = np.concatenate([places[first:last] for places, (first, last) in zip(micro, bounds, strict=True)])
            yield Job(batch, mine, (self.seed, epoch, index) if self.train else None)
