"""The CUDA kernels: in Triton's interpreter against the plain path everywhere, on the device where there is one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

CODE = """
import sys
import torch
from sparselab.weights.kernels import dispatch as kernels, triton_kernels
from sparselab.weights.patterns.pattern import Pattern
from sparselab.core.sparsity import Sparsity

device = sys.argv[1]
draw = torch.Generator().manual_seed(0)


def numbers(*shape, levels):
    drawn = torch.randn(shape, generator=draw)
    return ((drawn * levels).round() / levels if levels else drawn).to(device)


def bits(tensor):
    return tensor.view(torch.int32)


LAYERS = {"2:4": [(24, 48), (7, 768), (3, 4)], "1:8": [(24, 48)], "3:12": [(5, 24), (9, 36)], "5:16": [(8, 64)]}
for text, shapes in LAYERS.items():
    for levels in (0, 1, 3):
        for magnitude in (True, False):
            pattern, scores = Pattern.of(Sparsity.parse(text)), [numbers(*shape, levels=levels) for shape in shapes]
            outs = [score if magnitude else torch.empty_like(score) for score in scores]
            plain = [pattern._mask(score.cpu(), None, False, magnitude) for score in scores]
            products = [torch.mul(score.cpu(), mask) for score, mask in zip(scores, plain)]
            n, m = pattern.sparsity.n, pattern.sparsity.m
            masks, flags = triton_kernels.n_of_m(scores, [1] * len(scores), n, m, magnitude, outs)
            assert not flags.any()
            assert all(torch.equal(a.cpu(), b) for a, b in zip(masks, plain)), (text, levels, magnitude)
            assert all(torch.equal(bits(a.cpu()), bits(b)) for a, b in zip(outs, products))

filters = numbers(8, 8, 3, 3, levels=2)
masks, flags = triton_kernels.n_of_m([filters], [9], 2, 4, True, [torch.empty_like(filters)])
assert torch.equal(masks[0].cpu(), Pattern.of(Sparsity.parse("2:4"), "conv")._mask(filters.cpu(), None, False, True))

for bad in (float("nan"), float("inf"), -float("inf")):
    scores = [numbers(4, 8, levels=0) for _ in range(3)]
    scores[1][3, 7] = bad
    assert triton_kernels.n_of_m(scores, [1] * 3, 2, 4, True, [torch.empty_like(s) for s in scores])[1].tolist() == [0, 1, 0]

weights, grads = [numbers(5, 7, levels=0), numbers(40, 90, levels=0)], [numbers(5, 7, levels=2), numbers(40, 90, levels=0)]
masks = [numbers(5, 7, levels=0) > 0, numbers(40, 90, levels=0) > 0]
plain = [g.addcmul(w, (~k).float(), value=2e-4) for g, w, k in zip(grads, weights, masks)]
triton_kernels.add_pruned(grads, weights, masks, 2e-4)
assert all(torch.equal(a, b) for a, b in zip(grads, plain))
products = [torch.mul(g, k) for g, k in zip(grads, masks)]
triton_kernels.masked(grads, masks, grads)
assert all(torch.equal(bits(a), bits(b)) for a, b in zip(grads, products))
print("equal")
"""


def run(device, **environment):
    done = subprocess.run(
        [sys.executable, "-c", CODE, device], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "equal\n", done.stderr[-3000:]


def test_in_the_interpreter_the_kernels_are_the_plain_path():
    pytest.importorskip("triton")
    run("cpu", TRITON_INTERPRET="1")


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("method", ["srste", "ste", "asp", "gmp"])
def test_updates_on_the_device_wait_for_nothing_and_are_those_of_the_cpu(method):
    """Launches are counted, a wait is an error, and the masks are the CPU's bit for bit."""
    from tests.methods.hand_slots import hand_slots, update

    weights = [torch.randn(64, 96, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    schedule = {"schedule": "one_shot", "at": 0.0} if method == "asp" else {}
    host = hand_slots(method, [w.clone() for w in weights], "2:4", **schedule)
    there = hand_slots(method, [w.cuda() for w in weights], "2:4", **schedule)
    host.start()
    there.start()
    for step in range(1, 6):
        gradients = [torch.randn(64, 96, generator=torch.Generator().manual_seed(10 * step + i)) for i in range(4)]
        on_device = [g.cuda() for g in gradients]
        update(host, None, step, gradients)
        torch.cuda.set_sync_debug_mode("error")
        try:
            update(there, None, step, on_device)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for a, b in zip(host.slots, there.slots, strict=True):
            assert torch.equal(a.mask, b.mask.cpu()) and torch.equal(a.param.data, b.param.data.cpu())
            assert torch.equal(a.param.grad, b.param.grad.cpu())


@pytest.mark.gpu
@needs_cuda
def test_a_score_that_is_not_finite_is_found_at_the_next_look():
    from tests.methods.hand_slots import hand_slots

    from sparselab.core.errors import RunFailed
    from sparselab.weights.sparsifier import LOOK_EVERY

    made = hand_slots("ste", [torch.randn(8, 16).cuda() for _ in range(3)], "2:4", total=2 * LOOK_EVERY)
    made.start()
    made.slots[1].master[0, 0] = float("nan")
    with pytest.raises(RunFailed, match=r"layer1\.weight: scores hold NaN"):
        for step in range(1, LOOK_EVERY + 1):
            made.after_step(step, None)


@pytest.mark.gpu
@needs_cuda
def test_on_the_device_the_kernels_are_the_plain_path():
    run("cuda")
