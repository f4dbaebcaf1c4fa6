"""Rewinding by hand: what goes back, to where, and what the optimiser remembers."""

from __future__ import annotations

import pytest
import torch
from hand_slots import hand_slots, sgd, update


def rounds(rewind, total=9):
    """Two masks in nine updates of one 4x6 layer and a bias; (sparsifier, weights, biases and masks after each, state)."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(4, 6, generator=generator)
    sparsifier = hand_slots("imp", weights, 0.36, "rounds", total, options={"rewind": rewind}, rounds=2)
    (slot,) = sparsifier.slots
    bias = torch.nn.Parameter(torch.zeros(4))
    optimizer = sgd(sparsifier, momentum=0.9)
    optimizer.add_param_group({"params": [bias]})
    sparsifier.start()
    seen = [(slot.param.detach().clone(), bias.detach().clone(), slot.mask.clone(), 0)]
    for step in range(1, total + 1):
        bias.grad = torch.randn(4, generator=generator)
        update(sparsifier, optimizer, step, [torch.randn(4, 6, generator=generator)])
        seen.append((slot.param.detach().clone(), bias.detach().clone(), slot.mask.clone(), len(optimizer.state)))
    return sparsifier, seen


@pytest.mark.parametrize(("rewind", "early"), [(0.0, 0), (1 / 3, 1), (0.99, 2)])
def test_each_mask_brings_the_early_weights_back(rewind, early):
    _, seen = rounds(rewind)
    for step, kept in ((3, 19), (6, 15)):  # 24 weights, 0.8 and 0.64 of them
        weights, bias, mask, remembered = seen[step]
        assert int(mask.sum()) == kept and remembered == 0
        assert torch.equal(weights, seen[early][0] * mask) and torch.equal(bias, seen[early][1])
    assert not bool((seen[6][2] & ~seen[3][2]).any()), "a pruned weight came back"
    assert not torch.equal(seen[9][0], seen[6][0])


def test_without_rewinding_weights_go_on_and_the_optimiser_remembers():
    sparsifier, seen = rounds(None)
    assert not sparsifier.early and [remembered for *_, remembered in seen[1:]] == [2] * 9
    assert not torch.equal(seen[3][1], seen[0][1])


def test_early_weights_are_part_of_the_state():
    sparsifier, _ = rounds(1 / 3)
    again = hand_slots("imp", torch.zeros(4, 6), 0.36, "rounds", 9, options={"rewind": 1 / 3}, rounds=2)
    again.load_state_dict(sparsifier.state_dict())
    assert len(again.early) == 2
    assert all(torch.equal(a, b) for a, b in zip(again.early, sparsifier.early, strict=True))
