"""DSL: the exchange of connections by hand, in every way of growing, and its schedule."""

from __future__ import annotations

import math

import pytest
import torch
from hand_slots import hand_slots

from sparselab.core.sparsity import Sparsity
from sparselab.weights.methods.exploring import DSL, fired, grown, survivors
from sparselab.weights.schedules import SCHEDULES

EXPLORING = {"every": 10, "stop": 1.0, "fraction": 0.5, "floor": 0.005}


def exploring(**options):
    cls = SCHEDULES["periodic"]
    return cls(cls.Options(**EXPLORING | options), Sparsity.parse(0.5))


def test_the_share_falls_by_a_cosine_to_its_floor():
    """Dossier: rho = 0.5 at t = 0, 0.2525 at T/2, 0.005 at T."""
    way = exploring()
    assert way.fraction(0, 1000) == 0.5 and way.fraction(500, 1000) == pytest.approx(0.2525)
    assert way.fraction(999, 1000) == pytest.approx(0.005, abs=2e-6)
    assert way.updates(50) == [0, 10, 20, 30, 40]
    usual = SCHEDULES["periodic"](SCHEDULES["periodic"].Options(), Sparsity.parse(0.5))
    assert usual.fraction(100, 1000) == 0.3 * (1 + math.cos(math.pi * float(100 / 750))) / 2
    (issue,) = exploring(floor=0.6).issues(100)
    assert "schedule.floor=0.6: is more than fraction=0.5" in str(issue)


def test_the_smallest_leave():
    """Dossier: w = [.5, -.1, .3, 0, 0], nnz 3, rho .5: two leave, the threshold is the 4th smallest, .3; .5 stays."""
    weight = torch.tensor([0.5, -0.1, 0.3, 0.0, 0.0])
    mask = torch.tensor([True, True, True, False, False])
    assert survivors(weight, mask, 0.5).tolist() == [True, False, False, False, False]
    assert survivors(weight, mask, 0.0) is mask
    equal = torch.tensor([0.3, -0.3, 0.3, 0.5])
    assert survivors(equal, torch.ones(4, dtype=torch.bool), 0.25).tolist() == [False, False, False, True], (
        "a tie leaves whole"
    )


def test_the_largest_gradients_grow():
    """Dossier: |g| = [9, 1, 2, 5, 7], index 0 active, n = 2: indices 4 and 3."""
    gradient, stay = torch.tensor([9.0, 1, 2, 5, 7]), torch.tensor([True, False, False, False, False])
    assert grown(gradient, stay, 2).nonzero().flatten().tolist() == [3, 4]
    assert grown(torch.zeros(5), stay, 4).tolist() == [False, True, True, True, True], "never one that is active"


def trained(updates=40, seed=0, **options):
    """Watch a layer of 24 x 10 learn a regression."""
    generator = torch.Generator().manual_seed(seed)
    x, target = torch.randn(64, 10, generator=generator), torch.randn(24, 10, generator=generator)
    start = torch.randn(24, 10, generator=generator) * 0.1
    sparsifier = hand_slots("dsl", start, 0.8, "periodic", total=updates, options=options, **EXPLORING)
    (slot,) = sparsifier.slots
    optimizer = torch.optim.Adam([slot.param], 0.05)
    sparsifier.start()
    seen = [(slot.mask.clone(), slot.param.detach().clone())]
    for step in range(1, updates + 1):
        optimizer.zero_grad()
        ((x @ (slot.param - target).T) ** 2).mean().backward()
        sparsifier.before_step(step, optimizer)
        optimizer.step()
        sparsifier.after_step(step, optimizer)
        seen.append((slot.mask.clone(), slot.param.detach().clone()))
    return sparsifier, seen, optimizer


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("grow", ["gradient", "random", "unfired", "momentum"])
def test_the_budget_of_a_layer_never_changes(grow, reset):
    """Dossier: nnz of each tensor is the same before and after each update; R grows and exceeds the density."""
    sparsifier, seen, optimizer = trained(grow=grow, reset_on_grow=reset)
    (slot,) = sparsifier.slots
    assert {int(mask.sum()) for mask, _ in seen} == {48}
    assert all((weight[~mask] == 0).all() for mask, weight in seen)
    moved = [step for step in range(1, 41) if not torch.equal(seen[step][0], seen[step - 1][0])]
    assert moved and set(moved) <= {10, 20, 30}
    ever = torch.stack([mask for mask, _ in seen]).any(0)
    assert torch.equal(fired(slot), ever)
    share = sparsifier.method.measures(sparsifier.slots)["fired"]
    assert share == int(ever.sum()) / 240 > 0.2
    before = [float(torch.stack([mask for mask, _ in seen[:step]]).any(0).sum()) / 240 for step in (1, 11, 21, 31)]
    assert before == sorted(before) and before[0] == 0.2
    assert bool((optimizer.state[slot.param]["exp_avg"][~slot.mask] == 0).all()) is reset


