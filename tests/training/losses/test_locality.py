"""Losses of routing by hand: which tokens share experts, how a factor follows its loss (dossier of arXiv 2507.08771)."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from sparselab.inputs.models.mixture import Mixture, Routing, routings
from sparselab.inputs.models.router import made
from sparselab.training.losses.adaptive import AdaptiveFactor
from sparselab.training.losses.extra_loss import LOSSES


def loss(name, **options):
    return LOSSES[name](LOSSES[name].Options(**options))


def routing(shares=None, scores=None, gates=None):
    parts = [torch.as_tensor(part) if part is not None else None for part in (gates, scores, shares)]
    return Routing(*[part[None] if part is not None else None for part in parts])


def context(network, step=0, present=None):
    return SimpleNamespace(network=network, global_step=step, present=lambda batch: present, device=torch.device("cpu"))


def test_item_2_chunk_sparsification_by_hand():
    """p = (.5, .5, 0, 0) and (.5, 0, .5, 0): P = (.75, .5, .5, 0), the loss .4375, with the guard .437485."""
    shares = torch.tensor([[0.5, 0.5, 0, 0], [0.5, 0, 0.5, 0]])
    value = float(loss("chunk_sparsification", length=2).of(routing(shares), None))
    assert value == pytest.approx(0.437485, abs=2e-6)
    assert value == pytest.approx(0.4375, abs=2e-5)
    twice = torch.cat([shares, shares])
    assert float(loss("chunk_sparsification", length=2).of(routing(twice), None)) == pytest.approx(value, abs=1e-6)
    padded = torch.tensor([[True, True, False, False]])
    assert float(loss("chunk_sparsification", length=2).of(routing(twice), padded)) == pytest.approx(
        value / 2, abs=2e-5
    )


def test_item_5_locality_is_least_where_neighbours_agree():
    al = loss("activation_locality", alpha=3.0)
    torch.manual_seed(0)
    here = torch.randn(1, 4)
    same = float(al.of(routing(scores=torch.cat([here, here])), None))
    assert all(
        float(al.of(routing(scores=torch.cat([here + d * torch.randn(1, 4), here])), None)) > same
        for d in (0.1, 0.5, 2)
    )
    p = (3 * here).sigmoid()
    assert same == pytest.approx(float(-(p * p.log() + (1 - p) * (1 - p).log()).mean()), rel=1e-5)


def test_item_5_locality_of_zero_scores_is_ln_2():
    assert float(loss("activation_locality").of(routing(scores=torch.zeros(5, 3)), None)) == pytest.approx(math.log(2))


def test_locality_has_gradients_on_both_sides_unless_detached_and_none_across_padding():
    scores = torch.randn(1, 3, 4, requires_grad=True)
    for detach, last in ((False, True), (True, False)):
        scores.grad = None
        loss("activation_locality", alpha=2.0, detach=detach).of(Routing(None, scores, None), None).backward()
        assert bool(scores.grad[0, 0].any()) and bool(scores.grad[0, 2].any()) is last
    scores.grad = None
    loss("activation_locality", alpha=2.0).of(
        Routing(None, scores, None), torch.tensor([[True, True, False]])
    ).backward()
    assert bool(scores.grad[0, 1].any()) and not scores.grad[0, 2].any()


def test_locality_at_its_default_sharpness_is_finite():
    scores = torch.tensor([[50.0, -50.0], [-50.0, 50.0]])
    assert float(loss("activation_locality").of(routing(scores=scores), None)) == pytest.approx(5000.0)


@pytest.mark.parametrize(
    ("windows", "gradual", "cap", "expected"),
    [
        ([0.40, 0.44], False, None, 0.055),
        ([0.40, 0.44, 0.33], False, None, 0.04125),
        ([0.40, 0.404], False, None, 0.05 * 1.025),
        ([0.1, 0.3, 0.9], False, 4.0, 0.2),
        ([0.1, 0.3, 0.9], True, 4.0, 0.2),
    ],
)
def test_item_7_the_factor(windows, gradual, cap, expected):
    factor = AdaptiveFactor(settle=0, every=10, least_rise=1.025, cap=cap, gradual=gradual)
    for number, mean in enumerate(windows, 1):
        factor.move(10 * number, mean)
    assert 0.05 * factor.at(10 * len(windows) + 9) == pytest.approx(expected)


def test_a_factor_settles_first_and_may_move_gradually():
    factor = AdaptiveFactor(settle=30, every=10, least_rise=1.025, cap=None, gradual=True)
    for done, mean in ((10, 1.0), (20, 2.0)):
        factor.move(done, mean)
        assert factor.at(done) == 1
    factor.move(30, 3.0)
    assert [factor.at(30 + i) for i in (0, 4, 9, 20)] == pytest.approx([1.05, 1.25, 1.5, 1.5])
    again = AdaptiveFactor(30, 10, 1.025, None, True)
    again.load(factor.state())
    assert again.at(34) == factor.at(34)


@pytest.mark.parametrize("mean", [0.0, -1.6e-4, float("nan")])
def test_a_loss_that_is_not_above_zero_moves_no_factor(mean):
    """Chunks without an expert have a loss a little below 0, by the guard: a factor of 0 or below would be for good."""
    factor = AdaptiveFactor(settle=0, every=10, least_rise=1.025, cap=None, gradual=False)
    for number, value in enumerate((0.4, mean, 0.2, 0.1), 1):
        factor.move(10 * number, value)
        assert number == 4 or factor.at(10 * number) == 1
    assert factor.at(40) == pytest.approx(0.5)


def test_chunks_move_their_factor_by_the_mean_of_a_window_of_updates():
    network = Mixture(4, 2, 4, made({"name": "relu_rms"}), False)
    cs = loss("chunk_sparsification", length=2, settle=0, every=2)
    cs.prepare(context(network))
    torch.manual_seed(0)
    values, weighted = [], []
    for step in range(6):
        for _ in range(2):  # micro-batches
            network(torch.randn(3, 4, 4))
            values.append(float(cs.of(routings(network)[0], None)))
            weighted.append(float(cs.loss(context(network, step), (), torch.zeros(1))))
    means = [sum(values[i : i + 4]) / 4 for i in (0, 4, 8)]
    gamma = means[1] / means[0]
    expected = gamma if gamma <= 1 else max(gamma, 1.025)
    assert [w / v for w, v in zip(weighted, values, strict=True)] == pytest.approx([1] * 8 + [expected] * 4)
    other = loss("chunk_sparsification", length=2, settle=0, every=2)
    other.prepare(context(network))
    other.load(cs.state())
    assert other.state()["factor"] == cs.state()["factor"] and torch.equal(other.seen, cs.seen)


def test_balance_is_one_for_even_use_and_n_for_one_expert():
    even = torch.eye(4)
    assert float(loss("router_balance").of(routing(even, gates=even), None)) == pytest.approx(1, abs=1e-4)
    one = torch.zeros(5, 4)
    one[:, 2] = 1
    assert float(loss("router_balance").of(routing(one, gates=one), None)) == pytest.approx(4, abs=1e-4)


def test_balance_leaves_shared_experts_out():
    rule = made({"name": "dsmoe", "k": 3, "shared": 2})
    scores = torch.eye(4)[None] * 9
    found = Routing(rule.gates(scores, None, True), scores, rule.shares(scores))
    assert float(loss("router_balance").of(found, None)) == pytest.approx(1, abs=1e-3)


def test_l1_and_entropy_by_hand():
    gates = torch.tensor([[1.0, -2.0, 0.0], [0.0, 0.5, 0.0]])
    assert float(loss("router_l1").of(routing(gates=gates), None)) == pytest.approx(1.75)
    shares = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    assert float(loss("router_entropy").of(routing(shares), None)) == pytest.approx(math.log(2) / 2, abs=3e-5)


def test_remoe_by_hand_and_its_coefficient():
    """N / (T^2 k) sum_e (sum_t A_te) n_e; then the coefficient goes up, down and not below its start."""
    network = Mixture(4, 2, 4, made({"name": "relu"}), False)
    remoe = loss("remoe_l1", k=1.0, factor=2.0)
    remoe.prepare(context(network))
    gates = torch.tensor([[[1.0, 2.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0]]])
    assert float(remoe.of(Routing(gates, None, None), None)) == pytest.approx(4 / 4 * (4 * 2 + 2 * 1))
    remoe.move(4)  # 3 of 8 gates are on, and k / N is 2 of 8
    assert float(remoe.seen[0]) == 2
    remoe.of(Routing(gates * 0, None, None), None)
    remoe.move(4)
    assert float(remoe.seen[0]) == 1
    remoe.of(Routing(gates * 0, None, None), None)
    remoe.move(4)
    assert float(remoe.seen[0]) == 1
    network(torch.randn(2, 3, 4))
    assert float(remoe.loss(context(network), (), torch.zeros(1))) >= 0
