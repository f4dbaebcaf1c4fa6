from __future__ import annotations

from types import SimpleNamespace

import torch

from sparselab.engines.train.loop import Loop
from sparselab.engines.train.watch import History


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
