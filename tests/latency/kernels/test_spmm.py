"""The sparse product against the dense one, and its packing by hand (arXiv 1911.09723, XNNPACK src/reference/packing.cc)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselab.core import native_build as native
from sparselab.latency.kernels.spmm.native import OPEN, Multiply, sizes
from sparselab.latency.kernels.spmm.packing import choose_block, fill, pack, pays

needs_compiler = pytest.mark.skipif(native.compiler() is None, reason="no C compiler is here")


def sparse(outputs, inputs, density, block=1, seed=0):
    rng = np.random.default_rng(seed)
    there = np.repeat(rng.random((outputs // block, inputs)) < density, block, 0)
    return (rng.standard_normal((outputs, inputs)) * there).astype(np.float32)


def product(weight, bias, x, block, vectors, clamp=OPEN):
    y = np.full((weight.shape[0], x.shape[1]), np.nan, np.float32)
    Multiply(pack(weight, bias, block), x.shape[1], clamp, vectors)(x, y)
    return y


def test_packing_by_hand():
    packed = pack(np.array([[0, 2, 0, 3], [0, 0, 0, 0], [5, 0, 0, 0]], np.float32), np.array([10.0, 20.0, 30.0]))
    assert packed.counts.tolist() == [2, 0, 1]
    assert packed.values.tolist() == [10, 2, 3, 20, 30, 5]
    assert (packed.first, packed.steps.tolist()) == (1, [2, -3, 1])  # the last leads back to input 1


def test_packing_in_blocks_by_hand():
    weight = np.array([[0, 1, 0], [0, 2, 0], [3, 0, 4], [0, 0, 5]], np.float32)
    packed = pack(weight, np.array([6.0, 7.0, 8.0, 9.0]), block=2)
    assert packed.counts.tolist() == [1, 2]
    assert packed.values.tolist() == [6, 7, 1, 2, 8, 9, 3, 0, 4, 5]
    assert packed.kept == 6  # one zero fills a block up


def test_blocks_are_chosen_as_xnnpack_does():
    full = sparse(8, 20, 0.3, block=4)
    assert choose_block(full) == 4
    at_limit = np.zeros((4, 10), np.float32)
    at_limit[:, :10] = 1
    at_limit[0, :4] = 0  # 36 of 40 stored weights: 3.6 kept of 4
    assert fill(at_limit, 4) == pytest.approx(0.9) and choose_block(at_limit) == 4
    at_limit[0, 4] = 0
    assert choose_block(at_limit) == 1
    assert choose_block(sparse(8, 64, 0.2)) == 1
    assert choose_block(np.ones((6, 3), np.float32)) == 2  # 4 does not divide 6


def test_sparse_mode_pays_beyond_two_thirds_of_zeros():
    def weights(zeros):
        flat = np.ones(3000, np.float32)
        flat[:zeros] = 0
        return [flat[:1000].reshape(10, 100), flat[1000:].reshape(20, 100)]

    assert not pays(weights(2000)) and pays(weights(2001))


@needs_compiler
@pytest.mark.parametrize("pixels", [1, 15, 16, 17, 49, 196, 3136])
@pytest.mark.parametrize("block", [1, 2, 4])
def test_equals_the_dense_product_for_every_size_of_chunk(pixels, block):
    weight = sparse(24, 37, 0.2, block)
    weight[8:12] = 0  # outputs without a weight
    rng = np.random.default_rng(1)
    bias, x = rng.standard_normal(24).astype(np.float32), rng.standard_normal((37, pixels)).astype(np.float32)
    for vectors in sizes(block):
        y = product(weight, bias, x, block, vectors)
        np.testing.assert_allclose(y, weight @ x + bias[:, None], rtol=1e-4, atol=1e-5)
        clamped = product(weight, bias, x, block, vectors, (0.0, 0.5))
        np.testing.assert_array_equal(clamped, y.clip(0, 0.5))


@needs_compiler
@settings(max_examples=60)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 70), st.sampled_from([1, 2, 4]), st.floats(0, 1),
    st.integers(0, 2**31),
)  # fmt: skip
def test_equals_the_dense_product_for_any_shape(groups, inputs, pixels, block, density, seed):
    weight = sparse(groups * block, inputs, density, block, seed)
    x = np.random.default_rng(seed).standard_normal((inputs, pixels)).astype(np.float32)
    for vectors in (1, sizes(block)[-1]):
        y = product(weight, None, x, block, vectors)
        np.testing.assert_allclose(y, weight @ x, rtol=1e-4, atol=1e-4)


@needs_compiler
def test_no_weight_at_all_gives_the_bias():
    bias = np.arange(8.0, dtype=np.float32)
    y = product(np.zeros((8, 5), np.float32), bias, np.ones((5, 17), np.float32), 4, 3)
    np.testing.assert_array_equal(y, np.repeat(bias[:, None], 17, 1))


@needs_compiler
def test_arrays_that_do_not_fit_are_refused():
    multiply = Multiply(pack(np.ones((4, 3), np.float32)), 8)
    good, out = np.ones((3, 8), np.float32), np.empty((4, 8), np.float32)
    multiply(good, out)
    for x in (np.ones((3, 9), np.float32), np.ones((3, 8)), np.ones((8, 3), np.float32).T):
        with pytest.raises(ValueError, match="contiguous float32"):
            multiply(x, out)
    with pytest.raises(ValueError, match="do not fit blocks of 4"):
        Multiply(pack(np.ones((4, 3), np.float32), block=4), 8, vectors=8)
    with pytest.raises(ValueError, match="blocks of 4 outputs do not fit 6"):
        pack(np.ones((6, 3), np.float32), block=4)
