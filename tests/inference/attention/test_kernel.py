"""The Triton kernel against Algorithm 1: in Triton's interpreter everywhere, and on a GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")

COMPARE = """
import sys
import torch
from sparselab.inference.attention.tiled.kernel import skip_attention
from sparselab.inference.attention.tiled.online import online_attention

device = sys.argv[1]
generator = torch.Generator().manual_seed(0)
draw = lambda *shape: torch.randn(*shape, generator=generator).to(device)
skipped = 0
for rows, keys, block_q, block_k, order, threshold in (
    (21, 37, 16, 8, "reverse", 0.1), (19, 19, 4, 8, "forward", 0.7), (5, 40, 1, 16, "reverse", 0.3),
):
    q, k, v = draw(1, 4, rows, 12) * 8, draw(1, 2, keys, 12), draw(1, 2, keys, 12)
    out, kept = skip_attention(q, k, v, 0.3, block_q, block_k, threshold=threshold, order=order)
    want, tiles, there = online_attention(q, k, v, 0.3, threshold, block_q, block_k, order)
    torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-5)
    assert torch.equal(kept.long(), tiles.sum(-1)), (kept, tiles.sum(-1))
    skipped += int(there.sum()) - int(kept.sum())
assert skipped
q, k, v = draw(1, 2, 9, 8) * 8, draw(1, 2, 9, 8), draw(1, 2, 9, 8)
out, kept = skip_attention(q, k, v, 0.3, 1, 4, a=3.0)
for at in range(9):
    one, seen, limit = q[:, :, at : at + 1], slice(at + 1), min(3.0 / (at + 1), 1 - 1e-7)
    want, tiles, _ = online_attention(one, k[:, :, seen], v[:, :, seen], 0.3, limit, 1, 4)
    torch.testing.assert_close(out[:, :, at : at + 1], want, rtol=1e-4, atol=1e-5)
    assert int(kept[0, :, at].sum()) == int(tiles.sum())
print("equal")
"""


def compare(device, **more):
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, device], capture_output=True, text=True, env=os.environ | more, check=False
    )
    assert done.returncode == 0 and done.stdout.split()[-1] == "equal", done.stderr


def test_the_kernel_in_the_interpreter_is_algorithm_1():
    compare("cpu", TRITON_INTERPRET="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_kernel_on_a_gpu_is_algorithm_1():
    compare("cuda")
