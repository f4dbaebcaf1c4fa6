from __future__ import annotations

from types import SimpleNamespace

import torch

from sparselab.training.loop import watch
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
