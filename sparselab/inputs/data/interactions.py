"""Interactions of users with items in memory: rows or samples of them for training, rankings for scoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sparselab.inputs.data.heldout import Division, Lists, Ranked, lists_of
from sparselab.inputs.data.loader import Batch, InMemory, Job, Source, sent
from sparselab.inputs.data.splits import Loads, content_of


class TakenRows(InMemory):
    """Batches (b, 1) of users and (b, items) of what they took; each user with any is an example."""

    def __init__(self, taken: Lists, items: int, device: str = "cpu"):
        self.taken, self.items, self.device = taken, items, device
        self.users = np.flatnonzero(taken.counts)

    def __len__(self) -> int:
        return len(self.users)

    def batch(self, job: Job) -> Batch:
        users = self.users[job.rows[job.mine]]
        return sent(users[:, None], self.device), self._floats(self.taken.dense(users, self.items))

    def _floats(self, taken: np.ndarray) -> Tensor:
        return sent(taken, self.device).float()


class Samples(InMemory):
    """Batches (b, 2 + negatives) of a user, an item that he took and others that he did not.

    With them comes (b, 1 + negatives): a 1 and then zeros. An epoch has as many as there are interactions. by_user: users are
    drawn, all alike, and one of their items each; otherwise each interaction comes once. Negatives are drawn uniformly, with
    replacement.
    """

    def __init__(self, taken: Lists, items: int, negatives: int, by_user: bool, device: str = "cpu"):
        self.taken, self.items, self.negatives, self.by_user, self.device = taken, items, negatives, by_user, device
        self.users = np.flatnonzero(taken.counts)
        self.owner = np.repeat(np.arange(len(taken)), taken.counts)
        self.keys = self.owner * items + taken.items  # ascending

    def __len__(self) -> int:
        return len(self.taken.items)

    def batch(self, job: Job) -> Batch:
        assert job.place is not None
        rng, count = job.generator(), len(job.rows)
        if self.by_user:
            users = self.users[rng.integers(len(self.users), size=count)]
            place = self.taken.starts[users] + (rng.random(count) * self.taken.counts[users]).astype(np.int64)
        else:
            users, place = self.owner[job.rows], job.rows
        others = self.untaken(users, rng)
        made = np.column_stack([users, self.taken.items[place], others])[job.mine]
        wanted = torch.zeros(len(made), 1 + self.negatives, device=self.device)
        wanted[:, 0] = 1
        return sent(made, self.device), wanted

    def untaken(self, users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw items that users did not take.

        Args:
            users: (b,) int64, none of whom took all
            rng: draws until none is left that he took

        Returns:
            (b, negatives) int64.
        """
        drawn = rng.integers(self.items, size=(len(users), self.negatives))
        owners = np.broadcast_to(users[:, None], drawn.shape)
        again = self.took(owners, drawn)
        while again.any():
            drawn[again] = rng.integers(self.items, size=int(again.sum()))
            again[again] = self.took(owners[again], drawn[again])
        return drawn

    def took(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Bool, as ``users`` and ``items`` (of one shape): whether the user took the item."""
        keys = users * self.items + items
        place = np.searchsorted(self.keys, keys)
        return self.keys[np.minimum(place, len(self.keys) - 1)] == keys


class Rankings(InMemory):
    """Batches (b, 1) of users, (b, items) of what they are to find, and bool (b, items): what is not ranked for them."""

    def __init__(self, part: Ranked, items: int, device: str = "cpu"):
        self.part, self.items, self.device = part, items, device

    def __len__(self) -> int:
        return len(self.part)

    def batch(self, job: Job) -> Batch:
        rows = job.rows[job.mine]
        wanted, unranked = (lists.dense(rows, self.items) for lists in (self.part.wanted, self.part.unranked))
        users = sent(self.part.users[rows][:, None], self.device)
        return users, sent(wanted, self.device).float(), sent(unranked, self.device)  # type: ignore[return-value]


@dataclass(frozen=True)
class InteractionSplits(Loads):
    """A division of interactions, and how it is trained on: rows of ``users`` or samples with ``negatives``."""

    division: Division
    negatives: int
    by_user: bool
    digests: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def content(self) -> str:
        """Hash of every interaction."""
        whole = self.division
        return content_of([whole.train, whole.history, *whole.val.arrays(), *whole.test.arrays()])

    @cached_property
    def taken(self) -> Lists:
        return lists_of(self.division.train[0], self.division.train[1], self.division.users)

    def source(self, part: str, batch_size: int, train: bool, device: str, workers: int) -> Source:
        whole = self.division
        if part == "train" and train:
            if not self.negatives:
                return TakenRows(self.taken, whole.items, device)
            return Samples(self.taken, whole.items, self.negatives, self.by_user, device)
        if part == "train":  # scored, users are to find what they are known to have taken
            users = np.flatnonzero(self.taken.counts)
            nothing = np.zeros(len(users) + 1, np.int64), np.empty(0, np.int64)
            found = lists_of(np.searchsorted(users, whole.train[0]), whole.train[1], len(users))
            return Rankings(Ranked(users, found, Lists(*nothing)), whole.items, device)
        return Rankings(getattr(whole, part), whole.items, device)
