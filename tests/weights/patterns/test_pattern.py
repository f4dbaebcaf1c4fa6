"""Masks: exact values by hand, exact counts always, and the fast paths against the definition."""

from __future__ import annotations

from math import inf, nan, prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselab.core.sparsity import Sparsity
from sparselab.weights import select
from sparselab.weights.count import keep_count
from sparselab.weights.patterns.layout import grouped, matrix
from sparselab.weights.patterns.pattern import Pattern, masks

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32)
SPARSITIES = (0.5, 0.9, "1:2", "2:4", "3:4", "1:8", "block:2x2:0.5", "block:4x1:0.75", "channel:0.5", "in_channel:0.5")
WEIGHTS = (
    ("linear", (8, 16), "in"),
    ("linear", (8, 16), "out"),
    ("embedding", (16, 8), "in"),
    ("conv1d", (16, 8), "in"),
    ("conv1d", (16, 8), "out"),
    ("conv", (8, 8, 3, 3), "in"),
    ("conv", (8, 8, 3, 3), "out"),
    ("conv", (8, 4, 2, 2), "kernel"),
)


def pattern(sparsity: object, kind: str = "linear", axis: str = "in") -> Pattern:
    return Pattern.of(Sparsity.parse(sparsity), kind, axis)


def bools(rows: list) -> torch.Tensor:
    return torch.tensor(rows).bool()


