"""What a released code does otherwise, and was found by reading it, is said in the table that it is compared with."""

from __future__ import annotations

import pytest

from sparselab.experiments.tables.load import load_all

DECLARED = [
    ("bip", "decay of 1e-4 of its own"),
    ("bip", "Scales and shifts of batch normalisation are spared by freeze_vars and move in both levels"),
    ("bip", "each level decays weights and scores alike"),
    ("pgf", "have a bias and never add it"),
    ("pgf", "masks turn hard where the epoch, counted from 0, exceeds total"),
    ("blasst/calibration", "has a point for each threshold and window"),
    ("random_pruning", "those of classes 0 to 4 and then of 5 to 9, at the network's own weights"),
    ("dsl_rec", "Adam's state of inactive weights is neither masked nor emptied"),
    ("dsl_rec/lightgcn", "takes the best epoch of the test"),
    ("blockffn", "points at the configuration of 0.5B"),
    ("sirius", "drops the last period of every text from its means"),
    ("sirius/answers", "drops the last period of every text from its means"),
    ("sparsed", "chooses int(n rho) + 1 of all tiles first and drops those of generated keys"),
    ("colide/sachs", "not the 18 edges of the Causal Discovery Toolbox"),
]


@pytest.fixture(scope="module")
def differences() -> dict[str, str]:
    return {table.label.removeprefix("paper="): " ".join(table.differences) for table in load_all()}


@pytest.mark.parametrize(("table", "words"), DECLARED)
def test_a_table_says_where_the_released_code_differs(table: str, words: str, differences: dict[str, str]) -> None:
    assert words in differences[table]
