"""The dossier's exact cases of TEAL and WINA, and what the gates promise."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import nn

from sparselab.inference.activation.frozen.gates import kept_of, quantile, threshold, topk
from sparselab.inference.activation.frozen.masking import Masking, scores
from sparselab.inference.activation.frozen.sites import Site
from sparselab.inference.activation.rule import ACTIVATIONS, dense_tokens


def site_of(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return Site("layer", layer, transposed=False, pivot=True)


def rule_of(name, **options):
    cls = ACTIVATIONS[name]
    return cls(cls.Options(**options))


def masked(name, weight, x, kept):
    """(kept indices, squared output error) of a rule on one layer."""
    site = site_of(weight)
    factor = rule_of(name).factor(site)
    keep = topk(1 - kept / x.numel())(scores(x, factor))
    return keep.nonzero().flatten().tolist(), float(((weight @ x) - weight @ (x * keep)).square().sum())


DIAGONAL = torch.diag(torch.tensor([3.0, 1.0, 0.5]))
X = torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("name", "kept", "indices", "error"),
    [("teal", 1, [2], 13.0), ("wina", 1, [0], 6.25), ("teal", 2, [1, 2], 9.0), ("wina", 2, [0, 1], 2.25)],
)
def test_by_hand_on_a_diagonal_layer(name, kept, indices, error):
    assert masked(name, DIAGONAL, X, kept) == (indices, error)


def test_columns_that_are_not_orthogonal_can_mislead_wina():
    weight, x = torch.tensor([[1.0, 1.0, 0.2], [0.0, 0.0, 0.2]]), torch.tensor([1.0, -1.0, 1.5])
    assert masked("teal", weight, x, 1) == ([2], pytest.approx(0.0))
    assert masked("wina", weight, x, 1) == ([0], pytest.approx(0.58))


@pytest.mark.parametrize("seed", range(4))
def test_wina_is_the_best_mask_of_its_size_where_columns_are_orthogonal(seed):
    torch.manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(9, 7, dtype=torch.float64)).Q
    weight, x = basis * (3 * torch.rand(7, dtype=torch.float64)), torch.randn(7, dtype=torch.float64)
    for kept in range(1, 7):
        found = masked("wina", weight, x, kept)[1]
        every = [
            float((weight @ (x * torch.tensor([i in chosen for i in range(7)]).logical_not())).square().sum())
            for chosen in combinations(range(7), kept)
        ]
        assert found == pytest.approx(min(every), rel=1e-9)


def test_teal_and_wina_agree_where_all_columns_are_equally_long():
    torch.manual_seed(0)
    weight, x = torch.linalg.qr(torch.randn(8, 8)).Q, torch.randn(5, 8)
    factor = rule_of("wina").factor(site_of(weight))
    assert torch.equal(topk(0.5)(scores(x, factor)), topk(0.5)(scores(x, None)))


def test_the_norm_is_over_the_outputs():
    site = site_of(torch.tensor([[3.0, 0.0], [4.0, 0.0], [0.0, 2.0]]))
    assert rule_of("wina").factor(site).tolist() == [5.0, 2.0]
    assert rule_of("teal").factor(site) is None


def test_only_pivots_are_scored_by_weights_unless_all_are():
    plain = Site("layer", site_of(DIAGONAL).module, transposed=False)
    assert rule_of("wina").factor(plain) is None
    assert rule_of("wina", informed="all").factor(plain).tolist() == [3.0, 1.0, 0.5]


@pytest.mark.parametrize("inputs", [10, 64, 172])
@pytest.mark.parametrize("level", [0.0, 0.25, 0.4, 0.5, 0.65, 0.9, 1.0])
def test_counts_are_exact_and_ties_go_to_the_first(inputs, level):
    torch.manual_seed(0)
    values = torch.stack([torch.ones(inputs), torch.randint(3, (inputs,)).float(), torch.rand(inputs)])
    keep = topk(level)(values)
    assert keep.sum(-1).tolist() == [kept_of(inputs, level)] * 3
    order = values.argsort(dim=-1, descending=True, stable=True)[:, : kept_of(inputs, level)]
    assert torch.equal(keep, torch.zeros_like(keep).scatter(1, order, True))


def test_a_product_a_hair_below_a_whole_number_is_that_number():
    assert int(10 * (1 - 0.9)) == 0  # the trap
    assert kept_of(10, 0.9) == 1


def test_a_threshold_at_the_quantile_gives_that_sparsity():
    torch.manual_seed(0)
    values = torch.rand(50, 20)
    for level in (0.0, 0.25, 0.5, 0.9):
        keep = threshold(quantile(values, level))(values)
        gone = 1 - keep.float().mean().item()
        assert gone == pytest.approx(level)
    assert threshold(quantile(torch.zeros(8), 0.5))(torch.zeros(8)).sum() == 0  # what is not above it goes


@pytest.mark.parametrize(("tokens", "dense"), [(1, 0), (2, 1), (100, 1), (256, 3), (512, 6)])
def test_the_last_99_per_cent_of_a_pass_are_gated(tokens, dense):
    assert dense_tokens(tokens, 0.01) == dense
    assert dense_tokens(tokens, 0.0) == 0


def test_masking_counts_what_it_keeps_and_leaves():
    site, rule = site_of(torch.randn(4, 10)), rule_of("teal")
    x = torch.randn(2, 8, 10)
    dense = site.module(x)
    with Masking(rule, [site], {}, 0.01) as masking:
        assert torch.equal(site.module(x), dense)  # level 0: bit for bit
        assert masking.counts["layer"].sparsity == 0
    with Masking(rule, [site], {"layer": topk(0.5)}, 0.25) as masking:
        out = site.module(x)
    count = masking.counts["layer"]
    assert (count.read, count.gated, int(count.kept)) == (160, 120, 60)
    assert (count.gated_sparsity, count.sparsity) == (0.5, 0.375)
    assert torch.equal(out[:, :2], dense[:, :2]) and not torch.equal(out[:, 2:], dense[:, 2:])
    assert torch.equal(site.module(x), dense)  # the hooks are gone
