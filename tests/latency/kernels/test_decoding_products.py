"""Matrix-vector products against numpy: dense, with skipped inputs, coded; any shape, empty columns and rows included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselab.core import native_build as native
from sparselab.latency.kernels.decoding.packing import PACK, coded, from_half, padded, to_half

needs_compiler = pytest.mark.skipif(native.compiler() is None, reason="no C compiler is here")

SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 150))
TOLERANCE = 2e-5  # of the sum of absolute products; float32 has 24 bits


def isas():
    from sparselab.latency.kernels.decoding.native import ISAS, library

    found = []
    for isa in ISAS:
        try:
            library(isa)
            found.append(isa)
        except native.Unavailable:
            continue
    return found


def drawn(shape, density, seed):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(shape).astype(np.float32) * (rng.random(shape) < density)
    return weight.astype(np.float32), rng.standard_normal(shape[1]).astype(np.float32)


@needs_compiler
@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, density=st.sampled_from([0.0, 0.1, 0.5, 1.0]), half=st.booleans(), seed=st.integers(0, 999),
       share=st.sampled_from([0.0, 0.5, 0.9, 1.0]), gone=st.integers(0, 3))  # fmt: skip
def test_every_form_is_the_product(shape, density, half, seed, share, gone):
    """Every form, float32 and bfloat16, AVX-512 and AVX2: W x, and W x without the inputs below a threshold."""
    from sparselab.latency.kernels.decoding.native import Product

    weight, x = drawn(shape, density, seed)
    weight[:, : min(gone, shape[1])] = 0  # empty columns
    weight[: min(gone, shape[0])] = 0  # empty rows
    used = from_half(to_half(weight)) if half else weight
    limit = float(np.quantile(abs(x), share)) if share else -1.0
    kept = np.where(abs(x) > limit, x, 0)
    for isa in isas():
        for form, pack in PACK.items():
            product = Product(pack(weight, half), 1, isa)
            expected = used @ kept if form == "columns" else used @ x
            room = TOLERANCE * (abs(used) @ abs(x)) + 1e-7
            assert (abs(product(x, limit) - expected) <= room).all(), (isa, form)


@needs_compiler
def test_two_threads_give_what_one_gives():
    from sparselab.latency.kernels.decoding.native import Product

    weight, x = drawn((200, 96), 0.4, 0)
    for pack in PACK.values():
        np.testing.assert_array_equal(Product(pack(weight, False), 2)(x, 0.3), Product(pack(weight, False), 1)(x, 0.3))


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, density=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 99))
def test_coded_weights_hold_the_matrix(shape, density, seed):
    """Bits and values say the whole matrix, and their bytes are one bit a weight and four for each that is not zero."""
    weight, _ = drawn(shape, density, seed)
    packed = coded(weight, half=False)
    bits = np.unpackbits(packed.bits.view(np.uint8), bitorder="little").reshape(padded(shape[0]), padded(shape[1]))
    again = np.zeros(bits.shape, np.float32)
    again[bits.astype(bool)] = packed.values[: int(bits.sum())]
    np.testing.assert_array_equal(again[: shape[0], : shape[1]], weight)
    assert packed.weight_bytes == 4 * np.count_nonzero(weight) + -(-weight.size // 8)


def test_two_of_four_cost_seventeen_thirty_seconds():
    """2:4 in float32: half of the values and a bit each, 2.125 of 4 bytes, so 1.88 times is the most that it can bring."""
    weight = np.tile(np.array([1, 0, 2, 0], np.float32), (16, 16))
    assert coded(weight, half=False).weight_bytes / (4 * weight.size) == 17 / 32


def test_bfloat16_rounds_to_the_nearest():
    values = np.array([1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8, -2.5, 0.0], np.float32)
    np.testing.assert_array_equal(from_half(to_half(values)), np.array([1.0, 1.0, 1.0 + 2**-6, -2.5, 0.0], np.float32))
