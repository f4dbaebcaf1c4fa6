"""Ends and margins of claims are in printed units: what a table prints in per cent is no fraction there."""

from __future__ import annotations

import pytest

from sparselab.experiments.tables.load import load_all
from sparselab.experiments.tables.schema import Table

LEAST = 0.05
"""No claim is about less than a twentieth of a point; a hundredth is a point that was written as a fraction."""


def scale_of(table: Table, metric: str | None) -> float:
    further = {column.label: column.scale for column in table.extra_columns}
    own = table.metric.scale if metric in (None, table.metric.key) else 1.0
    return further.get(metric or "", own)


@pytest.mark.parametrize("table", load_all(), ids=lambda table: table.label)
def test_claims_in_per_cent_are_written_in_per_cent(table: Table) -> None:
    for claim in table.claims:
        if claim.kind not in ("order", "within", "difference", "bound") or scale_of(table, claim.metric) != 100:
            continue
        least = 1.0 if claim.kind == "bound" else LEAST
        for name in ("low", "high", "margin"):
            end = getattr(claim, name, None)
            assert not end or abs(end) > least, f"{claim.text}: {name} {end:g} of what is printed in per cent"
