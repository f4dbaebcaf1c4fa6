"""How soon a run scores as well as it is asked to, and the mean of its training loss."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sparselab.core.errors import ConfigError
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.training.loop import reach as module
from sparselab.training.loop.reach import Reach

CELL = [
    "method=dense", "model=mlp", "model.hidden=[32]", "optim.lr=0.01", "trainer.max_epochs=null", "trainer.max_steps=40",
    "trainer.accelerator=cpu", "trainer.progress=none", "trainer.threads=1",
]  # fmt: skip


def metrics(tmp_path, *overrides):
    plan = plan_of([*CELL, *overrides, f"runs_dir={tmp_path}"])
    assert run_cell(plan) == 0
    return json.loads(Path(plan.folder, "record.json").read_text())["metrics"]


def looked(values, target, higher, every, monkeypatch):
    """The update that a run is told that has these scores, update by update, and the scores that were asked for."""
    scores = iter(values)
    monkeypatch.setattr(module, "evaluate", lambda *a: {"score": next(scores)})
    observer = Reach(None, target, every, 10, higher, None, None)
    for step in range(1, 11):
        loop = SimpleNamespace(losses=[torch.tensor(float(step))], task=SimpleNamespace(headline="score"))
        observer.after_update(loop, step)
    return observer.metrics(), list(scores)


def test_the_first_look_that_is_good_enough_counts(monkeypatch):
    found, left = looked([0.1, 0.6, 0.2, 0.9], 0.5, True, 3, monkeypatch)
    assert found == {"train.reached": 6.0, "train.loss_mean": 5.5} and left == [0.2, 0.9], (
        "nobody looks once it is there"
    )
    assert looked([9.0, 4.0], 5.0, False, 3, monkeypatch)[0]["train.reached"] == 6
    assert looked([0.1, 0.2, 0.3, 0.9], 0.5, True, 3, monkeypatch)[0]["train.reached"] == 10, (
        "the end is always looked at"
    )
    assert looked([0.1, 0.2, 0.3, 0.4], 0.5, True, 3, monkeypatch)[0]["train.reached"] == 11, "never"


def test_it_is_part_of_a_record_only_where_it_is_asked_for_and_changes_nothing_else(tmp_path):
    plain = metrics(tmp_path)
    asked = metrics(tmp_path, "trainer.reach=0.5", "trainer.reach_every=5")
    assert asked.keys() - plain.keys() == {"train.reached", "train.loss_mean"}
    assert {key: asked[key] for key in plain} == plain
    assert (
        asked["train.reached"] % 5 == 0
        and asked["train.reached"] < 40
        and asked["train.loss_mean"] > asked["train.loss"]
    )


def test_what_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"trainer.reach=90: a share of right answers is at most 1 — write trainer.reach=0.9"
    ):
        plan_of([*CELL, "trainer.reach=90"])
    with pytest.raises(ConfigError, match="no validation data to look at"):
        plan_of([*CELL, "trainer.reach=0.9", "dataset.val=0"])
