from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from sparselab.core.errors import RunFailed
from sparselab.training.loop import watch
from sparselab.training.loop.evaluate import evaluate
from sparselab.training.loop.loop import Loop
from sparselab.training.loop.watch import History, Progress


def test_the_training_loss_is_the_mean_over_all_micro_batches(tmp_path):
    history = History(tmp_path / "metrics.csv", [], 1, 10, None, None, [])
    loop = Loop(SimpleNamespace(unswap=lambda: None), 0, [history])
    trainer, task = SimpleNamespace(accumulate_grad_batches=4, global_step=0), SimpleNamespace()
    loop.task = task
    for batch in range(8):
        task.last_loss = torch.tensor(float(batch))
        loop.on_train_batch_end(trainer, task, None, None, batch)
        trainer.global_step = (batch + 1) // 4
    assert history.losses == 2 and float(history.loss_sum) == 1.5 + 5.5 and loop.losses == []


def test_lines_say_what_is_left_once_there_is_a_pace(monkeypatch, capsys):
    """A run that goes on at update 40 has no pace at its first update, and later that of this process."""
    now = [1000.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    loop = SimpleNamespace(trainer=SimpleNamespace(is_global_zero=True), task=SimpleNamespace(last_loss=0.5))
    progress = Progress(100, SimpleNamespace(rows=[]), "lines")
    for step, seconds in ((40, 0), (50, 20), (51, 1), (60, 20), (100, 0)):
        now[0] += seconds
        progress.after_update(loop, step)
    assert capsys.readouterr().err.splitlines() == [
        "  update 40/100 · loss 0.500",
        "  update 50/100 · loss 0.500 · 100 s left",
        "  update 60/100 · loss 0.500 · 82 s left",
        "  update 100/100 · loss 0.500 · 0 s left",
    ]


def test_without_validation_data_there_is_no_validation(tmp_path):
    """dataset.val=0: the rows have the training loss alone, and the bar says nothing of a validation."""
    history = History(tmp_path / "metrics.csv", [], 1, 1, None, None, [])
    trainer = SimpleNamespace(is_global_zero=True, optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}])])
    sparsifier = SimpleNamespace(slots=[], stage=dict)
    task = SimpleNamespace(last_loss=2.0, headline="accuracy")
    loop = SimpleNamespace(losses=[torch.tensor(2.0)], trainer=trainer, sparsifier=sparsifier, task=task)
    history.before_cut(loop)
    history.after_update(loop, 1)
    assert history.rows == [{"step": 1, "lr": 0.1, "train.loss": 2.0, "density": 1.0}] and history.uncut is None
    assert Progress(1, history, "lines")._note(loop) == "loss 2.000"


def test_nothing_to_score_is_said(tmp_path):
    task = SimpleNamespace(network=torch.nn.Linear(1, 1), scoring=nullcontext, metrics=torch.nn.Module)
    with pytest.raises(RunFailed, match="test: there is not one example to score"):
        evaluate(task, [], "test", SimpleNamespace(forward_context=nullcontext))


def test_no_pace_before_five_updates(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    loop = SimpleNamespace(trainer=SimpleNamespace(is_global_zero=True), task=SimpleNamespace(last_loss=0.5))
    progress = Progress(1000, SimpleNamespace(rows=[]), "lines")
    for step in range(1, 7):
        now[0] += 20
        progress.after_update(loop, step)
    assert ["left" in line for line in capsys.readouterr().err.splitlines()] == [False] * 5 + [True]
    assert progress.pace == (5, 100.0)
