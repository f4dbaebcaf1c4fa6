"""Drill R3 for searches: two processes weigh operations as one would, by either order."""

from __future__ import annotations

import pytest
from forked_ranks import fork_ranks
from test_ddp import TOLERANCE, TWO
from whole_cell import run

from sparselab.storage import tensors

CELLS = (
    "model=darts_search", "model.channels=2", "model.cells=2", "model.nodes=2", "model.ops=[skip_connect,sep_conv_3x3]",
    "dataset.val=600", "optim=sgd", "optim.lr=0.1", "search=darts", "search.sparsity=0.5", "trainer.batch_size=64",
    "trainer.max_steps=3",
    "trainer.accumulate=1", "trainer.ema=null", "trainer.precision='32'", "trainer.checkpoint_every=null",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("unrolled", ["true", "false"])
def test_r3_operations_do_not_depend_on_the_processes(unrolled, tmp_path, monkeypatch):
    fork_ranks(monkeypatch)
    own = (*CELLS, f"search.unrolled={unrolled}")
    one, two = run(tmp_path / "one", "dense", *own), run(tmp_path / "two", "dense", *own, *TWO)
    assert one.code == two.code == 0, two.err
    mine, theirs = (tensors.load(cell.cell / "model.safetensors") for cell in (one, two))
    for name in ("choices_normal", "choices_reduce"):
        assert float((mine[name] - theirs[name]).abs().max()) <= TOLERANCE, name
