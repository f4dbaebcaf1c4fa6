"""Concrete Ticket Search: gates, budget and balance by hand and by sampling; weights that rest; draws that nobody else sees."""

from __future__ import annotations

import math

import pytest
import torch
from hand_slots import hand_slots, update

from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.training.loop.loop import Loop
from sparselab.weights.methods.concrete import norm
from sparselab.weights.slot import UpdateContext

TOTAL = 12
ONES = torch.ones(4, 5)


def searching(weights=ONES, sparsity=0.9, seed=0, **options):
    """A sparsifier that searches up to its end, started."""
    sparsifier = hand_slots("cts", weights, sparsity, "one_shot", TOTAL, seed, options, at=1.0)
    sparsifier.start()
    return sparsifier


def gates(sparsifier, step=1):
    """The gates of a draw: the weights are ones."""
    sparsifier.before_forward(step)
    drawn = [slot.param.data.clone() for slot in sparsifier.slots]
    sparsifier.unswap()
    return drawn


class Half(UpdateContext):
    """A draw in which every uniform number is one half."""

    def random(self, slot):
        return torch.full(slot.param.shape, 0.5)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.007379])
def test_logits_start_at_the_wanted_density(density):
    """phi = ln(d / (1 - d)) gives a mean sigmoid(phi) of d."""
    (slot,) = searching(sparsity=1 - density).slots
    assert float(torch.sigmoid(slot.learned).mean()) == pytest.approx(density, rel=1e-6)
    assert float(slot.learned.detach()[0, 0]) == pytest.approx(math.log(density / (1 - density)), rel=1e-5)


@pytest.mark.parametrize("tau", [0.1, 2 / 3, 5.0])
def test_a_uniform_number_of_one_half_leaves_the_sigmoid_of_the_logit(tau):
    sparsifier = searching(tau=tau)
    (slot,) = sparsifier.slots
    slot.learned.data = torch.linspace(-4, 4, 20).view(4, 5)
    sparsifier.method.draw(slot, Half(1, TOTAL, 0.0, 0), out=slot.param.data)
    assert torch.equal(slot.param.data, torch.sigmoid(slot.learned.data))


def test_a_gate_is_open_as_often_as_the_parametrisation_says():
    """P(m > 1/2) = sigmoid(tau phi), for d = 0.1 and tau = 2/3: 0.187732, where the textbook's log-alpha would have 0.1."""
    sparsifier = searching(torch.ones(400, 1000))
    share = float((gates(sparsifier)[0] > 0.5).double().mean())
    assert share == pytest.approx(0.187732, abs=4 * math.sqrt(0.1877 * 0.8123 / 400_000))


def test_the_gradient_of_the_logits_is_that_of_the_loss_through_the_draw():
    """By finite differences of a quadratic loss of the drawn weights, uniform numbers held."""
    weights = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    goal = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sparsifier = searching(weights, scale=1.0)
    (slot,) = sparsifier.slots
    start = slot.learned.data.clone()

    def drawn(logits):
        slot.learned.data = logits
        sparsifier.before_forward(3)
        return slot.param.data.clone()

    slot.param.grad = drawn(start) - goal
    sparsifier.method.before_learning([slot])
    found, step = sparsifier.method.learn(slot), 1e-6  # the budget is not reached: the multiplier is 0
    for i in range(20):
        nudge = torch.zeros(20, dtype=torch.float64).index_fill_(0, torch.tensor(i), step).view(4, 5)
        up, down = (0.5 * (drawn(start + sign * nudge) - goal).square().sum() for sign in (1, -1))
        assert float(found.flatten()[i]) == pytest.approx(float((up - down) / (2 * step)), rel=1e-5, abs=1e-9)


def balanced(logit, **options):
    """(sparsifier, g_t + lambda g_s, g_t) of an update whose logits are all ``logit``; the density asked for is 0.5."""
    sparsifier = searching(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), 0.5, **options)
    (slot,) = sparsifier.slots
    slot.learned.data.fill_(logit)
    sparsifier.before_forward(1)
    m = sparsifier.method.gates[slot.name]
    slot.param.grad = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))
    task = sparsifier.method.options.scale * slot.dense * slot.param.grad * m * (1 - m)
    sparsifier.method.before_learning([slot])
    return sparsifier, sparsifier.method.learn(slot), task


