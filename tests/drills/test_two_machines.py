"""S2 and S4 once more: two machines on one runs folder, and what a loop of one's own does with a failure."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from test_sweeps import ROOT, computed, expected, results, start


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_s4_control_a_loop_that_stops_at_a_failure(tmp_path: Path) -> None:
    """What people write first ends with its first failure: cells are missing, and no table says why."""
    loop = start(tmp_path, 6, 0.0, "naive", "fail=3")
    output, _ = loop.communicate()
    done = json.loads((tmp_path / "results.json").read_text())
    assert loop.returncode == 1 and len(done) == 3 and "cells failed:" not in output


def test_s2_two_machines_on_one_runs_folder(tmp_path: Path) -> None:
    """Neither can see the other's processes, and their clocks are days apart; one dies without a word.

    What it was at is taken over once its lease shows no sign of life, and until then nobody else touches it.
    """
    cells, options = 30, ("stale=10",)
    one = start(tmp_path, cells, 0.2, "machine=a", *options)
    while not (tmp_path / f"ran-{one.pid}").exists():
        time.sleep(0.01)
    two = start(tmp_path, cells, 0.2, "machine=bb", *options)
    while not (tmp_path / f"ran-{two.pid}").exists():
        time.sleep(0.01)
    one.kill()
    one.communicate()
    output, _ = two.communicate(timeout=200)
    assert two.returncode == 0, output
    runs = computed(tmp_path)
    print(f"S2: 2 machines, 1 killed, {cells} cells, {runs.total()} runs of cells, 0 lost")
    assert results(tmp_path, cells) == expected(cells)
    assert runs.total() <= cells + 1, "the cell under way, and no other, is begun again"
    assert not list(tmp_path.glob("*/lease.json")) and not list(tmp_path.glob("*/record-*.json"))
