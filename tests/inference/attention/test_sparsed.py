"""SparseD and its baselines, rule by rule: items of what can be checked exactly of arXiv 2509.24014."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sparselab.inference.attention.rule import ATTENTIONS, Step
from sparselab.inference.attention.stepped import full_steps
from sparselab.inference.attention.tiled.mass import border, count_coded, count_of, largest, pooled, selected
from sparselab.inference.attention.tiled.tiles import Ledger, attend, cut

DRAWN = torch.Generator().manual_seed(3)
Q, K, V = (torch.randn(2, 4, 32, 8, generator=DRAWN) * 2 for _ in range(3))
SEEN = torch.ones(1, 1, 32, 32, dtype=torch.bool)


def rule(name="sparsed", sparsity=0.5, block=4, **options):
    cls = ATTENTIONS[name]
    return cls(cls.Options(block_q=block, block_k=block, **options), sparsity)


def tiles_of(q=Q, k=K, block=4, layer=0):
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    lengths = torch.full((q.shape[-2],), k.shape[-2])
    return replace(cut(scores, lengths, block, block), scores=scores, block_k=block, layer=layer, width=q.shape[-1])


def masks(made, tiles=None, steps=10, generated=8):
    """What the rule keeps in every step of a text whose scores never change."""
    tiles = tiles_of() if tiles is None else tiles
    found = []
    for number in range(steps):
        made.begin(Step(number, steps, tiles.scores.shape[-1] - generated, generated))
        found.append(made.keep(tiles, "prefill"))
    return found


@pytest.mark.parametrize(("steps", "full"), [(8, 3), (32, 8), (64, 14), (128, 27), (256, 53), (512, 104), (1024, 206)])
def test_item_1_steps_with_full_attention_as_released(steps, full):
    assert full_steps(steps, 0.2, "coded") == full
    kept = masks(rule(skip=0.2), steps=steps)
    assert [bool(one.all()) for one in kept] == [True] * full + [False] * (steps - full)


def test_steps_with_full_attention_as_the_paper_counts_them():
    assert [full_steps(steps, 0.2, "paper") for steps in (4, 32, 128, 1024)] == [0, 6, 25, 204]
    assert full_steps(128, None, "coded") == 0


@pytest.mark.parametrize(
    ("tiles", "counts"),
    [(8, {0.1: 1, 0.3: 3, 0.5: 5}), (16, {0.1: 2, 0.3: 5, 0.5: 9}), (32, {0.1: 4, 0.3: 10, 0.5: 17})],
)
def test_item_2_counts_of_tiles_as_released(tiles, counts):
    assert {share: count_coded(tiles, share) for share in counts} == counts
    assert count_coded(5, 1 - 0.8) == count_coded(5, 0.2) == 2


def test_counts_of_tiles_as_the_paper_says():
    assert [count_of(10, share) for share in (0.0, 0.1, 0.3, 0.31, 1.0)] == [1, 1, 3, 4, 10]
    assert count_of(0, 0.5) == 0


@pytest.mark.parametrize(
    ("prompt", "generated", "block", "first", "tiles"),
    [(100, 128, 32, 4, 8), (4000, 128, 128, 32, 33), (64, 32, 16, 4, 6), (10, 8, 32, 0, 1)],
)
def test_item_3_the_first_tile_of_generated_keys(prompt, generated, block, first, tiles):
    assert border(prompt + generated, generated, block) == first and -(-(prompt + generated) // block) == tiles


def test_item_4_attention_averaged_over_tiles():
    weights = torch.tensor([[0.4, 0.1, 0.05, 0.05, 0.1, 0.1, 0.1, 0.1], [0.1, 0.3, 0.2, 0.1, 0.05, 0.05, 0.1, 0.1]])
    mass = pooled(weights, 2, 2)
    torch.testing.assert_close(mass, torch.tensor([[0.225, 0.100, 0.075, 0.100]]))
    assert largest(mass, 1).tolist() == [[True, False, False, False]]
    assert largest(mass, 2).tolist() == [[True, True, False, False]]  # of equal ones the first


def test_tiles_over_the_end_are_averaged_as_asked():
    weights = torch.ones(3, 5)
    torch.testing.assert_close(pooled(weights, 2, 4), torch.tensor([[1.0, 0.25], [0.5, 0.125]]))
    torch.testing.assert_close(pooled(weights, 2, 4, "valid"), torch.ones(2, 2))


def test_item_5_a_full_mask_is_dense_attention():
    dense = torch.nn.functional.scaled_dot_product_attention(Q, K, V)
    made = rule(sparsity=0.0)
    for number in range(10):
        made.begin(Step(number, 10, 24, 8))
        out = attend(Q, K, V, 8**-0.5, made, "prefill", SEEN)
        torch.testing.assert_close(out, dense, rtol=1e-5, atol=1e-6)
    assert made.masks[0].all()


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_item_5_every_tile_of_queries_has_keys_of_both_parts(share):
    kept = masks(rule(sparsity=1 - share))[-1]
    assert kept[..., :6].any(-1).all() and kept[..., 6:].any(-1).all()
    assert (kept[..., :6].sum(-1) == count_of(6, share)).all() and (kept[..., 6:].sum(-1) == count_of(2, share)).all()
    # released: all of the largest may lie among generated keys, so that a tile of queries sees none of the prompt
    q, k = torch.zeros(1, 1, 32, 8), torch.zeros(1, 1, 32, 8)
    q[..., 0], k[..., 24:, 0] = 9.0, 9.0
    tiles = tiles_of(q, k)
    assert not masks(rule(sparsity=0.9, selection="repo"), tiles)[-1][..., :6].any()
    assert masks(rule(sparsity=0.9), tiles)[-1][..., :6].any(-1).all()


def test_item_6_heads_have_masks_of_their_own_where_their_keys_differ():
    kept = masks(rule())[-1]
    assert all(not torch.equal(kept[:, a], kept[:, b]) for a in range(4) for b in range(a))
    same = masks(rule(), tiles_of(Q[:, :1].expand(-1, 4, -1, -1), K[:, :1].expand(-1, 4, -1, -1)))[-1]
    assert all(torch.equal(same[:, 0], same[:, b]) for b in range(4))


def test_item_6_one_mask_for_all_later_steps_and_another_for_another_text():
    made = rule()
    first = masks(made)
    full = full_steps(10, 0.2, "coded")
    changed = tiles_of(K, Q)
    made.begin(Step(9, 10, 24, 8))
    assert all(torch.equal(one, first[-1]) for one in first[full:])
    assert torch.equal(made.keep(changed, "prefill"), first[-1])  # whatever the scores are by then
    made.begin(Step(0, 10, 24, 8))
    assert made.keep(changed, "prefill").all() and not made.masks
    assert not torch.equal(masks(made, changed)[-1], first[-1])


def test_layers_have_masks_of_their_own():
    made = rule()
    for number in range(6):
        made.begin(Step(number, 10, 24, 8))
        kept = [made.keep(tiles, "prefill") for tiles in (tiles_of(layer=0), tiles_of(K, Q, layer=1))]
    assert not torch.equal(*kept)


def test_item_7_skipping_all_steps_is_never_sparse():
    made = rule(skip=1.0)
    assert all(one.all() for one in masks(made)) and not made.masks


@pytest.mark.parametrize("count", ["coded", "paper"])
@pytest.mark.parametrize("skip", [None, 0.0, 0.3])
def test_a_mask_is_made_at_the_last_full_step_or_at_once(skip, count):
    made = rule(skip=skip, skip_count=count)
    kept = masks(made)
    full = full_steps(10, skip, count)
    assert [bool(one.all()) for one in kept] == [True] * full + [False] * (10 - full)
    assert made.spent == Q.shape[0] * 4 * 32 * 32 * 8


def test_without_reuse_every_sparse_step_makes_a_mask_and_says_what_they_share():
    made = rule(reuse=False)
    masks(made)
    later = 10 - full_steps(10, 0.2, "coded")
    assert made.spent == (1 + later) * Q.shape[0] * 4 * 32 * 32 * 8
    found = made.measures()
    assert found["same_over_steps"] == 1.0 and 0 < found["same_over_heads"] < 1
    assert rule().measures() == {}


def test_random_tiles_are_as_many():
    by_score, drawn, other = (
        masks(rule(**more))[-1] for more in ({}, {"score": "random"}, {"score": "random", "draw": 1})
    )
    assert torch.equal(by_score.sum(-1), drawn.sum(-1)) and not torch.equal(by_score, drawn)
    assert not torch.equal(drawn, other)


def test_tiles_are_chosen_among_all_where_parts_are_not_isolated():
    kept = masks(rule(isolated=False, sparsity=0.75))[-1]
    assert (kept.sum(-1) == 2).all() and not kept[..., 6:].any(-1).all()
    mass = pooled((Q @ K.transpose(-1, -2) * 8**-0.5).softmax(-1), 4, 4)
    assert torch.equal(kept, largest(mass, 2))


def test_scores_over_the_root_of_heads_are_another_temperature():
    tiles = tiles_of()
    options = rule(score_scale="sqrt_heads").options
    expected = (Q @ K.transpose(-1, -2) / 4**0.5).softmax(-1)
    found = selected(tiles, options, 0.5, 0, 0)  # nothing is generated: the last tile is a part of its own
    first = border(32, 0, 4)
    assert torch.equal(found[..., :first], largest(pooled(expected, 4, 4)[..., :first], count_of(first, 0.5)))


@pytest.mark.parametrize(("queries", "block"), [(32, 4), (30, 4), (32, 1)])
@pytest.mark.parametrize("name", ["window", "sink_window"])
@pytest.mark.parametrize("sparsity", [0.9, 0.625, 0.25])
def test_windows_keep_as_many_tiles_of_every_row(name, queries, block, sparsity):
    tiles = tiles_of(Q[:, :, :queries], K[:, :, :queries], block)
    kept = rule(name, sparsity, block).keep(tiles, "prefill")
    n = kept.shape[-1]
    assert (kept.sum(-1) == -(-n * (1 - sparsity) // 1)).all()
    here = torch.eye(n, dtype=torch.bool)
    assert kept[..., here].all() or name == "sink_window"


def test_a_window_of_keys_reaches_as_far_as_it_says():
    at = torch.arange(32)
    gap = (at[:, None] - at).abs()
    for reach, far in (("half", 3), ("whole", 6)):
        kept = rule("window", None, 1, keys=6, reach=reach).keep(tiles_of(block=1), "prefill")
        assert torch.equal(kept[0, 0], gap <= far)
    kept = rule("sink_window", None, 1, keys=6, sinks=0.1).keep(tiles_of(block=1), "prefill")
    assert torch.equal(kept[0, 0], (gap <= 3) | (at < 4))  # 10 % of 32 keys, rounded up


def test_windows_begin_after_full_steps_where_they_are_asked_to():
    kept = masks(rule("window", 0.5, skip=0.2))
    assert [bool(one.all()) for one in kept] == [True] * 4 + [False] * 6
    assert not any(one.all() for one in masks(rule("window", 0.5)))


def test_a_ledger_has_the_share_of_all_steps():
    made, ledger = rule(sparsity=0.75), Ledger(saves=1.0)
    for number in range(10):
        made.begin(Step(number, 10, 24, 8))
        attend(Q, K, V, 8**-0.5, made, "prefill", SEEN, ledger)
    valid, kept, pairs = ledger.totals()
    density = (count_of(6, 0.25) + count_of(2, 0.25)) / 8
    assert kept / valid == pytest.approx(0.4 + 0.6 * density)
    assert pairs == 10 * 2 * 4 * 32 * 32 * 8 and made.spent == pairs / 10
