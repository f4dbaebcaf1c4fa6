"""Gradual magnitude pruning against arXiv 1710.01878; what keep and zero do to a pruned value."""

from __future__ import annotations

import pytest
import torch
from hand_slots import hand_slots, sgd, update
from torch import tensor

RAMP = {"schedule": "cubic", "begin": 0.0, "end": 0.8, "every": 2}


@pytest.mark.parametrize("method", ["magnitude", "gmp"])
def test_the_smallest_magnitudes_go(method):
    sparsifier = hand_slots(method, tensor([[0.1, -0.5, 0.3, 0.2]]), 0.5, "one_shot", at=0.0)
    sparsifier.start()
    assert sparsifier.slots[0].mask.tolist() == [[False, True, True, False]]


def test_never_nothing():
    """numel 10, sparsity 0.85: round(1.5) = 2; and at least one weight stays whatever is asked for."""
    for sparsity, kept in ((0.85, 2), (0.999, 1)):
        sparsifier = hand_slots("gmp", torch.arange(1.0, 11).view(2, 5), sparsity, "one_shot", at=0.0)
        sparsifier.start()
        assert int(sparsifier.slots[0].mask.sum()) == kept


def test_masks_are_made_at_t0_plus_i_dt_and_never_after():
    """Ten updates, ramp from 0 to 8 every 2: n + 1 = 5 masks, the last with the final sparsity, then none."""
    generator = torch.Generator().manual_seed(0)
    sparsifier = hand_slots("gmp", torch.randn(10, 10, generator=generator), 0.9, total=10, **RAMP)
    made = []
    sparsifier.start()
    sparsifier.on_mask_change = lambda: made.append(step)
    optimizer, kept = sgd(sparsifier), {0: sparsifier.slots[0].kept}
    for step in range(1, 11):
        update(sparsifier, optimizer, step, [torch.randn(10, 10, generator=generator)])
        kept[step] = sparsifier.slots[0].kept
    assert sparsifier.updates == [0, 2, 4, 6, 8] and made == [2, 4, 6, 8]
    want = {k: 100 - round(90 * (1 - (1 - min(k // 2 * 2, 8) / 8) ** 3)) for k in range(11)}
    assert kept == want
    assert [step for step, _ in sparsifier.ledger] == [0, 2, 4, 6, 8]


def test_keep_leaves_a_masked_value_alone_and_lets_it_return():
    """Plain SGD without weight decay: the value waits, whatever its gradient; at the next mask it outranks another."""
    weights = tensor([[0.5, 0.6, 0.7, 0.8]])
    sparsifier = hand_slots(
        "gmp", weights, 0.5, "periodic", total=8, every=4, stop=1.0, options={"pruned_weights": "keep"}
    )
    sparsifier.start()
    slot, optimizer = sparsifier.slots[0], sgd(sparsifier, lr=0.1)
    assert slot.mask.tolist() == [[False, False, True, True]]
    for step in (1, 2, 3):
        update(sparsifier, optimizer, step, [tensor([[5.0, 5.0, 1.0, 0.0]])])
        assert torch.equal(slot.master[0, :2], weights[0, :2])
        assert slot.param.data[0, :2].tolist() == [0.0, 0.0]
    update(sparsifier, optimizer, 4, [tensor([[5.0, 5.0, 1.0, 0.0]])])  # 0.7 has come down to 0.3: 0.6 outranks it
    assert slot.mask.tolist() == [[False, True, False, True]]
    assert torch.allclose(slot.param.data, tensor([[0.0, 0.6, 0.0, 0.8]]))
    assert torch.allclose(slot.master, tensor([[0.5, 0.6, 0.3, 0.8]]))


def test_keep_lets_weight_decay_act_on_waiting_values():
    sparsifier = hand_slots("gmp", tensor([[0.5, 0.6, 0.7, 0.8]]), 0.5, "one_shot", at=0.0)
    sparsifier.start()
    update(sparsifier, sgd(sparsifier, lr=0.1, weight_decay=1.0), 1, [torch.zeros(1, 4)])
    assert torch.allclose(sparsifier.slots[0].master, 0.9 * tensor([[0.5, 0.6, 0.7, 0.8]]))


def test_zero_restarts_a_pruned_value_from_zero():
    weights = tensor([[0.5, 0.6, 0.7, 0.8]])
    sparsifier = hand_slots("gmp", weights, 0.5, "one_shot", at=0.0, options={"pruned_weights": "zero"})
    sparsifier.start()
    slot = sparsifier.slots[0]
    assert slot.master is None and slot.param.data[0, :2].tolist() == [0.0, 0.0]
    update(sparsifier, sgd(sparsifier), 1, [torch.ones(1, 4)])
    assert slot.dense[0, :2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("options", [{"pruned_weights": "keep"}, {"pruned_weights": "zero"}])
def test_the_optimiser_forgets_weights_that_leave(options):
    """Else momentum would move the kept value of a masked weight, or bring a zero back."""
    sparsifier = hand_slots("gmp", tensor([[0.5, 0.6, 0.7, 0.8]]), 0.5, "one_shot", at=0.25, total=4, options=options)
    sparsifier.start()
    optimizer = torch.optim.AdamW([sparsifier.slots[0].param], lr=0.01, weight_decay=0.0)
    update(sparsifier, optimizer, 1, [torch.ones(1, 4)])
    slot, state = sparsifier.slots[0], optimizer.state[sparsifier.slots[0].param]
    gone = ~slot.mask
    assert gone.any() and all(
        state[key][gone].eq(0).all() and state[key][~gone].ne(0).all() for key in ("exp_avg", "exp_avg_sq")
    )
    waiting = slot.dense[gone].clone()
    for step in (2, 3, 4):
        update(sparsifier, optimizer, step, [torch.ones(1, 4)])
        assert torch.equal(slot.dense[gone], waiting)
        assert torch.count_nonzero(slot.param.data[gone]) == 0


def test_one_shot_trains_dense_before_and_masked_after():
    sparsifier = hand_slots("magnitude", tensor([[4.0, 3.0, 2.0, 1.0]]), 0.5, "one_shot", at=0.5, total=4)
    sparsifier.start()
    optimizer, slot = sgd(sparsifier, lr=1.0), sparsifier.slots[0]
    update(sparsifier, optimizer, 1, [tensor([[0.0, 0.0, 0.0, -5.0]])])
    assert slot.mask.all() and slot.param.data.tolist() == [[4.0, 3.0, 2.0, 6.0]]
    update(sparsifier, optimizer, 2, [torch.zeros(1, 4)])
    assert slot.param.data.tolist() == [[4.0, 0.0, 0.0, 6.0]]
    update(sparsifier, optimizer, 3, [tensor([[1.0, 1.0, 1.0, 1.0]])])
    assert slot.param.data.tolist() == [[3.0, 0.0, 0.0, 5.0]]
