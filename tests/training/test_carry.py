"""The state between windows: whose it is, when it begins anew, and what a checkpoint holds of it."""

from __future__ import annotations

import pytest
import torch
from data_specs import text_data
from recipes import plain
from torch import nn

from sparselab.core.options import Options
from sparselab.inputs.data.splits import TextSplits
from sparselab.inputs.models.family import MODELS
from sparselab.training.loop import carry
from sparselab.training.loop.carry import Carry, mapped
from sparselab.training.loop.evaluate import evaluate
from sparselab.training.loop.module import TaskModule
from sparselab.training.tasks.task import TASKS


class Full:
    """A precision plugin that does nothing."""

    def forward_context(self):
        return torch.autocast("cpu", enabled=False)


def task(block=4):
    family = MODELS["lstm"](MODELS["lstm"].Options(width=5, depth=2, dropout=0.0, carry=True))
    data = text_data(block, 11, ordered=True)
    torch.manual_seed(0)
    made = TaskModule(
        TASKS["language_modeling"](Options()),
        family.build(data),
        family,
        data,
        plain(),
        (),
        10,
    )
    made.carry = Carry()
    return made


def test_windows_in_a_row_are_one_text_and_its_beginning_is_nothing():
    made, text = task(), torch.randint(11, (3, 12))
    with torch.no_grad():
        whole = made.family.logits(made.network, text)
        for epoch in range(2):
            made.carry = Carry(1, period=3) if epoch == 0 else made.carry
            parts = []
            for index, part in enumerate(text.split(4, 1)):
                made.begin(3 * epoch + index)
                parts.append(made.logits(part))
            assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-6)


def test_micro_batches_have_streams_of_their_own():
    made, text = task(), torch.randint(11, (4, 8))
    made.carry = Carry(places=2, period=4)
    seen = []
    with torch.no_grad():
        for window in text.split(4, 1):
            for rows in window.chunk(2):
                made.begin(len(seen))
                seen.append(made.logits(rows))
        whole = made.family.logits(made.network, text)
    assert torch.allclose(torch.cat([torch.cat(seen[:2]), torch.cat(seen[2:])], 1), whole, atol=1e-6)


def test_gradients_end_where_a_window_begins():
    made, text = task(), torch.randint(11, (2, 8))
    made.begin(0)
    made.logits(text[:, :4])
    assert not any(part.requires_grad for layer in made.carry.states[0] for part in layer)
    state = mapped(made.carry.states[0], torch.clone)
    loss = made.training_step((text[:, 4:], text[:, 4:]), 1)
    loss.backward()
    got = {name: p.grad.clone() for name, p in made.network.named_parameters()}
    made.network.zero_grad()
    logits, _ = made.family.carried(made.network, text[:, 4:], state)
    nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 4:].flatten()).backward()
    for name, p in made.network.named_parameters():
        assert torch.allclose(p.grad, got[name], atol=1e-7), name


@pytest.mark.parametrize("streams", [1, 3, 7])
def test_scoring_begins_with_nothing_and_leaves_training_alone(streams):
    """Each stream is scored as if it were one window, with every prediction counted once."""
    made, tokens = task(), torch.randint(11, (41,), dtype=torch.uint8)
    splits = TextSplits(tokens, tokens, tokens, 11, 4, dict.fromkeys(("train", "val", "test"), 41), streams=True)
    made.bytes_per_token = splits.bytes_per_token
    made.logits(torch.randint(11, (2, 4)))
    before = mapped(made.carry.states[0], torch.clone)
    metrics = [evaluate(made, splits.loader("test", streams, 0), "test", Full()) for _ in range(2)]
    assert metrics[0] == metrics[1] and metrics[0]["n"] == 40
    length, nats = -(-40 // streams), 0.0
    with torch.no_grad():
        for start in range(0, 40, length):
            part = tokens[start : start + length + 1].long()
            logits = made.family.logits(made.network, part[None, :-1])
            nats += float(nn.functional.cross_entropy(logits[0], part[1:], reduction="sum"))
    assert metrics[0]["loss"] == pytest.approx(nats / 40, rel=1e-5)
    for layer, kept in zip(made.carry.states[0], before, strict=True):
        assert torch.equal(layer[0], kept[0]) and torch.equal(layer[1], kept[1])


def test_a_checkpoint_holds_it():
    made, text = task(), torch.randint(11, (2, 8))
    made.carry = Carry(1, period=9)
    made.begin(0)
    made.logits(text[:, :4])
    checkpoint = {}
    made.on_save_checkpoint(checkpoint)
    made.begin(1)
    want = made.logits(text[:, 4:])
    again = task()
    again.carry = Carry(1, period=9)
    again.on_load_checkpoint(checkpoint)
    again.begin(1)
    assert torch.equal(again.logits(text[:, 4:]), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_processes_put_their_rows_together_and_take_them_apart(monkeypatch, dtype):
    """Rows of all processes in order; on resume there may be another number of processes."""
    rows = torch.randn(1, 4, 3).to(dtype)
    monkeypatch.setattr(carry, "_many", lambda: True)
    monkeypatch.setattr(carry.dist, "get_world_size", lambda: 2)

    def gather(parts, mine):
        assert mine.dtype == torch.uint8
        for part, half in zip(parts, rows.chunk(2, 1), strict=True):
            part.copy_(half.contiguous().view(torch.uint8))

    monkeypatch.setattr(carry.dist, "all_gather", gather)
    one = Carry()
    one.states = [[(rows[:, :2], rows[:, :2])]]
    (((hidden, cell),),) = one.whole()
    assert torch.equal(hidden, rows) and torch.equal(cell, rows)
    for world in (1, 2, 4):
        monkeypatch.setattr(carry.dist, "get_world_size", lambda world=world: world)
        for rank in range(world):
            monkeypatch.setattr(carry.dist, "get_rank", lambda rank=rank: rank)
            one.restore([[(rows, rows)]])
            assert torch.equal(one.states[0][0][0], rows.chunk(world, 1)[rank])


def test_a_family_without_a_state_has_none():
    assert not MODELS["gpt"](MODELS["gpt"].Options()).carries
    with pytest.raises(NotImplementedError, match="GPT carries no state"):
        MODELS["gpt"](MODELS["gpt"].Options()).carried(nn.Identity(), torch.zeros(1), None)
