"""Learning-rate factors by hand, parameter groups, and what an optimiser must leave to the loss scaler."""

from __future__ import annotations

from math import cos, pi, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recipes import plain

from sparselab.training.optim.optim import OPTIMS


def make(name="sgd", **options):
    return plain(name, **options)


def factors(total, **options):
    optim = make(**options)
    return [optim.factor(step, total) for step in range(total)]


CASES = [
    ({"schedule": "constant"}, 4, [1, 1, 1, 1]),
    ({"schedule": "linear"}, 4, [1, 0.75, 0.5, 0.25]),
    ({"schedule": "linear", "min_factor": 0.2}, 4, [1, 0.8, 0.6, 0.4]),
    ({"schedule": "cosine"}, 4, [1, (1 + sqrt(0.5)) / 2, 0.5, (1 - sqrt(0.5)) / 2]),
    ({"schedule": "cosine", "min_factor": 0.1}, 2, [1, 0.55]),
    ({"schedule": "step"}, 8, [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]),
    ({"schedule": "step", "milestones": [0.25], "gamma": 0.5}, 4, [1, 0.5, 0.5, 0.5]),
    ({"schedule": "step", "min_factor": 0.05, "milestones": [0.5], "gamma": 0.1}, 2, [1, 0.05 + 0.95 * 0.1]),
    # linear warm-up over two of ten updates, then the schedule over the other eight
    ({"schedule": "constant", "warmup": 0.2}, 10, [1 / 3, 2 / 3] + [1] * 8),
    ({"schedule": "linear", "warmup": 0.2}, 10, [1 / 3, 2 / 3] + [1 - k / 8 for k in range(8)]),
    ({"schedule": "cosine", "warmup": 0.5}, 4, [1 / 3, 2 / 3, 1, 0.5]),
    # restarts: the schedule, its warm-up included, once per cycle
    ({"schedule": "linear", "cycles": 2}, 8, [1, 0.75, 0.5, 0.25] * 2),
    (
        {"schedule": "cosine", "cycles": 2, "warmup": 0.25},
        8,
        [0.5, 1, (1 + cos(pi / 3)) / 2, (1 + cos(2 * pi / 3)) / 2] * 2,
    ),
    ({"schedule": "step", "cycles": 2}, 8, [1, 1, 0.1, 0.01] * 2),
]


@pytest.mark.parametrize(("options", "total", "want"), CASES)
def test_factors(options, total, want):
    assert factors(total, **options) == pytest.approx(want, abs=1e-12)


def test_beyond_the_end_the_last_factor_stays():
    optim = make(schedule="cosine")
    assert optim.factor(99, 10) == optim.factor(10, 10) == optim.factor(9, 10)


@given(
    schedule=st.sampled_from(["constant", "cosine", "linear", "step"]),
    warmup=st.floats(0, 0.99),
    least=st.floats(0, 1),
    cycles=st.integers(1, 5),
    total=st.integers(1, 300),
)
def test_a_factor_is_never_above_one_nor_negative(schedule, warmup, least, cycles, total):
    found = factors(total, schedule=schedule, warmup=warmup, min_factor=least, cycles=cycles)
    assert all(0 < factor <= 1 + 1e-12 for factor in found if least > 0 or factor)
    if not warmup:
        assert found[0] == 1 and all(factor >= least - 1e-12 for factor in found)


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.norm = torch.nn.LayerNorm(3)
        self.tied = self.layer
        self.frozen = torch.nn.Parameter(torch.ones(2, 2), requires_grad=False)


@pytest.mark.parametrize("name", OPTIMS)
def test_norms_and_biases_are_spared_weight_decay(name):
    network = Network()
    decayed, spared = make(name, weight_decay=0.3).build(network).param_groups
    assert [id(p) for p in decayed["params"]] == [id(network.layer.weight)] and decayed["weight_decay"] == 0.3
    assert {id(p) for p in spared["params"]} == {id(p) for p in (network.layer.bias, *network.norm.parameters())}
    assert spared["weight_decay"] == 0


@pytest.mark.parametrize("name", OPTIMS)
def test_unless_asked_for(name):
    (group,) = make(name, weight_decay=0.3, decay_norm_and_bias=True).build(Network()).param_groups
    assert len(group["params"]) == 4 and group["weight_decay"] == 0.3


@pytest.mark.parametrize("name", OPTIMS)
def test_the_loss_scaler_unscales_and_skips(name):
    """Whatever kernel an optimiser uses: else pull-backs would see scaled gradients, and hooks skipped updates."""
    network = torch.nn.Linear(2, 1, bias=False)
    optimizer = make(name).build(network)
    scaler, happened = torch.amp.GradScaler("cpu", init_scale=1024.0), []
    optimizer.register_step_post_hook(lambda *_: happened.append(True))
    for value, expected in ((1.0, 1), (float("inf"), 1), (1.0, 2)):
        optimizer.zero_grad()
        scaler.scale(network(torch.tensor([[value, 1.0]])).sum()).backward()
        before = network.weight.detach().clone()
        scaler.step(optimizer)
        scaler.update()
        assert len(happened) == expected
        assert torch.equal(before, network.weight) == (value == float("inf"))


def test_sgd_is_torch_s():
    optimizer = make("sgd", momentum=0.8, nesterov=True, lr=0.3).build(torch.nn.Linear(2, 2))
    assert isinstance(optimizer, torch.optim.SGD)
    assert {key: optimizer.defaults[key] for key in ("lr", "momentum", "nesterov")} == {
        "lr": 0.3, "momentum": 0.8, "nesterov": True,
    }  # fmt: skip
    assert not make("sgd", momentum=0.0, nesterov=True).build(torch.nn.Linear(2, 2)).defaults["nesterov"]


def test_adamw_is_torch_s():
    optimizer = make("adamw", beta1=0.8, beta2=0.95, eps=1e-6).build(torch.nn.Linear(2, 2))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (0.8, 0.95) and optimizer.defaults["eps"] == 1e-6


def test_who_inherits_an_optimiser_says_for_itself_that_zeros_stay():
    class Noisy(OPTIMS["sgd"]):
        pass

    network = torch.nn.Linear(2, 2)
    assert make("sgd").build(network).keeps_zeros and make("adamw").build(network).keeps_zeros
    assert not Noisy(Noisy.Options(lr=0.1)).build(network).keeps_zeros
    assert not make("adams").build(network).keeps_zeros
