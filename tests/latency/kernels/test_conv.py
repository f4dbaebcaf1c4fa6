"""3x3 convolutions on planes against torch's: whole numbers, so that both sum without rounding and have to be equal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from sparselab.core import native_build as native
from sparselab.latency.kernels.kernel import KERNELS
from sparselab.latency.kernels.layers import Spatial
from sparselab.latency.kernels.spmm.native import Depthwise, Full, sizes

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="no C compiler is here")

CLAMP = (-3.0, 6.0)


def whole(rng, *shape):
    return rng.integers(-4, 5, shape).astype(np.float32)


def by_torch(x, weight, bias, stride, pad, after, groups):
    """With as many zeros below and to the right as ``after`` asks for."""
    below = [(size - 1) * stride + 3 - there - pad for size, there in zip(after, x.shape[1:], strict=True)]
    padded = F.pad(torch.from_numpy(x)[None], (pad, max(below[1], 0), pad, max(below[0], 0)))
    y = F.conv2d(padded, torch.from_numpy(weight), torch.from_numpy(bias), stride, groups=groups)
    return y[0, :, : after[0], : after[1]].clamp(*CLAMP).numpy()


def given_by(call, x):
    """What a call writes, and that it writes nothing else."""
    room = np.full(int(np.prod(call.writes)) + 32, 77, np.float32)
    y = room[16:-16].reshape(call.writes)
    call(x, y)
    assert (room[:16] == 77).all() and (room[-16:] == 77).all()
    return y


SIZES = st.tuples(st.integers(3, 40), st.integers(3, 75))


@settings(max_examples=150)
@given(st.integers(1, 5), SIZES, st.sampled_from([1, 2]), st.sampled_from([0, 1]), st.booleans(), st.integers(0, 2**31))
def test_depthwise_equals_torch(channels, size, stride, pad, same, seed):
    """``same``: TensorFlow's SAME of an unpadded image, whose zeros are below and to the right."""
    rng = np.random.default_rng(seed)
    x, weight, bias = whole(rng, channels, *size), whole(rng, channels, 3, 3), whole(rng, channels)
    after = tuple(-(-n // stride) if same else (n + 2 * pad - 3) // stride + 1 for n in size)
    call = Depthwise(weight, bias, size, stride, pad, CLAMP, after)
    np.testing.assert_array_equal(
        given_by(call, x), by_torch(x, weight[:, None], bias, stride, pad, after, groups=channels)
    )


@settings(max_examples=100)
@given(
    st.integers(1, 3), st.integers(1, 4), SIZES, st.sampled_from([1, 2]), st.sampled_from([0, 1]), st.sampled_from([1, 2, 4]),
    st.floats(0, 1), st.integers(0, 2**31),
)  # fmt: skip
def test_full_equals_torch(channels, groups, size, stride, pad, block, density, seed):
    """Also with zeros among its weights, and with none left."""
    rng = np.random.default_rng(seed)
    outputs = groups * block
    x, bias = whole(rng, channels, *size), whole(rng, outputs)
    weight = whole(rng, outputs, channels, 3, 3) * (rng.random((outputs, channels, 3, 3)) < density).astype(np.float32)
    after = tuple((n + 2 * pad - 3) // stride + 1 for n in size)
    for vectors in {1, sizes(block)[-1]}:
        call = Full(weight, bias, size, stride, pad, CLAMP, block=block, vectors=vectors)
        np.testing.assert_array_equal(given_by(call, x), by_torch(x, weight, bias, stride, pad, after, groups=1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(112, 112), (7, 7), (14, 14), (33, 17), (1, 1), (2, 50)])
def test_layers_of_a_network_as_torch_computes_them(size, stride):
    """Real numbers, at the sizes of a MobileNet and at ones that vectors do not divide; a plane of one pixel too."""
    rng = np.random.default_rng(0)
    own, plain = (KERNELS["native"](KERNELS["native"].Options(spatial=name)) for name in ("native", "torch"))
    for inputs, depthwise in ((32, True), (3, False)):
        weight = rng.standard_normal((32, 1 if depthwise else 3, 3, 3)).astype(np.float32)
        layer = Spatial(weight, rng.standard_normal(32).astype(np.float32), size, stride, depthwise, (0.0, 6.0))
        x = torch.from_numpy(rng.standard_normal((1, inputs, *size)).astype(np.float32))
        found, expected = own.spatial(layer)(x), plain.spatial(layer)(x)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert found.max() <= 6 and found.min() == 0


def test_channels_last_images_have_to_be_permuted_and_then_agree():
    """An image as it is read (height, width, channels): its planes are what the first convolution wants."""
    rng = np.random.default_rng(1)
    image, weight, bias = whole(rng, 20, 23, 3), whole(rng, 8, 3, 3, 3), whole(rng, 8)
    call = Full(weight, bias, (20, 23), 2, 1, CLAMP)
    with pytest.raises(ValueError, match="contiguous float32"):
        call(image.transpose(2, 0, 1), np.empty(call.writes, np.float32))
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    np.testing.assert_array_equal(given_by(call, planes), by_torch(planes, weight, bias, 2, 1, (10, 12), groups=1))


def test_what_does_not_fit_is_refused():
    weight, bias = np.ones((4, 3, 3), np.float32), np.ones(4, np.float32)
    for size, stride, pad in (((8, 8), 3, 1), ((8, 8), 1, 2), ((2, 8), 1, 0), ((0, 8), 1, 1)):
        with pytest.raises(ValueError, match="do not fit 3x3 taps"):
            Depthwise(weight, bias, size, stride, pad)
    with pytest.raises(ValueError, match="contiguous float32"):
        Depthwise(weight[:, :2], bias, (8, 8))
    with pytest.raises(ValueError, match="do not fit blocks of 4"):
        Full(weight[:, None], bias, (8, 8), block=4, vectors=8)


BESIDE_A_PAGE = """
import ctypes, mmap, sys
import numpy as np
from sparselab.latency.kernels.spmm.native import Depthwise, Full
page = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
def at_the_end(count):
    pages = -(-4 * count // page) + 2
    room = mmap.mmap(-1, pages * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(room))
    for at in (0, pages - 1):
        assert libc.mprotect(ctypes.c_void_p(base + at * page), page, 0) == 0
    return room, base, pages
for size in ((5, 3), (4, 16), (9, 33), (6, 112)):
    for stride in (1, 2):
        for call in (Depthwise(np.ones((2, 3, 3), np.float32), np.ones(2, np.float32), size, stride, 1),
                     Full(np.ones((4, 2, 3, 3), np.float32), np.ones(4, np.float32), size, stride, 1, block=4, vectors=3)):
            for first in (True, False):  # flush with the page before, and with the page after
                ends = []
                for shape in (call.reads, call.writes):
                    room, base, pages = at_the_end(int(np.prod(shape)))
                    ends.append((room, base + page if first else base + (pages - 1) * page - 4 * int(np.prod(shape))))
                call.at(ends[0][1], ends[1][1])
print("nothing outside was touched")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs pages that can be protected")
def test_nothing_outside_the_planes_is_read_or_written():
    done = subprocess.run([sys.executable, "-c", BESIDE_A_PAGE], capture_output=True, text=True, check=False)
    assert done.stdout == "nothing outside was touched\n", done.stderr[-500:]


OTHER_PROCESSORS = {"AVX2": ("-mno-avx512f",), "vector types": ("-mno-avx512f", "-mno-avx2")}


@pytest.mark.slow
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="these are x86 flags")
@pytest.mark.parametrize("flags", OTHER_PROCESSORS.values(), ids=OTHER_PROCESSORS.keys())
def test_the_paths_of_other_processors_pass_the_same_tests(flags, tmp_path):
    """In a process of its own, whose compiler is told to leave out what this processor could do."""
    wrapper = tmp_path / "cc"
    wrapper.write_text(f'#!/bin/sh\nexec {native.compiler()} "$@" {" ".join(flags)}\n')
    wrapper.chmod(0o700)
    environment = os.environ | {"CC": str(wrapper), "SPARSELAB_CACHE": str(tmp_path / "cache")}
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", str(here)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