def test_the_multiplier_balances_the_two_gradients():
    """Above the budget |lambda* g_s| = |g_t| exactly, and g_s = (100 / T) p (1 - p) with T = 1.1 d N."""
    _, whole, task = balanced(1.0)
    budget = whole - task
    assert float(norm([budget])) == pytest.approx(float(norm([task])), rel=1e-5)
    assert float(budget.std()) == pytest.approx(0.0, abs=1e-6 * float(budget.mean()))  # p is the same for all


def test_the_gradient_of_the_budget_at_one_half():
    """g_s = 25 / T for each weight; seen through the multiplier, which is |g_t| over its norm."""
    sparsifier, _, task = balanced(0.0, slack=1.0 + 1e-12)  # p = 1/2 is the density asked for: not above it
    assert float(sparsifier.slots[0].state["multiplier"]) == 0
    sparsifier, _, task = balanced(1e-3, slack=1.0)
    target, n = 0.5 * 30, 30
    assert float(sparsifier.slots[0].state["multiplier"]) == pytest.approx(
        float(norm([task])) / (25 / target * math.sqrt(n)), rel=1e-5
    )


def test_below_the_budget_nothing_holds_the_objective_back():
    sparsifier, whole, task = balanced(0.0)  # the start: d N weights are expected, and 1.1 d N are allowed
    assert torch.equal(whole, task) and float(sparsifier.slots[0].state["multiplier"]) == 0


def test_the_multiplier_is_a_moving_average():
    """lambda_2 = 0.99 a + 0.01 b."""
    sparsifier, _, _ = balanced(1.0)
    (slot,) = sparsifier.slots
    first = float(slot.state["multiplier"])
    slot.param.grad = 3 * slot.param.grad  # g_t, and so the balance, is three times as large
    sparsifier.method.before_learning([slot])
    assert float(slot.state["multiplier"]) == pytest.approx(0.99 * first + 0.01 * 3 * first, rel=1e-6)


@pytest.mark.parametrize(
    ("logit", "balance"), [(1.0, "gradbalance"), (-1.0, "gradbalance"), (1.0, "lagrange")]
)  # above and below the budget
def test_an_update_that_is_not_finite_leaves_the_multiplier(logit, balance):
    """A loss scaler skips it; so the multiplier may not move either, whatever it follows."""
    sparsifier, _, _ = balanced(logit, balance=balance)
    sparsifier.slots[0].state["multiplier"] += 1.0
    (slot,) = sparsifier.slots
    before = slot.state["multiplier"].clone()
    slot.param.grad = torch.full_like(slot.param.grad, float("inf"))
    sparsifier.method.before_learning([slot])
    assert torch.equal(slot.state["multiplier"], before)


@pytest.mark.parametrize("logit", [-1.0, 1.0])
def test_the_scale_of_the_objective_does_not_change_the_balance(logit):
    """A factor of 100 leaves the direction, and so Adam's first step, as it is."""
    (_, one, _), (_, hundred, _) = (balanced(logit, scale=scale) for scale in (1.0, 100.0))
    torch.testing.assert_close(hundred / 100, one)
    assert torch.equal(one.sign(), hundred.sign())


def test_the_baseline_climbs_by_the_miss_of_a_budget_without_slack():
    """mu starts at 0 and climbs by the rate times err before each update; the gradient has the mu before it."""
    sparsifier, whole, task = balanced(1.0, balance="lagrange", multiplier_lr=0.01)
    (slot,) = sparsifier.slots
    p = 1 / (1 + math.exp(-1))
    error = 100 * (p / 0.5 - 1)
    assert torch.equal(whole, task)
    assert float(slot.state["multiplier"]) == pytest.approx(0.01 * error, rel=1e-6)
    sparsifier.method.before_learning([slot])
    budget = (sparsifier.method.learn(slot) - task)[0, 0]
    assert float(budget) == pytest.approx(0.01 * error * 100 / 15 * p * (1 - p), rel=1e-3)
    assert float(slot.state["multiplier"]) == pytest.approx(0.02 * error, rel=1e-6)


