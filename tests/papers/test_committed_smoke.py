"""Committed records of smoke tables are those of the cells that the tables ask for today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.load import load
from sparselab.running.planning import plan_of

RESULTS = Path(__file__).parents[2] / "results"
RECORDS = sorted(RESULTS.glob("*/smoke/**/records.jsonl"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: "/".join(path.relative_to(RESULTS).parts[:-1]))
def test_a_smoke_table_finds_its_records(path):
    """By the id of its first cell: a default that moved is written into the table, or the table is run again."""
    paper, _, *name = path.relative_to(RESULTS).parts[:-1]
    (table,) = (table for table in load(paper) if (table.name or "") == "/".join(name))
    cell = expand(table, "smoke")[0]
    ids = {json.loads(line)["record"]["id"] for line in path.open()}
    assert plan_of([*cell.overrides]).id in ids
