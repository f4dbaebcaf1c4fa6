"""CETT, Top-k and FAT: the exact cases of arXiv 2411.02335's metric, and what the search promises."""

from __future__ import annotations

import math

import pytest
import torch
import transformers

from sparselab.core.errors import ConfigError, RunFailed
from sparselab.inference.activation.frozen.cett import Thresholds, candidates, output_norms, tail_error
from sparselab.inference.activation.frozen.gates import not_below, topk_of_all
from sparselab.inference.activation.frozen.masking import Masking
from sparselab.inference.activation.frozen.network import Network
from sparselab.inference.activation.frozen.search import halved
from sparselab.inference.activation.rule import ACTIVATIONS
from sparselab.inference.score import score

TOKENS = torch.randint(60, (6, 24), generator=torch.Generator().manual_seed(0))
SIZES = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
FEW = {"tolerance": 1e-3, "thresholds": 512}


def network_of(act="relu", kind="Llama", **more):
    torch.manual_seed(0)
    sizes = {**SIZES, "hidden_act": act, **more}
    model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**sizes))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(10)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def logits(model, tokens=TOKENS):
    return model(input_ids=tokens, use_cache=False).logits


def prepared(model, name, target=0.0, targets=None, **options):
    """A rule on a network, whose text of the search has the dense network's own predictions as targets."""
    cls = ACTIVATIONS[name]
    given = {key: value for key, value in FEW.items() if key in cls.Options.model_fields}
    rule = cls(cls.Options(**{**given, **options}))
    text = [(TOKENS, logits(model).argmax(-1) if targets is None else targets)]
    network = Network(
        model,
        lambda batch: logits(model, batch),
        lambda purpose, at_once: [TOKENS],
        target,
        lambda where: None,
        lambda: text,
    )
    return rule, rule.prepare(network), text


def under(model, rule, active, text):
    """(loss, share of zeros over layers, masks kept) of a pass under the rule."""
    with Masking(rule, active.places, active.gates, rule.options.dense_prefix) as masking:
        loss = score(lambda batch: logits(model, batch), text).loss
    zeros = [count.gated_sparsity for count in masking.counts.values()]
    return loss, sum(zeros) / len(zeros)


def masks_of(model, rule, active):
    """The mask of the first layer on the dense network's tensors."""
    place, seen = active.places[0], []
    handle = place.attach(lambda x: seen.append(x.clone()))
    logits(model)
    handle.remove()
    factor = rule.factor(place)
    scores = seen[0].abs() if factor is None else seen[0].abs() * factor
    return active.gates[place.name](scores)


# What a test can check exactly: the items of the dossier


def test_item_1_identity_and_a_3_4_vector():
    h, weight = torch.tensor([[3.0, 4.0]]), torch.eye(2)
    assert output_norms(h, weight).tolist() == [[3, 4]]
    assert float(tail_error(h, weight, 3.0)) == 0 and float(tail_error(h, weight, 4.0)) == pytest.approx(0.6)
    assert float(tail_error(h, weight, 4.5)) == 1
    assert float(tail_error(h.flip(-1), weight, 4.0)) == pytest.approx(0.6)
    only_second = torch.linalg.vector_norm(torch.tensor([0.0, 4.0]) @ weight.T) / torch.linalg.vector_norm(h)
    assert float(only_second) == pytest.approx(0.8)
    for eps in (3.0001, 3.5, 4.0):  # (3, 4] drops neuron 0 only
        assert not_below(eps)(output_norms(h, weight)).tolist() == [[False, True]]
    assert not_below(3.0)(output_norms(h, weight)).all() and not not_below(4.01)(output_norms(h, weight)).any()
    layer = Thresholds(h, weight, 101, 1.0)
    assert 3 < float(layer(0.7)) <= 4 and float(layer(0.5)) <= 3 and float(layer(0.0)) == 3


def test_item_2_of_orthogonal_columns_cett_is_the_root_of_the_shares_of_squares():
    torch.manual_seed(0)
    weight = torch.linalg.qr(torch.randn(12, 12)).Q * torch.rand(12)
    h = torch.randn(1, 12)
    norms = output_norms(h, weight)
    for eps in norms.flatten().sort().values[2:10]:
        dropped = (norms[norms < eps] ** 2).sum() / (norms**2).sum()
        assert float(tail_error(h, weight, eps)) == pytest.approx(math.sqrt(dropped), rel=1e-5)
    many = torch.randn(50, 12)  # over tokens: the mean of ratios, not the ratio of means
    each = torch.stack([tail_error(row[None], weight, 0.5) for row in many])
    assert float(tail_error(many, weight, 0.5)) == pytest.approx(float(each.mean()), rel=1e-5)


