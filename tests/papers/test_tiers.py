"""Every table, at every size that it has: no cell that cannot run. Takes minutes, for the slow run."""

from __future__ import annotations

import pytest

from sparselab.core import processor
from sparselab.core.errors import ConfigError
from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.load import load_all
from sparselab.running.planning import plan_of


@pytest.mark.slow
@pytest.mark.parametrize("table", load_all(), ids=lambda table: table.label)
def test_no_cell_of_any_tier_is_refused(table, monkeypatch, tmp_path):
    """Data and weights that are not here are known by their names; only what has no public name may be missing.

    The processor is one that computes LSTMs in bf16: some tables are pinned to that.
    """
    monkeypatch.setattr(processor, "processor_flags", lambda: processor.AVX512 | {"avx512_bf16"})
    (tmp_path / "something_else").mkdir()  # a folder with nothing in it would be refused as such
    monkeypatch.setenv("SPARSELAB_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for tier, size in table.tiers.items():
        for cell in expand(table, tier):
            if cell.seed == size.seeds[0]:
                try:
                    plan_of([*cell.overrides])
                except ConfigError as refused:
                    assert all("no local copy" in str(issue) for issue in refused.issues), f"{tier} {cell}: {refused}"
