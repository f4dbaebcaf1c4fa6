"""Every committed figure has points: the number that its axis names is one that the records have."""

from __future__ import annotations

from pathlib import Path

import pytest
from project_tables import tables

from sparselab.experiments.tables.results import read
from sparselab.experiments.tables.summary import abscissa

RESULTS = Path(__file__).resolve().parents[2] / "results"
OWN_AXIS = [table for table in tables() if not isinstance(table.axis, str)]


@pytest.mark.parametrize("table", OWN_AXIS, ids=[f"{table.paper}-{table.name}" for table in OWN_AXIS])
def test_a_figure_has_points(table):
    entries = [entry for tier in table.tiers for entry in read(RESULTS, table, tier)]
    drawn = [entry for entry in entries if table.axis.draws(entry.cell.place)] or entries
    assert not drawn or any(abscissa(table, entry) is not None for entry in drawn)