@pytest.mark.parametrize(("name", "value"), [("cett", 0.0), ("fat", 0.0), ("gate_topk", 0.0), ("cett", 1e-9)])
def test_item_3_of_a_relu_network_nothing_but_its_own_zeros_goes_at_0(name, value):
    model = network_of()
    rule, active, text = prepared(model, name, value=value)
    dense = score(lambda batch: logits(model, batch), text).loss
    loss, zeros = under(model, rule, active, text)
    own = []
    handles = [
        layer.mlp.down_proj.register_forward_pre_hook(lambda m, args: own.append(float((args[0] == 0).float().mean())))
        for layer in model.model.layers
    ]
    logits(model)
    for handle in handles:
        handle.remove()
    assert zeros == pytest.approx(sum(own) / 2, abs=1e-6) and 0.3 < zeros < 0.7
    assert loss == dense and active.measures["search_rise"] == 0
    assert active.measures["search_active"] == pytest.approx(1 - zeros, abs=1e-6)


@pytest.mark.parametrize("act", ["relu", "silu"])
def test_item_4_sparsity_and_perplexity_grow_with_cett_and_the_search_ends_at_its_goal(act):
    model = network_of(act)
    found = [prepared(model, "cett", value=cett)[1].measures for cett in (0.0, 0.02, 0.1, 0.2, 0.4, 0.7)]
    active = [measures["search_active"] for measures in found]
    rises = [measures["search_rise"] for measures in found]
    assert active == sorted(active, reverse=True) and rises == sorted(rises) and rises[-1] > 0.05
    rule, at, text = prepared(model, "cett", rise=0.01, tolerance=1e-6, thresholds=65536)
    assert rule.halvings == 20 and at.measures["search_rise"] == pytest.approx(0.01, abs=1e-3)
    assert under(model, rule, at, text)[1] == pytest.approx(1 - at.measures["search_active"])


def test_item_4_twenty_halvings_make_the_interval_narrower_than_a_millionth():
    asked = []

    def short(x):
        asked.append(x)
        return 1 + 0.05 * x < 1.01

    found = halved(short, 1e-6)
    assert (
        len(asked) == 20
        and found == pytest.approx(0.2, abs=0.5e-6)
        and 1 + 0.05 * found == pytest.approx(1.01, abs=1e-7)
    )


@pytest.mark.parametrize(("name", "same"), [("cett", True), ("fat", False), ("gate_topk", False)])
def test_item_5_gate_times_a_and_up_over_a_leave_cett_as_it_is(name, same):
    one, other = network_of(), network_of()
    factors = torch.exp(torch.randn(80))
    with torch.no_grad():
        other.model.layers[0].mlp.gate_proj.weight.mul_(factors[:, None])
        other.model.layers[0].mlp.up_proj.weight.div_(factors[:, None])
    masks = [
        masks_of(model, *prepared(model, name, value={"cett": 0.2, "fat": 0.5, "gate_topk": 0.7}[name])[:2])
        for model in (one, other)
    ]
    agree = float((masks[0] == masks[1]).float().mean())
    assert agree > 0.999 if same else agree < 0.99  # up to rounding at the threshold


@pytest.mark.parametrize(("name", "value"), [("cett", 0.2), ("fat", 0.5), ("gate_topk", 0.7)])
def test_item_5_down_times_a_and_up_over_a_leave_all_three_as_they_are(name, value):
    one, other = network_of(), network_of()
    factors = torch.exp(torch.randn(80))
    with torch.no_grad():
        other.model.layers[0].mlp.down_proj.weight.mul_(factors)
        other.model.layers[0].mlp.up_proj.weight.div_(factors[:, None])
    masks = [masks_of(model, *prepared(model, name, value=value)[:2]) for model in (one, other)]
    assert float((masks[0] == masks[1]).float().mean()) > 0.999


# Beyond them


def test_a_layers_threshold_is_the_largest_candidate_within_the_error():
    torch.manual_seed(0)
    h, weight = torch.randn(40, 30), torch.randn(10, 30)
    layer = Thresholds(h, weight, 200, 0.99)
    errors = [float(tail_error(h, weight, eps)) for eps in layer.candidates]
    for cett in (0.0, 0.05, 0.3, 0.6):
        within = [eps for eps, error in zip(layer.candidates, errors, strict=True) if error <= cett]
        assert float(layer(cett)) == float(max(within))
    assert float(layer(10.0)) == float(layer.candidates[-1])  # and none beyond the last


def test_candidates_reach_from_the_smallest_norm_to_the_quantile():
    norms = torch.arange(1.0, 1001).reshape(100, 10)
    found = candidates(norms, 50, 0.99)
    assert float(found[0]) == 1 and len(found) == 50 and 970 < float(found[-1]) < 1000
    assert float(candidates(norms, 5000, 1.0)[-1]) == 1000


def test_a_token_without_output_has_no_error():
    h = torch.zeros(2, 3)
    h[0] = torch.tensor([1.0, 2.0, 2.0])
    assert float(tail_error(h, torch.eye(3), 1.5)) == pytest.approx(1 / 6)


