"""The C kernels against the plain path, bit for bit, and what happens where there are none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselab.core import native_build as native
from sparselab.core.sparsity import Sparsity
from sparselab.weights import select
from sparselab.weights.kernels import dispatch as kernels
from sparselab.weights.kernels.native import LARGEST_GROUP, build, library, status
from sparselab.weights.patterns.pattern import Pattern

needs_compiler = pytest.mark.skipif(library() is None, reason=status())
SHAPES = {
    "linear": (24, 48), "tall": (7, 768), "conv": (48, 48, 3, 3), "conv5": (16, 48, 5, 5), "point": (48, 48, 1, 1),
}  # fmt: skip


def numbers(shape, levels, seed):
    generator, shape = torch.Generator().manual_seed(seed), torch.Size(shape)
    if levels == 0:
        return torch.randn(shape, generator=generator)
    drawn = (torch.randint(0, levels, shape, generator=generator) - levels // 2).float()
    return drawn * torch.where(torch.rand(shape, generator=generator) < 0.5, -1.0, 1.0)  # -0 and 0 are equal scores


def bits(tensor):
    return tensor.contiguous().view(torch.int32)


class Plain:
    """Inside, there is no compiled library."""

    def __enter__(self):
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(kernels, "library", lambda: None)

    def __exit__(self, *error):
        self.patch.undo()


@needs_compiler
@settings(max_examples=120)
@given(
    shape=st.sampled_from(list(SHAPES)),
    axis=st.sampled_from(["in", "out", "kernel"]),
    m=st.sampled_from([2, 3, 4, 6, 8, 12, 16, 24, 48]),
    share=st.floats(0.01, 0.99),
    levels=st.sampled_from([0, 1, 3, 9]),
    magnitude=st.booleans(),
    last=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_n_of_m_in_one_pass_is_the_plain_path(shape, axis, m, share, levels, magnitude, last, seed):
    kind = "conv" if len(SHAPES[shape]) == 4 else "linear"
    pattern = Pattern.of(Sparsity.parse(f"{min(m - 1, max(1, int(share * m)))}:{m}"), kind, axis)
    score = numbers(SHAPES[shape], levels, seed)
    score = score.to(memory_format=torch.channels_last) if last and kind == "conv" else score
    out, plain_out = torch.full_like(score, 9.0), torch.full_like(score, 9.0)
    try:
        mask = pattern.mask(score, magnitude=magnitude, out=out)
    except ValueError:
        return  # this axis has no such groups
    with Plain():
        plain = pattern.mask(score, magnitude=magnitude, out=plain_out)
    assert torch.equal(mask, plain) and torch.equal(bits(out), bits(plain_out))
    if magnitude:
        assert torch.equal(pattern.mask(score, magnitude=True, out=score), plain) and torch.equal(
            bits(score), bits(out)
        )


@needs_compiler
@pytest.mark.parametrize("m", [LARGEST_GROUP - 1, LARGEST_GROUP, LARGEST_GROUP + 8])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_large_groups(m, share):
    n = min(m - 1, max(1, int(share * m)))
    for levels in (0, 5):
        score = numbers((16, m), levels, m)
        mask = Pattern.of(Sparsity.parse(f"{n}:{m}")).mask(score)
        with Plain():
            assert torch.equal(mask, Pattern.of(Sparsity.parse(f"{n}:{m}")).mask(score))


@needs_compiler
def test_a_kernel_serves_where_it_is_said_to(monkeypatch):
    """Counted, so that a layer that quietly takes the slow path is noticed: one call a layer."""
    calls = []
    real = library()

    class Counting:
        def __getattr__(self, name):
            calls.append(name)
            return getattr(real, name)

    monkeypatch.setattr(kernels, "library", Counting)
    conv = torch.randn(16, 16, 3, 3)
    for score in (torch.randn(16, 8), conv, conv.to(memory_format=torch.channels_last)):
        for kind in ("conv",) if score.ndim == 4 else ("linear", "conv1d"):
            calls.clear()
            Pattern.of(Sparsity.parse("2:4"), kind).mask(score, magnitude=True, out=score)
            assert calls == ["groups"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", [(0, 0), (4, 5), (6, 767)])
def test_scores_that_are_not_finite_are_refused_in_the_pass(bad, at):
    for m in (2, 4, 8, 16, 12, 64):
        score = torch.ones(7, 768)
        score[at] = bad
        for magnitude in (False, True):
            with pytest.raises(ValueError, match="NaN or infinite"):
                Pattern.of(Sparsity.parse(f"1:{m}")).mask(score, magnitude=magnitude, out=torch.empty_like(score))


@needs_compiler
@pytest.mark.parametrize("total", [5, 4 * select.SAMPLE + 1, 300_003])
@pytest.mark.parametrize("data", ["normal", "ties", "constant", "zeros", "unseen", "one sign"])
@pytest.mark.parametrize("magnitude", [False, True])
def test_the_largest_without_a_sort(total, data, magnitude):
    stride = max(1, total // select.SAMPLE)
    seen = torch.arange(total) % stride == 0
    values = {
        "normal": numbers((total,), 0, 1),
        "ties": numbers((total,), 7, 2),
        "constant": torch.full((total,), -1.5),
        "zeros": torch.where(torch.arange(total) % 2 == 0, 0.0, -0.0),
        "unseen": torch.where(seen, 0.0, numbers((total,), 0, 3)),  # the sample sees none of the values that matter
        "one sign": -numbers((total,), 0, 4).abs(),
    }[data]
    for k in (1, 2, total // 10 + 1, total // 2, total - 3, total - 1):
        mask = select.largest(values, k, magnitude)
        with Plain():
            plain = select.largest(values, k, magnitude)
        assert torch.equal(mask, plain)
        found = select._kth_key_by_digits(library(), values, k, magnitude)
        assert found == select._kth_key(library(), values, k, magnitude)


@needs_compiler
@settings(max_examples=30)
@given(size=st.integers(1, 300), factor=st.floats(0, 2), seed=st.integers(0, 2**31))
def test_products_with_masks_are_torchs(size, factor, seed):
    weight, grad = numbers((2, size), 0, seed), numbers((2, size), 4, seed + 1)
    mask = numbers((2, size), 0, seed + 2) > 0
    for out in (torch.empty_like(weight), weight.clone()):
        kernels.masked([weight], [mask], [out])
        assert torch.equal(bits(out), bits(torch.mul(weight, mask)))
    plain = grad.addcmul(weight, (~mask).float(), value=factor)
    kernels.add_pruned([grad], [weight], [mask], factor)
    assert torch.equal(bits(grad), bits(plain))


@needs_compiler
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("total", [7, 16_384, 3 * 16_384 + 13])
@pytest.mark.parametrize("shift", [0, 1, 8])
def test_products_past_the_caches_are_torchs_wherever_they_lie(total, shift, threads):
    """Of places on the grid of a vector and off it, of whole pieces of work and of parts of one."""
    weight, out = numbers((total + shift,), 0, 1)[shift:], torch.full((total + 8,), 7.0)
    mask = numbers((total + shift,), 0, 2)[shift:] > 0
    torch.set_num_threads(threads)
    try:
        kernels.masked([weight], [mask], [out[shift : total + shift]])
        assert torch.equal(bits(out[shift : total + shift]), bits(torch.mul(weight, mask)))
        assert (out[:shift] == 7).all() and (out[total + shift :] == 7).all()
        kernels.masked([weight], [mask], [weight])
        assert torch.equal(bits(weight), bits(out[shift : total + shift]))
    finally:
        torch.set_num_threads(1)


@needs_compiler
@pytest.mark.parametrize("m", [2, 4, 8, 16])
@pytest.mark.parametrize("shift", [0, 1, 8])
def test_masks_with_products_are_the_same_wherever_they_lie(m, shift):
    score, out = numbers((960 + shift,), 5, 3)[shift:], torch.empty(960 + shift)[shift:]
    mask = kernels.largest_in_rows(score, 960 // m, 1, m // 2, m, magnitude=True, out=out)
    with Plain():
        plain = Pattern.of(Sparsity.parse(f"{m // 2}:{m}")).mask(score.clone().view(1, 960), magnitude=True)
    assert torch.equal(mask, plain.view(960))
    assert torch.equal(bits(out), bits(torch.mul(score, mask)))


def test_other_precisions_and_layouts_take_the_plain_path():
    for score in (torch.randn(8, 16).double(), torch.randn(8, 16).bfloat16(), torch.randn(16, 8).t()):
        assert kernels.serving(score) is None
    weight = torch.randn(8, 16)
    assert kernels.serving(weight, torch.ones(16, 8, dtype=torch.bool).t()) is None
    assert kernels.serving(weight, torch.ones(8, 16, dtype=torch.uint8)) is None


@needs_compiler
def test_threads_change_nothing():
    score = numbers((96, 768, 3, 3), 5, 0)
    patterns = [Pattern.of(Sparsity.parse(text), "conv") for text in ("2:4", "3:16", "1:12", "0.9")]
    alone = [pattern.mask(score, magnitude=True) for pattern in patterns]
    torch.set_num_threads(3)
    try:
        together = [pattern.mask(score, magnitude=True) for pattern in patterns]
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


# -- where there is no library -------------------------------------------------------------------------------------------


def test_without_a_compiler_the_plain_path_serves_and_says_so(tmp_path):
    environment = os.environ | {"SPARSELAB_CACHE": str(tmp_path), "CC": "no-such-compiler", "PATH": "/nowhere"}
    code = "from sparselab.weights.kernels.native import library, status; print(library(), status())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "None plain (no C compiler)\n"


@needs_compiler
def test_a_library_that_somebody_else_may_have_written_is_not_loaded(tmp_path, monkeypatch):
    """Made anew where it can be; a damaged or exchanged file is never opened."""
    monkeypatch.setenv("SPARSELAB_CACHE", str(tmp_path))
    native.load(build.SOURCE, build.FLAGS)
    (made,) = (tmp_path / "native").glob("*.so")
    whole = made.read_bytes()
    assert native._open(made) is not None
    made.chmod(0o622)
    assert native._open(made) is None
    made.unlink()  # the file itself is mapped by this process: only a new one may differ
    made.write_bytes(whole[:-1])
    made.chmod(0o600)
    assert native._open(made) is None
    made.write_bytes(whole)
    made.parent.chmod(0o777)
    assert native._open(made) is None
    made.with_suffix(".sha256").unlink()
    made.parent.chmod(0o700)
    assert native._open(made) is None
    monkeypatch.setattr(build, "SOURCE", tmp_path / "broken.c")
    (tmp_path / "broken.c").write_text("not C")
    with pytest.raises(native.Unavailable, match="cannot compile"):
        native.load(build.SOURCE, build.FLAGS)


@needs_compiler
def test_a_library_that_gives_wrong_masks_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSELAB_CACHE", str(tmp_path))
    wrong = tmp_path / "wrong.c"
    wrong.write_text(build.SOURCE.read_text().replace("beaten < n", "beaten <= n"))
    monkeypatch.setattr(build, "SOURCE", wrong)
    with pytest.raises(native.Unavailable, match="wrong masks"):
        build._checked(native.load(build.SOURCE, build.FLAGS))


PEAK = """
import resource, torch
from sparselab.weights.kernels.dispatch import count
from sparselab.weights.patterns.pattern import Pattern
from sparselab.core.sparsity import Sparsity
pattern = Pattern.of(Sparsity.parse(0.9))
pattern.mask(torch.randn(1000, 1000), magnitude=True)
scores = torch.randn(5000, 5000)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
mask = pattern.mask(scores, magnitude=True)
assert count(mask) == 2_500_000  # torch.sum would turn it into integers first
print((peak() - before) / (scores.numel() * scores.element_size()))
"""


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is counted in another unit")
def test_selection_needs_little_memory_beside_the_scores():
    """Asked for: at most twice the weights. The mask is a quarter, what a sample cannot decide a sixteenth."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5
