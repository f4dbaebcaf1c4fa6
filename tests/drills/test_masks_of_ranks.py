"""Drill R3 for masks that are learned, measured or drawn: two processes hold the masks that one would."""

from __future__ import annotations

import pytest
from forked_ranks import fork_ranks
from test_ddp import NORMALISED, TOLERANCE, TWO, distance
from whole_cell import run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("bip", ()),
        ("grasp", ()),
        ("snip", ()),
        ("snip", ("method.positions=bernoulli",)),
        ("random", ("method.draw=bernoulli",)),
    ],
)
def test_r3_masks_that_are_learned_measured_or_drawn_do_not_depend_on_the_processes(
    method, more, tmp_path, monkeypatch
):
    fork_ranks(monkeypatch)
    one = run(tmp_path / "one", method, *NORMALISED, *more)
    two = run(tmp_path / "two", method, *NORMALISED, *TWO, *more)
    assert one.code == two.code == 0, two.err
    assert (two.cell / "masks.safetensors").read_bytes() == (one.cell / "masks.safetensors").read_bytes()
    assert distance(one.cell, two.cell) <= TOLERANCE
