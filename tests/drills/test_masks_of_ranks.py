"""Drill R3 for masks that are learned or measured: two processes hold the masks that one would."""

from __future__ import annotations

import pytest
import torch
from test_ddp import NORMALISED, TOLERANCE, TWO, distance
from whole_cell import run

torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["bip", "grasp", "snip"])
def test_r3_masks_that_are_learned_or_measured_do_not_depend_on_the_processes(method, tmp_path):
    one, two = run(tmp_path / "one", method, *NORMALISED), run(tmp_path / "two", method, *NORMALISED, *TWO)
    assert one.code == two.code == 0, two.err
    assert (two.cell / "masks.safetensors").read_bytes() == (one.cell / "masks.safetensors").read_bytes()
    assert distance(one.cell, two.cell) <= TOLERANCE
