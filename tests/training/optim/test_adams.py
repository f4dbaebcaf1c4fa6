"""AdamS by hand (CAST, arXiv 2509.25996, algorithm 1), and Adam where nobody blends."""

from __future__ import annotations

import copy
from math import sqrt

import pytest
import torch
from torch import nn, tensor

from sparselab.training.optim.torch_side.adams import AdamS


def made(weight, blend=None, **options):
    parameter = nn.Parameter(weight.clone())
    optimizer = AdamS([parameter], **{"lr": 0.1, **options})
    if blend is not None:
        optimizer.blends = {parameter: blend}
    return parameter, optimizer


def update(parameter, optimizer, gradient):
    parameter.grad = gradient.clone()
    optimizer.step()


def pull(pulled, strength, progress):
    """The paper's blend with these weights pulled, at t / T = progress."""
    return lambda weight, first: torch.where(
        pulled, (1 - progress) * first + progress * strength * weight.sign(), first
    )


def same(weight, first):
    return first


def test_without_a_blend_it_is_adam():
    weight = torch.randn(5, 3, dtype=torch.float64)
    parameter, optimizer = made(weight, betas=(0.8, 0.95), eps=1e-6)
    other = nn.Parameter(weight.clone())
    adam = torch.optim.Adam([other], lr=0.1, betas=(0.8, 0.95), eps=1e-6)
    for seed in range(6):
        gradient = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        update(parameter, optimizer, gradient)
        update(other, adam, gradient)
    torch.testing.assert_close(parameter.data, other.data, rtol=1e-12, atol=1e-14)


def test_decoupled_decay_is_adamw_s():
    parameter, optimizer = made(tensor([2.0, -1.0]))
    optimizer.param_groups[0]["weight_decay"] = 0.3
    other = nn.Parameter(tensor([2.0, -1.0]))
    adam = torch.optim.AdamW([other], lr=0.1, weight_decay=0.3)
    for _ in range(3):
        update(parameter, optimizer, tensor([0.5, 0.1]))
        update(other, adam, tensor([0.5, 0.1]))
    torch.testing.assert_close(parameter.data, other.data)


def test_the_second_moment_is_of_what_is_used():
    """g = 1, b1 = 0.9, b2 = 0.999: mu = 0.1, v = 0.001 * 0.01 (Adam: 1e-3); the step is lr * 1 / sqrt(0.01) = 10 lr."""
    parameter, optimizer = made(tensor([1.0], dtype=torch.float64), same, eps=0.0)
    update(parameter, optimizer, tensor([1.0], dtype=torch.float64))
    state = optimizer.state[parameter]
    assert float(state["exp_avg"]) == pytest.approx(0.1)
    assert float(state["exp_avg_sq"]) == pytest.approx(1e-5)
    assert float(parameter) == pytest.approx(1.0 - 0.1 * 10)


def test_the_first_update_pulls_nobody():
    """t = 0: pulled or not, the same gradient moves a weight alike, and without one nothing moves."""
    pulled = tensor([True, False])
    parameter, optimizer = made(tensor([1.0, 1.0]), pull(pulled, 5.0, 0.0))
    update(parameter, optimizer, tensor([0.3, 0.3]))
    assert parameter[0] == parameter[1] != 1
    parameter, optimizer = made(tensor([1.0, 1.0]), pull(pulled, 5.0, 0.0))
    update(parameter, optimizer, torch.zeros(2))
    assert parameter.tolist() == [1.0, 1.0]


def test_where_the_loss_is_flat_only_pulled_weights_move_and_towards_zero():
    pulled = tensor([True, True, False, False, True])
    weight = tensor([0.5, -0.4, 0.3, -0.2, 0.0])
    parameter, optimizer = made(weight, lr=0.01)
    total = 200
    for t in range(total):
        optimizer.blends = {parameter: pull(pulled, 1e-3, t / total)}
        before = parameter.data.clone()
        update(parameter, optimizer, torch.zeros(5))
        assert torch.equal(parameter[2:4], weight[2:4]), "kept weights stay"
        assert parameter[4] == 0, "the sign of zero is zero"
        step = optimizer.param_groups[0]["lr"] * 10
        grown = parameter[:2].abs() > before[:2].abs()
        assert not (grown & (parameter[:2].abs() > step)).any(), "beyond an overshoot of a step none grows"
    assert (parameter[:2].abs() < 0.1).all()


@pytest.mark.parametrize("strength", [1e-7, 1.0, 1e3])
def test_at_full_pull_a_step_is_the_learning_rate_whatever_the_strength(strength):
    weight = tensor([0.5, -2.0, 0.0], dtype=torch.float64)
    parameter, optimizer = made(weight, pull(torch.ones(3, dtype=bool), strength, 1.0), betas=(0.0, 0.0), eps=1e-300)
    update(parameter, optimizer, tensor([7.0, -3.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(parameter.data, weight - 0.1 * weight.sign(), rtol=1e-12, atol=0)


def test_what_is_stored_knows_neither_mask_nor_strength():
    gradients = [torch.randn(4, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    stored = []
    for pulled, strength in (([True] * 4, 3.0), ([False, True] * 2, 0.1), ([False] * 4, 0.0)):
        parameter, optimizer = made(torch.ones(4), pull(tensor(pulled), strength, 0.7))
        for gradient in gradients:
            update(parameter, optimizer, gradient)
        stored.append(optimizer.state[parameter]["exp_avg"])
    assert torch.equal(stored[0], stored[1]) and torch.equal(stored[0], stored[2])


def test_three_updates_by_hand():
    b1, b2, lr, eps, strength, total = 0.9, 0.99, 0.05, 1e-8, 0.2, 3
    theta, mu, v = 0.7, 0.0, 0.0
    parameter, optimizer = made(tensor([theta], dtype=torch.float64), lr=lr, betas=(b1, b2), eps=eps)
    for t, g in enumerate((0.3, -0.1, 0.2)):
        optimizer.blends = {parameter: pull(tensor([True]), strength, t / total)}
        update(parameter, optimizer, tensor([g], dtype=torch.float64))
        mu = b1 * mu + (1 - b1) * g
        used = (1 - t / total) * mu + t / total * strength * (1 if theta > 0 else -1)
        v = b2 * v + (1 - b2) * used**2
        theta -= lr * (used / (1 - b1 ** (t + 1))) / (sqrt(v / (1 - b2 ** (t + 1))) + eps)
        assert float(parameter) == pytest.approx(theta, rel=1e-12)


def test_single_precision_takes_what_half_loses():
    """Why weights stay in float32: 4e-7, a hundred times, on 0.5."""
    for dtype, moves in ((torch.bfloat16, False), (torch.float32, True)):
        weight = tensor([0.5], dtype=dtype)
        for _ in range(100):
            weight += 4e-7
        assert (weight != tensor([0.5], dtype=dtype)).item() == moves


def test_it_goes_on_from_its_state():
    weight = torch.randn(4)
    blend = pull(tensor([True, False, True, False]), 0.1, 0.5)
    parameter, optimizer = made(weight, blend)
    gradients = torch.randn(4, 4)
    for gradient in gradients[:2]:
        update(parameter, optimizer, gradient)
    other, again = made(parameter.data, blend)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for gradient in gradients[2:]:
        update(parameter, optimizer, gradient)
        update(other, again, gradient)
    assert torch.equal(parameter.data, other.data)
