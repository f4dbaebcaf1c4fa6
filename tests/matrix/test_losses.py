"""Losses that compare hidden states, through every trait of a run: what hooks see must not depend on how it is run."""

from __future__ import annotations

import functools

import pytest
import torch
from matrix_cells import Row, config_of

from sparselab.core.errors import Stopped
from sparselab.running.planning import engine_of
from sparselab.training.loop.stopping import StopFlag
from sparselab.training.runner import execute

ROW = Row("magnitude", "unstructured", "one_shot")


@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_states_are_seen_compiled_accumulated_and_in_half_precision(precision, run, teacher, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    losses = ("loss=[distill,squarehead]", f"loss.distill.teacher='{teacher}'", f"loss.squarehead.teacher='{teacher}'")
    plain, compiled = (
        run(ROW, *losses, trainer={"precision": precision, "accumulate": 2, "compile": compiled})
        for compiled in (False, True)
    )
    for name, value in plain.state.items():
        torch.testing.assert_close(value, compiled.state[name], rtol=1e-3, atol=1e-4)


def test_micro_batches_give_the_gradient_of_the_batch_up_to_its_normaliser(run, teacher):
    """Each micro-batch is divided by its own teacher's size, as in the authors' code: near, not equal."""
    loss = ("loss=[squarehead]", f"loss.squarehead.teacher='{teacher}'")
    whole, cut = (run(ROW, *loss, trainer={"accumulate": k}) for k in (1, 4))
    for name, value in whole.state.items():
        torch.testing.assert_close(value, cut.state[name], rtol=0.05, atol=0.02)


def test_resumed_bit_for_bit(teacher, tmp_path):
    """Stopped half-way and run again: the teacher is looked at as before."""
    loss = ("loss=[squarehead]", f"loss.squarehead.teacher='{teacher}'")
    config = config_of(ROW, tmp_path / "whole", *loss)
    whole = execute(engine_of(config).plan(config, []))

    class Late(StopFlag):
        looks = 0

        def __bool__(self):
            self.looks += 1
            return self.looks > 8

    config = config_of(ROW, tmp_path / "stopped", *loss)
    flag = Late()
    flag.name = "test"
    with pytest.raises(Stopped):
        execute(engine_of(config).plan(config, []), flag)
    resumed = execute(engine_of(config).plan(config, []))
    assert resumed.resumed_from
    for name, value in whole.state.items():
        assert torch.equal(value, resumed.state[name]), name
