"""Removals: how many examples leave and when, which ones, and runs of shorter epochs that are resumed in the middle."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import tensor

from sparselab.core.errors import ConfigError
from sparselab.inputs.data.loader import Loader
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.storage.checkpoints import Checkpoints
from sparselab.training.loop.loader import RunLoader
from sparselab.training.loop.loop import Loop
from sparselab.training.removals.removal import REMOVALS, epoch_lengths
from sparselab.training.removals.torch_side.remover import Left, Remover
from sparselab.training.removals.torch_side.tally import Tally

torch.set_num_threads(1)

SHARED = (
    "method=dense", "model=mlp", "model.hidden=[16]", "dataset=digits", "dataset.val=0", "dataset.limit_train=300",
    "dataset.limit_test=100", "optim=sgd", "optim.lr=0.05", "optim.warmup=0.0", "trainer.batch_size=20", "trainer.threads=1",
    "trainer.precision=32", "trainer.evals=0", "trainer.progress=none", "trainer.accelerator=cpu", "trainer.max_epochs=5",
    "removal=forgetting", "removal.every=1", "removal.until=3",
)  # fmt: skip
LATE = ("scenario=class_incremental", "loss=[er]", "loss.er.buffer=40", "loss.er.batch=10", "trainer.accumulate=2")


def made(name="forgetting", **options):
    return REMOVALS[name](REMOVALS[name].Options(**options))


# -- how many ------------------------------------------------------------------------------------------------------------


def test_share_of_data_of_the_released_recipe():
    """SparCL: 750 of 10,000 before epochs 5, 10, 15 and 20 of 50; the mean share is 0.775."""
    removal = made()
    assert [epoch for epoch in range(50) if removal.before(epoch)] == [5, 10, 15, 20] and removal.each(10_000) == 750
    assert [removal.left(10_000, epoch) for epoch in (0, 4, 5, 10, 15, 20, 49)] == [
        10_000, 10_000, 9_250, 8_500, 7_750, 7_000, 7_000,
    ]  # fmt: skip
    assert removal.share_seen(10_000, 50) == pytest.approx(0.775, abs=1e-12)


# -- which -----------------------------------------------------------------------------------------------------------------


def test_forgetting_events_of_sequences():
    """[1,0,1,0] twice, [1,1,1,1] never, [0,0,0,0] as often as there are epochs, [0,1,1,1] never; the last was not seen."""
    tally = Tally(5, never=50)
    for right in ([1, 1, 0, 0], [0, 1, 0, 1], [1, 1, 0, 1], [0, 1, 0, 1]):
        tally.look(torch.arange(4), tensor(right, dtype=torch.bool))
    assert tally.forgotten().tolist() == [2, 0, 50, 0, 0] and tally.wrong.tolist() == [2, 0, 4, 1, 0]
    tally.restart()
    assert tally.forgotten().tolist() == tally.wrong.tolist() == [0] * 5


class Numbers:
    """Examples are their own numbers."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def rows(self, rng):
        return np.arange(self.size) if rng is None else rng.permutation(self.size)

    def batches(self, jobs):
        for job in jobs:
            rows = torch.as_tensor(job.rows[job.mine])
            yield rows, rows * 10


def thinned(removal, size=24, batch=5, updates=14, accumulate=1):
    left = Left(Numbers(size))
    lengths = epoch_lengths(size, batch, removal)
    run = RunLoader(Loader(left, batch, seed=3, train=True), updates, accumulate, lengths)
    return left, run, Remover(removal, [left], [run], seed=0)


def test_the_easiest_leave_first():
    """Two of 24 leave, three times: of those that were never forgotten; never seen examples stay, and rows are the whole's."""
    removal = made(share=0.25, every=2, until=6, counts="forgotten")
    left, run, remover = thinned(removal, updates=28)
    hard = set(range(20))
    for update, (rows, _) in enumerate(run, start=1):
        forgotten = tensor([int(row) in hard for row in rows]) & (tensor([update % 2]) == 0)
        remover.tally.look(rows, ~forgotten)
        remover.after_update(update)
    gone = set(np.flatnonzero(~left.here))
    assert len(gone) == 6 and remover.measures()["removed"] == 6
    scores, unseen = np.array([2, 0, 50, 0, 0]), np.array([0, 0, 0, 0, 1], bool)
    small = made(share=0.8, every=1, until=2)  # two of five
    _, _, other = thinned(small, size=5, batch=1, updates=9)
    assert set(other.first_to_go(scores, unseen, np.ones(5, bool), 0, 1)) == {1, 3}
    assert set(other.first_to_go(scores, unseen, np.array([1, 0, 1, 1, 1], bool), 0, 1)) == {3, 0}


