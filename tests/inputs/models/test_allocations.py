"""Rules of sparse auto-encoders: every exact item of the paper's dossier, by hand and by properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselab.core.errors import ConfigError
from sparselab.inputs.models.allocation import ALLOCATIONS, best_pairs, made
from sparselab.inputs.models.autoencoders import ALONE
from sparselab.inputs.models.shared import Shared, SharedByRanks
from sparselab.inputs.models.zipf import fitted, shares

torch.set_num_threads(1)

HAND = torch.tensor([[5.0, 4.0, 0.0], [3.0, 1.0, 2.0]])  # two tokens, three features
BUDGETED = ["topk", "mutual_choice", "feature_choice"]


def kept(magnitudes, shared=ALONE, **values):
    rule = made(values)
    state = rule.state(magnitudes.shape[1])
    return rule.kept(magnitudes, state, shared) & (magnitudes > 0)


def pairs(mask):
    return {tuple(place) for place in mask.nonzero().tolist()}


@st.composite
def batches(draw):
    """Magnitudes (tokens, features) with zeros and ties, and a budget for each token."""
    tokens, features = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    numbers = draw(st.lists(st.integers(0, 6), min_size=tokens * features, max_size=tokens * features))
    return torch.tensor(numbers, dtype=torch.float32).view(tokens, features), draw(st.integers(1, features))


def test_topk_by_hand():
    assert pairs(kept(HAND, name="topk", k=1)) == {(0, 0), (1, 0)}


def test_mutual_choice_by_hand():
    """A budget of two pairs goes to the first token, the second gets nothing; of three, 3 comes next."""
    assert pairs(kept(HAND, name="mutual_choice", k=1)) == {(0, 0), (0, 1)}
    assert pairs(best_pairs(HAND, 3, ALONE)) == {(0, 0), (0, 1), (1, 0)}


def test_feature_choice_by_hand():
    """One token for each feature."""
    rule = made({"name": "feature_choice", "k": 1, "law": "const"})
    assert rule.counts(3, 2) == [1, 1, 1]
    assert pairs(kept(HAND, name="feature_choice", k=1, law="const")) == {(0, 0), (0, 1), (1, 2)}


def test_relu_keeps_whatever_is_positive():
    assert torch.equal(kept(HAND, name="relu"), HAND > 0)


@settings(max_examples=60, deadline=None)
@given(batches())
def test_budgets(drawn):
    """TopK rows have k, feature choice columns at most m, mutual choice at most k n in all, ties or not."""
    magnitudes, k = drawn
    tokens, features = magnitudes.shape
    topk, rule = kept(magnitudes, name="topk", k=k), made({"name": "feature_choice", "k": k})
    assert torch.equal(topk.sum(1), (magnitudes > 0).sum(1).clamp(max=k))
    counts = torch.tensor(rule.counts(features, tokens))
    columns = kept(magnitudes, name="feature_choice", k=k).sum(0)
    there = (magnitudes > 0).sum(0)
    assert torch.equal(columns, counts.minimum(there))  # ranks are those of the features as they come
    whole = int(kept(magnitudes, name="mutual_choice", k=k).sum())
    assert whole == min(k * tokens, int(there.sum()))


@settings(max_examples=60, deadline=None)
@given(batches())
def test_mutual_choice_keeps_the_largest_sum(drawn):
    """It solves the problem that the others solve under a further constraint."""
    magnitudes, k = drawn
    best = magnitudes[kept(magnitudes, name="mutual_choice", k=k)].sum()
    assert best >= magnitudes[kept(magnitudes, name="topk", k=k)].sum()
    tokens, features = magnitudes.shape
    for law in ("const", "zipf"):
        choice = made({"name": "feature_choice", "k": k, "law": law})
        if (
            sum(choice.counts(features, tokens)) <= k * tokens
        ):  # of one token for each feature, or rounded up, they may be more
            assert best >= magnitudes[kept(magnitudes, name="feature_choice", k=k, law=law)].sum()


def test_mutual_choice_is_topk_where_all_tokens_are_alike(rng):
    """The same sorted magnitudes in every token, the k-th apart from the next; and of one token with k = M."""
    numbers = torch.tensor([9.0, 8.0, 7.0, 2.0, 1.0])
    alike = torch.stack([numbers[torch.from_numpy(rng.permutation(5))] for _ in range(6)])
    assert torch.equal(kept(alike, name="mutual_choice", k=3), kept(alike, name="topk", k=3))
    one = torch.rand(1, 9)
    assert torch.equal(kept(one, name="mutual_choice", k=4), kept(one, name="topk", k=4))


def test_feature_choice_with_as_many_tokens_as_there_are_keeps_everything():
    magnitudes = torch.rand(5, 4) + 0.1
    assert bool(kept(magnitudes, name="feature_choice", k=4, law="const").all())


@given(st.integers(1, 200), st.integers(1, 64), st.floats(0, 3), st.floats(0, 100))
def test_the_law_falls_and_sums_to_the_budget(features, tokens, alpha, beta):
    """To the digit, also where an end of the range cuts some; the rest follow one law. alpha = 0 gives each the same."""
    rule, law = made({"name": "feature_choice", "k": 1, "alpha": alpha, "beta": beta}), shares(features, alpha, beta)
    counts = rule.counts(features, tokens)
    assert counts == sorted(counts, reverse=True) and counts[-1] >= 1 and counts[0] <= tokens
    assert sum(counts) == max(tokens, features) and math.isclose(sum(law), 1)
    factors = [((c - 1) / w, (c + 1) / w) for c, w in zip(counts, law, strict=True) if 1 < c < tokens]
    assert max((low for low, _ in factors), default=0) <= min((high for _, high in factors), default=1) + 1e-9
    assert rule.least_batch(features) == features
    same = made({"name": "feature_choice", "k": 1, "alpha": 0.0, "beta": beta}).counts(features, 4 * features)
    assert same == [4] * features


@pytest.mark.parametrize("name", BUDGETED)
def test_permuted_tokens_and_features_permute_what_is_kept(name, rng):
    magnitudes = torch.from_numpy(rng.permutation(48).astype("float32")).view(8, 6)
    tokens, features = torch.from_numpy(rng.permutation(8)), torch.from_numpy(rng.permutation(6))
    options = {"law": "const"} if name == "feature_choice" else {}  # of another law ranks go with the features
    whole = kept(magnitudes, name=name, k=2, **options)
    assert torch.equal(kept(magnitudes[tokens], name=name, k=2, **options), whole[tokens])
    assert torch.equal(kept(magnitudes[:, features], name=name, k=2, **options), whole[:, features])


def test_a_law_that_an_end_of_the_range_cuts_keeps_the_budget():
    """256 tokens of k = 8 for 1,024 features: two tokens for each on average, and by the law less than one for most."""
    rule = made({"name": "feature_choice", "k": 8})
    counts = rule.counts(1024, 256)
    assert sum(counts) == 2048 and counts[-1] == 1 and counts[0] > 10
    assert rule.least_batch(1024) == 128 and rule.counts(1024, 100) == [1] * 1024
    assert made({"name": "mutual_choice", "k": 8}).least_batch(1024) == 1


def test_ranks_go_with_the_features_that_would_fire_most():
    """The feature with the most best pairs comes to the first rank, and is given most tokens."""
    rule = made({"name": "feature_choice", "k": 2, "alpha": 1.0, "beta": 0.0, "rerank": 1})
    magnitudes = torch.tensor([[0.1, 0.05, 9.0], [0.3, 0.2, 8.0], [0.1, 7.0, 6.0]])
    state = rule.state(3)
    rule.learn(magnitudes, state, 0, ALONE)
    assert state["rank"].tolist() == [2, 1, 0] and state["wanted"].tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert rule.counts(3, 3) == [3, 2, 1]
    assert pairs(rule.kept(magnitudes, state, ALONE)) == {(0, 2), (1, 2), (2, 2), (2, 1), (1, 1), (1, 0)}
    rule.learn(magnitudes, {**state, "rank": torch.arange(3)}, 0, ALONE)
    later = made({"name": "feature_choice", "k": 1, "rerank": 2})
    later.learn(magnitudes, state, 1, ALONE)  # not yet due
    assert state["rank"].tolist() == [2, 1, 0]


class Halves(Shared):
    """Two processes in one: what the other one has is known beforehand."""

    world = 2

    def __init__(self, rank, other, of):
        self.rank, self.other, self.of = rank, other, of

    def best(self, values, count):
        theirs = self.of(self.other)
        both = [values, theirs] if self.rank == 0 else [theirs, values]
        order = torch.cat(both).argsort(dim=0, descending=True, stable=True)
        place = order.argsort(0)
        return (place < count)[self.rank * len(values) : (self.rank + 1) * len(values)]


@pytest.mark.parametrize("name", ["mutual_choice", "feature_choice"])
def test_two_processes_keep_what_one_would(name, rng):
    magnitudes = torch.from_numpy(rng.permutation(48).astype("float32")).view(8, 6)
    whole = kept(magnitudes, name=name, k=2)
    counts = made({"name": "feature_choice", "k": 2}).counts(6, 8)
    values = {
        "mutual_choice": lambda half: half.flatten().topk(min(16, half.numel())).values,
        "feature_choice": lambda half: half.topk(min(counts[0], 4), 0).values,
    }[name]
    halves = magnitudes[:4], magnitudes[4:]
    parts = [kept(halves[r], Halves(r, halves[1 - r], values), name=name, k=2) for r in (0, 1)]
    assert torch.equal(torch.cat(parts), whole)


def test_one_process_alone_is_the_first_of_its_values():
    values = torch.tensor([[3.0, 5.0], [2.0, 4.0], [1.0, 0.0]])
    assert Shared().best(values, torch.tensor([1, 2])).tolist() == [[True, True], [False, True], [False, False]]
    assert SharedByRanks.best is not Shared.best


def test_a_fit_finds_the_law_and_the_ranks():
    ranks = torch.arange(1, 201, dtype=torch.float64)
    law = 0.3 * (ranks + 10) ** -1.2
    mixed = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(fitted(law[mixed]), law[mixed], rtol=1e-6)
    rare = law.clone()
    rare[150:] = 0  # those that never fire are no points of the fit
    assert torch.allclose(fitted(rare)[:150], law[:150], rtol=1e-6)
    assert not fitted(torch.tensor([0.0, 0.2, 0.0])).any()


def test_every_rule_is_tried_and_has_its_options_checked():
    assert set(ALLOCATIONS) == {*BUDGETED, "relu"}
    with pytest.raises(ConfigError, match=r"model.allocation: has no name"):
        made({"k": 3})
    with pytest.raises(ConfigError, match=r'did you mean "mutual_choice"'):
        made({"name": "mutual"})
    with pytest.raises(ConfigError, match=r"model.allocation.k=0"):
        made({"name": "topk", "k": 0})
    (issue,) = made({"name": "topk", "k": 9}).issues(8)
    assert "there are 8 features — write at most 8" in str(issue)
