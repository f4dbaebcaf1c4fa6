"""BLASST's rule against hand-made numbers, against Algorithm 1 step by step, and against dense attention."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from sparselab.core.errors import RunFailed
from sparselab.inference.attention.rule import ATTENTIONS
from sparselab.inference.attention.tiled.calibrate import Curve, exponential_fit, fit, inverse_fit
from sparselab.inference.attention.tiled.online import online_attention
from sparselab.inference.attention.tiled.tiles import Ledger, attend, cut

ROW = [4.0, 3, 0, -1, 2, 1, 5, 0]


def blasst(threshold, block_q=1, block_k=2, **more):
    cls = ATTENTIONS["blasst"]
    return cls(cls.Options(threshold=threshold, block_q=block_q, block_k=block_k, **more))


def given_scores(rows):
    """q, k, v whose scores at scale 1 are ``rows`` and whose values are 0, 1, 2 …"""
    table = torch.tensor(rows)
    t, s = table.shape
    q, k = torch.eye(t)[None, None], table.T[None, None].contiguous()
    return q, k, torch.arange(float(s))[None, None, :, None].expand(1, 1, s, t), torch.ones(t, s, dtype=torch.bool)


def both(rows, threshold, block_q=1, order="forward"):
    """The output of row 0 and the kept tiles, from the fast path and from Algorithm 1, which must agree."""
    q, k, v, visible = given_scores(rows)
    rule, ledger = blasst(threshold, block_q, order=order), Ledger()
    out = attend(q, k, v, 1.0, rule, "prefill", visible, ledger)
    slow, kept, there = online_attention(q, k, v, 1.0, threshold, block_q, 2, order, visible)
    torch.testing.assert_close(out, slow)
    tally = ledger.tallies[0, "prefill"]
    assert (int(tally.kept), int(tally.valid)) == (int(kept.sum()), int(there.sum()))
    return float(out[0, 0, 0, 0]), kept[0, 0].tolist()


@pytest.mark.parametrize(
    ("threshold", "order", "kept", "value"),
    [
        (1e-3, "forward", [True, True, True, True], 4.091384),
        (0.02, "forward", [True, False, True, True], 4.102028),
        (0.1, "forward", [True, False, True, True], 4.102028),
        (0.2, "forward", [True, False, False, True], 4.094500),
        (0.3, "forward", [True, False, False, True], 4.094500),
        (0.9, "forward", [True, False, False, True], 4.094500),
        (0.02, "reverse", [True, False, True, True], 4.102028),
    ],
)
def test_by_hand(threshold, order, kept, value):
    out, tiles = both([ROW], threshold, order=order)
    assert (out, tiles) == (pytest.approx(value, abs=2e-6), [kept])


def test_one_row_vetoes():
    _, kept = both([ROW[:4], [0.0] * 4], 0.2, block_q=2)
    assert kept == [[True, True]]
    _, kept = both([ROW[:4], [0.0] * 4], 0.2, block_q=1)
    assert kept == [[True, False], [True, True]]


def drawn(seed=0, n=2, heads=4, kv=2, t=37, s=37, d=8, spread=3.0):
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(n, heads, t, d, generator=g) * spread, torch.randn(n, kv, s, d, generator=g),
            torch.randn(n, kv, s, d, generator=g))  # fmt: skip


def dense(q, k, v, scale):
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    visible = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril(k.shape[-2] - q.shape[-2])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=scale)


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize(("block_q", "block_k"), [(8, 8), (16, 4), (4, 16), (1, 8)])
@pytest.mark.parametrize("t", [37, 11])
def test_the_fast_path_is_algorithm_1(order, block_q, block_k, t):
    q, k, v = drawn(t=t, spread=8.0)
    for threshold in (1e-3, 0.1, 0.7):
        rule, ledger = blasst(threshold, block_q, block_k, order=order), Ledger()
        out = attend(q, k, v, 0.3, rule, "prefill", None, ledger)
        slow, kept, there = online_attention(q, k, v, 0.3, threshold, block_q, block_k, order)
        torch.testing.assert_close(out, slow)
        assert (int(ledger.tallies[0, "prefill"].kept), int(ledger.tallies[0, "prefill"].valid)) == (
            int(kept.sum()), int(there.sum()))  # fmt: skip
        assert int(kept.sum()) < int(there.sum()) or threshold < 0.7 or block_k > 8
        first = there.cumsum(-1).eq(1) & there
        if order == "forward":
            assert kept[first].all()  # the first tile cannot be skipped


def test_visible_tiles_are_counted_without_those_above_the_diagonal():
    q, k, v = drawn(t=32, s=48)
    ledger = Ledger()
    attend(q, k, v, 0.3, blasst(1e-9, 8, 8), "prefill", None, ledger)
    rows, columns = 4, 6
    assert int(ledger.tallies[0, "prefill"].valid) == 2 * 4 * rows * (2 * columns - rows + 1) // 2


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_vanishing_threshold_is_dense_attention(phase):
    q, k, v = drawn()
    torch.testing.assert_close(attend(q, k, v, 0.3, blasst(1e-30, 8, 8), phase), dense(q, k, v, 0.3))


def kept_tiles(q, k, v, threshold, **more):
    return online_attention(q, k, v, 0.3, threshold, 4, 4, **more)[1]


def test_a_larger_threshold_skips_more_and_constants_change_nothing():
    q, k, v = drawn()
    before = kept_tiles(q, k, v, 1e-6)
    for threshold in (1e-4, 1e-2, 0.1, 0.5, 0.99):
        after = kept_tiles(q, k, v, threshold)
        assert not (after & ~before).any()
        before = after
    # the same constant in all scores of a row: one more channel, which all keys share
    ones, shift = torch.ones(*k.shape[:-1], 1), torch.randn(*q.shape[:-1], 1)
    more = online_attention(torch.cat((q, shift), -1), torch.cat((k, ones), -1), v, 0.3, 0.1, 4, 4)
    same = online_attention(q, k, v, 0.3, 0.1, 4, 4)
    assert torch.equal(more[1], same[1])
    torch.testing.assert_close(more[0], same[0])


def test_the_skipped_mass_and_the_error_are_bounded():
    q, k, v = drawn(seed=1, kv=4)
    scores = (q @ k.transpose(-1, -2) * 0.3).masked_fill(~torch.ones(37, 37, dtype=torch.bool).tril(), -math.inf)
    for threshold in (1e-3, 1e-2, 0.1, 0.5):
        out, kept, there = online_attention(q, k, v, 0.3, threshold, 4, 4)
        skipped = (there & ~kept).repeat_interleave(4, 2)[:, :, :37].repeat_interleave(4, 3)[..., :37]
        skipped &= scores > -math.inf
        probability = scores.softmax(-1)
        assert (probability[skipped] < threshold).all()
        mass = (probability * skipped).sum(-1, keepdim=True)
        assert (mass <= threshold * skipped.sum(-1, keepdim=True)).all()
        error = (out - dense(q, k, v, 0.3)).abs()
        assert (error <= 2 * mass * v.abs().max() + 1e-5).all()


def test_no_gradient_reaches_values_that_nobody_computed_with():
    q, k, v = drawn(n=1, heads=1, kv=1, t=1, s=32)
    v.requires_grad_()
    rule = blasst(0.5, 8, 8)
    attend(q, k, v, 2.0, rule, "prefill").sum().backward()
    kept = online_attention(q, k, v, 2.0, 0.5, 8, 8)[1][0, 0, 0]
    assert not kept.all()
    for j in range(4):
        assert bool(v.grad[0, 0, 8 * j : 8 * j + 8].any()) == bool(kept[j])


def test_rows_that_are_padding_neither_veto_nor_count():
    q, k, v = drawn(n=1, heads=1, kv=1, t=8, s=16)
    seen = torch.ones(8, 16, dtype=torch.bool)
    seen[4:] = False  # half of the rows see nothing at all
    alone, ledger = Ledger(), Ledger()
    out = attend(q, k, v, 2.0, blasst(0.3, 8, 4), "prefill", seen, ledger)
    attend(q[:, :, :4], k, v, 2.0, blasst(0.3, 4, 4), "prefill", seen[:4], alone)
    assert (int(ledger.tallies[0, "prefill"].kept), int(ledger.tallies[0, "prefill"].valid)) == (
        int(alone.tallies[0, "prefill"].kept), 4)  # fmt: skip
    assert torch.equal(out[:, :, 4:], torch.zeros_like(out[:, :, 4:])) and out.isfinite().all()


def test_the_length_in_a_over_l_is_the_calls_and_while_decoding_the_growing_cache():
    q, k, v = drawn(n=1, t=24, s=24)
    cls = ATTENTIONS["blasst"]
    rule = cls(cls.Options(scale=4.0, block_k=4, block_q=8))
    whole = Ledger()
    out = attend(q, k, v, 0.3, rule, "decode", None, whole)
    kept = 0
    for at in range(24):
        one, one_kept, _ = online_attention(
            q[:, :, at : at + 1], k[:, :, : at + 1], v[:, :, : at + 1], 0.3, min(4.0 / (at + 1), 1 - 1e-7), 1, 4
        )
        torch.testing.assert_close(out[:, :, at : at + 1], one)
        kept += int(one_kept.sum())
    assert int(whole.tallies[0, "decode"].kept) == kept
    prompt = Ledger()
    attend(q, k, v, 0.3, rule, "prefill", None, prompt)
    fixed = Ledger()
    attend(q, k, v, 0.3, blasst(4.0 / 24, 8, 4), "prefill", None, fixed)
    assert int(prompt.tallies[0, "prefill"].kept) == int(fixed.tallies[0, "prefill"].kept)


def curve(length, trials, sparsity_of):
    return Curve(length, torch.tensor([round(1e6 * sparsity_of(x)) for x in trials]), 10**6)


def test_fits_give_back_what_made_the_data():
    assert inverse_fit({length: 8 / length for length in (64, 128, 512)}) == pytest.approx(8)
    shares = [0.1 * i for i in range(1, 10)]
    assert exponential_fit([2 * math.exp(5 * s) for s in shares], shares) == pytest.approx((2, 5), rel=1e-4)


def test_the_fit_of_a_rule_finds_its_threshold():
    cls = ATTENTIONS["blasst"]
    trials = [0.001 * 1.05**i for i in range(141)]
    by_scale = lambda length: curve(length, trials, lambda x: min(max(math.log(x * length / 2) / 5, 0), 1))  # noqa: E731
    curves = [by_scale(length) for length in (64, 128, 256)]
    options = {"trials": trials, "lengths": [64, 128, 256]}
    for kind in ("inverse", "exponential"):
        rule = cls(cls.Options(fit=kind, **options), 0.5)
        assert math.exp(fit(rule, curves, 0.5)) == pytest.approx(2 * math.exp(2.5), rel=0.05)
    rule = cls(cls.Options(fit="fixed", **options), 0.5)
    assert math.exp(fit(rule, curves, 0.5)) == pytest.approx(2 * math.exp(2.5) / 128, rel=0.05)
    with pytest.raises(RunFailed, match="the nearest to 50 %"):
        fit(cls(cls.Options(**options), 0.5), [curve(64, trials, lambda x: 0.0)], 0.5)


@pytest.mark.parametrize("name", ["streaming", "random_tiles"])
def test_baselines_keep_their_share_and_leave_no_row_empty(name):
    cls = ATTENTIONS[name]
    q, k, v = drawn(t=64, s=64)
    for share in (0.25, 0.5, 0.9):
        rule = cls(cls.Options(block_q=4, block_k=4), share)
        tiles = cut(torch.zeros(1, 2, 64, 64).masked_fill(~torch.ones(64, 64).tril().bool(), -math.inf),
                    torch.full((64,), 64), 4, 4)  # fmt: skip
        keep = rule.keep(tiles, "prefill")
        want = [min(i, max(2, math.ceil(i * (1 - share) - 1e-6))) for i in range(1, 17)]
        assert keep.sum(-1)[0, 0].tolist() == want
        assert keep[..., 0].all() and all(keep[0, 1, i, i] for i in range(16))
        assert attend(q, k, v, 0.3, rule, "prefill").isfinite().all()
    if name == "streaming":
        assert keep[0, 0, 15].nonzero().flatten().tolist() == [0, 15]
