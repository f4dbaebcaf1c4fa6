"""Routers and mixtures of experts: by hand, against a loop over experts, and in closed form (dossier of arXiv 2507.08771)."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from data_specs import text_data
from torch.nn import functional as F

from sparselab.core.errors import ConfigError
from sparselab.core.options import validate
from sparselab.inputs.models.family import MODELS
from sparselab.inputs.models.mixture import Drawn, Mixture, mixtures, routings
from sparselab.inputs.models.router import made
from sparselab.inputs.models.trace import trace

RULES = [
    {"name": "relu_rms"},
    {"name": "relu"},
    {"name": "topk", "k": 3},
    {"name": "dsmoe", "k": 3},
    {"name": "grin", "k": 3},
]
names = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["name"])
TEXT = text_data(16, 60)


def family(**options):
    return MODELS["llama_moe"](validate(MODELS["llama_moe"].Options, {"width": 16, "depth": 2, **options}, "model"))


def mixture(rule, experts=6, gated=False):
    torch.manual_seed(0)
    found = Mixture(8, 4, experts, made(rule), gated)
    for parameter in (found.up_proj.weight, found.down_proj.weight, found.router.weight):
        parameter.data *= 20
    return found


def test_item_1_relu_and_rms_by_hand():
    """A0 = (1, -1, 2, 0): A1 = (1, 0, 2, 0), and the norm with a gain of 1 gives (.8944, 0, 1.7889, 0)."""
    scores = torch.tensor([1.0, -1.0, 2.0, 0.0])
    assert made({"name": "relu"}).gates(scores, None, True).tolist() == [1, 0, 2, 0]
    gates = made({"name": "relu_rms"}).gates(scores, torch.ones(4), True)
    assert torch.allclose(gates, torch.tensor([0.8944, 0, 1.7889, 0]), atol=5e-5)
    assert torch.allclose(made({"name": "relu_rms"}).gates(scores, torch.full((4,), 0.5), True), gates / 2)
    mean_over_active = (1 + 4) / 2  # not so: zeros are in the mean
    assert gates[2] != pytest.approx(2 / mean_over_active**0.5)


def test_a_token_without_a_positive_score_has_no_expert_and_an_output_of_zero():
    found = mixture({"name": "relu_rms"})
    x = torch.randn(3, 8)
    found.router.weight.data = -x[0].expand(6, 8) * torch.arange(1, 7)[:, None]
    out = found(x)
    assert not out[0].any() and torch.isfinite(out).all()
    out.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in found.parameters())


@pytest.mark.parametrize(
    ("k", "experts", "sparsity"), [(10, 48, 0.7917), (6, 40, 0.85), (8, 48, 0.8333), (10, 56, 0.8214)]
)
@pytest.mark.parametrize("name", ["topk", "dsmoe", "grin"])
def test_item_6_sparsity_of_rules_with_a_number_of_experts(name, k, experts, sparsity):
    rule = made({"name": name, "k": k})
    torch.manual_seed(1)
    scores = torch.randn(50, rule.scored(experts))
    for training in (True, False):
        gates = rule.gates(scores, None, training)
        assert gates.shape == (50, experts)
        assert ((gates != 0).sum(-1) == k).all()
        assert 1 - float((gates != 0).float().mean()) == pytest.approx(sparsity, abs=5e-5)


def test_topk_divides_by_the_sum_of_the_k_and_shared_experts_count_as_used():
    scores = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    assert made({"name": "topk", "k": 2}).gates(scores, None, True).tolist() == pytest.approx([0.625, 0.375, 0, 0])
    gates = made({"name": "dsmoe", "k": 4, "shared": 2}).gates(scores, None, True)
    assert gates.tolist() == pytest.approx([1, 1, 0.625, 0.375, 0, 0])


def test_grin_takes_the_best_in_evaluation_and_draws_near_ones_in_training():
    """Of scores 2, 1.9, 0 the first two are within 20 %: the gate is their softmax; other draws count a third."""
    rule, scores = made({"name": "grin", "k": 1}), torch.tensor([2.0, 1.9, 0.0])
    near = torch.tensor([2.0, 1.9]).softmax(0)
    assert rule.gates(scores, None, False).tolist() == pytest.approx([float(near[0]), 0, 0])
    torch.manual_seed(0)
    gates = rule.gates(scores.expand(4000, 3), None, True)
    assert not gates[:, 2].any()
    drawn = (gates != 0).float().mean(0)
    assert drawn[0] == pytest.approx(float(near[0]), abs=0.03)
    second = gates[gates[:, 1] != 0][:, 1]
    whole = second > near[1] / 2
    assert whole.float().mean() == pytest.approx(0.25, abs=0.04)
    assert second[~whole][0] == pytest.approx(0.3333 * float(near[1]))


def test_the_gradient_of_a_drawn_gate_is_that_of_the_softmax():
    scores = torch.randn(5, 4, requires_grad=True)
    shares, at = scores.detach().softmax(-1), torch.tensor([[0], [1], [2], [3], [0]])
    out = Drawn.apply(scores, shares, at, torch.full((5, 1), 0.3333))
    weight = torch.randn(5, 1)
    (out * weight).sum().backward()
    again = scores.detach().requires_grad_()
    (again.softmax(-1).gather(-1, at) * weight).sum().backward()
    assert torch.allclose(scores.grad, again.grad, atol=1e-6)


@names
@pytest.mark.parametrize("gated", [False, True])
def test_item_8_the_wide_form_is_a_loop_over_experts_and_unused_ones_can_be_skipped(rule, gated):
    found = mixture(rule, gated=gated).double().eval()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    gates = found.router(x).gates.double()
    wide = found(x)
    loop, skipping = torch.zeros_like(wide), torch.zeros_like(wide)
    union = {i for i in range(6) if (gates[..., i] != 0).any()}
    for i in range(6):
        part = slice(4 * i, 4 * i + 4)
        hidden = x @ found.up_proj.weight[part].T
        hidden = F.silu(x @ found.gate_proj.weight[part].T) * hidden if gated else F.silu(hidden)
        out = gates[..., i, None] * (hidden @ found.down_proj.weight[:, part].T)
        loop += out
        skipping += out if i in union else 0
    assert torch.allclose(wide, loop, atol=1e-12)
    assert torch.allclose(wide, skipping, atol=1e-12)
    rows = [i for i in sorted(union) for i in range(4 * i, 4 * i + 4)]
    small = F.silu(x @ found.up_proj.weight[rows].T)
    if gated:
        small = F.silu(x @ found.gate_proj.weight[rows].T) * (x @ found.up_proj.weight[rows].T)
    small = small * gates[..., sorted(union)].repeat_interleave(4, -1)
    assert torch.allclose(wide, small @ found.down_proj.weight[:, rows].T, atol=1e-12)


@names
def test_the_closed_form_is_the_trace_but_for_experts_that_a_token_does_not_use(rule):
    member = family(experts=6, expert_width=4, router=rule)
    ours, model = member.model_spec(TEXT), member.build(TEXT)
    traced = trace(model, TEXT, "llama_moe")
    share = member.router.used(6)
    layers = [
        replace(layer, macs=layer.macs * share // 6) if layer.name.endswith(("mlp.up_proj", "mlp.down_proj")) else layer
        for layer in traced.layers
    ]
    assert ours == replace(traced, layers=tuple(layers), loose=ours.loose)
    router = ours["model.layers.0.mlp.router"]
    assert router.roles == {"router"} and router.macs == member.router.scored(6) * 16 * 16
    assert ours["model.layers.0.mlp.up_proj"].macs == share * 4 * 16 * 16


def test_gated_experts_are_counted_too():
    member = family(experts=6, expert_width=4, gated=True)
    assert member.model_spec(TEXT) == trace(member.build(TEXT), TEXT, "llama_moe")


def test_what_a_training_pass_keeps_and_a_copy_does_not():
    model = family(experts=6, expert_width=4).build(TEXT).train()
    assert routings(model) == []
    model(input_ids=torch.zeros(2, 16, dtype=torch.int64))
    kept = routings(model)
    assert len(kept) == len(mixtures(model)) == 2 and kept[0].gates.shape == (2, 16, 6)
    with torch.no_grad():
        model(input_ids=torch.ones(1, 16, dtype=torch.int64))
    assert all(a is b for a, b in zip(routings(model), kept, strict=True))
    assert routings(copy.deepcopy(model)) == []


def test_a_compiled_network_keeps_its_routing_with_the_graph():
    torch._dynamo.reset()
    model = family(experts=6, expert_width=4, depth=1).build(TEXT).train()
    torch.compile(model, backend="eager")(input_ids=torch.zeros(2, 16, dtype=torch.int64))
    (kept,) = routings(model)
    kept.shares.square().sum().backward()
    assert mixtures(model)[0].router.weight.grad.abs().sum() > 0


def test_evaluation_draws_nothing():
    model = family(experts=6, expert_width=4, router={"name": "grin", "k": 2}).build(TEXT).eval()
    before = torch.random.get_rng_state()
    model(input_ids=torch.zeros(1, 16, dtype=torch.int64))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"router": {"name": "topk", "k": 9}, "experts": 4}, "model.router.k=9: there are 4 experts — write at most 4"),
        (
            {"router": {"name": "dsmoe", "k": 2}},
            "model.router.shared=2: leaves none of k=2 experts to choose — write at most 1",
        ),
        (
            {"router": {"name": "dsmoe", "k": 1, "shared": 1}},
            "model.router.shared=1: leaves none of k=1 experts to choose — write model.router.k=2 or more",
        ),
    ],
)
def test_refusals(options, line):
    with pytest.raises(ConfigError) as refused:
        family(**options).build(TEXT)
    assert [str(issue) for issue in refused.value.issues] == [line]
