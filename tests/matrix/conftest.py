from __future__ import annotations

import itertools

import pytest
from matrix_cells import Row, config_of, fit

from sparselab.running.planning import engine_of
from sparselab.running.run_cell import run_cell
from sparselab.weights.method import METHODS

TEXT = "Wer reitet so spät durch Nacht und Wind? Es ist der Vater mit seinem Kind.\n" * 30


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``run(row, *overrides, watch=..., change=..., **groups)``: fit a tiny cell under observation."""
    count = itertools.count()

    def run(row, *overrides, watch=None, change=lambda parts: None, **groups):
        return fit(config_of(row, tmp_path / str(next(count)), *overrides, **groups), monkeypatch, watch, change)

    return run


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """A folder with a small text where the data set `tinyshakespeare` looks for its own."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "text").mkdir()
    (folder / "text" / "tinyshakespeare.txt").write_text(TEXT)
    return folder


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    """The folder of a finished dense run."""
    config = config_of(Row("dense", "dense", "constant"), tmp_path_factory.mktemp("teacher"))
    plan = engine_of(config).plan(config, [])
    assert run_cell(plan) == 0
    return plan.folder


@pytest.fixture
def methods(borrowed):
    return borrowed(METHODS)