def test_which_of_equal_examples_leave_is_chance():
    removal = made("random", share=0.5, every=1, until=1)
    _, _, remover = thinned(removal)
    equal, seen, here = np.zeros(24, int), np.zeros(24, bool), np.ones(24, bool)
    one, again = (remover.first_to_go(equal, seen, here, 0, 1) for _ in range(2))
    other = remover.first_to_go(equal, seen, here, 0, 2)
    assert len(one) == 12 and one.tolist() == again.tolist() and set(one) != set(other) and set(one) != set(range(12))


@pytest.mark.parametrize("accumulate", [1, 5])
def test_shorter_epochs_go_on_at_any_micro_batch(accumulate):
    """Every epoch has what is left, each once; a loader that begins later, with the same examples gone, gives the same."""
    removal = made("random", share=0.5, every=1, until=2)  # 24, 18 and 12 examples: 4, 3 and 2 batches

    def through(start, here=None):
        left, run, remover = thinned(removal, accumulate=accumulate)
        run.start = start
        if here is not None:
            left.here[:] = here
        for index, batch in enumerate(run, start=start + 1):
            if index % accumulate == 0:
                remover.after_update(index // accumulate)
            yield [row for part in batch[:1] for row in part.tolist()], left.here.copy()

    whole = list(through(0))
    assert len(whole) == 14 * accumulate
    rows = [row for batch, _ in whole for row in batch]
    for first, end in ((0, 20), (20, 35), (35, 45), (45, 55)):
        assert len(set(rows[first:end])) == end - first
    for start in range(1, len(whole)):
        assert [batch for batch, _ in through(start, whole[start - 1][1])] == [batch for batch, _ in whole[start:]]


# -- whole runs --------------------------------------------------------------------------------------------------------------


def record_of(folder, *words):
    assert run_cell(plan_of([*SHARED, *words, "trainer.checkpoint_every=3", f"runs_dir={folder}"])) == 0
    return json.loads(next(folder.glob("*/record.json")).read_text())


@pytest.mark.parametrize(
    ("words", "update"), [(LATE, 17), (("removal.counts=mistaken",), 31)], ids=["scenario", "plain"]
)
def test_resumed_in_the_middle_of_an_epoch_is_unbroken(tmp_path, monkeypatch, words, update):
    """A crash in a shorter epoch, with counters that have begun: the same numbers and the same bits."""
    monkeypatch.setattr(Checkpoints, "clear", lambda store: None)
    want = record_of(tmp_path / "whole", *words)
    after = Loop.on_train_batch_end

    def dies(loop, trainer, *args):
        after(loop, trainer, *args)
        if trainer.global_step == update:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(BaseException):  # noqa: B017 (as a kill would)
        patch.setattr(Loop, "on_train_batch_end", dies)
        record_of(tmp_path / "broken", *words)
    got = record_of(tmp_path / "broken", *words)
    assert got["metrics"] == want["metrics"] and got["metrics"]["train.removed"] == 90
    whole, broken = (next((tmp_path / run).glob("*/model.safetensors")).read_bytes() for run in ("whole", "broken"))
    assert whole == broken


def test_updates_are_those_of_shorter_epochs():
    plan = plan_of(SHARED)  # 300, 270, 240, 210 and 210 examples in batches of 20
    assert plan.steps == 15 + 13 + 12 + 10 + 10 and plan.parts.epochs == ((15, 28, 40, 50, 60),)
    tasks = plan_of([*SHARED, "scenario=class_incremental"])  # 60, 54, 48, 42 and 42 of each task
    assert tasks.parts.ends == (11, 22, 33, 44, 55) and tasks.parts.epochs == ((3, 5, 7, 9, 11),) * 5
    assert plan.id != plan_of([*SHARED, "removal=random"]).id


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["removal.share=1.2"], "removal.share=1.2: input should be less than 1"),
        (["removal.share=0.95"], "removal.share=0.95: leaves 15 of 300 examples of digits, and a batch has 20"),
        (["removal.share=0.001"], "removal.share=0.001: is less than an example of digits at a time"),
        (["removal.until=5"], "removal.until=5: there are 5 epochs of digits"),
        (["removal.every=4"], "removal.until=3: nothing is removed before epoch 4"),
        (["trainer.keep_at=[2epochs]"], "trainer.keep_at=[2epochs]: epochs have different lengths"),
        (["scenario=class_incremental", "trainer.batch_size=50"], "removal.share=0.3: leaves 42 of 60 examples of task 0"),
    ],
)  # fmt: skip
def test_refusals(words, line):
    with pytest.raises(ConfigError) as refused:
        plan_of([*SHARED, *words])
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)