def top(scores: list[float], k: int) -> list[bool]:
    """The definition: the k largest, of equal ones the lowest index."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return [i in order[:k] for i in range(len(scores))]


def reference(p: Pattern, score: torch.Tensor) -> torch.Tensor:
    """The definition again, element by element, for any pattern."""
    shape = tuple(score.shape)
    if p.sparsity.kind == "nm":
        before, length, after = grouped(p.kind, shape, p.axis)
        view, m = score.reshape(before, length, after), p.sparsity.m
        mask = torch.zeros_like(view, dtype=torch.bool)
        for b in range(before):
            for start in range(0, length, m):
                for a in range(after):
                    run = view[b, start : start + m, a].tolist()
                    mask[b, start : start + m, a] = torch.tensor(top(run, p.sparsity.n))
        return mask.reshape(shape)
    if p.sparsity.kind == "unstructured":
        flat = score.reshape(-1).tolist()
        return torch.tensor(top(flat, keep_count(len(flat), p.sparsity.density))).reshape(shape)
    flat = score.reshape(shape[0], -1)
    flat = flat.t() if p.kind == "conv1d" else flat
    (rows, columns), (outputs, inputs) = p.sparsity.tile(p.kind, shape), matrix(p.kind, shape)
    corners = [(r, c) for r in range(0, outputs, rows) for c in range(0, inputs, columns)]
    sums = [sum(sum(row) for row in flat[r : r + rows, c : c + columns].tolist()) for r, c in corners]
    mask = torch.zeros(outputs, inputs, dtype=torch.bool)
    for (r, c), kept in zip(corners, top(sums, keep_count(len(sums), p.sparsity.density)), strict=True):
        mask[r : r + rows, c : c + columns] = kept
    return (mask.t() if p.kind == "conv1d" else mask).reshape(shape)


# -- by hand -----------------------------------------------------------------------------------------------------------


def test_unstructured_by_hand():
    weight = torch.tensor([[0.1, -0.5], [0.3, 0.2]])
    assert torch.equal(pattern(0.5).mask(weight.abs()), bools([[0, 1], [1, 0]]))
    assert torch.equal(pattern(0.5).mask(weight), bools([[0, 0], [1, 1]]))  # a score may be negative


def test_two_of_four_along_inputs_and_outputs():
    score = torch.tensor([[1.0, 4, 3, 2], [9, 0, 0, 8], [5, 5, 5, 5], [0, 1, 6, 1]])
    assert torch.equal(pattern("2:4").mask(score), bools([[0, 1, 1, 0], [1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0]]))
    along_out = bools([[0, 1, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 1, 0]])
    assert torch.equal(pattern("2:4", axis="out").mask(score), along_out)
    assert torch.equal(pattern("2:4", "conv1d", "in").mask(score), along_out)  # stored (in, out)
    assert torch.equal(pattern("2:4", "conv1d", "out").mask(score.t()), along_out.t())


def test_convolution_groups_each_kernel_position():
    score = torch.tensor([[[[1.0, 2]], [[2, 1]]]])  # (out 1, in 2, 1, 2)
    assert torch.equal(pattern("1:2", "conv").mask(score), bools([[[[0, 1]], [[1, 0]]]]))
    assert torch.equal(pattern("1:2", "conv", "kernel").mask(score), bools([[[[0, 1]], [[1, 0]]]]))
    score = torch.tensor([[[[1.0, 2]], [[0, 1]]]])
    assert torch.equal(pattern("1:2", "conv").mask(score), bools([[[[1, 1]], [[0, 0]]]]))
    assert torch.equal(pattern("1:2", "conv", "kernel").mask(score), bools([[[[0, 1]], [[0, 1]]]]))


def test_blocks_sum_their_scores():
    score = torch.tensor([[9.0, 1, 0, 0], [0, 1, 4, 4], [0, 0, 3, 3], [0, 0, 3, 0]])
    keep_first_and_last = bools([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])  # sums 11, 8, 0, 9
    assert torch.equal(pattern("block:2x2:0.5").mask(score), keep_first_and_last)
    assert torch.equal(pattern("block:2x2:0.5", "conv1d").mask(score.t()), keep_first_and_last.t())
    assert torch.equal(pattern("block:2x2:0.5", "conv").mask(score.view(4, 2, 1, 2)).view(4, 4), keep_first_and_last)


def test_channels_are_outputs():
    score = torch.tensor([[1.0, 1], [3, 0], [0, 1], [1, 1]])  # sums 2, 3, 1, 2
    assert torch.equal(pattern("channel:0.5").mask(score), bools([[1, 1], [1, 1], [0, 0], [0, 0]]))
    assert torch.equal(pattern("channel:0.75", "conv1d").mask(score.t())[0], bools([0, 1, 0, 0]))
    assert pattern("channel:0.5", "conv").mask(torch.rand(4, 3, 3, 3)).flatten(1).sum(1).unique().tolist() == [0, 27]


def test_input_channels_are_columns():
    score = torch.tensor([[1.0, 3, 0, 1], [1, 0, 1, 1]])  # sums 2, 3, 1, 2
    assert torch.equal(pattern("in_channel:0.5").mask(score), bools([[1, 1, 0, 0], [1, 1, 0, 0]]))
    assert torch.equal(pattern("in_channel:0.5", "conv1d").mask(score.t()), bools([[1, 1], [1, 1], [0, 0], [0, 0]]))
    filters = score.view(2, 2, 1, 2)  # two inputs with kernels of two: sums 5, 3
    assert torch.equal(pattern("in_channel:0.5", "conv").mask(filters), bools([[[[1, 1]], [[0, 0]]]] * 2))
    mask = pattern("in_channel:0.5", "conv").mask(torch.rand(6, 4, 3, 3))
    assert mask.transpose(0, 1).flatten(1).sum(1).sort()[0].tolist() == [0, 0, 54, 54]


@given(
    st.integers(0, 2**31), st.sampled_from(["linear", "conv1d", "conv"]), st.floats(0.05, 0.95), st.integers(1, 9),
    st.integers(1, 9),
)  # fmt: skip
def test_input_channels_are_the_channels_of_the_transposed_weight(seed, kind, gone, outputs, inputs):
    generator = torch.Generator().manual_seed(seed)
    shape = (outputs, inputs, 2, 3) if kind == "conv" else (outputs, inputs)
    score = torch.randint(0, 9, shape, generator=generator)  # whole numbers: sums are exact in any order, and tie
    across, down = (pattern(f"{name}:{gone}", kind).mask for name in ("in_channel", "channel"))
    assert torch.equal(across(score), down(score.transpose(0, 1).contiguous()).transpose(0, 1))
    kept = pattern(f"in_channel:{gone}", kind)
    assert kept.holds(across(score), 1 - gone) and int(across(score).sum()) == kept.kept(shape)


def test_dense_keeps_everything():
    assert pattern("dense").mask(torch.zeros(2, 3)).all()


def test_low_precision_sums_do_not_overflow():
    score = torch.full((2, 4), 60000.0, dtype=torch.float16)
    score[0, 0] = 1
    assert torch.equal(pattern("channel:0.5").mask(score), bools([[0] * 4, [1] * 4]))


# -- against the definition --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, shape, axis", WEIGHTS)
@pytest.mark.parametrize("sparsity", SPARSITIES)
@settings(max_examples=6)
@given(seed=st.integers(0, 2**31), levels=st.sampled_from([1, 2, 5, 1000]), dtype=st.sampled_from(DTYPES))
def test_every_pattern_is_its_definition(kind, shape, axis, sparsity, seed, levels, dtype):
    p = pattern(sparsity, kind, axis)
    if p.sparsity.kind == "nm" and grouped(kind, shape, axis)[1] % p.sparsity.m:
        pytest.skip("does not fit")
    generator = torch.Generator().manual_seed(seed)
    score = (torch.randint(0, levels, shape, generator=generator) - levels // 2).to(dtype)
    mask = p.mask(score)
    assert torch.equal(mask, reference(p, score))
    assert mask.shape == score.shape and mask.dtype == torch.bool and mask.is_contiguous()
    assert int(mask.sum()) == p.kept(shape)
    assert p.holds(mask) and p.holds(mask, None if p.sparsity.kind == "nm" else p.sparsity.density)
    assert torch.equal(p.mask(mask.to(dtype)), mask), "a mask is its own best score"
    if p.sparsity.kind != "unstructured" and p.sparsity.density == 0.5:
        assert not p.holds(mask.flip(0).logical_xor(bools([1] + [0] * (prod(shape) - 1)).view(shape)))


@settings(max_examples=60)
@given(
    m=st.sampled_from([2, 3, 4, 8, 9, 16, 33, select.PAIRWISE_LIMIT, select.PAIRWISE_LIMIT + 1, 130]),
    share=st.floats(0.01, 0.99),
    after=st.sampled_from([1, 3]),
    levels=st.sampled_from([1, 3, 10_000]),
    seed=st.integers(0, 2**31),
)
def test_groups_of_any_size(m, share, after, levels, seed):
    n = min(m - 1, max(1, int(share * m)))
    groups = torch.randint(0, levels, (5, m, after), generator=torch.Generator().manual_seed(seed)).float()
    mask = select.largest_in_groups(groups, n)
    for g in range(5):
        for a in range(after):
            assert mask[g, :, a].tolist() == top(groups[g, :, a].tolist(), n)


@pytest.mark.parametrize("total", [100, 4 * select.SAMPLE + 1, 200_003])
@pytest.mark.parametrize("data", ["normal", "ties", "constant", "sorted", "periodic", "unseen"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_selection_from_a_sample_is_exact(total, data, dtype):
    generator = torch.Generator().manual_seed(0)
    stride = max(1, total // select.SAMPLE)
    values = {
        "normal": torch.randn(total, generator=generator),
        "ties": torch.randint(0, 7, (total,), generator=generator),
        "constant": torch.zeros(total),
        "sorted": torch.linspace(-1, 1, total),
        "periodic": (torch.arange(total) % stride == 0) * 1.0 + torch.rand(total, generator=generator) / 4,
        "unseen": ((torch.arange(total) % stride != 0).cumsum(0) <= total // 10) * (torch.arange(total) % stride != 0),
    }[data].to(dtype)
    order = values.float().argsort(descending=True, stable=True)
    for k in (0, 1, 7, total // 10, total // 2, total - 3, total):
        expected = torch.zeros(total, dtype=torch.bool)
        expected[order[:k]] = True
        assert torch.equal(select.largest(values, k), expected)
        if 0 < k < total:
            threshold = values[order[k - 1]].reshape(1)
            assert torch.equal(select.trim_on_device(values, threshold, k, dim=0), expected)
            assert torch.equal(select.trim_on_host(values, threshold, k), expected)


def test_bfloat16_ties_at_the_median_keep_the_exact_count():
    score = torch.randn(1000, 1000, generator=torch.Generator().manual_seed(0)).abs().bfloat16()
    threshold = score.flatten().kthvalue(500_001).values
    assert (score == threshold).sum() > 1000
    assert pattern(0.5).mask(score).sum() == 500_000


# -- properties --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_constant_scores_keep_the_exact_count_lowest_index_first(sparsity, dtype):
    p = pattern(sparsity)
    score = torch.ones(8, 16, dtype=dtype)
    mask = p.mask(score)
    assert int(mask.sum()) == p.kept((8, 16))
    assert torch.equal(mask, reference(p, score))


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from([0.3, 0.5, 0.8, "2:4", "1:4", "block:1x2:0.5", "channel:0.5"]))
def test_permuting_rows_commutes(seed, sparsity):
    generator = torch.Generator().manual_seed(seed)
    score = torch.randperm(96, generator=generator).view(8, 12).double() ** 1.5  # distinct, and so are the sums
    rows = torch.randperm(8, generator=generator)
    p = pattern(sparsity)
    assert torch.equal(p.mask(score[rows]), p.mask(score)[rows])


@given(st.integers(1, 10**7), st.floats(0, 1))
def test_keep_count_is_the_nearest_count_and_at_least_one(units, density):
    kept = keep_count(units, density)
    assert abs(kept - density * units) <= 0.5 + 1e-6 or kept == 1
    assert (kept >= 1) == (density > 0) and kept <= units


def test_keep_count_rounds_the_decimal_half_up():
    assert [keep_count(10, 0.15), keep_count(100, 0.145), keep_count(10, 0.25)] == [2, 15, 3]
    assert keep_count(3, 1e-9) == 1 and keep_count(3, 0.0) == 0
    with pytest.raises(ValueError, match="not in"):
        keep_count(3, 1.1)


@given(st.integers(1, 10**8), st.data())
def test_a_count_survives_being_written_as_a_density(units, data):
    count = data.draw(st.integers(0, units))
    assert keep_count(units, count / units) == count


def test_density_overrides_the_pattern_except_for_n_of_m():
    score = torch.rand(4, 8)
    assert pattern(0.5).mask(score, 0.25).sum() == 8
    assert pattern(0.5).mask(score, 0.0).sum() == 0
    assert pattern("block:2x2:0.5").mask(score, 0.25).sum() == 8
    assert pattern("channel:0.5").mask(score, 0.75).sum() == 24
    assert pattern("2:4").mask(score, 0.25).sum() == 16


def test_units_and_kept():
    assert pattern(0.9).units((10, 10)) == 100 and pattern(0.9).kept((10, 10)) == 10
    assert pattern("2:4").units((8, 8)) == 64 and pattern("2:4").kept((8, 8)) == 32
    assert pattern("block:4x1:0.75").units((8, 8)) == 16 and pattern("block:4x1:0.75").kept((8, 8)) == 16
    assert pattern("channel:0.5", "conv1d").units((4, 6)) == 6 and pattern("channel:0.5", "conv").kept((6, 2, 3)) == 18
    assert pattern("in_channel:0.5", "conv1d").units((4, 6)) == 4
    assert (
        pattern("in_channel:0.5", "conv").units((6, 2, 3)) == 2
        and pattern("in_channel:0.5", "conv").kept((6, 2, 3)) == 18
    )
    assert pattern("dense").kept((2, 2)) == 4


def test_memory_format_does_not_matter():
    score = torch.rand(8, 8, 3, 3)
    for sparsity in SPARSITIES:
        p = pattern(sparsity, "conv")
        assert torch.equal(p.mask(score.to(memory_format=torch.channels_last)), p.mask(score))


# -- holds -------------------------------------------------------------------------------------------------------------


def test_a_mask_keeps_exactly_n_and_a_weight_at_most():
    p = pattern("2:4")
    assert p.holds(bools([[1, 1, 0, 0]])) and not p.holds(bools([[1, 0, 0, 0]])) and not p.holds(bools([[1, 1, 1, 0]]))
    assert p.holds(torch.tensor([[0.5, 0, 0, 0]])) and not p.holds(torch.tensor([[0.5, 1, -2, 0]]))


def test_blocks_and_channels_are_whole():
    p = pattern("block:1x2:0.5")
    assert p.holds(bools([[1, 1, 0, 0]])) and not p.holds(bools([[1, 0, 0, 0]]))
    assert not p.holds(torch.tensor([[1.0, 0, 0, 0]])) and p.holds(torch.tensor([[1.0, 0, 0, 0]]), 0.5)
    assert not p.holds(torch.tensor([[1.0, 0, 0, 2]]), 0.5)
    assert p.holds(bools([[1, 1, 1, 1]])) and not p.holds(bools([[1, 1, 1, 1]]), 0.5)
    assert pattern("channel:0.5").holds(bools([[1, 1], [0, 0]])) and not pattern("channel:0.5").holds(bools([[1, 0]]))
    p = pattern("in_channel:0.5")
    assert p.holds(bools([[1, 0], [1, 0]])) and not p.holds(bools([[1, 0], [0, 0]])) and p.holds(bools([[1, 0]]))


def test_unstructured_and_dense_hold():
    assert pattern(0.5).holds(bools([[1, 1, 1, 0]])) and not pattern(0.5).holds(bools([[1, 1, 1, 0]]), 0.5)
    assert pattern(0.5).holds(torch.tensor([[1.0, 0, 0, 0]]), 0.5)
    assert pattern("dense").holds(bools([[1, 1]])) and not pattern("dense").holds(bools([[1, 0]]))
    assert pattern("dense").holds(torch.zeros(1, 2))


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [nan, inf, -inf])
@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_scores_that_are_not_finite_are_refused(sparsity, bad, dtype):
    score = torch.ones(8, 16, dtype=dtype)
    score[3, 7] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        pattern(sparsity).mask(score)


def test_a_sum_that_overflows_is_refused():
    with pytest.raises(ValueError, match="NaN or infinite"):
        pattern("channel:0.5").mask(torch.full((4, 4), 3e38))


@pytest.mark.parametrize(
    "sparsity, kind, axis, shape",
    [
        ("2:4", "linear", "in", (4, 6)),
        ("2:4", "linear", "out", (6, 4)),
        ("2:4", "linear", "kernel", (4, 4)),
        ("2:4", "conv", "in", (4, 1, 3, 3)),
        ("block:4x1:0.5", "linear", "in", (6, 4)),
        ("block:4x1:0.5", "conv1d", "in", (4, 6)),
        (0.5, "linear", "in", (6,)),
        (0.5, "linear", "in", (0, 4)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(sparsity, kind, axis, shape):
    with pytest.raises(ValueError):
        pattern(sparsity, kind, axis).mask(torch.ones(shape))


def test_an_unknown_axis_is_refused():
    with pytest.raises(ValueError, match="axis 'rows'"):
        pattern("2:4", axis="rows")


# -- many layers at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bundle", [False, True, None])
def test_many_layers_are_the_layers_one_by_one(bundle):
    patterns = [pattern(s, k, a) for s in ("2:4", "1:2", 0.9, "channel:0.5") for k, _, a in WEIGHTS]
    scores = [torch.randn(shape) for _ in range(4) for _, shape, _ in WEIGHTS]
    densities = [None if i % 2 else 0.25 for i in range(len(scores))]
    expected = [p.mask(s, d) for p, s, d in zip(patterns, scores, densities, strict=True)]
    assert all(map(torch.equal, masks(patterns, scores, densities, bundle=bundle), expected))
    assert masks([], []) == []


def test_many_layers_name_the_bad_one():
    scores = [torch.ones(2, 4), torch.full((2, 4), nan)]
    with pytest.raises(ValueError, match=r"scores\[1\]"):
        masks([pattern("2:4")] * 2, scores)
    with pytest.raises(ValueError, match="not a multiple of 4"):
        masks([pattern("2:4")], [torch.ones(4, 6)], bundle=True)
