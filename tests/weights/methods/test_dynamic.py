"""SET, RigL and the random mask: who goes, who grows, and with what."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hand_slots import hand_slots, sgd, update

from sparselab.weights.slot import UpdateContext

EVERY = {"schedule": "periodic", "every": 1, "stop": 1.0, "fraction": 0.5, "decay": "constant"}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exchanged(before, weights, growth, drop):
    """The mask after an exchange, by sorting: the ``drop`` smallest of the kept go, the largest of ``growth`` come."""
    flat, active = weights.flatten(), before.flatten().nonzero().flatten().tolist()
    survivors = sorted(active, key=lambda i: -abs(float(flat[i])))[: len(active) - drop]
    candidates = [i for i in range(flat.numel()) if i not in survivors]
    grown = sorted(candidates, key=lambda i: -float(growth.flatten()[i]))[:drop]
    mask = torch.zeros(flat.numel(), dtype=torch.bool)
    mask[survivors + grown] = True
    return mask.view_as(before)


def test_rigl_grows_exactly_the_largest_dense_gradients():
    """A linear layer y = x W^T under squared error: the gradient by hand, the exchange by sorting."""
    weights, inputs, targets = normal(6, 8), normal(5, 8, seed=1), normal(5, 6, seed=2)
    sparsifier = hand_slots("rigl", weights, 0.5, total=9, **EVERY)
    sparsifier.start()
    slot, optimizer = sparsifier.slots[0], sgd(sparsifier, lr=0.05)
    for step in range(1, 9):
        before, w = slot.mask.clone(), slot.param.data.clone()
        slot.param.grad = None
        ((inputs @ slot.param.T - targets) ** 2).sum().backward()
        dense = 2 * (inputs @ w.T - targets).T @ inputs
        assert torch.allclose(slot.param.grad, dense, rtol=1e-4, atol=1e-4)
        moved = (w - 0.05 * slot.param.grad * before) * before
        want = exchanged(before, moved, slot.param.grad.abs(), drop=12)
        sparsifier.before_step(step)
        optimizer.step()
        sparsifier.after_step(step, optimizer)
        assert torch.equal(slot.mask, want)
        stayed = want & before  # those that were dropped and grown again among them: their value stays
        torch.testing.assert_close(slot.param.data[stayed], moved[stayed], rtol=1e-6, atol=1e-7)
        assert torch.count_nonzero(slot.param.data[want & ~before]) == 0, "grown connections start at zero"
        assert slot.dense_grad is None


def test_a_connection_dropped_and_grown_in_one_exchange_keeps_its_value():
    weights = torch.tensor([[3.0, 2.0, 0.1, 0.2]])
    sparsifier = hand_slots("rigl", weights, 0.25, total=3, **EVERY)  # keeps 3, exchanges 1
    sparsifier.start()
    slot = sparsifier.slots[0]
    slot.mask = torch.tensor([[True, True, True, False]])
    sparsifier._write_effective()
    update(sparsifier, sgd(sparsifier, lr=0.0), 1, [torch.tensor([[0.0, 0.0, 9.0, 1.0]])])
    assert slot.mask.tolist() == [[True, True, True, False]]
    assert torch.equal(slot.param.data, torch.tensor([[3.0, 2.0, 0.1, 0.0]]))


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_fifty_exchanges_keep_the_count(method):
    """Masks are made anew, never multiplied: density does not drift, and connections do move."""
    sparsifier = hand_slots(method, [normal(8, 16), normal(4, 8)], 0.75, total=60, **EVERY)
    sparsifier.start()
    optimizer = torch.optim.AdamW([slot.param for slot in sparsifier.slots], lr=0.01)
    masks = []
    for step in range(1, 51):
        update(sparsifier, optimizer, step, [normal(8, 16, seed=step), normal(4, 8, seed=100 + step)])
        masks.append(sparsifier.slots[0].mask.clone())
        assert (
            [int(slot.mask.sum()) for slot in sparsifier.slots] == [32, 8] == [slot.kept for slot in sparsifier.slots]
        )
    assert sum(not torch.equal(a, b) for a, b in pairwise(masks)) == 49
    assert torch.stack(masks).any(0).float().mean() > 0.5


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_what_grows_starts_at_zero_with_an_empty_optimiser_state(method):
    sparsifier = hand_slots(method, normal(8, 16), 0.5, total=30, **EVERY)
    sparsifier.start()
    slot = sparsifier.slots[0]
    optimizer = torch.optim.Adam([slot.param], lr=0.01)
    grown = 0
    for step in range(1, 21):
        before = slot.mask.clone()
        update(sparsifier, optimizer, step, [normal(8, 16, seed=step)])
        new, state = slot.mask & ~before, optimizer.state[slot.param]
        grown += int(new.sum())
        assert torch.count_nonzero(slot.param.data[new]) == 0
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.count_nonzero(state[key][new]) == 0
            assert torch.count_nonzero(state[key][~slot.mask]) == 0, "left behind by a weight that went"
    assert grown > 100


def test_set_drops_the_smallest_and_grows_by_the_addressed_draw():
    sparsifier = hand_slots("set", normal(6, 8), 0.5, total=9, seed=7, **EVERY)
    sparsifier.start()
    slot = sparsifier.slots[0]
    for step in range(1, 6):
        before, draw = slot.mask.clone(), UpdateContext(step, 9, 0.5, 7).random(slot)
        want = exchanged(before, slot.param.data, draw, drop=12)
        update(sparsifier, None, step, [torch.zeros(6, 8)])
        assert torch.equal(slot.mask, want)


@pytest.mark.parametrize(
    ("method", "schedule"), [("set", EVERY), ("rigl", EVERY), ("random", {"schedule": "constant"})]
)
def test_random_masks_come_from_the_seed_and_the_layer_s_name_alone(method, schedule):
    def masks(seed, init, other_draws=0):
        torch.manual_seed(init)
        torch.rand(other_draws)
        sparsifier = hand_slots(
            method, [normal(8, 16, seed=init), normal(8, 16, seed=init + 1)], 0.5, seed=seed, **schedule
        )
        sparsifier.start()
        return [slot.mask.clone() for slot in sparsifier.slots]

    first = masks(seed=1, init=0)
    assert all(map(torch.equal, first, masks(seed=1, init=5, other_draws=3))), (
        "independent of the weights and of other draws"
    )
    assert not torch.equal(first[0], masks(seed=2, init=0)[0])
    assert not torch.equal(first[0], first[1]), "layers of one shape draw different masks"


def test_an_exchange_is_drawn_anew_each_time():
    slot = hand_slots("set", normal(4, 4)).slots[0]
    draws = [UpdateContext(step, 9, 0.5, 0).random(slot) for step in (1, 2)]
    assert not torch.equal(*draws)
    assert torch.equal(draws[0], UpdateContext(1, 9, 0.1, 0).random(slot))


@pytest.mark.parametrize("sparsity", [0.5, "2:4", "block:2x2:0.5", "channel:0.5", "in_channel:0.5"])
def test_a_random_mask_never_changes_and_is_no_function_of_the_weights(sparsity):
    sparsifier = hand_slots("random", normal(8, 16), sparsity, total=60)
    sparsifier.start()
    slot = sparsifier.slots[0]
    first = slot.mask.clone()
    optimizer = sgd(sparsifier, momentum=0.9, weight_decay=0.1)
    for step in range(1, 51):
        update(sparsifier, optimizer, step, [normal(8, 16, seed=step)])
        assert torch.equal(slot.mask, first)
        assert torch.count_nonzero(slot.param.data[~first]) == 0
    reborn = hand_slots("random", torch.zeros(8, 16), sparsity, total=60)
    reborn.start()
    assert torch.equal(reborn.slots[0].mask, first)


def test_initial_weights_may_be_rescaled_by_the_density_of_their_layer():
    """A quarter of the weights stays, each twice as large; the mask is the same."""
    plain, scaled = (
        hand_slots("random", normal(8, 16), 0.75, options={"rescale": rescale}) for rescale in (False, True)
    )
    for sparsifier in (plain, scaled):
        sparsifier.start()
    assert torch.equal(scaled.slots[0].mask, plain.slots[0].mask)
    assert torch.equal(scaled.slots[0].param.data, 2 * plain.slots[0].param.data)


def test_no_exchange_without_a_share():
    sparsifier = hand_slots("rigl", normal(2, 4), 0.5, total=9, **EVERY | {"fraction": 0.1})
    sparsifier.start()
    first = sparsifier.slots[0].mask.clone()
    update(sparsifier, sgd(sparsifier), 1, [normal(2, 4, seed=1)])
    assert torch.equal(sparsifier.slots[0].mask, first)


def test_initial_weights_may_be_rescaled_by_the_density_of_all_layers():
    """As VITA-Group/Random_Pruning --scaled: one density for all, 12 of 48 weights here, so that all are doubled."""
    weights = [torch.ones(4, 4), torch.ones(4, 8)]
    sparsifier = hand_slots("random", weights, options={"rescale": "global"})
    sparsifier.allocate = lambda level, scores: {"layer0": 8, "layer1": 4}
    sparsifier.start()
    for slot, kept in zip(sparsifier.slots, (8, 4), strict=True):
        assert slot.param.unique().tolist() == [0.0, 2.0] and int(slot.mask.sum()) == kept