@pytest.mark.parametrize("act", ["relu", "silu"])
@pytest.mark.parametrize(
    ("name", "options"), [("cett", {}), ("fat", {}), ("gate_topk", {}), ("gate_topk", {"scope": "tensor"})]
)
def test_a_sparsity_is_that_of_the_sparse_network(name, options, act):
    model = network_of(act)
    rule, active, text = prepared(model, name, 0.8, **options)
    assert under(model, rule, active, text)[1] == pytest.approx(0.8, abs=0.01)
    assert active.measures["search_active"] == pytest.approx(0.2, abs=0.01)


def test_below_its_natural_sparsity_a_relu_network_stays_as_it_is():
    model = network_of()
    natural = 1 - prepared(model, "fat", value=0.0)[1].measures["search_active"]
    for name in ("cett", "fat"):
        measures = prepared(model, name, 0.2)[1].measures
        assert 1 - measures["search_active"] == pytest.approx(natural, abs=2e-2) and measures["search_rise"] < 1e-2


def test_a_sparsity_that_no_number_reaches_is_refused():
    """CETT's largest candidate drops 99 % at most; a cell that asks for more would be compared as if it had it."""
    model = network_of("silu")
    with pytest.raises(
        RunFailed, match=r"^sparsity=0.995: with cett=1 cett drops 0\.9\d* of the neurons, and no more — "
    ):
        prepared(model, "cett", 0.995)
    for name in ("fat", "gate_topk"):
        assert prepared(model, name, 0.995)[1].measures["search_active"] < 0.02
    assert prepared(model, "cett", value=5.0)[1].measures["search_active"] > 0.005  # a number of one's own is taken


def test_a_share_is_at_most_all():
    with pytest.raises((ConfigError, ValueError)):
        ACTIVATIONS["gate_topk"].Options(value=1.5)
    assert prepared(network_of("silu"), "gate_topk", value=1.0)[1].measures["search_active"] == 0


def test_top_k_of_tokens_and_of_all():
    scores = torch.tensor([[5.0, 4, 3, 2], [1, 0.5, 0.4, 6]])
    assert topk_of_all(0.5)(scores).int().tolist() == [[1, 1, 1, 0], [0, 0, 0, 1]]
    assert topk_of_all(0.0)(scores).all() and not topk_of_all(1.0)(scores).any()
    model = network_of("silu")
    rule, active, _ = prepared(model, "gate_topk", 0.75)
    assert (masks_of(model, rule, active).sum(-1) == 20).all()
    rule, active, _ = prepared(model, "gate_topk", 0.75, scope="tensor")
    kept = masks_of(model, rule, active)
    assert int(kept.sum()) == TOKENS.numel() * 20 and len(kept.sum(-1).unique()) > 1


def test_fat_has_one_threshold_for_all_layers():
    model = network_of("silu")
    _, active, _ = prepared(model, "fat", value=0.5)
    assert len({id(gate) for gate in active.gates.values()}) == 1
    gate = next(iter(active.gates.values()))
    assert gate(torch.tensor([0.0, 0.4999, 0.5, 0.6])).tolist() == [False, False, True, True]


def test_the_dense_prefix_is_left_alone_and_not_read():
    model = network_of("silu")
    rule, active, _ = prepared(model, "cett", 0.8, dense_prefix=0.5)
    with Masking(rule, active.places, active.gates, 0.5) as masking:
        logits(model)
    for count in masking.counts.values():
        assert count.read == 2 * count.gated
    assert active.measures["search_active"] == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("kind", ["Mistral", "Qwen2", "Phi3"])
def test_gated_networks_of_other_families(kind):
    model = network_of("silu", kind)
    rule, active, text = prepared(model, "cett", 0.5)
    assert under(model, rule, active, text)[1] == pytest.approx(0.5, abs=0.02)


def test_a_bfloat16_network_is_compared_in_float32():
    model = network_of("silu").to(torch.bfloat16)
    rule, active, text = prepared(model, "cett", 0.6)
    factor, weight = rule.factor(active.places[0]), model.model.layers[0].mlp.down_proj.weight
    assert torch.equal(factor, weight.float().norm(dim=0)), "the norms that thresholds were searched with"
    assert under(model, rule, active, text)[1] == pytest.approx(0.6, abs=0.02)


def test_a_rule_has_one_goal():
    cls = ACTIVATIONS["cett"]
    none, two = cls(cls.Options()), cls(cls.Options(rise=0.01))
    assert "no goal" in str(none.aimless(None)[0]) and "no goal" in str(none.aimless(0.0)[0])
    assert not none.aimless(0.5) and not two.aimless(None)
    assert "one goal" in str(two.aimless(0.5)[0])
    assert (
        two.asks(None) == "rise 0.01"
        and none.asks(0.5) == "0.5"
        and cls(cls.Options(value=0.2)).asks(None) == "cett 0.2"
    )
    with pytest.raises((ConfigError, ValueError)):
        cls.Options(rise=0.0)
