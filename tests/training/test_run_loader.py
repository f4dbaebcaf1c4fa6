from __future__ import annotations

import numpy as np
import pytest
import torch

from sparselab.inputs.data.loader import Loader
from sparselab.training.loop.loader import Interruptible, RunLoader


class Numbers:
    """Examples are their own numbers."""

    def __len__(self):
        return 11

    def rows(self, rng):
        return np.arange(11) if rng is None else rng.permutation(11)

    def batches(self, jobs):
        for job in jobs:
            rows = torch.as_tensor(job.rows[job.mine])
            yield rows, rows * 10


def loader(accumulate=2, updates=5, world=1, rank=0):
    return RunLoader(Loader(Numbers(), 4, seed=3, train=True, rank=rank, world=world), updates, accumulate)


def batches(run):
    return [tuple(part.tolist() for part in batch) for batch in run]


def test_every_update_has_its_batch_in_as_many_parts_as_asked():
    whole, halves = batches(loader(1)), batches(loader(2))
    assert len(whole) == len(loader(1)) == 5 and len(halves) == len(loader(2)) == 10
    assert [a + b for (a, _), (b, _) in zip(halves[::2], halves[1::2], strict=True)] == [x for x, _ in whole]
    assert whole[0] != whole[2] and sorted(whole[0][0] + whole[1][0]) == sorted(set(whole[0][0] + whole[1][0]))


def test_goes_on_at_any_micro_batch():
    wanted = batches(loader())
    for start in range(len(wanted) + 1):
        run = loader()
        run.start = start
        assert batches(run) == wanted[start:]


def test_ranks_share_each_batch():
    one, two = batches(loader(1, world=2)), batches(loader(1, world=2, rank=1))
    assert [a + b for (a, _), (b, _) in zip(one, two, strict=True)] == [x for x, _ in batches(loader(1))]


def test_ranks_share_each_micro_batch():
    """Batch normalisation sees the examples that it would see in one process."""
    one, two = batches(loader(2, world=2)), batches(loader(2, world=2, rank=1))
    assert [a + b for (a, _), (b, _) in zip(one, two, strict=True)] == [x for x, _ in batches(loader(2))]


def test_interruptible_asks_before_each_batch():
    seen = []

    def check():
        if len(seen) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        seen.extend(Interruptible(range(5), check))
    assert seen == [0, 1]