def test_a_grown_weight_starts_at_zero_and_one_that_comes_back_keeps_its_value():
    _, seen, _ = trained(grow="gradient")
    for step in (10, 20, 30):
        (mask, weight), (before, _) = seen[step], seen[step - 1]
        assert (weight[mask & ~before] == 0).all() and (weight[mask & before] != 0).all()


def test_unfired_ones_grow_first():
    _, seen, _ = trained(grow="unfired")
    (before, _), (mask, _) = seen[9], seen[10]
    stay_or_new = mask & ~before
    assert int(stay_or_new.sum()) == 24 - int((mask & before).sum() - 24), "all that grew had never been active"


def test_momentum_is_adams_direction():
    sparsifier, _, optimizer = trained(updates=9, grow="momentum")
    (slot,) = sparsifier.slots
    kept = optimizer.state[slot.param]
    assert torch.allclose(slot.state["first"], kept["exp_avg"], atol=1e-6)
    assert torch.allclose(slot.state["second"], kept["exp_avg_sq"], atol=1e-6)
    direction = sparsifier.method.growth(slot, sparsifier._context(9))
    assert torch.allclose(direction, (kept["exp_avg"] / (kept["exp_avg_sq"].sqrt() + 1e-8)).abs(), rtol=1e-3)


def test_first_masks():
    weight = torch.arange(100.0).view(10, 10)
    largest = hand_slots("dsl", weight, 0.7, "periodic", options={"draw": "largest"}, **EXPLORING)
    largest.start()
    assert largest.slots[0].mask.flatten().nonzero().flatten().tolist() == list(range(70, 100))
    chance = DSL(DSL.Options(draw="bernoulli"))
    assert chance.by_chance == "method.draw=exact" and DSL(DSL.Options()).by_chance is None
    counts = set()
    for seed in range(5):
        drawn = hand_slots("dsl", weight, 0.7, "periodic", seed=seed, options={"draw": "bernoulli"}, **EXPLORING)
        drawn.start()
        counts.add(int(drawn.slots[0].mask.sum()))
    assert len(counts) > 1 and all(15 < count < 45 for count in counts)


def test_what_training_costs():
    assert DSL(DSL.Options()).weight_grad == "dense"
    assert DSL(DSL.Options(reset_on_grow=True)).weight_grad == "kept"
    assert DSL(DSL.Options(reset_on_grow=True, grow="momentum")).weight_grad == "dense"
    assert not DSL(DSL.Options(grow="random")).needs_dense_grad


def test_state_outlasts_a_restart():
    sparsifier, _, _ = trained(grow="unfired")
    state = sparsifier.state_dict()
    again, _, _ = trained(updates=0, grow="unfired")
    again.load_state_dict(state)
    assert torch.equal(fired(again.slots[0]), fired(sparsifier.slots[0]))


def test_static_masks_never_change():
    """Dossier: static mode never changes masks; its zero positions have exact zeros after training."""
    generator = torch.Generator().manual_seed(0)
    x, start = torch.randn(32, 8, generator=generator), torch.randn(6, 8, generator=generator)
    sparsifier = hand_slots("random", start, 0.5, "constant")
    (slot,) = sparsifier.slots
    optimizer = torch.optim.Adam([slot.param], 0.1)
    sparsifier.start()
    first = slot.mask.clone()
    for step in range(1, 13):
        optimizer.zero_grad()
        ((x @ slot.param.T - 1) ** 2).mean().backward()
        sparsifier.before_step(step, optimizer)
        optimizer.step()
        sparsifier.after_step(step, optimizer)
    assert (
        torch.equal(slot.mask, first) and (slot.param[~first] == 0).all() and (slot.param[first] != start[first]).all()
    )
