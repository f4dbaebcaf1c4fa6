"""Drill N1: a value that is not a number stops the run within one update, which names the place, and leaves no result.

The control is Lightning left alone: it trains on to the end and reports a metric.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from matrix_cells import ANYWHERE, UPDATES, Watch, config_of, first_rows, watched

from sparselab.running.planning import engine_of
from sparselab.running.run_cell import guarded, run_cell
from sparselab.storage import record as records
from sparselab.training.losses.distill import Distill
from sparselab.training.tasks.classification import Classification
from sparselab.weights.method import METHODS

NAN = float("nan")
WHEN = 5  # micro-batch at which the value is planted, counted from 0: update 6


def in_gradient(value):
    def plant(loop):
        if loop.batches == WHEN:
            loop.task.network.get_parameter("layers.1.weight").grad[0, 0] = value

    return plant


def in_weight(loop, batch):
    if loop.batches == WHEN:
        loop.task.network.get_parameter("layers.1.weight").data[0, 0] = NAN


def in_kept_and_pruned_master(loop, batch):
    if loop.batches == WHEN:
        for slot in loop.sparsifier.slots[1:]:
            (slot.param.data if slot.master is None else slot.master)[0] = NAN
            loop.sparsifier.method.effective(slot, out=slot.param.data)


def in_input(loop, batch):
    if loop.batches == WHEN:
        batch[0].view(-1)[0] = NAN


PLANTS = {
    "gradient": (Watch(gradients=in_gradient(NAN)), "the gradient is not finite, first in layers.1.weight"),
    "infinite gradient": (Watch(gradients=in_gradient(float("inf"))), "first in layers.1.weight"),
    "weight": (Watch(before=in_weight), "layers.1.weight is not finite"),
    "master": (Watch(before=in_kept_and_pruned_master), "layers.1.weight is not finite"),
    "input": (Watch(before=in_input), "the inputs of the batch"),
}


def run_to_failure(row, tmp_path, monkeypatch, capsys, watch, *overrides, **groups):
    """The line that a run ends with, after making sure that it left a failure and no result."""
    config = config_of(row, tmp_path, *overrides, **groups)
    plan = engine_of(config).plan(config, [])
    watch = Watch(watch.skip, watch.before, watch.gradients, watch.pulled, watch.after)
    watched(plan, monkeypatch, watch)
    assert guarded(lambda: run_cell(plan)) == 1
    captured = capsys.readouterr()
    line = captured.err.strip().splitlines()[-1]
    assert line.startswith("failed: ") and "Traceback" not in captured.err
    assert not captured.out
    assert records.finished(plan.folder, plan.id) is None
    assert records.read(plan.folder, plan.id)["status"] == "failed"
    assert not list(Path(plan.folder).glob("*.safetensors"))
    return line, watch.taken


CASES = [(m, plant) for m in ANYWHERE for plant in PLANTS if plant != "master" or METHODS[m].patterns != ("dense",)]


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize(("method", "plant"), CASES)
def test_training_stops_within_one_update(method, plant, accumulate, tmp_path, monkeypatch, capsys):
    watch, place = PLANTS[plant]
    row = first_rows(method)[0]
    line, taken = run_to_failure(row, tmp_path, monkeypatch, capsys, watch, trainer={"accumulate": accumulate})
    update = WHEN // accumulate + 1
    assert taken == list(range(1, update))
    assert f"update {update}:" in line
    assert place in line


def test_a_loss_stops_the_run(tmp_path, monkeypatch, capsys):
    plain, calls = Classification.criterion, []

    def criterion(self, *asked):
        calls.append(1)
        return plain(self, *asked) * (NAN if len(calls) == WHEN + 1 else 1)

    monkeypatch.setattr(Classification, "criterion", criterion)
    line, taken = run_to_failure(first_rows("dense")[0], tmp_path, monkeypatch, capsys, Watch())
    assert "update 6: the training loss is nan" in line and taken == [1, 2, 3, 4, 5]


SCORED = [row for m in METHODS for row in first_rows(m)[:1] if row.kind != "dense" and METHODS[m].every_step]


@pytest.mark.parametrize("distribution", ["uniform", "global"])
@pytest.mark.parametrize("row", SCORED, ids=str)
def test_a_score_stops_the_run(row, distribution, tmp_path, monkeypatch, capsys):
    cls = METHODS[row.method]
    plain = cls.score

    def score(self, slot, context):
        scores = plain(self, slot, context)
        if context.step == 6 and slot.layer.name == "layers.1":
            scores[0, 0] = NAN
        return scores

    monkeypatch.setattr(cls, "score", score)
    line, taken = run_to_failure(row, tmp_path, monkeypatch, capsys, Watch(), f"distribution={distribution}")
    assert "step 6: layers.1.weight: " in line
    assert taken == [1, 2, 3, 4, 5]


def test_a_teacher_stops_the_run(tmp_path, monkeypatch, capsys, teacher):
    plain, calls = Distill.loss, []

    def loss(self, task, batch, logits):
        calls.append(1)
        if len(calls) == WHEN + 1:
            next(self.teacher.network.parameters()).data.fill_(NAN)
        return plain(self, task, batch, logits)

    monkeypatch.setattr(Distill, "loss", loss)
    overrides = ("loss=[distill]", f"loss.distill.teacher='{teacher}'")
    row = first_rows("srste")[0]
    line, taken = run_to_failure(row, tmp_path / "runs", monkeypatch, capsys, Watch(), *overrides)
    assert "update 6: the teacher's logits are not finite" in line and taken == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("split", "evals"), [("val", 4), ("test", 0)])
def test_a_metric_stops_the_run(split, evals, tmp_path, monkeypatch, capsys):
    plain = Classification.numbers
    monkeypatch.setattr(Classification, "numbers", lambda *given: plain(*given) | {"loss": NAN})
    line, taken = run_to_failure(first_rows("gmp")[0], tmp_path, monkeypatch, capsys, Watch(), trainer={"evals": evals})
    assert f"{split}.loss is nan" in line
    assert len(taken) == (UPDATES // evals if evals else UPDATES)


def test_a_gradient_that_no_loss_scale_helps_stops_the_run(tmp_path, monkeypatch, capsys):
    """The scaler skips the update and halves its scale, as it should; a scale below 1 is the end of that."""

    def from_then_on(loop):
        if loop.batches >= WHEN:
            loop.task.network.get_parameter("layers.1.weight").grad.fill_(NAN)

    trainer = {"precision": "16", "max_steps": 60}
    watch = Watch(gradients=from_then_on)
    line, taken = run_to_failure(first_rows("srste")[0], tmp_path, monkeypatch, capsys, watch, trainer=trainer)
    assert "layers.1.weight" in line and taken == [1, 2, 3, 4, 5]


# -- the control ------------------------------------------------------------------------------------------------------


class Plain(pl.LightningModule):
    """What most training code does."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def training_step(self, batch, index):
        loss = torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
        return loss * (NAN if index == WHEN else 1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_alone_trains_on(tmp_path):
    data = torch.utils.data.TensorDataset(torch.randn(80, 4), torch.randint(3, (80,)))
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(max_steps=10, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    module = Plain()
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=8))
    assert trainer.global_step == 10 and trainer.state.finished
    assert all(math.isnan(value) for value in module.layer.weight.detach().flatten())
    accuracy = float((module.layer(data.tensors[0]).argmax(1) == data.tensors[1]).float().mean())
    assert 0 <= accuracy <= 1  # a number like any other