def test_one_draw_for_all_micro_batches_another_for_each_update_and_nothing_of_it_is_left():
    sparsifier = searching()
    first, again, later = (gates(sparsifier, step)[0] for step in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, later)
    assert torch.equal(sparsifier.slots[0].param.data, ONES)
    other = gates(searching(seed=1))[0]
    assert not torch.equal(first, other)


def test_losses_may_look_past_a_draw_and_find_it_again():
    sparsifier = searching()
    (slot,) = sparsifier.slots
    sparsifier.before_forward(1)
    drawn = slot.param.data.clone()
    with sparsifier.without_masks():
        assert torch.equal(slot.param.data, ONES)
    assert torch.equal(slot.param.data, drawn)


def test_the_mask_keeps_the_largest_logits_and_training_goes_on_without_draws():
    sparsifier = hand_slots("cts", ONES, 0.75, "one_shot", TOTAL, at=0.5)
    sparsifier.start()
    (slot,) = sparsifier.slots
    slot.learned.data = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    for step in range(1, 7):
        sparsifier.before_forward(step)
        update(sparsifier, None, step, [torch.ones(4, 5)])
    best = slot.learned.flatten().topk(5).indices.sort().values
    assert torch.equal(slot.mask.flatten().nonzero().flatten(), best)
    sparsifier.before_forward(7)
    assert torch.equal(slot.param.data, ONES * slot.mask)
    assert sparsifier.method.alternating_update(7, TOTAL).weights
    assert not sparsifier.method.alternating_update(6, TOTAL).weights


CELL = ["method=cts", "model=mlp", "model.hidden=[12,8]", "model.batch_norm=true", "sparsity=0.8", "schedule.at=1.0",
        "optim=adamw", "optim.lr=0.1", "trainer.max_epochs=null", "trainer.max_steps=6", "trainer.batch_size=32",
        "trainer.evals=1", "trainer.progress=none", "trainer.accelerator=cpu"]  # fmt: skip


def test_the_search_moves_no_weight(tmp_path, monkeypatch):
    """Bit for bit, the other parameters included; the logits and, in the end, the mask are what it leaves."""
    seen = {}
    start, end = Loop.on_train_start, Loop.on_train_end

    def begin(loop, trainer, task):
        start(loop, trainer, task)
        seen.update({name: value.clone() for name, value in task.network.named_parameters()})
        seen["logits"] = [slot.learned.detach().clone() for slot in loop.sparsifier.slots]

    def finished(loop, trainer, task):
        end(loop, trainer, task)
        slots = {slot.name: slot for slot in loop.sparsifier.slots}
        for name, value in task.network.named_parameters():
            assert torch.equal(slots[name].dense if name in slots else value, seen[name]), name
        assert all(not torch.equal(slot.learned, was) for slot, was in zip(slots.values(), seen["logits"], strict=True))
        seen["done"] = True

    monkeypatch.setattr(Loop, "on_train_start", begin)
    monkeypatch.setattr(Loop, "on_train_end", finished)
    assert run_cell(plan_of([*CELL, f"runs_dir={tmp_path}"])) == 0
    assert seen["done"]


def test_rounds_of_twenty_percent_give_the_densities_of_the_paper():
    """0.8^22 = 0.0073787 (0.7379 %), 0.8^32 = 0.00079228."""
    for rounds, density in ((22, 0.0073787), (32, 0.00079228)):
        sparsifier = hand_slots("imp", ONES, 1 - 0.8**rounds, "rounds", 330, rounds=rounds, rate=0.2)
        schedule = sparsifier.schedule
        for made, at in enumerate(schedule.updates(330), 1):
            level = schedule.level(at, 330)
            assert 1 - level * (1 - 0.8**rounds) == pytest.approx(0.8**made)
        assert 0.8**rounds == pytest.approx(density, rel=1e-4)
